"""`evalrun SUITE --on ray`: a sweep whose runs are asked on a cluster."""

from __future__ import annotations

from pathlib import Path

from evalrun.cluster.asking import OnOptions
from evalrun.cluster.conduct import open_conduct
from evalrun.cluster.plan import SHARD
from evalrun.reports.progress import Progress
from evalrun.suite.load import load_suite
from evalrun.sweep.main import Outcome, run_sweep
from evalrun.sweep.options import SweepOptions


def run_on(
    on: str, at: str | None, shard: int | None, suite: Path, options: SweepOptions, display: Progress
) -> Outcome:
    """Run a suite on the cluster that `on` names. Raises UserError as `run_sweep` does, and where there is no
    cluster, or `at` (None: the folder `segments` of the store) is no place to write."""
    loaded = load_suite(suite, options.overrides)
    asked = OnOptions(on, at or str(options.store / "segments"), shard or SHARD, options.fresh)
    conduct = open_conduct(loaded, options.overrides, asked)
    try:
        outcome = run_sweep(loaded, options, display, conduct)
    finally:
        conduct.close()
    if conduct.refused is not None:
        raise conduct.refused
    return outcome
