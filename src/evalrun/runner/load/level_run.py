"""One level of load: requests in flight held at a number, or sent when a schedule says so.

Under load nothing is asked twice (a retry is more load, and hides the failure), nothing comes from the cache
or goes into it, and every request is followed to its end or its deadline, however long that takes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from evalrun.canonical import digest
from evalrun.errors import ExitCode, UserError
from evalrun.moment import READY_NS
from evalrun.providers.base import HasWorkers, Punctual, capability
from evalrun.runner.attempts import CircuitBreaker, DeadlineError, Deadlines
from evalrun.runner.load.between import forget_prefixes
from evalrun.runner.records import RecordMaker
from evalrun.runner.source import Prepared, Source, SourceOptions
from evalrun.types import JSON, ErrorKind, ProviderError, Request, SampleRecord

if TYPE_CHECKING:
    from evalrun.providers.base import Provider
    from evalrun.runner.cell import Cell, CellContext, CellOptions
    from evalrun.runner.load.passes import Passes
    from evalrun.runner.load.schedule import Schedule
    from evalrun.suite.levels import Level, LoadSpec

LEAD_S = 0.1
"""The first request is due so long after the level begins, so that nothing is late at once."""
_AHEAD_NS = 50_000_000
"""A worker process is given a request so long before it is due, and keeps to the moment itself."""
_LOOK_S = 0.2
_COARSE_S = 0.001
_SALTED = frozenset({"openai_compatible", "vllm"})
"""Providers whose servers take `cache_salt`, which sets prompts apart in vLLM's prefix cache."""
_UNCACHED = frozenset({"llamacpp"})
"""Those that take `cache_prompt: false`."""


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """What a level sends. `schedule` is None in closed loop; `salt` is no other level's."""

    load: LoadSpec
    level: Level
    passes: Passes
    schedule: Schedule | None
    salt: str
    in_flight: int
    """At most: the level of a closed loop, or the cap of an open one."""
    expected: int
    """Requests, as far as that is known beforehand."""


@dataclass(slots=True)
class LevelFacts:
    """What a level came to beside its samples. Times are seconds of the run's clock; `end_s` is None where
    the window ends with the last request that was due."""

    start_s: float = 0.0
    end_s: float | None = None
    sent: int = 0
    capped: int = 0
    timed_out: int = 0
    longest_s: float = 0.0
    retry_after: int = 0
    extra: dict[str, JSON] = field(default_factory=dict)

    def document(self, plan: LevelPlan) -> dict[str, JSON]:
        """As JSON, for `run.json`."""
        level = plan.level
        return {
            "words": level.words,
            "level": level.value,
            "role": level.role,
            "open_loop": level.open_loop,
            "arrivals": level.arrivals,
            "rate": level.rate,
            "concurrency": level.concurrency,
            "max_in_flight": plan.in_flight,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "sent": self.sent,
            "capped": self.capped,
            "timed_out": self.timed_out,
            "retry_after": self.retry_after,
            **self.extra,
        }


def kept_apart(provider: Provider) -> str:
    """How a provider's server is kept from finding prompts of another level in its prefix cache; "" where
    no way is known."""
    name = provider.spec.provider
    return "cache_salt" if name in _SALTED else "cache_prompt: false" if name in _UNCACHED else ""


class LevelRun:
    """The execution of one level. `run` may be called once."""

    def __init__(self, cell: Cell, options: CellOptions, context: CellContext, plan: LevelPlan) -> None:
        self.facts = LevelFacts()
        self._cell, self._options, self._plan = cell, options, plan
        self._journal, self._observer, self._stop = context.journal, context.observer, context.stop
        self._purse = context.purse
        self._deadlines = Deadlines(options.timeout_s)
        self._breaker = CircuitBreaker()
        self._records = RecordMaker(cell.reader, cell.price, 0.0, scheduled=True)
        self._fault: UserError | None = None
        self._cut = False
        self._flying = 0
        self.in_flight = 0
        """Requests that were sent and are not answered yet."""
        self._landed = asyncio.Event()
        self._start_ns = self._stop_ns = 0
        self._ahead_ns = 0
        if capability(cell.provider, HasWorkers) is not None:
            self._ahead_ns = _AHEAD_NS
        elif isinstance(cell.provider, Punctual):
            self._ahead_ns = READY_NS
        self._apart: dict[int, Mapping[str, JSON]] = {}
        self._kept_apart = kept_apart(cell.provider) if plan.load.prefix_cache == "separate" else ""
        self.facts.extra["prefix_cache"] = {"mode": plan.load.prefix_cache, "by": self._kept_apart}
        self._source = Source(
            plan.passes,
            cell.renderer,
            SourceOptions(cell.params, 1, options.seed, options.stream),
            skip=frozenset(),
            cache=None,
            keys=None,
            on_hit=lambda prepared, response: None,
        )

    @property
    def complete(self) -> bool:
        """Whether the level went on to its end."""
        return not self._cut

    async def run(self) -> None:
        """Send everything, and wait for every answer.

        Raises UserError (exit code 3) where the level cannot be completed; what was answered is journalled.
        """
        load = self._plan.load
        await self._forget()
        watch = asyncio.get_running_loop().create_task(self._deadlines.watch())
        self._start_ns = time.perf_counter_ns() + int(LEAD_S * 1e9)
        if load.seconds is not None:
            self._stop_ns = self._start_ns + int((load.warmup_s + load.seconds) * 1e9)
        self.facts.start_s = self._records.clock_s(self._start_ns) + load.warmup_s
        self.facts.end_s = self.facts.start_s + load.seconds if load.seconds is not None else None
        try:
            async with asyncio.TaskGroup() as group:
                if self._plan.schedule is not None:
                    await self._open(self._plan.schedule, group)
                else:
                    await self._sleep_until(self._start_ns)
                    for _ in range(self._plan.in_flight):
                        group.create_task(self._closed())
        finally:
            watch.cancel()
        if self._fault is not None:
            raise self._fault

    async def _forget(self) -> None:
        """Have the server forget what it was asked before, where the suite says so."""
        if self._plan.load.prefix_cache == "reset":
            way = await forget_prefixes(self._cell.provider)
            self.facts.extra["prefix_cache"] = {"mode": "reset", "by": way}

    async def _closed(self) -> None:
        """Ask one after the other, as long as the level goes on."""
        while not self._ends() and not (self._stop_ns and time.perf_counter_ns() >= self._stop_ns):
            prepared = await self._source.take()
            if prepared is None:
                return
            await self._ask(prepared, time.perf_counter_ns())

    async def _open(self, schedule: Schedule, group: asyncio.TaskGroup) -> None:
        """Send each request at its moment, whether or not those before are answered."""
        for offset in schedule:
            if self._over():
                return
            prepared = await self._source.take()
            due_ns = self._start_ns + int(offset * 1e9)
            if prepared is None or not await self._sleep_until(due_ns - self._ahead_ns):
                return
            if self._flying >= self._plan.in_flight:
                self.facts.capped += 1
                if not await self._room():
                    return
            self._flying += 1
            group.create_task(self._fly(prepared, due_ns))
            await asyncio.sleep(0)  # it is sent now, also where the next one is overdue

    async def _fly(self, prepared: Prepared, due_ns: int) -> None:
        try:
            await self._ask(prepared, due_ns)
        finally:
            self._flying -= 1
            self._landed.set()

    async def _sleep_until(self, due_ns: int) -> bool:
        """False where the run ends meanwhile."""
        while not self._ends():
            left_s = (due_ns - time.perf_counter_ns()) / 1e9
            # What is handed over early need not be so to the millisecond: the loop is left in peace.
            if left_s <= (_COARSE_S if self._ahead_ns else 0):
                return True
            await asyncio.sleep(min(left_s, _LOOK_S))
        return False

    async def _room(self) -> bool:
        """Wait until less is in flight than may be. False where the run ends meanwhile."""
        while self._flying >= self._plan.in_flight:
            if self._ends():
                return False
            self._landed.clear()
            await self._landed.wait()
        return True

    def _over(self) -> bool:
        """Whether nothing more need be sent, though the schedule goes on."""
        return False

    def _ends(self) -> bool:
        ends = self._stop.requested or self._fault is not None
        self._cut = self._cut or ends
        return ends

    async def _ask(self, prepared: Prepared, due_ns: int) -> None:
        """Ask once, and record what came of it."""
        request = prepared.request
        if self._kept_apart:
            request = replace(request, params=self._set_apart(request))
        if self._ahead_ns and self._plan.schedule is not None:
            request = replace(request, due_ns=due_ns)
        reservation = None
        if self._purse is not None:
            reservation = await self._purse.reserve(request, self._cell.price, self._ends)
            if reservation is None:
                return
        self.facts.sent += 1
        load = self._plan.load
        early = (due_ns - self._start_ns) / 1e9 < load.warmup_s
        warmup = early or self.facts.sent <= self._options.warmup
        self.in_flight += 1
        try:
            with self._deadlines:
                response = await self._cell.provider.generate(request)
        except DeadlineError:
            error = ProviderError(ErrorKind.TIMEOUT, f"no answer within {self._options.timeout_s:g} s")
            self._failed(prepared, error, due_ns, warmup)
        except ProviderError as error:
            self._failed(prepared, error, due_ns, warmup)
        except UserError as fault:
            self._fault = self._fault or fault
        else:
            self._breaker.success()
            self._breaker.patient = True  # it answers: what fails from here on is what load does
            self._keep(self._records.answered(prepared, response, due_ns, warmup=warmup))
        finally:
            self.in_flight -= 1
            if reservation is not None and self._purse is not None:
                self._purse.release(reservation)

    def _set_apart(self, request: Request) -> Mapping[str, JSON]:
        """The parameters of a request with what keeps a pass over the rows from the prefixes of every other
        one. One object for all requests that share theirs: what is made of it is made once."""
        if self._kept_apart == "cache_salt":
            own: Mapping[str, JSON] = {"cache_salt": digest([self._plan.salt, request.repeat])[:32]}
        else:
            own = {"cache_prompt": False}
        if request.params is not self._cell.params:
            return {**request.params, **own}
        if request.repeat not in self._apart:
            self._apart[request.repeat] = {**request.params, **own}
        return self._apart[request.repeat]

    def _failed(self, prepared: Prepared, error: ProviderError, due_ns: int, warmup: bool) -> None:
        self.facts.timed_out += error.kind is ErrorKind.TIMEOUT
        self.facts.retry_after += error.retry_after_s is not None
        self._keep(self._records.failed(prepared, error, (), warmup, due_ns))
        if self._breaker.failure(error):
            self._fault = self._fault or UserError(
                f"{error.message} ({self._breaker.count} failures alike in a row)",
                where=f"run {self._cell.run_id}",
                remedy="Fix the cause, then run the same command again: levels that are done are kept.",
                exit_code=ExitCode.INCOMPLETE,
            )

    def _keep(self, record: SampleRecord) -> None:
        if record.done_s is not None and record.scheduled_s is not None:
            self.facts.longest_s = max(self.facts.longest_s, record.done_s - record.scheduled_s)
        try:
            self._journal.append(record)
        except UserError as error:
            self._fault = self._fault or error
            return
        self._observer.sample(self._cell.run_id, record)
