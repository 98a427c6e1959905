"""The metrics of a run that asks every row several times: its samples stay the samples, repeats add to them.

n of every figure is the number of samples, and intervals are over samples or over clusters of them, never
over single answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.bootstrap import bootstrap_units, percentile_interval
from evalrun.analysis.intervals import few_clusters
from evalrun.analysis.quality import counted, metric, score_column
from evalrun.analysis.repeat_definitions import consistency_info, repeat_info
from evalrun.analysis.repeats import Spread, majority, pass_at_k, pass_hat_k, spread
from evalrun.analysis.table import SampleTable
from evalrun.canonical import figure_seed
from evalrun.results import Estimate
from evalrun.scoring.base import MetricInfo, Scorer
from evalrun.types import MetricValue

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
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
