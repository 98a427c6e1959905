"""From the answers of a run to its results: scored, analysed, written as `run.json`.

A run that is asked and waits for judges, or for scorers that take long, has `answered.json` in its folder,
with what was measured while it ran: a sweep that is ended then goes on there, and asks the run's model
nothing again.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from evalrun.analysis.definitions import definition
from evalrun.analysis.performance import SystemSummary
from evalrun.analysis.run import analyse_run
from evalrun.analysis.samples import SampleTable
from evalrun.atomic import write_private
from evalrun.datasets import Dataset
from evalrun.frozen import frozen
from evalrun.results import Definition
from evalrun.runner import calibration
from evalrun.runner.cell import Stop
from evalrun.runner.journal import RunFolder
from evalrun.runner.limits import AdaptiveLimit, Throttle
from evalrun.runner.watch import Load, Watch
from evalrun.scoring.base import Scorer
from evalrun.scoring.pipeline import Pipeline
from evalrun.suite.plan import RunSpec
from evalrun.suite.schema import Suite
from evalrun.sweep.inputs import keep_rows
from evalrun.sweep.score import ScoreStage, Scoring
from evalrun.tracking.folder import SAMPLES, SYSTEM, SweepFolder
from evalrun.tracking.parquet import journal_to_parquet, reading, system_to_parquet
from evalrun.tracking.plain import plain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from evalrun.analysis.run import RunAnalysis
    from evalrun.sweep.judging import Judging
    from evalrun.sweep.questions import AnsweredRun
    from evalrun.sweep.tasks import TaskScores
    from evalrun.sweep.verdicts import RunVerdicts
    from evalrun.tasks.plan import TaskCells, TaskPlan
    from evalrun.types import MetricValue

ANSWERED = "answered.json"


@frozen
class Measured:
    """What was measured about a run as a whole, while it ran."""

    system: SystemSummary
    timings: dict[str, Any]

    @classmethod
    def of(
        cls,
        watch: Watch,
        load: Load,
        throttle: Throttle,
        started_at: datetime,
        wall_s: float,
        stages: Mapping[str, float],
        beside: str = "",
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
            stages={"load": load.seconds or 0.0, **stages},
            beside=beside,
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

    def under(self, load: dict[str, Any]) -> Measured:
        """The same of a level of load, with what it came to."""
        return Measured(replace(self.system, load=load), {**self.timings, "load": load})

    def in_batches(self, asked: object) -> Measured:
        """The same of a run that was asked in batches, with what was handed over."""
        from evalrun.runner.batched import BatchedRun

        batch = asked.document() if isinstance(asked, BatchedRun) else {}
        return Measured(self.system, {**self.timings, "batch": batch})

    def with_stage(self, name: str, seconds: float) -> Measured:
        """With so many seconds more of a stage."""
        stages = {**self.system.stages, name: self.system.stages.get(name, 0.0) + seconds}
        return replace(self, system=replace(self.system, stages=stages))


@frozen
class Finish:
    """Finishes the runs of a sweep. `identities` say who answered, by model id."""

    folder: SweepFolder
    suite: Suite
    scorers: Sequence[Scorer]
    datasets: Mapping[str, Dataset]
    stop: Stop
    judging: Judging | None
    identities: dict[str, dict[str, Any]]
    tasks: TaskPlan | None = None
    enter: Callable[[RunSpec, RunAnalysis], RunAnalysis] | None = None
    reasons: Callable[[Mapping[str, Any], Mapping[str, str]], dict[str, str]] | None = None
    """What is stored in the place of what scorers say of texts as they were."""
    findings: Callable[[Path], MetricValue] | None = None
    """Counts the personal data in a run's folder, where a gate speaks of it."""
    """Gives the figures the intervals that hold, where the run was not asked whole."""
    _rows_kept: set[str] = field(default_factory=set)
    """The datasets of which it was looked whether their rows must be kept."""

    def task_of(self, spec: RunSpec) -> TaskCells | None:
        """The published task that a run asks, where it asks one."""
        return None if self.tasks is None else self.tasks.of(spec)

    def is_waiting(self, run_id: str) -> bool:
        """Whether a run has been asked and waits for scores."""
        return (self.folder.path / "runs" / run_id / ANSWERED).exists()

    def put_by(self, run: RunFolder, measured: Measured, identity: Mapping[str, Any]) -> None:
        """Keep what was measured of a run that waits, and its answers as `samples.parquet`."""
        began = time.perf_counter()
        journal_to_parquet(run.journal, run.path / SAMPLES)
        measured = measured.with_stage("write", time.perf_counter() - began)
        system = asdict(measured.system)
        del system["client"]  # a fact of this machine, which is looked up again
        document = {"system": system, "timings": measured.timings, "identity": dict(identity)}
        write_private(run.path / ANSWERED, orjson.dumps(plain(document)))

    def at_once(self, spec: RunSpec, run: RunFolder, measured: Measured) -> None:
        """Finish a run whose scores were all made while it was asked."""
        began = time.perf_counter()
        journal_to_parquet(run.journal, run.path / SAMPLES)
        self._conclude(spec, run, measured.with_stage("write", time.perf_counter() - began))

    async def waiting(
        self, spec: RunSpec, run: AnsweredRun | None = None, everything: Sequence[AnsweredRun] = ()
    ) -> bool:
        """Score and finish a run that waited. False where a stop came between.

        `run` and `everything` are there where judges were asked: the run, and all that are answered.
        """
        path = self.folder.run_dir(spec.run_id)
        marker = path / ANSWERED
        kept = orjson.loads(marker.read_bytes())
        verdicts = None
        if run is not None and self.judging is not None:
            from evalrun.sweep.verdicts import RunVerdicts

            verdicts = await asyncio.to_thread(RunVerdicts, self.judging, run, everything)
            await asyncio.to_thread(verdicts.write)
        began = time.perf_counter()
        task, scores = self.task_of(spec), None
        if task is not None and self.tasks is not None:
            from evalrun.sweep.tasks import score_run

            scores = await asyncio.to_thread(score_run, self.tasks, task, path / SAMPLES)
            scoring = Scoring(Pipeline((), (), "never"), verdicts=scores)
        else:
            # The suite's scorers anew: those that take long run in threads of their own.
            pipeline = Pipeline([each.build() for each in self.suite.parse], self.scorers, "deferred")
            pipeline = pipeline.for_prompt(spec.prompt)
            scoring = Scoring(pipeline, verdicts=verdicts, reasons=self.reasons)
        stage = ScoreStage(path / SAMPLES, path / SAMPLES, scoring, self.stop)
        if not await stage.in_thread():
            return False
        scored_s = time.perf_counter() - began
        if not self.identities.get(spec.model.id):
            self.identities[spec.model.id] = kept["identity"]
        await asyncio.to_thread(
            self._conclude,
            spec,
            RunFolder(path),
            _measured(kept).with_stage("score_after", scored_s),
            verdicts,
            kept["identity"],
            scores,
        )
        drop_judge_journals(path)
        marker.unlink(missing_ok=True)
        return True

    def _conclude(
        self,
        spec: RunSpec,
        run: RunFolder,
        measured: Measured,
        verdicts: RunVerdicts | None = None,
        identity: Mapping[str, Any] | None = None,
        scores: TaskScores | None = None,
    ) -> None:
        """Compute the metrics of a scored run, write `run.json`, drop the journal.

        Groups that are not to be stored are read from the dataset, by sample id, for the metrics alone.
        """
        samples, dataset = run.path / SAMPLES, self.datasets[spec.dataset.id]
        if run.system.exists():
            system_to_parquet(run.system, run.path / SYSTEM)
        table = SampleTable.from_parquet(samples)
        if spec.dataset.withheld:
            table = table.with_groups(dataset.withheld_groups())
        if spec.dataset.id not in self._rows_kept:
            keep_rows(self.folder, spec.dataset, dataset, samples)
            self._rows_kept.add(spec.dataset.id)
        answered, warnings = answered_by(samples)
        own = self.scorers if scores is None else scores.scorers
        analysis = analyse_run(table, self.suite, spec, measured.system, own)
        if scores is not None:
            from evalrun.sweep.tasks import enter_task

            analysis = enter_task(analysis, scores)
        warnings = [*warnings, *analysis.warnings]
        if verdicts is not None and self.judging is not None:
            from evalrun.sweep.judging import lineage_notes
            from evalrun.sweep.verdicts import enter_judgement

            identities = {**self.identities, spec.model.id: identity or {}}
            notes = lineage_notes(self.judging, spec.model, identities)
            analysis, said = enter_judgement(analysis, verdicts.bills(), notes)
            warnings = [*warnings, *said]
        if self.enter is not None:
            analysis = self.enter(spec, analysis)
        if self.findings is not None:
            analysis = _with(analysis, self.findings(run.path))
        self.folder.finish_run(
            spec.run_id,
            {
                "run": spec.run_id,
                "model": spec.model.id,
                "prompt": spec.prompt.id,
                "dataset": spec.dataset.id,
                "params": spec.axes,
                "load": _load(spec, measured.timings),
                "repeats": spec.repeats,
                "status": "complete",
                "counts": asdict(analysis.counts),
                "metrics": [metric.document() for metric in analysis.metrics],
                "details": {**asdict(analysis.details), "answered_by": answered},
                "warnings": [*warnings, *_notes(spec), *measured.timings.get("notes", ())],
                "timings": measured.timings,
                **self._checkpoint(spec),
                **(
                    {"task": scores.document, "headline": scores.document["headline"]}
                    if scores is not None
                    else {}
                ),
            },
        )
        run.journal.unlink(missing_ok=True)
        run.system.unlink(missing_ok=True)

    def _checkpoint(self, spec: RunSpec) -> dict[str, Any]:
        """Which checkpoint the run asked, with its digest, as the plan says it."""
        if spec.model.checkpoint is None:
            return {}
        planned = next(each for each in self.folder.read_manifest()["plan"] if each["run"] == spec.run_id)
        return {key: planned[key] for key in ("step", "training", "checkpoint")}


def _with(analysis: RunAnalysis, metric: MetricValue) -> RunAnalysis:
    defined = {**analysis.details.definitions, metric.name: Definition.of(definition(metric.name))}
    details = replace(analysis.details, definitions=defined)
    return replace(analysis, metrics=[*analysis.metrics, metric], details=details)


def _notes(spec: RunSpec) -> list[str]:
    checkpoint = spec.model.checkpoint
    return [f"step {checkpoint.step}: {checkpoint.note}"] if checkpoint and checkpoint.note else []


def _load(spec: RunSpec, timings: Mapping[str, Any]) -> dict[str, Any]:
    """What a run was asked under: its level, or how many requests were in flight."""
    if spec.load is not None:
        return spec.load.document()
    if timings.get("batch") is not None:
        return {"batch": True}
    concurrency = timings["concurrency"]
    return {"concurrency": concurrency["final"], **({"adaptive": True} if concurrency["adaptive"] else {})}


def _measured(kept: Mapping[str, Any]) -> Measured:
    # What evalrun reaches was measured with one process.
    client = None if kept["timings"].get("workers") else calibration.load()
    return Measured(SystemSummary(**kept["system"], client=client), kept["timings"])


def drop_judge_journals(run: Path) -> None:
    """What was asked is in `judge.parquet` now."""
    from evalrun.sweep.questions import JUDGE

    shutil.rmtree(run / JUDGE, ignore_errors=True)


_SHOWN = 5


def answered_by(samples: Path) -> tuple[dict[str, Any], list[str]]:
    """What the responses of a run said of model and `system_fingerprint`, as JSON, and warnings.

    `models` and `fingerprints` hold how many samples each answered, in the order of its first answer;
    `changes` how often the next answer to arrive came from another one than the last. Answers from the cache
    are left out: they were given another day. Both are empty where the server says nothing.
    """
    import numpy as np

    names = ("model", "fingerprint")
    # Neither pq.read_table nor to_numpy: both import pandas, which costs half a second.
    with reading(samples, names) as file:
        table = file.read(columns=[*names, "cached", "done_s"], use_threads=False)
    fresh = ~_plain(table.column("cached"), np.bool_, 0)
    done = _plain(table.column("done_s"), np.float64, np.nan)
    order = np.argsort(np.where(np.isnan(done), np.inf, done), kind="stable")
    found: dict[str, Any] = {}
    warnings = []
    for name in names:
        codes, texts = _codes(table.column(name))
        codes = codes[order][fresh[order]]
        codes = codes[codes >= 0]
        first: dict[int, None] = (
            dict.fromkeys(codes.tolist()) if len(texts) > 1 else dict.fromkeys(codes[:1].tolist())
        )
        counts = {texts[code]: int(np.count_nonzero(codes == code)) for code in first}
        changes = int(np.count_nonzero(np.diff(codes))) if len(codes) else 0
        found[f"{name}s"] = counts
        found[f"{name}_changes"] = changes
        if changes:
            what = "model" if name == "model" else "system_fingerprint"
            shown = [f"{text} ({count:,} samples)" for text, count in list(counts.items())[:_SHOWN]]
            more = f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else ""
            warnings.append(
                f"the server's {what} changed during the run, {changes:,} time{'s' if changes > 1 else ''}: "
                f"{', '.join(shown)}{more}; the answers are not those of one model"
            )
    return found, warnings


def _codes(column: Any) -> tuple[NDArray[np.int64], list[str]]:
    """A column of dictionaries as codes over one list of texts; -1 where there is none."""
    import numpy as np

    from evalrun.analysis.samples import plain_values

    texts: dict[str, int] = {}
    parts = []
    for chunk in column.chunks:
        known = [texts.setdefault(each, len(texts)) for each in chunk.dictionary.to_pylist()]
        lookup = np.array([*known, -1], np.int64)
        parts.append(lookup[plain_values(chunk.indices, np.int64, -1)])
    return (np.concatenate(parts) if parts else np.zeros(0, np.int64)), list(texts)


def _plain(column: Any, kind: type[np.generic], missing: float) -> NDArray[Any]:
    """A column in chunks as numpy, with `missing` for null."""
    import numpy as np

    from evalrun.analysis.samples import plain_values

    parts = [plain_values(chunk, kind, missing) for chunk in column.chunks]
    return np.concatenate(parts) if parts else np.zeros(0, kind)
