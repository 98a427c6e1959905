"""A provider, parsers and scorers with options of every shape, for the tests of the suite room."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EchoOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    base_url: str = Field(description="Where it is.")
    mode: Literal["fast", "slow"] = Field(default="fast", description="How it answers.")
    stop: str | list[str] | None = Field(default=None, description="Where it stops.")
    level: int = Field(default=1, ge=0, description="How loud.")


class Echo:
    """A provider."""

    Options = EchoOptions
    shorthand = None
    summary = "says what it hears"


class PatternOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    pattern: str = Field(description="What to look for.")
    group: int = Field(default=1, ge=0, description="Which group.")


class Pattern:
    """A parser with one required option that has a short form."""

    Options = PatternOptions
    shorthand = "pattern"
    summary = "finds a pattern"

    def __init__(self, options: PatternOptions) -> None:
        self.options = options


class LabelsOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    labels: list[str] = Field(description="The labels.")


class Labels:
    """A parser whose short form is a list."""

    Options = LabelsOptions
    shorthand = "labels"
    summary = "finds a label"

    def __init__(self, options: LabelsOptions) -> None:
        self.options = options


class NoOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Trim:
    """A parser without options."""

    Options = NoOptions
    shorthand = None
    summary = "trims"

    def __init__(self, options: NoOptions) -> None:
        self.options = options


class SameOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str | None = Field(default=None, description="Its name.")
    lower: bool = Field(default=False, description="In lower case.")


class Same:
    """A scorer whose options are all optional."""

    Options = SameOptions
    shorthand = None
    summary = "compares"

    def __init__(self, options: SameOptions) -> None:
        self.options = options


def shout(value: str, marks: int = 1) -> str:
    """A plain function as a parser."""
    return value.upper() + "!" * marks


NOT_CALLABLE = 5


PARTS = {
    "provider": {"echo": "suite_parts:Echo", "missing_package": "no_such_package_anywhere:Thing"},
    "parser": {"pattern": "suite_parts:Pattern", "labels": "suite_parts:Labels", "trim": "suite_parts:Trim"},
    "scorer": {"same": "suite_parts:Same"},
}
"""What the registry holds in these tests."""
