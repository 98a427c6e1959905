"""Runs jobs: those of one endpoint one after the other, endpoints side by side."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence

from evalrun.errors import UserError
from evalrun.providers.base import BatchProvider, Provider
from evalrun.providers.batch_api import batch_api_of
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
from evalrun.runner.watch import LoadOnce, watched_start
from evalrun.suite.components import ModelSpec
from evalrun.suite.schema import Suite
from evalrun.sweep.phase import Job, Phase

_SIDE_BY_SIDE = 8
"""Runs of recorded answers at a time: each waits for the disk several times."""
_BATCHES = 50
"""Runs of one endpoint that are asked in batches, at a time."""
_HERE = "local"
"""The place of all engines that are ours."""


async def run_jobs(phase: Phase, jobs: Sequence[Job], *, together: bool = False) -> None:
    """Run jobs in their order, endpoints side by side. Faults are kept in the phase's execution.

    `together`: those of one endpoint at the same time, with no more requests in flight than one of them would
    have. Nothing waits then for the slowest answer of a job, and what a job measures is no steady load.
    """
    places: dict[str, list[Job]] = {}
    for job in jobs:
        provider = phase.providers[job.model.id]
        places.setdefault(_HERE if is_here(provider) else provider.endpoint, []).append(job)
    async with asyncio.TaskGroup() as tasks:
        for place, some in places.items():
            tasks.create_task(_Endpoint(phase, some, together=together).run(here=place == _HERE))


def is_here(provider: Provider) -> bool:
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
