"""Whether the answer is JSON."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from evalrun.scoring.base import MetricInfo, Scorer, ScorerOptions, ScoringInput, fraction
from evalrun.scoring.structure import NotJson, json_of
from evalrun.types import Score


class JsonValidOptions(ScorerOptions):
    """Options of the scorer `json_valid`."""

    kind: Literal["any", "object", "array"] = Field(default="any", description="What the value must be.")
    fenced: bool = Field(default=False, description="Whether a Markdown code fence around it is forgiven.")


class JsonValid(Scorer):
    """1 where the raw output is JSON and nothing else."""

    Options: ClassVar[type[JsonValidOptions]] = JsonValidOptions
    shorthand = "kind"
    registered = "json_valid"
    summary = (
        "1 where the whole output is valid JSON (RFC 8259: no comments, no trailing commas, no NaN); with "
        "fenced: true also inside one code fence."
    )

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0; goes by the raw output, whatever the parsers made of it."""
        options: JsonValidOptions = self.options
        try:
            value = json_of(sample.output, fenced=options.fenced)
        except NotJson as error:
            return Score(0.0, str(error))
        wanted = {"object": dict, "array": list, "any": object}[options.kind]
        if not isinstance(value, wanted):
            return Score(0.0, f"the output is JSON, but no {options.kind}")
        return Score(1.0, "the output is valid JSON")

    def unanswered(self, sample: ScoringInput, reason: str) -> Score:
        """The same, for outputs that a parser could not read; a refusal is 0."""
        return self.score(sample) if sample.status == "unparsed" else super().unanswered(sample, reason)

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The share of valid outputs."""
        text = (
            "Share of samples whose whole output is valid JSON (RFC 8259), and of the kind that the suite "
            "asks for. Refused answers count as 0; failed samples are left out."
        )
        return (fraction(name, text),)
