"""Fairness: a metric by group, a point with its interval for every run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalrun.reports.charts.theme import base, run_scale, shape_scale
from evalrun.reports.numbers import NONE, count, figure, interval, measured
from evalrun.reports.view import Chart, RunView, Table
from evalrun.reports.visible import visible
from evalrun.results import ColumnGroups, Gap, GroupMeasure, GroupValue

SHOWN = 6
"""Runs that are drawn; the table has them all."""


def column_of(run: RunView, column: str) -> ColumnGroups:
    """What the run has by the groups of a column."""
    return run.details.groups.get(column) or ColumnGroups()


def measure_of(run: RunView, column: str, metric: str) -> GroupMeasure:
    """The run's values of a metric by the groups of a column; empty where it has none."""
    return column_of(run, column).metrics.get(metric) or GroupMeasure()


def gap_of(run: RunView, column: str, metric: str) -> Gap | None:
    """The run's gap for a column; None where it has none."""
    gap = measure_of(run, column, metric).gap
    return gap if gap and gap.value is not None else None


def _chance(run: RunView, column: str, metric: str) -> tuple[float | None, float | None]:
    """Where groups would lie if they differed by chance alone: as wide as 95 % of shuffled gaps."""
    gap, whole = gap_of(run, column, metric), run.value(metric)
    if gap is None or gap.chance_gap_p95 is None or whole is None:
        return None, None
    half = gap.chance_gap_p95 / 2
    return whole - half, whole + half


def by_group(key: str, title: str, column: str, metric: str, runs: Sequence[RunView]) -> Chart | None:
    """The chart of a metric by the groups of one sensitive column; None where no run has any."""
    having = [run for run in runs if measure_of(run, column, metric).groups]
    if not having:
        return None
    bands = {run.id: _chance(run, column, metric) for run in having}
    rows = [
        {
            "run": run.label, "group": _axis_label(group), "v": group.value, "low": group.low,
            "high": group.high, "n": group.n, "note": visible(group.note),
            "value": measured(group.value, group.low, group.high),
            "from": bands[run.id][0], "to": bands[run.id][1],
        }
        for run in having[:SHOWN]
        for group in measure_of(run, column, metric).groups
        if group.value is not None
    ]  # fmt: skip
    if not rows:
        return None
    more = len(having) - SHOWN
    note = f"The {SHOWN} best runs are drawn; the table has all {len(having)}. " if more > 0 else ""
    small = any(not group.compared for run in having for group in measure_of(run, column, metric).groups)
    if any(start is not None for start, _ in bands.values()):
        note += "Grey: where groups would lie by chance alone, 19 times in 20. "
    note += "Groups marked * are not compared: too few samples, or no group given." if small else ""
    return Chart(
        key=key,
        title=title,
        alt=f"Dot plot of {metric} by {column} with 95 % intervals for {min(len(having), SHOWN)} runs.",
        spec=_spec(having[:SHOWN], rows, metric),
        table=_table(having, column, metric),
        note=note,
    )


def _axis_label(group: GroupValue) -> str:
    return f"{visible(group.group)}{'' if group.compared else ' *'}"


def _spec(runs: Sequence[RunView], rows: Sequence[dict[str, Any]], metric: str) -> dict[str, Any]:
    labels = [run.label for run in runs]
    y = {
        "field": "group", "type": "nominal", "title": None, "sort": None,
        "scale": {"paddingInner": 0.35, "paddingOuter": 0.2},
        "axis": {"ticks": False, "domain": False, "labelColor": "var(--ink)", "grid": False},
    }  # fmt: skip
    offset = {"field": "run", "type": "nominal", "sort": None, "scale": {"domain": labels, "padding": 0.2}}
    x = {
        "field": "v", "type": "quantitative", "title": metric,
        "scale": {"zero": False, "nice": True}, "axis": {"tickCount": 6, "format": ".2~f"},
    }  # fmt: skip
    colour = {
        "field": "run", "type": "nominal", "title": None, "sort": None, "scale": run_scale(runs, labels),
        "legend": {} if len(runs) > 1 else None,
    }  # fmt: skip
    shape = {
        "field": "run", "type": "nominal", "title": None, "sort": None, "scale": shape_scale(runs, labels),
        "legend": {} if len(runs) > 1 else None,
    }  # fmt: skip
    tooltip = [
        {"field": "group", "title": "group"}, {"field": "run", "title": "run"},
        {"field": "value", "title": metric}, {"field": "n", "title": "n"},
        {"field": "note", "title": "note"},
    ]  # fmt: skip
    band = {"y": y, "yOffset": offset, "x": {**x, "field": "from"}, "x2": {"field": "to"}}
    layers = [
        {"mark": {"type": "rule", "strokeWidth": 12, "color": "var(--rule)", "opacity": 0.55},
         "encoding": band},
        {"mark": {"type": "rule", "strokeWidth": 1.5},
         "encoding": {"y": y, "yOffset": offset, "x": {**x, "field": "low"}, "x2": {"field": "high"},
                      "color": colour}},
        {"mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
         "encoding": {"y": y, "yOffset": offset, "x": x, "color": colour, "shape": shape,
                      "tooltip": tooltip}},
    ]  # fmt: skip
    groups = len({row["group"] for row in rows})
    height = groups * (16 * len(runs) + 18)
    return base(height, data={"values": rows}, layer=layers)


def _table(runs: Sequence[RunView], column: str, metric: str) -> Table:
    rows = [
        (run.label, group.group, figure(group.value, group.low, group.high),
         interval(group.low, group.high) or NONE, count(group.n), group.note)
        for run in runs
        for group in measure_of(run, column, metric).groups
    ]  # fmt: skip
    columns = ("run", column, metric, "95 % interval", "n", "note")
    return Table(f"{metric} by {column}", columns, rows, frozenset({2, 4}))
