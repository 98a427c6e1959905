"""Quality against latency: every run a point with its intervals, and the runs that none beats on both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalrun.reports.charts.theme import base, padded, run_scale, shape_scale
from evalrun.reports.numbers import count, fixed, listing, seconds
from evalrun.reports.standings import E2E, lower_is_better
from evalrun.reports.view import Chart, Figure, RunView, Table

LABELLED = 14
"""Up to so many runs all points carry their names; beyond, those that no other run beats on both."""

LISTED = 5
CROWDED = (0.24, 0.06)
"""Of two names whose points are closer than this (shares of the axes) the second is left out."""


def frontier(points: Sequence[tuple[float, float]], *, lower: bool) -> list[int]:
    """Indices of the points (cost, quality) that no other beats on both; by cost, cheapest first.

    `lower` says that a lower quality figure is better.
    """
    sign = -1 if lower else 1
    order = sorted(range(len(points)), key=lambda at: (points[at][0], -sign * points[at][1]))
    found: list[int] = []
    best = float("-inf")
    for at in order:
        if sign * points[at][1] > best:
            best = sign * points[at][1]
            found.append(at)
    return found


def quality_latency(key: str, dataset: str, runs: Sequence[RunView], *, named: bool) -> Chart | None:
    """The chart for the runs of one dataset; None unless two runs have both figures."""
    placed = [(run, run.primary, run.figure(E2E)) for run in runs]
    points = [
        (run, quality, speed)
        for run, quality, speed in placed
        if quality is not None and quality.value is not None and speed is not None and speed.value
    ]
    if len(points) < 2:
        return None
    lower = lower_is_better(runs)
    coordinates = [(speed.value or 0.0, quality.value or 0.0) for _, quality, speed in points]
    front = frontier(coordinates, lower=lower)
    rows = [_row(run, quality, speed) for run, quality, speed in points]
    metric = points[0][1].name
    names = [points[at][0].label for at in front]
    better = "lower" if lower else "higher"
    return Chart(
        key=key,
        title=f"Quality against time{f', {dataset}' if named else ''}",
        alt=f"Scatter plot of {metric} ({better} is better) against median end-to-end seconds for "
        f"{len(points)} runs. No run beats {listing(names)} on both.",
        spec=_spec(runs, rows, [rows[at] for at in front], metric),
        table=_table(points, set(front), metric),
        note="The dotted line joins the runs that no other run beats on both, in quality and in time"
        f"{f': {listing(names)}' if len(names) <= LISTED else ''}. Bars are 95 % intervals.",
    )


def _row(run: RunView, quality: Figure, speed: Figure) -> dict[str, Any]:
    return {
        "run": run.label, "family": run.family, "q": quality.value, "ql": quality.low, "qh": quality.high,
        "t": speed.value, "tl": speed.low, "th": speed.high, "n": quality.n,
        "score": f"{quality.text} {quality.interval}".strip(),
        "time": f"{speed.text} {speed.interval}".strip(), "standing": run.standing,
    }  # fmt: skip


def _spec(
    runs: Sequence[RunView], rows: Sequence[dict[str, Any]], front: Sequence[dict[str, Any]], metric: str
) -> dict[str, Any]:
    families = list(dict.fromkeys(run.family for run in sorted(runs, key=lambda run: run.colour)))
    many = len(rows) > LABELLED
    x = {
        "field": "t", "type": "quantitative", "title": "median time an answer, end to end (s)",
        "scale": {"domain": padded([v for r in rows for v in (r["t"], r["tl"], r["th"]) if v is not None]),
                  "nice": False},
        "axis": {"grid": False, "tickCount": 6},
    }  # fmt: skip
    y = {
        "field": "q", "type": "quantitative", "title": metric,
        "scale": {"domain": padded([v for r in rows for v in (r["q"], r["ql"], r["qh"]) if v is not None]),
                  "nice": False, "zero": False},
        "axis": {"tickCount": 6, "format": ".2~f"},
    }  # fmt: skip
    colour: dict[str, Any] = {
        "field": "family", "type": "nominal", "scale": run_scale(runs, families),
        "legend": {"symbolOpacity": 1} if 1 < len(families) < len(rows) else None,
    }  # fmt: skip
    tooltip = [
        {"field": "run", "title": "run"}, {"field": "score", "title": metric},
        {"field": "time", "title": "median time"}, {"field": "n", "title": "n"},
    ]  # fmt: skip
    whisker = {"type": "rule", "strokeWidth": 1.5, "opacity": 0.25 if many else 0.55}
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": list(front)},
            "mark": {"type": "line", "interpolate": "step-after", "color": "var(--soft)",
                     "strokeDash": [2, 3], "strokeWidth": 1.25, "clip": True},
            "encoding": {"x": x, "y": y},
        },
        {"mark": whisker,
         "encoding": {"x": x, "y": {**y, "field": "ql"}, "y2": {"field": "qh"}, "color": colour}},
        {"mark": whisker,
         "encoding": {"x": {**x, "field": "tl"}, "x2": {"field": "th"}, "y": y, "color": colour}},
        {
            "mark": {"type": "point", "filled": True, "size": 110, "opacity": 1, "stroke": "var(--paper)",
                     "strokeWidth": 1},
            "encoding": {
                "x": x, "y": y, "color": colour, "tooltip": tooltip,
                "shape": {**colour, "scale": shape_scale(runs, families)},
            },
        },
    ]  # fmt: skip
    named = list(front if many else rows)
    above = _uncrowded(named, x, y)
    layers += _names(above, x, y, -9)
    if not many:
        layers += _names(_uncrowded([row for row in named if row not in above], x, y), x, y, 15)
    return base(340, data={"values": list(rows)}, layer=layers)


def _uncrowded(rows: Sequence[dict[str, Any]], x: dict[str, Any], y: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows whose names do not run into one another, the best ones first."""
    (left, right), (bottom, top) = x["scale"]["domain"], y["scale"]["domain"]
    kept: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: row["standing"] not in ("best", "tied")):
        if all(
            abs(row["t"] - other["t"]) > CROWDED[0] * (right - left)
            or abs(row["q"] - other["q"]) > CROWDED[1] * (top - bottom)
            for other in kept
        ):
            kept.append(row)
    return kept


def _names(
    rows: Sequence[dict[str, Any]], x: dict[str, Any], y: dict[str, Any], dy: int
) -> list[dict[str, Any]]:
    """Names beside the points: right of those in the left half, left of the others; so all stay inside."""
    low, high = x["scale"]["domain"]
    halves: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for row in rows:
        halves[row["t"] > (low + high) / 2].append(row)
    return [
        {
            "data": {"values": half},
            "mark": {"type": "text", "align": align, "dx": dx, "dy": dy, "fontSize": 12},
            "encoding": {"x": x, "y": y, "text": {"field": "run"}},
        }
        for half, align, dx in zip(halves, ("left", "right"), (8, -8), strict=True)
        if half
    ]


def _table(points: Sequence[tuple[RunView, Figure, Figure]], front: set[int], metric: str) -> Table:
    rows = []
    for at, (run, quality, speed) in enumerate(points):
        rows.append(
            (run.label, fixed(quality.value, quality.decimals), quality.interval, seconds(speed.value),
             speed.interval, count(quality.n), "yes" if at in front else "no")
        )  # fmt: skip
    columns = ("run", metric, "95 % interval", "median time", "95 % interval", "n", "unbeaten on both")
    return Table("Quality and time of each run", columns, rows, frozenset({1, 3, 5}))
