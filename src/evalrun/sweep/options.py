"""How a sweep is to be run, as one object."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from evalrun.suite.overrides import Overrides


def default_store() -> Path:
    """`EVALRUN_STORE`, else `.evalrun/` in the current folder."""
    return Path(os.environ.get("EVALRUN_STORE") or ".evalrun")


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """What the command line or `evalrun.run` asks for, besides the suite itself.

    `report` is where the HTML goes: None for `reports/<name>-<sweep>.html`; `write_report=False` for none.
    `fresh` starts a new sweep even where an unfinished one could go on. `baseline` is what gates compare
    with, a baseline's name or a sweep (None: the project's `main`); `inconclusive` says whether a gate that
    the samples cannot decide fails.
    """

    overrides: Overrides = field(default_factory=Overrides)
    store: Path = field(default_factory=default_store)
    report: Path | None = None
    write_report: bool = True
    use_cache: bool = True
    fresh: bool = False
    argv: tuple[str, ...] = ()
    baseline: str | None = None
    inconclusive: Literal["warn", "fail"] = "warn"
