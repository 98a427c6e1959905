"""Scorers around another scorer: its opposite, and whether it is good enough."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import Field, WithJsonSchema, field_serializer, model_validator

from evalrun.errors import Problem, UserError
from evalrun.floats import COMPARISONS
from evalrun.scoring.base import Example, MetricInfo, Scorer, ScorerOptions, ScoringInput, fraction
from evalrun.scoring.functions import scorer
from evalrun.suite.components import ParserSpec, ScorerSpec
from evalrun.types import JSON, Score

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


Options = TypeVar("Options", bound=WrappingOptions)


class Wrapping(Scorer[Options]):
    """A scorer whose score is made from another's."""

    shorthand: ClassVar[str | None] = "scorer"

    def __init__(self, options: Options) -> None:
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

    @abstractmethod
    def made_of(self, verdict: Score) -> Score:
        """The score, from that of the scorer within."""

    def score(self, sample: ScoringInput) -> Score:
        """As the other score says."""
        return self.made_of(self.inner.score(sample))

    def unanswered(self, sample: ScoringInput, reason: str) -> Score:
        """0 like any check of correctness: no answer passes no check. Else as the other score says."""
        if self.inner.correctness and not (self.needs_target and sample.target is None):
            return Score(0.0, reason)
        return self.made_of(self.inner.unanswered(sample, reason))

    def abandon(self) -> None:
        """End what the scorer within is at."""
        self.inner.abandon()

    def check(self, columns: Sequence[str], where: str) -> Sequence[Problem]:
        """What keeps the scorer within from scoring."""
        return self.inner.check(columns, where)


class NotOptions(WrappingOptions):
    """Options of the scorer `not`."""

    prefix: ClassVar[str] = "not"


@scorer(
    "not",
    summary="The opposite of another check, 1 - score: {not: {includes: sorry}}. It is called not_<its name> "
    "unless a name is given.",
    metric="Mean over samples of 1 - the score of the check that is negated. Unparsed and refused answers "
    "count as 0 where that check is one of correctness; failed samples are left out.",
    example=Example("{not: {includes: {values: [sorry]}}}", "With pleasure.", None, 1),
)
class Not(Wrapping[NotOptions]):
    """1 minus the score of another scorer."""

    def made_of(self, verdict: Score) -> Score:
        """1 - score; None where the other has none, or one outside 0 to 1."""
        if verdict.value is None:
            return Score(None, verdict.reason)
        if not 0 <= verdict.value <= 1:
            return Score(None, f"a score of {verdict.value:g} has no opposite; {verdict.reason}")
        return Score(1 - verdict.value, f"not: {verdict.reason}")

    def metrics(self) -> tuple[MetricInfo, ...]:
        """The same, with the definition of what is negated."""
        inner = self.inner.metrics()[0]
        text = f"{self.describe(self.name)[0].definition} The check: {inner.name}. {inner.definition}"
        return (fraction(self.name, text),)


class ThresholdOptions(WrappingOptions):
    """Options of the scorer `threshold`."""

    part: str | None = Field(default=None, description="A part of the score to go by: rouge_2 of rouge.")
    at_least: float | None = Field(default=None, allow_inf_nan=False, description="Least score that passes.")
    at_most: float | None = Field(
        default=None, allow_inf_nan=False, description="Greatest score that passes."
    )

    prefix: ClassVar[str] = "pass"

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("give at_least, at_most or both")
        return self


@scorer(
    "threshold",
    summary="1 where another score is at least, or at most, so much: "
    "{threshold: {rouge: {}, at_least: 0.3}}. It is called pass_<its name> unless a name is given.",
    metric="Share of samples whose other score is within the bounds that the suite gives: mean of 1 where "
    "it is and 0 where not. Unparsed and refused answers count as 0 where that score is one of "
    "correctness; failed samples are left out.",
    example=Example(
        "{threshold: {rouge: {}, at_least: 0.5}}", "the cat was on the mat", "the cat sat on the mat", 1
    ),
)
class Threshold(Wrapping[ThresholdOptions]):
    """1 where another score is within its bounds."""

    shorthand: ClassVar[str | None] = None

    def __init__(self, options: ThresholdOptions) -> None:
        super().__init__(options)
        if options.part is not None and options.part not in self.inner.parts:
            known = ", ".join(self.inner.parts) or "none"
            raise UserError(
                f"'{self.inner.name}' has no part '{options.part}'",
                where="scorers",
                remedy=f"It has: {known}.",
            )

    def made_of(self, verdict: Score) -> Score:
        """1 or 0; None where the other has none."""
        options = self.options
        value = verdict.value if options.part is None else verdict.parts.get(options.part)
        if value is None:
            return Score(None, verdict.reason)
        if options.at_least is not None and COMPARISONS["<"](value, options.at_least):
            return Score(0.0, f"{value:.4g} is less than {options.at_least:g}; {verdict.reason}")
        if options.at_most is not None and COMPARISONS[">"](value, options.at_most):
            return Score(0.0, f"{value:.4g} is more than {options.at_most:g}; {verdict.reason}")
        return Score(1.0, f"{value:.4g} passes; {verdict.reason}")

    def metrics(self) -> tuple[MetricInfo, ...]:
        """The same, with the bounds and the definition of the score."""
        inner, options = self.inner.metrics()[0], self.options
        bounds = [f"at least {options.at_least:g}"] if options.at_least is not None else []
        bounds += [f"at most {options.at_most:g}"] if options.at_most is not None else []
        which = f"{self.inner.name}.{options.part}" if options.part else inner.name
        text = f"{self.describe(self.name)[0].definition} {which} must be {' and '.join(bounds)}."
        return (fraction(self.name, text),)
