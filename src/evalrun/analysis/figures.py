"""Figures of a whole run that are no mean over samples, compared between two runs.

Macro F1, BLEU and the like, and percentiles of latency: by a bootstrap that draws the same samples, or whole
clusters, for both runs. Throughput and memory are one figure a run, which can be set side by side, no more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.bootstrap import Draws, bootstrap_p, draw, draw_paired, resampled_weights
from evalrun.analysis.catalogue import PERCENTILES
from evalrun.analysis.distributions import normal_quantile, sorted_quantile
from evalrun.analysis.measures import LATENCIES, QUEUEING, Measure, RunSamples, find_measure, is_mean
from evalrun.analysis.pairing import Joined, RunPair
from evalrun.analysis.power import POWER
from evalrun.analysis.quality import counted, score_column
from evalrun.frozen import frozen
from evalrun.scoring.columns import Corpus, Labelled, ScoreColumns
from evalrun.sweep_results import PairedResult
from evalrun.types import Direction, MetricValue

if TYPE_CHECKING:
    from evalrun.scoring.base import Scorer

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES, LEAST_RESAMPLES = 4_000, 1_000
_DRAWS = 100_000_000
"""So many samples are drawn for one figure at most; larger data get fewer resamples."""

_NUMBERS = 20_000_000
"""So many statistics (samples x columns) of one run are held at most."""

_PERCENTILE = re.compile(rf"performance\.({'|'.join(LATENCIES)})\.({'|'.join(PERCENTILES)})")


@frozen
class Level:
    """How a figure is tested: as one of so many `tests` that are corrected together."""

    seed: int
    alpha: float
    margin: float | None
    tests: int = 1


Compare: TypeAlias = Callable[[RunPair, Joined, Level], PairedResult]


@frozen
class FigureMeasure:
    """A figure of a whole run; `result` compares it between two."""

    name: str
    unit: str
    direction: Direction
    result: Compare
    note: str = ""


def find_figure(name: str, runs: Sequence[RunSamples]) -> FigureMeasure | None:
    """The figure of that name, or None where it is a mean over samples, or unknown."""
    percentile = _PERCENTILE.fullmatch(name)
    if percentile is not None:
        mean = find_measure(percentile[1], runs)
        quantile = PERCENTILES[percentile[2]][0]
        return FigureMeasure(name, "s", "lower", partial(_percentiles, mean, quantile), QUEUEING)
    listed = next((each for run in runs if (each := _metric(name, run)) is not None), None)
    if listed is None or is_mean(name, runs):
        return None
    scorer = next((found for run in runs if (found := _scorer(name, run)) is not None), None)
    compare: Compare = partial(_plain, name) if scorer is None else partial(_corpus, name, scorer)
    return FigureMeasure(name, listed.unit, listed.direction, compare)


def _scorer(name: str, run: RunSamples) -> Scorer | None:
    """The scorer of the run's suite whose corpus part may have this figure."""
    return next((scorer for scorer in run.scorers if name.startswith(f"{scorer.name}.")), None)


def _result(
    draws: Draws | None, values: tuple[float, float] | None, size: tuple[int, int], clusters: Ints | None,
    level: Level, note: str = "",
) -> PairedResult:  # fmt: skip
    """A paired result from bootstrap draws of b - a; `size` is the pairs and those dropped."""
    known = draws is not None and values is not None and not np.isnan(draws.value)
    outer = draws.interval(1 - level.alpha / level.tests) if known and draws is not None else None
    inner = draws.interval(1 - 2 * level.alpha) if known and draws is not None else None
    se = None if outer is None else outer.se
    factor = normal_quantile(1 - level.alpha / (2 * level.tests)) + normal_quantile(POWER)
    notes = [note, "" if outer is None else outer.note, "" if known or note else "nothing to compute it from"]
    return PairedResult(
        n=size[0],
        dropped=size[1],
        n_clusters=None if clusters is None else len(np.unique(clusters)),
        mean_a=None if values is None else values[0],
        mean_b=None if values is None else values[1],
        difference=None if values is None else values[1] - values[0],
        se=se,
        ci_low=None if outer is None else outer.low,
        ci_high=None if outer is None else outer.high,
        p=bootstrap_p(draws) if known and draws is not None else None,
        test="paired-bootstrap" if known else "",
        discordant=None,
        correlation=None,
        mde=factor * se if se else None,
        method="" if outer is None else outer.method,
        note="; ".join(each for each in notes if each),
        alpha=level.alpha,
        margin=level.margin,
        inner_low=None if inner is None else inner.low,
        inner_high=None if inner is None else inner.high,
        tests=level.tests,
    )


def _resamples(n: int) -> int:
    return max(LEAST_RESAMPLES, min(RESAMPLES, _DRAWS // n))


def _percentiles(mean: Measure, q: float, pair: RunPair, joined: Joined, level: Level) -> PairedResult:
    a, b = mean.values(pair.a)[joined.in_a], mean.values(pair.b)[joined.in_b]
    known = ~(np.isnan(a) | np.isnan(b))
    clusters = joined.clusters(pair)
    clusters = None if clusters is None else clusters[known]
    a, b, dropped = a[known], b[known], int(len(known) - known.sum())
    if len(a) < 2:
        return _result(None, None, (len(a), dropped), clusters, level)
    codes = np.arange(len(a)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    units = int(codes.max()) + 1
    ordered = [(values[order], codes[order]) for values in (a, b) for order in [np.argsort(values)]]
    drawn = []
    for weights in resampled_weights(units, seed=level.seed, resamples=_resamples(units)):
        of_a, of_b = (_weighted(values, weights[:, unit], q) for values, unit in ordered)
        drawn.append(of_b - of_a)
    values = sorted_quantile(ordered[0][0], q), sorted_quantile(ordered[1][0], q)
    # Quantiles have no useful leave-one-out values: without acceleration BCa corrects the bias alone.
    draws = Draws(values[1] - values[0], np.concatenate(drawn), np.zeros(units), units)
    return _result(draws, values, (len(a), dropped), clusters, level)


def _weighted(ordered: Floats, weights: Floats, q: float) -> Floats:
    """The q quantile of sorted values with weights, one a row of weights."""
    below = np.cumsum(weights, axis=1)
    return np.asarray(ordered[(below >= q * below[:, -1:]).argmax(axis=1)])


def _corpus(name: str, scorer: Scorer, pair: RunPair, joined: Joined, level: Level) -> PairedResult:
    """A figure of the scorer's corpus part. Both runs are put into one corpus, so that they share labels."""
    places = (joined.in_a, joined.in_b)
    runs = (pair.a, pair.b)
    rows, units = zip(
        *(_rows(scorer, run, place) for run, place in zip(runs, places, strict=True)), strict=True
    )
    both = np.intersect1d(units[0], units[1])
    dropped = len(joined.ids) - len(both)
    clusters = joined.clusters(pair)
    clusters = None if clusters is None else clusters[both]
    kept = [np.isin(each, both) for each in units]
    rows = tuple(each[keep] for each, keep in zip(rows, kept, strict=True))
    units = tuple(np.searchsorted(both, each[keep]) for each, keep in zip(units, kept, strict=True))
    corpus = scorer.aggregate(_columns(scorer, runs, rows)) if len(both) else None
    if corpus is None or name not in corpus.names:
        return _result(None, None, (len(both), dropped), clusters, level)
    if len(both) * corpus.statistics.shape[1] > _NUMBERS:
        why = "too many samples and labels for a bootstrap of this figure"
        return _result(None, None, (len(both), dropped), clusters, level, why)
    if name in corpus.smooth and bool(np.isnan(corpus.figures(corpus.statistics.sum(axis=0))[
        corpus.names.index(name)
    ])):  # fmt: skip
        return _linear(name, scorer, runs, rows, units, clusters, (len(both), dropped), level)
    at, split = corpus.names.index(name), len(rows[0])
    totals = [
        _totals(corpus, kinds, unit, len(both))
        for kinds, unit in zip((corpus.kinds[:split], corpus.kinds[split:]), units, strict=True)
    ]

    def figure(sums: Floats) -> Floats:
        return np.asarray(corpus.figures(sums)[..., at])

    draws = draw_paired(
        totals[0], totals[1], figure, clusters, seed=level.seed, resamples=_resamples(len(both))
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        values = float(figure(totals[0].sum(axis=0))), float(figure(totals[1].sum(axis=0)))
    return _result(draws, values, (len(both), dropped), clusters, level)


def _linear(
    name: str, scorer: Scorer, runs: Sequence[RunSamples], rows: Sequence[Ints], units: Sequence[Ints],
    clusters: Ints | None, size: tuple[int, int], level: Level,
) -> PairedResult:  # fmt: skip
    """A figure that is no function of sums (a rank correlation, AUROC): what a resample does to it is the sum
    of the influences of what it drew, those of both runs together."""
    values, moved = [], []
    for run, row, unit in zip(runs, rows, units, strict=True):
        own = scorer.aggregate(_columns(scorer, [run], [row]))
        if own is None or np.isnan(own.smooth[name].value):
            return _result(None, None, size, clusters, level, "a run has no such figure")
        figure = own.smooth[name]
        values.append(figure.value)
        moved.append(np.bincount(unit, weights=figure.own_scale() / len(row), minlength=size[0]))
    difference = values[1] - values[0]
    change = np.asarray(moved[1] - moved[0], np.float64)[:, None]

    def moved_by(sums: Floats) -> Floats:
        return difference + sums[..., 0]

    draws = draw(change, moved_by, clusters, seed=level.seed, resamples=_resamples(size[0]))
    return _result(draws, (values[0], values[1]), size, clusters, level)


def _rows(scorer: Scorer, run: RunSamples, place: Ints) -> tuple[Ints, Ints]:
    """The rows of a run that count, and which joined sample each belongs to."""
    table = run.table
    within = counted(table, run.exclude_unparsed) & ~np.isnan(score_column(table, scorer.name))
    of_id = np.full(table.distinct, -1, np.int64)
    of_id[place] = np.arange(len(place))
    rows = np.flatnonzero(within & (of_id[table.ids] >= 0))
    return rows, of_id[table.ids[rows]]


def _columns(scorer: Scorer, runs: Sequence[RunSamples], rows: Sequence[Ints]) -> ScoreColumns:
    def joined(of: Callable[[RunSamples], NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([of(run)[row] for run, row in zip(runs, rows, strict=True)])

    def texts() -> tuple[Labelled, Labelled]:
        sides = [run.table.texts() for run in runs]
        return tuple(_merged([side[at] for side in sides], rows) for at in (0, 1))  # type: ignore[return-value]

    return ScoreColumns(
        value=joined(lambda run: score_column(run.table, scorer.name)),
        parts={part: joined(partial(_part, f"{scorer.name}.{part}")) for part in scorer.parts},
        status=joined(lambda run: run.table.status),
        texts=texts,
    )


def _part(name: str, run: RunSamples) -> Floats:
    return score_column(run.table, name)


def _merged(columns: Sequence[Labelled], rows: Sequence[Ints]) -> Labelled:
    """Columns of text one after the other, with labels in common."""
    labels = sorted({label for column in columns for label in column.labels})
    place = {label: at for at, label in enumerate(labels)}
    parts = []
    for column, row in zip(columns, rows, strict=True):
        codes = np.array([*(place[label] for label in column.labels), -1], np.int32)
        parts.append(codes[column.codes[row]])
    return Labelled(np.concatenate(parts), tuple(labels))


def _totals(corpus: Corpus, kinds: Ints, unit: Ints, n: int) -> Floats:
    """What each sample adds to the sums: the mean over its repeats. Shape (n, k)."""
    share = 1.0 / np.bincount(unit, minlength=n)[unit]
    totals = np.empty((n, corpus.statistics.shape[1]))
    for column in range(totals.shape[1]):
        weights = corpus.statistics[kinds, column] * share
        totals[:, column] = np.bincount(unit, weights=weights, minlength=n)
    return totals


def _plain(name: str, pair: RunPair, joined: Joined, level: Level) -> PairedResult:
    """Two figures side by side, without a test."""
    found = [_metric(name, run) for run in (pair.a, pair.b)]
    values = [None if each is None else each.value for each in found]
    why = "one figure a run: no test and no interval of the difference"
    if values[0] is None or values[1] is None:
        return _result(None, None, (0, 0), None, level, "a run has no such figure")
    return _result(None, (values[0], values[1]), (0, 0), None, level, why)


def _metric(name: str, run: RunSamples) -> MetricValue | None:
    return next((metric for metric in run.run.metrics if metric.name == name and not metric.slice), None)
