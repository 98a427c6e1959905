"""The last number in the text."""

from __future__ import annotations

from typing import ClassVar

from evalrun.scoring.base import Options, Parser, Unparsed, as_text
from evalrun.scoring.numbers import last_number
from evalrun.types import JSON

MAX_CHARACTERS = 100_000
"""Only the last so many characters are read."""


class LastNumberOptions(Options):
    """`last_number` has no options."""


class LastNumber(Parser):
    """The last number that stands in the text."""

    Options: ClassVar[type[LastNumberOptions]] = LastNumberOptions
    summary = (
        "The last number in the text: sign, $, thousands separators, decimals and exponent are read; "
        "45% gives 45; 1/2 is two numbers. Whole numbers give an integer."
    )

    def parse(self, value: JSON) -> int | float:
        """The number. Raises Unparsed where there is none."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        number = last_number(as_text(value)[-MAX_CHARACTERS:])
        if number is None:
            raise Unparsed("there is no number in the output")
        return number
