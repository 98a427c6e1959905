"""When requests arrive: the whole schedule is known before the first is sent, and depends on the seed alone.

All rates share the same draws, divided by the rate, so that levels differ in load and not in luck. Nothing is
renormalised: the number of arrivals in a time varies as it does for the process that is meant. A schedule is
drawn in chunks and never held whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from evalrun.canonical import derived_seed
from evalrun.runner.load.trace import trace_offsets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from evalrun.suite.levels import ArrivalsSpec, Level, LoadSpec, RampSpec

CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Schedule:
    """The offsets of a level in seconds after its start, ascending; going through it gives them anew.

    It ends before `until_s`, or after `count` arrivals; one of the two is there, or a trace ends by itself.
    """

    load: LoadSpec
    level: Level
    seed: int
    base_dir: Path
    until_s: float | None
    count: int | None

    def __iter__(self) -> Iterator[float]:
        offsets = self._offsets()
        if self.until_s is not None:
            end = self.until_s
            offsets = takewhile(lambda offset: offset < end, offsets)
        for number, offset in enumerate(offsets):
            if self.count is not None and number >= self.count:
                return
            yield offset

    def _offsets(self) -> Iterator[float]:
        arrivals = self.load.arrivals
        if arrivals == "constant":
            return _constant(self.level.rate or 1.0)
        if arrivals == "poisson":
            return _scaled(_unit(self.seed, 1.0), self.level.rate or 1.0)
        assert not isinstance(arrivals, str)
        if arrivals.trace is not None:
            return _replayed(self.base_dir / arrivals.trace, arrivals)
        if arrivals.ramp is not None:
            return _ramped(_unit(self.seed, 1.0), arrivals.ramp)
        return _scaled(_unit(self.seed, arrivals.gamma or 1.0), self.level.rate or 1.0)


def schedule_of(load: LoadSpec, level: Level, *, seed: int, rows: int, base_dir: Path) -> Schedule:
    """The schedule of an open level over a dataset with so many rows, repeats included."""
    until, count = None, load.requests
    if load.seconds is not None:
        until = load.warmup_s + load.seconds
    elif count is None and not isinstance(load.arrivals, str) and load.arrivals.ramp is not None:
        until = load.warmup_s + load.arrivals.ramp.seconds
    elif count is None and level.arrivals != "trace":
        count = rows
    return Schedule(load, level, seed, base_dir, until, count)


def _constant(rate: float) -> Iterator[float]:
    number = 0
    while True:
        yield number / rate
        number += 1


def _unit(seed: int, shape: float) -> Iterator[NDArray[np.float64]]:
    """Arrival times of a renewal process with mean gap 1, in chunks: gaps of a gamma distribution of that
    shape, which for 1 is the exponential one (CV² = 1 / shape)."""
    import numpy as np

    draws = np.random.Generator(np.random.PCG64(derived_seed(seed, "arrivals")))
    last = 0.0
    while True:
        # By inversion where that can be, which is the same in every version and on every machine.
        gaps = -np.log1p(-draws.random(CHUNK)) if shape == 1 else draws.standard_gamma(shape, CHUNK) / shape
        times = last + np.cumsum(gaps)
        last = float(times[-1])
        yield times


def _scaled(unit: Iterator[NDArray[np.float64]], rate: float) -> Iterator[float]:
    for times in unit:
        yield from (times / rate).tolist()


def _ramped(unit: Iterator[NDArray[np.float64]], ramp: RampSpec) -> Iterator[float]:
    """Arrivals at the rate a + (b - a) t / T up to T, and b from there on: the expected number up to t,
    a t + (b - a) t² / (2 T), is inverted at the times of a Poisson process of rate 1."""
    a, b, length = ramp.start, ramp.to, ramp.seconds
    slope = (b - a) / length
    whole = (a + b) / 2 * length
    for times in unit:
        for passed in times.tolist():
            if passed >= whole:
                yield length + (passed - whole) / b
            elif slope == 0:
                yield passed / a
            else:  # in the form that keeps its digits where the slope is small
                yield 2 * passed / (a + math.sqrt(max(0.0, a * a + 2 * slope * passed)))


def _replayed(path: Path, arrivals: ArrivalsSpec) -> Iterator[float]:
    for offset in trace_offsets(path):
        yield offset / arrivals.speed
