"""Power before a run: what the samples of a plan will see, if they are like those of a sweep that is done."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, islice

import numpy as np

from evalrun.analysis.correction import ALPHA
from evalrun.analysis.measures import Measure, RunSamples, by_dataset, default_metrics, find_measure, joined
from evalrun.analysis.paired import paired_difference, samples_needed
from evalrun.analysis.power import (
    detectable_share,
    even_churn,
    independent_churn,
    pairs_needed,
    rescaled,
)
from evalrun.sweep_results import PairedResult
from evalrun.types import JSON

EFFECT = 0.05
"""The difference for which the samples are counted, of scores between 0 and 1."""
_MOST_PAIRS = 28


@dataclass(frozen=True, slots=True)
class PlannedPower:
    """What `samples` of a dataset will see between two of its `runs`, four times in five, at the level of all
    their `tests`.

    `detectable` is with the disagreement of those two runs of the pilot that disagree most (None with one
    run); `independent` as if runs answered independently of each other. `needed` samples see a difference of
    `effect`, with the former where it is known. `sentence` is for people.
    """

    dataset: str
    metric: str
    runs: int
    samples: int
    tests: int
    detectable: float | None
    independent: float | None
    effect: float
    needed: int | None
    sentence: str

    def document(self) -> dict[str, JSON]:
        """As JSON."""
        return asdict(self)


def planned_power(
    pilot: Sequence[RunSamples], planned: Mapping[str, tuple[int, int]], alpha: float = ALPHA
) -> list[PlannedPower]:
    """For each dataset of the plan, given as (samples, runs), that the pilot has too."""
    made = []
    for dataset, runs in by_dataset(pilot).items():
        if dataset in planned:
            names = default_metrics(runs)
            if names:
                made.append(_power(runs, find_measure(names[0], runs), dataset, planned[dataset], alpha))
    return made


def _power(
    runs: Sequence[RunSamples], measure: Measure, dataset: str, plan: tuple[int, int], alpha: float
) -> PlannedPower:
    samples, count = plan
    tests = max(1, math.comb(count, 2))
    results = []
    for pair in islice(combinations(runs, 2), _MOST_PAIRS):
        both = joined(list(pair), measure)
        if len(both.values):
            results.append(
                paired_difference(
                    both.values[:, 0], both.values[:, 1], both.clusters, alpha=alpha, permutations=1
                )
            )
    widest = max(results, key=lambda result: result.se or 0.0, default=None)
    detectable = None if widest is None else _scaled(widest, samples, alpha, tests)
    independent, needed = _independent(runs, measure, samples, alpha / tests)
    if widest is not None:
        if widest.discordant is not None and widest.n_clusters is None:
            needed = pairs_needed(EFFECT, even_churn(*widest.discordant, widest.n), alpha / tests)
        elif widest.mde is not None:
            at_once = rescaled(widest.mde, alpha, tests)
            needed = math.ceil(widest.n * (at_once / EFFECT) ** 2)
        else:
            needed = samples_needed(widest, EFFECT)
    sentence = _sentence(dataset, measure.name, plan, (detectable, independent), needed, tests)
    return PlannedPower(
        dataset, measure.name, count, samples, tests, detectable, independent, EFFECT, needed, sentence
    )


def _scaled(result: PairedResult, samples: int, alpha: float, tests: int) -> float | None:
    """What so many pairs like these detect."""
    if result.discordant is not None and result.n_clusters is None:
        return detectable_share(samples, even_churn(*result.discordant, result.n), alpha / tests)
    if result.mde is None:
        return None
    return rescaled(result.mde, alpha, tests) * math.sqrt(result.n / samples)


def _independent(
    runs: Sequence[RunSamples], measure: Measure, samples: int, level: float
) -> tuple[float | None, int | None]:
    """What independent runs detect, and how many samples see the effect, from each run's own spread."""
    alone = [joined([run], measure) for run in runs]
    found: list[tuple[float, int | None]] = []
    for one in alone:
        values = one.values[:, 0]
        if not len(values):
            continue
        if one.clusters is None and bool(((values == 0) | (values == 1)).all()):
            churn = independent_churn(float(values.mean()))
            seen = detectable_share(samples, churn, level)
            found += [] if seen is None else [(seen, pairs_needed(EFFECT, churn, level))]
            continue
        apart = paired_difference(values, np.zeros_like(values), one.clusters, alpha=level, permutations=1)
        if apart.mde is not None:
            wide = math.sqrt(2) * apart.mde
            found.append((wide * math.sqrt(apart.n / samples), math.ceil(apart.n * (wide / EFFECT) ** 2)))
    return max(found, key=lambda each: each[0], default=(None, None))


def _sentence(
    dataset: str,
    metric: str,
    plan: tuple[int, int],
    seen: tuple[float | None, float | None],
    needed: int | None,
    tests: int,
) -> str:
    samples, _ = plan
    parts = [
        f"{seen[0]:.3g} if its runs disagree as the pilot's do" if seen[0] is not None else "",
        f"{seen[1]:.3g} if they answer independently" if seen[1] is not None else "",
    ]
    text = " and ".join(part for part in parts if part)
    if not text:
        return f"{dataset}: the pilot has too few samples to say what {samples:,} would see in {metric}"
    at_once = f", {tests} pairs of runs at once" if tests > 1 else ""
    text = f"{dataset}: {samples:,} samples see a difference in {metric} of {text} (at 80 %{at_once})"
    return text + (f"; about {needed:,} see {EFFECT:g}" if needed is not None else "")
