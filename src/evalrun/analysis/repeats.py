"""What several answers to the same sample say: how much of the spread is chance, how often one is right.

Every function takes one entry an answer, with `ids` saying which sample it belongs to. Repeats of a sample
are never counted as samples: n is the number of samples everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.bootstrap import bootstrap_units, percentile_interval
from evalrun.analysis.catalogue import consistency_info, repeat_info
from evalrun.analysis.intervals import Bounds, few_clusters, mean
from evalrun.analysis.quality import counted, metric, score_column
from evalrun.analysis.samples import SampleTable
from evalrun.canonical import figure_seed
from evalrun.results import Estimate
from evalrun.scoring.base import MetricInfo, Scorer
from evalrun.types import MetricValue

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Spread:
    """Where the variance of scores comes from (one-way analysis of variance with samples as groups).

    `samples` with `answers` in all; `within` the variance of one sample's answers about its mean, `between`
    that of the samples' true means. `se` is the standard error of the mean as it is; `se_many_repeats` what
    would be left of it with endless repeats: only more samples reduce that.
    """

    samples: int
    answers: int
    mean: float | None
    within: float | None
    between: float | None
    se: float | None
    se_many_repeats: float | None


def spread(ids: NDArray[Any] | Sequence[Hashable], scores: Floats) -> Spread:
    """Variance within and between samples; scores that are NaN are left out.

    within = sum of squares about the samples' means / (N - n); between = (mean square between - within) / k0
    with k0 = (N - sum k_i^2 / N) / (n - 1), and not below 0. The mean is over the samples' means; its
    squared error is var(means) / n, which estimates (between + within / k) / n.
    """
    codes, values, count = _grouped(ids, scores)
    n, total = len(count), len(values)
    if n == 0:
        return Spread(0, 0, None, None, None, None, None)
    means = np.bincount(codes, weights=values) / count
    overall = float(means.mean())
    if n == 1:
        return Spread(1, total, overall, None, None, None, None)
    se = float(means.std(ddof=1)) / math.sqrt(n)
    if total == n:
        return Spread(n, total, overall, None, None, se, None)
    within = float(((values - means[codes]) ** 2).sum()) / (total - n)
    grand = float(values.mean())
    mean_square = float((count * (means - grand) ** 2).sum()) / (n - 1)
    k0 = (total - float((count**2).sum()) / total) / (n - 1)
    between = max(0.0, (mean_square - within) / k0)
    return Spread(n, total, overall, within, between, se, math.sqrt(between / n))


def _grouped(ids: NDArray[Any] | Sequence[Hashable], scores: Floats) -> tuple[Ints, Floats, Floats]:
    """(codes 0 … n-1, scores, number of answers of each sample), without the missing scores."""
    values = np.asarray(scores, np.float64)
    known = ~np.isnan(values)
    _, codes = np.unique(np.asarray(ids)[known], return_inverse=True)
    codes = codes.astype(np.int64)
    return codes, values[known], np.bincount(codes).astype(np.float64)


@dataclass(frozen=True, slots=True)
class _Right:
    """Of each sample with at least k answers: how many there are and how many are right, and its cluster.
    `note` says how many samples have fewer."""

    right: Floats
    count: Floats
    clusters: Ints | None
    note: str

    def estimate(self, chances: Floats) -> Estimate:
        return _estimate(chances, self.clusters, self.note)


def _right(
    ids: NDArray[Any] | Sequence[Hashable], scores: Floats, k: int, clusters: NDArray[Any] | None
) -> _Right:
    if k < 1:
        raise ValueError("k must be at least 1")
    codes, values, count = _grouped(ids, scores)
    if not ((values == 0) | (values == 1)).all():
        raise ValueError("pass@k and pass^k need scores of 0 and 1")
    right: Floats = np.asarray(np.bincount(codes, weights=values, minlength=len(count)), np.float64)
    enough = count >= k
    short = int(len(count) - enough.sum())
    note = f"left out: {short} samples with fewer than {k} answers" if short else ""
    return _Right(right[enough], count[enough], _of_samples(ids, scores, clusters, enough), note)


def _of_samples(
    ids: NDArray[Any] | Sequence[Hashable], scores: Floats, clusters: NDArray[Any] | None, keep: Any
) -> Ints | None:
    """The cluster code of each sample that is kept, from the clusters of its answers."""
    if clusters is None:
        return None
    known = ~np.isnan(np.asarray(scores, np.float64))
    _, first = np.unique(np.asarray(ids)[known], return_index=True)
    _, codes = np.unique(np.asarray(clusters)[known], return_inverse=True)
    return np.asarray(codes[first][keep], np.int64)


def _estimate(values: Floats, clusters: Ints | None, note: str, bounds: Bounds = (0.0, 1.0)) -> Estimate:
    """The mean over samples. Where every sample has 0 or 1 it is a proportion of samples."""
    binary = bool(((values == 0) | (values == 1)).all())
    found = mean(values, clusters, repeated=not binary, bounds=bounds)
    return replace(found, note="; ".join(part for part in (found.note, note) if part))


def pass_at_k(
    ids: NDArray[Any] | Sequence[Hashable], scores: Floats, k: int, clusters: NDArray[Any] | None = None
) -> Estimate:
    """The chance that at least one of k answers is right, unbiased: mean of 1 - C(n - c, k) / C(n, k).

    For n answers of which c are right (Chen et al. 2021, arXiv 2107.03374). Samples with fewer than k answers
    are left out and counted. `clusters`, one an answer, say which samples belong together. Raises ValueError
    for k < 1 and for scores that are neither 0 nor 1.
    """
    found = _right(ids, scores, k, clusters)
    return found.estimate(1 - _none_drawn(found.count, found.right, k))


def pass_hat_k(
    ids: NDArray[Any] | Sequence[Hashable], scores: Floats, k: int, clusters: NDArray[Any] | None = None
) -> Estimate:
    """pass^k, the chance that k answers are all right, unbiased: mean of C(c, k) / C(n, k).

    (Yao et al. 2024, arXiv 2406.12045.) Conditions as for `pass_at_k`.
    """
    found = _right(ids, scores, k, clusters)
    return found.estimate(_none_drawn(found.count, found.count - found.right, k))


def _none_drawn(count: Floats, marked: Floats, k: int) -> Floats:
    """C(n - m, k) / C(n, k): no marked one among k of n, as a product, so that nothing overflows."""
    chance = np.ones(len(count))
    for drawn in range(k):
        chance *= np.maximum(0.0, count - marked - drawn) / (count - drawn)
    return chance


@dataclass(frozen=True, slots=True)
class Votes:
    """Of each sample (in the order of `ids`, sorted): its most frequent answer, and how its answers agree.

    `agreement` is the share of pairs of answers that are equal (NaN for a single answer), `tied` says that
    several answers were equally frequent; `answers` then holds the one given first. `score` is the score of
    the winning answer, averaged over tied winners: what a fair draw among them would score.
    """

    ids: NDArray[Any]
    answers: tuple[Hashable, ...]
    tied: NDArray[np.bool_]
    agreement: Floats
    score: Floats

    def accuracy(self, clusters: Ints | None = None, bounds: Bounds = (0.0, 1.0)) -> Estimate:
        """The mean score of the majority's answers; `clusters` has one code a sample."""
        known = ~np.isnan(self.score)
        note = f"{int(self.tied.sum())} samples had ties" if self.tied.any() else ""
        return _estimate(self.score[known], None if clusters is None else clusters[known], note, bounds)

    def consistency(self, clusters: Ints | None = None) -> Estimate:
        """The chance that two answers to the same sample are equal, over samples with two or more."""
        known = ~np.isnan(self.agreement)
        return _estimate(self.agreement[known], None if clusters is None else clusters[known], "")


def majority(
    ids: NDArray[Any] | Sequence[Hashable],
    answers: Sequence[Hashable],
    scores: Floats | None = None,
) -> Votes:
    """Vote among the answers of each sample. None is no vote; a sample with no vote has answer None and the
    mean of its scores.

    `scores` are those of the single answers, one an entry; without them `score` is NaN.
    """
    values = np.full(len(answers), np.nan) if scores is None else np.asarray(scores, np.float64)
    distinct, codes = np.unique(np.asarray(ids), return_inverse=True)
    ballots: list[dict[Hashable, list[float]]] = [{} for _ in distinct]
    blank: list[list[float]] = [[] for _ in distinct]
    size = np.zeros(len(distinct), np.int64)
    for code, answer, value in zip(codes.tolist(), answers, values.tolist(), strict=True):
        size[code] += 1
        if answer is None:
            blank[code].append(value)
        else:
            ballots[code].setdefault(answer, []).append(value)
    counted = [_count(*each) for each in zip(ballots, blank, size.tolist(), strict=True)]
    winners, tied, agreement, score = zip(*counted, strict=True) if counted else ((), (), (), ())
    return Votes(distinct, tuple(winners), np.array(tied, np.bool_), np.array(agreement), np.array(score))


def _count(
    ballot: dict[Hashable, list[float]], blank: list[float], size: int
) -> tuple[Hashable, bool, float, float]:
    """(winner, tied, agreement, score). Answers that could not be read agree with nothing."""
    agreeing = sum(len(votes) * (len(votes) - 1) for votes in ballot.values())
    agreement = agreeing / (size * (size - 1)) if size > 1 else math.nan
    if not ballot:
        return None, False, agreement, sum(blank) / len(blank)
    most = max(map(len, ballot.values()))
    winners = [answer for answer, votes in ballot.items() if len(votes) == most]
    score = sum(sum(ballot[winner]) / most for winner in winners) / len(winners)
    return winners[0], len(winners) > 1, agreement, score


Mask = NDArray[np.bool_]

USUAL_K = (2, 5, 10, 20, 50, 100)
"""pass@k is given for these k and for the number of repeats itself."""

_DRAWS = 20_000_000
_RESAMPLES = 2_000


def repeats_of(table: SampleTable) -> int:
    """How often the samples were asked, at most; 1 without repeats."""
    return int(np.bincount(table.ids).max()) if len(table) else 1


def repeat_metrics(
    table: SampleTable, scorers: Sequence[Scorer], *, exclude_unparsed: bool, seed: int
) -> list[MetricValue]:
    """What several answers a sample say, of every scorer; nothing where every sample was asked once.

    Failed answers are left out: of a sample some of whose answers failed the others count.
    """
    if repeats_of(table) < 2:
        return []
    within = counted(table, exclude_unparsed)
    metrics = [_consistency(table, within)]
    for scorer in scorers:
        values = score_column(table, scorer.name)
        known = within & ~np.isnan(values)
        if known.any():
            draw_seed = figure_seed(seed, f"repeats {scorer.name}")
            found = _of_score(table, scorer.metrics()[0], values, known, draw_seed)
            metrics += [replace(each, scorer=scorer.name) for each in found]
    return metrics


def _of_score(
    table: SampleTable, info: MetricInfo, values: Floats, known: Mask, seed: int
) -> Iterator[MetricValue]:
    ids, taken = table.ids[known].astype(np.int64), values[known]
    clusters = None if table.clusters is None else table.clusters[known].astype(np.int64)
    if ((taken == 0) | (taken == 1)).all() and info.direction != "none":
        repeats = repeats_of(table)
        for k in sorted({*(each for each in USUAL_K if each < repeats), repeats}):
            yield metric(repeat_info(f"pass_at_{k}", info), pass_at_k(ids, taken, k, clusters))
            yield metric(repeat_info(f"pass_hat_{k}", info), pass_hat_k(ids, taken, k, clusters))
    votes = majority(ids, _answers(table, known), taken)
    by_sample = _first(ids, clusters)
    yield metric(repeat_info("majority", info), votes.accuracy(by_sample, info.bounds))
    for figure, estimate in _variances(ids, taken, clusters, seed).items():
        yield metric(repeat_info(figure, info), estimate)


def _consistency(table: SampleTable, within: Mask) -> MetricValue:
    ids = table.ids[within].astype(np.int64)
    clusters = None if table.clusters is None else table.clusters[within].astype(np.int64)
    votes = majority(ids, _answers(table, within))
    return metric(consistency_info(), votes.consistency(_first(ids, clusters)))


def _answers(table: SampleTable, keep: Mask) -> list[int | None]:
    """The answers as codes; None is one that could not be read."""
    answers, _ = table.texts()
    return [None if code < 0 else code for code in answers.codes[keep].tolist()]


def _first(ids: Ints, clusters: Ints | None) -> Ints | None:
    """The cluster of each distinct id, in the order of ids."""
    if clusters is None:
        return None
    _, places = np.unique(ids, return_index=True)
    return clusters[places]


def _variances(ids: Ints, values: Floats, clusters: Ints | None, seed: int) -> dict[str, Estimate]:
    """Both variances, with bootstrap intervals that draw samples (or clusters) with all their answers."""
    found: Spread = spread(ids, values)
    if found.within is None or found.between is None:
        nothing = Estimate(None, found.samples, note="it needs samples with two or more answers")
        return {"variance_within": nothing, "variance_between": nothing}
    _, codes = np.unique(ids, return_inverse=True)
    count = np.bincount(codes).astype(np.float64)
    means = np.bincount(codes, weights=values) / count
    squares = np.bincount(codes, weights=(values - means[codes]) ** 2)
    # Centred, so that squares of large scores do not swallow what they differ by.
    shifted = means - means.mean()
    ones = np.ones(len(count))
    totals = np.stack([squares, count, ones, count * shifted, count * shifted**2, count**2], axis=1)
    by_sample = _first(ids, clusters)
    if by_sample is not None:
        _, groups = np.unique(by_sample, return_inverse=True)
        totals = np.stack([np.bincount(groups, weights=column) for column in totals.T], axis=1)
    resamples = max(200, min(_RESAMPLES, _DRAWS // len(totals)))
    draws = bootstrap_units(totals, _split, seed, resamples) if len(totals) > 1 else np.empty((0, 2))
    estimates = {}
    for at, (figure, value) in enumerate(
        (("variance_within", found.within), ("variance_between", found.between))
    ):
        estimate = percentile_interval(
            value, found.samples, draws[:, at], (0.0, None), note=few_clusters(by_sample)
        )
        estimates[figure] = replace(estimate, value=value)
    return estimates


def _split(sums: Floats) -> Floats:
    """Variance within and between from sums over samples, as `spread` defines them; shape (..., 2)."""
    squares, answers, samples, first, second, sizes = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        within = squares / (answers - samples)
        mean_square = (second - first**2 / answers) / (samples - 1)
        between = np.maximum(0.0, (mean_square - within) / ((answers - sizes / answers) / (samples - 1)))
    return np.stack([within, between], axis=-1)
