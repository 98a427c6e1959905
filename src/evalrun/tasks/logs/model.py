"""What is read of other tools: runs, samples, and values as JSON has them."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class ImportedSample:
    """One sample of a run. `scores` are the source's own values."""

    sample_id: str
    output: str | None
    scores: dict[str, float | None]
    repeat: int = 0
    row: dict[str, Any] = field(default_factory=dict)
    target: Any = None
    prompt: str | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    answer: Any = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    e2e_s: float | None = None
    cost_usd: float | None = None


@dataclass(slots=True)
class ImportedRun:
    """One model on one dataset with one prompt. `own` are the source's values with errors."""

    model: str
    prompt: str
    dataset: str
    samples: list[ImportedSample]
    own: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    lower: frozenset[str] = frozenset()
    params: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class ImportedResults:
    """What was read: runs, digests of the files, and what was not taken over."""

    kind: str
    name: str
    path: Path
    runs: list[ImportedRun]
    digests: dict[str, str]
    left_out: list[dict[str, str]] = field(default_factory=list)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def number(value: Any) -> float | None:
    """A number, also one that was written as text; None for what is none or is not finite."""
    if isinstance(value, str):
        value = {"True": 1.0, "False": 0.0}.get(value, value)
    try:
        made = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return made if math.isfinite(made) else None


def as_text(value: Any) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def score_name(text: str) -> str:
    """The name of a metric: lower case, letters and digits."""
    return re.sub(r"[^a-z0-9_]+", "_", str(text).rpartition("/")[2].lower()).strip("_") or "score"


def names_of(run: ImportedRun) -> Iterator[str]:
    """The scores of a run, whole ones before their parts."""
    seen = dict.fromkeys(name for sample in run.samples for name in sample.scores)
    yield from sorted(seen, key=lambda name: name not in run.own)
