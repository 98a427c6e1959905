"""Within one sweep: who is best, which axis moved the metric, and how much the choice of prompt matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.intervals import Bounds, Estimate, mean
from evalrun.analysis.measures import Measure, RunInfo, RunSamples
from evalrun.analysis.paired import PairedResult, paired_difference
from evalrun.analysis.simultaneous import tied_set
from evalrun.analysis.verdict import Verdict
from evalrun.canonical import digest
from evalrun.types import JSON, Direction

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Place:
    """One run of a standing: its mean over the samples that all runs have, and how it stands to the best.

    `behind` is best - mean with bounds that hold for all pairs of runs at once; `p` is corrected likewise.
    """

    run: RunInfo
    mean: Estimate
    behind: float
    behind_low: float | None
    behind_high: float | None
    p: float
    tied: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """The runs of one dataset from best to worst, over the `n` samples that all of them have.

    The best, and all whose `tied` is set, cannot be told apart.
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
            "places": [{**asdict(each), "run": each.run.document()} for each in self.places],
            "best": self.places[0].run.run if self.places else None,
            "tied": [each.run.run for each in self.places if each.tied],
        }


@dataclass(frozen=True, slots=True)
class Level:
    """One value of an axis: the mean over all the rest, and its difference from the axis' first value."""

    value: JSON
    mean: Estimate
    against_first: PairedResult | None
    p_corrected: float | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class AxisEffect:
    """What an axis (model, prompt, a swept parameter) does to a metric.

    `cells` combinations of all the rest went into it, `n` samples. `spread` is the greatest minus the least
    mean of its levels.
    """

    metric: str
    unit: str
    direction: Direction
    axis: str
    cells: int
    n: int
    spread: float
    levels: tuple[Level, ...]
    note: str = ""

    def document(self) -> dict[str, JSON]:
        """As JSON."""
        return {**asdict(self), "levels": [asdict(each) for each in self.levels]}


@dataclass(frozen=True, slots=True)
class PromptSensitivity:
    """How much the prompts of a sweep move one model on one dataset, over the `n` samples all of them have.

    `mean` is over prompts; `prompts` from best to worst with their means; `sd` the standard deviation of the
    prompts' means, `sd_beyond_chance` what of it is more than the samples' noise would give. `gap` is best
    minus worst with bounds that hold for all pairs of prompts, and its corrected p.
    """

    metric: str
    unit: str
    direction: Direction
    model: str
    dataset: str
    n: int
    mean: Estimate
    prompts: tuple[tuple[str, Estimate], ...]
    sd: float
    sd_beyond_chance: float
    gap: float
    gap_low: float | None
    gap_high: float | None
    p: float

    def document(self) -> dict[str, JSON]:
        """As JSON."""
        named = [{"prompt": name, **asdict(estimate)} for name, estimate in self.prompts]
        return {**asdict(self), "prompts": named, "best": self.prompts[0][0], "worst": self.prompts[-1][0]}


@dataclass(frozen=True, slots=True)
class _Matrix:
    """Values of several runs over the samples that all of them have: shape (n, k)."""

    values: Floats
    clusters: NDArray[np.int64] | None
    dropped: int

    def estimate(self, values: Floats, bounds: Bounds) -> Estimate:
        return mean(values, self.clusters, repeated=not _binary(values), bounds=bounds)


def _binary(values: Floats) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _matrix(runs: Sequence[RunSamples], measure: Measure) -> _Matrix:
    """The runs (of one dataset) joined by sample id; samples missing in any run are left out."""
    everything = np.unique(np.concatenate([run.ids for run in runs]))
    place: Mapping[Any, int] = {each: at for at, each in enumerate(everything)}
    values = np.full((len(everything), len(runs)), np.nan)
    clusters: NDArray[np.int64] | None = None
    for at, run in enumerate(runs):
        rows = np.array([place[each] for each in run.ids], np.int64)
        values[rows, at] = measure.values(run)
        if run.clusters is not None and at == 0:
            clusters = np.full(len(everything), -1, np.int64)
            clusters[rows] = run.clusters
    known = ~np.isnan(values).any(axis=1)
    return _Matrix(
        values[known], None if clusters is None else clusters[known], int(len(known) - known.sum())
    )


def _bounds(measure: Measure) -> Bounds:
    return (0.0, 1.0) if measure.unit == "fraction" else (None, None)


def by_dataset(runs: Sequence[RunSamples]) -> dict[str, list[RunSamples]]:
    """The runs of a sweep by dataset, in its order."""
    found: dict[str, list[RunSamples]] = {}
    for run in runs:
        found.setdefault(run.run.dataset, []).append(run)
    return found


def standings(runs: Sequence[RunSamples], measure: Measure, *, alpha: float, seed: int) -> list[Standing]:
    """A standing for every dataset that several runs of the sweep have."""
    found = []
    for dataset, group in by_dataset(runs).items():
        data = _matrix(group, measure)
        if len(group) < 2 or len(data.values) < 2:
            continue
        found.append(_standing(dataset, group, measure, data, alpha, seed))
    return found


def _standing(
    dataset: str, runs: Sequence[RunSamples], measure: Measure, data: _Matrix, alpha: float, seed: int
) -> Standing:
    result = tied_set(data.values, data.clusters, direction=measure.direction, alpha=alpha, seed=seed)
    places = []
    for at in result.order:
        bounds = None if at == result.best else result.pairs.interval(result.best, at, 1 - alpha)
        places.append(
            Place(
                runs[at].info,
                data.estimate(data.values[:, at], _bounds(measure)),
                result.pairs.difference(result.best, at),
                None if bounds is None else bounds[0],
                None if bounds is None else bounds[1],
                result.p[at],
                at in result.tied,
            )
        )
    sentence = _told(runs[result.best].info.run, len(result.tied), len(runs), len(data.values), data.dropped)
    return Standing(
        measure.name, measure.unit, measure.direction, dataset, len(data.values), tuple(places), sentence
    )


def _told(best: str, tied: int, runs: int, n: int, dropped: int) -> str:
    if tied == runs:
        text = f"the {runs} runs cannot be told apart on {n} samples"
    elif tied == 1:
        text = f"{best} is better than the other {runs - 1} on {n} samples"
    else:
        text = f"{best} looks best; {tied - 1} of the other {runs - 1} cannot be told from it on {n} samples"
    return text + (f" ({dropped} that not all runs have are left out)" if dropped else "")


def axis_effects(
    runs: Sequence[RunSamples], measure: Measure, *, alpha: float, seed: int
) -> list[AxisEffect]:
    """The effect of every axis with several values; p values are left to be corrected.

    Each sample's value at a level is its mean over the combinations of all other axes that every level has,
    so that levels are paired in all the rest, and the interval is over samples (or clusters), not over rows.
    Samples of several datasets are taken together.
    """
    coordinates = [_coordinates(run) for run in runs]
    axes = list(dict.fromkeys(name for each in coordinates for name in each if name != "dataset"))
    found = [_axis(axis, runs, coordinates, measure, alpha, seed) for axis in axes]
    return [each for each in found if each is not None]


def _coordinates(run: RunSamples) -> dict[str, JSON]:
    return {
        "model": run.run.model,
        "prompt": run.run.prompt,
        "dataset": run.run.dataset,
        **{name: run.run.params.get(name) for name in swept_names(run)},
    }


def swept_names(run: RunSamples) -> tuple[str, ...]:
    """The parameters that the suite sweeps over."""
    resolved = run.sweep.suite.resolved
    swept = resolved.get("sweep") if isinstance(resolved, dict) else None
    if isinstance(swept, dict):
        return tuple(swept)
    # A manifest without its suite: parameters in which runs of the same model differ.
    values: dict[tuple[str, str], set[str]] = {}
    for each in run.sweep.plan:
        for name, value in each.params.items():
            values.setdefault((each.model, name), set()).add(digest(value))
    return tuple(dict.fromkeys(name for (_, name), each in values.items() if len(each) > 1))


def _axis(
    axis: str,
    runs: Sequence[RunSamples],
    coordinates: Sequence[Mapping[str, JSON]],
    measure: Measure,
    alpha: float,
    seed: int,
) -> AxisEffect | None:
    cells: dict[str, dict[str, RunSamples]] = {}
    levels: dict[str, JSON] = {}
    for run, where in zip(runs, coordinates, strict=True):
        level = digest(where.get(axis))
        levels[level] = where.get(axis)
        rest = digest({name: value for name, value in where.items() if name != axis})
        cells.setdefault(rest, {})[level] = run
    whole = [cell for cell in cells.values() if len(cell) == len(levels)]
    if len(levels) < 2 or not whole:
        return None
    data = _stacked(whole, list(levels), measure)
    if len(data.values) < 2:
        return None
    first = data.values[:, 0]
    made = tuple(
        Level(
            value,
            data.estimate(data.values[:, at], _bounds(measure)),
            paired_difference(first, data.values[:, at], data.clusters, seed=seed, alpha=alpha)
            if at
            else None,
        )
        for at, value in enumerate(levels.values())
    )
    means = data.values.mean(axis=0)
    partial = len(cells) - len(whole)
    note = f"left out: {partial} combinations that not every value has" if partial else ""
    return AxisEffect(
        measure.name, measure.unit, measure.direction, axis, len(whole), len(data.values),
        float(means.max() - means.min()), made, note,
    )  # fmt: skip


def _stacked(cells: Sequence[Mapping[str, RunSamples]], levels: Sequence[str], measure: Measure) -> _Matrix:
    """One row a sample of any dataset, one column a level: the mean over the cells of its dataset."""
    grouped: dict[str, list[Mapping[str, RunSamples]]] = {}
    for cell in cells:
        grouped.setdefault(next(iter(cell.values())).run.dataset, []).append(cell)
    blocks, clusters, offset, dropped, any_clusters = [], [], 0, 0, False
    for group in grouped.values():
        data = _matrix([cell[level] for cell in group for level in levels], measure)
        blocks.append(data.values.reshape(len(data.values), len(group), len(levels)).mean(axis=1))
        any_clusters |= data.clusters is not None
        codes = np.arange(len(data.values)) if data.clusters is None else data.clusters
        clusters.append(codes + offset)
        offset += int(codes.max()) + 1 if len(codes) else 0
        dropped += data.dropped
    codes = np.concatenate(clusters).astype(np.int64)
    return _Matrix(np.concatenate(blocks), codes if any_clusters else None, dropped)


def prompt_sensitivity(
    runs: Sequence[RunSamples], measure: Measure, *, alpha: float, seed: int
) -> list[PromptSensitivity]:
    """For every model and dataset with several prompts: their means, spread, best and worst."""
    found = []
    grouped: dict[tuple[str, str], list[RunSamples]] = {}
    for run in runs:
        grouped.setdefault((run.run.model, run.run.dataset), []).append(run)
    for (model, dataset), group in grouped.items():
        prompts = list(dict.fromkeys(run.run.prompt for run in group))
        cells: dict[str, dict[str, RunSamples]] = {}
        for run in group:
            cells.setdefault(digest(dict(run.run.params)), {})[run.run.prompt] = run
        whole = [cell for cell in cells.values() if len(cell) == len(prompts)]
        if len(prompts) < 2 or not whole:
            continue
        data = _stacked(whole, prompts, measure)
        if len(data.values) >= 2:
            found.append(_sensitivity(model, dataset, prompts, measure, data, alpha, seed))
    return found


def _sensitivity(
    model: str,
    dataset: str,
    prompts: Sequence[str],
    measure: Measure,
    data: _Matrix,
    alpha: float,
    seed: int,
) -> PromptSensitivity:
    result = tied_set(data.values, data.clusters, direction=measure.direction, alpha=alpha, seed=seed)
    best, worst = result.best, result.order[-1]
    interval = result.pairs.interval(best, worst, 1 - alpha)
    variance = float(result.pairs.means.var(ddof=1))
    # Two means that differ by chance alone have a variance of half their difference's squared error.
    k = len(prompts)
    chance = float((result.pairs.se**2).sum()) / (2 * k * (k - 1))
    bounds = _bounds(measure)
    return PromptSensitivity(
        metric=measure.name,
        unit=measure.unit,
        direction=measure.direction,
        model=model,
        dataset=dataset,
        n=len(data.values),
        mean=data.estimate(data.values.mean(axis=1), bounds),
        prompts=tuple((prompts[at], data.estimate(data.values[:, at], bounds)) for at in result.order),
        sd=variance**0.5,
        sd_beyond_chance=max(0.0, variance - chance) ** 0.5,
        gap=result.pairs.difference(best, worst),
        gap_low=None if interval is None else interval[0],
        gap_high=None if interval is None else interval[1],
        p=result.p[worst],
    )
