"""From a finished journal to a finished run, and from finished runs to a finished sweep."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from evalrun.analysis.run import SystemSummary, analyse_run
from evalrun.analysis.table import SampleTable
from evalrun.datasets import Dataset
from evalrun.runner.limits import AdaptiveLimit, Limit
from evalrun.runner.monitor import LagWatch, Monitor
from evalrun.runner.runfolder import RunFolder
from evalrun.suite.plan import RunSpec
from evalrun.suite.schema import Suite
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.parquet import journal_to_parquet, system_to_parquet


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured about a run as a whole, while it ran."""

    system: SystemSummary
    timings: dict[str, Any]

    @classmethod
    def of(
        cls, monitor: Monitor, lag: LagWatch, limit: Limit, started_at: datetime, wall_s: float
    ) -> Measured:
        """Gather it from those who watched."""
        system = SystemSummary(
            engine_peak_bytes=monitor.engine_peak_bytes,
            client_peak_bytes=monitor.client_peak_bytes,
            engine_cpu_s=monitor.engine_cpu_s,
            client_cpu_s=monitor.client_cpu_s,
            wall_s=wall_s,
            loop_lag_p99_s=lag.quantile_s(0.99),
            unavailable=monitor.unavailable,
        )
        changes = [asdict(change) for change in limit.changes] if isinstance(limit, AdaptiveLimit) else []
        timings = {
            "started_at": started_at.isoformat(),
            "finished_at": datetime.now(UTC).isoformat(),
            "wall_s": wall_s,
            "concurrency": {
                "adaptive": isinstance(limit, AdaptiveLimit),
                "final": limit.current,
                "changes": changes,
            },
        }
        return cls(system, timings)


def finish_run(
    folder: SweepFolder,
    spec: RunSpec,
    suite: Suite,
    run: RunFolder,
    measured: Measured,
    dataset: Dataset | None = None,
) -> None:
    """Turn the journal into Parquet, compute the metrics, write `run.json`, drop the journal.

    Groups that are not to be stored are read from the dataset, by sample id, for the metrics alone.
    """
    samples = run.path / "samples.parquet"
    journal_to_parquet(run.journal, samples)
    if run.system.exists():
        system_to_parquet(run.system, run.path / "system.parquet")
    table = SampleTable.from_parquet(samples)
    if spec.dataset.withheld and dataset is not None:
        table = table.with_groups(dataset.withheld_groups())
    analysis = analyse_run(table, suite, spec, measured.system)
    folder.finish_run(
        spec.run_id,
        {
            "run": spec.run_id,
            "model": spec.model.id,
            "prompt": spec.prompt.id,
            "dataset": spec.dataset.id,
            "params": dict(spec.params),
            "repeats": spec.repeats,
            "status": "complete",
            "counts": asdict(analysis.counts),
            "metrics": [asdict(metric) for metric in analysis.metrics],
            "details": analysis.details,
            "timings": measured.timings,
        },
    )
    run.journal.unlink(missing_ok=True)
    run.system.unlink(missing_ok=True)
