"""How a sweep is to be run, as one object."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Literal

from evalrun.frozen import frozen
from evalrun.paths import default_store as default_store
from evalrun.suite.overrides import Overrides
from evalrun.sweep.resume import DEFAULT_WITHIN


@frozen
class SweepOptions:
    """What the command line or `evalrun.run` asks for, besides the suite itself.

    `report` is where the HTML goes: None for `reports/<name>-<sweep>.html`; `write_report=False` for none.
    `fresh` starts a new sweep even where an unfinished one could go on. `baseline` is what gates compare
    with, a baseline's name or a sweep (None: the project's `main`); `inconclusive` says whether a gate that
    the samples cannot decide fails (None: as the suite says). `reuse` takes over runs of the same cell from
    earlier sweeps; `use_lock=False` passes over `evalrun.lock`. An unfinished sweep goes on if it was worked
    on `resume_within` (`90m`, `12h`, `2d`). `into` is the folder of a sweep that runs are added to.
    `metrics` is an address at which Prometheus finds the sweep, `metrics_file` a textfile for it.
    """

    overrides: Overrides = field(default_factory=Overrides)
    store: Path = field(default_factory=default_store)
    report: Path | None = None
    write_report: bool = True
    use_cache: bool = True
    fresh: bool = False
    argv: tuple[str, ...] = ()
    baseline: str | None = None
    inconclusive: Literal["warn", "fail"] | None = None
    reuse: bool = False
    use_lock: bool = True
    resume_within: str = DEFAULT_WITHIN
    into: Path | None = None
    metrics: str | None = None
    metrics_file: Path | None = None
