"""What the tasks of a sweep share: limits of endpoints, the budget, a wish to stop, and how far each is.

One Ray actor keeps it. Requests and tokens are reserved before a request is sent and corrected after. The
minute of a reservation begins when the actor made it, and a task sends at once or gives it back, so the
window is longer by the longest time between the two. Where the actor dies each task waits a whole window
(others may have sent until just now) and then keeps to its share of the limit: the limit over as many tasks
as there can be. One that does not answer for long is killed by whoever waits, so that it is dead for all. A
budget without its keeper pays for nothing more: the same command goes on.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evalrun.errors import ExitCode, UserError
from evalrun.runner.attempts import LOOK_S
from evalrun.runner.cell import Reservation
from evalrun.runner.limits import WINDOW_S, EndpointBudget, MinuteBudget, Ticket, TokenGuess
from evalrun.types import Request, SampleRecord, Status

if TYPE_CHECKING:
    from evalrun.suite.values import LimitsSpec, PriceSpec

STALE_S = 0.75
"""A reservation that took longer to arrive is given back."""
LONG_WINDOW_S = WINDOW_S + STALE_S
REPORT_S = 0.5
SILENT_S = 30.0
"""A keeper that does not answer for so long is killed: paused or cut off, it cannot be told from dead."""


def budgets_of(limits: LimitsSpec, share: float = 1.0, window_s: float = LONG_WINDOW_S) -> EndpointBudget:
    """The budgets of an endpoint, or a share of them."""
    requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
    return EndpointBudget(
        MinuteBudget(requests * share, window_s) if requests else None,
        MinuteBudget(tokens * share, window_s) if tokens else None,
    )


@dataclass(slots=True)
class Attempt:
    """One attempt at a shard: where, and how many of its samples it had recorded when it last spoke."""

    node: str
    done: int = 0
    failed: int = 0
    ended: bool = False


@dataclass(slots=True)
class Purse:
    """What may be spent over all nodes: US dollars and tokens (None: any), spent and put by."""

    usd: float | None
    tokens: float | None
    spent_usd: float = 0.0
    spent_tokens: float = 0.0
    put_by: dict[int, tuple[str, Reservation]] = field(default_factory=dict)
    """What requests in flight may cost, with the attempt at a shard that sent each."""

    def lose(self, attempt: str) -> None:
        """An attempt died: what it had in flight was sent, and counts as spent."""
        for number, (owner, reservation) in list(self.put_by.items()):
            if owner == attempt:
                del self.put_by[number]
                self.spent_usd += reservation.usd
                self.spent_tokens += reservation.tokens

    def bears(self, usd: float, tokens: float) -> bool:
        """Whether a request may be sent beside those put by; one alone always, until all is spent."""
        if self.spent:
            return False
        if not self.put_by:
            return True
        usd += self.spent_usd + sum(each.usd for _, each in self.put_by.values())
        tokens += self.spent_tokens + sum(each.tokens for _, each in self.put_by.values())
        return (self.usd is None or usd <= self.usd) and (self.tokens is None or tokens <= self.tokens)

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return (self.usd is not None and self.spent_usd >= self.usd) or (
            self.tokens is not None and self.spent_tokens >= self.tokens
        )


class Keeper:
    """The actor. Every method is a moment's work: who must wait is told how long, and asks again."""

    def __init__(
        self, limits: Mapping[str, LimitsSpec], purse: Purse | None = None, quiet_s: float = 0.0
    ) -> None:
        """`quiet_s`: nothing is admitted before: tasks of an earlier part may have sent until just now."""
        self._budgets = {endpoint: budgets_of(each) for endpoint, each in limits.items()}
        self._tickets: dict[int, tuple[str, Ticket]] = {}
        self._numbers = itertools.count()
        self._purse = purse
        self._opens_s = time.monotonic() + quiet_s
        self._attempts: dict[str, dict[str, Attempt]] = {}
        self._stop = False
        self._share = 0.0

    async def admit(self, endpoint: str, tokens: float) -> tuple[float, int]:
        """How long to wait before asking again, and, where that is 0, the number of the reservation."""
        now_s = time.monotonic()
        budget = self._budgets[endpoint]
        wait = max(self._opens_s - now_s, budget.requests.wait_s(now_s, 1) if budget.requests else 0.0)
        wait = max(wait, budget.tokens.wait_s(now_s, tokens) if budget.tokens else 0.0)
        if wait > 0:
            return wait, -1
        number = next(self._numbers)
        self._tickets[number] = (
            endpoint,
            Ticket(
                budget.requests.charge(now_s, 1) if budget.requests else None,
                budget.tokens.charge(now_s, tokens) if budget.tokens else None,
            ),
        )
        return 0.0, number

    async def settle(self, number: int, tokens: float | None, requests: float = 1) -> None:
        """Put the true tokens (None: as estimated) in the estimate's place; `requests=0` gives it back."""
        endpoint, ticket = self._tickets.pop(number)
        budget = self._budgets[endpoint]
        if ticket.requests is not None and budget.requests is not None and requests != 1:
            budget.requests.correct(ticket.requests, requests)
        if ticket.tokens is not None and budget.tokens is not None and tokens is not None:
            budget.tokens.correct(ticket.tokens, tokens)

    async def reserve(self, usd: float, tokens: float, attempt: str = "") -> int | None:
        """The number of a reservation of the budget, -1 where it must wait, None where all is spent."""
        assert self._purse is not None
        if self._purse.spent:
            self._stop = True
            return None
        if not self._purse.bears(usd, tokens):
            return -1
        number = next(self._numbers)
        self._purse.put_by[number] = attempt, Reservation(usd, tokens)
        return number

    async def pay(self, number: int, usd: float, tokens: float) -> None:
        """What the request truly cost."""
        assert self._purse is not None
        self._purse.put_by.pop(number, None)
        self._purse.spent_usd += usd
        self._purse.spent_tokens += tokens

    async def spent(self, usd: float, tokens: float) -> None:
        """What the driver knows to be spent, where that is more."""
        if self._purse is not None:
            self._purse.spent_usd = max(self._purse.spent_usd, usd)
            self._purse.spent_tokens = max(self._purse.spent_tokens, tokens)

    async def seats(self, count: int) -> None:
        """How many tasks can ask at a time."""
        self._share = 1.0 / count

    async def report(
        self, shard: str, attempt: str, node: str, counts: tuple[int, int], ended: bool
    ) -> tuple[bool, float]:
        """How far an attempt is: samples recorded, and failed ones among them. Gives whether to stop, and a
        task's share of the limits (0: as it was told)."""
        attempts = self._attempts.setdefault(shard, {})
        if attempt not in attempts and self._purse is not None:
            for lost in attempts:
                self._purse.lose(lost)
        own = attempts.setdefault(attempt, Attempt(node))
        own.done, own.failed, own.ended = counts[0], counts[1], ended
        return self._stop, self._share

    async def stop(self) -> None:
        """Let all tasks end after what is in flight."""
        self._stop = True

    async def state(self) -> dict[str, Any]:
        """Samples recorded by shard, and by each attempt that has not ended."""
        return {
            "recorded": {shard: sum(e.done for e in some.values()) for shard, some in self._attempts.items()},
            "lost": {
                attempt: (shard, each.done)
                for shard, some in self._attempts.items()
                for attempt, each in some.items()
                if not each.ended
            },
            "spent": self._purse.spent if self._purse is not None else False,
        }


class Line:
    """A line to the keeper. `dead` once the keeper is; `share` is the part of the limits that is a task's
    then."""

    def __init__(self, handle: Any, share: float = 1.0) -> None:
        self._handle = handle
        self.dead, self.share = False, share

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the keeper; None where it is dead, or was out of reach for long."""
        import ray
        from ray.exceptions import ActorDiedError, RayError

        if self.dead:
            return None
        try:
            # Not asyncio.wait_for: until Python 3.12 that drops a cancellation which comes with the answer.
            async with asyncio.timeout(SILENT_S):
                return await getattr(self._handle, method).remote(*arguments)
        except ActorDiedError:
            self.dead = True
        except TimeoutError:
            ray.kill(self._handle)
            self.dead = True
        except RayError:  # out of reach: whoever needs an answer asks again
            await asyncio.sleep(LOOK_S)
        return None

    def tell(self, method: str, *arguments: Any) -> None:
        """Call a method without waiting for it."""
        if not self.dead:
            getattr(self._handle, method).remote(*arguments)


class SharedBudget(EndpointBudget):
    """The budget of an endpoint that the keeper keeps, in the place of one's own."""

    @classmethod
    def joined(cls, line: Line, endpoint: str, limits: LimitsSpec) -> SharedBudget:
        """The budget of an endpoint by the keeper that the line leads to."""
        own = budgets_of(limits)
        made = cls(own.requests, own.tokens)
        made._line, made._endpoint, made._limits, made._opens_s = line, endpoint, limits, None
        return made

    def begin_shard(self) -> None:
        """Without keeper a shard waits anew: another task may have asked in the minute that is ours."""
        self._opens_s = None

    __slots__ = ("_endpoint", "_limits", "_line", "_opens_s")
    _line: Line
    _limits: LimitsSpec
    _endpoint: str
    _opens_s: float | None

    async def admit(self, request: Request, give_up: Callable[[], bool]) -> Ticket | None:
        """Wait until the request may be sent. None when `give_up` said meanwhile that it need not be."""
        began_s, held = time.monotonic(), False
        self.waiting += 1
        try:
            async with self._turn:
                while not give_up():
                    wait, ticket = await self._try(self.guess.tokens(request) if self.tokens else 0.0)
                    if ticket is not None:
                        if held:
                            self.held_back += 1
                            self.waited_s += time.monotonic() - began_s
                        return ticket
                    held = True
                    await asyncio.sleep(min(wait, self.LOOK_S))
                return None
        finally:
            self.waiting -= 1

    async def _try(self, tokens: float) -> tuple[float, Ticket | None]:
        now_s = time.monotonic()
        if self._line.dead:
            return self._alone(now_s, tokens)
        said = await self._line.call("admit", self._endpoint, tokens)
        if said is None:
            return LOOK_S, None
        wait, number = said
        if wait > 0:
            return wait, None
        if time.monotonic() - now_s > STALE_S:
            await self._line.call("settle", number, 0.0, 0)
            return 0.0, None
        return 0.0, KeptTicket(None, None, number)

    def _alone(self, now_s: float, tokens: float) -> tuple[float, Ticket | None]:
        """The keeper is dead: a window in which nothing is sent, then our share. Raises UserError (exit 3)
        where that is less than a request."""
        if self._opens_s is None:
            self._opens_s = now_s + LONG_WINDOW_S
            own = budgets_of(self._limits, self._line.share)
            self.requests, self.tokens = own.requests, own.tokens
        small = self.requests is not None and self.requests.per_minute < 1
        if small or (self.tokens is not None and tokens > self.tokens.per_minute):
            raise _unkept("the limits", "and a task's share of them is less than a request")
        wait = max(self._opens_s - now_s, self._wait_s(now_s, tokens))
        return (wait, None) if wait > 0 else (0.0, self._charge(now_s, tokens))

    def settle(
        self, ticket: Ticket, request: Request, prompt_tokens: int | None, completion_tokens: int | None
    ) -> None:
        """Put what the server counted in the place of the estimate. Without a count, the prompt is kept."""
        if not isinstance(ticket, KeptTicket):
            super().settle(ticket, request, prompt_tokens, completion_tokens)
            return
        tokens = None
        if self.tokens is not None:
            tokens = self.guess.prompt_tokens(request)
            if prompt_tokens is not None:
                self.guess.learn(request, prompt_tokens, completion_tokens)
                tokens = prompt_tokens + (completion_tokens or 0)
        self._line.tell("settle", ticket.number, tokens)


@dataclass(slots=True)
class KeptTicket(Ticket):
    """A reservation that the keeper holds."""

    number: int = -1


class RemotePurse:
    """A task's part of the budget that the keeper keeps (`runner.cell.Purse`), and its observer."""

    def __init__(self, line: Line, attempt: str) -> None:
        self._line, self._attempt = line, attempt
        self._guess = TokenGuess()
        self._numbers: dict[Reservation, list[int]] = {}
        self._due: list[tuple[float, float]] = []
        self.fault: UserError | None = None

    async def reserve(
        self, request: Request, price: PriceSpec | None, give_up: Callable[[], bool]
    ) -> Reservation | None:
        """Wait until the budget bears the request. None where it will not, or `give_up` said so."""
        prompt = self._guess.prompt_tokens(request)
        completion = self._guess.tokens(request) - prompt
        usd = price.usd(prompt, completion) if price is not None else 0.0
        reservation = Reservation(usd, prompt + completion)
        while not give_up():
            if self._line.dead:
                raise _unkept("the budget", "so nothing more is spent")
            number = await self._line.call("reserve", reservation.usd, reservation.tokens, self._attempt)
            if number is not None and number >= 0:
                self._numbers.setdefault(reservation, []).append(number)
                return reservation
            await asyncio.sleep(LOOK_S)
        return None

    def sample(self, record: SampleRecord, price: PriceSpec | None) -> None:
        """What a sample cost."""
        if record.cached or record.status is Status.FAILED:
            return
        self._guess.learn(record, record.prompt_tokens, record.completion_tokens)
        prompt, completion = record.prompt_tokens, record.completion_tokens
        if prompt is None:
            prompt = int(self._guess.prompt_tokens(Request("", 0, record.messages, record.prompt, {}, {})))
        completion = len(record.output or "") // 4 if completion is None else completion
        usd = record.cost_usd
        if usd is None:
            usd = price.usd(prompt, completion) if price is not None else 0.0
        self._due.append((usd, prompt + completion))

    def release(self, reservation: Reservation) -> None:
        """The request was answered and counted, or failed."""
        usd, tokens = self._due.pop() if self._due else (0.0, 0.0)
        number = self._numbers[reservation].pop()
        self._line.tell("pay", number, usd, tokens)


def _unkept(what: str, so: str) -> UserError:
    return UserError(
        f"what keeps {what} over all nodes is gone, {so}",
        remedy="Run the same command again: it goes on from the segments.",
        exit_code=ExitCode.INCOMPLETE,
    )
