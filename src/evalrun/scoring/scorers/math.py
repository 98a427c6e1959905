"""Whether the answer is the same small piece of mathematics as the target."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from evalrun.scoring.base import (
    NO_TARGET,
    MetricInfo,
    Scorer,
    ScorerOptions,
    ScoringInput,
    alternatives,
    as_text,
    fraction,
    shown,
)
from evalrun.scoring.mathematics import boxed, comparable, equal, value_of
from evalrun.types import Score

MAX_CHARACTERS = 100_000


class MathOptions(ScorerOptions):
    """Options of the scorer `math`."""

    rel_tolerance: float = Field(
        default=1e-9,
        ge=0,
        lt=1,
        description="Greatest relative difference of equal numbers; exact fractions need none.",
    )


class Math(Scorer):
    """1 where answer and target are the same number, or the same formula as text."""

    Options: ClassVar[type[MathOptions]] = MathOptions
    shorthand = "rel_tolerance"
    registered = "math"
    needs_target = True
    summary = (
        r"1 where the answer is the target's number however it is written: 1/2, 0.5, 50 %, \frac{1}{2}, "
        r"\boxed{…}, 3\sqrt{2}, 2^{10}, 1,234; what is no number is compared as text without spaces. "
        "No algebra: x+1 is not 1+x."
    )

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0; None where there is no target."""
        answer = boxed(as_text(sample.answer)[-MAX_CHARACTERS:])
        targets = [boxed(as_text(each)) for each in alternatives(sample.target) if each is not None]
        if not targets:
            return Score(None, NO_TARGET)
        number, text = value_of(answer), None
        for target in targets:
            wanted = value_of(target)
            if number is not None and wanted is not None:
                if equal(number, wanted, self.options.rel_tolerance):
                    return Score(1.0, f"{shown(answer)} equals {shown(target)}")
                continue
            text = comparable(answer[:MAX_CHARACTERS]) if text is None else text
            if text and text == comparable(target):
                return Score(1.0, f"{shown(answer)} reads like {shown(target)}")
        return Score(0.0, f"{shown(answer)} is not {' or '.join(shown(each) for each in targets[:5])}")

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The share of right answers."""
        text = (
            "Share of samples whose answer is the target as mathematics: numbers are worked out from "
            "fractions, percentages, powers, roots and LaTeX and compared (exactly where both are fractions, "
            "else within the relative tolerance); anything else is compared as text without spaces. Unparsed "
            "and refused answers count as 0; failed samples are left out."
        )
        return (fraction(name, text),)
