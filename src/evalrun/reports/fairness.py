"""Fairness as the report tells it: for each sensitive column a chart, a table of gaps, a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evalrun.reports.charts.groups import by_group, gap_of, groups_of
from evalrun.reports.numbers import NONE, fixed, plural
from evalrun.reports.view import Chart, RunView, Table


@dataclass(frozen=True, slots=True)
class FairnessView:
    """One sensitive column on one dataset. `notes` tell of endings that fall on some group more often."""

    column: str
    dataset: str
    sentence: str
    chart: Chart | None
    gaps: Table
    notes: Sequence[str]


_ALPHA = 0.05
_RATES = ("error_rate", "unparsed_rate", "refused_rate")


def fairness(
    runs: Sequence[RunView], metric: str, dataset: str, *, named: bool, at: int
) -> list[FairnessView]:
    """A view for every sensitive column that the runs (best first) were compared by."""
    columns = dict.fromkeys(column for run in runs for column in (run.details.get("groups") or {}))
    where = f", {dataset}" if named else ""
    views: list[FairnessView] = []
    for column in columns:
        having = [run for run in runs if groups_of(run, column, metric)]
        if not having:
            continue
        chart = by_group(f"groups-{at}-{len(views)}", f"{metric} by {column}{where}", column, metric, having)
        views.append(
            FairnessView(
                column=column,
                dataset=dataset,
                sentence=_sentence(having[0], column, metric),
                chart=chart,
                gaps=_gaps(having, column, metric),
                notes=_notes(having, column),
            )
        )
    return views


def _sentence(run: RunView, column: str, metric: str) -> str:
    """What the first run's gap amounts to, in plain words."""
    gap = gap_of(run, column, metric)
    if gap is None:
        groups = groups_of(run, column, metric)
        return (
            f"{plural(len(groups), 'group')} of {column}: nothing to compare, "
            "because a gap needs two groups that are large enough."
        )
    value, chance = gap["value"], gap.get("chance_gap_p95")
    best, worst = gap["best"], gap["worst"]
    if value == 0:
        return f"{run.label} treats the groups of {column} alike: they have the same {metric}."
    lead = f"{run.label} does best for {best} and worst for {worst}: a gap of {fixed(value)} in {metric}."
    if chance is None or gap.get("p") is None:
        return lead
    if gap["p"] < _ALPHA:
        return f"{lead} Chance alone seldom gives so wide a gap (95 % of shuffles: at most {fixed(chance)})."
    return f"{lead} Chance alone gives gaps up to {fixed(chance)} here, so no difference can be made out."


def _gaps(runs: Sequence[RunView], column: str, metric: str) -> Table:
    rows = []
    for run in runs:
        gap = gap_of(run, column, metric)
        if gap is None:
            rows.append((run.label, NONE, NONE, NONE, NONE, NONE, "not compared"))
            continue
        rows.append(
            (run.label, str(gap["best"]), str(gap["worst"]), fixed(gap["value"]),
             fixed(gap.get("chance_gap_p95")), _p(gap.get("p")), _verdict(gap))
        )  # fmt: skip
    columns = ("run", "best group", "worst group", "gap", "by chance up to", "p", "reads as")
    return Table(f"Gap in {metric} between the groups of {column}", columns, rows, frozenset({3, 4, 5}))


def _p(value: float | None) -> str:
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else fixed(value, 3)


def _verdict(gap: dict[str, Any]) -> str:
    if gap["value"] == 0:
        return "no gap"
    if gap.get("p") is None:
        return NONE
    return "wider than chance" if gap["p"] < _ALPHA else "within chance"


def _notes(runs: Sequence[RunView], column: str) -> list[str]:
    """Unparsed, refused or failed answers that fall on some group more than chance would have it."""
    found = []
    for run in runs:
        for rate in _RATES:
            gap = gap_of(run, column, rate)
            if gap and gap["value"] > 0 and (gap.get("p") or 1) < _ALPHA:
                what = rate.removesuffix("_rate").replace("error", "failed")
                found.append(
                    f"{run.label}: the share of {what} answers is {fixed(gap['value'])} higher for "
                    f"{gap['worst']} than for {gap['best']}."
                )
    return found
