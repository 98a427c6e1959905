"""Candidates of a search over its axes: parallel coordinates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evalrun.reports.charts.theme import COLOURS, LINE_LEGEND, base
from evalrun.reports.numbers import listing, plural, significant
from evalrun.reports.view import Chart, Table
from evalrun.reports.visible import visible
from evalrun.search_results import Candidate, SearchResults
from evalrun.tracking.naming import plain_value

_KINDS = ("others", "baseline", "winner")
"""What a line is, the last drawn above all others."""
_LABELLED = 6
_NARROW = "width < 500"
_SPREAD = 0.07
"""Lines through one value lie within so much of its axis, the better the higher: each can be followed."""


def axes_of(found: SearchResults) -> list[str]:
    """The axes that candidates differ in."""
    return list(dict.fromkeys(axis for of in found.axes.values() for axis in of))


def parallel(found: SearchResults, name_of: Callable[[str], str]) -> Chart:
    """Each candidate as a line over the axes, which ends at its score."""
    axes, score = axes_of(found), found.metric
    known = [each for each in found.race.candidates if each.mean is not None and each.name in found.axes]
    known.sort(key=lambda each: (_KINDS.index(_kind(found, each)), each.mean or 0.0))
    of = {each.name: {**found.axes[each.name], score: each.mean} for each in known}
    places = {axis: _places([each[axis] for each in of.values() if axis in each]) for axis in (*axes, score)}
    ranks = {each.name: at for at, each in enumerate(sorted(known, key=lambda each: each.mean or 0.0))}
    shared = {axis for axis in axes if len(places[axis]) <= _LABELLED}
    values = [
        {
            "name": name_of(each.name), "kind": _kind(found, each), "axis": axis, "order": order,
            "at": places[axis][_said(value)]
            + (_SPREAD * (ranks[each.name] / max(1, len(known) - 1) - 0.5) if axis in shared else 0),
            "value": _said(value), score: _said(each.mean),
        }
        for each in known
        for order, (axis, value) in enumerate(of[each.name].items())
    ]  # fmt: skip
    marks = [
        {"axis": axis, "at": at, "value": said}
        for axis, ends in places.items()
        for said, at in _labels(ends).items()
    ]
    higher = " Of those with the same value the better lie higher." if shared else ""
    rows = [
        (name_of(each.name), *(_said(of[each.name].get(axis, "")) for axis in (*axes, score)))
        for each in reversed(known)
    ]
    return Chart(
        "search-axes",
        "Candidates over the axes",
        f"{plural(len(known), 'candidate')}, each a line over {listing(axes)} that ends at its score.",
        _spec(values, marks, [*axes, score], score),
        Table("Candidates over the axes", ("Candidate", *axes, score), rows),
        note=f"Each line is a candidate: its value on each axis, and at the right its {score} on the rows "
        f"that chose, as far as it was asked.{higher}",
        wide=True,
    )


def _kind(found: SearchResults, candidate: Candidate) -> str:
    if candidate.name == found.winner:
        return "winner"
    return "baseline" if candidate.name == found.baseline else "others"


def _spec(
    values: Sequence[Mapping[str, Any]], marks: Sequence[Mapping[str, Any]], axes: list[str], score: str
) -> dict[str, Any]:
    room = {"expr": f"width / {len(axes)} - 14"}
    across = {
        "field": "axis", "type": "nominal", "sort": axes, "title": None, "scale": {"padding": 0.3},
        "axis": {
            "labelAngle": {"expr": f"{_NARROW} ? -35 : 0"}, "grid": True, "labelLimit": 130,
            "labelAlign": {"expr": f"{_NARROW} ? 'right' : 'center'"},
        },
    }  # fmt: skip
    scale = {"domain": [-_SPREAD / 2, 1 + _SPREAD / 2], "nice": False}
    up = {"field": "at", "type": "quantitative", "axis": None, "scale": scale}
    looks: dict[str, list[Any]] = {
        "color": ["var(--rule)", COLOURS[1], COLOURS[0]],
        "strokeDash": [[1, 0], [6, 3], [1, 0]],
        "strokeWidth": [1, 2, 3],
    }
    of_kind = {
        channel: {
            "field": "kind", "type": "ordinal", "sort": _KINDS, "title": None, "legend": LINE_LEGEND,
            "scale": {"domain": _KINDS, "range": shown},
        }
        for channel, shown in looks.items()
    }  # fmt: skip
    text = {"type": "text", "align": "left", "dx": 7, "dy": -9, "limit": room}
    named = {"x": across, "y": up, "text": {"field": "value"}}
    tooltip = [{"field": "name"}, {"field": "axis"}, {"field": "value"}, {"field": score.replace(".", "\\.")}]
    lines = {
        "data": {"values": values},
        "mark": {"type": "line", "point": {"size": 14}},
        "encoding": {
            "x": across, "y": up, "detail": {"field": "name"}, "order": {"field": "order"}, **of_kind,
            "tooltip": tooltip,
        },
    }  # fmt: skip
    # Each label twice: lines end at the paper around it.
    halo = {**text, "stroke": "var(--paper)", "strokeWidth": 4, "strokeJoin": "round"}
    labels = [{"data": {"values": marks}, "mark": mark, "encoding": named} for mark in (halo, text)]
    return base(320, layer=[lines, *labels])


def _places(values: Sequence[Any]) -> dict[str, float]:
    """Where values lie on an axis from 0 to 1: numbers to scale, names one above the other."""
    unique = list({_said(value): value for value in values}.values())
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in unique):
        low, high = min(unique), max(unique)
        return {_said(value): (value - low) / (high - low) if high > low else 0.5 for value in unique}
    last = max(1, len(unique) - 1)
    return {_said(value): at / last for at, value in enumerate(unique)}


def _labels(places: dict[str, float]) -> dict[str, float]:
    """All values of an axis that has few, else its ends."""
    if len(places) <= _LABELLED:
        return places
    ends = sorted(places, key=lambda said: places[said])
    return {said: places[said] for said in (ends[0], ends[-1])}


def _said(value: Any) -> str:
    if isinstance(value, float):
        short = significant(value, 3)
        return short.rstrip("0").rstrip(".") if "." in short else short
    return visible(plain_value(value))
