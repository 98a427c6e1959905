"""Runs one cell through a batch API: hands all requests over, waits for hours, takes the answers.

Each step is kept in `batches.jsonl` before the next (`batch_journal`), so that a run that died, or was
stopped, goes on with the batches that run at the provider. Equal requests are handed over once. What expired
or failed in a way that may pass goes into a next batch. Nothing of it has a latency.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from evalrun.errors import ExitCode, UserError
from evalrun.providers.batch_api import BatchAPI, BatchState
from evalrun.runner.attempts import RetryPolicy, sleep_unless
from evalrun.runner.batch_journal import Batch, BatchJournal
from evalrun.runner.cache import KeyMaker
from evalrun.runner.cell import Cell, CellContext, CellOptions, CellRun, Reservation
from evalrun.runner.journal import NOTHING_EARLIER, Earlier
from evalrun.runner.source import Prepared
from evalrun.types import RETRYABLE, ErrorKind, ProviderError

T = TypeVar("T")

AT_ONCE = 200_000
"""Requests of a run that are handed over at a time: each stays in memory until it is answered."""
_CLOCKS_S = 600.0
"""How far the provider's clock may be behind ours."""
_TURN = 100
"""Answers taken in one turn of the event loop."""
_UNCERTAIN = RETRYABLE - {ErrorKind.RATE_LIMIT}
"""Failures after which a batch may have been made all the same."""


class _StoppedError(Exception):
    """The run ends before its batches do: they run on."""


class BatchedRun(CellRun):
    """The execution of one cell through a batch API."""

    def __init__(
        self,
        cell: Cell,
        options: CellOptions,
        context: CellContext,
        earlier: Earlier = NOTHING_EARLIER,
        *,
        api: BatchAPI,
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        """`folder` is that of the run, `say` tells the user what happens."""
        super().__init__(cell, options, context, earlier)
        self._api, self._say = api, say
        self._book = BatchJournal(folder)
        # Without what the cache's keys have of this store: the same whether there is a cache or not.
        self._own_keys = KeyMaker(cell.provider.identity(), cell.params)
        self._patience = RetryPolicy(retries=4 * options.retries)
        self._asking: dict[str, list[Prepared]] = {}
        """Samples that wait for the answer to a request, by its key."""
        self._waiting: deque[str] = deque()
        """Keys that are in no batch yet."""
        self._reserved: dict[str, Reservation] = {}
        self._tries: dict[str, int] = {}
        self._most = api.requests
        self._states: dict[int, BatchState] = {}
        self._alone = False
        """One batch at a time: the provider said that too much was handed over."""
        self._merged = self._again = self._adopted = 0

    def document(self) -> dict[str, Any]:
        """What was handed over, as JSON."""
        return {
            "ids": [batch.id for batch in self._book.batches.values() if batch.id],
            "requests": sum(len(batch.keys) for batch in self._book.batches.values()),
            "merged": self._merged,
            "asked_again": self._again,
            "adopted": self._adopted,
        }

    async def _run_workers(self) -> None:
        try:
            for batch in self._book.open:
                if batch.id is not None:
                    self._adopted += 1
                    self._say(f"{self._named(batch)} is taken up")
            while not self._ends():
                await self._fill()
                await self._hand_over()
                if not (self._book.open or self._waiting):
                    return
                await self._look()
        except _StoppedError:
            pass
        except ProviderError as error:
            self._fault = self._fault or self._broken(error)
        except UserError as error:
            self._fault = self._fault or error
        finally:
            self._leave()

    # --- what is asked ----------------------------------------------------------------------------------

    async def _fill(self) -> None:
        """Take samples until enough are at hand, and all those that batches speak of already."""
        handed = {key for batch in self._book.open for key in batch.keys}
        missing = handed - self._asking.keys()
        while len(self._asking) < AT_ONCE or missing:
            prepared = await self._source.take()
            if prepared is None:
                break
            key = self._key(prepared)
            if key in self._asking:
                self._merged += 1
            elif key not in handed:
                self._waiting.append(key)
            missing.discard(key)
            self._asking.setdefault(key, []).append(prepared)

    def _key(self, prepared: Prepared) -> str:
        """Of the request: everything that shapes its answer. 64 characters, which is what the APIs take."""
        request, drawn = prepared.request, prepared.item.repeat
        repeat = request.repeat if drawn is None else 0
        seed = request.params.get("seed")
        return self._own_keys.key(
            request.messages, request.prompt, repeat, seed, request.ask, request.exact
        ).hex()

    async def _hand_over(self) -> None:
        """Make batches of what waits, and go on with those that had not come so far."""
        while self._waiting and not self._ends() and not (self._alone and self._book.open):
            keys, lines = await self._next_lines()
            if not keys:
                break
            self._book.make(keys, lines)
        for batch in self._book.open:
            if batch.id is None and not self._ends():
                await self._start(batch)

    async def _next_lines(self) -> tuple[list[str], list[bytes]]:
        """The requests of one batch: as many as the API takes and the budget bears."""
        keys: list[str] = []
        lines: list[bytes] = []
        size = 0
        while self._waiting and len(keys) < self._most:
            key = self._waiting[0]
            try:
                line = self._api.line(key, self._asking[key][0].request)
                if len(line) >= self._api.most_bytes:
                    what = f"the request has {len(line):,} bytes, more than a batch takes"
                    raise ProviderError(ErrorKind.BAD_REQUEST, what)
            except ProviderError as error:
                self._waiting.popleft()
                self._fail(key, error)
                continue
            if size + len(line) + 1 > self._api.most_bytes or not await self._reserve(key):
                break
            self._waiting.popleft()
            keys.append(key)
            lines.append(line)
            size += len(line) + 1
            if not len(keys) % _TURN:
                await asyncio.sleep(0)
        return keys, lines

    async def _reserve(self, key: str) -> bool:
        """Put by what a request may cost. False where the budget does not bear it beside the others."""
        if self._purse is None or key in self._reserved:
            return True
        looked = iter((False,))
        reservation = await self._purse.reserve(
            self._asking[key][0].request, self._cell.price, lambda: next(looked, True)
        )
        if reservation is None:
            return False
        self._reserved[key] = reservation
        return True

    # --- at the provider --------------------------------------------------------------------------------

    async def _start(self, batch: Batch) -> None:
        """Bring a batch from its file to the provider; where it may be there already, look for it first."""
        state = None
        if batch.file is None:
            path = self._book.requests(batch)
            self._book.uploaded(batch, await self._patiently(lambda: self._api.upload(path)))
        elif batch.number not in self._states:
            state = await self._search(batch)
        state = state or await self._create(batch)
        self._states[batch.number] = state
        self._book.created(batch, state.id)
        self._say(f"{self._named(batch)} is at the provider")

    async def _create(self, batch: Batch) -> BatchState:
        path, label = self._book.requests(batch), f"{self._cell.run_id}/{batch.number}"[:512]
        failed = 0
        while True:
            try:
                return await self._api.create(path, batch.file or "", label)
            except ProviderError as error:
                failed += 1
                if error.kind not in RETRYABLE:
                    self._book.take(batch)  # nothing runs: what is corrected makes a batch of its own
                await self._wait_or_raise(error, failed)
                if error.kind in _UNCERTAIN and (state := await self._search(batch)) is not None:
                    return state

    async def _search(self, batch: Batch) -> BatchState | None:
        """The batch at the provider that was made of these requests, where there is one."""
        for state in await self._patiently(lambda: self._candidates(batch)):
            if self._api.names_files or await self._is_mine(batch, state):
                self._adopted += 1
                return state
        return None

    async def _candidates(self, batch: Batch) -> list[BatchState]:
        known = self._book.known_elsewhere() | {own.id for own in self._book.batches.values() if own.id}
        found = []
        async for state in self._api.listed():
            if state.created_s < batch.made_s - _CLOCKS_S:
                break
            same = state.file == batch.file if self._api.names_files else state.total == len(batch.keys)
            if same and state.id not in known:
                found.append(state)
        return found

    async def _is_mine(self, batch: Batch, state: BatchState) -> bool:
        """Whether a batch of as many requests answers ours: only its results tell, so they are waited for."""
        if not state.ended:
            what = "may be this run's, which died while it was handed over: its results will tell"
            self._say(f"{self._cell.run_id}: batch {state.id} {what}")
        while not state.ended:
            await sleep_unless(self._ends, self._api.options.poll_s)
            if self._ends():
                raise _StoppedError
            state = await self._state(state.id)
        path = self._book.results(batch)
        await self._patiently(partial(self._api.fetch, state, path))
        keys = set(batch.keys)
        with path.open("rb") as file:
            return any(self._read(line)[0] in keys for line in file if line.strip())

    async def _look(self) -> None:
        """Wait a little, then see how the batches stand, and take those that ended."""
        if any(batch.id is not None for batch in self._book.open) or self._waiting:
            await sleep_unless(self._ends, 0 if self._any_new() else self._api.options.poll_s)
        for batch in self._book.open:
            if batch.id is None or self._ends():
                continue
            state = await self._state(batch.id)
            before = self._states.get(batch.number)
            self._states[batch.number] = state
            if state.ended:
                await self._take(batch, state)
            elif before is None or before.done != state.done:
                self._say(f"{self._named(batch)}: {state.done:,} done")

    async def _state(self, name: str) -> BatchState:
        return await self._patiently(partial(self._api.state, name))

    def _any_new(self) -> bool:
        """Whether a batch was taken up of which nothing is known yet."""
        return any(batch.number not in self._states for batch in self._book.open)

    # --- the answers ------------------------------------------------------------------------------------

    async def _take(self, batch: Batch, state: BatchState) -> None:
        """Keep the answers of an ended batch, and let what is to be asked again wait."""
        if state.refused and not state.results:
            self._refused(batch, state)
            return
        path = self._book.results(batch)
        await self._patiently(lambda: self._api.fetch(state, path))
        left = dict.fromkeys(batch.keys)
        with path.open("rb") as file:
            for number, line in enumerate(file):
                if line.strip():
                    key, answer = self._read(line)
                    if key in left:
                        del left[key]
                        self._answered(key, answer)
                if not number % _TURN:
                    await asyncio.sleep(0)
        for key in left:
            self._answered(key, ProviderError(ErrorKind.TIMEOUT, "the batch ended without an answer to it"))
        await self._journal.durable()
        self._book.take(batch)
        self._say(f"{self._named(batch)}: its answers are here")
        if state.cancelled and self._waiting:
            self._fault = UserError(
                f"batch {state.id} was cancelled at the provider before all of it was answered",
                where=f"run {self._cell.run_id}",
                remedy="What was answered is kept. Run the same command again: it asks the rest.",
                exit_code=ExitCode.INCOMPLETE,
            )

    def _read(self, line: bytes) -> tuple[str, Any]:
        try:
            return self._api.read(line)
        except (ValueError, LookupError, TypeError, AttributeError):
            return "", None  # a line that says of no request what became of it

    def _answered(self, key: str, answer: Any) -> None:
        samples = self._asking.get(key)
        if samples is None:  # journalled before the run died
            return
        if isinstance(answer, ProviderError):
            self._tries[key] = self._tries.get(key, 0) + 1
            if answer.kind in RETRYABLE and self._tries[key] < self._api.options.rounds:
                self._again += 1
                self._waiting.append(key)
            else:
                self._fail(key, answer)
            return
        self._breaker.success()
        del self._asking[key]
        now_ns = time.perf_counter_ns()
        for number, prepared in enumerate(samples):
            # Paid for once, however many samples it answers.
            record = (
                self._records.cached(prepared, answer)
                if number
                else self._records.answered(prepared, answer, now_ns)
            )
            self._keep(prepared, answer, record)
        self._free(key)

    def _fail(self, key: str, error: ProviderError) -> None:
        for prepared in self._asking.pop(key):
            self._give_up(prepared, error, [], False)
        self._free(key)

    def _free(self, key: str) -> None:
        reservation = self._reserved.pop(key, None)
        if reservation is not None and self._purse is not None:
            self._purse.release(reservation)

    def _refused(self, batch: Batch, state: BatchState) -> None:
        """The API took none of a batch: too much waits there already, or something is wrong with the file."""
        self._book.take(batch)
        if not state.limited or len(batch.keys) == 1:
            raise UserError(
                f"the provider refused batch {state.id}: {state.refused}",
                where=f"run {self._cell.run_id}",
                remedy="Correct what it says, then run the same command again: nothing of it was paid for.",
                exit_code=ExitCode.INCOMPLETE,
            )
        self._waiting.extendleft(reversed([key for key in batch.keys if key in self._asking]))
        self._alone = True
        if not self._book.open:
            self._most = max(1, min(self._most, len(batch.keys)) // 2)
        self._say(f"{self._named(batch)} was refused: {state.refused}. Smaller ones follow, one at a time.")

    # --- waiting, ending --------------------------------------------------------------------------------

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """What a call gives, after failures that may pass."""
        failed = 0
        while True:
            try:
                return await call()
            except ProviderError as error:
                failed += 1
                await self._wait_or_raise(error, failed)

    async def _wait_or_raise(self, error: ProviderError, failed: int) -> None:
        wait = self._patience.wait_s(error, failed, float("inf"), self._rng)
        if wait is None:
            raise error
        if not await sleep_unless(self._ends, wait):
            raise _StoppedError from error

    def _broken(self, error: ProviderError) -> UserError:
        running = ", ".join(batch.id for batch in self._book.open if batch.id)
        kept = f" Batches at the provider run on: {running}." if running else ""
        if error.kind is ErrorKind.NOT_FOUND and running:
            kept += f" If they are gone for good, delete {self._book.path}: all is asked anew then."
        return UserError(
            f"the batch API: {error.message}",
            where=f"run {self._cell.run_id}",
            remedy=f"Fix the cause, then run the same command again: it goes on where it stopped.{kept}",
            exit_code=ExitCode.INCOMPLETE,
        )

    def _leave(self) -> None:
        """Say what runs on without us."""
        for batch in self._book.open:
            if batch.id is not None:
                self._say(
                    f"{self._named(batch)} runs on at the provider; the same command again takes its answers"
                )

    def _named(self, batch: Batch) -> str:
        name = batch.id or str(batch.number)
        return f"{self._cell.run_id}: batch {name} ({len(batch.keys):,} requests)"
