"""Runs the cells: one endpoint after its own cells, endpoints side by side, each run finished on its own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from evalrun.errors import UserError
from evalrun.providers.base import Provider
from evalrun.runner.cache import ResponseCache
from evalrun.runner.cell import Cell, CellOptions, CellRun, Stop
from evalrun.runner.journal import Journal
from evalrun.runner.limits import AdaptiveLimit, FixedLimit, Limit
from evalrun.runner.monitor import LagWatch, Monitor
from evalrun.runner.runfolder import RunFolder
from evalrun.suite.plan import RunSpec
from evalrun.suite.schema import ModelSpec, Suite
from evalrun.sweep.finish import Measured, finish_run
from evalrun.sweep.prepare import PreparedSweep
from evalrun.sweep.progress import ProgressAdapter
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


async def execute(services: Services) -> Execution:
    """Run every cell that is not finished yet.

    A fault in one model's runs does not stop the others: it is kept in the result. Cancelling ends
    everything; what was answered is journalled.
    """
    execution = Execution()
    groups: dict[str, dict[str, list[RunSpec]]] = {}
    for spec in services.prepared.specs:
        provider = services.prepared.providers[spec.model.id]
        groups.setdefault(_place(provider), {}).setdefault(spec.model.id, []).append(spec)
    try:
        async with asyncio.TaskGroup() as tasks:
            for models in groups.values():
                tasks.create_task(_run_endpoint(services, models, execution))
    finally:
        if services.cache is not None:
            await services.cache.close()
            if services.cache.warning:
                execution.warnings.append(services.cache.warning)
    return execution


def _place(provider: Provider) -> str:
    """What a provider's runs wait for each other on. Engines of ours share this machine's cores, and two at
    once would slow each other and measure that."""
    return "local" if provider.endpoint.startswith("local:") else provider.endpoint


async def _run_endpoint(services: Services, models: dict[str, list[RunSpec]], execution: Execution) -> None:
    limits: dict[int | None, Limit] = {}
    for model_id, specs in models.items():
        provider = services.prepared.providers[model_id]
        todo = [spec for spec in specs if not services.folder.is_finished(spec.run_id)]
        if services.stop.requested:
            return
        if not todo:
            execution.identities[model_id] = services.folder.identity(model_id)
            continue
        try:
            services.progress.phase(todo[0].run_id, "starting")
            await provider.start()
            execution.identities[model_id] = provider.identity()
            for spec in todo:
                if services.stop.requested:
                    return
                limit = _limit(services.prepared.loaded.suite, spec.model, provider, limits)
                await _run_cell(services, spec, provider, limit)
                if not services.stop.requested:
                    execution.finished.append(spec.run_id)
        except UserError as fault:
            execution.faults.append(fault)
            services.progress.message(str(fault))
        finally:
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


async def _run_cell(services: Services, spec: RunSpec, provider: Provider, limit: Limit) -> None:
    prepared = services.prepared
    suite = prepared.loaded.suite
    run = RunFolder(services.folder.run_dir(spec.run_id))
    earlier = run.open(provider.identity())
    total = len(prepared.datasets[spec.dataset.id]) * spec.repeats
    services.progress.begin(spec.run_id, total, earlier)
    journal = Journal(run.journal)
    monitor = Monitor(lambda: provider.engine_pid, run.write_system)
    lag = LagWatch()
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
        limit=limit,
        observer=services.progress,
        stop=services.stop,
        done=earlier.done,
        clock_offset_s=earlier.clock_s,
    )
    lag_task = asyncio.get_running_loop().create_task(lag.run())
    monitor.start("inference")
    try:
        await cell_run.run()
    finally:
        lag_task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await lag_task
        monitor.stop()
        run.close()
        await journal.close()
    if services.stop.requested:
        return
    measured = Measured.of(monitor, lag, limit, started_at, time.perf_counter() - started)
    await asyncio.to_thread(finish_run, services.folder, spec, suite, run, measured, cell.dataset)
    services.progress.end(spec.run_id)
