"""The sweeps of a store as a table in the terminal; and how tables and lines are printed there.

Nothing of a report is imported: a list of ten thousand sweeps should come at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from evalrun.reports import numbers
from evalrun.reports.fit import Column, fit
from evalrun.reports.numbers import count
from evalrun.reports.visible import terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from evalrun.reports.best import BestScore
    from evalrun.tracking.glance import SweepRow

_SELDOM = ("#", "best", "metric", "failed", "stands for", "tags")
"""Columns that are left out where they would be empty."""


def print_sweeps(
    rows: Sequence[SweepRow],
    standing: Mapping[str, Sequence[str]] | None = None,
    numbers_of: Mapping[str, int] | None = None,
    scores: Mapping[str, BestScore] | None = None,
) -> None:
    """Print sweeps, the newest first, to standard output; by id: what they stand for, their numbers in the
    store, and the primary metric of their best run."""
    from rich.console import Console

    sweep_list(rows, Console(highlight=False), standing, numbers_of, scores)


def sweep_list(
    rows: Sequence[SweepRow],
    console: Console,
    standing: Mapping[str, Sequence[str]] | None = None,
    numbers_of: Mapping[str, int] | None = None,
    scores: Mapping[str, BestScore] | None = None,
) -> None:
    """Print sweeps as a table, or what to do where there are none."""
    if not rows:
        print_line(console, "No sweeps yet. Begin with: evalrun init my-suite")
        return
    best = [(scores or {}).get(row.sweep) for row in rows]
    columns: list[Column] = [
        ("name", "left", [row.name for row in rows]),
        ("#", "right", [str((numbers_of or {}).get(row.sweep, "")) for row in rows]),
        ("best", "right", [numbers.figure(each.value, unit=each.unit) if each else "" for each in best]),
        ("metric", "left", [each.metric if each else "" for each in best]),
        ("status", "left", [row.status for row in rows]),
        ("started (UTC)", "left", [_short_time(row.started_at) for row in rows]),
        ("runs", "right", [f"{row.runs}/{row.planned}" for row in rows]),
        ("samples", "right", [count(row.samples) for row in rows]),
        ("failed", "right", [count(row.failed) if row.failed else "" for row in rows]),
        ("stands for", "left", [", ".join((standing or {}).get(row.sweep, ())) for row in rows]),
        ("sweep", "left", [row.sweep for row in rows]),
        ("tags", "left", [", ".join(f"{k}={v}" for k, v in sorted(row.tags.items())) for row in rows]),
    ]
    said = [column for column in columns if column[0] not in _SELDOM or any(column[2])]
    console.print(table_of(fit(said, console.width, rigid={"started (UTC)", "status", "sweep"})))


def _short_time(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M}"
    except ValueError:
        return text


def print_line(console: Console, text: str, style: str = "") -> None:
    """Print a line of text, which may hold anything."""
    from rich.text import Text

    console.print(Text(terminal(text, 2000), style=style))


def table_of(columns: Sequence[Column]) -> Table:
    """A table of columns that fit: no cell goes over two lines."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False, header_style="dim")
    for title, side, _ in columns:
        table.add_column(Text(terminal(title)), justify="right" if side == "right" else "left", no_wrap=True)
    for row in zip(*(cells for _, _, cells in columns), strict=True):
        table.add_row(*(Text(terminal(cell)) for cell in row))
    return table
