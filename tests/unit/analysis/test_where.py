"""Where it broke: slices that hold more of the affected samples than chance puts there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from evalrun.analysis.where import _tail, concentrations, ended_badly


def _file(tmp_path: Path, **columns: Sequence[Any]) -> Path:
    n = len(next(iter(columns.values())))
    named = {name.replace("__", "."): list(values) for name, values in columns.items()}
    path = tmp_path / "samples.parquet"
    pq.write_table(pa.table({"sample_id": [f"s{at}" for at in range(n)], **named}), path)
    return path


def _ids(rows: Sequence[int]) -> set[str]:
    return {f"s{at}" for at in rows}


@given(st.integers(5, 60), st.data())
def test_the_tail_is_fishers(total: int, data: st.DataObject) -> None:
    affected = data.draw(st.integers(1, total - 1))
    size = data.draw(st.integers(1, total - 1))
    hits = data.draw(st.integers(max(0, size + affected - total), min(size, affected)))
    logs = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, total + 1)))))
    table = [[hits, size - hits], [affected - hits, total - affected - size + hits]]
    right = fisher_exact(table, alternative="greater").pvalue
    assert _tail(hits, total, affected, size, logs) == pytest.approx(right, rel=1e-8, abs=1e-12)


def test_all_regressions_in_one_target_are_found_there(tmp_path: Path) -> None:
    targets = ["shipping" if at % 4 == 0 else "billing" for at in range(140)]
    path = _file(tmp_path, target=targets, vars__team=targets, vars__text=[f"text {at}" for at in range(140)])
    (found,) = concentrations(path, _ids(range(0, 140, 4)))
    # The column `team` says the same, and is not said twice.
    assert (found.column, found.value) == ("target", "shipping")
    assert (found.inside, found.size, found.affected, found.total) == (35, 35, 35, 140)
    assert found.p < 1e-20
    assert found.sample_ids == ("s0", "s4", "s8", "s12", "s16")


def test_long_inputs_are_found_by_their_length(tmp_path: Path) -> None:
    texts = [f"{at} " + "x" * (300 if at >= 90 else at % 50) for at in range(120)]
    (found,) = concentrations(_file(tmp_path, vars__text=texts), _ids(range(90, 120)))
    assert found.column == "length of text"
    assert found.value.startswith("highest quarter (above ")
    assert found.inside == 30


def test_numbers_of_many_values_go_by_quarters_and_few_by_value(tmp_path: Path) -> None:
    path = _file(
        tmp_path, vars__age=[float(at) for at in range(120)], vars__level=[at % 3 for at in range(120)]
    )
    (old,) = concentrations(path, _ids(range(95, 120)))
    assert (old.column, old.value) == ("age", "highest quarter (above 89.25)")
    (level,) = concentrations(path, _ids(range(2, 120, 3)))
    assert (level.column, level.value) == ("level", "2")


def test_what_is_spread_evenly_is_nowhere(tmp_path: Path) -> None:
    path = _file(tmp_path, target=["a", "b"] * 60, finish_reason=["stop"] * 120)
    assert concentrations(path, _ids(range(0, 120, 3))) == ()
    assert concentrations(path, _ids(range(4))) == ()  # too few to say
    assert concentrations(path, _ids(range(120))) == ()  # everything


def test_rows_of_a_cluster_count_once(tmp_path: Path) -> None:
    # Six questions in twenty wordings each: two whole clusters went wrong, and hold all of one target.
    clusters = [f"c{at // 20}" for at in range(120)]
    targets = ["x" if at < 40 else "y" for at in range(120)]
    path = _file(tmp_path, cluster=clusters, target=targets)
    assert concentrations(path, _ids(range(40))) == ()
    alone = _file(tmp_path, target=targets)
    assert concentrations(alone, _ids(range(40)))


def test_the_answers_of_a_recording_say_nothing_of_where(tmp_path: Path) -> None:
    output = ["wrong" if at < 30 else "right" for at in range(100)]
    path = _file(tmp_path, output=output, vars__answer=output, target=["right"] * 100)
    assert concentrations(path, _ids(range(30))) == ()


def test_only_samples_that_could_be_affected_count(tmp_path: Path) -> None:
    path = _file(tmp_path, target=["a"] * 50 + ["b"] * 50)
    (found,) = concentrations(path, _ids(range(10)), _ids([*range(20), *range(50, 100)]))
    assert (found.inside, found.size, found.total) == (10, 20, 70)


def test_chance_alone_shows_a_slice_in_one_of_twenty_runs_at_most(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    n = 150
    columns = {f"vars__c{at}": [str(each) for each in rng.integers(0, 4, n)] for at in range(6)}
    path = _file(tmp_path, target=[str(each) for each in rng.integers(0, 5, n)], **columns)
    shown = sum(bool(concentrations(path, _ids(np.flatnonzero(rng.random(n) < 0.2)))) for _ in range(200))
    assert shown <= 18  # 5 % of 200 and three standard errors


def test_what_speaks_against_a_metric(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        score__s=[0.0, 1.0, 0.2, None, 1.0, 0.0],
        score__big=[10.0] * 6,
        status=["scored", "failed", "scored", "scored", "unparsed", "scored"],
        sensitive__g=["x", "x", "y", "y", "x", "y"],
    )
    assert ended_badly(path, "s", "s", {}) == (_ids([0, 2, 5]), _ids([0, 1, 2, 4, 5]))
    assert ended_badly(path, "s", "s", {"g": "x"}) == (_ids([0]), _ids([0, 1, 4]))
    assert ended_badly(path, "error_rate", "", {}) == (_ids([1]), _ids(range(6)))
    assert ended_badly(path, "big", "big", {}) == (set(), set())
    assert ended_badly(path, "performance.e2e_s.p95", "", {}) == (set(), set())


def test_columns_of_recorded_answers_are_no_slices(tmp_path: Path) -> None:
    """Of no model of the suite, although the other one's answers go along with the mistakes."""
    run = tmp_path / "runs" / "a-p-d"
    run.mkdir(parents=True)
    models = [{"provider": "recorded", "column": name} for name in ("a", "b")]
    (tmp_path / "sweep.json").write_text(json.dumps({"suite": {"resolved": {"models": models}}}))
    kinds = ["x" if at < 30 else "y" for at in range(120)]
    path = _file(run, vars__b=kinds)
    assert concentrations(path, _ids(range(30))) == ()
    (tmp_path / "sweep.json").unlink()
    assert concentrations(path, _ids(range(30)))


def test_columns_of_any_kind_are_looked_at(tmp_path: Path) -> None:
    bad = [at % 4 == 0 for at in range(120)]
    kinds: list[list[Any]] = [
        bad,
        [float("nan") if each else 1.5 for each in bad],
        [None if each else "a" for each in bad],
        [["x"] if each else ["y"] for each in bad],
    ]
    found = [
        [
            (each.value, each.inside)
            for each in concentrations(_file(tmp_path, vars__c=kind), _ids(range(0, 120, 4)))
        ]
        for kind in kinds
    ]
    # What has no value is no slice.
    assert found == [[("true", 30)], [("null", 30)], [], [('["x"]', 30)]]
    many = [float("nan") if each else float(at) for at, each in enumerate(bad)]
    assert concentrations(_file(tmp_path, vars__c=many), _ids(range(0, 120, 4))) == ()


def test_a_value_says_more_than_a_length_and_the_length_of_a_name_nothing(tmp_path: Path) -> None:
    kinds = ["date" if at % 4 == 0 else "navigation" for at in range(80)]
    ids = [f"{kind}-{at:03d}" for at, kind in enumerate(kinds)]
    texts = ["?" * (9 if kind == "date" else 20 + at % 30) for at, kind in enumerate(kinds)]
    path = _file(tmp_path, sample_id=ids, **{"vars.case": ids, "vars.kind": kinds, "vars.text": texts})
    affected = {name for name, kind in zip(ids, kinds, strict=True) if kind == "date"}
    [found] = concentrations(path, affected)
    assert (found.column, found.value, found.inside) == ("kind", "date", 20)
