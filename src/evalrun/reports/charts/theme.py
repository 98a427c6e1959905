"""What all charts share: colours as CSS variables (so that they follow light, dark and print), shapes, fonts.

Colours stand for runs; shapes say the same once more for readers who cannot tell the colours apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evalrun.reports.view import PALETTE, RunView

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"

COLOURS = tuple(f"var(--run-{index})" for index in range(PALETTE))
SHAPES = (
    "circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left",
)  # fmt: skip
DASHES: tuple[tuple[int, ...], ...] = (
    (1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (4, 2), (1, 3), (10, 4), (6, 2, 1, 2, 1, 2),
)  # fmt: skip

LINE_LEGEND: Mapping[str, Any] = {"symbolType": "stroke", "symbolSize": 500, "symbolStrokeWidth": 2}
"""A legend of lines, long enough that their dashes can be told apart."""

_FONT = '-apple-system, BlinkMacSystemFont, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'

CONFIG: Mapping[str, Any] = {
    "background": None,
    "font": _FONT,
    "padding": 4,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--soft)", "titleColor": "var(--soft)", "gridColor": "var(--grid)",
        "domainColor": "var(--rule)", "tickColor": "var(--rule)", "labelFontSize": 12, "titleFontSize": 12,
        "titleFontWeight": "normal", "labelPadding": 6, "titlePadding": 10, "tickSize": 4, "labelLimit": 220,
    },
    "legend": {
        "labelColor": "var(--ink)", "titleColor": "var(--soft)", "labelFontSize": 12, "symbolSize": 80,
        "titleFontSize": 12, "titleFontWeight": "normal", "orient": "top", "labelLimit": 260, "title": None,
        "columnPadding": 18, "rowPadding": 4, "offset": 8,
    },
    "header": {"labelColor": "var(--ink)", "titleColor": "var(--soft)", "labelFontSize": 12},
    "text": {"color": "var(--ink)", "fontSize": 12},
    "rule": {"color": "var(--soft)"},
    "style": {"guide-label": {"font": _FONT}, "guide-title": {"font": _FONT}},
}  # fmt: skip


def base(height: int | Mapping[str, Any], **parts: Any) -> dict[str, Any]:
    """A specification as wide as its box. `parts` are data, layer, mark, encoding, …"""
    return {
        "$schema": SCHEMA,
        "config": CONFIG,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        **parts,
    }


def nominal(field: str, scale: Mapping[str, Any], legend: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An encoding of names by colour, shape or dashes; without a legend unless one is given."""
    return {
        "field": field, "type": "nominal", "title": None, "sort": None, "scale": scale, "legend": legend
    }  # fmt: skip


def rows_of(field: str, order: Sequence[str] | None) -> dict[str, Any]:
    """The upright axis of a chart with one row a name, in this order."""
    return {
        "field": field, "type": "nominal", "title": None, "sort": order,
        "axis": {"ticks": False, "domain": False, "labelColor": "var(--ink)", "grid": False,
                 "labelLimit": 360},
    }  # fmt: skip


def dots(
    field: str, order: Sequence[str], x: Mapping[str, Any], colour: Mapping[str, Any],
    marks: Mapping[str, Any], tooltip: Mapping[str, str],
) -> list[dict[str, Any]]:  # fmt: skip
    """Two layers: an interval (`low`, `high`) and a point for each row. `colour` is of both, `marks` are
    encodings of the points, `tooltip` names fields."""
    y = rows_of(field, order)
    ends = {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}}
    return [
        {"mark": {"type": "rule", "strokeWidth": 1.5}, "encoding": {**ends, **colour}},
        {"mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
         "encoding": {"y": y, "x": x, **colour, **marks, "tooltip": tips(tooltip)}},
    ]  # fmt: skip


def tips(titles: Mapping[str, str]) -> list[dict[str, str]]:
    """A tooltip of these fields under these titles."""
    return [{"field": field, "title": title} for field, title in titles.items()]


def run_scale(runs: Sequence[RunView], values: Sequence[str]) -> dict[str, Any]:
    """The scale that maps names of runs (label, full name or family), in their order, to colours."""
    return {"domain": list(values), "range": [COLOURS[_colours(runs)[name]] for name in values]}


def shape_scale(runs: Sequence[RunView], values: Sequence[str]) -> dict[str, Any]:
    """The scale that maps names of runs to shapes."""
    return {"domain": list(values), "range": [SHAPES[_colours(runs)[name]] for name in values]}


def dash_scale(runs: Sequence[RunView], values: Sequence[str]) -> dict[str, Any]:
    """The scale that maps names of runs to dash patterns."""
    return {"domain": list(values), "range": [list(DASHES[_colours(runs)[name]]) for name in values]}


def _colours(runs: Sequence[RunView]) -> dict[str, int]:
    return {name: run.colour for run in runs for name in (run.label, run.full, run.family)}


WIDER = 2.5
"""An axis grows by no more than this for a level beside the values."""


def reaching(values: Sequence[float], level: float | None) -> list[float]:
    """The values, with the level where it lies so near that they still fill a good part of the axis."""
    if level is None or not values:
        return list(values)
    low, high = min(*values, level), max(*values, level)
    own = max(values) - min(values)
    return [*values, level] if high - low <= WIDER * own else list(values)


def level_rule(axis: str, encoding: Mapping[str, Any], level: float | None) -> list[dict[str, Any]]:
    """A dashed line across the chart at the level of chance, where the axis (`x` or `y`) reaches it."""
    low, high = encoding["scale"]["domain"]
    if level is None or not low <= level <= high:
        return []
    at = {"field": "chance", "type": "quantitative"}
    own = {name: each for name, each in encoding.items() if name in ("scale", "axis", "title")}
    across = {"text": {"value": "chance"}, axis: {**own, **at}}
    side = {"x": {"value": 2}} if axis == "y" else {"y": {"value": 6}}
    place = {"align": "left", "dx": 2, "dy": -6 if axis == "y" else 0, "fontSize": 11, "color": "var(--soft)"}
    return [
        {"data": {"values": [{"chance": level}]},
         "mark": {"type": "rule", "strokeDash": [6, 4], "strokeWidth": 1.25, "color": "var(--soft)"},
         "encoding": {axis: {**own, **at}}},
        {"data": {"values": [{"chance": level}]}, "mark": {"type": "text", **place},
         "encoding": {**across, **side}},
    ]  # fmt: skip


def padded(values: Sequence[float], share: float = 0.08) -> list[float]:
    """A domain around values, a little wider than they reach."""
    low, high = min(values), max(values)
    room = (high - low) * share or abs(high) * share or 0.1
    return [low - room, high + room]
