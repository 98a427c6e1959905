"""One rule for best, tied and behind: on columns of numbers, and on runs of a sweep joined by sample id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evalrun.analysis.compare import compare
from evalrun.analysis.conclude import conclude_sweep, read_sweep
from evalrun.analysis.measures import runs_of, score_measure
from evalrun.analysis.paired import paired_difference
from evalrun.analysis.pairing import Chosen
from evalrun.analysis.standings import AllPairs, Pairs, Ranking
from evalrun.sweep_results import Standing
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.parquet import journal_to_parquet
from evalrun.tracking.store import Store
from evalrun.types import MetricValue

Floats = NDArray[np.float64]
Scores = Sequence[float | None]


def folder_of(
    root: Path,
    scores: dict[str, Scores],
    *,
    direction: str = "higher",
    seconds: dict[str, float] | None = None,
) -> SweepFolder:
    """A sweep of one dataset, a run for each list of scores; None is a failed sample."""
    folder = Store(root / "store").create_sweep("s")
    plan = [{"run": run, "model": run, "prompt": "p", "dataset": "d", "params": {}} for run in scores]
    suite = {"resolved": {"scorers": [{"exact_match": {}}], "seed": 3}}
    folder.write_manifest(
        {
            "sweep": folder.ulid,
            "name": "s",
            "project": "s",
            "status": "complete",
            "plan": plan,
            "suite": suite,
        }
        | {"seeds": {"root": 3}, "datasets": {"d": {"digest": "d1"}}}
    )
    for planned, values in zip(plan, scores.values(), strict=True):
        path = folder.run_dir(planned["run"])
        rows = [
            {
                "sample_id": f"q{at:05d}", "repeat": 0, "position": at, "target": "t", "vars": {},
                "status": "failed" if score is None else "scored", "attempts": 1, "cached": False,
                "warmup": False, "scores": {} if score is None else {"exact_match": score},
            }
            for at, score in enumerate(values)
        ]  # fmt: skip
        (path / "journal.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        journal_to_parquet(path / "journal.jsonl", path / "samples.parquet")
        known = [score for score in values if score is not None]
        metrics = [
            {"name": "exact_match", "value": float(np.mean(known)) if known else None, "n": len(known),
             "unit": "fraction", "direction": direction}
        ]  # fmt: skip
        if seconds is not None:
            metrics.append(
                {"name": "performance.e2e_s.p50", "value": seconds[planned["run"]], "n": 1, "unit": "s",
                 "direction": "lower"}
            )  # fmt: skip
        folder.finish_run(planned["run"], {**planned, "metrics": metrics})
    return folder


def standings(root: Path, scores: dict[str, Scores], **options: object) -> dict[str, Standing]:
    found = read_sweep(folder_of(root, scores, **options)).results.standings  # type: ignore[arg-type]
    return {each.run: each for each in found}


def verdicts(root: Path, scores: dict[str, Scores], **options: object) -> dict[str, str]:
    return {run: each.verdict for run, each in standings(root, scores, **options).items()}


# Columns


columns = st.integers(2, 4).flatmap(
    lambda k: st.lists(
        st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=k, max_size=k), min_size=1, max_size=40
    )
)


@settings(deadline=None, max_examples=150)
@given(rows=columns, binary=st.booleans(), alpha=st.sampled_from([0.05, 0.2]))
def test_p_and_bounds_agree(rows: list[list[float]], binary: bool, alpha: float) -> None:
    values = np.array(rows)
    values = np.round(values + 0.1) if binary else values
    pairs = Pairs(values, None, alpha=alpha, seed=0)
    for i, j in [(0, 1), (1, 0), (0, values.shape[1] - 1)]:
        found = pairs.apart(i, j)
        if found.low is None or found.high is None:  # all samples differ by the same
            continue
        assert found.low <= found.difference <= found.high
        assert (found.p <= alpha) == (found.low > 0 or found.high < 0)


def test_the_greatest_of_all_pairs_is_as_rare_as_it_says() -> None:
    # Six runs of the same quality: who looks best is chance, and the worst must not be called worse.
    rng = np.random.default_rng(12)
    wrong = 0
    for seed in range(200):
        difficulty = rng.random(80)
        values = (rng.random((6, 80)) < difficulty).T.astype(float)
        pairs = AllPairs(values, seed=seed)
        wrong += pairs.p(int(pairs.means.argmax()), int(pairs.means.argmin())) <= 0.05
    assert wrong / 200 <= 0.08


def test_two_columns_are_compared_by_the_exact_test() -> None:
    rng = np.random.default_rng(3)
    values = (rng.random((80, 2)) < [0.8, 0.5]).astype(float)
    found = Pairs(values, None, alpha=0.05, seed=0).apart(0, 1)
    expected = paired_difference(values[:, 1], values[:, 0])
    assert expected.p is not None and expected.p < 0.05
    assert (found.difference, found.p, found.detectable) == (expected.difference, expected.p, expected.mde)
    assert (found.low, found.high) == (expected.ci_low, expected.ci_high)


def test_bounds_for_all_pairs_are_wider_than_for_one() -> None:
    rng = np.random.default_rng(4)
    values = (rng.random((150, 4)) < [0.8, 0.75, 0.6, 0.4]).astype(float)
    found = Pairs(values, None, alpha=0.05, seed=0).apart(0, 3)
    alone = paired_difference(values[:, 3], values[:, 0])
    assert found.low is not None and found.high is not None
    assert alone.ci_low is not None and alone.ci_high is not None
    assert found.low < alone.ci_low and found.high > alone.ci_high


def test_a_difference_that_never_varies_is_believed_as_far_as_the_sign_test_goes() -> None:
    for n, pairs in ((3, 1), (12, 1), (3, 3), (12, 3)):
        values = np.zeros((n, 2 if pairs == 1 else 3))
        values[:, 1] = 1
        found = Pairs(values, None, alpha=0.05, seed=0).apart(1, 0)
        assert found.p == pytest.approx(min(1.0, pairs * 2.0 ** (1 - n)))


def test_many_samples_are_resampled_in_bunches() -> None:
    rng = np.random.default_rng(5)
    values = (rng.random((24_000, 3)) < [0.52, 0.5, 0.5]).astype(float)
    bunched, whole = AllPairs(values), AllPairs(values, np.arange(24_000))
    assert (bunched.units, whole.units) == (5_000, 24_000)
    for one, other in zip(bunched.interval(0, 1) or (), whole.interval(0, 1) or (), strict=True):
        assert one == pytest.approx(other, abs=0.002)


def test_clusters_are_the_unit() -> None:
    rng = np.random.default_rng(14)
    codes = np.repeat(np.arange(20), 20)
    shared = rng.normal(0.25, 0.5, 20)[codes]
    for others in (0, 1):
        values = np.stack([shared, *[np.zeros(400)] * (others + 1)], axis=1)
        assert Pairs(values, None, alpha=0.05, seed=0).apart(0, 1).p <= 0.05
        assert Pairs(values, codes, alpha=0.05, seed=0).apart(0, 1).p > 0.05


# Runs


def test_the_best_is_best_where_all_others_are_behind(tmp_path: Path) -> None:
    found = standings(tmp_path, {"bad": [0.0] * 40, "good": [1.0] * 40, "middle": [1.0] * 20 + [0.0] * 20})
    assert [(run, each.verdict) for run, each in found.items()] == [
        ("good", "best"), ("middle", "behind"), ("bad", "behind"),
    ]  # fmt: skip
    assert found["good"].difference is None
    assert found["bad"].difference == 1 and found["bad"].n == 40
    assert found["middle"].ci_low is not None and found["middle"].ci_low > 0


def test_few_samples_that_all_differ_show_nothing(tmp_path: Path) -> None:
    found = verdicts(tmp_path, {"a": [1, 1, 1], "b": [0, 0, 0], "c": [0, 0, 0]})
    assert found == {"a": "best", "b": "tied", "c": "tied"}


def test_where_all_have_the_same_value_nobody_is_best(tmp_path: Path) -> None:
    same = [1.0, 0.0] * 20
    assert verdicts(tmp_path, {"a": same, "b": same, "c": same[::-1]}) == dict.fromkeys("abc", "tied")


def test_of_equal_runs_the_faster_comes_first(tmp_path: Path) -> None:
    same = [1.0, 0.0] * 20
    found = standings(tmp_path, {"slow": same, "quick": same}, seconds={"slow": 2.0, "quick": 1.0})
    assert list(found) == ["quick", "slow"]


def test_lower_can_be_better(tmp_path: Path) -> None:
    found = standings(tmp_path, {"a": [1.0] * 40, "b": [0.0] * 40}, direction="lower")
    assert [(run, each.verdict) for run, each in found.items()] == [("b", "best"), ("a", "behind")]
    assert found["a"].difference == -1


def test_a_run_with_many_failures_does_not_take_the_samples_from_the_others(tmp_path: Path) -> None:
    broken: Scores = [1.0] * 5 + [None] * 55
    found = standings(tmp_path, {"a": [1.0] * 60, "b": [0.0] * 60, "broken": broken})
    assert found["b"].verdict == "behind" and found["b"].n == 60
    assert "corrected for 3 pairs" in found["b"].method


def test_what_shares_no_sample_cannot_be_compared(tmp_path: Path) -> None:
    half: Scores = [1.0] * 9 + [None] * 10
    other: Scores = [None] * 9 + [1.0] * 9 + [0.0]
    nothing: Scores = [None] * 19
    assert verdicts(tmp_path, {"half": half, "other": other, "nothing": nothing}) == {
        "half": "best", "other": "incomparable", "nothing": "incomparable",
    }  # fmt: skip


def test_a_lone_run_is_best(tmp_path: Path) -> None:
    assert verdicts(tmp_path, {"a": [1.0, 0.0]}) == {"a": "best"}


@pytest.mark.parametrize("k", [2, 3])
def test_compare_says_the_same_as_the_standings(tmp_path: Path, k: int) -> None:
    rng = np.random.default_rng(k)
    for case in range(12):
        rates = 0.5 + np.linspace(0.3, 0, k) * rng.random()
        scores = {f"r{at}": (rng.random(60) < rate).astype(float).tolist() for at, rate in enumerate(rates)}
        folder = folder_of(tmp_path / str(case), scores)
        found = read_sweep(folder).results.standings
        best = found[0].run
        within = compare([Chosen(folder)])
        assert [place.run.run for place in within.standings[0].places] == [each.run for each in found]
        assert [place.verdict for place in within.standings[0].places] == [each.verdict for each in found]
        for each in found[1:]:
            (pair,) = compare([Chosen(folder, best), Chosen(folder, each.run)]).compared
            assert pair.p_corrected == each.p
            assert (pair.verdict.word == "worse") == (each.verdict == "behind")


def test_the_seed_is_the_sweeps(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    folder = folder_of(tmp_path, {name: rng.random(50).tolist() for name in "abc"})
    runs = runs_of(folder)
    metric = MetricValue("exact_match", None, 0, "fraction", "higher")
    measure = score_measure("exact_match", metric)
    ps = [Ranking(runs, measure, alpha=0.05, seed=seed).standings()[1].p for seed in (1, 1, 2)]
    assert ps[0] == ps[1] != ps[2]
    assert runs[0].seed == 3


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    folder = folder_of(tmp_path, {name: rng.integers(0, 2, 50).astype(float).tolist() for name in "abc"})
    computed = read_sweep(folder)
    folder.update_manifest(**conclude_sweep(folder))
    for run in "abc":
        folder.samples_path(run).unlink()
    stored = read_sweep(folder)
    assert stored.results == computed.results
    assert stored.results.primary is not None and stored.results.primary.metric == "exact_match"
    assert stored.runs == computed.runs
    assert [each["verdict"] for each in folder.read_manifest()["standings"]] == [
        each.verdict for each in stored.results.standings
    ]


def test_without_samples_only_the_order_is_known(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"a": [1.0] * 40, "b": [0.0] * 40})
    for run in "ab":
        folder.samples_path(run).unlink()
    found = read_sweep(folder).results.standings
    assert [(each.run, each.verdict) for each in found] == [("a", "best"), ("b", "incomparable")]
