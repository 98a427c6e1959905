"""Progress while a sweep runs: redrawn in place in a terminal, plain lines elsewhere, or nothing.

Everything goes to standard error, so that standard output holds results only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from evalrun.frozen import frozen
from evalrun.reports.numbers import MINUS, count, fixed, plural, seconds, significant
from evalrun.reports.visible import terminal

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult


Clock: TypeAlias = Callable[[], float]
Phase: TypeAlias = Literal["starting", "running", "done"]


@frozen
class News:
    """How far one run is: samples `done`, the mean `score` of those that are scored, samples that failed, and
    samples and output tokens a second (None: not known). A run that is "starting" waits for its engine.
    `cause` is why most of the failed samples failed, in the words of the last of them."""

    run: str
    phase: Phase
    done: int = 0
    score: float | None = None
    errors: int = 0
    rate: float | None = None
    tokens_per_s: float | None = None
    cause: str = ""


class Progress(Protocol):
    """Shows how far a sweep is. `shows`: somebody may have seen scores."""

    @property
    def shows(self) -> bool: ...

    def start(self, cells: list[tuple[str, int]]) -> None:
        """The plan: run ids and their numbers of samples."""

    def update(self, news: News) -> None:
        """How far one run is."""

    def message(self, text: str) -> None:
        """Say something beside the progress."""

    def stop(self) -> None:
        """The sweep ended, one way or another."""


@dataclass(slots=True)
class CellState:
    """One run. `first` is how much was done when it was first heard of (an earlier attempt at the sweep)."""

    total: int
    done: int = 0
    first: int | None = None
    score: float | None = None
    errors: int = 0
    rate: float | None = None
    tokens_per_s: float | None = None
    phase: str = "waiting"
    cause: str = ""

    @property
    def left_s(self) -> float | None:
        """Seconds until it is done at its own rate."""
        return (self.total - self.done) / self.rate if self.rate else None


class Tally:
    """Where all runs stand, and when the whole will be done."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.cells: dict[str, CellState] = {}
        self._clock = clock
        self._started = clock()

    def start(self, cells: Sequence[tuple[str, int]]) -> None:
        """Take the plan."""
        self.cells = {run_id: CellState(total) for run_id, total in cells}
        self._started = self._clock()

    def update(self, news: News) -> CellState:
        """Take news of one run."""
        cell = self.cells.setdefault(news.run, CellState(news.done))
        if cell.first is None and news.phase != "starting":
            cell.first = news.done
        cell.done, cell.score, cell.errors = news.done, news.score, news.errors
        # The plan may have counted more than there was to ask: of failed answers no judge is asked.
        cell.total = news.done if news.phase == "done" else max(cell.total, news.done)
        cell.rate, cell.tokens_per_s, cell.phase = news.rate, news.tokens_per_s, news.phase
        cell.cause = news.cause
        return cell

    @property
    def total(self) -> int:
        """All samples of the plan."""
        return sum(cell.total for cell in self.cells.values())

    @property
    def done(self) -> int:
        """Samples that are done, those of earlier attempts too."""
        return sum(cell.done for cell in self.cells.values())

    @property
    def finished(self) -> int:
        """Runs that are done."""
        return sum(cell.phase == "done" for cell in self.cells.values())

    @property
    def errors(self) -> int:
        """Samples that failed."""
        return sum(cell.errors for cell in self.cells.values())

    @property
    def rate(self) -> float | None:
        """Samples a second since the start, without those of earlier attempts."""
        elapsed = self._clock() - self._started
        new = sum(cell.done - (cell.first or 0) for cell in self.cells.values())
        return new / elapsed if new > 0 and elapsed > 0 else None

    @property
    def left_s(self) -> float | None:
        """Seconds until all is done at the rate so far; None before anything is known."""
        rate = self.rate
        return (self.total - self.done) / rate if rate else None

    def line(self) -> str:
        """All of it on one line."""
        share = self.done / self.total if self.total else 1.0
        parts = [f"{count(self.done)} of {count(self.total)} samples ({share:.0%})"]
        if len(self.cells) > 1:
            parts.append(f"{self.finished} of {len(self.cells)} runs done")
        if self.rate:
            parts.append(f"{significant(self.rate)} samples/s")
        if self.errors:
            parts.append(plural(self.errors, "error"))
        if self.done < self.total:
            parts.append(time_left(self.left_s))
        return ", ".join(part for part in parts if part)


def time_left(value: float | None) -> str:
    """`about 2 min left`; nothing where it is not known."""
    if value is None:
        return ""
    if value < 60:
        return f"about {max(1, round(value))} s left"
    if value < 3600:
        return f"about {round(value / 60)} min left"
    return f"about {seconds(value)} left"


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

    shows = False

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

    shows = True

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
        failing = bool(news.cause) and (before is None or not before.cause)
        cell = self._tally.update(news)
        if failing:
            self._say(f"errors: {news.run}: {_short(news.cause)}")
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

    shows = True

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
        for run, cell in shown:
            if cell.cause:
                yield Text(
                    f"  {terminal(run)}: {_short(cell.cause)}", "red", no_wrap=True, overflow="ellipsis"
                )
        waiting = sum(cell.phase == "waiting" for cell in tally.cells.values())
        rest = [f"{len(active) - len(shown)} more under way"] if len(active) > len(shown) else []
        rest += [f"{waiting} waiting"] if waiting else []
        if rest:
            yield Text(", ".join(rest), style="dim")


MOST_CAUSE = 300


def _short(cause: str) -> str:
    """The cause of errors on one line."""
    return terminal(" ".join(cause.split()), MOST_CAUSE)


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
