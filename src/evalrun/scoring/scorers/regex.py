"""Whether a regular expression matches the answer."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from evalrun.scoring.base import (
    MetricInfo,
    Scorer,
    ScorerOptions,
    ScoringInput,
    alternatives,
    as_text,
    fraction,
    shown,
)
from evalrun.scoring.guard import GuardedPattern, PatternTimeout, check_pattern
from evalrun.types import Score


class RegexMatchOptions(ScorerOptions):
    """Options of the scorer `regex`."""

    pattern: Annotated[str, check_pattern] | None = Field(
        default=None,
        min_length=1,
        description="Python regular expression. Default: the target is the pattern.",
    )
    full: bool = Field(
        default=False, description="Whether the pattern must match the whole text, not a part of it."
    )
    ignore_case: bool = Field(default=False, description="Whether letters match in either case.")
    of: Literal["answer", "output"] = Field(
        default="answer", description="Where to look: the parsed answer, or the raw output."
    )


class RegexMatch(Scorer):
    """1 where the pattern matches, else 0."""

    Options: ClassVar[type[RegexMatchOptions]] = RegexMatchOptions
    shorthand = "pattern"
    registered = "regex"
    summary = "1 where a regular expression, given or the target, matches the answer."

    def __init__(self, options: RegexMatchOptions) -> None:
        super().__init__(options)
        flags = re.IGNORECASE if options.ignore_case else 0
        self._compile = lru_cache(maxsize=1024)(lambda pattern: GuardedPattern(pattern, flags))
        self._given = None if options.pattern is None else self._compile(options.pattern)
        self._full = options.full
        self._raw = options.of == "output"

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0; None where the target is no valid pattern or the search takes too long."""
        text = sample.output if self._raw else as_text(sample.answer)
        try:
            if self._given is not None:
                patterns = [self._given]
            else:
                patterns = [self._compile(as_text(each)) for each in alternatives(sample.target)]
        except re.error as error:
            return Score(None, f"the target {shown(sample.target)} is not a regular expression: {error}")
        try:
            for pattern in patterns:
                if (pattern.whole(text) if self._full else pattern.first(text)) is not None:
                    return Score(1.0, f"{shown(text)} matches the pattern {shown(pattern.regex.pattern)}")
        except PatternTimeout as error:
            return Score(None, str(error))
        wanted = " or ".join(shown(pattern.regex.pattern) for pattern in patterns[:3])
        return Score(0.0, f"{shown(text)} does not match the pattern {wanted}")

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The share of answers that match."""
        text = (
            "Share of samples whose answer matches the regular expression: mean of 1 where it does and 0 "
            "where not. Unparsed and refused answers count as 0; failed samples are left out."
        )
        return (fraction(name, text),)
