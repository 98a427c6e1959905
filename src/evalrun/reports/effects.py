"""What moves the metric: the axes of the matrix, the choice of prompt, the parts of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from evalrun.reports.charts.dots import level_chart
from evalrun.reports.fairness import p_value
from evalrun.reports.numbers import NONE, count, decimals_for, fixed, interval, significant
from evalrun.reports.view import Chart, Table, plain_value
from evalrun.results import (
    AxisEffect,
    Estimate,
    PairedResult,
    PromptAblation,
    PromptSensitivity,
    SweepResults,
)

TOLD = 2
"""So many models and datasets are told one by one; more are counted."""

FIRST = "the others are held against it"

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Effects:
    """What moves the primary metric. Empty where the sweep varies in one thing only."""

    sentences: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = field(default=())
    notes: Sequence[str] = ()


def effects(found: SweepResults) -> Effects:
    """Marginal effects, prompt sensitivity and ablations, as far as the matrix has them."""
    moved, sensitive, parts = found.effects, found.sensitivity, found.ablations
    # With one axis the leaderboard says it all.
    shown = [each for each in moved if len(moved) > 1 or each.cells > 1]
    charts = [level_chart("effects", shown)] if shown else []
    tables = [_axis(each) for each in shown]
    tables += (
        [_sensitivities(sensitive)] if len(sensitive) > 1 else [_sensitivity(each) for each in sensitive]
    )
    return Effects(
        sentences=_sentences(sensitive),
        charts=charts,
        tables=[*tables, *(_ablation(each) for each in parts)],
        notes=[_left_out(each) for each in shown if each.note],
    )


def _left_out(each: AxisEffect) -> str:
    return f"By {each.axis}: {each.note}."


def _with_interval(estimate: Estimate) -> str:
    half = None if estimate.low is None or estimate.high is None else (estimate.high - estimate.low) / 2
    decimals = decimals_for(half)
    return f"{fixed(estimate.value, decimals)} {interval(estimate.low, estimate.high, decimals)}".strip()


def _change(result: PairedResult | None) -> str:
    if result is None or result.difference is None:
        return NONE
    half = None if result.ci_low is None or result.ci_high is None else (result.ci_high - result.ci_low) / 2
    decimals = decimals_for(half)
    ends = interval(result.ci_low, result.ci_high, decimals, sign=True)
    return f"{fixed(result.difference, decimals, sign=True)} {ends}".strip()


def _axis(each: AxisEffect) -> Table:
    rows = [
        (
            plain_value(level.value), _with_interval(level.mean), count(level.mean.n),
            _change(level.against_first), p_value(level.p_corrected),
            f"{level.verdict.word}: {level.verdict.sentence}" if level.verdict else FIRST,
        )
        for level in each.levels
    ]  # fmt: skip
    columns = (
        each.axis,
        each.metric,
        "n",
        f"from {plain_value(each.levels[0].value)}",
        "p, corrected",
        "reads as",
    )
    title = (
        f"By {each.axis}, averaged over {each.cells} combination{'s' if each.cells != 1 else ''} of the rest"
    )
    return Table(title, columns, rows, frozenset({1, 2, 3, 4}))


def _sentences(sensitive: Sequence[PromptSensitivity]) -> list[str]:
    if len(sensitive) <= TOLD:
        return [_sensitive(each, len(sensitive) > 1) for each in sensitive]
    real = sum(each.p <= ALPHA for each in sensitive)
    return [
        f"The choice of prompt matters, more than chance would have it, in {real} of {len(sensitive)} "
        "combinations of model and dataset."
    ]


def _sensitive(each: PromptSensitivity, several: bool) -> str:
    """How much the choice of prompt matters, in plain words."""
    best, worst = each.prompts[0][0], each.prompts[-1][0]
    where = f" of {each.model} on {each.dataset}" if several else ""
    lead = (
        f"Between the prompts{where} {each.metric} goes from {_with_interval(each.prompts[-1][1])} ({worst})"
    )
    lead += f" to {_with_interval(each.prompts[0][1])} ({best})"
    if each.p > ALPHA:
        return f"{lead}: that may be chance."
    return (
        f"{lead}: {fixed(abs(each.gap))} {interval(*_ends(each))} apart. Another prompt of this "
        f"kind would move it by about {significant(each.sd_beyond_chance, 2)} either way (one standard "
        "deviation)."
    )


def _ends(each: PromptSensitivity) -> tuple[float | None, float | None]:
    if each.gap_low is None or each.gap_high is None or each.gap >= 0:
        return each.gap_low, each.gap_high
    return -each.gap_high, -each.gap_low


def _sensitivities(sensitive: Sequence[PromptSensitivity]) -> Table:
    rows = [
        (
            each.model, each.dataset, each.prompts[0][0], _with_interval(each.prompts[0][1]),
            each.prompts[-1][0], _with_interval(each.prompts[-1][1]),
            f"{fixed(abs(each.gap))} {interval(*_ends(each))}".strip(),
            p_value(each.p), significant(each.sd_beyond_chance, 2), count(each.n),
        )
        for each in sensitive
    ]  # fmt: skip
    columns = (
        "model", "dataset", "best prompt", "its value", "worst prompt", "its value", "apart", "p, corrected",
        "spread beyond chance (sd)", "n",
    )  # fmt: skip
    return Table("How much the choice of prompt matters", columns, rows, frozenset({3, 5, 6, 7, 8, 9}))


def _sensitivity(each: PromptSensitivity) -> Table:
    rows = [(name, _with_interval(estimate), count(estimate.n)) for name, estimate in each.prompts]
    rows.append(("mean over the prompts", _with_interval(each.mean), count(each.n)))
    rows.append(("standard deviation of the prompts", significant(each.sd, 2), count(len(each.prompts))))
    rows.append(("of it more than chance gives", significant(each.sd_beyond_chance, 2), ""))
    title = f"Prompts of {each.model} on {each.dataset}, best first"
    return Table(title, ("prompt", each.metric, "n"), rows, frozenset({1, 2}))


def _ablation(each: PromptAblation) -> Table:
    rows = [
        (
            part.part, _with_interval(part.without), _change(part.gain), p_value(part.p_corrected),
            NONE if part.tokens is None else significant(part.tokens), part.sentence,
        )
        for part in each.parts
    ]  # fmt: skip
    title = (
        f"What each part of {each.prompt} adds ({each.model} on {each.dataset}): the whole prompt has "
        f"{each.metric} {_with_interval(each.whole)}, n = {count(each.n)}"
    )
    columns = ("part", "without it", "what it adds", "p, corrected", "tokens a sample", "reads as")
    return Table(title, columns, rows, frozenset({1, 2, 3, 4}))
