"""From a finished journal to a finished run, and from finished runs to a finished sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from evalrun.analysis.performance import SystemSummary
from evalrun.analysis.run import RunAnalysis, analyse_run
from evalrun.analysis.table import SampleTable
from evalrun.datasets import Dataset
from evalrun.runner import calibration
from evalrun.runner.journal import RunFolder
from evalrun.runner.limits import AdaptiveLimit, Throttle
from evalrun.runner.watch import Load, Watch
from evalrun.suite.plan import RunSpec
from evalrun.suite.schema import Suite
from evalrun.sweep.answered import answered_by
from evalrun.sweep.inputs import keep_rows
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.parquet import journal_to_parquet, system_to_parquet


class Judgement(Protocol):
    """What is known of a run that was judged: it adds figures and notes to the run's analysis."""

    @property
    def warnings(self) -> Sequence[str]: ...
    def enter(self, analysis: RunAnalysis) -> None: ...


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured about a run as a whole, while it ran."""

    system: SystemSummary
    timings: dict[str, Any]

    @classmethod
    def of(
        cls, watch: Watch, load: Load, throttle: Throttle, started_at: datetime, wall_s: float
    ) -> Measured:
        """Gather it from those who watched."""
        limit, budget = throttle.limit, throttle.budget
        machine = watch.monitor.figures
        system = SystemSummary(
            engine_peak_bytes=machine.engine_peak_bytes,
            client_peak_bytes=machine.client_peak_bytes,
            engine_cpu_s=machine.engine_cpu_s,
            client_cpu_s=machine.client_cpu_s,
            wall_s=wall_s,
            loop_lag_p99_s=watch.lag_s(0.99),
            unavailable=watch.unavailable,
            figures={**load.figures(), **machine.figures()},
            notes={**machine.notes(), **(budget.notes() if budget is not None else {})},
            gpus=watch.devices,
            client=None if watch.workers else calibration.load(),
            since_s=watch.since_s,
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
            "workers": watch.workers,
            "limits": budget.document() if budget is not None else None,
        }
        return cls(system, timings)


def to_samples(run: RunFolder) -> None:
    """The journal of a run as `samples.parquet`."""
    journal_to_parquet(run.journal, run.path / "samples.parquet")


def finish_run(
    folder: SweepFolder,
    spec: RunSpec,
    suite: Suite,
    run: RunFolder,
    measured: Measured,
    dataset: Dataset | None = None,
    judgement: Judgement | None = None,
) -> None:
    """Turn the journal into Parquet, compute the metrics, write `run.json`, drop the journal.

    Groups that are not to be stored are read from the dataset, by sample id, for the metrics alone. With a
    judgement, the samples are in Parquet already, with their scores.
    """
    samples = run.path / "samples.parquet"
    if judgement is None:
        to_samples(run)
    if run.system.exists():
        system_to_parquet(run.system, run.path / "system.parquet")
    table = SampleTable.from_parquet(samples)
    if spec.dataset.withheld and dataset is not None:
        table = table.with_groups(dataset.withheld_groups())
    if dataset is not None:
        keep_rows(folder, spec.dataset, dataset, samples)
    answered, warnings = answered_by(samples)
    analysis = analyse_run(table, suite, spec, measured.system)
    if judgement is not None:
        judgement.enter(analysis)
        warnings = [*warnings, *judgement.warnings]
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
            "details": {**analysis.details, "answered_by": answered},
            "warnings": warnings,
            "timings": measured.timings,
        },
    )
    run.journal.unlink(missing_ok=True)
    run.system.unlink(missing_ok=True)
