"""Text without what surrounds it."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from evalrun.scoring.base import Options, Parser, as_text
from evalrun.types import JSON


class StripOptions(Options):
    """Options of the parser `strip`."""

    characters: str | None = Field(
        default=None,
        min_length=1,
        description="Characters to take off both ends, besides white space. Default: white space only.",
    )


class Strip(Parser):
    """Takes white space, and characters that are named, off both ends."""

    Options: ClassVar[type[StripOptions]] = StripOptions
    shorthand = "characters"
    summary = "Takes white space, or the characters given as well, off both ends of the text."

    def __init__(self, options: StripOptions) -> None:
        super().__init__(options)
        extra = options.characters
        self._characters = None if extra is None else extra + " \t\n\r\f\v\u00a0"

    def parse(self, value: JSON) -> str:
        """The text without its ends."""
        return as_text(value).strip(self._characters)
