"""Runs the cells: one endpoint after its own cells, endpoints side by side, each run finished on its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Set
from dataclasses import dataclass, field
from datetime import UTC, datetime

from evalrun.errors import UserError
from evalrun.providers.base import Provider
from evalrun.runner.cache import ResponseCache
from evalrun.runner.cell import Cell, CellOptions, CellRun, Stop
from evalrun.runner.journal import Journal
from evalrun.runner.limits import AdaptiveLimit, FixedLimit, Limit
from evalrun.runner.rates import EndpointBudget, Throttle
from evalrun.runner.runfolder import RunFolder
from evalrun.runner.watch import LoadOnce, Watch, watched_start
from evalrun.suite.plan import RunSpec
from evalrun.suite.schema import ModelSpec, Suite
from evalrun.sweep.finish import Measured, finish_run
from evalrun.sweep.order import in_order
from evalrun.sweep.prepare import PreparedSweep
from evalrun.sweep.progress import ProgressAdapter
from evalrun.sweep.spending import Spending
from evalrun.tracking.folder import SweepFolder


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
                tasks.create_task(_run_endpoint(services, judges_last(models, judges), execution))
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
    return "local" if provider.endpoint.startswith("local:") else provider.endpoint


async def _run_endpoint(services: Services, models: dict[str, list[RunSpec]], execution: Execution) -> None:
    limits: dict[int | None, Limit] = {}
    budget = EndpointBudget.of([spec.model.limits for specs in models.values() for spec in specs])
    for model_id, specs in models.items():
        provider = services.prepared.providers[model_id]
        todo = [
            spec
            for spec in specs
            if not (services.folder.is_finished(spec.run_id) or _awaits_judges(services, spec.run_id))
        ]
        if services.stop.requested:
            return
        if not todo:
            execution.identities[model_id] = services.folder.identity(model_id)
            continue
        try:
            services.progress.phase(todo[0].run_id, "starting")
            load = LoadOnce(await watched_start(provider))
            execution.identities[model_id] = provider.identity()
            for spec in in_order(todo, services.prepared.loaded.suite.seed):
                if services.stop.requested:
                    return
                limit = _limit(services.prepared.loaded.suite, spec.model, provider, limits)
                if await _run_cell(services, spec, provider, Throttle(limit, budget), load):
                    execution.finished.append(spec.run_id)
        except UserError as fault:
            execution.faults.append(fault)
            services.progress.message(str(fault))
        finally:
            judging = services.prepared.judging
            if judging is None or model_id not in judging.model_ids:  # a judge's engine is needed again
                await provider.close()


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
        journal=journal,
        cache=services.cache,
        limit=throttle.limit,
        budget=throttle.budget,
        observer=services.spending or services.progress,
        stop=services.stop,
        done=earlier.done,
        clock_offset_s=earlier.clock_s,
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
    if prepared.judging is not None:
        from evalrun.sweep.aside import put_aside

        await asyncio.to_thread(put_aside, suite, run, measured, provider.identity())
        services.progress.end(spec.run_id)
        return False
    await asyncio.to_thread(finish_run, services.folder, spec, suite, run, measured, cell.dataset)
    services.progress.end(spec.run_id)
    return True
