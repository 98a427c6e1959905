"""The deadline of a sample, and the log of its attempts."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator

import pytest

from evalrun.datasets import Item
from evalrun.runner.attempts import Asking, DeadlineError, Deadlines
from evalrun.runner.source import Prepared
from evalrun.types import ErrorKind, ProviderError, Request


@pytest.fixture
async def deadlines() -> AsyncIterator[Deadlines]:
    made = Deadlines(0.5)
    watch = asyncio.create_task(made.watch())
    yield made
    watch.cancel()


async def test_what_takes_too_long_ends_and_the_task_goes_on(deadlines: Deadlines) -> None:
    with pytest.raises(DeadlineError), deadlines:
        await asyncio.sleep(60)
    with deadlines:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.7)
    current = asyncio.current_task()
    assert current is not None and not current.cancelling(), "an earlier deadline cancels nothing later"


async def test_a_suspended_clock_stands_still(deadlines: Deadlines) -> None:
    with deadlines:
        before = deadlines.remaining_s()
        assert 0.4 < before <= 0.5
        with deadlines.suspended():
            await asyncio.sleep(0.8)
        assert before - 0.1 < deadlines.remaining_s() <= before
    with pytest.raises(DeadlineError), deadlines:
        with deadlines.suspended():
            await asyncio.sleep(0.01)
        await asyncio.sleep(60)


async def test_without_a_deadline_there_is_nothing_to_suspend(deadlines: Deadlines) -> None:
    with deadlines.suspended():
        await asyncio.sleep(0.01)
    assert deadlines.remaining_s() == float("-inf")
    await asyncio.sleep(0.7)


async def test_who_is_cancelled_by_somebody_else_is_cancelled(deadlines: Deadlines) -> None:
    async def work() -> None:
        with deadlines:
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def asking() -> Asking:
    request = Request("s", 0, (), "p", {}, {})
    return Asking(Prepared(Item("s", 0, {}), request, None), time.perf_counter_ns(), warmup=False)


def test_what_the_budget_held_back_stands_before_the_first_attempt_or_between_two() -> None:
    sample = asking()
    sample.held_back(0.25)
    sample.attempted(ProviderError(ErrorKind.SERVER, "busy"), 1.5)
    sample.held_back(0.5)
    [failed] = sample.log
    assert (failed.start_s, failed.wait_s, failed.error, failed.message) == (0.25, 2.0, "server", "busy")
    sample.attempted(None)
    assert sample.log[1].start_s == pytest.approx(0.25 + failed.duration_s + 2.0)
    assert sample.log[1].error is None


def test_a_timeout_says_what_its_time_went_into() -> None:
    sample = asking()
    assert sample.timeout_message(30) == "no answer within 30 s"
    sample.attempted(ProviderError(ErrorKind.SERVER, "busy"), 1.5)
    sample.attempted(ProviderError(ErrorKind.SERVER, "busy"), 2.0)
    said = "no answer within 30 s: 3 attempts, with 3.5 s of waiting between them"
    assert sample.timeout_message(30) == said


async def test_what_came_while_nobody_could_read_is_read_before_anything_expires(
    deadlines: Deadlines,
) -> None:
    """As after SIGSTOP: the whole process stood still for longer than a sample has time."""
    reader, writer = await asyncio.open_connection(*await _speaks())
    with deadlines:
        await asyncio.sleep(0.05)
        _stand_still(2.0)
        pieces = []
        for _ in range(3):  # each needs another turn of the event loop
            pieces.append(await reader.readline())
            await asyncio.sleep(0)
    assert pieces == [b"1\n", b"2\n", b"3\n"]
    writer.close()
    with pytest.raises(DeadlineError), deadlines:
        await asyncio.sleep(60)


def _stand_still(seconds: float) -> None:
    time.sleep(seconds)


async def _speaks() -> tuple[str, int]:
    """A server that says three lines at once, in a thread of its own."""
    listening = socket.create_server(("127.0.0.1", 0))

    def speak() -> None:
        with listening, listening.accept()[0] as connection:
            time.sleep(0.3)
            connection.sendall(b"1\n2\n3\n")
            time.sleep(3)

    threading.Thread(target=speak, daemon=True).start()
    host, port = listening.getsockname()
    return host, port
