"""The levels of every axis of a sweep on one scale: what each value comes to on average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evalrun.reports.charts.theme import base
from evalrun.reports.numbers import count, decimals_for, fixed, interval
from evalrun.reports.runs import plain_value
from evalrun.reports.view import Chart, Table
from evalrun.reports.visible import visible

if TYPE_CHECKING:
    from evalrun.analysis.marginal import AxisEffect


def level_chart(key: str, effects: Sequence[AxisEffect]) -> Chart:
    """One row a level of an axis: its mean over all the rest, with the interval. `effects` is not empty."""
    metric = effects[0].metric
    rows = [_row(effect, at) for effect in effects for at in range(len(effect.levels))]
    axes = ", ".join(f"{each.axis} (spread {fixed(each.spread)})" for each in effects)
    return Chart(
        key=key,
        title=f"{metric} by each axis",
        alt=f"Dot plot of mean {metric} with 95 % intervals for every value of {axes}.",
        spec=_spec(rows, metric, len(effects)),
        table=Table(
            f"Mean {metric} of each value of each axis",
            ("axis", "value", metric, "95 % interval", "n"),
            [(row["axis"], row["level"], row["text"], row["ends"], count(row["n"])) for row in rows],
            frozenset({2, 4}),
        ),
        note="Averages over all combinations of the other axes that every value has. Those "
        "intervals are of each mean alone: whether two differ stands in the tables.",
    )


def _row(effect: AxisEffect, at: int) -> dict[str, Any]:
    mean = effect.levels[at].mean
    half = None if mean.low is None or mean.high is None else (mean.high - mean.low) / 2
    decimals = decimals_for(half)
    return {
        "axis": visible(effect.axis), "level": visible(plain_value(effect.levels[at].value)), "v": mean.value,
        "low": mean.low, "high": mean.high, "n": mean.n, "text": fixed(mean.value, decimals),
        "ends": interval(mean.low, mean.high, decimals),
    }  # fmt: skip


def _spec(rows: Sequence[dict[str, Any]], metric: str, axes: int) -> dict[str, Any]:
    # One axis after the other down the page; facets of Vega-Lite do not take the width of their box.
    values = [{**row, "name": f"{row['axis']}: {row['level']}"} for row in rows]
    y = {
        "field": "name", "type": "nominal", "title": None, "sort": [row["name"] for row in values],
        "axis": {"ticks": False, "domain": False, "labelColor": "var(--ink)"},
    }  # fmt: skip
    x = {
        "field": "v", "type": "quantitative", "title": metric, "scale": {"zero": False, "nice": True},
        "axis": {"tickCount": 6, "format": ".2~f"},
    }  # fmt: skip
    shape = {"field": "axis", "type": "nominal", "legend": None}
    tooltip = [
        {"field": "name", "title": "value"}, {"field": "text", "title": metric},
        {"field": "ends", "title": "95 % interval"}, {"field": "n", "title": "n"},
    ]  # fmt: skip
    layers = [
        {"mark": {"type": "rule", "strokeWidth": 1.5, "color": "var(--run-0)"},
         "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}}},
        {"mark": {"type": "point", "filled": True, "size": 80, "opacity": 1, "color": "var(--run-0)"},
         "encoding": {"y": y, "x": x, "shape": shape, "tooltip": tooltip}},
    ]  # fmt: skip
    return base(26 * len(values) + 8 * axes, data={"values": values}, layer=layers)
