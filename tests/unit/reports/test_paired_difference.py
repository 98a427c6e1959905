"""Differences between runs, sample by sample."""

import numpy as np
import pytest

from evalrun.reports.columns import RunColumns
from evalrun.reports.paired import paired_difference


def columns(ids: list[int], scores: list[float], clusters: list[int] | None = None) -> RunColumns:
    found = None if clusters is None else np.array(clusters)
    return RunColumns(np.array(ids), np.array(scores, float), found)


def test_pairs_by_id_and_not_by_position() -> None:
    a = columns([1, 2, 3, 4], [1, 1, 0, 1])
    b = columns([4, 3, 2, 1], [1, 0, 1, 1])
    found = paired_difference(a, b)
    assert found is not None
    assert (found.mean, found.n) == (0.0, 4)
    assert not found.distinguishable


def test_is_the_paired_t_interval() -> None:
    a = columns(list(range(10)), [1, 1, 1, 1, 1, 1, 0, 0, 1, 1])
    b = columns(list(range(10)), [0, 1, 0, 1, 0, 1, 0, 1, 0, 0])
    found = paired_difference(a, b)
    assert found is not None and found.low is not None and found.high is not None
    d = np.array([1, 0, 1, 0, 1, 0, 0, -1, 1, 1])
    half = 2.2621571628 * d.std(ddof=1) / 10**0.5
    assert found.low == pytest.approx(d.mean() - half)
    assert found.high == pytest.approx(d.mean() + half)
    assert found.method == "paired t"


def test_only_shared_scored_samples_count() -> None:
    a = columns([1, 2, 3, 9], [1, 0, float("nan"), 1])
    b = columns([1, 2, 3, 8], [0, 0, 1, 1])
    found = paired_difference(a, b)
    assert found is not None
    assert (found.n, found.mean) == (2, 0.5)
    assert paired_difference(columns([1], [1]), columns([2], [1])) is None


def test_repeats_are_averaged_before_pairing() -> None:
    a = columns([1, 1, 2, 2], [1, 0, 1, 1])
    b = columns([1, 2], [0, 0])
    found = paired_difference(a, b)
    assert found is not None
    assert (found.n, found.mean) == (2, 0.75)


def test_clusters_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    clusters = [i // 10 for i in range(200)]
    effect = np.repeat(rng.normal(size=20), 10)
    scores = (effect + rng.normal(scale=0.1, size=200)).tolist()
    ids, nought = list(range(200)), [0.0] * 200
    plain = paired_difference(columns(ids, scores), columns(ids, nought))
    clustered = paired_difference(columns(ids, scores, clusters), columns(ids, nought, clusters))
    assert plain is not None and clustered is not None and plain.se and clustered.se
    assert clustered.se > 2 * plain.se
    assert clustered.method == "paired clustered t"


def test_equal_runs_are_not_distinguishable_and_constant_differences_are() -> None:
    same = paired_difference(columns([1, 2, 3], [1, 0, 1]), columns([1, 2, 3], [1, 0, 1]))
    assert same is not None and not same.distinguishable
    ids = list(range(20))
    always = paired_difference(columns(ids, [1.0] * 20), columns(ids, [0.0] * 20))
    assert always is not None and always.distinguishable
    few = paired_difference(columns([1, 2], [1, 1]), columns([1, 2], [0, 0]))
    assert few is not None and not few.distinguishable
