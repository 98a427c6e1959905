"""What questions to the catalog are answered with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evalrun.errors import Problem


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One sweep, as a list shows it. Times are ISO 8601 in UTC; `runs` counts those with results.

    `samples` and `failed` are sums over the runs.
    """

    sweep: str
    project: str
    name: str
    status: str
    started_at: str
    finished_at: str | None
    exit_code: int | None
    planned: int
    runs: int
    samples: int
    failed: int
    user: str | None
    git_commit: str | None
    folder: Path


@dataclass(frozen=True, slots=True)
class Reindexed:
    """How many sweeps the catalog holds now, and which folders could not be read."""

    sweeps: int
    problems: tuple[Problem, ...] = ()
