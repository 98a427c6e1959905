"""Whether the answer holds the target."""

from __future__ import annotations

import re
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
from evalrun.scoring.boundaries import end_of, start_of
from evalrun.types import Score


class IncludesOptions(ScorerOptions):
    """Options of the scorer `includes`."""

    values: Annotated[list[str], BeforeValidator(one_or_more), Field(min_length=1)] | None = Field(
        default=None, description="Texts to look for. Default: the target, or its entries where it is a list."
    )
    need: Literal["any", "all"] = Field(
        default="any", description="Whether any one of several texts is enough or all must be there."
    )
    ignore_case: bool = Field(default=True, description="Whether letters match in either case.")
    whole_word: bool = Field(default=False, description="Whether the text must stand as whole words.")
    of: Literal["answer", "output"] = Field(
        default="answer", description="Where to look: the parsed answer, or the raw output."
    )


class Includes(Scorer):
    """1 where the text holds the target, else 0."""

    Options: ClassVar[type[IncludesOptions]] = IncludesOptions
    shorthand = "values"
    registered = "includes"
    summary = "1 where the answer holds the target (or given texts) somewhere."

    def __init__(self, options: IncludesOptions) -> None:
        super().__init__(options)
        self._values = options.values
        self.needs_target = options.values is None
        self._all = options.need == "all"
        self._fold = options.ignore_case
        self._whole = options.whole_word
        self._raw = options.of == "output"

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0; None where there is nothing to look for."""
        text = sample.output if self._raw else as_text(sample.answer)
        wanted = [as_text(each) for each in self._values or alternatives(sample.target)]
        wanted = [each for each in wanted if each]
        if not wanted:
            return Score(None, "the target is empty, so there is nothing to look for")
        where = "output" if self._raw else "answer"
        if self._all:
            missing = next((each for each in wanted if not self._holds(text, each)), None)
            if missing is None:
                return Score(1.0, f"the {where} holds {_list(wanted)}")
            return Score(0.0, f"the {where} {shown(text)} does not hold {shown(missing)}")
        found = next((each for each in wanted if self._holds(text, each)), None)
        if found is not None:
            return Score(1.0, f"the {where} holds {shown(found)}")
        return Score(0.0, f"the {where} {shown(text)} does not hold {_list(wanted)}")

    def _holds(self, text: str, wanted: str) -> bool:
        if self._whole:
            flags = re.IGNORECASE if self._fold else 0
            pattern = f"{start_of(wanted)}{re.escape(wanted)}{end_of(wanted)}"
            return re.search(pattern, text, flags) is not None
        if self._fold:
            return wanted.casefold() in text.casefold()
        return wanted in text

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The share of answers that hold the target."""
        text = (
            "Share of samples whose answer holds the target, or the texts that the suite gives: mean of 1 "
            "where it does and 0 where not. Unparsed and refused answers count as 0; failed samples are left "
            "out."
        )
        return (fraction(name, text),)


def _list(texts: list[str]) -> str:
    return (
        shown(texts[0])
        if len(texts) == 1
        else f"any of {shown(texts)}"
        if len(texts) > 3
        else " or ".join(map(shown, texts))
    )
