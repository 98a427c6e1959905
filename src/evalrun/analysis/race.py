"""A race of candidates: blocks of the same rows to all that are left, and out goes who is shown to be worse.

Candidate j is out when the average over all others i of the e-values of "i is better than j" reaches
1/alpha. Averages of e-values are e-values however they depend on one another (Vovk and Wang 2021), so the
chance that the best candidate is ever dropped is at most alpha, over the whole race. What spoke against j
before its rival was dropped still counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.paired import paired_difference
from evalrun.analysis.sequential import ALPHA, BETS, log_growth, log_mean
from evalrun.canonical import canonical_json
from evalrun.search_results import Candidate, LevelEffect, RaceResult, Step
from evalrun.types import JSON

Floats: TypeAlias = NDArray[np.float64]

MISSING = 0.05
"""A candidate of whose rows a greater share has no score is set aside: what is left of it proves nothing."""


def optimism(scores: Mapping[str, Floats], resamples: int = 1000, seed: int = 0) -> float | None:
    """By how much the mean of the best of some candidates is too high on the rows that chose it.

    `scores` are 1-D over the same units. The bootstrap chooses again on resampled rows: how much higher the
    chosen one then scores on these than on all rows, on average. None with fewer than two units.
    """
    table = np.vstack(list(scores.values()))
    table = table[:, ~np.isnan(table).any(axis=0)]
    units = table.shape[1]
    if units < 2:
        return None
    rng = np.random.default_rng(seed)
    means, excess = table.mean(axis=1), 0.0
    for _ in range(resamples):
        drawn = table[:, rng.integers(0, units, units)].mean(axis=1)
        best = int(drawn.argmax())
        excess += float(drawn[best] - means[best])
    return excess / resamples


def level_effects(
    scores: Mapping[str, Floats], axes: Mapping[str, Mapping[str, JSON]]
) -> tuple[LevelEffect, ...]:
    """The means of the values of each axis, each against the first of its axis, over the units that all
    candidates were asked. `scores` are 1-D by candidate, over the same units as far as they go."""
    common = min((len(values) for values in scores.values()), default=0)
    made: list[LevelEffect] = []
    for axis in dict.fromkeys(name for of in axes.values() for name in of) if common else ():
        levels: dict[bytes, tuple[JSON, list[Floats]]] = {}
        for name, of in axes.items():
            if axis in of and name in scores:
                levels.setdefault(canonical_json(of[axis]), (of[axis], []))[1].append(scores[name][:common])
        first: Floats | None = None
        for value, rows in levels.values() if len(levels) > 1 else ():
            table = np.vstack(rows)
            known = ~np.isnan(table).all(axis=0)
            mean = np.full(common, np.nan)
            mean[known] = np.nanmean(table[:, known], axis=0)
            effect = LevelEffect(axis, value, len(rows), int(known.sum()), float(np.nanmean(mean)))
            if first is None:
                first = mean
            else:
                told = paired_difference(first, mean)
                effect = replace(
                    effect, difference=told.difference, ci_low=told.ci_low, ci_high=told.ci_high, p=told.p
                )
            made.append(effect)
    return tuple(made)


class Race:
    """The state of a race; a function of the scores that it was told of and of nothing else."""

    def __init__(
        self, names: Sequence[str], *, units: int, alpha: float = ALPHA, within: float = 0.0
    ) -> None:
        """`units` is the number of rows (or clusters) that each candidate may be asked at most. With `within`
        the race also ends when all that are left are shown to be that close."""
        self._names = tuple(names)
        self._units = units
        self._alpha, self._within = alpha, within
        if within and not 0 < within < 1:
            raise ValueError("the margin lies between 0 and 1")
        self._at = {name: at for at, name in enumerate(names)}
        # By pair (i, j) and bet, as the logarithm of the wealth: that i is better than j, and that it is
        # better by less than the margin.
        shape = (len(names), len(names), len(BETS))
        self._better, self._near = np.zeros(shape), np.zeros(shape)
        self._scores: dict[str, list[Floats]] = {name: [] for name in names}
        self._out: dict[str, int] = {}
        self._aside: dict[str, str] = {}
        self._steps: list[Step] = []
        self._told = self._calls = 0
        self._lost = dict.fromkeys(names, 0)

    @property
    def left(self) -> tuple[str, ...]:
        """The candidates that are asked the next block."""
        return tuple(name for name in self._names if name not in self._out and name not in self._aside)

    @property
    def over(self) -> str:
        """Why the race is over; empty while it is not."""
        left = self.left
        if len(left) <= 1:
            return "one is left" if left else "none is left"
        if self._told >= self._units:
            return "there are no more rows"
        if self._within and self._all_near(left):
            return f"those left are within {self._within:g} of one another"
        return ""

    def tell(self, scores: Mapping[str, Floats]) -> None:
        """The scores of a block, in [0, 1], one for each unit and for each candidate in `left`, units in the
        same order for all; NaN where there is none, which leaves out that pair."""
        sizes = {len(values) for values in scores.values()}
        if set(scores) != set(self.left) or len(sizes) != 1:
            raise ValueError("a block has as many scores of each candidate that is left, and of no other")
        self._told += sizes.pop()
        for name, values in scores.items():
            self._scores[name].append(np.asarray(values, dtype=np.float64))
            self._lost[name] += int(np.isnan(values).sum())
            self._calls += len(values)
        pairs = np.ix_(*[[self._at[name] for name in scores]] * 2)
        table = np.vstack([*scores.values()])
        better = table[:, None] - table
        self._better[pairs] += log_growth(better)
        if self._within:
            self._near[pairs] += log_growth((self._within - better) / (1 + self._within))
        self._decide(tuple(scores))

    def _all_near(self, left: Sequence[str]) -> bool:
        """Whether each of these is shown to be better than no other by the margin (see `Equivalence`)."""
        at = [self._at[name] for name in left]
        near = log_mean(self._near[np.ix_(at, at)])
        return bool((near >= -math.log(self._alpha))[~np.eye(len(at), dtype=bool)].all())

    def _decide(self, asked: Iterable[str]) -> None:
        block = len(self._steps) + 1
        evidence = self._against()
        against = {name: evidence[name] for name in asked}
        limit = -math.log(self._alpha)
        worse = [name for name in asked if against[name] >= limit]
        # Not all at once: should every one be shown to be worse than some other, the least so stays.
        if len(worse) == len(against):
            worse.remove(min(worse, key=lambda name: against[name]))
        self._out |= dict.fromkeys(worse, block)
        for name in asked:
            lost = self._lost[name]
            if name not in self._out and lost > MISSING * self._told:  # who is asked was asked all so far
                self._aside[name] = f"{lost} of its {self._told} rows have no score"
        common = {name: value / math.log(10) for name, value in against.items()}
        self._steps.append(Step(block, self._calls, common))

    def _against(self) -> dict[str, float]:
        """The natural logarithm of the average of the e-values of all others being better, by candidate."""
        others = len(self._names) - 1
        if not others:
            return dict.fromkeys(self._names, 0.0)
        logs = log_mean(self._better)
        np.fill_diagonal(logs, -np.inf)  # nobody is better than itself: left out of the average
        means = log_mean(logs.T) + math.log((others + 1) / others)
        return dict(zip(self._names, means.tolist(), strict=True))

    def optimism(self) -> float | None:
        """`optimism` over the rows that all candidates left were asked."""
        left = self.left
        if not left or not self._scores[left[0]]:
            return None
        return optimism({name: np.concatenate(self._scores[name]) for name in left})

    def effects(self, axes: Mapping[str, Mapping[str, JSON]]) -> tuple[LevelEffect, ...]:
        """What the values of each axis do, by candidate to axis to value: see `level_effects`."""
        return level_effects({name: np.concatenate(self._scores[name]) for name in self._names}, axes)

    def result(self) -> RaceResult:
        """How it went, so far."""
        against = self._against()
        candidates = tuple(self._candidate(name, against[name]) for name in self._names)
        means = {each.name: each.mean for each in candidates}
        left = self.left
        known = [name for name in left if means[name] is not None]
        best = max(known, key=lambda name: means[name] or 0.0) if known else None
        return RaceResult(
            alpha=self._alpha,
            within=self._within,
            candidates=candidates,
            steps=tuple(self._steps),
            left=left,
            best=best,
            calls=self._steps[-1].calls if self._steps else 0,
            grid=self._units * len(self._names),
            ended=self.over,
        )

    def _candidate(self, name: str, against: float) -> Candidate:
        values = np.concatenate([*self._scores[name], np.empty(0)])
        known = values[~np.isnan(values)]
        return Candidate(
            name=name,
            rows=len(values),
            mean=float(known.mean()) if len(known) else None,
            against=against / math.log(10),
            out=self._out.get(name),
            aside=self._aside.get(name, ""),
        )
