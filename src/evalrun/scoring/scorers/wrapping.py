"""Scorers around another scorer: how the inner one is written in a suite, and made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, WithJsonSchema, field_serializer, model_validator

from evalrun.errors import Problem, UserError
from evalrun.scoring.base import Scorer, ScorerOptions
from evalrun.suite.components import ParserSpec, ScorerSpec
from evalrun.types import JSON

Inner = Annotated[ScorerSpec, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]})]


class WrappingOptions(ScorerOptions):
    """Options of a scorer around another one."""

    scorer: Inner = Field(
        description="The scorer, in any of the forms that a suite's `scorers` take; its name may also stand "
        "as the key, with its options under it."
    )

    prefix: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _name_as_key(cls, data: Any) -> Any:
        """{includes: sorry} is {scorer: {includes: sorry}}; the name comes from the inner one."""
        if not isinstance(data, dict):
            return data
        own = set(cls.model_fields)
        others = [key for key in data if key not in own]
        if "scorer" not in data and len(others) == 1:
            data = {**{key: data[key] for key in data if key in own}, "scorer": {others[0]: data[others[0]]}}
        if data.get("name") is None and "scorer" in data:
            inner = data["scorer"]
            spec = inner if isinstance(inner, ScorerSpec) else ScorerSpec.model_validate(inner)
            data = {**data, "name": f"{cls.prefix}_{spec.id}"[:60]}
        return data

    @field_serializer("scorer")
    def _written(self, spec: ScorerSpec) -> JSON:
        return spec.resolved()


class Wrapping(Scorer):
    """A scorer whose score is made from another's."""

    Options: ClassVar[type[BaseModel]] = WrappingOptions
    shorthand: ClassVar[str | None] = "scorer"

    def __init__(self, options: WrappingOptions) -> None:
        from evalrun.scoring.pipeline import as_scorers

        super().__init__(options)
        self.inner: Scorer = as_scorers([options.scorer.build()])[0]
        self.late, self.runs_code = self.inner.late, self.inner.runs_code
        self.reads_likelihood, self.correctness = self.inner.reads_likelihood, self.inner.correctness
        self.needs_target = self.inner.needs_target
        if self.inner.asks:
            raise UserError(
                f"'{self.registered}' cannot stand around '{self.inner.name}', "
                "which asks a model after the run",
                where="scorers",
                remedy='Use a formula under derive, such as {good: "judge >= 4"}.',
            )

    @property
    def own_parsers(self) -> Sequence[ParserSpec]:
        """Its own, else those of the scorer within."""
        return super().own_parsers or self.inner.own_parsers

    def abandon(self) -> None:
        """End what the scorer within is at."""
        self.inner.abandon()

    def check(self, columns: Sequence[str], where: str) -> Sequence[Problem]:
        """What keeps the scorer within from scoring."""
        return self.inner.check(columns, where)
