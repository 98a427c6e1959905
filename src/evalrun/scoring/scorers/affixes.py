"""Whether the answer begins or ends with a text."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from evalrun.scoring.base import (
    MetricInfo,
    Scorer,
    ScorerOptions,
    ScoringInput,
    alternatives,
    as_text,
    fraction,
    one_or_more,
    shown,
)
from evalrun.types import Score


class AffixOptions(ScorerOptions):
    """Options of the scorers `starts_with` and `ends_with`."""

    values: Annotated[list[str], BeforeValidator(one_or_more), Field(min_length=1)] | None = Field(
        default=None, description="Texts of which any one will do. Default: the target, or its entries."
    )
    ignore_case: bool = Field(default=True, description="Whether letters match in either case.")
    of: Literal["answer", "output"] = Field(
        default="answer", description="Where to look: the parsed answer, or the raw output."
    )


class Affix(Scorer):
    """1 where the text begins, or ends, with one of the texts."""

    Options: ClassVar[type[AffixOptions]] = AffixOptions
    shorthand = "values"
    at_start: ClassVar[bool]

    def __init__(self, options: AffixOptions) -> None:
        super().__init__(options)
        self.needs_target = options.values is None

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0, white space at the ends left out; None where there is nothing to look for."""
        options: AffixOptions = self.options
        text = (sample.output if options.of == "output" else as_text(sample.answer)).strip()
        wanted = [as_text(each).strip() for each in options.values or alternatives(sample.target)]
        wanted = [each for each in wanted if each]
        if not wanted:
            return Score(None, "the target is empty, so there is nothing to look for")
        seen = text.casefold() if options.ignore_case else text
        does = "begins" if self.at_start else "ends"
        for each in wanted:
            looked_for = each.casefold() if options.ignore_case else each
            if seen.startswith(looked_for) if self.at_start else seen.endswith(looked_for):
                return Score(1.0, f"the {options.of} {does} with {shown(each)}")
        return Score(0.0, f"the {options.of} {shown(text)} {does} with none of {shown(wanted)}")

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The share of answers that do."""
        does = "begins" if cls.at_start else "ends"
        text = (
            f"Share of samples whose answer {does} with the target, or with a text that the suite gives: "
            "mean of 1 where it does and 0 where not. Unparsed and refused answers count as 0; failed "
            "samples are left out."
        )
        return (fraction(name, text),)


class StartsWith(Affix):
    """1 where the text begins with one of the texts."""

    registered = "starts_with"
    at_start = True
    summary = "1 where the answer begins with the target (or one of given texts)."


class EndsWith(Affix):
    """1 where the text ends with one of the texts."""

    registered = "ends_with"
    at_start = False
    summary = "1 where the answer ends with the target (or one of given texts)."
