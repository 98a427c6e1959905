"""Runs one cell of the matrix: asks every sample once, retries what may succeed later, scores, journals.

Concurrency is the number of worker tasks. Each worker takes a sample, asks, records and takes the next;
workers are added when the limit grows and retire when it falls, so no semaphore is needed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from evalrun.errors import ExitCode, UserError
from evalrun.frozen import frozen
from evalrun.providers.base import BatchProvider, Provider
from evalrun.providers.batch_api import batch_api_of
from evalrun.runner.attempts import (
    Asking,
    CircuitBreaker,
    DeadlineError,
    Deadlines,
    RetryPolicy,
    sleep_unless,
)
from evalrun.runner.cache import KeyMaker, ResponseCache, secret_params, sent_params
from evalrun.runner.journal import NOTHING_EARLIER, Earlier, Journal
from evalrun.runner.limits import Throttle
from evalrun.runner.records import ReadsAnswers, RecordMaker
from evalrun.runner.source import Prepared, Renders, Samples, Source, SourceOptions
from evalrun.suite.plan import RunSpec
from evalrun.types import JSON, Attempt, ErrorKind, ProviderError, Request, Response, SampleRecord, Status

if TYPE_CHECKING:
    from evalrun.suite.components import ModelSpec
    from evalrun.suite.values import PriceSpec


@frozen
class Cell:
    """One run, ready to go: samples, how each is asked, and how its answer is read.

    `params` are those that shape what is answered, `repeats` is how often each sample is asked, `price` what
    the model costs.
    """

    run_id: str
    samples: Samples
    renderer: Renders
    provider: Provider
    reader: ReadsAnswers
    params: Mapping[str, JSON]
    repeats: int = 1
    price: PriceSpec | None = None

    @classmethod
    def of(
        cls, spec: RunSpec, samples: Samples, renderer: Renders, provider: Provider, reader: ReadsAnswers
    ) -> Cell:
        """A cell of the matrix."""
        return cls(
            spec.run_id,
            samples,
            renderer,
            provider,
            reader,
            sent_params(spec),
            spec.repeats,
            asked_price(spec.model, provider),
        )


def asked_price(model: ModelSpec, provider: Provider) -> PriceSpec | None:
    """What a model costs as it is asked: by request, or in batches."""
    price = model.price
    return price.batched() if price is not None and batch_api_of(provider) is not None else price


@frozen
class CellOptions:
    """How to ask, apart from what is asked."""

    stream: bool
    warmup: int
    timeout_s: float
    retries: int
    seed: int
    tolerate: float
    """Largest share of failed samples with which the run still counts as done."""
    patient: bool = False
    """All samples may fail, the user said: only what cannot recover by itself ends the run early."""


class Observer(Protocol):
    """Called with each sample as it is journalled."""

    def sample(self, run_id: str, record: SampleRecord) -> None: ...


@frozen
class Reservation:
    """What one request may cost."""

    usd: float
    tokens: float


class Purse(Protocol):
    """Pays for requests, and says which may be sent."""

    async def reserve(
        self, request: Request, price: PriceSpec | None, give_up: Callable[[], bool]
    ) -> Reservation | None:
        """Wait until what a request may cost is at hand, and put it by. None when `give_up` said meanwhile
        that it need not be sent."""
        ...

    def release(self, reservation: Reservation) -> None:
        """What the request truly cost is counted, or it cost nothing."""
        ...


@dataclass(slots=True)
class Stop:
    """Asks all runs to stop taking samples: set by Ctrl-C, or with a fault where a budget is spent."""

    requested: bool = False
    fault: UserError | None = None


@frozen
class CellContext:
    """What a run works with, and shares with others."""

    journal: Journal
    cache: ResponseCache | None
    throttle: Throttle
    observer: Observer
    stop: Stop
    purse: Purse | None = None
    """Where the suite has a budget."""


_GOES_ON = "then run the same command again: it goes on where it stopped."


class _LeftUnaskedError(Exception):
    """The run ends, and the sample with it, before it has had its attempts: it has no record."""


def _remedy(error: ProviderError) -> str:
    """What to do about a run that failures of this kind ended."""
    if error.kind is ErrorKind.BILLING:
        return f"See to the account (credit, limits), {_GOES_ON}"
    remedy = f"Fix the cause, {_GOES_ON}"
    if error.kind in (ErrorKind.ENGINE, ErrorKind.AUTH):
        return remedy
    return f"{remedy} Where the rows themselves are the cause, errors: {{tolerate: 1}} goes on past them."


class CellRun:
    """The execution of one cell. `run` may be called once."""

    def __init__(
        self, cell: Cell, options: CellOptions, context: CellContext, earlier: Earlier = NOTHING_EARLIER
    ) -> None:
        """`earlier` is what the journal already holds of this run: its times go on from there."""
        done = earlier.done
        self._cell = cell
        self._options = options
        self._journal = context.journal
        self._limit = context.throttle.limit
        self._budget = context.throttle.budget
        self._slots = context.throttle.slots
        self._observer = context.observer
        self._purse = context.purse
        self._stop = context.stop
        self._policy = RetryPolicy(retries=options.retries)
        self._breaker = CircuitBreaker(patient=options.patient, answered=bool(done))
        self._failed_before = earlier.failed
        self._deadlines = Deadlines(options.timeout_s)
        self._rng = random.Random(options.seed)
        self._group: asyncio.TaskGroup
        self._workers = 0
        self.in_flight = 0
        """Requests that were sent and are not answered yet."""
        self._fault: UserError | None = None
        self._asked = len(done)
        self._failed = 0
        self._total = len(cell.samples) * cell.repeats
        self._left = self._total - len(done)
        asked = cell.provider.measured or batch_api_of(cell.provider) is not None
        self._cache = context.cache if asked else None
        self._keys: KeyMaker | None = None
        if self._cache is not None:
            secrets = self._cache.credentials({**cell.provider.credentials(), **secret_params(cell.params)})
            self._keys = KeyMaker(cell.provider.identity(), cell.params, secrets)
            self._cache.begin_run(self._keys)
        self._records = RecordMaker(cell.reader, cell.price, earlier.clock_s)
        self._source = Source(
            cell.samples,
            cell.renderer,
            SourceOptions(cell.params, cell.repeats, options.seed, options.stream),
            skip=done,
            last=earlier.failed,
            cache=self._cache,
            keys=self._keys,
            on_hit=self._hit,
        )

    @property
    def stages(self) -> dict[str, float]:
        """Seconds that rendering and scoring took."""
        return {"render": self._source.render_s, "score": self._records.score_s}

    @property
    def complete(self) -> bool:
        """Whether every sample has its record."""
        return self._left <= 0

    async def run(self) -> None:
        """Ask everything that is not done yet.

        Raises UserError (exit code 3) when the run cannot be completed; what was answered is journalled.
        """
        try:
            if isinstance(self._cell.provider, BatchProvider):
                await self._run_batches(self._cell.provider)
            else:
                await self._run_workers()
        finally:
            if self._cache is not None:
                await self._cache.flush()
        if self._fault is not None:
            raise self._fault

    async def _run_workers(self) -> None:
        watch = asyncio.get_running_loop().create_task(self._deadlines.watch())
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._grow()
        finally:
            watch.cancel()

    def _grow(self) -> None:
        while self._workers < self._limit.current:
            self._workers += 1
            self._group.create_task(self._work())

    async def _work(self) -> None:
        try:
            while not self._stop.requested and self._fault is None:
                prepared = await self._source.take()
                if prepared is None:
                    return
                if self._slots is None:
                    await self._ask(prepared)
                else:
                    async with self._slots:
                        if not self._stop.requested:
                            await self._ask(prepared)
                if self._workers < self._limit.current:
                    self._grow()
                elif self._workers > self._limit.current:
                    return
        except UserError as error:
            self._fault = self._fault or error
        finally:
            self._workers -= 1

    async def _ask(self, prepared: Prepared) -> None:
        """Ask a sample, with what it may cost put by where there is a budget."""
        if self._purse is None:
            await self._ask_now(prepared)
            return
        reservation = await self._purse.reserve(prepared.request, self._cell.price, self._ends)
        if reservation is None:
            return
        try:
            await self._ask_now(prepared)
        finally:
            self._purse.release(reservation)

    async def _ask_now(self, prepared: Prepared) -> None:
        asking = Asking(prepared, time.perf_counter_ns(), self._is_warmup())
        if self._budget is not None and not await self._admit(asking):
            return
        in_flight = self._workers if self._slots is None else self._slots.taken
        self._limit.started(in_flight - (self._budget.waiting if self._budget is not None else 0))
        try:
            with self._deadlines:
                response = await self._attempts(asking)
        except DeadlineError:
            self._limit.disturbed()
            self._settle(asking, None)
            error = ProviderError(ErrorKind.TIMEOUT, asking.timeout_message(self._options.timeout_s))
            asking.attempted(error)
            self._give_up(prepared, error, asking.log, asking.warmup)
        except ProviderError as error:
            self._give_up(prepared, error, asking.log, asking.warmup)
        except _LeftUnaskedError:
            pass  # the next start asks it, with all its attempts
        else:
            self._breaker.success()
            record = self._records.answered(
                prepared, response, asking.scheduled_ns, asking.log, warmup=asking.warmup
            )
            self._keep(prepared, response, record)

    def _is_warmup(self) -> bool:
        self._asked += 1
        return self._asked <= self._options.warmup

    async def _admit(self, asking: Asking) -> bool:
        """Wait for the endpoint's budget. False when the run ends meanwhile: the sample is not asked then.

        The first wait comes before the sample's deadline begins, and a later one does not count to it:
        what we hold back ourselves says nothing of the server.
        """
        assert self._budget is not None
        since_ns = time.perf_counter_ns()
        with self._deadlines.suspended():
            asking.ticket = await self._budget.admit(asking.prepared.request, self._ends)
        asking.held_back((time.perf_counter_ns() - since_ns) / 1e9)
        return asking.ticket is not None

    def _ends(self) -> bool:
        return self._stop.requested or self._fault is not None

    def _settle(self, asking: Asking, response: Response | None) -> None:
        if self._budget is not None and asking.ticket is not None:
            request = asking.prepared.request
            if response is None:
                self._budget.settle(asking.ticket, request, None, None)
            else:
                self._budget.settle(
                    asking.ticket, request, response.prompt_tokens, response.completion_tokens
                )

    async def _attempts(self, asking: Asking) -> Response:
        loop = asyncio.get_running_loop()
        while True:
            try:
                self.in_flight += 1
                try:
                    response = await self._cell.provider.generate(asking.prepared.request)
                finally:
                    self.in_flight -= 1
            except ProviderError as error:
                self._settle(asking, None)
                await self._pause(self._next_wait_s(asking, error, loop.time()))
                if self._budget is not None and not await self._admit(asking):
                    raise _LeftUnaskedError from error
            else:
                self._settle(asking, response)
                if asking.log:
                    asking.attempted(None)
                else:
                    self._limit.succeeded(loop.time())
                return response

    def _next_wait_s(self, asking: Asking, error: ProviderError, now_s: float) -> float:
        """Seconds until the next attempt. Raises the error where there will be none, and says so."""
        if error.kind is ErrorKind.RATE_LIMIT:
            self._limit.rate_limited(now_s, error.retry_after_s)
        else:
            self._limit.disturbed()
        failed = len(asking.log) + 1
        wait = self._policy.wait_s(error, failed, self._deadlines.remaining_s(), self._rng)
        asking.attempted(error, wait or 0.0)
        if wait is None and self._policy.may_retry(error, failed):
            asked = (
                ""
                if error.retry_after_s is None
                else f"the server asks to wait {error.retry_after_s:,.0f} s; "
            )
            error.message += f" ({asked}waiting would pass the {self._options.timeout_s:g} s of timeout_s)"
        if wait is None:
            raise error
        return wait

    async def _pause(self, seconds: float) -> None:
        """Wait between two attempts. Raises _LeftUnaskedError, soon, where the run ends meanwhile."""
        if not await sleep_unless(self._ends, seconds):
            raise _LeftUnaskedError

    def _hit(self, prepared: Prepared, response: Response) -> None:
        self._journal_record(self._records.cached(prepared, response))

    def _keep(self, prepared: Prepared, response: Response, record: SampleRecord) -> None:
        if prepared.key is not None and self._keys is not None and record.status is not Status.REFUSED:
            assert self._cache is not None
            self._cache.put(prepared.key, response, self._keys.parts(prepared.request))
        self._journal_record(record)

    def _give_up(self, prepared: Prepared, error: ProviderError, log: list[Attempt], warmup: bool) -> None:
        self._journal_record(self._records.failed(prepared, error, log, warmup))
        self._failed += 1
        again = (prepared.item.sample_id, prepared.request.repeat) in self._failed_before
        if self._breaker.failure(error, again=again):
            self._fault = UserError(
                error.message
                if error.kind in (ErrorKind.ENGINE, ErrorKind.BILLING)
                else f"{error.message} ({self._breaker.count} failures alike in a row)",
                where=f"run {self._cell.run_id}",
                remedy=_remedy(error),
                exit_code=ExitCode.INCOMPLETE,
            )
        elif self._failed > self._options.tolerate * self._total:
            self._fault = UserError(
                f"{self._failed} of {self._total} samples failed, more than the"
                f" {self._options.tolerate:.0%} that errors.tolerate allows; the last one: {error.message}",
                where=f"run {self._cell.run_id}",
                remedy="Fix the cause, then run the same command again: failed samples are asked anew.",
                exit_code=ExitCode.INCOMPLETE,
            )

    def _journal_record(self, record: SampleRecord) -> None:
        try:
            self._journal.append(record)
        except UserError as error:
            self._fault = error
            self._source.stop()
            return
        self._left -= 1
        self._observer.sample(self._cell.run_id, record)

    async def _ask_batch(
        self, provider: BatchProvider, batch: Sequence[Prepared]
    ) -> Sequence[Response | ProviderError]:
        """One call for all. The samples share their deadlines: what one does not use another may."""
        seconds = self._options.timeout_s * len(batch)
        self.in_flight += len(batch)
        try:
            async with asyncio.timeout(seconds):
                return await provider.generate_batch([each.request for each in batch])
        except TimeoutError:
            message = f"no answer to a batch of {len(batch)} within {seconds:g} s"
            return [ProviderError(ErrorKind.TIMEOUT, message)] * len(batch)
        finally:
            self.in_flight -= len(batch)

    async def _run_batches(self, provider: BatchProvider) -> None:
        while not self._stop.requested and self._fault is None:
            batch: list[Prepared] = []
            while len(batch) < provider.batch_size and (one := await self._source.take()) is not None:
                batch.append(one)
            if not batch:
                return
            scheduled_ns = time.perf_counter_ns()
            answers = await self._ask_batch(provider, batch)
            for prepared, answer in zip(batch, answers, strict=True):
                warmup = self._is_warmup()
                if isinstance(answer, ProviderError):
                    self._give_up(prepared, answer, [], warmup)
                else:
                    self._breaker.success()
                    record = self._records.answered(prepared, answer, scheduled_ns, warmup=warmup)
                    self._keep(prepared, answer, record)
