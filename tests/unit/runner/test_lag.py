"""The lag of event loops: quantiles of what was seen, and whose counts where others send the requests."""

import asyncio
import time

import pytest

from evalrun.runner.watch import LagWatch, quantile_s


def test_quantiles_are_upper_edges_of_steps() -> None:
    histogram = {0: 90, 50: 9, 10_000: 1}
    assert quantile_s(histogram, 0.5) == pytest.approx(0.0001)
    assert quantile_s(histogram, 0.95) == pytest.approx(0.0051)
    assert quantile_s(histogram, 1.0) == pytest.approx(1.0001)
    assert quantile_s({}, 0.5) is None


async def test_a_blocked_loop_shows_and_is_told_once() -> None:
    watch = LagWatch()
    task = asyncio.create_task(watch.run())
    await asyncio.sleep(2 * LagWatch.INTERVAL_S)
    time.sleep(0.2)  # noqa: ASYNC251  (that is the fault to be seen)
    await asyncio.sleep(2 * LagWatch.INTERVAL_S)
    assert (watch.quantile_s(1.0) or 0) >= 0.15
    assert quantile_s(watch.take(), 1.0) >= 0.15  # type: ignore[operator]
    assert watch.quantile_s(1.0) is None
    task.cancel()
