"""Who is behind whom is decided once: terminal, report, `compare` and `--json` say the same of the same runs.

A hundred seeded cases, as the datasets of four sweeps: two or three runs, right and wrong answers or shares
of words, samples alone or in clusters, all samples or some that failed.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from tests.recorded import document_of, leaderboards, output_of, recorded_suite

CASES = 25
"""Datasets of each sweep."""

Behind = Mapping[str, frozenset[str]]
"""By dataset, the models that are behind its best."""


def drawn_dataset(name: str, models: str, scorer: str, drawn: random.Random) -> dict[str, Any]:
    """A dataset with a column of answers for each model; those after the first are worse by a few answers.

    So few that chance is often a matter of a sample more or less.
    """
    n, clustered, gappy = drawn.randint(12, 90), drawn.random() < 0.3, drawn.random() < 0.3
    best = [drawn.random() < 0.7 for _ in range(n)]
    answers = {models[0]: best}
    for model in models[1:]:
        answers[model] = list(best)
        for right, most in ((True, 9), (False, 2)):
            places = [at for at in range(n) if best[at] is right]
            for at in drawn.sample(places, min(len(places), drawn.randint(0, most))):
                answers[model][at] = not right
    rows: list[dict[str, Any]] = []
    for at in range(n):
        row: dict[str, Any] = {"id": f"s{at:02}", "want": "one two three", "unit": f"u{at // 3}"}
        for model in models:
            words = 3 if answers[model][at] else 0 if scorer == "exact_match" else drawn.randint(0, 2)
            answer = " ".join(row["want"].split()[:words]) or "none"
            row[model] = None if gappy and drawn.random() < 0.1 else answer
        rows.append(row)
    grouping = {"cluster": "unit"} if clustered else {}
    return {"id": name, "rows": rows, "key": "id", "target": "want", **grouping}


@dataclass(frozen=True)
class Case:
    """A sweep of `models` over many datasets, and what each place says of them."""

    folder: Path
    models: str
    document: dict[str, Any]

    @property
    def words(self) -> list[str]:
        return [self.document["sweep"], "--store", str(self.folder / "store")]

    @cached_property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(run["dataset"] for run in self.document["runs"]))

    @cached_property
    def terminal(self) -> Behind:
        """Rows without a word are behind; the first of them is not."""
        behind: dict[str, frozenset[str]] = {}
        for part in re.split(r"^(?=d\d+$)", output_of("show", *self.words), flags=re.M)[1:]:
            rows = re.findall(rf"^([{self.models}]) +([a-z]*) +\d", part, re.M)
            assert len(rows) == len(self.models), part
            behind[part.split()[0]] = frozenset(model for model, word in rows[1:] if word != "tied")
            if all(word == "same" for _, word in rows):
                behind[part.split()[0]] = frozenset()
        return behind

    @cached_property
    def report(self) -> Behind:
        page = self.folder / "page.html"
        output_of("report", *self.words, "--out", page)
        boards = [[row[0].split() for row in rows[1:]] for rows in leaderboards(page)]
        assert len(boards) == len(self.datasets)
        return {
            name: frozenset(words[0] for words in rows[1:] if words[1:] not in (["tied"], ["same"]))
            for name, rows in zip(self.datasets, boards, strict=True)
        }

    @cached_property
    def within(self) -> Behind:
        """`evalrun compare SWEEP`."""
        document = document_of("compare", *self.words)
        return {
            standing["dataset"]: frozenset(
                place["run"]["model"] for place in standing["places"] if not place["tied"]
            )
            for standing in document["standings"]
        }

    @cached_property
    def pairs(self) -> Behind:
        """`evalrun compare SWEEP/RUN SWEEP/RUN`, of sweeps with two runs a dataset."""
        behind = {}
        sweep, *store = self.words
        for name in self.datasets:
            one, other = (f"{sweep}/{model}-p-{name}" for model in self.models)
            (entry,) = document_of("compare", one, other, *store)["comparisons"]
            worse = {"better": self.models[0], "worse": self.models[1]}.get(entry["verdict"])
            behind[name] = frozenset([worse] if worse else [])
        return behind

    @cached_property
    def standings(self) -> dict[str, dict[str, dict[str, Any]]]:
        """`standings` of `--json`, by dataset and model."""
        places = {run["run"]: (run["dataset"], run["model"]) for run in self.document["runs"]}
        found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in self.datasets}
        for standing in self.document["standings"]:
            dataset, model = places[standing["run"]]
            found[dataset][model] = standing
        return found

    @property
    def json(self) -> Behind:
        """The same, as the models that are behind."""
        return {
            dataset: frozenset(model for model, each in places.items() if each["verdict"] == "behind")
            for dataset, places in self.standings.items()
        }


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    found = []
    for models in ("ab", "abc"):
        for scorer in ("exact_match", "token_f1"):
            folder = tmp_path_factory.mktemp(models)
            drawn = random.Random(f"{models} {scorer}")
            datasets = [drawn_dataset(f"d{at}", models, scorer, drawn) for at in range(CASES)]
            suite = recorded_suite(folder, [], models, datasets=datasets, scorers=[scorer])
            document = document_of(suite, "--store", folder / "store", "--no-report")
            found.append(Case(folder, models, document))
    return found


def differing(cases: list[Case], one: str, other: str) -> dict[str, tuple[list[str], list[str]]]:
    """The cases in which two places name other runs as behind."""
    found = {}
    for case in cases:
        here, there = getattr(case, one), getattr(case, other)
        assert here.keys() == there.keys() and len(here) == CASES
        for name in case.datasets:
            if here[name] != there[name]:
                found[f"{case.folder.name} {name}"] = (sorted(here[name]), sorted(there[name]))
    return found


def test_report_and_terminal(cases: list[Case]) -> None:
    assert differing(cases, "report", "terminal") == {}
    sizes = Counter(len(behind) for case in cases for behind in case.terminal.values())
    assert sizes[0] > 15 and sizes[1] > 15, "many are tied, many behind"


def test_compare_within_a_sweep_and_terminal(cases: list[Case]) -> None:
    assert differing(cases, "within", "terminal") == {}


def test_compare_of_two_runs_and_terminal(cases: list[Case]) -> None:
    """Where a sweep has two runs: of three, a pair alone is corrected for less."""
    assert differing([case for case in cases if len(case.models) == 2], "pairs", "terminal") == {}


def test_json_and_terminal(cases: list[Case]) -> None:
    assert differing(cases, "json", "terminal") == {}


def test_standings_in_json(cases: list[Case]) -> None:
    """Each run once, with the figures that its verdict rests on; `show` says the same as the sweep did."""
    for case in cases:
        keys = {"run", "metric", "verdict", "difference", "ci_low", "ci_high", "p"}
        assert {standing["run"] for standing in case.document["standings"]} == {
            run["run"] for run in case.document["runs"]
        }
        for places in case.standings.values():
            assert all(keys <= standing.keys() for standing in places.values())
            verdicts = Counter(standing["verdict"] for standing in places.values())
            assert verdicts.keys() <= {"best", "tied", "behind"}, "all share samples: none is incomparable"
            if verdicts["behind"] == len(places) - 1:
                assert verdicts["best"] == 1
            for standing in places.values():
                if standing["verdict"] == "behind":
                    assert standing["p"] <= 0.05 and standing["difference"] != 0
                    assert standing["ci_low"] <= standing["difference"] <= standing["ci_high"]
        assert document_of("show", *case.words)["standings"] == case.document["standings"]
