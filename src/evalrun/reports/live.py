"""Progress while a sweep runs: redrawn in place in a terminal, plain lines elsewhere, or nothing.

Everything goes to standard error, so that standard output holds results only.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from evalrun.reports.numbers import MINUS, count, fixed, plural, significant
from evalrun.reports.progress import CellState, Clock, News, Progress, Tally, time_left
from evalrun.reports.visible import terminal

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

LINE_INTERVAL_S = 5.0
"""Plain lines come no more often."""

REDRAWS_PER_S = 4
MOST_CELLS = 8
"""So many runs under way are shown, however many there are."""


def make_progress(*, quiet: bool = False, console: Console | None = None) -> Progress:
    """The display that suits standard error."""
    if quiet:
        return Silent()
    from rich.console import Console

    console = console or Console(stderr=True, highlight=False)
    return LiveProgress(console) if console.is_terminal else LineProgress(console)


class Silent:
    """Shows nothing but messages that it swallows too."""

    def start(self, cells: list[tuple[str, int]]) -> None:
        """Nothing."""

    def update(self, news: News) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


class LineProgress:
    """A line every few seconds and one for each run that is done: for logs."""

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._tally = Tally(clock)
        self._last = float("-inf")

    def start(self, cells: list[tuple[str, int]]) -> None:
        """Say what is to be done."""
        self._tally.start(cells)
        self._say(f"{plural(len(cells), 'run')}, {plural(self._tally.total, 'sample')}")
        self._last = self._clock()

    def update(self, news: News) -> None:
        """Say it when the last line is old enough, or a run is done."""
        before = self._tally.cells.get(news.run)
        ended = news.phase == "done" and (before is None or before.phase != "done")
        cell = self._tally.update(news)
        if ended:
            score = "" if cell.score is None else f", score {fixed(cell.score)}"
            lost = f", {plural(cell.errors, 'error')}" if cell.errors else ""
            self._say(f"done: {news.run}, {plural(cell.done, 'sample')}{score}{lost}")
        elif news.phase == "starting":
            self._say(f"starting: {news.run}")
        if self._clock() - self._last >= LINE_INTERVAL_S and news.phase == "running":
            self._last = self._clock()
            self._say(self._tally.line())

    def message(self, text: str) -> None:
        """Print it."""
        for line in text.splitlines():
            self._say(line)

    def stop(self) -> None:
        """Say where it ended, if it ended early."""
        if self._tally.cells and self._tally.done < self._tally.total:
            self._say(f"stopped: {self._tally.line()}")

    def _say(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(terminal(text, 1000)), soft_wrap=True)


class LiveProgress:
    """One line for the whole sweep and one for each run under way, redrawn in place."""

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        from rich.live import Live

        self._console = console
        self._tally = Tally(clock)
        self._live = Live(
            self, console=console, refresh_per_second=REDRAWS_PER_S, transient=True, redirect_stdout=False,
            redirect_stderr=False,
        )  # fmt: skip

    def start(self, cells: list[tuple[str, int]]) -> None:
        """Take the plan and begin to draw."""
        self._tally.start(cells)
        self._live.start()

    def update(self, news: News) -> None:
        """Take news; the next redraw shows them."""
        self._tally.update(news)

    def message(self, text: str) -> None:
        """Print it above the display."""
        from rich.text import Text

        for line in text.splitlines():
            self._console.print(Text(terminal(line, 1000)))

    def stop(self) -> None:
        """Take the display away."""
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw: a bar for the whole, then the runs under way."""
        from rich.text import Text

        tally, width = self._tally, options.max_width
        yield Text(tally.line(), style="bold", overflow="ellipsis", no_wrap=True)
        filled = round(width * tally.done / tally.total) if tally.total else width
        yield Text.assemble(("\u2501" * filled, "cyan"), ("\u2501" * (width - filled), "bright_black"))
        active = [(run, cell) for run, cell in tally.cells.items() if cell.phase in ("running", "starting")]
        shown = active[: min(MOST_CELLS, max(1, console.height - 6))]
        for line in _aligned([_cells(run, cell) for run, cell in shown], width):
            yield Text(line, no_wrap=True, overflow="ellipsis")
        waiting = sum(cell.phase == "waiting" for cell in tally.cells.values())
        rest = [f"{len(active) - len(shown)} more under way"] if len(active) > len(shown) else []
        rest += [f"{waiting} waiting"] if waiting else []
        if rest:
            yield Text(", ".join(rest), style="dim")


def _aligned(rows: Sequence[tuple[str, ...]], width: int) -> list[str]:
    """Rows as lines of `width`: figures right-aligned at full length, names cut to what is left for them."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][1:]
    room = max(8, width - sum(each + 2 for each in widths if each))
    lines = []
    for name, *figures in rows:
        # Cut in the middle: what tells the runs of a sweep apart stands as often at the end.
        head, tail = (room - 1) // 2, room - 1 - (room - 1) // 2
        shown = name if len(name) <= room else f"{name[:head]}\u2026{name[-tail:]}"
        right = "".join(f"  {each:>{size}}" for each, size in zip(figures, widths, strict=True) if size)
        lines.append(f"{shown:<{room}}{right}")
    return lines


def _cells(run: str, cell: CellState) -> tuple[str, ...]:
    """Name, progress, score, speed and what is left of one run."""
    if cell.phase == "starting":
        return (terminal(run), "starting", "", "", "")
    score = "" if cell.score is None else f"score {fixed(cell.score).replace(MINUS, '-')}"
    errors = f" {plural(cell.errors, 'error')}" if cell.errors else ""
    speed = f"{significant(cell.rate)}/s" if cell.rate else ""
    if cell.tokens_per_s:
        speed += f" {count(cell.tokens_per_s)} tok/s"
    left = time_left(cell.left_s).removeprefix("about ").removesuffix(" left")
    return (terminal(run), f"{count(cell.done)}/{count(cell.total)}{errors}", score, speed, left)
