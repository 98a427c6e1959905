"""Gates that are looked at while the answers come, by tests that hold however often one looks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.sequential import ConfidenceSequence, EProcess
from evalrun.floats import COMPARISONS
from evalrun.gates.conditions import Gate, GateResult, Verdict

Floats: TypeAlias = NDArray[np.float64]

MISSING = 0.05
"""Where a greater share of the rows has no score, nothing is decided by the others."""


@dataclass(slots=True)
class LookedGate:
    """A gate on one run, whose scores come as shares of what is possible (1 the best).

    `bound` is the limit of a value, or the margin of a paired comparison, as such a share; `above` says on
    which side of it a value passes. Either side is tested at alpha / 2.
    """

    gate: Gate
    run: str
    alpha: float
    paired: bool
    bound: float
    above: bool = True
    verdict: Literal["pass", "fail", ""] = ""
    after: int = 0
    """Units that it took."""
    _up: EProcess = field(default_factory=EProcess)
    _down: EProcess = field(default_factory=EProcess)
    _now: list[Floats] = field(default_factory=list)
    _before: list[Floats] = field(default_factory=list)

    def tell(self, now: Floats, before: Floats | None = None) -> None:
        """The shares of a block, and those of the baseline on the same units; NaN where there is none."""
        before = np.zeros_like(now) if before is None else before
        self._now.append(now)
        self._before.append(before)
        if self.verdict:
            return
        difference = (now - before)[~np.isnan(now - before)]
        if self.paired:
            self._up.update((difference + self.bound) / (1 + self.bound))
            self._down.update(-difference)
        else:
            self._up.update(difference - self.bound)
            self._down.update(self.bound - difference)
        self.after = sum(map(len, self._now))
        lost = sum(int(np.isnan(values).sum()) for values in self._differences())
        if lost > MISSING * self.after:
            return
        limit = math.log(2 / self.alpha)
        if self._up.log_value >= limit:
            self.verdict = "pass" if self.paired or self.above else "fail"
        elif self._down.log_value >= limit and self._by_margin():
            self.verdict = "fail" if self.paired or self.above else "pass"

    def _differences(self) -> list[Floats]:
        return [now - before for now, before in zip(self._now, self._before, strict=True)]

    def _by_margin(self) -> bool:
        """Whether the run is worse by more than the margin, as far as one sees; worse at all is shown."""
        if not self.paired:
            return True
        return COMPARISONS[">"](-float(np.nanmean(np.concatenate(self._differences()))), self.bound)

    @property
    def p(self) -> float:
        """The always-valid p-value, of both sides."""
        return min(1.0, 2 * min(self._up.p, self._down.p))

    def result(self, plain: GateResult, low: float, width: float, higher: bool, units: int) -> GateResult:
        """The verdict, in place of one by a test for one look; scores run from `low` over `width`."""
        if not self.verdict and not self.paired:
            said = f"{self.after:,} of {units:,} rows did not decide it; {plain.reason}".rstrip("; ")
            return replace(plain, reason=said)
        sign = 1.0 if higher else -1.0

        def score(share: float) -> float:
            return low + width * (share if higher else 1 - share)

        known = np.concatenate(self._differences())
        keep = ~np.isnan(known)
        now = np.concatenate(self._now)[keep]
        verdict = Verdict(self.verdict) if self.verdict else Verdict.INCONCLUSIVE
        if verdict is Verdict.INCONCLUSIVE and self.gate.strict:
            verdict = Verdict.FAIL
        shown = "decided" if self.verdict else "not decided"
        reason = (
            f"{shown} after {self.after:,} of {units:,} rows, at {self.alpha:.2g} however often one looks "
            f"(always-valid p = {self.p:.2g})"
        )
        found = replace(
            plain, verdict=verdict, value=score(float(now.mean())) if len(now) else None, reason=reason,
            n=len(now), level=None, detectable=None,
        )  # fmt: skip
        if not self.paired or not len(now):
            return found
        sequence = ConfidenceSequence(self.alpha)
        ends = [2 * end - 1 for end in sequence.update((known[keep] + 1) / 2)]
        ends = sorted(sign * width * end for end in ends)
        return replace(
            found,
            baseline=score(float(np.concatenate(self._before)[keep].mean())),
            difference=sign * width * float(known[keep].mean()),
            ci_low=ends[0],
            ci_high=ends[1],
        )
