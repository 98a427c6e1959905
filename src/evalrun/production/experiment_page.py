"""The page of an experiment: verdict, sample ratio, effects, guardrails, interactions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalrun.production.experiment import RATIO_LEVEL, Analysis, Effect
from evalrun.reports import numbers
from evalrun.reports.charts.theme import base, dots
from evalrun.reports.sections import Section, Sections
from evalrun.reports.view import Chart, Table
from evalrun.reports.visible import visible

VERDICTS = {
    "better": "{winner} is better than control.",
    "worse": "No treatment is better, and control is: nothing to promote.",
    "tied": "So far nothing tells the arms apart.",
    "no verdict": "Nothing may be concluded.",
}


def write_page(analysis: Analysis, out: Path) -> None:
    """Write the page to `out`, whole or not at all."""
    made(analysis).write(out)


def made(analysis: Analysis) -> Sections:
    """The page."""
    said = [VERDICTS[analysis.verdict].format(winner=analysis.winner)]
    said += [_effect_sentence(effect) for effect in analysis.effects]
    said.append(
        f"{analysis.rows:,} rows of {sum(analysis.ratio.counts.values()):,} units; {analysis.method}."
    )
    trouble = [analysis.why] if analysis.why else []
    trouble += [f"Guardrail: {g.guardrail} ({g.arm})" for g in analysis.guards if g.verdict == "violated"]
    trouble += [
        f"{' and '.join(each.experiments)} change each other's effect: {each.d:+.3g} "
        f"[{each.ci_low:+.3g}, {each.ci_high:+.3g}]."
        for each in analysis.interactions
        if each.found
    ]
    sections = [Section("units", "Units by arm", [_units(analysis)], notes=_ratio_notes(analysis))]
    if analysis.effects:
        chart = _chart(analysis.effects)
        effect = Section("effect", "Effect", [_effects(analysis.effects)], [chart], _effect_notes(analysis))
        sections.insert(0, effect)
    if analysis.guards:
        sections.append(Section("guardrails", "Guardrails", [_guards(analysis)], notes=[GUARDS]))
    if analysis.interactions:
        sections.append(Section("interactions", "Interactions", [_interactions(analysis)], notes=[CROSSED]))
    said, trouble = ([visible(text) for text in texts] for texts in (said, trouble))
    return Sections("Experiment", visible(analysis.id), said, trouble, sections)


GUARDS = (
    "A guardrail holds or is violated where its whole interval says so. A percentile is a share: `p95 <= 8` "
    "holds where at most 5 % of requests took longer."
)
CROSSED = (
    "The difference of differences on the units that both have; p by Holm over the pairs. Detectable: what "
    "so many units find four times in five. Experiments of one namespace with other buckets share no unit."
)


def _interval(low: float, high: float) -> str:
    return f"[{numbers.significant(low, 3)}, {numbers.significant(high, 3)}]"


def _effect_sentence(effect: Effect) -> str:
    return (
        f"{effect.arm}: {effect.metric} {effect.control:.4g} to {effect.treatment:.4g}, "
        f"{effect.difference:+.3g} {_interval(effect.ci_low, effect.ci_high)}: {effect.verdict}."
    )


def _effect_notes(analysis: Analysis) -> list[str]:
    notes = ["Means are per request, intervals by units (delta method). " + _how(analysis)]
    notes += [
        f"{visible(each.arm)}: what units were like before took {each.variance_cut:.0%} of the variance out."
        for each in analysis.effects
        if each.variance_cut
    ]
    return [*notes, f"Digest of the analysis: {analysis.digest[:16]}."]


def _how(analysis: Analysis) -> str:
    if analysis.method.startswith("sequential"):
        return "The interval holds whenever one looks."
    return "A fixed experiment is read once, at its end."


def _ratio_notes(analysis: Analysis) -> list[str]:
    ratio = analysis.ratio
    notes = [
        f"Sample ratio: chi-squared {ratio.chi2:.3g}, p = {numbers.p_value(ratio.p)}; below {RATIO_LEVEL:g} "
        "nothing is concluded: what was lost decides then, not what was tried."
    ]
    left = [f"{count:,} rows with {why}" for why, count in analysis.left_out.items()]
    left += [f"{analysis.in_two_arms:,} units in several arms"] if analysis.in_two_arms else []
    return notes + ([f"Left out: {', '.join(left)}."] if left else [])


def _units(analysis: Analysis) -> Table:
    counts = analysis.ratio.counts
    total = sum(counts.values())
    rows = [
        [
            visible(arm),
            f"{counts[arm]:,}",
            f"{share * total:,.0f}",
            f"{counts[arm] / total if total else 0:.1%}",
        ]
        for arm, share in analysis.ratio.expected.items()
    ]
    return Table("Units by arm", ["arm", "units", "expected", "share"], rows, frozenset({1, 2, 3}))


def _effects(effects: Sequence[Effect]) -> Table:
    head = ["arm", "metric", "control", "treatment", "difference", "interval", "p", "units", "verdict"]
    rows = [
        [
            visible(each.arm), visible(each.metric), numbers.significant(each.control),
            numbers.significant(each.treatment), f"{each.difference:+.3g}",
            _interval(each.ci_low, each.ci_high), "-" if each.p is None else numbers.p_value(each.p),
            f"{each.n:,}", each.verdict,
        ]
        for each in effects
    ]  # fmt: skip
    return Table("Effects", head, rows, frozenset({2, 3, 4, 6, 7}))


def _chart(effects: Sequence[Effect]) -> Chart:
    rows: list[dict[str, Any]] = [
        {"name": visible(each.arm), "v": each.difference, "low": each.ci_low, "high": each.ci_high,
         "ends": _interval(each.ci_low, each.ci_high)}
        for each in effects
    ]  # fmt: skip
    metric = visible(effects[0].metric)
    x = {"field": "v", "type": "quantitative", "title": f"change of {metric}", "scale": {"zero": True}}
    zero = {
        "data": {"values": [{"at": 0}]},
        "mark": {"type": "rule", "strokeDash": [4, 3]},
        "encoding": {"x": {"field": "at", "type": "quantitative"}},
    }
    layers = dots(
        "name", [row["name"] for row in rows], x, {"color": {"value": "var(--run-0)"}}, {},
        {"name": "arm", "v": "difference", "ends": "interval"},
    )  # fmt: skip
    table = Table(
        "Differences from control", ["arm", "difference", "interval"],
        [[row["name"], f"{row['v']:+.4g}", row["ends"]] for row in rows], frozenset({1}),
    )  # fmt: skip
    return Chart(
        "effect", f"Against control: {metric}", f"Differences of {metric} from control, with intervals.",
        base(36 * len(rows) + 16, data={"values": rows}, layer=[zero, *layers]), table,
        "An interval that leaves zero out is a difference.", wide=True,
    )  # fmt: skip


def _guards(analysis: Analysis) -> Table:
    rows = [
        [
            visible(each.guardrail), visible(each.arm), each.verdict, numbers.significant(each.value, 3),
            _interval(each.ci_low, each.ci_high),
        ]
        for each in analysis.guards
    ]  # fmt: skip
    return Table("Guardrails", ["guardrail", "arm", "verdict", "value", "interval"], rows, frozenset({3}))


def _interactions(analysis: Analysis) -> Table:
    head = [
        "experiments",
        "difference of differences",
        "interval",
        "p",
        "units",
        "detectable",
        "assigned apart",
    ]
    rows = [
        [
            visible(" x ".join(each.experiments)), f"{each.d:+.3g}", _interval(each.ci_low, each.ci_high),
            numbers.p_value(each.p), f"{each.units:,}", numbers.significant(each.detectable, 3),
            visible(each.note) or f"yes, p = {numbers.p_value(each.assigned_p)}",
        ]
        for each in analysis.interactions
    ]  # fmt: skip
    return Table("Interactions", head, rows, frozenset({1, 3, 4, 5}))
