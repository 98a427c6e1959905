"""Budgets by the minute, on a clock of the test's own."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.runner.limits import EndpointBudget, MinuteBudget, TokenGuess, estimated_tokens
from evalrun.suite.values import LimitsSpec
from evalrun.types import Message, Request


def _request(text: str = "x" * 40, **params: object) -> Request:
    return Request("s", 0, (Message("user", text),), None, params, {})


def _simulate(budget: MinuteBudget, amounts: list[float], pauses: list[float]) -> list[tuple[float, float]]:
    """(time, amount) of each request: sent as soon as the budget allows, after a pause of one's own."""
    now, sent = 1000.0, []
    for amount, pause in zip(amounts, pauses, strict=True):
        now += pause
        while (wait := budget.wait_s(now, amount)) > 0:
            now += wait + 1e-9
        budget.charge(now, amount)
        sent.append((now, amount))
    return sent


def _most_in_a_minute(sent: list[tuple[float, float]]) -> float:
    most, total, first = 0.0, 0.0, 0
    for at, amount in sent:
        total += amount
        while at - sent[first][0] >= 60:
            total -= sent[first][1]
            first += 1
        most = max(most, total)
    return most


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 700), st.integers(0, 10_000), st.integers(1, 900))
def test_never_more_requests_than_the_budget_in_any_minute(per_minute: int, seed: int, n: int) -> None:
    rng = random.Random(seed)
    pauses = [rng.choice([0.0, 0.0, 0.0, 0.01, 1.0, 70.0 if rng.random() < 0.02 else 0.0]) for _ in range(n)]
    sent = _simulate(MinuteBudget(per_minute), [1.0] * n, pauses)
    assert _most_in_a_minute(sent) <= per_minute


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(200, 5000))
def test_never_more_tokens_than_the_budget_in_any_minute(seed: int, per_minute: int) -> None:
    rng = random.Random(seed)
    amounts = [float(rng.randint(1, 199)) for _ in range(300)]
    pauses = [rng.choice([0.0, 0.0, 0.5, 30.0 if rng.random() < 0.05 else 0.0]) for _ in amounts]
    assert _most_in_a_minute(_simulate(MinuteBudget(per_minute), amounts, pauses)) <= per_minute


def test_a_pause_allows_no_burst_but_a_second_s_worth() -> None:
    budget = MinuteBudget(600)
    sent = _simulate(budget, [1.0] * 100, [0.0] * 50 + [50.0] + [0.0] * 49)
    after = [at for at, _ in sent[50:]]
    assert sum(at < after[0] + 1e-6 for at in after) <= 11, "ten a second, and the one that is due"
    assert after[-1] - after[0] == pytest.approx((50 - 11) / 10, abs=0.2)


def test_the_whole_budget_is_used() -> None:
    sent = _simulate(MinuteBudget(600), [1.0] * 6000, [0.0] * 6000)
    assert sent[-1][0] - sent[0][0] == pytest.approx(600, rel=0.01), "6,000 at 600 a minute take ten minutes"


def test_a_request_larger_than_the_budget_is_sent_alone() -> None:
    sent = _simulate(MinuteBudget(100), [50.0, 500.0, 10.0], [0.0] * 3)
    assert sent[1][0] - sent[0][0] >= 60
    assert sent[2][0] - sent[1][0] >= 60


def test_a_correction_frees_or_takes_what_the_estimate_missed() -> None:
    budget = MinuteBudget(1000)
    first = budget.charge(0.0, 900.0)
    assert budget.wait_s(1.0, 500.0) > 50
    budget.correct(first, 10.0)
    assert budget.wait_s(1.0, 500.0) == 0
    budget.correct(first, 990.0)
    assert budget.wait_s(1.0, 500.0) > 50


def test_a_correction_after_the_minute_changes_no_window() -> None:
    budget = MinuteBudget(1000)
    first = budget.charge(0.0, 900.0)
    assert budget.wait_s(100.0, 1000.0) == 0
    budget.charge(100.0, 500.0)
    budget.correct(first, 10.0)
    assert budget.wait_s(130.0, 501.0) > 29


def test_the_guess_learns_from_usage() -> None:
    guess = TokenGuess()
    assert guess.prompt_tokens(_request()) == estimated_tokens(_request().messages, None) == 14
    guess.learn(_request(), 40, 6)
    assert guess.prompt_tokens(_request("y" * 80)) == 80
    assert guess.tokens(_request()) == 46
    assert guess.tokens(_request(max_tokens=100)) == 140, "as servers do, the most that it may answer"


def test_the_strictest_of_an_endpoint_s_models_holds() -> None:
    made = EndpointBudget.of(
        [LimitsSpec(requests_per_minute=60), None, LimitsSpec(requests_per_minute=6, tokens_per_minute=9)]
    )
    assert made is not None and made.requests is not None and made.tokens is not None
    assert (made.requests.per_minute, made.tokens.per_minute) == (6, 9)
    assert EndpointBudget.of([None]) is None


async def test_those_who_wait_go_in_the_order_they_came_and_may_give_up() -> None:
    budget = EndpointBudget.of([LimitsSpec(requests_per_minute=600)])
    assert budget is not None
    order: list[int] = []
    over = False

    async def ask(number: int) -> None:
        if await budget.admit(_request(), lambda: over) is not None:
            order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(ask(number))
        await asyncio.sleep(1.0)
        over = True
    assert order == list(range(len(order))) and len(order) < 100
    assert budget.waiting == 0 and budget.held_back >= 4 and budget.waited_s > 0
