"""Runs cells: those of one endpoint one after the other, endpoints side by side.

There are two phases of the same kind. First the runs of the matrix are asked; then, where scorers ask models,
what judges are asked about them. A run is finished when it is asked, scored and analysed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evalrun.datasets import Dataset
from evalrun.errors import UserError
from evalrun.providers.base import BatchProvider, Provider
from evalrun.providers.batch_api import batch_api_of
from evalrun.runner.cache import ResponseCache
from evalrun.runner.cell import Cell, CellContext, CellOptions, CellRun, Observer, Purse, Stop
from evalrun.runner.journal import Earlier, Journal, RunFolder
from evalrun.runner.limits import (
    MOST_AT_ONCE,
    AdaptiveLimit,
    EndpointBudget,
    FixedLimit,
    Limit,
    Slots,
    Throttle,
    connections_allowed,
)
from evalrun.runner.neighbours import Neighbours
from evalrun.runner.processes import JustRead
from evalrun.runner.source import Samples
from evalrun.runner.watch import LoadOnce, Watch, watched_start
from evalrun.suite.components import ModelSpec
from evalrun.suite.plan import RunSpec
from evalrun.suite.schema import Suite
from evalrun.sweep.estimate import Spending
from evalrun.sweep.finish import Finish, Measured
from evalrun.sweep.manifest import in_order
from evalrun.sweep.prepare import PreparedSweep
from evalrun.sweep.private import findings_counter, judged_as_stored, keeper_of
from evalrun.sweep.progress import ProgressAdapter
from evalrun.sweep.score import is_deferred
from evalrun.tracking.folder import SweepFolder

if TYPE_CHECKING:
    from evalrun.analysis.run import RunAnalysis
    from evalrun.gates.conditions import GateResult
    from evalrun.privacy.kept import Keeper
    from evalrun.runner.load.level_run import LevelFacts, LevelPlan, LevelRun
    from evalrun.sweep.judging import Judging
    from evalrun.types import SampleRecord

_SIDE_BY_SIDE = 8
"""Runs of recorded answers at a time: each waits for the disk several times."""
_BATCHES = 50
"""Runs of one endpoint that are asked in batches, at a time."""
_HERE = "local"
"""The place of all engines that are ours."""


@dataclass(slots=True)
class Execution:
    """What became of the cells. `faults` are the reasons why runs could not be completed, `taken_over` the
    samples of earlier parts of the sweep."""

    identities: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[UserError] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    taken_over: int = 0
    warnings: list[str] = field(default_factory=list)
    oldest_cached: float | None = None
    """When the oldest answer was stored that came from the cache (Unix seconds)."""


class Conduct(Protocol):
    """What asks the runs of a sweep in another way than each one whole, here and at once.

    One whose runs have all their rows in the end says so by `whole = True`.
    """

    async def ask(self, phase: Phase, jobs: Sequence[MatrixJob]) -> None:
        """Ask and finish the runs. `jobs` are all, the finished ones too."""
        ...

    def enter(self, spec: RunSpec, analysis: RunAnalysis) -> RunAnalysis:
        """The figures of a run that is about to be finished, with the intervals that hold for it."""
        ...

    def gates(self, results: Sequence[GateResult]) -> list[GateResult]:
        """The verdicts of the gates, where it has decided any."""
        ...

    def document(self) -> Mapping[str, Any]:
        """What the manifest says of it at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """What all cells of a sweep share."""

    prepared: PreparedSweep
    folder: SweepFolder
    cache: ResponseCache | None
    progress: ProgressAdapter
    stop: Stop
    spending: Spending | None = None
    """What is spent, where the suite has a budget."""
    neighbours: Neighbours | None = None
    """Who else evaluates on this machine."""
    conduct: Conduct | None = None


@dataclass(frozen=True, slots=True)
class Phase:
    """What the cells of one phase share. The engines of models in `needed_later` run on after it."""

    suite: Suite
    providers: Mapping[str, Provider]
    cache: ResponseCache | None
    observer: Observer
    progress: ProgressAdapter
    stop: Stop
    execution: Execution
    needed_later: Set[str] = frozenset()
    purse: Purse | None = None
    in_flight: int | None = None
    """How many requests every run has in flight whose model and suite say nothing, so that their speeds can
    be compared. None: as many as the endpoint bears."""
    neighbours: Neighbours | None = None
    just_read: JustRead = field(default_factory=JustRead)
    redact: Callable[[SampleRecord], SampleRecord] | None = None
    """What is journalled in the place of a record."""
    keeper: Keeper | None = None
    """Keeps records as they were, where they are scored later."""

    async def ask(
        self,
        cell: Cell,
        folder: RunFolder,
        earlier: Earlier,
        options: CellOptions,
        throttle: Throttle,
        watch: Watch | None = None,
        plan: LevelPlan | None = None,
        about: Path | None = None,
    ) -> LevelRun | CellRun:
        """Ask what is left of a cell, or all of a level of load, which has a `plan`. `about` is the folder of
        the run that a judge is asked about."""
        total = len(cell.samples) * cell.repeats if plan is None else plan.expected
        self.progress.begin(cell.run_id, total, earlier)
        if earlier.damaged:
            lines = "line is" if earlier.damaged == 1 else "lines are"
            what = f"{cell.run_id}: {earlier.damaged} {lines} damaged in {folder.journal}"
            self.execution.warnings.append(f"{what}; the samples they stood for were asked again")
        if throttle.budget is not None:
            throttle.budget.begin_run()
        kept = None if self.keeper is None else self.keeper.cell(folder.path, about)
        redact = self.redact if kept is None else kept.stored
        journal = Journal(folder.journal, aside=plan is not None, redact=redact)
        context = CellContext(journal, self.cache, throttle, self.observer, self.stop, self.purse)
        run: LevelRun | CellRun
        batches = batch_api_of(cell.provider)
        if plan is None and batches is not None:
            from evalrun.runner.batched import BatchedRun

            say = self.progress.message
            run = BatchedRun(cell, options, context, earlier, api=batches, folder=folder.path, say=say)
        elif plan is None:
            run = CellRun(cell, options, context, earlier)
        else:
            from evalrun.runner.load.level_run import LevelRun
            from evalrun.runner.load.search import SearchRun

            kind = SearchRun if plan.level.role == "search" else LevelRun
            run = kind(cell, options, context, plan)
        try:
            self.progress.asking(cell.run_id, cell.provider.endpoint, lambda: run.in_flight)
            async with watch or contextlib.nullcontext():
                await run.run()
        finally:
            self.progress.asking(cell.run_id, cell.provider.endpoint, int)  # none: 0
            self.progress.refresh(cell.run_id)
            await journal.close(whole=run.complete)
            if kept is not None:
                kept.own.close()
        return run

    def options(self, model: ModelSpec, *, stream: bool = False, warmup: int = 0) -> CellOptions:
        """How a model is asked."""
        performance = self.suite.performance
        return CellOptions(
            stream=stream,
            warmup=warmup,
            timeout_s=model.timeout_s or performance.timeout_s,
            retries=performance.retries,
            seed=self.suite.seed,
            tolerate=self.suite.errors.stop_above,
            patient=self.suite.errors.bears_all,
        )


class Job(Protocol):
    """What one model is asked: a run of the matrix, or what a judge is asked about a run."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> ModelSpec: ...
    async def run(self, phase: Phase, provider: Provider, throttle: Throttle, load: LoadOnce) -> None: ...


async def execute(services: Services) -> Execution:
    """Run every cell that is not finished yet.

    A fault in one model's runs does not stop the others: it is kept in the result. Cancelling ends
    everything; what was answered is journalled.
    """
    prepared, folder = services.prepared, services.folder
    judging, suite = prepared.judging, prepared.loaded.suite
    execution = Execution()
    clock = None
    if services.spending is not None:
        clock = asyncio.get_running_loop().create_task(services.spending.watch_clock())
    judges = frozenset(judging.models) if judging is not None else frozenset[str]()
    observer = services.spending or services.progress
    keeper = keeper_of(prepared, folder, execution.warnings)
    phase = Phase(
        suite,
        prepared.providers,
        services.cache,
        observer,
        services.progress,
        services.stop,
        execution,
        judges,
        purse=services.spending,
        in_flight=like_concurrency(prepared),
        neighbours=services.neighbours,
        redact=prepared.redact_record,
        keeper=keeper,
    )
    finish = Finish(
        folder,
        suite,
        prepared.pipeline.scorers,
        prepared.datasets,
        services.stop,
        judging,
        execution.identities,
        prepared.tasks,
        None if services.conduct is None else services.conduct.enter,
        None if prepared.redactor is None else prepared.redactor.reasons,
        findings_counter(prepared),
    )
    try:
        if services.conduct is None:
            await run_jobs(phase, _matrix_jobs(services, phase, finish))
        else:
            jobs = [MatrixJob(spec, prepared, folder, finish) for spec in prepared.specs]
            await services.conduct.ask(phase, jobs)
            execution.warnings += judged_as_stored(keeper, folder, finish.is_waiting, prepared.specs)
        for spec in prepared.specs:
            # Left over: what waits for judges, and what an earlier part of the sweep had no time to score.
            own = judging is None or finish.task_of(spec) is not None
            if own and finish.is_waiting(spec.run_id) and await finish.waiting(spec):
                execution.finished.append(spec.run_id)
        if judging is not None:
            await _judge(services, judging, finish, execution, keeper)
        if keeper is not None:
            keeper.end(finished=all(folder.is_finished(spec.run_id) for spec in prepared.specs))
    finally:
        if judging is not None:
            await judging.close()
        if clock is not None:
            clock.cancel()
            await asyncio.gather(clock, return_exceptions=True)
        if services.cache is not None:
            await services.cache.close()
            execution.oldest_cached = services.cache.oldest
            if services.cache.warning:
                execution.warnings.append(services.cache.warning)
    execution.faults += _faults(services)
    return execution


def _faults(services: Services) -> Iterator[UserError]:
    """Why a sweep is not complete as a whole: texts that could not be redacted, a budget that is spent."""
    prepared, folder = services.prepared, services.folder
    if prepared.redactor is not None and prepared.redactor.failed:
        yield prepared.redactor.fault()
    if services.stop.fault is not None and not all(
        folder.is_finished(spec.run_id) for spec in prepared.specs
    ):
        # Made anew: what was in flight when the budget was spent has been counted since.
        yield services.spending.fault() if services.spending else services.stop.fault


def _matrix_jobs(services: Services, phase: Phase, finish: Finish) -> list[Job]:
    """The runs that are not asked yet, in the order that is drawn; models that judge afterwards come last of
    the engines, which then run on."""
    prepared, folder = services.prepared, services.folder
    todo: list[RunSpec] = []
    by_model: dict[str, list[RunSpec]] = {}
    for spec in prepared.specs:
        by_model.setdefault(spec.model.id, []).append(spec)
    for model_id, specs in by_model.items():
        left = [
            each for each in specs if not (folder.is_finished(each.run_id) or finish.is_waiting(each.run_id))
        ]
        if not left:
            phase.execution.identities[model_id] = folder.identity(model_id)
        todo += left
    drawn = in_order(todo, phase.suite.seed)
    order = judges_last(by_model, phase.needed_later)
    drawn.sort(
        key=lambda each: (
            order.index(each.model.id) if _is_here(phase.providers[each.model.id]) else -1,
            0 if each.load is None else _ORDER[each.load.role],
        )
    )
    if len(drawn) > 1:
        folder.make_run_dirs(spec.run_id for spec in drawn)
    return [MatrixJob(spec, prepared, folder, finish) for spec in drawn]


_ORDER = {"reference": 0, "level": 1, "search": 1, "again": 2}
"""What levels are compared with comes before all of them, and once more after them: what drifts meanwhile
shows."""

SMALL = 8
"""Requests in flight of runs whose speeds are compared, where the suite does not say how many."""


def like_concurrency(prepared: PreparedSweep) -> int | None:
    """One number of requests in flight for all runs of a sweep that neither suite nor model gives one.

    Where several runs are measured, or a gate or alert is about speed, their load must be the same: what
    their engines take, where that is one number, else SMALL or what the smallest engine takes. None where
    nothing is compared, where the suite says `adaptive`, and where load is an axis.
    """
    suite = prepared.loaded.suite
    if suite.load is not None or suite.performance.concurrency is not None:
        return None
    open_ = [spec for spec in prepared.specs if spec.model.concurrency is None]
    measured = [
        provider
        for spec in open_
        if (provider := prepared.providers[spec.model.id]).measured
        and not isinstance(provider, BatchProvider)
    ]
    about_speed = any(gate.metric.startswith("performance.") for gate in prepared.gates) or any(
        alert.gate.metric.startswith("performance.") for alert in prepared.alerts
    )
    if len(measured) < 2 and not about_speed:
        return None
    own = {provider.default_concurrency for provider in measured}
    if len(own) == 1 and None not in own:
        return None  # all have one number already
    return min([SMALL, *(each for each in own if each is not None)])


def judges_last(models: Iterable[str], judges: Set[str]) -> list[str]:
    """The models in their order, those last that judge afterwards."""
    return sorted(models, key=lambda model: model in judges)


async def _judge(
    services: Services, judging: Judging, finish: Finish, execution: Execution, keeper: Keeper | None
) -> None:
    """Judge and finish every run that waits for it."""
    from evalrun.sweep.judging import answered_run, judge_runs

    specs = {
        spec.run_id: spec
        for spec in services.prepared.specs
        if finish.is_waiting(spec.run_id) and finish.task_of(spec) is None
    }
    if not specs or services.stop.requested:
        return
    folder = services.folder
    everything = [
        answered_run(folder, spec)
        for spec in services.prepared.specs
        if spec.run_id in specs or folder.is_finished(spec.run_id)
    ]
    phase = Phase(
        services.prepared.loaded.suite,
        judging.providers,
        services.cache,
        services.spending or services.progress,
        services.progress,
        services.stop,
        execution,
        purse=services.spending,
        redact=services.prepared.redact_record,
        keeper=keeper,
    )
    waiting = [each for each in everything if each.run_id in specs]
    for run in await judge_runs(phase, judging, waiting, everything):
        if await finish.waiting(specs[run.run_id], run, everything):
            execution.finished.append(run.run_id)


async def run_jobs(phase: Phase, jobs: Sequence[Job], *, together: bool = False) -> None:
    """Run jobs in their order, endpoints side by side. Faults are kept in the phase's execution.

    `together`: those of one endpoint at the same time, with no more requests in flight than one of them would
    have. Nothing waits then for the slowest answer of a job, and what a job measures is no steady load.
    """
    places: dict[str, list[Job]] = {}
    for job in jobs:
        provider = phase.providers[job.model.id]
        places.setdefault(_HERE if _is_here(provider) else provider.endpoint, []).append(job)
    async with asyncio.TaskGroup() as tasks:
        for place, some in places.items():
            tasks.create_task(_Endpoint(phase, some, together=together).run(here=place == _HERE))


def _is_here(provider: Provider) -> bool:
    """Whether it is an engine of ours. These share this machine's cores, and two at once would slow each
    other and measure that."""
    return provider.endpoint.startswith("local:")


class _Endpoint:
    """The jobs on one endpoint: one after the other, so that none measures another's load.

    Models that are only asked take turns in the jobs' order; engines of ours are started, asked and stopped
    one by one, since they share this machine's memory.
    """

    def __init__(self, phase: Phase, jobs: Sequence[Job], *, together: bool = False) -> None:
        self._phase, self._jobs = phase, jobs
        self._slots: dict[int, Slots] | None = {} if together else None
        """Of each limit, where jobs are asked at the same time."""
        self._limits: dict[int | None, Limit] = {}
        self._budget = EndpointBudget.of([job.model.limits for job in jobs])
        self._loads: dict[str, LoadOnce] = {}
        """Of the models that are started and have not failed."""

    async def run(self, *, here: bool) -> None:
        """Run the jobs. Faults of a model end its own jobs and are kept in the result."""
        turns: dict[str, list[Job]] = {}
        for job in self._jobs:
            turns.setdefault(job.model.id if here else "", []).append(job)
        for together in turns.values():
            models = dict.fromkeys(job.model.id for job in together)
            try:
                for model_id in models:
                    await self._start(model_id, next(each for each in together if each.model.id == model_id))
                await self._all(together)
            finally:
                for model_id in models:
                    if model_id not in self._phase.needed_later:
                        await self._phase.providers[model_id].close()

    async def _all(self, jobs: Sequence[Job]) -> None:
        """Those that are asked in batches all at once, since each takes hours; of the others one after the
        other, where anything is measured."""
        providers = self._phase.providers
        batched = [job for job in jobs if batch_api_of(providers[job.model.id]) is not None]
        others = [job for job in jobs if job not in batched]

        async def in_turn() -> None:
            for job in others:
                await self._run(job)

        async with asyncio.TaskGroup() as tasks:
            if batched:
                tasks.create_task(self._side_by_side(batched, _BATCHES))
            batches = any(isinstance(providers[job.model.id], BatchProvider) for job in others)
            if self._slots is not None and others and not batches:
                tasks.create_task(self._side_by_side(others, len(others)))
            elif any(providers[job.model.id].measured for job in others):
                tasks.create_task(in_turn())
            elif others:
                tasks.create_task(self._side_by_side(others, _SIDE_BY_SIDE))

    async def _side_by_side(self, jobs: Sequence[Job], most: int) -> None:
        """Jobs in which nothing is measured: while one is written to disk the next is answered."""
        turn = asyncio.Semaphore(most)

        async def one(job: Job) -> None:
            async with turn:
                await self._run(job)

        async with asyncio.TaskGroup() as tasks:
            for job in jobs:
                tasks.create_task(one(job))

    async def _start(self, model_id: str, first: Job) -> None:
        if self._phase.stop.requested:
            return
        with self._kept(model_id):
            if model_id not in self._phase.execution.identities:  # else it runs already
                self._phase.progress.phase(first.name, "starting")
            provider = self._phase.providers[model_id]
            self._loads[model_id] = LoadOnce(await watched_start(provider))
            self._phase.execution.identities[model_id] = provider.identity()

    async def _run(self, job: Job) -> None:
        load = self._loads.get(job.model.id)
        if load is None or self._phase.stop.requested:
            return
        with self._kept(job.model.id):
            provider = self._phase.providers[job.model.id]
            limit = limit_of(self._phase.suite, job.model, provider, self._limits, self._phase.in_flight)
            of_suite = self._phase.suite.performance.concurrency
            wanted = job.model.concurrency or (of_suite if isinstance(of_suite, int) else None)
            if wanted is not None and isinstance(limit, FixedLimit) and limit.current < wanted:
                what = (
                    f"concurrency {limit.current} in place of {wanted}: so many connections the limit of open"
                    " files allows (ulimit -n)"
                )
                if what not in self._phase.execution.warnings:
                    self._phase.execution.warnings.append(what)
            slots = None if self._slots is None else self._slots.setdefault(id(limit), Slots(limit))
            await job.run(self._phase, provider, Throttle(limit, self._budget, slots), load)

    @contextlib.contextmanager
    def _kept(self, model_id: str) -> Iterator[None]:
        """A fault within ends the model's jobs, and not those of others."""
        try:
            yield
        except UserError as fault:
            self._loads.pop(model_id, None)
            self._phase.execution.faults.append(fault)
            self._phase.progress.message(str(fault))


def limit_of(
    suite: Suite,
    model: ModelSpec,
    provider: Provider,
    limits: dict[int | None, Limit],
    in_flight: int | None = None,
) -> Limit:
    """The rule for concurrency: fixed where the model, the suite or the engine names a number, else adaptive
    and shared by all that is asked on the endpoint, so that what one learnt the next need not learn again.

    `limits` are those that the endpoint has already. What judges bear is not what the suite says of its runs.
    `in_flight` is the one number of all runs that name none.
    """
    own = any(each.id == model.id for each in suite.models)
    of_suite = suite.performance.concurrency if own else None
    named = of_suite if isinstance(of_suite, int) else None
    fixed = model.concurrency or named or (in_flight if own else None) or provider.default_concurrency
    if fixed not in limits:
        room = connections_allowed(len({getattr(each.options, "base_url", each.id) for each in suite.models}))
        limits[fixed] = (
            FixedLimit(min(fixed, room))
            if fixed
            else AdaptiveLimit(start=min(20, room), maximum=min(MOST_AT_ONCE, room))
        )
    return limits[fixed]


@dataclass(frozen=True, slots=True)
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
