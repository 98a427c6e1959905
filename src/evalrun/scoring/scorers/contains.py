"""Whether the answer holds all, or any, of several texts: `includes` with that decided."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from evalrun.scoring.base import MetricInfo, ScorerOptions, fraction, one_or_more
from evalrun.scoring.scorers.includes import Includes, IncludesOptions


class ContainsOptions(ScorerOptions):
    """Options of the scorers `contains_all` and `contains_any`."""

    values: Annotated[list[str], BeforeValidator(one_or_more), Field(min_length=1)] | None = Field(
        default=None, description="Texts to look for. Default: the target, or its entries where it is a list."
    )
    ignore_case: bool = Field(default=True, description="Whether letters match in either case.")
    whole_word: bool = Field(default=False, description="Whether the text must stand as whole words.")
    of: Literal["answer", "output"] = Field(
        default="answer", description="Where to look: the parsed answer, or the raw output."
    )


class Contains(Includes):
    """1 where as many of the texts as are needed are there."""

    Options = ContainsOptions  # type: ignore[assignment]
    need: ClassVar[Literal["any", "all"]]

    def __init__(self, options: ContainsOptions) -> None:
        given = options.model_dump(exclude={"parse"})
        super().__init__(IncludesOptions(**given, parse=options.parse, need=self.need))

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The share of answers that hold them."""
        which = "all" if cls.need == "all" else "at least one"
        text = (
            f"Share of samples whose answer holds {which} of the texts that the suite gives, or of the "
            "targets: mean of 1 where it does and 0 where not. Unparsed and refused answers count as 0; "
            "failed samples are left out."
        )
        return (fraction(name, text),)


class ContainsAll(Contains):
    """1 where all the texts are there."""

    registered = "contains_all"
    need = "all"
    summary = "1 where the answer holds every one of several texts (or targets)."


class ContainsAny(Contains):
    """1 where any of the texts is there."""

    registered = "contains_any"
    need = "any"
    summary = "1 where the answer holds at least one of several texts (or targets)."
