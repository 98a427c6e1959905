"""One line of the text."""

from __future__ import annotations

from typing import ClassVar

from evalrun.scoring.base import Options, Parser, Unparsed, as_text
from evalrun.types import JSON


class LineOptions(Options):
    """`first_line` and `last_line` have no options."""


class FirstLine(Parser):
    """The first line that is not empty."""

    Options: ClassVar[type[LineOptions]] = LineOptions
    summary = "The first line that holds more than white space, stripped."

    def parse(self, value: JSON) -> str:
        """The line. Raises Unparsed where all are empty."""
        text = as_text(value).strip()
        if not text:
            raise Unparsed("the output is empty")
        return text.splitlines()[0].rstrip()


class LastLine(Parser):
    """The last line that is not empty."""

    Options: ClassVar[type[LineOptions]] = LineOptions
    summary = "The last line that holds more than white space, stripped."

    def parse(self, value: JSON) -> str:
        """The line. Raises Unparsed where all are empty."""
        text = as_text(value).strip()
        if not text:
            raise Unparsed("the output is empty")
        return text.splitlines()[-1].lstrip()
