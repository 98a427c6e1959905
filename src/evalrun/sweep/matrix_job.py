"""One run of the matrix: asked, measured, and handed on to be finished."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from evalrun.datasets import Dataset
from evalrun.frozen import frozen
from evalrun.providers.base import Provider
from evalrun.providers.batch_api import batch_api_of
from evalrun.runner.cell import Cell, CellRun
from evalrun.runner.journal import Earlier, RunFolder
from evalrun.runner.limits import (
    FixedLimit,
    Throttle,
    connections_allowed,
)
from evalrun.runner.source import Samples
from evalrun.runner.watch import LoadOnce, Watch
from evalrun.suite.components import ModelSpec
from evalrun.suite.plan import RunSpec
from evalrun.sweep.finish import Finish, Measured
from evalrun.sweep.phase import Phase
from evalrun.sweep.prepare import PreparedSweep
from evalrun.sweep.score import is_deferred
from evalrun.tracking.folder import SweepFolder

if TYPE_CHECKING:
    from evalrun.runner.load.level_run import LevelFacts, LevelPlan


@frozen
class MatrixJob:
    """One run of the matrix, or what is left of it."""

    spec: RunSpec
    prepared: PreparedSweep
    folder: SweepFolder
    finish: Finish
    samples: Samples | None = None
    """What is asked, where it is not the whole dataset."""
    finishes: bool = True
    """False: more will be asked. Samples that failed are then not asked again."""
    earlier: Earlier | None = None
    """What the run has already, where that is known."""

    @property
    def name(self) -> str:
        """The run's id."""
        return self.spec.run_id

    @property
    def model(self) -> ModelSpec:
        """The model that is asked."""
        return self.spec.model

    def _take_up(self, phase: Phase, run: RunFolder, dataset: Dataset, provider: Provider) -> Earlier:
        """What there is of the run already."""
        spec = self.spec
        if spec.load is not None and run.journal.exists():
            run.journal.unlink()
            run.system.unlink(missing_ok=True)
            what = f"{spec.run_id}: half a level is no level, so it was begun anew"
            phase.execution.warnings.append(what)
            phase.progress.message(what)
        earlier, strange = run.open(provider.identity(), self.earlier), ""
        if self.earlier is None:
            earlier, strange = run.drop_unknown(earlier, dataset, spec.repeats)
        if strange:
            phase.execution.warnings.append(f"{spec.run_id}: {strange}")
        if self.finishes:
            return earlier
        return replace(earlier, done={*earlier.done, *earlier.failed}, failed=frozenset())

    async def run(
        self, phase: Phase, provider: Provider, throttle: Throttle, load: LoadOnce, *, again: bool = False
    ) -> None:
        """Ask, measure and, where no judge is waited for, finish it. `again`: what another model had answered
        before was set aside."""
        spec, prepared = self.spec, self.prepared
        dataset = prepared.dataset(spec)
        samples = dataset if self.samples is None else self.samples
        run = RunFolder(self.folder.run_dir(spec.run_id))
        earlier = self._take_up(phase, run, dataset, provider)
        before = run.size()
        phase.execution.taken_over += 0 if again or self.earlier is not None else len(earlier.done)
        if self.finishes or not earlier.done:
            detail = {"done": len(earlier.done), "of": spec.requests(phase.suite, len(samples))}
            self.folder.append_event("begin_run", detail, target=spec.run_id, durable=False)
        load.write_to(run.write_system, earlier.clock_s)
        watch = Watch(provider, run.write_system, earlier.clock_s, phase.just_read)
        started_at, started = datetime.now(UTC), time.perf_counter()
        cell = Cell.of(spec, samples, prepared.renderer(spec), provider, prepared.pipeline_of(spec))
        performance = phase.suite.performance
        options = phase.options(
            spec.model,
            stream=performance.stream and "stream" in provider.supports,
            warmup=performance.warmup,
        )
        plan = None
        if spec.load is not None:
            plan = self._level(phase)
            throttle = Throttle(FixedLimit(plan.in_flight))
        try:
            asked = await phase.ask(cell, run, earlier, options, throttle, watch, plan)
        finally:
            run.close()
        if not self.finishes or (phase.stop.requested and not asked.complete):
            return
        if earlier.done and not again and (said := run.drop_other_model(before)):
            phase.execution.warnings.append(f"{spec.run_id}: {said}")
            phase.execution.taken_over -= len(earlier.done)
            await self.run(phase, provider, throttle, load, again=True)
            return
        ended = time.perf_counter()
        beside = ""
        if phase.neighbours is not None and provider.measured:
            beside = phase.neighbours.during(started, ended, provider.endpoint).sentence()
        stages = asked.stages if isinstance(asked, CellRun) else {}
        measured = Measured.of(watch, load.load, throttle, started_at, ended - started, stages, beside)
        if batch_api_of(provider) is not None:
            measured = measured.in_batches(asked)
        if plan is not None and not isinstance(asked, CellRun):
            measured = measured.under(asked.facts.document(plan))
            await self._leave(phase, provider, asked.facts)
        await self.conclude(phase, run, measured, provider.identity())

    async def conclude(
        self, phase: Phase, run: RunFolder, measured: Measured, identity: Mapping[str, Any]
    ) -> None:
        """Finish a run that was asked, or put it by where judges or scores are waited for."""
        spec, prepared = self.spec, self.prepared
        task = self.finish.task_of(spec) is not None
        judged = prepared.judging is not None and not task
        if task or judged or is_deferred(prepared.pipeline.scorers):
            await asyncio.to_thread(self.finish.put_by, run, measured, identity)
            finished = not judged and await self.finish.waiting(spec)
        else:
            await asyncio.to_thread(self.finish.at_once, spec, run, measured)
            finished = True
        if finished:
            phase.execution.finished.append(spec.run_id)
        if finished or prepared.judging is not None:
            phase.progress.end(spec.run_id)

    async def _leave(self, phase: Phase, provider: Provider, facts: LevelFacts) -> None:
        """Leave nothing of a level to the next one."""
        from evalrun.runner.load.between import settled

        if not await settled(provider, facts):
            busy = (
                f"{self.spec.run_id}: the server was still busy with its requests when the next level began"
            )
            phase.execution.warnings.append(busy)

    def _level(self, phase: Phase) -> LevelPlan:
        """What the run's level sends."""
        from evalrun.runner.load.level_run import LevelPlan
        from evalrun.runner.load.passes import Passes
        from evalrun.runner.load.schedule import schedule_of

        spec, suite = self.spec, phase.suite
        assert spec.load is not None and suite.load is not None
        level, load = spec.load, suite.load
        dataset = self.prepared.datasets[spec.dataset.id]
        rows, schedule, limit = len(dataset) * spec.repeats, None, load.requests
        room = connections_allowed(len(suite.models))
        in_flight = min(room, load.max_in_flight, spec.model.concurrency or room)
        if level.open_loop:
            schedule = schedule_of(
                load, level, seed=suite.seed, rows=rows, base_dir=self.prepared.loaded.base_dir
            )
            limit = None
        else:
            in_flight = level.concurrency or 1
            if level.role == "search":
                limit = None
            elif limit is None and load.seconds is None:
                limit = rows
        passes = Passes.of(dataset, suite.seed, limit)
        expected = spec.requests(suite, len(dataset))
        salt = f"{self.folder.ulid}/{spec.run_id}"
        return LevelPlan(load, level, passes, schedule, salt, in_flight, expected)
