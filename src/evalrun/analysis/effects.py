"""Within one sweep: which axis (model, prompt, a swept parameter) moved a metric, how much the choice of
prompt moves each model, and what each part of a prompt (a marked section, a few-shot example) adds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from math import comb

import numpy as np

from evalrun.analysis.correction import Correction, Testing, corrected
from evalrun.analysis.measures import (
    Floats,
    Matrix,
    Measure,
    RunSamples,
    bounds_of,
    find_measure,
    seed_of,
    stacked,
    whole_prompts,
)
from evalrun.analysis.paired import agreeing, paired_difference
from evalrun.analysis.standings import Pairs
from evalrun.analysis.verdict import verdict
from evalrun.canonical import digest
from evalrun.frozen import frozen
from evalrun.sweep_results import (
    AxisEffect,
    Interaction,
    Level,
    Part,
    PromptAblation,
    PromptSensitivity,
    Verdict,
)
from evalrun.types import JSON


@frozen
class SweepEffects:
    """What moves the metrics of one sweep; `tests` p values were corrected together."""

    axes: tuple[AxisEffect, ...] = ()
    sensitivity: tuple[PromptSensitivity, ...] = ()
    ablations: tuple[PromptAblation, ...] = ()
    tests: int = 0


def sweep_effects(
    runs: Sequence[RunSamples], measures: Sequence[Measure], testing: Testing | None = None
) -> SweepEffects:
    """The effect of every axis that has several values, the sensitivity to prompts, and ablated prompts.

    Levels of an axis are compared with its first, parts of a prompt with the whole, sample by sample; p
    values are corrected over all axes and metrics, and over all parts, prompts, models, datasets and metrics.
    Runs with a prompt that `ablate` made count for nothing but the ablation of it.
    """
    testing, own = testing or Testing(), whole_prompts(runs)
    axes: list[AxisEffect] = []
    sensitivity: list[PromptSensitivity] = []
    parts: list[PromptAblation] = []
    for measure in measures:
        seed = seed_of(measure, testing.seed)
        axes += axis_effects(own, measure, alpha=testing.alpha, seed=seed)
        sensitivity += prompt_sensitivity(own, measure, alpha=testing.alpha, seed=seed)
        if len(own) < len(runs):
            parts += prompt_ablations(runs, measure, alpha=testing.alpha, seed=seed)
    axes, tests = corrected_effects(axes, testing.correction, testing.margin)
    parts, more = corrected_ablations(parts, testing.correction, testing.margin)
    return SweepEffects(tuple(axes), tuple(sensitivity), tuple(parts), tests + more)


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
    tests = _together(ps, correction)
    todo = iter(zip(results, ps, strict=True))
    made = []
    for effect in effects:
        levels = []
        for level in effect.levels:
            result, p = next(todo)
            if result is None:
                levels.append(level)
                continue
            result = agreeing(result, p, tests)
            word = verdict(result, effect.direction, effect.unit, p=p)
            levels.append(replace(level, against_first=result, p_corrected=p, verdict=word))
        made.append(replace(effect, levels=tuple(levels)))
    return made, sum(p is not None for p in ps)


def _together(ps: Sequence[float | None], correction: Correction) -> int:
    """How many tests are corrected together."""
    return 1 if correction == "none" else sum(p is not None for p in ps)


def axis_effects(
    runs: Sequence[RunSamples], measure: Measure, *, alpha: float, seed: int
) -> list[AxisEffect]:
    """The effect of every axis with several values; p values are left to be corrected.

    Each sample's value at a level is its mean over the combinations of all other axes that every level has,
    so that levels are paired in all the rest, and the interval is over samples (or clusters), not over rows.
    Samples of several datasets are taken together.
    """
    coordinates = [_coordinates(run) for run in runs]
    axes = list(dict.fromkeys(name for coordinate in coordinates for name in coordinate if name != "dataset"))
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
    if isinstance(swept, dict) and isinstance(resolved, dict):
        return (*swept, "load") if resolved.get("load") else tuple(swept)
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
    pairs = Pairs(data.values, data.clusters, alpha=alpha, seed=seed)
    sign = 1 if measure.direction == "lower" else -1
    order = [int(at) for at in np.argsort(sign * pairs.together.means, kind="stable")]
    apart = pairs.apart(order[0], order[-1])
    variance = float(pairs.together.means.var(ddof=1))
    # Two means that differ by chance alone have a variance of half their difference's squared error.
    k = len(prompts)
    chance = float((pairs.together.se**2).sum()) / (2 * k * (k - 1))
    bounds = bounds_of(measure)
    return PromptSensitivity(
        metric=measure.name,
        unit=measure.unit,
        direction=measure.direction,
        model=model,
        dataset=dataset,
        n=len(data.values),
        mean=data.estimate(data.values.mean(axis=1), bounds),
        prompts=tuple((prompts[at], data.estimate(data.values[:, at], bounds)) for at in order),
        sd=variance**0.5,
        sd_beyond_chance=max(0.0, variance - chance) ** 0.5,
        gap=apart.difference,
        gap_low=apart.low,
        gap_high=apart.high,
        p=apart.p,
    )


def corrected_ablations(
    found: Sequence[PromptAblation], correction: Correction, margin: float | None
) -> tuple[list[PromptAblation], int]:
    """The parts with corrected p values and verdicts, and how many p values there were."""
    ps = corrected(
        [
            p
            for each in found
            for p in (*(part.gain.p for part in each.parts), *(pair.effect.p for pair in each.interactions))
        ],
        correction,
    )
    todo, tests = iter(ps), _together(ps, correction)
    made = []
    for each in found:
        parts = []
        for part in each.parts:
            p = next(todo)
            gain = agreeing(replace(part.gain, margin=margin), p, tests)
            word = verdict(gain, each.direction, each.unit, p=p)
            sentence = _part_sentence(part, word)
            parts.append(replace(part, gain=gain, p_corrected=p, verdict=word, sentence=sentence))
        pairs = [_interaction(pair, next(todo), tests) for pair in each.interactions]
        made.append(replace(each, parts=tuple(parts), interactions=tuple(pairs)))
    return made, sum(p is not None for p in ps)


def _interaction(pair: Interaction, p: float | None, tests: int) -> Interaction:
    effect, word = agreeing(pair.effect, p, tests), "tied"
    if p is not None and p <= effect.alpha and effect.difference:
        word = "say the same" if effect.difference < 0 else "need one another"
    return replace(pair, effect=effect, p_corrected=p, word=word)


def _part_sentence(part: Part, found: Verdict) -> str:
    """What is known of the part, for people."""
    word = {"better": "helps", "worse": "harms", "equivalent": "makes no difference that matters"}
    cost = "" if part.tokens is None else f", for {part.tokens:.3g} tokens a sample"
    if part.tokens is not None and part.tokens < 0:  # such as a chat template's own system message
        cost = f" (without it {-part.tokens:.3g} tokens more are sent)"
    return f"{part.part} {word.get(found.word, 'may do nothing')}{cost}: {found.sentence}"


def prompt_ablations(
    runs: Sequence[RunSamples], measure: Measure, *, alpha: float, seed: int
) -> list[PromptAblation]:
    """For every model, ablated prompt and dataset: its parts, with p values left to be corrected."""
    grouped: dict[tuple[str, str, str], list[RunSamples]] = {}
    for run in runs:
        prompt = run.ablates or run.run.prompt
        grouped.setdefault((run.run.model, prompt, run.run.dataset), []).append(run)
    made = [_taken_apart(prompt, group, measure, alpha, seed) for (_, prompt, _), group in grouped.items()]
    return [each for each in made if each is not None]


def _taken_apart(
    prompt: str, runs: Sequence[RunSamples], measure: Measure, alpha: float, seed: int
) -> PromptAblation | None:
    from evalrun.prompts.sections import parts_of  # few sweeps leave anything out

    variants = {run.run.prompt: tuple(parts_of(run.left_out)) for run in runs if run.ablates}
    levels = [prompt, *variants]
    cells: dict[str, dict[str, RunSamples]] = {}
    for run in runs:
        cells.setdefault(digest(dict(run.run.params)), {})[run.run.prompt] = run
    complete = [cell for cell in cells.values() if len(cell) == len(levels)]
    if not variants or not complete:
        return None
    data = stacked(complete, levels, measure)
    if len(data.values) < 2:
        return None
    info, bounds = runs[0].run, bounds_of(measure)
    tokens = _tokens(complete, levels, runs)
    whole = data.values[:, 0]
    places = {left_out: at for at, left_out in enumerate(variants.values(), 1)}
    names = [left_out[0] for left_out in places if len(left_out) == 1]
    shapley = len(names) > 1 and len(places) == 2 ** len(names) - 1
    coalitions = _Coalitions(data.values, names, places) if shapley else None
    parts = []
    for name in names:
        at = places[name,]
        part = Part(
            name,
            levels[at],
            data.estimate(data.values[:, at], bounds),
            gain := paired_difference(data.values[:, at], whole, data.clusters, seed=seed, alpha=alpha),
            None if tokens is None else float(tokens[0] - tokens[at]),
        )
        if coalitions is not None:
            without = whole - coalitions.shapley(name)
            shared = paired_difference(without, whole, data.clusters, seed=seed, alpha=alpha)
            part = replace(part, gain=shared, left_out=gain)
        parts.append(part)
    made = PromptAblation(
        measure.name, measure.unit, measure.direction, info.model, prompt, info.dataset,
        len(data.values), data.estimate(whole, bounds), tuple(parts),
    )  # fmt: skip
    if coalitions is None:
        return made
    nothing = data.estimate(data.values[:, places[tuple(names)]], bounds)
    pairs: list[Interaction] = []
    if _wants_interactions(runs[0], prompt):
        for one, other in combinations(names, 2):
            beyond = coalitions.interaction(one, other)
            effect = paired_difference(whole - beyond, whole, data.clusters, seed=seed, alpha=alpha)
            pairs.append(Interaction((one, other), effect))
    return replace(made, method="shapley", nothing=nothing, interactions=tuple(pairs))


class _Coalitions:
    """The values of every sample with every combination of parts: a game for each sample."""

    def __init__(self, values: Floats, names: Sequence[str], places: Mapping[tuple[str, ...], int]) -> None:
        self._values, self._names = values, names
        self._at = {frozenset(names): 0}
        self._at |= {frozenset(names).difference(left_out): at for left_out, at in places.items()}

    def shapley(self, name: str) -> Floats:
        """Shapley's value of a part for each sample, of shape (n,): its mean addition over all orders."""
        return self._weighted([name], lambda without: self._of({name, *without}) - self._of(without))

    def interaction(self, one: str, other: str) -> Floats:
        """Shapley's interaction index of two parts for each sample (Grabisch and Roubens 1999)."""
        return self._weighted(
            [one, other],
            lambda without: (
                self._of({one, other, *without})
                - self._of({one, *without})
                - self._of({other, *without})
                + self._of(without)
            ),
        )

    def _of(self, present: Iterable[str]) -> Floats:
        return np.asarray(self._values[:, self._at[frozenset(present)]])

    def _weighted(self, players: Sequence[str], added: Callable[[tuple[str, ...]], Floats]) -> Floats:
        others = [name for name in self._names if name not in players]
        slots = len(others) + 1
        total: Floats = np.sum(
            [
                added(chosen) / (slots * comb(len(others), size))
                for size in range(slots)
                for chosen in combinations(others, size)
            ],
            axis=0,
        )
        return total


def _wants_interactions(run: RunSamples, prompt: str) -> bool:
    resolved = run.sweep.suite.resolved
    prompts = resolved.get("prompts") if isinstance(resolved, dict) else None
    own: dict[str, JSON] = next((each for each in prompts or () if each.get("id") == prompt), {})
    return isinstance(own.get("ablate"), dict) and bool(own["ablate"].get("interactions"))


def _tokens(
    cells: Sequence[Mapping[str, RunSamples]], levels: Sequence[str], runs: Sequence[RunSamples]
) -> Floats | None:
    """Mean prompt tokens a sample of each level, over the samples where all are known."""
    data = stacked(cells, levels, find_measure("prompt_tokens", runs))
    return np.asarray(data.values.mean(axis=0)) if len(data.values) else None
