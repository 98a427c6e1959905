"""Compare runs: of two or more sweeps, any two runs, or all the runs of one sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from evalrun.analysis.ablation import PromptAblation, corrected_ablations, prompt_ablations
from evalrun.analysis.comparison import Compared, Comparison, Flips
from evalrun.analysis.correction import ALPHA, Correction, corrected
from evalrun.analysis.effects import Standing, standings
from evalrun.analysis.figures import FigureMeasure, Level, find_figure
from evalrun.analysis.marginal import AxisEffect, axis_effects, corrected_effects
from evalrun.analysis.matrix import seed_of, whole_prompts
from evalrun.analysis.measures import Floats, Measure, RunInfo, RunSamples, default_metrics, find_measure
from evalrun.analysis.paired import PairedResult, paired_difference
from evalrun.analysis.pairing import Chosen, Joined, RunPair, check_digests, join, match_runs
from evalrun.analysis.sensitivity import prompt_sensitivity
from evalrun.analysis.verdict import verdict
from evalrun.errors import UserError

__all__ = ["Chosen", "CompareOptions", "Comparison", "compare"]

AnyMeasure: TypeAlias = Measure | FigureMeasure


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What is compared and how.

    `metrics`: their names (default: the score of every scorer). `margin`: the difference, in the metric's
    unit, below which runs count as equivalent. `common`: compare runs on different datasets by the samples
    that both have.
    """

    metrics: tuple[str, ...] = ()
    margin: float | None = None
    common: bool = False
    correction: Correction = "holm"
    alpha: float = ALPHA
    seed: int = 0


def compare(chosen: Sequence[Chosen], options: CompareOptions | None = None) -> Comparison:
    """Compare the first sweep or run with each of the others; a single sweep with itself.

    Runs of two sweeps are paired by model, prompt, dataset and parameters (see `match_runs`), samples by
    their id, repeats averaged first. A single sweep gives standings, effects of its axes and prompt
    sensitivity instead. Raises UserError where there is nothing to compare, a metric is unknown, or datasets
    differ and `common` is not set.
    """
    options = options or CompareOptions()
    _check(chosen, options)
    loaded = [each.load() for each in chosen]
    if len(loaded) == 1:
        return _within(loaded[0], options)
    pairs, unmatched = _matched(loaded)
    if not options.common:
        check_digests(pairs)
    measures = _measures([run for pair in pairs for run in (pair.a, pair.b)], options)
    made = []
    for pair in pairs:
        joined = join(pair)
        made += [_compared(pair, joined, measure, options) for measure in measures]
    return _finished(made, options, unmatched)


def _check(chosen: Sequence[Chosen], options: CompareOptions) -> None:
    if not chosen:
        raise UserError("there is nothing to compare", remedy="Name a sweep, or several.")
    if options.margin is not None and not options.margin > 0:
        raise UserError("a margin must be above 0", where="--margin")
    if not 0 < options.alpha < 0.5:
        raise UserError("alpha must lie between 0 and 0.5")


def _matched(loaded: Sequence[Sequence[RunSamples]]) -> tuple[list[RunPair], list[RunInfo]]:
    pairs: list[RunPair] = []
    unmatched: dict[tuple[str, str], RunInfo] = {}
    for other in loaded[1:]:
        found, left = match_runs(loaded[0], other)
        pairs += found
        unmatched |= {(run.info.sweep, run.info.run): run.info for run in left}
    if not pairs:
        names = ", ".join(run.run for run in unmatched.values())
        raise UserError(
            f"no run of one sweep has a partner in the other: {names}",
            remedy="Name the two runs to compare, as SWEEP/RUN.",
        )
    return pairs, list(unmatched.values())


def _measures(runs: Sequence[RunSamples], options: CompareOptions) -> list[AnyMeasure]:
    names = dict.fromkeys(options.metrics or default_metrics(runs))
    if not names:
        raise UserError("the runs have no score in common", remedy="Name what to compare with --metric.")
    measures: dict[str, AnyMeasure] = {}
    for name in names:
        measure = find_figure(name, runs) or find_measure(name, runs)
        measures[measure.name] = measure
    return list(measures.values())


def _compared(pair: RunPair, joined: Joined, measure: AnyMeasure, options: CompareOptions) -> Compared:
    seed, flips = seed_of(measure, options.seed), None
    if isinstance(measure, FigureMeasure):
        result = measure.result(pair, joined, Level(seed, options.alpha, options.margin))
    else:
        a, b = measure.values(pair.a)[joined.in_a], measure.values(pair.b)[joined.in_b]
        clusters = joined.clusters(pair)
        result = paired_difference(a, b, clusters, seed=seed, alpha=options.alpha, margin=options.margin)
        flips = _flips(joined, a, b, result)
    notes = [*joined.notes]
    if result.dropped:
        notes.append(f"left out: {result.dropped} samples without a value in one run or both")
    if pair.a.exclude_unparsed != pair.b.exclude_unparsed:
        notes.append("one suite counts unparsed answers as wrong, the other leaves them out")
    if measure.note:
        notes.append(measure.note)
    return Compared(
        metric=measure.name,
        unit=measure.unit,
        direction=measure.direction,
        a=pair.a.info,
        b=pair.b.info,
        differs=pair.differs,
        result=result,
        p_corrected=result.p,
        verdict=verdict(result, measure.direction, measure.unit),
        only_a=joined.only_a,
        only_b=joined.only_b,
        changed=joined.changed,
        flips=flips,
        notes=tuple(notes),
    )


def _flips(joined: Joined, a: Floats, b: Floats, result: PairedResult) -> Flips | None:
    if result.discordant is None:
        return None
    lost, won = joined.ids[(a == 1) & (b == 0)], joined.ids[(a == 0) & (b == 1)]
    return Flips(tuple(map(str, lost)), tuple(map(str, won)))


def _finished(made: Sequence[Compared], options: CompareOptions, unmatched: Sequence[RunInfo]) -> Comparison:
    """With p values corrected over all that was compared, and the verdicts that follow."""
    ps = corrected([each.result.p for each in made], options.correction)
    compared = tuple(
        replace(each, p_corrected=p, verdict=verdict(each.result, each.direction, each.unit, p=p))
        for each, p in zip(made, ps, strict=True)
    )
    notes = []
    if unmatched:
        notes.append(f"without a partner: {', '.join(each.run for each in unmatched)}")
    return Comparison(
        compared,
        options.correction,
        sum(p is not None for p in ps),
        options.alpha,
        options.margin,
        options.common,
        tuple(unmatched),
        notes=tuple(notes),
    )


def _within(runs: Sequence[RunSamples], options: CompareOptions) -> Comparison:
    """The runs of one sweep among themselves."""
    if len(runs) < 2:
        raise UserError(
            f"{runs[0].info.name} has one run, which cannot be compared with itself",
            remedy="Name a second sweep or run.",
        )
    places: list[Standing] = []
    effects: list[AxisEffect] = []
    sensitivity = []
    taken_apart: list[PromptAblation] = []
    own = whole_prompts(runs)
    for measure in _measures(runs, options):
        if isinstance(measure, FigureMeasure):
            raise UserError(
                f"{measure.name} is a figure of a whole run: it is compared between two runs only",
                where="--metric",
                remedy="Name two runs, as SWEEP/RUN.",
            )
        seed = seed_of(measure, options.seed)
        places += standings(own, measure, alpha=options.alpha, seed=seed)
        effects += axis_effects(own, measure, alpha=options.alpha, seed=seed)
        sensitivity += prompt_sensitivity(own, measure, alpha=options.alpha, seed=seed)
        taken_apart += prompt_ablations(runs, measure, alpha=options.alpha, seed=seed)
    effects, tests = corrected_effects(effects, options.correction, options.margin)
    taken_apart, more = corrected_ablations(taken_apart, options.correction, options.margin)
    return Comparison(
        (),
        options.correction,
        tests + more,
        options.alpha,
        options.margin,
        options.common,
        standings=tuple(places),
        effects=tuple(effects),
        sensitivity=tuple(sensitivity),
        ablations=tuple(taken_apart),
    )
