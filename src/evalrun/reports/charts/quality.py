"""Quality against time, cost and memory: every run a point, and the runs that none beats on both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from evalrun.frozen import frozen
from evalrun.reports import numbers
from evalrun.reports.charts.theme import base, level_rule, padded, reaching, run_scale, shape_scale
from evalrun.reports.leaderboard import COST, E2E, MEMORY
from evalrun.reports.numbers import count, listing, metric_interval, seconds, size, usd
from evalrun.reports.view import Chart, RunView, Table, chance_of, lower_is_better
from evalrun.results import like_loads
from evalrun.sweep_results import Primary
from evalrun.types import MetricValue

PLOT = (430.0, 270.0)
"""Width and height in pixels of the part of a chart that points lie in, where it is half a page wide."""

LETTER, LINE, POINT = 6.3, 14.0, 7.0
"""Pixels: the width of a letter, the height of a line, half the width of a point."""

LONGEST = 30
"""Letters of a name that are shown; of a longer one its beginning and its end."""

ASIDE = (8, -9, 15)
"""Pixels from a point to its name: sideways; upwards, and downwards, to its base line."""

_Box = tuple[float, float, float, float]


@frozen
class Spot:
    """Where a name stands beside its point."""

    align: str
    dx: int
    dy: int


SPOTS = tuple(
    Spot(align, dx, dy) for dy in ASIDE[1:] for align, dx in (("left", ASIDE[0]), ("right", -ASIDE[0]))
)


def short(name: str) -> str:
    """A name of at most LONGEST letters."""
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST // 2]}\u2026{name[-(LONGEST // 2 - 1) :]}"


def placed(
    rows: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]], x: Sequence[float], y: Sequence[float]
) -> dict[Spot, list[dict[str, Any]]]:
    """The rows in `wanted` (most important first) whose names find room, by the spot they find it in.

    `rows` are all points (t, q); `x` and `y` the ends of the axes. The first name always gets a place.
    """
    points = [_pixels(row, x, y) for row in rows]
    taken: list[_Box] = [(px - POINT, py - POINT, px + POINT, py + POINT) for px, py in points]
    found: dict[Spot, list[dict[str, Any]]] = {}
    for row in wanted:
        at = _pixels(row, x, y)
        boxes = [(spot, _box(at, spot, len(short(row["run"])))) for spot in SPOTS]
        inside = [(spot, box) for spot, box in boxes if box[0] >= 0 and box[2] <= PLOT[0]]
        free = [(spot, box) for spot, box in inside if not any(_meet(box, other) for other in taken)]
        if not free and found:
            continue
        spot, box = (free or inside or boxes)[0]
        taken.append(box)
        found.setdefault(spot, []).append({**row, "name": short(row["run"])})
    return found


def _pixels(row: dict[str, Any], x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """From the left and from the top."""
    return (
        PLOT[0] * (row["t"] - x[0]) / (x[1] - x[0]),
        PLOT[1] * (1 - (row["q"] - y[0]) / (y[1] - y[0])),
    )


def _box(at: tuple[float, float], spot: Spot, letters: int) -> _Box:
    width = letters * LETTER
    left = at[0] + spot.dx - (width if spot.align == "right" else 0)
    base = at[1] + spot.dy + LINE / 3
    return (left, base - LINE, left + width, base)


def _meet(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


LABELLED = 10
"""Up to so many runs all points are named where there is room; beyond, those that none beats on both."""

LISTED = 5


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


@frozen
class Price:
    """What quality is compared with: a metric of which less is better, and how it is said and written."""

    key: str
    metric: str
    title: str
    noun: str
    axis: str
    factor: float
    write: Callable[[float | None], str]


PRICES = (
    Price("time", E2E, "Quality against time", "time", "median time per answer, end to end (s)", 1, seconds),
    Price("cost", COST, "Quality against cost", "cost", "cost of the run (USD)", 1, usd),
    Price("memory", MEMORY, "Quality against memory", "memory", "peak memory of the engine (MB)", 1e-6, size),
)
SPREAD = 1.02
"""Prices that all lie within this ratio are one price: there is nothing to choose by."""

Point = tuple[RunView, MetricValue, MetricValue]


def quality_charts(
    at: int, dataset: str, runs: Sequence[RunView], primary: Primary | None, *, named: bool
) -> list[Chart]:
    """Quality against time, cost and memory, as far as two runs have the figures and differ in them."""
    level = chance.level if (chance := chance_of(runs, primary)) else None
    found = []
    for price in PRICES:
        points = _points(runs, price)
        if price.metric == E2E and not like_loads([run.results.load_words for run, _, _ in points]):
            continue  # times under unlike loads say nothing of which run is quicker
        prices = [own.value or 0.0 for _, _, own in points]
        if len(points) >= 2 and max(prices) > SPREAD * min(prices):
            title = f"{price.title}{f', {dataset}' if named else ''}"
            found.append(_chart(f"quality-{price.key}-{at}", title, points, price, level))
    return found


def _points(runs: Sequence[RunView], price: Price) -> list[Point]:
    placed = [(run, run.primary, run.metric(price.metric)) for run in runs]
    return [
        (run, quality, own)
        for run, quality, own in placed
        if quality is not None and quality.value is not None and own is not None and own.value
    ]


def _chart(key: str, title: str, points: Sequence[Point], price: Price, chance: float | None) -> Chart:
    runs = [run for run, _, _ in points]
    lower = lower_is_better(runs)
    coordinates = [(own.value or 0.0, quality.value or 0.0) for _, quality, own in points]
    front = frontier(coordinates, lower=lower)
    rows = [_row(point, price) for point in points]
    metric = points[0][1].name
    names = [runs[at].label for at in front]
    told = len(names) <= LISTED and max(map(len, names)) <= LONGEST
    better = "lower" if lower else "higher"
    return Chart(
        key=key,
        title=title,
        alt=f"Scatter plot of {metric} ({better} is better) against {price.axis} for "
        f"{len(points)} runs. No run beats {listing(names)} on both.",
        spec=_spec(runs, rows, [rows[at] for at in front], Axes(metric, price, chance)),
        table=_table(points, set(front), metric, price),
        note=f"The dotted line joins the runs that no other run beats on both, in quality and in {price.noun}"
        f"{f': {listing(names)}' if told else ''}. Bars are 95 % intervals.",
    )


def _row(point: Point, price: Price) -> dict[str, Any]:
    run, quality, own = point

    def scaled(value: float | None) -> float | None:
        return None if value is None else value * price.factor

    return {
        "run": run.label, "family": run.family, "q": quality.value, "ql": quality.ci_low,
        "qh": quality.ci_high,
        "t": scaled(own.value), "tl": scaled(own.ci_low), "th": scaled(own.ci_high), "n": quality.n,
        "score": f"{numbers.metric(quality)} {metric_interval(quality)}".strip(),
        "price": f"{price.write(own.value)} {metric_interval(own)}".strip(), "standing": run.standing,
    }  # fmt: skip


@frozen
class Axes:
    """The chart's two axes: the metric upwards, with its level of chance, the price to the right."""

    metric: str
    price: Price
    chance: float | None = None


def _spec(
    runs: Sequence[RunView], rows: Sequence[dict[str, Any]], front: Sequence[dict[str, Any]], axes: Axes
) -> dict[str, Any]:
    families = list(dict.fromkeys(run.family for run in sorted(runs, key=lambda run: run.colour)))
    many = len(rows) > LABELLED
    x: dict[str, Any] = {
        "field": "t", "type": "quantitative", "title": axes.price.axis,
        "scale": {"domain": padded([v for r in rows for v in (r["t"], r["tl"], r["th"]) if v is not None]),
                  "nice": False},
        "axis": {"grid": False, "tickCount": 6},
    }  # fmt: skip
    heights = [v for r in rows for v in (r["q"], r["ql"], r["qh"]) if v is not None]
    y: dict[str, Any] = {
        "field": "q", "type": "quantitative", "title": axes.metric,
        "scale": {"domain": padded(reaching(heights, axes.chance)), "nice": False, "zero": False},
        "axis": {"tickCount": 6, "format": ".2~f"},
    }  # fmt: skip
    colour: dict[str, Any] = {
        "field": "family", "type": "nominal", "scale": run_scale(runs, families),
        "legend": {"symbolOpacity": 1} if 1 < len(families) < len(rows) else None,
    }  # fmt: skip
    tooltip = [
        {"field": "run", "title": "run"}, {"field": "score", "title": axes.metric},
        {"field": "price", "title": axes.price.axis}, {"field": "n", "title": "n"},
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
    wanted = sorted(front if many else rows, key=lambda row: row["standing"] != "best")
    return base(
        340,
        data={"values": list(rows)},
        layer=[*level_rule("y", y, axes.chance), *layers, *_names(rows, wanted, x, y)],
    )


def _names(
    rows: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]], x: dict[str, Any], y: dict[str, Any]
) -> list[dict[str, Any]]:
    """The names of the points in `wanted`, as far as there is room."""
    return [
        {
            "data": {"values": at_spot},
            "mark": {"type": "text", "align": spot.align, "dx": spot.dx, "dy": spot.dy, "fontSize": 12},
            "encoding": {"x": x, "y": y, "text": {"field": "name"}},
        }
        for spot, at_spot in placed(rows, wanted, x["scale"]["domain"], y["scale"]["domain"]).items()
    ]


def _table(points: Sequence[Point], front: set[int], metric: str, price: Price) -> Table:
    rows = []
    for at, (run, quality, own) in enumerate(points):
        rows.append(
            (run.label, numbers.metric(quality), metric_interval(quality), price.write(own.value),
             metric_interval(own), count(quality.n), "yes" if at in front else "no")
        )  # fmt: skip
    columns = ("run", metric, "95 % interval", price.noun, "95 % interval", "n", "unbeaten on both")
    return Table(f"Quality and {price.noun} of each run", columns, rows, frozenset({1, 3, 5}))
