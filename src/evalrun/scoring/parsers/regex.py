"""What a regular expression finds."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from evalrun.scoring.base import Options, Parser, Unparsed, as_text
from evalrun.scoring.guard import GuardedPattern, PatternTimeout, check_pattern
from evalrun.types import JSON


class RegexOptions(Options):
    """Options of the parser `regex`."""

    pattern: Annotated[str, check_pattern] = Field(
        min_length=1, description="Python regular expression, searched anywhere in the text."
    )
    group: int | str | None = Field(
        default=None,
        description="Number or name of the group to take. Default: the first group, or the whole match "
        "where the pattern has none.",
    )
    which: Literal["first", "last"] = Field(default="first", description="Which match to take.")
    ignore_case: bool = Field(default=False, description="Whether letters match in either case.")

    @model_validator(mode="after")
    def _group_exists(self) -> Self:
        regex = re.compile(self.pattern)
        known = isinstance(self.group, str) and self.group in regex.groupindex
        if (
            self.group is not None
            and not known
            and not (isinstance(self.group, int) and 0 <= self.group <= regex.groups)
        ):
            raise ValueError(f"the pattern has no group {self.group!r}; it has {regex.groups}")
        return self


class Regex(Parser):
    """One group of the first or last match of a pattern."""

    Options: ClassVar[type[RegexOptions]] = RegexOptions
    shorthand = "pattern"
    summary = (
        "A group of the first or last match of a regular expression. Texts are cut to 100,000 characters, "
        "and a search that takes longer than a second leaves the answer unparsed."
    )

    def __init__(self, options: RegexOptions) -> None:
        super().__init__(options)
        self._pattern = GuardedPattern(options.pattern, re.IGNORECASE if options.ignore_case else 0)
        default = 1 if self._pattern.regex.groups else 0
        self._group = default if options.group is None else options.group
        self._find = self._pattern.first if options.which == "first" else self._pattern.last
        self._none = f"nothing matches the pattern {options.pattern}"

    def parse(self, value: JSON) -> str:
        """The text of the group. Raises Unparsed where nothing matches."""
        try:
            match = self._find(value if isinstance(value, str) else as_text(value))
        except PatternTimeout as error:
            raise Unparsed(str(error)) from None
        if match is None:
            raise Unparsed(self._none)
        found = match[self._group]
        if found is None:
            raise Unparsed(f"the pattern matches, but its group {self._group} takes no part in the match")
        return str(found)
