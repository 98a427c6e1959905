"""Limits and a budget over all nodes: never above, whoever asks, and a share where the keeper is dead."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from evalrun.cluster import keeper as keepers
from evalrun.cluster.keeper import LONG_WINDOW_S, Keeper, Purse, SharedBudget
from evalrun.errors import UserError
from evalrun.suite.values import LimitsSpec
from evalrun.types import Message, Request


class Clock:
    """Time that a test moves on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(keepers, "time", made)
    return made


def most_in_a_minute(moments: list[float]) -> int:
    """The most of these moments in any 60 seconds."""
    return max(sum(at <= each < at + 60 for each in moments) for at in moments)


async def sent(keeper: Keeper, clock: Clock, seconds: float, tokens: float = 10) -> list[float]:
    """When requests are admitted to somebody who always wants to send."""
    moments, end = [], clock.now_s + seconds
    while clock.now_s < end:
        wait, number = await keeper.admit("here", tokens)
        if wait > 0:
            clock.now_s += min(wait, 0.05)
        else:
            moments.append(clock.now_s)
            await keeper.settle(number, tokens)
    return moments


async def test_never_more_than_the_limit_in_any_minute(clock: Clock) -> None:
    """And hardly less: what is admitted may be sent a little later, so the window is a little longer."""
    moments = await sent(Keeper({"here": LimitsSpec(requests_per_minute=60)}), clock, 300)
    assert most_in_a_minute(moments) <= 60
    assert len(moments) >= 0.95 * 300


async def test_tokens_are_limited_too_and_corrected(clock: Clock) -> None:
    keeper = Keeper({"here": LimitsSpec(tokens_per_minute=600)})
    assert len(await sent(keeper, clock, 61, tokens=100)) <= 7
    wait, number = await keeper.admit("here", 100)
    while wait > 0:
        clock.now_s += wait
        wait, number = await keeper.admit("here", 100)
    await keeper.settle(number, 10)
    assert (await keeper.admit("here", 10))[0] < 10


async def test_a_sweep_that_goes_on_waits_for_the_minute_of_the_part_before(clock: Clock) -> None:
    keeper = Keeper({"here": LimitsSpec(requests_per_minute=60)}, quiet_s=LONG_WINDOW_S)
    assert (await keeper.admit("here", 0))[0] == pytest.approx(LONG_WINDOW_S)


async def test_a_reservation_that_is_given_back_costs_nothing(clock: Clock) -> None:
    keeper = Keeper({"here": LimitsSpec(requests_per_minute=2)})
    for _ in range(5):
        wait, number = await keeper.admit("here", 0)
        assert wait <= 0, _
        await keeper.settle(number, 0.0, 0)


async def test_a_budget_bears_what_is_put_by(clock: Clock) -> None:
    keeper = Keeper({}, Purse(usd=1.0, tokens=None))
    first, second = await keeper.reserve(0.6, 10), await keeper.reserve(0.6, 10)
    assert first is not None and first >= 0 and second == -1
    await keeper.pay(first, 0.5, 10)
    third = await keeper.reserve(0.5, 10)
    assert third is not None and third >= 0
    await keeper.pay(third, 0.5, 10)
    assert await keeper.reserve(0.0, 0) is None
    assert await keeper.report("s", "a", "n", (1, 0), False) == (True, 0.0)


async def test_a_budget_counts_what_a_dead_task_had_in_flight(clock: Clock) -> None:
    """It was sent, and nobody will say what it cost: put by for ever it would let all others wait."""
    keeper = Keeper({}, Purse(usd=1.0, tokens=None))
    await keeper.report("shard", "first", "node", (0, 0), False)
    assert await keeper.reserve(0.8, 10, "first") == 0
    assert await keeper.reserve(0.8, 10, "other") == -1
    await keeper.report("shard", "second", "elsewhere", (0, 0), False)
    number = await keeper.reserve(0.1, 10, "second")
    assert number is not None and number >= 0
    await keeper.pay(number, 0.2, 10)
    assert await keeper.reserve(0.1, 10, "second") is None


async def test_a_budget_counts_what_earlier_parts_left_in_segments(clock: Clock) -> None:
    keeper = Keeper({}, Purse(usd=1.0, tokens=None))
    await keeper.spent(1.2, 100)
    assert await keeper.reserve(0.1, 10, "a") is None


async def test_a_share_is_of_all_tasks_that_can_ask(clock: Clock) -> None:
    """Nodes that joined count: each report says what is a task's now."""
    keeper = Keeper({"here": LimitsSpec(requests_per_minute=60)})
    await keeper.seats(8)
    assert await keeper.report("s", "a", "n", (1, 0), False) == (False, 1 / 8)


class Dead:
    """The line to a keeper that is dead."""

    dead = True

    def __init__(self, share: float) -> None:
        self.share = share

    async def call(self, method: str, *arguments: Any) -> Any:
        return None


async def test_without_keeper_each_task_keeps_to_its_share(clock: Clock) -> None:
    """After a whole window, in which others may have sent what the limit allows."""
    limits = LimitsSpec(requests_per_minute=30)
    tasks = [SharedBudget.joined(Dead(1 / 4), "here", limits) for _ in range(4)]  # type: ignore[arg-type]
    began, moments = clock.now_s, []
    while clock.now_s < began + 240:
        for task in tasks:
            _, ticket = await task._try(0.0)
            if ticket is not None:
                moments.append(clock.now_s)
        clock.now_s += 0.1
    assert moments[0] >= began + LONG_WINDOW_S
    assert most_in_a_minute(moments) <= 30
    assert len(moments) >= 60


async def test_a_share_of_less_than_one_request_sends_nothing(clock: Clock) -> None:
    """Eight tasks that each sent one in its own minute could send eight in the same."""
    task = SharedBudget.joined(Dead(1 / 8), "here", LimitsSpec(requests_per_minute=2))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="less than a request"):
        await task._try(0.0)
    task = SharedBudget.joined(Dead(1 / 8), "here", LimitsSpec(tokens_per_minute=800))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="less than a request"):
        await task._try(101.0)


async def test_a_reservation_that_came_late_is_given_back(clock: Clock) -> None:
    """A task that was paused between the two would send in a minute that is another's."""
    keeper, given_back = Keeper({"here": LimitsSpec(requests_per_minute=60)}), []

    class Slow:
        dead = False

        async def call(self, method: str, *arguments: Any) -> Any:
            if method == "settle":
                given_back.append(arguments)
            said = await getattr(keeper, method)(*arguments)
            clock.now_s += 2 if not given_back else 0.0
            return said

    budget = SharedBudget.joined(Slow(), "here", LimitsSpec(requests_per_minute=60))  # type: ignore[arg-type]
    request = Request("a", 0, (Message("user", "q"),), None, {}, {})
    ticket = await asyncio.wait_for(budget.admit(request, lambda: False), 5)
    assert ticket is not None and len(given_back) == 1
