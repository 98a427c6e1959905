"""How far a sweep is: what is told of a run, who is told, and what that amounts to for the whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from evalrun.reports.numbers import count, plural, seconds, significant

Clock: TypeAlias = Callable[[], float]
Phase: TypeAlias = Literal["starting", "running", "done"]


@dataclass(frozen=True, slots=True)
class News:
    """How far one run is: samples `done`, the mean `score` of those that are scored, samples that failed, and
    samples and output tokens a second (None: not known). A run that is "starting" waits for its engine."""

    run: str
    phase: Phase
    done: int = 0
    score: float | None = None
    errors: int = 0
    rate: float | None = None
    tokens_per_s: float | None = None


class Progress(Protocol):
    """Shows how far a sweep is."""

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
