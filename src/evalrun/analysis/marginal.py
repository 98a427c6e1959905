"""Within one sweep: which axis (model, prompt, a swept parameter) moved a metric, over all the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from evalrun.analysis.correction import Correction, Testing, corrected
from evalrun.analysis.intervals import Estimate
from evalrun.analysis.matrix import bounds_of, measures_of, runs_of, seed_of, stacked, whole_prompts
from evalrun.analysis.measures import Measure, RunSamples
from evalrun.analysis.paired import PairedResult, paired_difference
from evalrun.analysis.verdict import Verdict, verdict
from evalrun.canonical import digest
from evalrun.tracking.folder import SweepFolder
from evalrun.types import JSON, Direction


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


def marginal_effects(
    sweep: SweepFolder | Sequence[RunSamples],
    metrics: Sequence[str] = (),
    testing: Testing | None = None,
) -> tuple[AxisEffect, ...]:
    """The effect of every axis of a finished sweep that has several values, on each metric.

    `metrics` are names of means over samples (default: the score of every scorer). Levels are compared with
    the first of their axis, sample by sample, with p values corrected over all axes and metrics. Runs with a
    prompt that `ablate` made are left out. Raises UserError for an unknown metric.
    """
    testing, runs = testing or Testing(), whole_prompts(runs_of(sweep))
    effects = [
        effect
        for measure in measures_of(runs, metrics)
        for effect in axis_effects(runs, measure, alpha=testing.alpha, seed=seed_of(measure, testing.seed))
    ]
    return tuple(corrected_effects(effects, testing.correction, testing.margin)[0])


def corrected_effects(
    effects: Sequence[AxisEffect], correction: Correction, margin: float | None
) -> tuple[list[AxisEffect], int]:
    """The levels with p values corrected over all axes and metrics, and verdicts against the first level;
    and how many p values there were."""
    results = [
        level.against_first and replace(level.against_first, margin=margin)
        for effect in effects
        for level in effect.levels
    ]
    ps = corrected([None if each is None else each.p for each in results], correction)
    todo = iter(zip(results, ps, strict=True))
    made = []
    for effect in effects:
        levels = []
        for level in effect.levels:
            result, p = next(todo)
            if result is None:
                levels.append(level)
                continue
            word = verdict(result, effect.direction, effect.unit, p=p)
            levels.append(replace(level, against_first=result, p_corrected=p, verdict=word))
        made.append(replace(effect, levels=tuple(levels)))
    return made, sum(p is not None for p in ps)


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
    data = stacked(whole, list(levels), measure)
    if len(data.values) < 2:
        return None
    first = data.values[:, 0]
    made = tuple(
        Level(
            value,
            data.estimate(data.values[:, at], bounds_of(measure)),
            paired_difference(first, data.values[:, at], data.clusters, seed=seed, alpha=alpha)
            if at
            else None,
        )
        for at, value in enumerate(levels.values())
    )
    means = data.values.mean(axis=0)
    partial = len(cells) - len(whole)
    plural = "" if partial == 1 else "s"
    note = f"left out: {partial} combination{plural} that not every value has" if partial else ""
    return AxisEffect(
        measure.name, measure.unit, measure.direction, axis, len(whole), len(data.values),
        float(means.max() - means.min()), made, note,
    )  # fmt: skip
