"""One file for each form that trainings are found in; `evalrun.training.importing` chooses among them.

A reader gives a `Reading` and changes nothing: what it reads may be hostile, torn, or still being written.
Nothing here unpickles.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from evalrun.training.series import MAX_STEP, Points
from evalrun.types import JSON


@dataclass(slots=True)
class Reading:
    """What a reader found. `files` are those that it read, `notes` what somebody must know of it: one each
    for what was odd."""

    framework: str
    points: Points = field(default_factory=Points)
    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    hyperparameters: dict[str, JSON] = field(default_factory=dict)
    name: str = ""
    steps: int = 0
    planned_steps: int | None = None
    data: Mapping[str, JSON] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Say a thing once."""
        if text not in self.notes:
            self.notes.append(text)


def number(value: object) -> float | None:
    """A logged value as a number; None for what is none. NaN and infinity may be written as texts."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return None
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return None


_SECONDS, _PER_SECOND = 1e11, 1e3
"""A Unix time above the first (the year 5138) counts parts of a second: milli-, micro- or nanoseconds."""


def unix_s(value: object) -> float:
    """A logged time as Unix seconds: a number of seconds or of parts of them, or a date and time by ISO 8601;
    NaN for any other."""
    if (got := number(value)) is not None:
        while math.isfinite(got) and got >= _SECONDS:
            got /= _PER_SECOND
        return got
    with contextlib.suppress(ValueError, OverflowError):
        return datetime.fromisoformat(str(value)).timestamp()
    return math.nan


def whole_step(value: object) -> int | None:
    """A logged step; None where it is no whole number in range. JSON writers may make it 10.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MAX_STEP else None
