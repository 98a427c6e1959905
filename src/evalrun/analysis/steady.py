"""Whether a level of load was steady, or its queue grew: by response times in the order of arrival."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BLOCKS = 20
LEAST = 10
"""Fewer requests say nothing of growth."""
PERMUTATIONS = 999
GROWS, QUIET = 0.01, 0.05
SMALL = 0.1
"""Growth by less than this share of the mean response time, over the whole level, is none that matters."""

SteadyWord: TypeAlias = Literal["steady", "growing", "undecided"]


@dataclass(frozen=True, slots=True)
class Steadiness:
    """`growth_s` is by how much response times grew from the level's start to its end."""

    word: SteadyWord
    why: str
    growth_s: float | None = None
    p: float | None = None


def steadiness(scheduled_s: Floats, response_s: Floats, done_s: Floats, seed: int) -> Steadiness:
    """The verdict on a level, from its requests in the order of their schedule.

    Response times are averaged over up to 20 blocks of neighbours; the slope is Theil and Sen's, the median
    of the slopes between blocks, and p the share of permutations of the blocks with as steep a one. It is
    `growing` where p <= 0.01 and the queue did not empty again: the quickest answer of the last quarter took
    longer than half of those of the first, and more requests wait at the end than at the first quarter's.
    (A queue near capacity swings, and swings look like growth for a while; but then it empties.) It is
    `steady` where p > 0.05, or the growth is below a tenth of the mean response time, or the queue emptied
    and no more wait at the end than at the first quarter's; else `undecided`.
    """
    n = len(scheduled_s)
    if n < LEAST:
        return Steadiness("undecided", f"{n} requests are too few to see whether the queue grows")
    count = min(BLOCKS, n // 2)
    parts = np.array_split(np.arange(n), count)
    at = np.array([scheduled_s[part].mean() for part in parts])
    means = np.array([response_s[part].mean() for part in parts])
    first, second = np.triu_indices(count, 1)
    run = at[second] - at[first]
    if not (run > 0).all():
        return Steadiness("undecided", "the requests were due at one moment")
    slope = float(np.median((means[second] - means[first]) / run))
    draws = np.random.default_rng(seed)
    shuffled = means[draws.permuted(np.tile(np.arange(count), (PERMUTATIONS, 1)), axis=1)]
    slopes = np.median((shuffled[:, second] - shuffled[:, first]) / run, axis=1)
    p = (1 + int((slopes >= slope - 1e-12).sum())) / (1 + PERMUTATIONS)
    growth = slope * float(scheduled_s[-1] - scheduled_s[0])
    quarter = max(1, n // 4)
    never_empty = float(response_s[-quarter:].min()) > float(np.median(response_s[:quarter]))
    waiting = [
        int((scheduled_s <= moment).sum() - (done_s <= moment).sum())
        for moment in (scheduled_s[quarter - 1], scheduled_s[-1])
    ]
    if p <= GROWS and never_empty and waiting[1] > waiting[0]:
        return Steadiness(
            "growing", f"response times grew by {growth:.3g} s, and the queue never emptied again", growth, p
        )
    if p > QUIET or growth < SMALL * float(response_s.mean()):
        return Steadiness("steady", f"no growth is seen (p = {p:.2g})", growth, p)
    if not never_empty and waiting[1] <= waiting[0]:
        why = f"the queue emptied towards the end, though response times grew by {growth:.3g} s (p = {p:.2g})"
        return Steadiness("steady", why, growth, p)
    return Steadiness("undecided", f"response times grew by {growth:.3g} s (p = {p:.2g})", growth, p)
