"""Runs the cells of a sweep.

There are two phases of the same kind. First the runs of the matrix are asked; then, where scorers ask models,
what judges are asked about them. A run is finished when it is asked, scored and analysed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Set
from typing import TYPE_CHECKING

from evalrun.errors import UserError
from evalrun.providers.base import BatchProvider
from evalrun.suite.plan import RunSpec
from evalrun.sweep.endpoints import is_here, run_jobs
from evalrun.sweep.finish import Finish
from evalrun.sweep.manifest import in_order
from evalrun.sweep.matrix_job import MatrixJob
from evalrun.sweep.phase import Execution, Job, Phase, Services
from evalrun.sweep.prepare import PreparedSweep
from evalrun.sweep.private import findings_counter, judged_as_stored, keeper_of

if TYPE_CHECKING:
    from evalrun.privacy.kept import Keeper
    from evalrun.sweep.judging import Judging


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
            order.index(each.model.id) if is_here(phase.providers[each.model.id]) else -1,
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
