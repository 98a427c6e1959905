"""Runs the cells: those of one endpoint one after the other, endpoints side by side."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime

from evalrun.errors import UserError
from evalrun.providers.base import Provider
from evalrun.runner.cache import ResponseCache
from evalrun.runner.cell import Cell, CellContext, CellOptions, CellRun, Stop
from evalrun.runner.journal import Journal, RunFolder
from evalrun.runner.limits import AdaptiveLimit, EndpointBudget, FixedLimit, Limit, Throttle
from evalrun.runner.watch import LoadOnce, Watch, watched_start
from evalrun.suite.components import ModelSpec
from evalrun.suite.plan import RunSpec
from evalrun.suite.schema import Suite
from evalrun.sweep.finish import Measured, finish_run
from evalrun.sweep.late import score_late
from evalrun.sweep.order import in_order
from evalrun.sweep.prepare import PreparedSweep
from evalrun.sweep.progress import ProgressAdapter
from evalrun.sweep.spending import Spending
from evalrun.tracking.folder import SweepFolder

_HERE = "local"
"""The place of all engines that are ours."""


@dataclass(slots=True)
class Execution:
    """What became of the cells. `faults` are the reasons why runs could not be completed."""

    identities: dict[str, dict[str, object]] = field(default_factory=dict)
    faults: list[UserError] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


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


async def execute(services: Services) -> Execution:
    """Run every cell that is not finished yet.

    A fault in one model's runs does not stop the others: it is kept in the result. Cancelling ends
    everything; what was answered is journalled.
    """
    execution = Execution()
    clock = None
    if services.spending is not None:
        clock = asyncio.get_running_loop().create_task(services.spending.watch_clock())
    judging = services.prepared.judging
    judges = judging.model_ids if judging is not None else frozenset()
    groups: dict[str, dict[str, list[RunSpec]]] = {}
    for spec in services.prepared.specs:
        provider = services.prepared.providers[spec.model.id]
        groups.setdefault(_place(provider), {}).setdefault(spec.model.id, []).append(spec)
    try:
        async with asyncio.TaskGroup() as tasks:
            for models in groups.values():
                specs = [spec for each in models.values() for spec in each]
                endpoint = _Endpoint(services, execution, specs)
                tasks.create_task(endpoint.run(judges_last(models, judges)))
        if judging is not None:
            from evalrun.sweep.aside import judge_all

            await judge_all(services, execution)
    finally:
        if judging is not None:
            await judging.close()
        if clock is not None:
            clock.cancel()
            await asyncio.gather(clock, return_exceptions=True)
        if services.cache is not None:
            await services.cache.close()
            if services.cache.warning:
                execution.warnings.append(services.cache.warning)
    finished = all(services.folder.is_finished(spec.run_id) for spec in services.prepared.specs)
    if services.stop.fault is not None and not finished:
        # Made anew: what was in flight when the budget was spent has been counted since.
        execution.faults.append(services.spending.fault() if services.spending else services.stop.fault)
    return execution


def judges_last(models: dict[str, list[RunSpec]], judges: Set[str]) -> dict[str, list[RunSpec]]:
    """The models of an endpoint, those last that judge afterwards: their engines then run on."""
    return {name: models[name] for name in sorted(models, key=lambda each: each in judges)}


def _awaits_judges(services: Services, run_id: str) -> bool:
    if services.prepared.judging is None:
        return False
    from evalrun.sweep.aside import is_aside

    return is_aside(services.folder, run_id)


def _place(provider: Provider) -> str:
    """What a provider's runs wait for each other on. Engines of ours share this machine's cores, and two at
    once would slow each other and measure that."""
    return _HERE if provider.endpoint.startswith("local:") else provider.endpoint


class _Endpoint:
    """The runs on one endpoint: one after the other, so that none measures another's load.

    Models that are only asked take turns in the order that is drawn (`in_order`); engines of ours are
    started, asked and stopped one by one, since they share this machine's memory.
    """

    def __init__(self, services: Services, execution: Execution, specs: list[RunSpec]) -> None:
        self._services, self._execution = services, execution
        self._suite = services.prepared.loaded.suite
        self._limits: dict[int | None, Limit] = {}
        self._budget = EndpointBudget.of([spec.model.limits for spec in specs])
        self._loads: dict[str, LoadOnce] = {}
        """Of the models that are started and have not failed."""

    async def run(self, models: dict[str, list[RunSpec]]) -> None:
        """Run what is not done yet. Faults of a model end its own runs and are kept in the result."""
        turns: dict[str, dict[str, list[RunSpec]]] = {}
        for model_id, specs in models.items():
            if todo := [spec for spec in specs if self._is_to_do(spec)]:
                engine = _place(self._provider(model_id)) == _HERE
                turns.setdefault(model_id if engine else "", {})[model_id] = todo
            else:
                self._execution.identities[model_id] = self._services.folder.identity(model_id)
        for together in turns.values():
            try:
                await self._run_together(together)
            finally:
                for model_id in together:
                    await self._close(model_id)

    async def _run_together(self, models: dict[str, list[RunSpec]]) -> None:
        for model_id, specs in models.items():
            if self._services.stop.requested:
                return
            with self._kept(model_id):
                first = in_order(specs, self._suite.seed)[0]
                self._services.progress.phase(first.run_id, "starting")
                provider = self._provider(model_id)
                self._loads[model_id] = LoadOnce(await watched_start(provider))
                self._execution.identities[model_id] = provider.identity()
        for spec in in_order([each for specs in models.values() for each in specs], self._suite.seed):
            if self._services.stop.requested:
                return
            load = self._loads.get(spec.model.id)
            if load is None:
                continue
            with self._kept(spec.model.id):
                provider = self._provider(spec.model.id)
                throttle = Throttle(_limit(self._suite, spec.model, provider, self._limits), self._budget)
                if await _run_cell(self._services, spec, provider, throttle, load):
                    self._execution.finished.append(spec.run_id)

    @contextlib.contextmanager
    def _kept(self, model_id: str) -> Iterator[None]:
        """A fault within ends the model's runs, and not those of others."""
        try:
            yield
        except UserError as fault:
            self._loads.pop(model_id, None)
            self._execution.faults.append(fault)
            self._services.progress.message(str(fault))

    def _is_to_do(self, spec: RunSpec) -> bool:
        done = self._services.folder.is_finished(spec.run_id) or _awaits_judges(self._services, spec.run_id)
        return not done

    def _provider(self, model_id: str) -> Provider:
        return self._services.prepared.providers[model_id]

    async def _close(self, model_id: str) -> None:
        judging = self._services.prepared.judging
        if judging is None or model_id not in judging.model_ids:  # a judge's engine is needed again
            await self._provider(model_id).close()


def _limit(suite: Suite, model: ModelSpec, provider: Provider, limits: dict[int | None, Limit]) -> Limit:
    """The endpoint's limit: fixed where the model, the suite or the engine names a number, else adaptive
    and shared by all runs on the endpoint, so that what one learnt the next need not learn again."""
    fixed = model.concurrency or suite.performance.concurrency or provider.default_concurrency
    if fixed not in limits:
        limits[fixed] = FixedLimit(fixed) if fixed else AdaptiveLimit()
    return limits[fixed]


def _cell_options(suite: Suite, model: ModelSpec, provider: Provider) -> CellOptions:
    performance = suite.performance
    return CellOptions(
        stream=performance.stream and "stream" in provider.supports,
        warmup=performance.warmup,
        timeout_s=model.timeout_s or performance.timeout_s,
        retries=performance.retries,
        seed=suite.seed,
        tolerate=suite.errors.tolerate,
    )


async def _run_cell(
    services: Services, spec: RunSpec, provider: Provider, throttle: Throttle, load: LoadOnce
) -> bool:
    """Run one cell, or what is left of it. True when it is finished."""
    prepared = services.prepared
    suite = prepared.loaded.suite
    run = RunFolder(services.folder.run_dir(spec.run_id))
    earlier = run.open(provider.identity())
    total = len(prepared.datasets[spec.dataset.id]) * spec.repeats
    services.progress.begin(spec.run_id, total, earlier)
    services.folder.append_event("begin_run", {"done": len(earlier.done), "of": total}, target=spec.run_id)
    journal = Journal(run.journal)
    load.write_to(run.write_system, earlier.clock_s)
    if throttle.budget is not None:
        throttle.budget.begin_run()
    watch = Watch(provider, run.write_system, earlier.clock_s)
    started_at = datetime.now(UTC)
    started = time.perf_counter()
    cell = Cell(
        spec, prepared.datasets[spec.dataset.id], prepared.renderer(spec), provider, prepared.pipeline
    )
    cell_run = CellRun(
        cell,
        _cell_options(suite, spec.model, provider),
        CellContext(journal, services.cache, throttle, services.spending or services.progress, services.stop),
        earlier,
    )
    try:
        async with watch:
            await cell_run.run()
    finally:
        run.close()
        await journal.close()
    if services.stop.requested and not cell_run.complete:
        return False
    measured = Measured.of(watch, load.load, throttle, started_at, time.perf_counter() - started)
    if not await score_late(run.journal, suite, services.stop):
        return False
    if prepared.judging is not None:
        from evalrun.sweep.aside import put_aside

        await asyncio.to_thread(put_aside, run, measured, provider.identity())
        services.progress.end(spec.run_id)
        return False
    await asyncio.to_thread(finish_run, services.folder, spec, suite, run, measured, cell.dataset)
    services.progress.end(spec.run_id)
    return True
