"""The primary metric of a sweep's best run, for lists: read from the two documents that have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalrun.errors import UserError
from evalrun.tracking.folder import MANIFEST, RUN
from evalrun.tracking.plain import read_document


@dataclass(frozen=True, slots=True)
class BestScore:
    """The metric that the sweep ranks its runs by, and its value in the run that comes first."""

    run: str
    metric: str
    value: float
    unit: str


def best_score(folder: Path) -> BestScore | None:
    """That of the first dataset; None where nothing was ranked, or a document cannot be read."""
    try:
        manifest = read_document(folder / MANIFEST)
        first = next(iter(manifest.get("standings") or ()), None)
        primary = (manifest.get("results") or {}).get("primary")
        if not isinstance(first, Mapping) or not isinstance(primary, Mapping):
            return None
        run = read_document(folder / "runs" / str(first["run"]) / RUN)
        return _value(str(first["run"]), str(primary["metric"]), run.get("metrics") or ())
    except (UserError, KeyError, TypeError, AttributeError):
        return None  # a list shows what can be read


def _value(run: str, name: str, metrics: Any) -> BestScore | None:
    for metric in metrics:
        if metric["name"] == name and not metric.get("slice") and isinstance(metric["value"], int | float):
            return BestScore(run, name, metric["value"], str(metric.get("unit") or ""))
    return None
