"""The line from a task to the keeper, without a cluster."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("ray", reason="needs Ray (extra: ray)")

from evalrun.cluster.keeper import Line  # noqa: E402


async def test_a_cancellation_that_comes_with_an_answer_is_heard() -> None:
    """What reports for ever is cancelled when its shard is done; a shard whose report goes on never ends."""
    answers: list[asyncio.Future[int]] = []

    def report() -> asyncio.Future[int]:
        answers.append(asyncio.get_running_loop().create_future())
        return answers[-1]

    async def for_ever(line: Line) -> None:
        while True:
            await line.call("report")

    task = asyncio.create_task(for_ever(Line(SimpleNamespace(report=SimpleNamespace(remote=report)))))
    while not answers:
        await asyncio.sleep(0)
    answers[0].set_result(1)
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
