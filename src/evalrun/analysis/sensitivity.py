"""Within one sweep: how much the choice of the prompt moves each model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from evalrun.analysis.correction import ALPHA
from evalrun.analysis.intervals import Estimate
from evalrun.analysis.matrix import (
    Matrix,
    bounds_of,
    measures_of,
    runs_of,
    seed_of,
    stacked,
    whole_prompts,
)
from evalrun.analysis.measures import Measure, RunSamples
from evalrun.analysis.simultaneous import tied_set
from evalrun.canonical import digest
from evalrun.tracking.folder import SweepFolder
from evalrun.types import JSON, Direction


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


def prompt_sensitivities(
    sweep: SweepFolder | Sequence[RunSamples],
    metrics: Sequence[str] = (),
    *,
    alpha: float = ALPHA,
    seed: int = 0,
) -> tuple[PromptSensitivity, ...]:
    """How much prompts move each model of a finished sweep, on each dataset and metric.

    `metrics` are names of means over samples (default: the score of every scorer). Runs with a prompt that
    `ablate` made are left out. Raises UserError for an unknown metric.
    """
    runs = whole_prompts(runs_of(sweep))
    return tuple(
        found
        for measure in measures_of(runs, metrics)
        for found in prompt_sensitivity(runs, measure, alpha=alpha, seed=seed_of(measure, seed))
    )


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
        data = stacked(whole, prompts, measure)
        if len(data.values) >= 2:
            found.append(_sensitivity(model, dataset, prompts, measure, data, alpha, seed))
    return found


def _sensitivity(
    model: str,
    dataset: str,
    prompts: Sequence[str],
    measure: Measure,
    data: Matrix,
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
    bounds = bounds_of(measure)
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
