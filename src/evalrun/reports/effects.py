"""What moves a metric: the axes of the matrix, the choice of prompt, the parts of a prompt. Report, `compare`
in a terminal, its Markdown and its page show the same tables."""

from __future__ import annotations

from collections.abc import Sequence

from evalrun.frozen import frozen
from evalrun.reports.charts.dots import level_chart
from evalrun.reports.numbers import (
    NONE,
    count,
    fixed,
    interval,
    measured,
    p_value,
    plural,
    significant,
    tested,
)
from evalrun.reports.view import Chart, Table, verdict_word
from evalrun.results import Estimate
from evalrun.sweep_results import AxisEffect, PairedResult, PromptAblation, PromptSensitivity, SweepResults
from evalrun.tracking.naming import plain_value

TOLD = 2
"""So many models and datasets are told one by one; more are counted."""


@frozen
class Section:
    """A table with what is to be said of it, and a chart where there is one."""

    table: Table
    remarks: Sequence[str] = ()
    chart: Chart | None = None


@frozen
class Effects:
    """What moves the primary metric. Empty where the sweep varies in one thing only."""

    sentences: Sequence[str]
    notes: Sequence[str]
    charts: Sequence[Chart]
    sections: Sequence[Section]


def effects(found: SweepResults) -> Effects:
    """Marginal effects, prompt sensitivity and ablations, as far as the matrix has them."""
    # With one axis the leaderboard says it all.
    shown = [effect for effect in found.effects if len(found.effects) > 1 or effect.cells > 1]
    several = len(found.sensitivity) > 1
    prompts = [_sensitivities(found.sensitivity)] if several else [*map(sensitivity, found.sensitivity)]
    return Effects(
        sentences=_sentences(found.sensitivity, found.alpha),
        notes=[f"By {each.axis}: {each.note}." for each in shown if each.note],
        charts=[level_chart("effects", shown)] if shown else [],
        sections=[*map(axis, shown), *prompts, *map(ablation, found.ablations)],
    )


def estimated(estimate: Estimate, unit: str = "") -> str:
    """An estimate with its interval."""
    return measured(estimate.value, estimate.low, estimate.high, unit)


def change(result: PairedResult | None, unit: str = "") -> str:
    """A difference with its interval; a dash where there is none."""
    if result is None or result.difference is None:
        return NONE
    return measured(result.difference, result.ci_low, result.ci_high, unit, sign=True)


def axis(each: AxisEffect) -> Section:
    """The levels of an axis, each with its difference from the first."""
    rows = [
        (
            plain_value(level.value), estimated(level.mean, each.unit),
            change(level.against_first, each.unit), p_value(level.p_corrected), verdict_word(level.verdict),
        )
        for level in each.levels
    ]  # fmt: skip
    first = plain_value(each.levels[0].value)
    columns = (each.axis, each.metric, f"from {first}", "p, corrected", "verdict")
    title = (
        f"{each.metric} by {each.axis}, averaged over {plural(each.cells, 'combination')} of the rest, "
        f"n = {count(each.n)}"
    )
    remarks = [f"spread {significant(each.spread)}", *([each.note] if each.note else [])]
    remarks += [
        f"{plain_value(level.value)}: {level.verdict.sentence}" for level in each.levels if level.verdict
    ]
    return Section(Table(title, columns, rows, frozenset({1, 2, 3})), remarks)


def sensitivity(each: PromptSensitivity) -> Section:
    """The prompts of one model on one dataset, and how much they differ."""
    rows = [(name, estimated(estimate, each.unit)) for name, estimate in each.prompts]
    remarks = [
        f"mean over the prompts {estimated(each.mean, each.unit)}",
        f"best - worst {measured(each.gap, each.gap_low, each.gap_high, each.unit, sign=True)}, "
        f"{tested(each.p)} corrected for all pairs",
        f"standard deviation of the prompts {significant(each.sd, 2)}, beyond chance "
        f"{significant(each.sd_beyond_chance, 2)}",
    ]
    title = f"{each.metric}: prompts of {each.model} on {each.dataset}, n = {count(each.n)}"
    return Section(Table(title, ("prompt, best first", each.metric), rows, frozenset({1})), remarks)


def ablation(each: PromptAblation) -> Section:
    """What each part of a prompt adds."""
    rows: list[tuple[str, ...]] = [("(whole prompt)", estimated(each.whole, each.unit), "", "", "", "")]
    rows += [
        (
            part.part, estimated(part.without, each.unit), change(part.gain, each.unit),
            NONE if part.tokens is None else significant(part.tokens), p_value(part.p_corrected),
            verdict_word(part.verdict),
        )
        for part in each.parts
    ]  # fmt: skip
    title = f"{each.metric}: parts of prompt {each.prompt}, {each.model} on {each.dataset}, "
    title += f"n = {count(each.n)}"
    columns: tuple[str, ...] = (
        "without", each.metric, "the part adds", "tokens a sample", "p, corrected", "verdict",
    )  # fmt: skip
    remarks = [part.sentence for part in each.parts if part.sentence]
    if each.nothing is None:
        return Section(Table(title, columns, rows, frozenset({1, 2, 3, 4})), remarks)
    rows = [
        (*row[:3], NONE if part.left_out is None else change(part.left_out, each.unit), *row[3:])
        for row, part in zip(rows[1:], each.parts, strict=True)
    ]
    rows = [
        ("(whole prompt)", estimated(each.whole, each.unit), *[""] * 5),
        *rows,
        ("(all parts)", estimated(each.nothing, each.unit), *[""] * 5),
    ]
    columns = (*columns[:2], "it adds (Shapley)", "left out alone", *columns[3:])
    remarks += [
        f"{' with '.join(pair.parts)}: {change(pair.effect, each.unit)} beyond the two alone, "
        f"p, corrected: {p_value(pair.p_corrected)} ({pair.word})"
        for pair in each.interactions
    ]
    return Section(Table(title, columns, rows, frozenset({1, 2, 3, 4, 5})), remarks)


def _sensitivities(sensitive: Sequence[PromptSensitivity]) -> Section:
    rows = [
        (
            each.model, each.dataset, each.prompts[0][0], estimated(each.prompts[0][1]),
            each.prompts[-1][0], estimated(each.prompts[-1][1]), _apart(each), p_value(each.p),
            significant(each.sd_beyond_chance, 2), count(each.n),
        )
        for each in sensitive
    ]  # fmt: skip
    columns = (
        "model", "dataset", "best prompt", "its value", "worst prompt", "its value", "apart", "p, corrected",
        "spread beyond chance (sd)", "n",
    )  # fmt: skip
    table = Table("How much the choice of prompt matters", columns, rows, frozenset({3, 5, 6, 7, 8, 9}))
    return Section(table)


def _sentences(sensitive: Sequence[PromptSensitivity], alpha: float) -> list[str]:
    if len(sensitive) <= TOLD:
        return [_sensitive(each, len(sensitive) > 1, alpha) for each in sensitive]
    real = sum(each.p <= alpha for each in sensitive)
    return [
        f"The choice of prompt matters, more than chance would have it, in {real or 'none'} of "
        f"{len(sensitive)} combinations of model and dataset."
    ]


def _sensitive(each: PromptSensitivity, several: bool, alpha: float) -> str:
    """How much the choice of prompt matters, in plain words."""
    (best, highest), (worst, lowest) = each.prompts[0], each.prompts[-1]
    where = f" of {each.model} on {each.dataset}" if several else ""
    lead = f"Between the prompts{where} {each.metric} goes from {estimated(lowest)} ({worst})"
    lead += f" to {estimated(highest)} ({best})"
    if each.p > alpha:
        return f"{lead}: tied, that may be chance."
    return (
        f"{lead}: {_apart(each)} apart. Another prompt of this kind would move it by about "
        f"{significant(each.sd_beyond_chance, 2)} either way (one standard deviation)."
    )


def _apart(each: PromptSensitivity) -> str:
    """How far best and worst are apart, without a sign."""
    low, high = each.gap_low, each.gap_high
    if low is not None and high is not None and each.gap < 0:
        low, high = -high, -low
    return f"{fixed(abs(each.gap))} {interval(low, high)}".strip()
