"""What questions to the catalog are answered with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalrun.errors import Problem


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One sweep, as a list shows it. Times are ISO 8601 in UTC; `runs` counts those with results.

    `samples` and `failed` are sums over the runs; `note` is the latest one.
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
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None
    archived: bool = False


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run that a query found. `metrics` holds those that the query names, by name and slice
    ("exact_match", "exact_match[dialect=aave]"), each with value, n, se and interval; None where it has none.
    """

    sweep: str
    run: str
    project: str
    name: str
    model: str
    prompt: str
    dataset: str
    status: str
    started_at: str
    samples: int
    failed: int
    cost_usd: float | None
    wall_s: float | None
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    metrics: Mapping[str, Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Found:
    """The runs that a query found: `total` in all, of which `rows` are shown."""

    total: int
    rows: tuple[RunRow, ...]


@dataclass(frozen=True, slots=True)
class Reindexed:
    """How many sweeps the catalog holds now, and which folders could not be read."""

    sweeps: int
    problems: tuple[Problem, ...] = ()
