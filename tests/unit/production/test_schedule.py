"""Turns keep to the clock: long ones, killed ones, and clocks that jump."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from evalrun.production.records import Missed
from evalrun.production.schedule import Clock, keep_turns, missed_between, slot_of


@dataclass
class Watch:
    """A clock that stands still unless somebody waits or works."""

    at: float
    jump: float = 0.0
    steady: float = 0.0
    waits: list[float] = field(default_factory=list)

    def clock(self) -> Clock:
        return Clock(lambda: self.at + self.jump, lambda: self.steady, self.work)

    def work(self, seconds: float) -> None:
        self.at += seconds
        self.steady += seconds


def taken(watch: Watch, lasts_s: float, work: Callable[[float], float]) -> tuple[list[float], list[Missed]]:
    """The slots in which turns were taken, and what was missed between them."""
    slots: list[float] = []
    missed: list[Missed] = []

    def take(slot: float) -> bool:
        gap = missed_between(slots[-1] if slots else None, slot, 300.0, "late")
        missed.extend([gap] if gap else [])
        slots.append(slot)
        watch.work(work(slot))
        return True

    keep_turns(take, 300.0, lasts_s=lasts_s, clock=watch.clock())
    return slots, missed


def test_a_turn_is_taken_in_every_slot_of_the_clock() -> None:
    slots, missed = taken(Watch(1003.0), 1500.0, lambda _: 2.0)
    assert slots == [900.0, 1200.0, 1500.0, 1800.0, 2100.0, 2400.0]
    assert missed == []


def test_a_turn_that_hangs_twelve_minutes_misses_two_slots_and_delays_none_after() -> None:
    slots, missed = taken(Watch(0.0), 2000.0, lambda slot: 720.0 if slot == 300 else 1.0)
    assert slots == [0.0, 300.0, 1200.0, 1500.0, 1800.0]
    assert [(gap.first, gap.last, gap.slots) for gap in missed] == [(600.0, 900.0, 2)]


def test_a_clock_that_jumps_ahead_misses_what_it_passed() -> None:
    watch = Watch(0.0)

    def work(slot: float) -> float:
        watch.jump = 3600.0 if slot >= 600 else 0.0
        return 1.0

    slots, missed = taken(watch, 1500.0, work)
    assert slots[:3] == [0.0, 300.0, 600.0]
    assert slots[3] == 4200.0
    assert [gap.slots for gap in missed] == [11]


def test_a_clock_that_goes_back_does_not_silence_the_probe() -> None:
    watch = Watch(7200.0)

    def work(slot: float) -> float:
        watch.jump = -3600.0 if watch.steady > 500 else 0.0
        return 1.0

    slots, missed = taken(watch, 1500.0, work)
    assert len(slots) >= 5
    assert min(slots) < 7200.0
    assert missed == []


def test_slots_are_multiples_of_the_period() -> None:
    assert slot_of(899.9, 300.0) == 600.0
    assert missed_between(None, 600.0, 300.0, "") is None
    assert missed_between(300.0, 600.0, 300.0, "") is None
    assert missed_between(600.0, 600.0, 300.0, "") is None
