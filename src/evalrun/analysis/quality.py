"""Scores into metrics: means, figures over the whole run, and the rates of the four endings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.bootstrap import (
    RESAMPLES,
    bootstrap_kinds,
    bootstrap_units,
    few_drawn,
    percentile_interval,
)
from evalrun.analysis.catalogue import RATES
from evalrun.analysis.influence import smooth_interval
from evalrun.analysis.intervals import (
    Bounds,
    clustering,
    grouping,
    mean,
    mean_clustered,
    told_clusters,
    wilson,
)
from evalrun.analysis.samples import SampleTable
from evalrun.canonical import figure_seed
from evalrun.frozen import frozen
from evalrun.results import Estimate
from evalrun.scoring.columns import Corpus, Interval, Labelled, ScoreColumns
from evalrun.scoring.info import MetricInfo
from evalrun.types import JSON, Clustering, MetricValue, Status

if TYPE_CHECKING:
    from evalrun.scoring.base import Scorer

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_DRAWS = 40_000_000
"""So many counts are drawn for one bootstrap at most; with more kinds of samples it takes fewer resamples."""


_NUMBERS = 20_000_000
"""So many statistics of all kinds and figures are held at most to find what clusters do to each figure."""

_MANY_KINDS = 1_000
"""With more kinds of samples than this, drawing the samples themselves is quicker than drawing counts."""


@frozen
class Units:
    """A column of scores with one entry a sample id: the mean over its repeats.

    `rows` are the samples it was made from, `unit` the unit of each of them. `clusters` has one code a unit.
    """

    values: Floats
    rows: NDArray[np.int64]
    unit: NDArray[np.int64]
    clusters: NDArray[np.int64] | None
    repeated: bool
    weights: Floats | None = None
    strata: NDArray[np.int64] | None = None

    @property
    def plain(self) -> bool:
        """Whether every row is a unit of its own and counts like any other."""
        return self.clusters is None and not self.repeated and self.weights is None

    @property
    def relative_weights(self) -> Floats | float:
        """The weight of each row, 1 on average."""
        return 1.0 if self.weights is None else (self.weights / self.weights.mean())[self.unit]

    def estimate(self, bounds: Bounds = (None, None)) -> Estimate:
        """The mean over units with its interval."""
        if self.weights is not None:
            from evalrun.analysis.weighted import mean_weighted

            return mean_weighted(self.values, self.weights, self.clusters, self.strata, bounds)
        # Where the repeats of every sample agree (an engine that draws nothing), there might as well be one.
        means = self.repeated and not bool(((self.values == 0) | (self.values == 1)).all())
        return mean(self.values, self.clusters, repeated=means, bounds=bounds)


def units(table: SampleTable, values: Floats, keep: Mask) -> Units:
    """The units of the samples in `keep`: repeats of a sample id are averaged, never counted as samples."""
    rows = np.flatnonzero(keep)
    ids = table.ids[rows]
    starts = np.ones(len(rows), np.bool_)
    starts[1:] = ids[1:] != ids[:-1]  # the table is in the order of ids
    unit = np.cumsum(starts) - 1
    count = int(starts.sum())
    repeated = count < len(rows)
    taken = values[rows]
    if repeated:
        taken = np.bincount(unit, weights=taken, minlength=count) / np.bincount(unit, minlength=count)
    clusters = None
    if table.clusters is not None:
        clusters = grouping(table.clusters[rows][starts].astype(np.int64))
    if table.weights is None:
        return Units(taken, rows, unit, clusters, repeated)
    strata = None if table.strata is None else table.strata[rows][starts].astype(np.int64)
    return Units(taken, rows, unit, clusters, repeated, table.weights[rows][starts], strata)


def counted(table: SampleTable, exclude_unparsed: bool) -> Mask:
    """The samples that scores are over: all that were answered, or only those that a parser could read."""
    return table.is_status(Status.SCORED) if exclude_unparsed else table.answered


def score_column(table: SampleTable, name: str) -> Floats:
    """A column of scores; all NaN where no sample has that score (every one failed)."""
    values = table.scores.get(name)
    return np.full(len(table), np.nan) if values is None else values


def score_metrics(
    table: SampleTable, scorers: Sequence[Scorer], *, exclude_unparsed: bool, seed: int
) -> tuple[list[MetricValue], dict[str, JSON]]:
    """The metrics of every scorer, and what the report draws of them ({scorer name: details})."""
    metrics: list[MetricValue] = []
    details: dict[str, JSON] = {}
    for scorer in scorers:
        own = mean_metrics(table, scorer, exclude_unparsed=exclude_unparsed)
        found, detail = corpus_metrics(table, scorer, exclude_unparsed=exclude_unparsed, seed=seed)
        metrics += [replace(each, scorer=scorer.name) for each in (*own, *found)]
        if detail:
            details[scorer.name] = detail
    return metrics, details


def score_infos(scorer: Scorer, columns: Iterable[str] = ()) -> list[tuple[str, MetricInfo]]:
    """The score columns that are shown as means, with what they mean: the score, then its parts.

    A part that is the score itself (`rouge.rouge_l`) is not listed again. `columns` are the scores that there
    are: parts among them that the scorer did not declare (a function that gives several numbers) are metrics
    of which nobody said what is better.
    """
    infos = scorer.metrics()
    by_name = {info.name: info for info in infos[1:]}
    parts = [f"{scorer.name}.{part}" for part in scorer.parts]
    head = f"{scorer.name}."
    more = [name for name in columns if name.startswith(head) and name not in parts]
    return [
        (scorer.name, infos[0]),
        *((part, by_name[part]) for part in parts if part in by_name),
        *((name, by_name.get(name) or _undeclared(scorer.name, name)) for name in more),
    ]


def _undeclared(scorer: str, column: str) -> MetricInfo:
    part = column.removeprefix(f"{scorer}.")
    text = f"Mean of {part}, a number that the scorer {scorer} gives, over the samples that have it."
    return MetricInfo(column, "score", "none", text)


def mean_metrics(table: SampleTable, scorer: Scorer, *, exclude_unparsed: bool) -> list[MetricValue]:
    """The mean of the score and of those of its parts that are metrics."""
    within = counted(table, exclude_unparsed)
    metrics = []
    for column, info in score_infos(scorer, table.scores):
        values = score_column(table, column)
        known = within & ~np.isnan(values)
        estimate = units(table, values, known).estimate(info.bounds)
        metrics.append(metric(info, estimate, _unscored(int(within.sum() - known.sum()))))
    return metrics


def _unscored(count: int) -> str:
    return f"left out: {count} answered without such a score" if count else ""


def metric(
    info: MetricInfo, estimate: Estimate, note: str = "", slice: Mapping[str, str] | None = None
) -> MetricValue:
    """An estimate as a metric's value."""
    return MetricValue(
        name=info.name,
        value=estimate.value,
        n=estimate.n,
        unit=info.unit,
        direction=info.direction,
        slice=dict(slice or {}),
        se=estimate.se,
        ci_low=estimate.low,
        ci_high=estimate.high,
        method=estimate.method,
        note="; ".join(part for part in (estimate.note, note) if part),
        clusters=estimate.clusters,
    )


def corpus_metrics(
    table: SampleTable, scorer: Scorer, *, exclude_unparsed: bool, seed: int
) -> tuple[list[MetricValue], dict[str, JSON]]:
    """The figures of a scorer that are no means, with bootstrap intervals, and its details."""
    from evalrun.scoring.base import Scorer

    if type(scorer).aggregate is Scorer.aggregate:
        return [], {}
    values = score_column(table, scorer.name)
    sample_units = units(table, values, counted(table, exclude_unparsed) & ~np.isnan(values))
    rows = sample_units.rows
    if not len(rows):
        return [], {}
    corpus = scorer.aggregate(
        ScoreColumns(
            value=values[rows],
            parts={part: score_column(table, f"{scorer.name}.{part}")[rows] for part in scorer.parts},
            status=table.status[rows],
            texts=lambda: _texts_of(table, rows),
        )
    )
    if corpus is None:
        return [], {}
    estimates = corpus_estimates(corpus, sample_units, figure_seed(seed, scorer.name))
    metrics = [
        metric(corpus.infos[name], estimate, corpus.notes.get(name, ""))
        for name, estimate in zip(corpus.names, estimates, strict=True)
    ]
    return metrics, dict(corpus.details)


def _texts_of(table: SampleTable, rows: NDArray[np.int64]) -> tuple[Labelled, Labelled]:
    answers, targets = table.texts()
    return Labelled(answers.codes[rows], answers.labels), Labelled(targets.codes[rows], targets.labels)


def corpus_estimates(corpus: Corpus, sample_units: Units, seed: int) -> list[Estimate]:
    """Every figure of a corpus with its interval.

    A repeat weighs 1/K, so that every sample id weighs the same. Plain shares get Wilson's interval where
    samples are independent; everything else a percentile bootstrap that draws sample ids, or whole clusters.
    """
    n = len(sample_units.values)
    weight: Floats = np.ones(len(sample_units.rows))
    if sample_units.repeated:
        weight = 1.0 / np.bincount(sample_units.unit, minlength=n)[sample_units.unit]
    weight = weight * sample_units.relative_weights
    mass: Floats = np.asarray(
        np.bincount(corpus.kinds, weights=weight, minlength=len(corpus.statistics)), np.float64
    )
    sums = mass @ corpus.statistics
    values = corpus.figures(sums)
    moved = None if sample_units.clusters is None else _influences(corpus, sums, float(mass.sum()))
    independent = sample_units.plain
    plainly = {*corpus.fixed, *corpus.smooth, *(corpus.shares if independent else ())}
    draws = np.empty((0, len(corpus.names)))
    if not plainly.issuperset(corpus.names):
        draws = _draws(corpus, sample_units, weight, mass, seed)
    estimates = []
    for at, name in enumerate(corpus.names):
        size = round(float(sums[corpus.sizes[name]])) if name in corpus.sizes else n
        bounds = corpus.infos[name].bounds
        clusters = _worth(corpus, name, sample_units, weight, None if moved is None else moved[:, at])
        few = "" if clusters is None else told_clusters(clusters)
        if name in corpus.fixed:
            value, interval = corpus.fixed[name]
            value = value if np.isnan(values[at]) else float(values[at])
            fixed = _fixed(value, interval if independent else None, n)
            estimates.append(replace(fixed, note="") if name in corpus.notes else fixed)
            continue
        if name in corpus.smooth:
            smooth = corpus.smooth[name]
            if not np.isnan(values[at]):  # the value of sums counts every sample alike, whatever its repeats
                smooth = replace(smooth, value=float(values[at]))
            found = smooth_interval(smooth, _groups(sample_units), bounds)
            if name in corpus.sizes or not independent:
                found = replace(found, n=size)
            noted = "; ".join(part for part in (found.note, few) if part)
            estimates.append(replace(found, note=noted, clusters=clusters))
            continue
        if independent and name in corpus.shares:
            hits, trials = corpus.shares[name]
            estimate = wilson(float(sums[hits]), round(float(sums[trials])))
        else:
            told = few if clusters is not None else few_drawn(n)
            estimate = percentile_interval(float(values[at]), size, draws[:, at], bounds, note=told)
            if name in corpus.least_of:
                parts = [
                    percentile_interval(float(values[one]), size, draws[:, one])
                    for one in corpus.least_of[name]
                ]
                estimate = _lesser(estimate, parts)
        if name in corpus.tests:
            from evalrun.analysis.paired import binomial_note

            hits, trials = corpus.tests[name]
            told = binomial_note(float(sums[hits]), float(sums[trials]), independent=independent)
            estimate = replace(estimate, note="; ".join(part for part in (estimate.note, told) if part))
        estimates.append(replace(estimate, clusters=clusters))
    return estimates


def _influences(corpus: Corpus, sums: Floats, n: float) -> Floats | None:
    """What a sample of each kind does to each figure of sums, shape (K, m); None where it would take long."""
    if corpus.statistics.size * len(corpus.names) > _NUMBERS:
        return None
    step = 1e-5
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = corpus.figures((1 - step) * sums + step * n * corpus.statistics) - corpus.figures(sums)
    return np.asarray(moved / step, np.float64)


def _worth(
    corpus: Corpus, name: str, sample_units: Units, weight: Floats, moved: Floats | None
) -> Clustering | None:
    """What clusters do to a figure: to the mean of the influences that samples have on it."""
    if sample_units.clusters is None:
        return None
    influence = corpus.smooth[name].influence if name in corpus.smooth else None
    if influence is None and moved is not None:
        influence = moved[corpus.kinds]
    if influence is None or not np.isfinite(influence).all() or not influence.any():
        return clustering(sample_units.clusters)
    n = len(sample_units.values)
    of_units = np.bincount(sample_units.unit, weights=influence * weight, minlength=n).astype(np.float64)
    return mean_clustered(of_units, sample_units.clusters).clusters


def _groups(sample_units: Units) -> NDArray[np.int64] | None:
    """The independent unit of each row: cluster, else sample id; None where every row is one."""
    if sample_units.clusters is not None:
        codes = np.unique(sample_units.clusters, return_inverse=True)[1]
        return np.asarray(codes[sample_units.unit], np.int64)
    return sample_units.unit if sample_units.repeated else None


def _lesser(estimate: Estimate, parts: Sequence[Estimate]) -> Estimate:
    """The lesser of two figures with the lesser of their bounds: it lies below both upper bounds where each
    figure does, and above the lesser lower bound where the lesser figure lies above its own."""
    lows = [part.low for part in parts if part.low is not None]
    highs = [part.high for part in parts if part.high is not None]
    if len(lows) < len(parts) or len(highs) < len(parts):
        return estimate
    return replace(estimate, low=min(lows), high=min(highs))


def _fixed(value: float, interval: Interval | None, n: int) -> Estimate:
    """A figure that brought its own interval; where samples depend on each other that would not hold."""
    if np.isnan(value):
        return Estimate(None, n, note="nothing to compute it from")
    if interval is None:
        return Estimate(value, n, note="no interval: too few samples, or samples that depend on each other")
    return Estimate(value, n, interval.se, interval.low, interval.high, interval.method)


def _draws(corpus: Corpus, sample_units: Units, weight: Floats, mass: Floats, seed: int) -> Floats:
    """Bootstrap draws of all figures, shape (resamples, m)."""
    n, kinds = len(sample_units.values), len(corpus.statistics)
    if n < 2 or kinds < 2:  # nothing can vary
        return np.empty((0, len(corpus.names)))
    if sample_units.plain and kinds <= _MANY_KINDS:
        resamples = max(200, min(RESAMPLES, _DRAWS // kinds))
        return bootstrap_kinds(mass.astype(np.int64), corpus.statistics, corpus.figures, seed, resamples)
    group = _groups(sample_units)
    if group is None:
        group = sample_units.unit
    size = int(group.max()) + 1
    totals = np.zeros((size, corpus.statistics.shape[1]))
    for column in range(totals.shape[1]):
        totals[:, column] = np.bincount(
            group, weights=corpus.statistics[corpus.kinds, column] * weight, minlength=size
        )
    resamples = max(200, min(RESAMPLES, _DRAWS // size))
    return bootstrap_units(totals, corpus.figures, seed, resamples)


def rate_metrics(table: SampleTable) -> list[MetricValue]:
    """How often samples failed, and how often answers could not be read or were refusals."""
    metrics = []
    for rate in RATES:
        within = rate.within(table)
        hits = rate.hits(table).astype(np.float64)
        metrics.append(metric(rate.info, units(table, hits, within).estimate(rate.info.bounds)))
    return metrics
