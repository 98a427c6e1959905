"""Who is best, who is tied, and by how much: the statistics of `evalrun compare`, on samples joined by id."""

from dataclasses import replace

import numpy as np
import pytest

from evalrun.analysis.paired import paired_difference
from evalrun.analysis.simultaneous import tied_set
from evalrun.reports.columns import RunColumns, joined
from evalrun.reports.standings import equal, ranked, standing_word
from evalrun.reports.view import Primary, RunView, make_runs

NAN = float("nan")


def columns(ids: list[int], scores: list[float], clusters: list[int] | None = None) -> RunColumns:
    found = None if clusters is None else np.array(clusters)
    return RunColumns(np.array(ids), np.array(scores, float), found)


def runs(values: dict[str, float], direction: str = "higher") -> list[RunView]:
    documents = [
        {
            "run": name, "model": "m", "prompt": name, "dataset": "d", "params": {}, "status": "complete",
            "counts": {"samples": 9},
            "metrics": [{"name": "exact_match", "slice": {}, "value": value, "n": 9, "unit": "fraction",
                         "direction": direction}],
        }
        for name, value in values.items()
    ]  # fmt: skip
    return make_runs(documents, documents, Primary("exact_match", "exact_match", True))


def placed(scores: dict[str, list[float]], **others: RunColumns) -> list[RunView]:
    ids = list(range(max(len(each) for each in scores.values())))
    found = {name: columns(ids[: len(each)], each) for name, each in scores.items()} | others
    views = runs({name: float(np.nanmean(each.score)) for name, each in found.items()})
    return ranked(views, found)


def test_joins_by_id_and_averages_repeats() -> None:
    a = columns([5, 5, 2, 9], [1, 0, 1, 1])
    b = columns([9, 2, 5, 7], [0, 1, 0, 1])
    values, clusters = joined([a, b])
    assert values.tolist() == [[0.5, 0], [1, 1], [1, 0]], "in the first run's order"
    assert clusters is None


def test_samples_without_a_score_in_one_run_are_left_out() -> None:
    values, _ = joined([columns([1, 2, 3], [1, NAN, 0]), columns([1, 2, 3], [0, 1, NAN])])
    assert values.tolist() == [[1, 0]]


def test_two_runs_are_compared_by_the_paired_test() -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.random(80) < 0.7).astype(float), (rng.random(80) < 0.5).astype(float)
    found = placed({"a": a.tolist(), "b": b.tolist()})
    expected = paired_difference(b, a)
    difference = found[1].difference
    assert difference is not None
    assert (difference.mean, difference.p) == (expected.difference, expected.p)
    assert (difference.low, difference.high) == (expected.ci_low, expected.ci_high)
    assert difference.detectable == expected.mde


def test_several_runs_are_compared_all_at_once() -> None:
    rng = np.random.default_rng(4)
    values = (rng.random((150, 4)) < [0.8, 0.75, 0.6, 0.4]).astype(float)
    found = placed({name: values[:, at].tolist() for at, name in enumerate("abcd")})
    expected = tied_set(values)
    tied = {run.run for run in found if run.standing == "tied"} | {found[0].run}
    assert tied == {"abcd"[at] for at in expected.tied}
    alone = paired_difference(values[:, 3], values[:, 0])
    last = found[-1].difference
    assert last is not None and last.low is not None and last.high is not None
    assert alone.ci_low is not None and alone.ci_high is not None
    assert last.high - last.low > alone.ci_high - alone.ci_low, "bounds for all pairs at once are wider"


def test_few_samples_that_all_differ_show_nothing() -> None:
    found = placed({"a": [1, 1, 1], "b": [0, 0, 0], "c": [0, 0, 0]})
    assert [run.standing for run in found] == ["best", "tied", "tied"]


def test_where_all_score_the_same_nobody_is_best() -> None:
    same = [1.0, 0.0, 1.0, 1.0] * 10
    found = placed({"a": same, "b": same, "c": same})
    assert [run.standing for run in found] == ["tied"] * 3
    assert equal(found)
    assert [standing_word(run, found) for run in found] == ["same"] * 3


def test_the_same_mean_from_other_samples_is_the_same_too() -> None:
    found = placed({"a": [1.0, 0.0] * 20, "b": [0.0, 1.0] * 20})
    assert equal(found)


def test_best_is_said_only_where_someone_is_behind() -> None:
    found = placed({"a": [1.0] * 20 + [0.0] * 20, "b": [1.0] * 19 + [0.0] * 21})
    assert [standing_word(run, found) for run in found] == ["highest", "tied"]
    both = placed({"a": [1.0] * 20 + [0.0] * 20, "b": [1.0] * 19 + [0.0] * 21, "c": [0.0] * 40})
    assert [standing_word(run, both) for run in both] == ["highest", "tied", ""]
    apart = placed({"a": [1.0] * 40, "b": [0.0] * 40})
    assert [standing_word(run, apart) for run in apart] == ["best", ""]
    (alone,) = placed({"a": [1.0] * 40})
    assert standing_word(alone, [alone]) == ""


def test_lower_can_be_better() -> None:
    views = runs({"a": 0.0, "b": 1.0}, direction="lower")
    ids = list(range(40))
    found = ranked(views, {"a": columns(ids, [0.0] * 40), "b": columns(ids, [1.0] * 40)})
    assert [(run.run, run.standing) for run in found] == [("a", "best"), ("b", "behind")]
    assert found[1].difference is not None and found[1].difference.mean == -1


def test_a_run_with_many_failures_does_not_take_the_samples_from_the_others() -> None:
    good, bad = [1.0] * 60, [0.0] * 60
    broken = columns(list(range(60)), [1.0] * 5 + [NAN] * 55)
    found = {run.run: run for run in placed({"a": good, "b": bad}, broken=broken)}
    assert found["b"].standing == "behind"
    assert found["b"].difference is not None and found["b"].difference.n == 60
    assert "corrected for 3 pairs" in found["b"].difference.method


def test_clusters_are_the_unit() -> None:
    rng = np.random.default_rng(1)
    effect = np.repeat(rng.normal(0.3, 1, size=12), 20)
    ids, clusters = list(range(240)), [at // 20 for at in range(240)]
    scores = effect + rng.normal(scale=0.1, size=240)
    views = runs({"a": float(scores.mean()), "b": 0.0})

    def width(given: list[int] | None) -> float:
        found = ranked(
            views, {"a": columns(ids, scores.tolist(), given), "b": columns(ids, [0.0] * 240, given)}
        )
        difference = found[1].difference or found[0].difference
        assert difference is not None and difference.low is not None and difference.high is not None
        return difference.high - difference.low

    assert width(clusters) > 2 * width(None)


def test_many_samples_are_resampled_in_bunches() -> None:
    rng = np.random.default_rng(5)
    values = (rng.random((24_000, 3)) < [0.52, 0.5, 0.5]).astype(float)
    found = placed({name: values[:, at].tolist() for at, name in enumerate("abc")})
    exact = tied_set(values)
    for run in found[1:]:
        at = "abc".index(run.run)
        bounds = exact.pairs.interval("abc".index(found[0].run), at)
        assert run.difference is not None and bounds is not None
        assert run.difference.low == pytest.approx(bounds[0], abs=0.002)
        assert run.difference.high == pytest.approx(bounds[1], abs=0.002)


def test_without_pairs_nothing_is_said() -> None:
    views = runs({"a": 1.0, "b": 0.5})
    found = ranked(views, {"a": columns([1, 2], [1, 1]), "b": columns([3, 4], [1, 0])})
    assert [run.standing for run in found] == ["best", "unknown"]
    nothing = [replace(view, primary=None) for view in views]
    assert [run.standing for run in ranked(nothing, {})] == ["unknown", "unknown"]
