"""One rule for which runs differ: who is best on a dataset, who is tied with it, who is behind.

Terminal, report, `--json`, `compare` within a sweep and prompt sensitivity all take their word from here.
Runs are paired by sample id. Who looks best was chosen by the data, so its differences must hold among all
pairs of runs that could have been looked at: tests and bounds are for all pairs at once. Test and bounds
agree: where p > alpha the bounds reach 0, where p <= alpha they do not (docs/statistics.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.bootstrap import resampled_sums, unit_totals
from evalrun.analysis.distributions import single_threaded, t_quantile
from evalrun.analysis.measures import Matrix, Measure, RunInfo, RunSamples, bounds_of, by_dataset, joined
from evalrun.analysis.paired import decided_difference, paired_difference
from evalrun.frozen import frozen
from evalrun.results import Estimate, like_loads
from evalrun.sweep_results import PairedResult, Standing, StandingVerdict
from evalrun.types import JSON, Direction

Floats = NDArray[np.float64]

RESAMPLES, LEAST_RESAMPLES = 4_000, 400
_LOOKED_AT = 400_000_000
"""So many differences of pairs are computed at most; with very many runs there are fewer resamples."""
_FAR, _GRID = 6.0, 97
"""Up to so many standard errors Student's t is looked up, at so many places."""

ENOUGH_SHARED = 0.8
"""Where all runs share fewer of the best run's samples than this, each is paired with the best alone."""
BUNCHES = 5_000
"""With more samples than four times this, they are resampled in so many random bunches: the variance is the
same and the time does not grow."""
PERMUTATIONS = 2_000
"""Sign flips a pair where there are many pairs: nobody need tell p = 0.001 from p = 0.0001 there."""

E2E = "performance.e2e_s.p50"


class AllPairs:
    """k columns over the same n samples, shape (n, k) without NaN: how far any two differ by chance.

    Samples, or whole clusters (n,), are drawn with replacement, the same for all columns, so that what they
    have in common cancels. The draws are widened as Student's t is wider than the normal distribution.
    (Max-T bootstrap; Romano and Wolf 2005, Econometrica 73, 1237, for why the greatest statistic corrects for
    all.) `weights`, shape (n,), are what samples stand for. `se`, shape (k, k), is the
    standard error of each difference.
    """

    def __init__(
        self,
        values: Floats,
        clusters: NDArray[Any] | None = None,
        *,
        seed: int = 0,
        weights: Floats | None = None,
    ) -> None:
        n, k = values.shape
        if clusters is None and n > 4 * BUNCHES:
            clusters = np.arange(n) % BUNCHES
        self.means: Floats = np.average(values, axis=0, weights=weights)
        apart = values - self.means
        if weights is not None:  # Hajek's mean, linearised
            apart = apart * (weights / weights.mean())[:, None]
        self._totals = unit_totals(apart, clusters) / n
        self._seed = seed
        self.units = len(self._totals)
        self.se: Floats = np.zeros((k, k))
        if self.units > 1:
            with single_threaded():
                covariance = self.units / (self.units - 1) * (self._totals.T @ self._totals)
            variances = np.diag(covariance)
            squared = np.maximum(variances[:, None] + variances[None, :] - 2 * covariance, 0.0)
            squared[squared <= 1e-20 * max(1e-300, float(variances.max()))] = 0.0
            self.se = np.sqrt(squared)

    @cached_property
    def greatest(self) -> Floats:
        """The greatest |difference| / se of any pair in each resample of the centred data, sorted."""
        k = len(self.means)
        if self.units < 2 or k < 2:
            return np.empty(0)
        resamples = max(LEAST_RESAMPLES, min(RESAMPLES, _LOOKED_AT // (k * k)))
        with single_threaded():
            # Columns that are equal throughout differ from the others by the same, and from each other not.
            distinct = np.unique(self._totals, axis=1, return_index=True)[1]
            totals, se = self._totals[:, distinct], self.se[np.ix_(distinct, distinct)]
            drawn = resampled_sums(totals, seed=self._seed, resamples=resamples)
            greatest = np.sort(np.concatenate([_greatest(means, se) for means in drawn]))
        return as_student(greatest * math.sqrt(self.units / (self.units - 1)), self.units - 1)

    def difference(self, i: int, j: int) -> float:
        """Mean of column i minus that of column j."""
        return float(self.means[i] - self.means[j])

    def constant(self, i: int, j: int) -> bool:
        """Whether every unit differs by the same, which resampling would take for certainty."""
        return self.se[i, j] == 0 and self.difference(i, j) != 0

    def p(self, i: int, j: int) -> float:
        """p of i = j, corrected for all pairs: share of resamples in which some pair differs as much."""
        difference = abs(self.difference(i, j))
        if difference == 0 or len(self.greatest) == 0:
            return 1.0
        limit = difference / float(self.se[i, j]) - 1e-9
        as_large = len(self.greatest) - int(np.searchsorted(self.greatest, limit))
        return (1 + as_large) / (1 + len(self.greatest))

    def interval(self, i: int, j: int, alpha: float = 0.05) -> tuple[float, float] | None:
        """Bounds for i - j that hold for all pairs at once, and exclude 0 just where p(i, j) <= alpha."""
        count = len(self.greatest)
        if count == 0:
            return None
        # So many resamples may differ as much before p is greater than alpha.
        allowed = min(count - 1, max(0, math.floor(alpha * (1 + count) + 1e-9) - 1))
        half = (float(self.greatest[count - 1 - allowed]) + 1e-9) * float(self.se[i, j])
        return self.difference(i, j) - half, self.difference(i, j) + half


def as_student(greatest: Floats, df: int) -> Floats:
    """Values of a normal distribution as those of Student's t that are as rare.

    The far tail is widened more than the middle, and with many pairs the greatest of them lies far out.
    """
    end = min(_FAR, float(greatest[-1])) or 1.0
    grid = np.linspace(0.0, end, _GRID)
    points = [t_quantile(1 - math.erfc(at / math.sqrt(2)) / 2, df) if at else 0.0 for at in grid.tolist()]
    beyond = np.maximum(greatest / end, 1.0)
    return np.asarray(np.interp(greatest, grid, points) * beyond)


def _greatest(means: Floats, se: Floats) -> Floats:
    """The greatest |difference| / se of any pair, for each row of means."""
    inverse = np.divide(1.0, se, out=np.zeros_like(se), where=se > 0)
    found = np.zeros(len(means))
    for i in range(1, means.shape[1]):
        sizes = np.abs(means[:, :i] - means[:, i : i + 1]) * inverse[i, :i]
        np.maximum(found, sizes.max(axis=1), out=found)
    return found


@frozen
class Apart:
    """How far two runs are apart over `n` sample ids; p and bounds hold among all pairs that there are.

    `detectable` is the true difference that so many pairs find four times in five.
    """

    difference: float
    n: int
    p: float
    low: float | None
    high: float | None
    method: str
    detectable: float | None


def _apart(result: PairedResult, pairs: int) -> Apart:
    method = f"paired, {result.test or 'no test'}"
    if pairs > 1:
        method += f", corrected for {pairs} pairs of runs"
    p = 1.0 if result.p is None else result.p
    return Apart(result.difference or 0.0, result.n, p, result.ci_low, result.ci_high, method, result.mde)


class Pairs:
    """Columns over the same samples, shape (n, k) without NaN, any two of which can be compared.

    Two columns are one exact paired test. Of three or more, all pairs are tested at once; the exact test of a
    pair has its say where samples are so few that there is little to resample.
    """

    def __init__(
        self,
        values: Floats,
        clusters: NDArray[Any] | None,
        *,
        alpha: float,
        seed: int,
        weights: Floats | None = None,
    ) -> None:
        self.values, self.clusters, self._weights = values, clusters, weights
        self._alpha, self._seed = alpha, seed

    @cached_property
    def together(self) -> AllPairs:
        """All pairs at once."""
        return AllPairs(self.values, self.clusters, seed=self._seed, weights=self._weights)

    def apart(self, i: int, j: int) -> Apart:
        """Column i minus column j."""
        a, b = self.values[:, j], self.values[:, i]
        k = self.values.shape[1]
        if k == 2 or self.together.constant(i, j):
            pairs = math.comb(k, 2)
            found = decided_difference(
                a, b, self.clusters, seed=self._seed, alpha=self._alpha, tests=pairs, weights=self._weights
            )
            return _apart(found, pairs)
        alone = paired_difference(
            a, b, self.clusters, seed=self._seed, alpha=self._alpha, permutations=PERMUTATIONS,
            tests=math.comb(k, 2), weights=self._weights,
        )  # fmt: skip
        p = max(self.together.p(i, j), 1.0 if alone.p is None else alone.p)
        low, high = self.together.interval(i, j, self._alpha) or (None, None)
        if low is not None and high is not None and p > self._alpha:
            low, high = min(low, 0.0), max(high, 0.0)
        method = "paired, for all pairs of runs at once"
        return Apart(self.together.difference(i, j), alone.n, p, low, high, method, alone.mde)


class Ranking:
    """The runs of one dataset from best to worst by one measure.

    By the metric's value in `run.json`, or the mean over samples where it has none; of equal values the
    faster comes first (where they were asked under one load); a run that lost too many rows comes after
    those that did not, one without a value
    last.
    """

    def __init__(self, runs: Sequence[RunSamples], measure: Measure, *, alpha: float, seed: int) -> None:
        self.measure, self._alpha, self._seed = measure, alpha, seed
        values = [_value(run, measure) for run in runs]
        compared = like_loads([run.run.load_words for run in runs])
        sign = 1 if measure.direction == "lower" else -1
        places = sorted(
            range(len(runs)),
            key=lambda at: (
                values[at] is None,
                _incomplete(runs[at], measure),
                sign * (values[at] or 0.0),
                _median_s(runs[at]) if compared else 0.0,
            ),
        )
        self.runs = [runs[at] for at in places]
        self.values = [values[at] for at in places]
        self._having = [
            at for at, run in enumerate(self.runs) if self.values[at] is not None and run.has_samples
        ]

    @cached_property
    def columns(self) -> dict[int, int]:
        """The columns of `common` by the places of the runs."""
        return {at: column for column, at in enumerate(self._having)}

    @cached_property
    def common(self) -> Matrix:
        """The samples that all runs with a value share."""
        return joined([self.runs[at] for at in self._having], self.measure)

    @cached_property
    def _together(self) -> Pairs | None:
        """All runs at once, where they share enough of the best run's samples."""
        whole = int((~np.isnan(self.measure.values(self.runs[self._having[0]]))).sum())
        if len(self._having) > 2 and len(self.common.values) < max(2, ENOUGH_SHARED * whole):
            return None
        shared = self.common
        return Pairs(
            shared.values, shared.clusters, alpha=self._alpha, seed=self._seed, weights=shared.weights
        )

    def apart(self, i: int, j: int) -> Apart | None:
        """How far run i is ahead of run j (by their places); None where they share no sample."""
        columns = self.columns
        if i not in columns or j not in columns:
            return None
        if self._together is not None and len(self.common.values):
            return self._together.apart(columns[i], columns[j])
        shared = joined([self.runs[i], self.runs[j]], self.measure)
        if not len(shared.values):
            return None
        tests = math.comb(len(self._having), 2)
        found = decided_difference(
            shared.values[:, 1], shared.values[:, 0], shared.clusters,
            seed=self._seed, alpha=self._alpha, tests=tests, weights=shared.weights,
        )  # fmt: skip
        return _apart(found, tests)

    def standings(self) -> list[Standing]:
        """Where each run stands, from best to worst. Where all have the same value nobody is best."""
        if not self.values or self.values[0] is None:
            return [self._standing(at, "incomparable", None) for at in range(len(self.runs))]
        made = []
        for at in range(1, len(self.runs)):
            apart = self.apart(0, at)
            made.append(self._standing(at, self._verdict(apart), apart))
        same = [
            each.verdict == "tied" and value == self.values[0]
            for each, value in zip(made, self.values[1:], strict=True)
        ]
        best: StandingVerdict = "tied" if made and all(same) else "best"
        return [self._standing(0, best, None), *made]

    def _verdict(self, apart: Apart | None) -> StandingVerdict:
        if apart is None:
            return "incomparable"
        # A better mean over the shared samples than the best run's is no reason to be behind.
        ahead = apart.difference < 0 if self.measure.direction == "lower" else apart.difference > 0
        return "behind" if apart.p <= self._alpha and ahead else "tied"

    def _standing(self, at: int, verdict: StandingVerdict, apart: Apart | None) -> Standing:
        run = self.runs[at].run
        incomplete = _incomplete(self.runs[at], self.measure)
        plain = Standing(run.run, run.dataset, self.measure.name, verdict, incomplete=incomplete)
        if apart is None:
            return plain
        return Standing(
            plain.run, plain.dataset, plain.metric, verdict, apart.difference, apart.low, apart.high, apart.p,
            apart.n, apart.method, apart.detectable, incomplete,
        )  # fmt: skip


def _value(run: RunSamples, measure: Measure) -> float | None:
    for metric in run.run.metrics:
        if metric.name == measure.name and not metric.slice and metric.value is not None:
            return metric.value
    if not run.has_samples:
        return None
    values = measure.values(run)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def _incomplete(run: RunSamples, measure: Measure) -> bool:
    """Whether the run's figure lost too many rows to be ranked among those that did not."""
    return any(
        metric.incomplete for metric in run.run.metrics if metric.name == measure.name and not metric.slice
    )


def _median_s(run: RunSamples) -> float:
    found = (metric.value for metric in run.run.metrics if metric.name == E2E and not metric.slice)
    return next(found, None) or math.inf


@frozen
class Place:
    """One run of a dataset's standings: its mean over the samples that all runs have, and its standing.

    `behind` is best - mean with bounds that hold for all pairs of runs at once; `p` is corrected likewise.
    """

    run: RunInfo
    mean: Estimate
    behind: float
    behind_low: float | None
    behind_high: float | None
    p: float
    tied: bool
    verdict: StandingVerdict


@frozen
class DatasetStandings:
    """The runs of one dataset from best to worst, over the `n` samples that all of them have.

    The best is tied with all whose `tied` is set.
    """

    metric: str
    unit: str
    direction: Direction
    dataset: str
    n: int
    places: tuple[Place, ...]
    sentence: str

    def document(self) -> dict[str, JSON]:
        """As JSON."""
        return {
            **asdict(self),
            "places": [{**asdict(place), "run": place.run.document()} for place in self.places],
            "best": self.places[0].run.run if self.places else None,
            "tied": [place.run.run for place in self.places if place.tied],
        }


def dataset_standings(
    runs: Sequence[RunSamples], measure: Measure, *, alpha: float, seed: int
) -> list[DatasetStandings]:
    """The standings of every dataset that several runs of the sweep have."""
    found = []
    for dataset, group in by_dataset(runs).items():
        ranking = Ranking(group, measure, alpha=alpha, seed=seed)
        if len(group) > 1 and len(ranking.common.values) > 1:
            found.append(_dataset(dataset, ranking))
    return found


def _dataset(dataset: str, ranking: Ranking) -> DatasetStandings:
    data, measure = ranking.common, ranking.measure
    places = []
    columns = ranking.columns
    for at, standing in enumerate(ranking.standings()):
        first = at == 0
        values = data.values[:, columns[at]] if at in columns else np.empty(0)
        places.append(
            Place(
                run=ranking.runs[at].info,
                mean=data.estimate(values, bounds_of(measure)),
                behind=standing.difference or 0.0,
                behind_low=standing.ci_low,
                behind_high=standing.ci_high,
                p=1.0 if standing.p is None else standing.p,
                tied=first or standing.verdict == "tied",
                verdict=standing.verdict,
            )
        )
    sentence = _sentence(places, len(data.values), data.dropped)
    return DatasetStandings(
        measure.name, measure.unit, measure.direction, dataset, len(data.values), tuple(places), sentence
    )


def _sentence(places: Sequence[Place], n: int, dropped: int) -> str:
    runs, tied, best = len(places), sum(place.tied for place in places), places[0].run.run
    if tied == runs:
        text = f"the {runs} runs are tied on {n} samples"
    elif tied == 1:
        text = f"{best} is better than the other {runs - 1} on {n} samples"
    else:
        text = f"{best} looks best; {tied - 1} of the other {runs - 1} are tied with it on {n} samples"
    return text + (f" ({dropped} that not all runs have are left out)" if dropped else "")
