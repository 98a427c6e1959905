"""Compare runs: of two or more sweeps, any two runs, or all the runs of one sweep."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, replace
from typing import TypeAlias

import numpy as np

from evalrun.analysis.correction import ALPHA, Correction, Testing, corrected
from evalrun.analysis.effects import sweep_effects
from evalrun.analysis.figures import FigureMeasure, Level, find_figure
from evalrun.analysis.measures import (
    Floats,
    Mask,
    Measure,
    RunInfo,
    RunSamples,
    default_metrics,
    find_measure,
    runs_of,
    seed_of,
    whole_prompts,
)
from evalrun.analysis.paired import agreeing, paired_difference
from evalrun.analysis.pairing import (
    Chosen,
    Ints,
    Joined,
    RunPair,
    check_digests,
    join,
    match_runs,
    same_answers,
)
from evalrun.analysis.standings import Apart, DatasetStandings, Ranking, dataset_standings
from evalrun.analysis.verdict import verdict
from evalrun.analysis.where import concentrations_of
from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.served import as_served, served_change
from evalrun.sweep_results import (
    AxisEffect,
    Concentration,
    PairedResult,
    PromptAblation,
    PromptSensitivity,
    Verdict,
)
from evalrun.types import JSON, Direction

SCHEMA_VERSION = 1


@frozen
class Flips:
    """Ids of samples whose 0/1 score changed: from 1 in a to 0 in b, and the other way."""

    lost: tuple[str, ...]
    won: tuple[str, ...]


@frozen
class Compared:
    """One metric of one pair of runs: b against a.

    `only_a`, `only_b` count sample ids that are in one run alone, `changed` those with other content. `flips`
    is None for scores other than 0 and 1, `where` says which slices hold more of what became worse than
    chance. `better` and `worse` count the samples that b does better and worse (None for what is no mean over
    samples, or has no better end). `unchanged`: both runs have the very same
    answers, so that there is nothing to test. `served` says what changed behind the endpoint of
    one model (`notes` hold it too). `p_corrected` is corrected over all comparisons that were made.
    """

    metric: str
    unit: str
    direction: Direction
    a: RunInfo
    b: RunInfo
    differs: tuple[str, ...]
    result: PairedResult
    p_corrected: float | None
    verdict: Verdict
    only_a: int = 0
    only_b: int = 0
    changed: int = 0
    flips: Flips | None = None
    where: tuple[Concentration, ...] = ()
    notes: tuple[str, ...] = ()
    better: int | None = None
    worse: int | None = None
    unchanged: bool = False
    served: str = ""

    def document(self) -> dict[str, JSON]:
        """As JSON: the figures of `result` stand beside the rest."""
        return {
            "metric": self.metric,
            "unit": self.unit,
            "direction": self.direction,
            "a": self.a.document(),
            "b": self.b.document(),
            "differs": list(self.differs),
            **asdict(self.result),
            "p_corrected": self.p_corrected,
            "verdict": self.verdict.word,
            "sentence": self.verdict.sentence,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "changed": self.changed,
            "flips": None if self.flips is None else asdict(self.flips),
            "where": [asdict(each) for each in self.where],
            "better": self.better,
            "worse": self.worse,
            "unchanged": self.unchanged,
            "notes": list(self.notes),
        }


@frozen
class Comparison:
    """Everything that was compared, `tests` of which gave a p value that `correction` takes into account.

    `standings`, `effects`, `sensitivity` and `ablations` are there where a sweep was compared within itself.
    """

    compared: tuple[Compared, ...]
    correction: Correction
    tests: int
    alpha: float
    margin: float | None
    common: bool
    unmatched: tuple[RunInfo, ...] = ()
    standings: tuple[DatasetStandings, ...] = ()
    effects: tuple[AxisEffect, ...] = ()
    sensitivity: tuple[PromptSensitivity, ...] = ()
    ablations: tuple[PromptAblation, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)

    def document(self) -> dict[str, JSON]:
        """One JSON-able document."""
        return {
            "schema_version": SCHEMA_VERSION,
            "correction": self.correction,
            "tests": self.tests,
            "alpha": self.alpha,
            "margin": self.margin,
            "common": self.common,
            "comparisons": [each.document() for each in self.compared],
            "unmatched": [each.document() for each in self.unmatched],
            "standings": [standing.document() for standing in self.standings],
            "effects": [asdict(effect) for effect in self.effects],
            "sensitivity": [_sensitivity(each) for each in self.sensitivity],
            "ablations": [_ablation(ablation) for ablation in self.ablations],
            "notes": list(self.notes),
        }

    def rows(self) -> list[dict[str, JSON]]:
        """What was compared as flat rows: the pairs, or of a sweep within itself the runs."""
        if self.compared:
            return [each.document() for each in self.compared]
        return [
            {"metric": standing.metric, "dataset": standing.dataset, **place}
            for standing in self.standings
            for place in _places(standing)
        ]

    def __str__(self) -> str:
        lines = [
            f"{each.metric}: {_against(each.a, each.b)}: {each.verdict.word}, {each.verdict.sentence}"
            for each in self.compared
        ]
        return "\n".join(lines) or "nothing compared"

    def verdicts(self) -> Mapping[str, int]:
        """How often each verdict was given."""
        found: dict[str, int] = {}
        for each in self.compared:
            found[each.verdict.word] = found.get(each.verdict.word, 0) + 1
        return found


def _against(a: RunInfo, b: RunInfo) -> str:
    """The later side against the first one; sweeps where both are the same run."""
    if a.run != b.run:
        return f"{b.run} against {a.run}"
    return f"{b.run} of {b.sweep} against {a.sweep}"


def _places(standing: DatasetStandings) -> list[dict[str, JSON]]:
    return [{**asdict(place), "run": place.run.document()} for place in standing.places]


def _sensitivity(found: PromptSensitivity) -> dict[str, JSON]:
    named = [{"prompt": name, **asdict(estimate)} for name, estimate in found.prompts]
    return {**asdict(found), "prompts": named, "best": found.prompts[0][0], "worst": found.prompts[-1][0]}


def _ablation(found: PromptAblation) -> dict[str, JSON]:
    parts = [{**asdict(part), "verdict": part.verdict and part.verdict.word} for part in found.parts]
    return {**asdict(found), "parts": parts}


AnyMeasure: TypeAlias = Measure | FigureMeasure


@frozen
class CompareOptions:
    """What is compared and how.

    `metrics`: their names (default: the score of every scorer). `margin`: the difference, in the metric's
    unit, below which runs count as equivalent. `common`: compare runs on different datasets by the samples
    that both have. `seed` is the root seed of what is drawn at random (default: that of the first sweep).
    """

    metrics: tuple[str, ...] = ()
    margin: float | None = None
    common: bool = False
    correction: Correction = "holm"
    alpha: float = ALPHA
    seed: int | None = None


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
    parts = [(pair, joined, measure) for pair in pairs for joined in [join(pair)] for measure in measures]
    made = [_compared(*part, options, 1) for part in parts]
    # How many differences are tested, and so corrected together, is only known now.
    tests = sum(each.p_corrected is None and each.result.p is not None for each in made)
    if tests > 1 and options.correction != "none":
        made = [
            each
            if each.p_corrected is not None or each.result.p is None
            else _compared(*part, options, tests)
            for part, each in zip(parts, made, strict=True)
        ]
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
    leads = [run.run.headline for run in runs if run.run.headline]
    names = dict.fromkeys(options.metrics or default_metrics(runs) or leads)
    if not names:
        raise UserError("the runs have no score in common", remedy="Name what to compare with --metric.")
    measures: dict[str, AnyMeasure] = {}
    for name in names:
        measure = find_figure(name, runs) or find_measure(name, runs)
        measures[measure.name] = measure
    return list(measures.values())


def _compared(
    pair: RunPair, joined: Joined, measure: AnyMeasure, options: CompareOptions, tests: int
) -> Compared:
    seed, flips = _seed(pair.a, measure, options), None
    better: int | None = None
    worse: int | None = None
    where: tuple[Concentration, ...] = ()
    if isinstance(measure, FigureMeasure):
        result = measure.result(pair, joined, Level(seed, options.alpha, options.margin, tests))
        differ = result.difference != 0
    else:
        a, b = measure.values(pair.a)[joined.in_a], measure.values(pair.b)[joined.in_b]
        clusters = joined.clusters(pair)
        result = paired_difference(
            a, b, clusters, seed=seed, alpha=options.alpha, margin=options.margin, tests=tests,
            weights=joined.weights(pair),
        )  # fmt: skip
        flips = _flips(joined, a, b, result)
        better, worse = _moved(a, b, measure.direction)
        differ = not np.array_equal(a, b, equal_nan=True)
        if result.p is not None and result.p <= options.alpha and measure.direction != "none":
            lost = b < a if measure.direction == "higher" else b > a
            where = _where(pair.b, joined.in_b, lost)
    apart = _among_runs(pair, measure, seed, options.alpha)
    p = None if apart is None else apart.p
    if apart is not None:
        result = replace(result, ci_low=apart.low, ci_high=apart.high, mde=apart.detectable)
    # Answers of one sweep are never left out: its standings test all of its runs.
    unchanged = not differ and result.n > 0 and p is None and same_answers(pair, joined)
    served = _served(pair)
    return Compared(
        metric=measure.name,
        unit=measure.unit,
        direction=measure.direction,
        a=pair.a.info,
        b=pair.b.info,
        differs=pair.differs,
        result=_untested(result) if unchanged else result,
        p_corrected=p,
        verdict=_unchanged(result) if unchanged else verdict(result, measure.direction, measure.unit),
        only_a=joined.only_a,
        only_b=joined.only_b,
        changed=joined.changed,
        flips=flips,
        where=where,
        notes=tuple(_notes(pair, joined, measure, result, served)),
        served=served,
        better=better,
        worse=worse,
        unchanged=unchanged,
    )


def _where(run: RunSamples, samples: Ints, lost: Mask) -> tuple[Concentration, ...]:
    """Where the samples lie that became worse; nothing is said where the run has no samples to look at."""
    with contextlib.suppress(UserError):
        return concentrations_of(run, samples, lost)
    return ()


def _notes(
    pair: RunPair, joined: Joined, measure: AnyMeasure, result: PairedResult, served: str
) -> list[str]:
    notes = [*joined.notes]
    if result.dropped:
        notes.append(f"left out: {result.dropped} samples without a value in one run or both")
    if pair.a.exclude_unparsed != pair.b.exclude_unparsed:
        notes.append("one suite counts unparsed answers as wrong, the other leaves them out")
    if measure.note:
        notes.append(measure.note)
    for run in (pair.a, pair.b):
        found = run.run.metric(measure.name)
        if found is not None and found.incomplete:
            notes.append(f"{run.info.sweep}/{run.info.run}: {found.note.partition('; ')[0]}")
    return [*notes, served] if served else notes


def _served(pair: RunPair) -> str:
    """How the model that served b differs from the one that served a; empty where both name the same, or the
    runs are of two models anyway."""
    if pair.a.info.model != pair.b.info.model:
        return ""
    return served_change(*(as_served(run.run.details.answered_by) for run in (pair.a, pair.b)))


def _untested(result: PairedResult) -> PairedResult:
    """The figures without what speaks of chance: the same answers differ by nothing, for certain."""
    return replace(
        result, se=None, ci_low=None, ci_high=None, p=None, test="", correlation=None, mde=None, method="",
        note="", inner_low=None, inner_high=None,
    )  # fmt: skip


def _unchanged(result: PairedResult) -> Verdict:
    return Verdict("unchanged", f"the same answers, n = {result.n}: nothing to test")


def _moved(a: Floats, b: Floats, direction: Direction) -> tuple[int | None, int | None]:
    """How many samples b does better, and worse."""
    if direction == "none":
        return None, None
    up, down = int((b > a).sum()), int((b < a).sum())
    return (up, down) if direction == "higher" else (down, up)


def _seed(run: RunSamples, measure: AnyMeasure, options: CompareOptions) -> int:
    return seed_of(measure, run.seed if options.seed is None else options.seed)


def _in_one_sweep(pair: RunPair) -> bool:
    """Whether the pair is one of those that the standings of a sweep are made from."""
    a, b = pair.a, pair.b
    own = a.folder.path == b.folder.path and not a.ablates and not b.ablates
    return own and a.run.dataset == b.run.dataset


def _among_runs(pair: RunPair, measure: AnyMeasure, seed: int, alpha: float) -> Apart | None:
    """Two runs of one sweep on one dataset among all its runs there, as in its standings; None for other
    pairs, and for what no standing is by."""
    a, b = pair.a, pair.b
    if isinstance(measure, FigureMeasure) or not _in_one_sweep(pair) or a.run.run == b.run.run:
        return None  # a run beside itself is none of the sweep's pairs
    family = [run for run in whole_prompts(runs_of(a.folder)) if run.run.dataset == a.run.dataset]
    ranking = Ranking(family, measure, alpha=alpha, seed=seed)
    places = {run.run.run: at for at, run in enumerate(ranking.runs)}
    return ranking.apart(places[b.run.run], places[a.run.run])


def _flips(joined: Joined, a: Floats, b: Floats, result: PairedResult) -> Flips | None:
    if result.discordant is None:
        return None
    lost, won = joined.ids[(a == 1) & (b == 0)], joined.ids[(a == 0) & (b == 1)]
    return Flips(tuple(map(str, lost)), tuple(map(str, won)))


def _finished(made: Sequence[Compared], options: CompareOptions, unmatched: Sequence[RunInfo]) -> Comparison:
    """With p values corrected over all that was tested, and the verdicts that follow. Runs of one sweep have
    theirs from its standings, which are corrected for all pairs of its runs; the same answers have none."""
    known = [each.p_corrected for each in made]
    plain = [each.result.p if p is None else None for each, p in zip(made, known, strict=True)]
    ps = [own if p is None else p for own, p in zip(corrected(plain, options.correction), known, strict=True)]
    compared = tuple(
        each
        if each.unchanged
        else replace(
            each,
            p_corrected=p,
            result=agreeing(each.result, p),
            verdict=verdict(agreeing(each.result, p), each.direction, each.unit, p=p),
        )
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
    measures: list[Measure] = []
    for measure in _measures(runs, options):
        if isinstance(measure, FigureMeasure):
            raise UserError(
                f"{measure.name} is a figure of a whole run: it is compared between two runs only",
                where="--metric",
                remedy="Name two runs, as SWEEP/RUN.",
            )
        measures.append(measure)
    root = runs[0].seed if options.seed is None else options.seed
    own = whole_prompts(runs)
    effects = sweep_effects(runs, measures, Testing(options.alpha, options.correction, options.margin, root))
    return Comparison(
        (),
        options.correction,
        effects.tests,
        options.alpha,
        options.margin,
        options.common,
        standings=tuple(
            standing
            for measure in measures
            for standing in dataset_standings(own, measure, alpha=options.alpha, seed=seed_of(measure, root))
        ),
        effects=effects.axes,
        sensitivity=effects.sensitivity,
        ablations=effects.ablations,
    )
