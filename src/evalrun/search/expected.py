"""What a search will ask: at most, and as simulated races would have it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evalrun.analysis.distributions import normal_quantile
from evalrun.analysis.race import Race
from evalrun.search.leaks import check_prompts
from evalrun.search.space import Space, check_held_out
from evalrun.suite.load import LoadedSuite

BEST, SPREAD, CORRELATION = 0.75, 0.15, 0.6
"""The candidates of a simulated race: rates spread evenly below the best, found right by what they share."""
_WORK = 300_000
"""So many pairs and blocks are simulated at most, so that a plan takes a second."""


@dataclass(frozen=True, slots=True)
class ExpectedCalls:
    """Requests of a search to the models that answer: `greatest` of all, `expected` where races were
    simulated (None: not known), `held_out` of them on rows held out, and at most so many to a `writer`."""

    by: str
    candidates: int
    greatest: int
    expected: int | None
    held_out: int
    whole_grid: int
    writer: int = 0

    @property
    def sentence(self) -> str:
        """For people."""
        said = f"A search by {self.by} sends at most {self.greatest:,} requests"
        if self.expected is not None:
            said += (
                f", and about {self.expected:,} where the candidates' rates are spread over "
                f"{SPREAD * 100:.0f} points (simulated)"
            )
        said += f"; {self.held_out:,} of them are on the rows held out"
        return f"{said}, and at most {self.writer:,} to the writer." if self.writer else f"{said}."


def expected_calls(loaded: LoadedSuite) -> ExpectedCalls:
    """What the search of a suite will ask. Raises UserError where it cannot be made; sends nothing."""
    from evalrun.search.main import way_of
    from evalrun.search.space import space_of

    space = space_of(loaded)
    way_of(space)  # what is missing for it is said here
    held = check_held_out(space, loaded.suite.seed)
    check_prompts(space, loaded.suite.seed)
    repeats, spec = space.suite.repeats, space.spec
    rows, chosen = space.rows - held, 2 * held
    if spec.by == "tpe":
        most = (spec.trials + 1) * rows
        return ExpectedCalls("tpe", spec.trials, (most + chosen) * repeats, None, chosen * repeats, most)
    if spec.by == "gepa" and spec.propose is not None:
        from evalrun.search.proposals import FINALISTS, VALIDATED

        made, batch = spec.propose.candidates, spec.propose.minibatch
        proposing = 2 * (made + 1) * (batch + min(rows, VALIDATED * spec.block))
        most = min(proposing + (FINALISTS + 1) * rows, (made + 1) * rows)
        total, held_out = (most + chosen) * repeats, chosen * repeats
        return ExpectedCalls("gepa", made, total, None, held_out, (made + 1) * rows, 3 * made)
    arms = len(space.candidates)
    most = len(set(space.alike.values())) * rows
    share = simulated_share(arms, rows, space)
    expected = round((share * most + chosen) * repeats)
    return ExpectedCalls("race", arms, (most + chosen) * repeats, expected, chosen * repeats, most)


def simulated_share(arms: int, rows: int, space: Space) -> float:
    """The share of the whole grid that a few simulated races ask."""
    spec = space.spec
    blocks = max(1, math.ceil(rows / spec.block))
    races = max(2, min(100, _WORK // (arms * arms * blocks)))
    rates = np.linspace(BEST, BEST - SPREAD, arms)
    limits = np.array([normal_quantile(rate) for rate in rates])
    calls = 0
    for seed in range(races):
        rng = np.random.default_rng(seed)
        shared = rng.standard_normal((rows, 1)) * math.sqrt(CORRELATION)
        own = rng.standard_normal((rows, arms)) * math.sqrt(1 - CORRELATION)
        hits = ((shared + own) < limits).astype(np.float64)
        race = Race([str(at) for at in range(arms)], units=rows, alpha=spec.alpha, within=spec.within)
        at = 0
        while not race.over:
            race.tell({name: hits[at : at + spec.block, int(name)] for name in race.left})
            at += spec.block
        calls += race.result().calls
    return calls / (races * arms * rows)
