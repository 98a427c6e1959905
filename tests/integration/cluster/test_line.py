"""The line from a task to the keeper, without a cluster."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("ray", reason="needs Ray (extra: ray)")

from evalrun.cluster.keeper import Line


async def test_a_cancellation_that_comes_with_an_answer_is_heard() -> None:
    """What reports for ever is cancelled when its shard is done; a shard whose report goes on never ends."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[int] = loop.create_future()
    asked = asyncio.Event()

    def report() -> asyncio.Future[int]:
        """The first answer comes, no other."""
        first = not asked.is_set()
        asked.set()
        return answer if first else loop.create_future()

    async def for_ever(line: Line) -> None:
        while True:
            await line.call("report")

    task = asyncio.create_task(for_ever(Line(SimpleNamespace(report=SimpleNamespace(remote=report)))))
    await asked.wait()
    answer.set_result(1)
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
