"""Regular expressions that cannot stop a run.

Python's `re` backtracks, and a pattern such as (a+)+b takes time exponential in the length of the text. A
pattern of k repeats, none of them of a group, takes at most n to the k + 1 steps on n characters; where these
are few it is searched directly. Anything else runs under a time limit of one second, which the main thread
keeps by an interval timer (`re` looks at signals while it searches). Where there are no such timers (other
threads, Windows) only the length of the text is bounded.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from pydantic import AfterValidator

MAX_CHARACTERS = 100_000
"""Texts are cut to this many characters before they are searched."""
MAX_CHARACTERS_UNTIMED = 10_000
"""The same where the time cannot be limited."""
LIMIT_S = 1.0

_DIRECT_STEPS = 1e8
"""About as many steps as the search takes in a second at worst."""
_REPEAT = re.compile(r"(?<!\()[*+?{][?+]?")
_REPEATED_GROUP = re.compile(r"\)[*+?{]")


class PatternTimeout(Exception):
    """A search that took longer than LIMIT_S."""

    def __init__(self) -> None:
        super().__init__(f"the pattern took longer than {LIMIT_S:g} s on this text")


class OutOfTime(BaseException):
    """What took longer than `time_limit` allows. No Exception: libraries that catch those would go on."""


class GuardedPattern:
    """A compiled pattern whose searches end in bounded time. Raises PatternTimeout where they would not."""

    __slots__ = ("_direct_characters", "_search", "regex")

    def __init__(self, pattern: str, flags: int = 0) -> None:
        self.regex = re.compile(pattern, flags)
        self._search = self.regex.search
        repeats = len(_REPEAT.findall(pattern))
        safe = min(MAX_CHARACTERS_UNTIMED, int(_DIRECT_STEPS ** (1 / (repeats + 1))))
        self._direct_characters = 0 if _REPEATED_GROUP.search(pattern) else safe

    def first(self, text: str) -> re.Match[str] | None:
        """The first match in the text, or None."""
        if len(text) <= self._direct_characters:
            return self._search(text)
        with _time_limit(LIMIT_S) as timed:
            return self._search(_cut(text, timed=timed))

    def last(self, text: str) -> re.Match[str] | None:
        """The last of the matches that do not overlap, found from the left, or None."""
        if len(text) <= self._direct_characters:
            return _last(self.regex, text)
        with _time_limit(LIMIT_S) as timed:
            return _last(self.regex, _cut(text, timed=timed))

    def whole(self, text: str) -> re.Match[str] | None:
        """The match of the whole text, or None."""
        with _time_limit(LIMIT_S) as timed:
            return self.regex.fullmatch(_cut(text, timed=timed))


def _last(regex: re.Pattern[str], text: str) -> re.Match[str] | None:
    last = None
    for match in regex.finditer(text):
        last = match
    return last


def _cut(text: str, *, timed: bool) -> str:
    return text[: MAX_CHARACTERS if timed else MAX_CHARACTERS_UNTIMED]


def _alarm(signum: int, frame: Any) -> None:
    raise PatternTimeout


def _time_limit(seconds: float) -> AbstractContextManager[bool]:
    """Raise PatternTimeout in the body after so many seconds. Gives whether a limit could be set."""
    return _alarm_after(seconds, _alarm)


@contextmanager
def _alarm_after(seconds: float, raising: Callable[[int, Any], None], every: float = 0.0) -> Iterator[bool]:
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield False
        return
    handler = signal.signal(signal.SIGALRM, raising)
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, seconds, every)
    try:
        yield True
    finally:
        signal.setitimer(signal.ITIMER_REAL, remaining, interval)
        signal.signal(signal.SIGALRM, handler if handler is not None else signal.SIG_DFL)


def _again(signum: int, frame: Any) -> None:
    raise OutOfTime


@contextmanager
def time_limit(seconds: float) -> Iterator[bool]:
    """Raise OutOfTime in the body after so many seconds, and again until it ends, in the main thread.

    Yields whether a limit could be set: not in other threads, nor on Windows.
    """
    with _alarm_after(seconds, _again, every=0.2) as timed:
        yield timed


def _check_pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


check_pattern = AfterValidator(_check_pattern)
"""For pydantic fields that hold a pattern."""
