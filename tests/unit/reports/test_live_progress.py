"""Progress while a sweep runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from evalrun.reports.progress import (
    LINE_INTERVAL_S,
    LineProgress,
    LiveProgress,
    News,
    Silent,
    Tally,
    make_progress,
    time_left,
)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def plain() -> Console:
    return Console(file=io.StringIO(), width=80, highlight=False)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_time_left_counts_only_what_this_attempt_did() -> None:
    clock = Clock()
    tally = Tally(clock)
    tally.start([("a", 100), ("b", 100)])
    assert tally.left_s is None
    tally.update(News("a", "running", 50, None, 0, None, None))
    assert tally.rate is None, "those fifty were done by an earlier attempt"
    clock.now += 10
    tally.update(News("a", "running", 70, 0.5, 1, 2.0, None))
    assert tally.rate == pytest.approx(2.0)
    assert tally.left_s == pytest.approx(65)
    line = tally.line()
    assert "70 of 200 samples (35%)" in line and "1 error" in line and "about 1 min left" in line


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.2, "about 1 s left"),
        (59, "about 59 s left"),
        (150, "about 2 min left"),
        (7300, "about 2 h 01 min left"),
    ],
)
def test_time_left_in_words(value: float | None, text: str) -> None:
    assert time_left(value) == text


def test_plain_lines_come_seldom() -> None:
    clock, console = Clock(), plain()
    progress = LineProgress(console, clock)
    progress.start([("a", 1000)])
    for done in range(1, 501):
        clock.now += 0.05
        progress.update(News("a", "running", done, 0.5, 0, 20.0, None))
    lines = text_of(console).splitlines()
    assert len(lines) <= 1 + 500 * 0.05 / LINE_INTERVAL_S
    assert len(lines) >= 4
    assert "samples/s" in lines[-1] and "left" in lines[-1]
    progress.update(News("a", "done", 1000, 0.61, 2, None, None))
    progress.update(News("a", "done", 1000, 0.61, 2, None, None))
    progress.stop()
    assert text_of(console).splitlines()[-1] == "done: a, 1,000 samples, score 0.61, 2 errors"


def test_messages_cannot_bring_escapes() -> None:
    console = plain()
    LineProgress(console, Clock()).message("one\ntwo \x1b[31mred [bold]x")
    assert text_of(console) == "one\ntwo red [bold]x\n"


def test_thirty_cells_stay_readable() -> None:
    clock = Clock()
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True, highlight=False)
    progress = LiveProgress(console, clock)
    cells = [(f"model-{at}-prompt-with-a-long-name-dataset-temperature=0.7", 100) for at in range(30)]
    progress._tally.start(cells)
    for at, (run, _) in enumerate(cells[:14]):
        progress.update(News(run, "running" if at else "starting", at, 0.5, at % 2, 3.0, 91.0))
    clock.now += 3
    drawn = Console(file=io.StringIO(), width=80, height=24, highlight=False)
    drawn.print(progress)
    lines = text_of(drawn).splitlines()
    assert len(lines) <= 12
    assert max(map(len, lines)) <= 80
    assert "6 more under way, 16 waiting" in lines[-1]
    assert "starting" in text_of(drawn) and "score 0.50" in text_of(drawn)


def test_a_live_display_starts_and_stops() -> None:
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)
    progress = LiveProgress(console)
    progress.start([("a", 2)])
    progress.update(News("a", "running", 1, None, 0, None, None))
    progress.message("a word beside it")
    progress.stop()
    assert "a word beside it" in text_of(console)


def test_runs_whose_names_differ_at_the_end_are_told_apart() -> None:
    progress = LiveProgress(Console(file=io.StringIO(), width=80))
    cells = [(f"{'a-model-with-a-long-name-' * 4}prompt_{at}-rows", 100) for at in range(3)]
    progress._tally.start(cells)
    for run, _ in cells:
        progress.update(News(run, "running", 5, 0.5, 0, 3.0, 91.0))
    drawn = Console(file=io.StringIO(), width=80, height=24, highlight=False)
    drawn.print(progress)
    assert all(f"prompt_{at}-rows" in text_of(drawn) for at in range(3))


def test_the_display_suits_the_place() -> None:
    assert isinstance(make_progress(quiet=True), Silent)
    assert isinstance(make_progress(console=plain()), LineProgress)
    assert isinstance(make_progress(console=Console(file=io.StringIO(), force_terminal=True)), LiveProgress)
