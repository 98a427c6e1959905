"""Tables that fit a terminal: no cell is broken over lines, words are cut in the middle before columns go."""

from __future__ import annotations

from collections.abc import Collection, Sequence

Column = tuple[str, str, list[str]]
"""Title, "left" or "right", and the cells."""

FIRST, OTHER, LEAST, TITLE = 24, 16, 6, 14
"""The first column is cut to so many characters, other texts to so many, before columns are left out; after
that all texts to so few. A column of figures has a title of so many."""
GAP = 2


def cut(text: str, room: int) -> str:
    """A text of at most `room` characters, cut in the middle: what tells names apart stands at either end."""
    if len(text) <= room:
        return text
    head = (room - 1) // 2
    return f"{text[:head]}…{text[len(text) - (room - 1 - head) :]}" if room > 1 else text[:room]


def fit(
    columns: Sequence[Column], width: int, *, least: int = 3, rigid: Collection[str] = ()
) -> list[Column]:
    """The columns that fit beside one another in `width`, their texts cut. The last go first, `least` stay.

    Columns to the right hold figures, which are not cut, nor are `rigid` columns (by title).
    """
    columns = [_short_title(column) for column in columns]
    for kept in range(len(columns), min(least, len(columns)) - 1, -1):
        if room := _shrunk(columns[:kept], width, (FIRST, OTHER), rigid):
            return [_cut(column, size) for column, size in zip(columns, room, strict=False)]
    few = columns[:least]
    room = _shrunk(few, width, (LEAST, LEAST), rigid)
    room = room or [LEAST if _may(column, rigid) else _natural(column) for column in few]
    return [_cut(column, size) for column, size in zip(few, room, strict=True)]


def _short_title(column: Column) -> Column:
    """Figures with a long name do not take its room."""
    title, side, cells = column
    return column if side == "left" else (cut(title, max(TITLE, *map(len, cells), 0)), side, cells)


def lines(columns: Sequence[Column]) -> list[str]:
    """The table as lines of text, its head first."""
    sizes = [_natural(column) for column in columns]
    rows = [[title for title, _, _ in columns]]
    rows += map(list, zip(*(cells for _, _, cells in columns), strict=True))
    sides = [side for _, side, _ in columns]
    return [
        (" " * GAP)
        .join(
            cell.rjust(size) if side == "right" else cell.ljust(size)
            for cell, size, side in zip(row, sizes, sides, strict=True)
        )
        .rstrip()
        for row in rows
    ]


def _natural(column: Column) -> int:
    title, _, cells = column
    return max(map(len, (title, *cells)))


def _may(column: Column, rigid: Collection[str]) -> bool:
    return column[1] == "left" and column[0] not in rigid


def _shrunk(
    columns: Sequence[Column], width: int, floors: tuple[int, int], rigid: Collection[str]
) -> list[int]:
    """Widths that fit, the widest texts cut first and none below its floor; empty where they cannot."""
    sizes = [_natural(column) for column in columns]
    least = [
        min(size, floors[0] if at == 0 else floors[1]) if _may(column, rigid) else size
        for at, (column, size) in enumerate(zip(columns, sizes, strict=True))
    ]
    for _ in range(sum(sizes) + GAP * (len(sizes) - 1) - width):
        at = max(range(len(sizes)), key=lambda i: (sizes[i] > least[i], sizes[i]))
        if sizes[at] <= least[at]:
            return []
        sizes[at] -= 1
    return sizes


def _cut(column: Column, size: int) -> Column:
    title, side, cells = column
    return cut(title, size), side, [cut(cell, size) for cell in cells]
