"""Where the names of points stand in a scatter plot, running into neither one another nor the points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PLOT = (430.0, 270.0)
"""Width and height in pixels of the part of a chart that points lie in, where it is half a page wide."""

LETTER, LINE, POINT = 6.3, 14.0, 7.0
"""Pixels: the width of a letter, the height of a line, half the width of a point."""

LONGEST = 30
"""Letters of a name that are shown; of a longer one its beginning and its end."""

ASIDE = (8, -9, 15)
"""Pixels from a point to its name: sideways; upwards, and downwards, to its base line."""

_Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
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
