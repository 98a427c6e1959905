"""Fairness as the report tells it: for each column a sentence, a chart, and tables in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalrun.reports import groupwords
from evalrun.reports.charts.groups import by_group, contrasts_of, gap_of, groups_of
from evalrun.reports.fairness_tables import contrast_table, control_tables, criteria_table
from evalrun.reports.numbers import NONE, fixed, listing, plural
from evalrun.reports.view import Chart, RunView, Table

ALPHA = 0.05
PLAIN = 12
"""So many runs are told in plain words; the tables of gaps and contrasts have them all."""

_RATES = ("error_rate", "unparsed_rate", "refused_rate")


@dataclass(frozen=True, slots=True)
class FairnessView:
    """One sensitive column (or several taken together) on one dataset.

    `plain` has a table in everyday words for each run, the best first; `warnings` say what cannot be said;
    `notes` tell of endings that fall on some group more often; `more` are tables for those who want them.
    `compared` is False where no run has two groups that are large enough.
    """

    column: str
    dataset: str
    sentence: str
    chart: Chart | None
    plain: Sequence[tuple[RunView, Table]]
    gaps: Table
    warnings: Sequence[str]
    notes: Sequence[str]
    more: Sequence[Table]
    compared: bool = True


def fairness(
    runs: Sequence[RunView], metric: str, dataset: str, *, named: bool, at: int,
    titles: Mapping[str, str] | None = None,
) -> list[FairnessView]:  # fmt: skip
    """A view for every sensitive column that the runs (best first) were compared by.

    `titles` says how columns that stand for several are called ("a-b": "a by b").
    """
    columns = dict.fromkeys(column for run in runs for column in (run.details.get("groups") or {}))
    where = f", {dataset}" if named else ""
    views: list[FairnessView] = []
    for column in columns:
        shown = (titles or {}).get(column, column)
        having = [run for run in runs if groups_of(run, column, metric)]
        refused = [note for run in runs if (note := _column(run, column).get("note"))]
        if not having:
            if refused:
                views.append(_refused(shown, dataset, refused[0]))
            continue
        chart = by_group(f"groups-{at}-{len(views)}", f"{metric} by {shown}{where}", column, metric, having)
        views.append(
            FairnessView(
                column=shown,
                dataset=dataset,
                sentence=_sentence(having[0], column, metric, shown),
                chart=chart,
                plain=[
                    (run, groupwords.plain_table(run, column, metric, shown))
                    for run in having[:PLAIN]
                    if any(each["n"] for each in groups_of(run, column, metric))
                ],
                gaps=_gaps(having, column, metric, shown),
                warnings=[*dict.fromkeys(refused), *_warnings(having, column, metric)],
                notes=_notes(having, column),
                more=_more(having, column, metric),
                compared=any(gap_of(run, column, metric) for run in having),
            )
        )
    return views


def _column(run: RunView, column: str) -> Mapping[str, Any]:
    return (run.details.get("groups") or {}).get(column) or {}


def _refused(column: str, dataset: str, note: str) -> FairnessView:
    nothing = Table("", (), ())
    return FairnessView(
        column, dataset, f"By {column} nothing was compared: {note}.", None, [], nothing, [], [], []
    )


def _sentence(run: RunView, column: str, metric: str, shown: str) -> str:
    """What the first run's gap amounts to, in plain words."""
    gap = gap_of(run, column, metric)
    if gap is None:
        groups = groups_of(run, column, metric)
        return (
            f"{plural(len(groups), 'group')} of {shown}: nothing to compare, "
            "because a gap needs two groups that are large enough."
        )
    value, chance = gap["value"], gap.get("chance_gap_p95")
    best, worst = gap["best"], gap["worst"]
    if value == 0:
        return f"{run.label} treats the groups of {shown} alike: they have the same {metric}."
    lead = f"{run.label} does best for {best} and worst for {worst}: a gap of {fixed(value)} in {metric}."
    if chance is None or gap.get("p") is None:
        return lead
    if gap["p"] < ALPHA:
        return f"{lead} Chance alone seldom gives so wide a gap (95 % of shuffles: at most {fixed(chance)})."
    return f"{lead} Chance alone gives gaps up to {fixed(chance)} here, so no difference can be made out."


def _gaps(runs: Sequence[RunView], column: str, metric: str, shown: str) -> Table:
    rows = []
    for run in runs:
        gap = gap_of(run, column, metric)
        if gap is None:
            rows.append((run.label, NONE, NONE, NONE, NONE, NONE, "not compared"))
            continue
        rows.append(
            (run.label, str(gap["best"]), str(gap["worst"]), fixed(gap["value"]),
             fixed(gap.get("chance_gap_p95")), groupwords.p_value(gap.get("p")), _verdict(gap))
        )  # fmt: skip
    columns = ("run", "best group", "worst group", "gap", "by chance up to", "p", "reads as")
    return Table(f"Gap in {metric} between the groups of {shown}", columns, rows, frozenset({3, 4, 5}))


def _verdict(gap: Mapping[str, Any]) -> str:
    if gap["value"] == 0:
        return "no gap"
    if gap.get("p") is None:
        return NONE
    return "wider than chance" if gap["p"] < ALPHA else "within chance"


def _warnings(runs: Sequence[RunView], column: str, metric: str) -> list[str]:
    """Groups too small to say anything of, groups that are not shown, and how much may have been missed."""
    best = runs[0]
    least = _column(best, column).get("min_group")
    groups = groups_of(best, column, metric)
    found = []
    small = [f"{each['group']} (n = {each['n']})" for each in groups
             if not each["compared"] and each["n"] and each["group"] != "(missing)"]  # fmt: skip
    if small:
        found.append(
            f"Too few samples to say anything of {listing(small)}: fewer than {least} in a group "
            "are shown and not compared."
        )
    withheld = ((_column(best, column).get("metrics") or {}).get(metric) or {}).get("withheld") or 0
    if withheld:
        found.append(f"{plural(withheld, 'group')} with fewer than {least} samples not shown: not stored.")
    gap = gap_of(best, column, metric)
    if gap and (gap.get("p") or 0) >= ALPHA:
        ends = [abs(end) for each in contrasts_of(best, column, metric) for end in (each["low"], each["high"])
                if end is not None]  # fmt: skip
        if ends:
            found.append(
                f"That nothing can be made out is not that nothing is there: with these samples a true "
                f"difference of up to {fixed(max(ends))} would still fit."
            )
    return found


def _notes(runs: Sequence[RunView], column: str) -> list[str]:
    """Unparsed, refused or failed answers that fall on some group more than chance would have it."""
    found = []
    for run in runs:
        for rate in _RATES:
            gap = gap_of(run, column, rate)
            if gap and gap["value"] > 0 and (gap.get("p") or 1) < ALPHA:
                what = rate.removesuffix("_rate").replace("error", "failed")
                found.append(
                    f"{run.label}: the share of {what} answers is {fixed(gap['value'])} higher for "
                    f"{gap['worst']} than for {gap['best']}."
                )
    return found


def _more(runs: Sequence[RunView], column: str, metric: str) -> list[Table]:
    tables = [
        criteria_table(runs, column),
        contrast_table(runs, column, metric),
        *control_tables(runs, column, metric),
    ]
    return [table for table in tables if table is not None]
