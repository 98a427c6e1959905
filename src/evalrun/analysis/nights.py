"""A suite that runs every night: how often chance alone raises an alarm in a year, and drops that last."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evalrun.analysis.distributions import normal_quantile, t_tail
from evalrun.floats import same
from evalrun.frozen import frozen

NIGHTS = 365
YEARLY = 0.05

_SLACK = 0.5
"""Drops of less than half a standard deviation of a night are let pass, as usual for a CUSUM."""
_GREATEST = 3.5
"""One night counts for so many standard deviations at most: an alarm takes three bad nights, not one."""


def false_alarm_sentence(levels: Sequence[float], nights: int = NIGHTS) -> str:
    """How often so many paired checks, each failing at its level, fail though nothing changed, for people.

    A check fails on one side of a two-sided level. The sum over checks and nights is an upper bound, however
    they depend on one another.
    """
    if not levels:
        return ""
    a_night = sum((1 - level) / 2 for level in levels)
    a_year = nights * a_night
    checks = f"{len(levels)} paired gate check{'' if len(levels) == 1 else 's'}"
    said = (
        f"Where nothing changed, {checks} fail by chance in at most {100 * min(1.0, a_night):.2g} % of nights"
    )
    if a_year <= YEARLY * 1.001:
        return f"{said}, and in at most {100 * a_year:.2g} % of years of {nights} nights."
    return (
        f"{said}: at most {a_year:.2g} false alarms in a year of {nights} nights. `nightly: "
        f"{{false_alarms_a_year: {YEARLY}}}` in the suite keeps {1 - YEARLY:.0%} of years free of any."
    )


@frozen
class Lasting:
    """A change that lasts: the values from index `since` on lie on one side of those before. `at` is where it
    was told of."""

    since: int
    at: int


def cusum_limit(checks: int = 1, nights: int = NIGHTS, yearly: float = YEARLY) -> float:
    """The limit of a CUSUM that so many series cross by chance in at most `yearly` of years.

    From Siegmund's average run length (exp(2kb) - 2kb - 1) / (2k^2), b = h + 1.166 (Sequential Analysis,
    1985).
    """
    wanted = nights * max(1, checks) / yearly
    low, high = 0.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        b = 2 * _SLACK * (middle + 1.166)
        low, high = (low, middle) if (math.exp(b) - b - 1) / (2 * _SLACK**2) >= wanted else (middle, high)
    return high


def lasting_changes(values: Sequence[float], sign: float, limit: float) -> list[Lasting]:
    """Where a series, the oldest first, changes to the side of `sign` (1: up, -1: down) and stays there.

    A self-starting CUSUM (Hawkins 1987, The Statistician 36, 299): each value is judged by the mean and
    spread of all before it, so that no reference has to be named and every night adds to what is known; what
    is too little in each night adds up. After an alarm it begins anew where the change began.
    """
    found: list[Lasting] = []
    begin, at = 0, 2
    total, since = 0.0, 0
    while at < len(values):
        score = sign * _normal_score(values[begin:at], values[at])
        if total == 0:
            since = at
        total = max(0.0, total + score - _SLACK)
        if total >= limit:
            found.append(Lasting(since, at))
            begin, total = since, 0.0
            at = max(at, begin + 1)
        at += 1
    return found


def _normal_score(before: Sequence[float], value: float) -> float:
    """A value as a standard normal one, given those before it: by Student's t, as these are few."""
    n = len(before)
    if n < 2:
        return 0.0
    mean = math.fsum(before) / n
    variance = math.fsum((each - mean) ** 2 for each in before) / (n - 1)
    if same(value, mean):
        return 0.0
    if variance <= (1e-9 * max(1.0, abs(mean))) ** 2:  # they were all the same, and this one is not
        return math.copysign(_GREATEST, value - mean)
    t = (value - mean) / math.sqrt(variance * (1 + 1 / n))
    tail = max(t_tail(abs(t), n - 1), 1e-12)
    return math.copysign(min(_GREATEST, -normal_quantile(tail)), t)
