"""Runs that have been asked and wait to be judged, and how they are finished.

`answered.json` stands in the folder of such a run, with what was measured while it ran: a sweep that is ended
then goes on with the judges, and asks the run's own model nothing again.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from evalrun.analysis.performance import SystemSummary
from evalrun.analysis.run import RunAnalysis
from evalrun.atomic import write_private
from evalrun.runner import calibration
from evalrun.runner.journal import RunFolder
from evalrun.suite.plan import RunSpec
from evalrun.sweep.finish import Measured, finish_run, to_samples
from evalrun.sweep.judge_work import JudgedRun
from evalrun.sweep.judged import Bill, join_verdicts, judge_cost
from evalrun.sweep.judging import JUDGE, Phase, ask_about
from evalrun.sweep.kinship import kinship
from evalrun.tracking.folder import SAMPLES, SweepFolder
from evalrun.tracking.plain import plain

if TYPE_CHECKING:
    from evalrun.sweep.execute import Execution, Services
    from evalrun.sweep.prepare import PreparedSweep

ANSWERED = "answered.json"


def is_aside(folder: SweepFolder, run_id: str) -> bool:
    """Whether a run has been asked and waits to be judged."""
    return (folder.path / "runs" / run_id / ANSWERED).exists()


def put_aside(run: RunFolder, measured: Measured, identity: Mapping[str, Any]) -> None:
    """Keep what was measured, and turn the journal into `samples.parquet`, from which judges are asked."""
    to_samples(run)
    system = asdict(measured.system)
    del system["client"]  # a fact of this machine, which is looked up again
    document = {"system": system, "timings": measured.timings, "identity": dict(identity)}
    write_private(run.path / ANSWERED, orjson.dumps(plain(document)))


def _measured(kept: Mapping[str, Any]) -> Measured:
    # What evalrun reaches was measured with one process.
    client = None if kept["timings"].get("workers") else calibration.load()
    return Measured(SystemSummary(**kept["system"], client=client), kept["timings"])


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judged run adds to its analysis: what was asked, what it cost, and what to beware of."""

    bills: Sequence[Bill]
    notes: Mapping[str, str]

    def enter(self, analysis: RunAnalysis) -> None:
        """Put it in."""
        for at, metric in enumerate(analysis.metrics):
            note = self._note(metric.name)
            if note and not metric.slice:
                joined = "; ".join(each for each in (metric.note, note) if each)
                analysis.metrics[at] = replace(metric, note=joined)
        analysis.metrics.extend(judge_cost(self.bills))
        analysis.details["judges"] = [bill.document() for bill in self.bills]

    def _note(self, metric: str) -> str:
        return self.notes.get(metric, "")

    @property
    def warnings(self) -> list[str]:
        """The notes as sentences of their own."""
        return [f"{scorer}: {note}" for scorer, note in self.notes.items()]


async def judge_all(services: Services, execution: Execution) -> None:
    """Judge and finish every run that waits for it. Faults are kept in the execution."""
    judging = services.prepared.judging
    assert judging is not None
    folder = services.folder
    specs = [spec for spec in services.prepared.specs if is_aside(folder, spec.run_id)]
    if not specs or services.stop.requested:
        return
    everything = [
        _judged_run(folder, spec)
        for spec in services.prepared.specs
        if is_aside(folder, spec.run_id) or folder.is_finished(spec.run_id)
    ]
    waiting = {spec.run_id for spec in specs}
    phase = Phase(
        judging,
        services.prepared.loaded.suite,
        services.cache,
        services.spending or services.progress,
        services.progress,
        services.stop,
    )
    asked = await ask_about(phase, [run for run in everything if run.run_id in waiting], everything)
    execution.identities.update(asked.identities)
    for fault in asked.faults:
        execution.faults.append(fault)
        services.progress.message(str(fault))
    by_id = {spec.run_id: spec for spec in specs}
    for run in asked.done:
        finish = _Finish(services.prepared, folder, by_id[run.run_id], run, everything)
        identity = await asyncio.to_thread(finish.run, asked.identities)
        if not execution.identities.get(finish.spec.model.id):
            execution.identities[finish.spec.model.id] = identity
        execution.finished.append(run.run_id)


def _judged_run(folder: SweepFolder, spec: RunSpec) -> JudgedRun:
    path = folder.run_dir(spec.run_id)
    return JudgedRun(
        spec.run_id, path, path / SAMPLES, spec.model.id, spec.prompt.id, spec.dataset.id, spec.params
    )


@dataclass(frozen=True, slots=True)
class _Finish:
    """The end of one judged run."""

    prepared: PreparedSweep
    folder: SweepFolder
    spec: RunSpec
    judged: JudgedRun
    everything: Sequence[JudgedRun]

    def run(self, identities: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Join the scores, compute the metrics, write `run.json`; returns who answered the run."""
        judging = self.prepared.judging
        assert judging is not None
        marker = self.judged.folder / ANSWERED
        kept = orjson.loads(marker.read_bytes())
        bills = join_verdicts(judging, self.judged, self.everything, self.prepared.pipeline.scorers)
        who = kinship(judging, self.spec.model, {**identities, self.spec.model.id: kept["identity"]})
        finish_run(
            self.folder,
            self.spec,
            self.prepared.loaded.suite,
            RunFolder(self.judged.folder),
            _measured(kept),
            self.prepared.datasets[self.spec.dataset.id],
            Judgement(bills, who),
        )
        drop_journals(self.judged.folder)
        marker.unlink(missing_ok=True)
        identity: dict[str, Any] = kept["identity"]
        return identity


def drop_journals(run: Path) -> None:
    """What was asked is in `judge.parquet` now."""
    shutil.rmtree(run / JUDGE, ignore_errors=True)
