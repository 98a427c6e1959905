"""Within one sweep: what each part of a prompt (a marked section, a few-shot example) adds to a metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from evalrun.analysis.correction import Correction, Testing, corrected
from evalrun.analysis.intervals import Estimate
from evalrun.analysis.matrix import Floats, Matrix, bounds_of, measures_of, runs_of, seed_of, stacked
from evalrun.analysis.measures import Measure, RunSamples, find_measure
from evalrun.analysis.paired import PairedResult, paired_difference
from evalrun.analysis.verdict import Verdict, verdict
from evalrun.canonical import digest
from evalrun.tracking.folder import SweepFolder
from evalrun.types import JSON, Direction


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a prompt. `gain` is the whole prompt minus the prompt without it, sample by sample: what the
    part adds. `verdict` says so in words: better means that the part helps. `tokens` are the prompt tokens
    that it costs a sample, on average; None where they are not known."""

    part: str
    prompt: str
    without: Estimate
    gain: PairedResult
    tokens: float | None
    p_corrected: float | None = None
    verdict: Verdict | None = None

    @property
    def sentence(self) -> str:
        """What is known of the part, for people."""
        if self.verdict is None:
            return ""
        word = {"better": "helps", "worse": "harms", "equivalent": "makes no difference that matters"}
        cost = "" if self.tokens is None else f", for {self.tokens:.3g} tokens a sample"
        if self.tokens is not None and self.tokens < 0:  # such as a chat template's own system message
            cost = f" (without it {-self.tokens:.3g} tokens more are sent)"
        return f"{self.part} {word.get(self.verdict.word, 'may do nothing')}{cost}: {self.verdict.sentence}"


@dataclass(frozen=True, slots=True)
class PromptAblation:
    """One prompt of one model on one dataset, taken apart, over the `n` samples that all its runs have.

    `whole` is the metric with the whole prompt. With a swept parameter, samples are averaged over its values.
    """

    metric: str
    unit: str
    direction: Direction
    model: str
    prompt: str
    dataset: str
    n: int
    whole: Estimate
    parts: tuple[Part, ...]

    def document(self) -> dict[str, JSON]:
        """As JSON."""
        parts = [
            {**asdict(each), "verdict": each.verdict and each.verdict.word, "sentence": each.sentence}
            for each in self.parts
        ]
        return {**asdict(self), "parts": parts}


def ablations(
    sweep: SweepFolder | Sequence[RunSamples],
    metrics: Sequence[str] = (),
    testing: Testing | None = None,
) -> tuple[PromptAblation, ...]:
    """What each part of the prompts with `ablate: true` adds, in a finished sweep.

    `metrics` are names of means over samples (default: the score of every scorer). p values are corrected
    over all parts, prompts, models, datasets and metrics. Empty where no prompt was ablated. Raises UserError
    for an unknown metric.
    """
    testing, runs = testing or Testing(), runs_of(sweep)
    if not any(run.ablates for run in runs):
        return ()
    found = [
        each
        for measure in measures_of(runs, metrics)
        for each in prompt_ablations(runs, measure, alpha=testing.alpha, seed=seed_of(measure, testing.seed))
    ]
    return tuple(corrected_ablations(found, testing.correction, testing.margin)[0])


def corrected_ablations(
    found: Sequence[PromptAblation], correction: Correction, margin: float | None
) -> tuple[list[PromptAblation], int]:
    """The parts with corrected p values and verdicts, and how many p values there were."""
    ps = corrected([part.gain.p for each in found for part in each.parts], correction)
    todo = iter(ps)
    made = []
    for each in found:
        parts = []
        for part in each.parts:
            gain, p = replace(part.gain, margin=margin), next(todo)
            word = verdict(gain, each.direction, each.unit, p=p)
            parts.append(replace(part, gain=gain, p_corrected=p, verdict=word))
        made.append(replace(each, parts=tuple(parts)))
    return made, sum(p is not None for p in ps)


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
    variants = {run.run.prompt: run.left_out for run in runs if run.ablates}
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
    parts = tuple(
        Part(
            part,
            name,
            data.estimate(data.values[:, at], bounds),
            _gain(data, whole, at, alpha, seed),
            None if tokens is None else float(tokens[0] - tokens[at]),
        )
        for at, (name, part) in enumerate(variants.items(), 1)
    )
    return PromptAblation(
        measure.name, measure.unit, measure.direction, info.model, prompt, info.dataset,
        len(data.values), data.estimate(whole, bounds), parts,
    )  # fmt: skip


def _gain(data: Matrix, whole: Floats, at: int, alpha: float, seed: int) -> PairedResult:
    return paired_difference(data.values[:, at], whole, data.clusters, seed=seed, alpha=alpha)


def _tokens(
    cells: Sequence[Mapping[str, RunSamples]], levels: Sequence[str], runs: Sequence[RunSamples]
) -> Floats | None:
    """Mean prompt tokens a sample of each level, over the samples where all are known."""
    data = stacked(cells, levels, find_measure("prompt_tokens", runs))
    return np.asarray(data.values.mean(axis=0)) if len(data.values) else None
