"""Forest plot: how far each run is from the best of its dataset, with bounds that hold for all at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalrun.reports.charts.theme import base, run_scale, shape_scale
from evalrun.reports.numbers import count, decimals_for, fixed, interval
from evalrun.reports.standings import equal
from evalrun.reports.view import Chart, RunView, Table

SIGNED = "datum.value == 0 ? '0' : format(datum.value, '+.2~f')"
"""Labels of an axis of differences: signs, but no plus before zero."""

MOST = 20
"""Runs that are drawn, the best first; the table has them all."""


def forest(
    key: str, dataset: str, runs: Sequence[RunView], *, named: bool, wide: bool = True
) -> Chart | None:
    """Differences of ranked runs to the best; None where fewer than two were compared with it."""
    compared = [run for run in runs if run.difference is not None]
    if len(compared) < 2 or runs[0].primary is None or equal(runs):
        return None
    metric, best = runs[0].primary.name, runs[0]
    rows = [_row(run) for run in compared[:MOST]]
    tied = sum(run.standing == "tied" for run in compared)
    more = f" The {MOST} best of {len(compared)} are drawn." if len(compared) > MOST else ""
    return Chart(
        key=key,
        title=f"How far from {best.label}{f', {dataset}' if named else ''}",
        alt=f"Forest plot of {metric} minus that of {best.label} for {len(compared)} runs, with 95 % "
        f"intervals; {tied} of them reach 0.",
        spec=_spec(compared[:MOST], rows, metric),
        table=_table(compared, metric),
        note="Difference over the same samples, with 95 % intervals that hold for all pairs of runs at once. "
        f"Hollow marks: it may well be nothing.{more}",
        wide=wide,
    )


def _row(run: RunView) -> dict[str, Any]:
    value, low, high = behind(run)
    return {
        "run": run.label, "v": value, "low": low, "high": high, "tied": run.standing == "tied",
        "text": _text(run), "n": run.difference.n if run.difference else 0,
    }  # fmt: skip


def behind(run: RunView) -> tuple[float, float | None, float | None]:
    """The run minus the best, with its bounds: a worse run stands below zero."""
    assert run.difference is not None
    low, high = run.difference.low, run.difference.high
    return -run.difference.mean, None if high is None else -high, None if low is None else -low


def _text(run: RunView) -> str:
    value, low, high = behind(run)
    decimals = decimals_for(None if low is None or high is None else (high - low) / 2)
    return f"{fixed(value, decimals, sign=True)} {interval(low, high, decimals, sign=True)}".strip()


def _spec(runs: Sequence[RunView], rows: Sequence[dict[str, Any]], metric: str) -> dict[str, Any]:
    labels = [run.label for run in runs]
    y = {
        "field": "run", "type": "nominal", "title": None, "sort": labels,
        "axis": {"ticks": False, "domain": False, "labelColor": "var(--ink)", "grid": False},
    }  # fmt: skip
    x = {
        "field": "v", "type": "quantitative", "title": f"difference in {metric}",
        "scale": {"zero": True, "nice": True}, "axis": {"tickCount": 6, "labelExpr": SIGNED},
    }  # fmt: skip
    colour = {"field": "run", "type": "nominal", "scale": run_scale(runs, labels), "legend": None}
    shape = {"field": "run", "type": "nominal", "scale": shape_scale(runs, labels), "legend": None}
    tooltip = [
        {"field": "run", "title": "run"}, {"field": "text", "title": "difference"},
        {"field": "n", "title": "pairs"},
    ]  # fmt: skip
    hollow = {"condition": {"test": "datum.tied", "value": 0}, "value": 1}
    layers = [
        {"data": {"values": [{"zero": 0}]},
         "mark": {"type": "rule", "color": "var(--soft)", "strokeWidth": 1.25},
         "encoding": {"x": {"field": "zero", "type": "quantitative"}}},
        {"mark": {"type": "rule", "strokeWidth": 1.5},
         "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": colour}},
        {"mark": {"type": "point", "size": 80, "opacity": 1, "filled": False, "strokeWidth": 1.75,
                  "fill": "var(--paper)"},
         "encoding": {"y": y, "x": x, "stroke": colour, "shape": shape, "tooltip": tooltip}},
        {"mark": {"type": "point", "size": 80, "filled": True},
         "encoding": {"y": y, "x": x, "color": colour, "shape": shape, "opacity": hollow,
                      "tooltip": tooltip}},
    ]  # fmt: skip
    return base(26 * len(labels) + 10, data={"values": list(rows)}, layer=layers)


def _table(runs: Sequence[RunView], metric: str) -> Table:
    rows = []
    for run in runs:
        assert run.difference is not None
        p = run.difference.p
        rows.append(
            (run.label, _text(run), "< 0.001" if p < 0.001 else fixed(p, 3), count(run.difference.n),
             "not distinguishable" if run.standing == "tied" else "behind", run.difference.method)
        )  # fmt: skip
    columns = ("run", f"difference in {metric}", "p, corrected", "pairs", "reads as", "how")
    return Table("Difference of each run to the best", columns, rows, frozenset({2, 3}))
