"""One file for each form that trainings are found in; `evalrun.training.importing` chooses among them.

A reader gives a `Reading` and changes nothing: what it reads may be hostile, torn, or still being written.
Nothing here unpickles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evalrun.training.series import Points
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
