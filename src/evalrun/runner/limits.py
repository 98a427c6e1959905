"""How many requests may be in flight to one endpoint, and how many requests and tokens a minute it takes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from evalrun.frozen import frozen
from evalrun.types import JSON, Message, Request

if TYPE_CHECKING:
    from evalrun.suite.values import LimitsSpec


class Limit(Protocol):
    """What the runner asks and tells. `current` is the number of requests allowed in flight."""

    @property
    def current(self) -> int: ...
    def started(self, in_flight: int) -> None: ...
    def succeeded(self, now_s: float) -> None: ...
    def rate_limited(self, now_s: float, retry_after_s: float | None) -> None: ...
    def disturbed(self) -> None: ...


@dataclass(slots=True)
class FixedLimit:
    """A number that the user chose."""

    current: int

    def started(self, in_flight: int) -> None:
        pass

    def succeeded(self, now_s: float) -> None:
        pass

    def rate_limited(self, now_s: float, retry_after_s: float | None) -> None:
        pass

    def disturbed(self) -> None:
        pass


_OTHER_FILES = 48
"""Files that a sweep opens beside its connections: journal, tables, cache, logs."""


def connections_allowed(endpoints: int = 1) -> int:
    """How many connections to each of so many endpoints the limit of open files leaves room for.

    The soft limit is raised to the hard one first: many systems and CI runners start with 256 or 1,024. At
    least 1. Where there is no such limit, more than anybody needs.
    """
    try:
        import resource
    except ImportError:  # Windows
        return _MANY
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY if hard == resource.RLIM_INFINITY else min(hard, _MANY)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # some systems have a lower one that they do not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if soft == resource.RLIM_INFINITY:
        return _MANY
    return max(1, (soft - _open_files() - _OTHER_FILES) // max(1, endpoints))


_MANY = 65_536


def _open_files() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return len(os.listdir(folder))  # noqa: PTH208  (no Path for each)
    return 64


@frozen
class LimitChange:
    """One change of an adaptive limit, for the record. `at_s` is in the caller's clock."""

    at_s: float
    limit: int
    cause: str


MOST_AT_ONCE = 256
"""The most requests in flight that an adaptive limit grows to."""


class AdaptiveLimit:
    """Slow start, then additive increase and multiplicative decrease (as TCP does it).

    The limit doubles after each clean round until the first 429, then grows by 5 % a round; a 429 cuts it
    by a fifth, after which a cooldown (15 s, or the server's Retry-After if longer) ignores what was sent
    before the cut. A round is as many clean answers as the limit, and it counts only if the
    requests in flight reached 80 % of the limit: otherwise the limit was not what held us back. Server
    errors and time-outs pause growth without a cut.
    """

    COOLDOWN_S = 15.0

    def __init__(self, start: int = 20, minimum: int = 1, maximum: int = MOST_AT_ONCE) -> None:
        self._limit = start
        self._minimum = minimum
        self._maximum = maximum
        self._slow_start = True
        self._clean = 0
        self._peak = 0
        self._cooldown_until_s = float("-inf")
        self.changes: deque[LimitChange] = deque(maxlen=200)

    @property
    def current(self) -> int:
        return self._limit

    def started(self, in_flight: int) -> None:
        """A request was sent; `in_flight` counts it."""
        self._peak = max(self._peak, in_flight)

    def succeeded(self, now_s: float) -> None:
        """A request was answered at its first attempt."""
        if now_s < self._cooldown_until_s:
            return
        self._clean += 1
        if self._clean < max(self._limit, 4):
            return
        saturated = self._peak >= 0.8 * self._limit
        self._new_round()
        if saturated and self._limit < self._maximum:
            grown = self._limit * 2 if self._slow_start else max(self._limit + 1, int(self._limit * 1.05))
            self._set(min(grown, self._maximum), now_s, "doubled" if self._slow_start else "grew")

    def rate_limited(self, now_s: float, retry_after_s: float | None) -> None:
        """The server answered 429."""
        self._slow_start = False
        self._new_round()
        if now_s < self._cooldown_until_s:
            return
        self._cooldown_until_s = now_s + max(self.COOLDOWN_S, retry_after_s or 0.0)
        self._set(max(self._minimum, int(self._limit * 0.8)), now_s, "rate limited")

    def disturbed(self) -> None:
        """A request failed for another reason: the round is not clean."""
        self._new_round()

    def _new_round(self) -> None:
        self._clean = 0
        self._peak = 0

    def _set(self, limit: int, now_s: float, cause: str) -> None:
        if limit != self._limit:
            self._limit = limit
            self.changes.append(LimitChange(now_s, limit, cause))


WINDOW_S = 60.25
"""A minute, and a quarter of a second for requests that took longer on their way than those after them."""
BURST_S = 1.0
"""What a pause leaves unused is made up for by at most this much of the budget at once."""
CHARACTERS_PER_TOKEN = 4.0
"""A rule of thumb for English under common tokenisers: what is assumed until an answer says better."""
MESSAGE_OVERHEAD_TOKENS = 4


@dataclass(slots=True)
class Charge:
    """One request's part of a budget: when it was sent, and what it took."""

    at_s: float
    amount: float


class MinuteBudget:
    """At most `per_minute` in any 60 seconds, spread over them.

    Two rules, both of which must allow a request. The pace: a token bucket that fills at the rate of the
    budget and holds what a second brings, so that requests are spread over the minute. The window: what was
    sent in the last minute and what the request takes are no more than the budget, which a bucket alone does
    not promise. A request that takes more than a whole budget is sent when the window is empty.
    """

    def __init__(self, per_minute: float, window_s: float = WINDOW_S) -> None:
        """`window_s` is longer than a minute where what is charged may be sent later."""
        self.per_minute = per_minute
        self._window_s = window_s
        self._charges: deque[Charge] = deque()
        self._in_window = 0.0
        # The time at which the bucket is full again: the bucket in its shortest form.
        self._full_at_s = float("-inf")

    def wait_s(self, now_s: float, amount: float) -> float:
        """Seconds until `amount` may be sent; 0 when it may be now."""
        self._forget(now_s)
        pace = self._full_at_s - now_s - (BURST_S if self._per_second() * BURST_S > 1 else 0.0)
        return max(0.0, pace, self._window_wait_s(now_s, amount))

    def charge(self, now_s: float, amount: float) -> Charge:
        """Take `amount` out of the budget. To be called when `wait_s` said 0."""
        charge = Charge(now_s, amount)
        self._charges.append(charge)
        self._in_window += amount
        self._full_at_s = max(now_s, self._full_at_s) + amount / self._per_second()
        return charge

    def correct(self, charge: Charge, amount: float) -> None:
        """Put the true amount in the place of the estimated one."""
        change = amount - charge.amount
        charge.amount = amount
        if self._charges and charge.at_s >= self._charges[0].at_s:
            self._in_window += change
        self._full_at_s += change / self._per_second()

    def _per_second(self) -> float:
        return self.per_minute / 60

    def _forget(self, now_s: float) -> None:
        while self._charges and now_s - self._charges[0].at_s >= self._window_s:
            self._in_window -= self._charges.popleft().amount
        if not self._charges:
            self._in_window = 0.0

    def _window_wait_s(self, now_s: float, amount: float) -> float:
        room = self.per_minute - amount
        left, wait = self._in_window, 0.0
        for charge in self._charges:
            if left <= max(room, 0.0):
                break
            left -= charge.amount
            wait = charge.at_s + self._window_s - now_s
        return wait


class Asked(Protocol):
    """What was asked: a request, or the record of one."""

    @property
    def messages(self) -> tuple[Message, ...]: ...
    @property
    def prompt(self) -> str | None: ...


class TokenGuess:
    """What a request will take, before the server counts it: learns from the usage of the answers.

    The prompt is its characters at the ratio seen so far, and the answer `max_tokens` where the request has
    one, as servers reserve it too; else what answers took on average.
    """

    def __init__(self, at_first: float = 0.0) -> None:
        """`at_first` is taken for an answer's tokens where no limit and no answer yet says more."""
        self._at_first = at_first
        self._characters = 0.0
        self._prompt_tokens = 0.0
        self._completion_tokens = 0.0
        self._answers = 0

    def tokens(self, request: Request) -> float:
        """Prompt and answer together."""
        limit = request.params.get("max_tokens") or request.params.get("max_completion_tokens")
        if not isinstance(limit, int | float):
            limit = self._completion_tokens / self._answers if self._answers else self._at_first
        return self.prompt_tokens(request) + limit

    def prompt_tokens(self, request: Request) -> float:
        """The prompt alone."""
        if self._characters == 0:
            return estimated_tokens(request.messages, request.prompt)
        return _characters(request.messages, request.prompt) * self._prompt_tokens / self._characters

    def learn(self, request: Asked, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """What the server counted for a request."""
        if prompt_tokens:
            self._characters += _characters(request.messages, request.prompt)
            self._prompt_tokens += prompt_tokens
        if completion_tokens is not None:
            self._completion_tokens += completion_tokens
            self._answers += 1


def estimated_tokens(messages: Sequence[Message], prompt: str | None) -> float:
    """Prompt tokens by the rule of thumb. Parts that are not text count nothing."""
    return _characters(messages, prompt) / CHARACTERS_PER_TOKEN + MESSAGE_OVERHEAD_TOKENS * len(messages)


def _characters(messages: Sequence[Message], prompt: str | None) -> int:
    if prompt is not None:
        return len(prompt)
    return sum(_content_characters(message.content) for message in messages)


def _content_characters(content: JSON) -> int:
    if isinstance(content, str):
        return len(content)
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return sum(len(text) for text in texts if isinstance(text, str))


@dataclass(slots=True)
class Ticket:
    """What one request took out of the budgets, to be corrected when its answer is there."""

    requests: Charge | None
    tokens: Charge | None


@dataclass(slots=True)
class EndpointBudget:
    """The budgets of one endpoint. Everything that asks it waits here, first come, first served.

    `waited_s` and `held_back` say how long requests were held back in all, and how many were; `waiting` is
    how many are just now.
    """

    requests: MinuteBudget | None
    tokens: MinuteBudget | None
    guess: TokenGuess = field(default_factory=TokenGuess)
    waited_s: float = 0.0
    held_back: int = 0
    waiting: int = 0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    LOOK_S = 0.5
    """How often one that waits looks whether it may give up, or answers were shorter than feared."""

    @classmethod
    def of(cls, limits: Sequence[LimitsSpec | None]) -> EndpointBudget | None:
        """The strictest of what the models of an endpoint name; None where they name nothing."""
        requests = [limit.requests_per_minute for limit in limits if limit and limit.requests_per_minute]
        tokens = [limit.tokens_per_minute for limit in limits if limit and limit.tokens_per_minute]
        if not requests and not tokens:
            return None
        return cls(
            MinuteBudget(min(requests)) if requests else None, MinuteBudget(min(tokens)) if tokens else None
        )

    async def admit(self, request: Request, give_up: Callable[[], bool]) -> Ticket | None:
        """Wait until the request may be sent. None when `give_up` said meanwhile that it need not be."""
        loop = asyncio.get_running_loop()
        came_s = loop.time()
        held = False
        self.waiting += 1
        try:
            async with self._turn:
                while not give_up():
                    now_s = loop.time()
                    amount = self.guess.tokens(request) if self.tokens else 0.0
                    wait = self._wait_s(now_s, amount)
                    if wait <= 0:
                        if held or now_s - came_s > 1e-3:
                            self.held_back += 1
                            self.waited_s += now_s - came_s
                        return self._charge(now_s, amount)
                    held = True
                    await asyncio.sleep(min(wait, self.LOOK_S))
                return None
        finally:
            self.waiting -= 1

    def settle(
        self, ticket: Ticket, request: Request, prompt_tokens: int | None, completion_tokens: int | None
    ) -> None:
        """Put what the server counted in the place of the estimate. Without a count, the prompt is kept."""
        if self.tokens is None or ticket.tokens is None:
            return
        if prompt_tokens is None:
            self.tokens.correct(ticket.tokens, self.guess.prompt_tokens(request))
            return
        self.guess.learn(request, prompt_tokens, completion_tokens)
        self.tokens.correct(ticket.tokens, prompt_tokens + (completion_tokens or 0))

    def begin_run(self) -> None:
        """Count anew what is held back."""
        self.waited_s, self.held_back = 0.0, 0

    def notes(self) -> dict[str, str]:
        """What must be said beside the throughput of a run that was held back."""
        limits = [
            f"{budget.per_minute:,g} {what} a minute"
            for budget, what in ((self.requests, "requests"), (self.tokens, "tokens"))
            if budget is not None
        ]
        said = f"held back by the limits of {' and '.join(limits)}"
        return {"performance.requests_per_s": said} if self.held_back else {}

    def document(self) -> dict[str, JSON]:
        """The budgets and what they held back, for `run.json`."""
        return {
            "requests_per_minute": self.requests.per_minute if self.requests else None,
            "tokens_per_minute": self.tokens.per_minute if self.tokens else None,
            "held_back": self.held_back,
            "waited_s": self.waited_s,
        }

    def _wait_s(self, now_s: float, amount: float) -> float:
        wait = self.requests.wait_s(now_s, 1) if self.requests else 0.0
        return max(wait, self.tokens.wait_s(now_s, amount)) if self.tokens else wait

    def _charge(self, now_s: float, amount: float) -> Ticket:
        return Ticket(
            self.requests.charge(now_s, 1) if self.requests else None,
            self.tokens.charge(now_s, amount) if self.tokens else None,
        )


class Slots:
    """The requests in flight of cells that are asked at the same time: as many as one limit allows."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.taken = 0

    async def __aenter__(self) -> None:
        if self.taken < self._limit.current and not self._waiting:
            self.taken += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                await self.__aexit__()  # its turn had come
            raise

    async def __aexit__(self, *_: object) -> None:
        self.taken -= 1
        while self._waiting and self.taken < self._limit.current:
            turn = self._waiting.popleft()
            if not turn.cancelled():
                self.taken += 1
                turn.set_result(None)


@frozen
class Throttle:
    """What the requests to one endpoint pass: how many may be in flight, and how many a minute. `slots` are
    shared by cells that are asked at the same time."""

    limit: Limit
    budget: EndpointBudget | None = None
    slots: Slots | None = None
