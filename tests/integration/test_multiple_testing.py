"""Comparisons are corrected for being many: in fairness, in the standings of a sweep, in `compare`."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import fisher_exact
from tests.recorded import document_of, output_of, recorded_suite, yes_no


def step_down(ps: Sequence[float]) -> list[float]:
    """Holm (1979): the smallest of m times m, the next times m - 1, …, none below one before it."""
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, at in enumerate(sorted(range(len(ps)), key=lambda at: ps[at])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[at]))
        adjusted[at] = highest
    return adjusted


def contrasts_of(run: dict[str, Any]) -> dict[str, dict[str, float]]:
    """For each column, the p of each group's contrast of exact_match, as its note has it."""
    ps: dict[str, dict[str, float]] = defaultdict(dict)
    for metric in run["metrics"]:
        if (name := re.fullmatch(r"fairness\.(\w+)\.exact_match\.contrast", metric["name"])) is not None:
            said = re.search(r"p = ([0-9.e-]+)", metric["note"])
            assert said is not None, metric
            ps[name[1]][metric["slice"][name[1]]] = float(said[1])
    return ps


def grouped_suite(folder: Path, rows: list[dict[str, Any]], columns: list[str], **dataset: Any) -> Path:
    data = {"id": "d", "path": "rows.jsonl", "key": "id", "target": "want", "sensitive": columns, **dataset}
    return recorded_suite(folder, rows, ["m"], datasets=[data], fairness={"by": columns})


def test_contrasts_of_groups_are_corrected_by_holm(project: Path) -> None:
    """Groups of shares from 50 % to 80 %, against the rest: Fisher's exact test, then Holm by hand."""
    hits = {"a": 30, "b": 36, "c": 24, "d": 38}
    groups = [name for name in hits for _ in range(48)]
    rows = yes_no([at < hits[name] for name in hits for at in range(48)], group=groups)
    (run,) = document_of(grouped_suite(project, rows, ["group"]), "--no-report")["runs"]
    plain = [
        fisher_exact([[n, 48 - n], [sum(hits.values()) - n, 144 - sum(hits.values()) + n]]).pvalue
        for n in hits.values()
    ]
    assert min(plain) < 0.01 < 2 * min(plain), "corrected and plain p must differ where it matters"
    found = contrasts_of(run)["group"]
    assert [found[name] for name in hits] == pytest.approx(step_down(plain), rel=0.05)


def test_after_holm_one_column_in_twenty_has_a_false_alarm(project: Path) -> None:
    """80 columns of groups that do not differ, on samples that come in clusters of three."""
    drawn = random.Random(1)
    rates = [drawn.betavariate(2, 2) for _ in range(160)]
    columns = {f"g{at}": [drawn.choice("abcd") for _ in rates] for at in range(80)}
    rows = yes_no(
        [drawn.random() < rate for rate in rates for _ in range(3)],
        unit=[f"u{at}" for at in range(160) for _ in range(3)],
        **{name: [label for label in labels for _ in range(3)] for name, labels in columns.items()},
    )
    (run,) = document_of(grouped_suite(project, rows, list(columns), cluster="unit"), "--no-report")["runs"]
    found = contrasts_of(run)
    assert len(found) == 80 and all(len(ps) == 4 for ps in found.values())
    # 4 are expected, 14 without a correction: four contrasts a column.
    assert sum(min(ps.values()) <= 0.05 for ps in found.values()) <= 6


def b_is_tied_of_three_and_behind_of_two(suite: Path) -> None:
    three = output_of(suite, "--no-report", "--quiet", "--fresh")
    assert re.search(r"^b +tied ", three, re.M), three
    two = output_of(suite, "--no-report", "--quiet", "--fresh", "--models", "a,b")
    assert re.search(r"^b +0\.", two, re.M), two
    assert re.search(r"^a +best ", two, re.M), two


def test_runs_are_corrected_for_their_number(project: Path) -> None:
    """`b` loses 40 answers and wins 23: p = 0.04 for one pair, which is not enough of three runs."""
    rows = []
    for at in range(160):
        a = at < 120
        b = a != (at < 40 or at >= 137)
        c = a != (at in (1, 3, 45, 50, 60, 150, 155))
        answers = {name: "yes" if right else "no" for name, right in (("a", a), ("b", b), ("c", c))}
        rows.append({"id": f"s{at}", "want": "yes", **answers})
    b_is_tied_of_three_and_behind_of_two(recorded_suite(project, rows, "abc"))


def test_runs_that_share_few_samples_are_corrected_for_their_number(project: Path) -> None:
    """`b` is wrong where `a` is right six times, never the other way round: p = 2 / 2^6 = 0.03 for one pair.

    Each of the others lacks another third of the samples, so that they are compared with `a` one by one.
    """
    rows = []
    for at in range(60):
        right = at % 6 != 0
        lost = right and at in (22, 27, 32, 43, 49, 56)
        rows.append(
            {"id": f"s{at}", "want": "yes", "a": "yes" if right else "no"}
            | {"b": None if at < 20 else "yes" if right and not lost else "no"}
            | {"c": None if at >= 40 else "yes" if right else "no"}
        )
    assert sum(row["a"] == "yes" and row["b"] == "no" for row in rows) == 6
    b_is_tied_of_three_and_behind_of_two(recorded_suite(project, rows, "abc"))


def test_compare_corrects_over_everything_compared(project: Path) -> None:
    """Five datasets on which a model lost 3 to 9 samples and won none: McNemar's exact p is 2 / 2^n."""
    losses = (3, 5, 6, 7, 9)
    datasets = [
        {
            "id": f"lost{n}",
            "rows": [
                {"id": f"s{at}", "want": "yes", "old": "yes", "new": "no" if at < n else "yes"}
                for at in range(40)
            ],
            "key": "id",
            "target": "want",
        }
        for n in losses
    ]
    for name in ("old", "new"):
        models = [{"id": "m", "provider": "recorded", "column": name}]
        suite = recorded_suite(project, [], [], name=name, models=models, datasets=datasets)
        output_of(suite, "--no-report", "--quiet")
    plain = [2 / 2**n for n in losses]
    words = {"holm": step_down(plain), "none": plain}
    for correction, expected in words.items():
        document = document_of("compare", "old", "new", "--correction", correction)
        found = {entry["b"]["dataset"]: entry for entry in document["comparisons"]}
        entries = [found[f"lost{n}"] for n in losses]
        assert [entry["p"] for entry in entries] == pytest.approx(plain)
        assert [entry["p_corrected"] for entry in entries] == pytest.approx(expected)
        assert [entry["verdict"] == "worse" for entry in entries] == [p <= 0.05 for p in expected]
    assert [p <= 0.05 for p in step_down(plain)] != [p <= 0.05 for p in plain]
