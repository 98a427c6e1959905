"""When turns are taken: on a grid of the clock, so that a turn that takes long delays no other.

A slot that passed while a turn was still at work, while nobody probed, or over which the clock jumped is
recorded as missed. A clock that goes back does not silence the probe: it goes on with the slots it shows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from evalrun.production.records import Missed


@dataclass(frozen=True, slots=True)
class Clock:
    """The time of day, a clock that never jumps, and waiting; a test brings its own."""

    now: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


LATE = 0.1
"""A slot that nobody began within this share of the period is missed: turns stay evenly spaced."""
LOOK_S = 30.0
"""The longest that is waited at once: a clock that was set is seen by then."""


def slot_of(moment: float, every_s: float) -> float:
    """The slot that a moment lies in: multiples of the period since 1970."""
    return math.floor(moment / every_s) * every_s


def missed_between(before: float | None, slot: float, every_s: float, why: str) -> Missed | None:
    """The slots between two turns, as a record; None where there is none (or the clock went back)."""
    if before is None:
        return None
    slots = round((slot - before) / every_s) - 1
    return Missed(before + every_s, slot - every_s, slots, why) if slots > 0 else None


def keep_turns(
    take: Callable[[float], bool], every_s: float, *, lasts_s: float = math.inf, clock: Clock | None = None
) -> None:
    """Take a turn in the slot of this moment and in every one that follows, for `lasts_s` seconds. `take` is
    given the slot, and says whether to go on; a slot is taken once."""
    clock = clock or Clock()
    end = clock.steady() + lasts_s
    slot = slot_of(clock.now(), every_s)
    while True:
        if not take(slot):
            return
        while True:
            now = clock.now()
            due = slot_of(now, every_s)
            if due != slot and now - due <= LATE * every_s:
                break
            if clock.steady() >= end:
                return
            clock.sleep(max(0.01, min(LOOK_S, due + every_s - now, end - clock.steady())))
        if clock.steady() >= end:
            return
        slot = due
