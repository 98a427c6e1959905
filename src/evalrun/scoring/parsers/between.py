"""What stands between two marks."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from evalrun.scoring.base import Options, Parser, Unparsed, as_text, shown
from evalrun.types import JSON


class BetweenOptions(Options):
    """Options of the parser `between`."""

    start: str = Field(min_length=1, description="The mark before the answer, taken literally.")
    end: str | None = Field(
        default=None, min_length=1, description="The mark after it. Default: the end of the text."
    )
    which: Literal["first", "last"] = Field(
        default="first", description="Which start mark to take where there are several."
    )


class Between(Parser):
    """The text between a start and an end mark."""

    Options: ClassVar[type[BetweenOptions]] = BetweenOptions
    shorthand = "start"
    summary = "The text between two marks, stripped: <answer> and </answer>, or #### and the end."

    def __init__(self, options: BetweenOptions) -> None:
        super().__init__(options)
        self._start = options.start
        self._end = options.end
        self._last = options.which == "last"

    def parse(self, value: JSON) -> str:
        """The text between the marks. Raises Unparsed where one of them is missing."""
        text = as_text(value)
        at = text.rfind(self._start) if self._last else text.find(self._start)
        if at < 0:
            raise Unparsed(f"the mark {shown(self._start)} is not in the output")
        begin = at + len(self._start)
        if self._end is None:
            return text[begin:].strip()
        until = text.find(self._end, begin)
        if until < 0:
            raise Unparsed(f"the mark {shown(self._end)} does not follow {shown(self._start)}")
        return text[begin:until].strip()
