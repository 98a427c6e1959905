"""Whether the answer fits a JSON Schema."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from evalrun.scoring.base import MetricInfo, Scorer, ScorerOptions, ScoringInput, fraction, shown
from evalrun.scoring.structure import NotJson, json_of
from evalrun.types import JSON, Score

with warnings.catch_warnings():
    # The natural name of the option is that of an old method of pydantic, which warns about it.
    warnings.filterwarnings("ignore", message=".*shadows an attribute in parent.*")

    class JsonSchemaOptions(ScorerOptions):
        """Options of the scorer `json_schema`."""

        schema: dict[str, JSON] | None = Field(  # type: ignore[assignment]
            default=None, description="The schema (draft 2020-12, or the draft that its $schema names)."
        )
        column: str | None = Field(
            default=None, description="Column of the dataset that holds each row's own schema instead."
        )
        formats: bool = Field(
            default=False, description="Whether `format` is checked too (date, ipv4 and the like)."
        )

        @model_validator(mode="after")
        def _one_schema(self) -> Self:
            given: Any = self.schema
            if (given is None) == (self.column is None):
                raise ValueError("give exactly one of schema and column")
            if given is not None:
                _check(given)
            return self


def _check(schema: dict[str, JSON]) -> None:
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for

    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        place = ".".join(map(str, error.absolute_path))
        raise ValueError(
            f"not a JSON Schema: {error.message}" + (f" (at {place})" if place else "")
        ) from None


class JsonSchema(Scorer):
    """1 where the answer is JSON that fits the schema."""

    Options: ClassVar[type[JsonSchemaOptions]] = JsonSchemaOptions
    registered = "json_schema"
    parts = ("errors",)
    summary = (
        "1 where the answer is JSON that fits a schema; the reason names the first violation and its place. "
        "References to other documents are not fetched."
    )

    def __init__(self, options: JsonSchemaOptions) -> None:
        super().__init__(options)
        given: Any = options.schema
        self._validator = None if given is None else self._made(given)

    def _made(self, schema: dict[str, JSON]) -> Any:
        from jsonschema.validators import validator_for
        from referencing import Registry

        kind = validator_for(schema)
        checker = kind.FORMAT_CHECKER if self.options.formats else None
        # An empty registry of its own: without one, references to web addresses would be fetched.
        return kind(schema, registry=Registry(), format_checker=checker)

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0, and the number of violations; None where the row's schema is none."""
        validator = self._validator
        try:
            if validator is None:
                given = sample.row.get(self.options.column)
                schema: Any = json_of(given) if isinstance(given, str) else given
                _check(schema)
                validator = self._made(schema)
        except Exception as error:
            return Score(None, f"column {shown(self.options.column)} holds no JSON Schema: {error}")
        value = sample.answer
        if isinstance(value, str):
            try:
                value = json_of(value, fenced=True)
            except NotJson as error:
                return Score(0.0, str(error), {"errors": None})
        return self._verdict(validator, value)

    @staticmethod
    def _verdict(validator: Any, value: JSON) -> Score:
        from jsonschema.exceptions import best_match
        from referencing.exceptions import Unresolvable

        try:
            errors = list(validator.iter_errors(value))
        except Unresolvable as error:
            return Score(None, f"the schema refers to {error.ref}, which is not in it")
        except RecursionError:
            return Score(None, "the value or its schema is nested too deeply")
        if not errors:
            return Score(1.0, "the answer fits the schema", {"errors": 0.0})
        first = best_match(errors)
        place = ".".join(map(str, first.absolute_path)) or "the top"
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        return Score(0.0, f"at {place}: {first.message[:200]}{more}", {"errors": float(len(errors))})

    def unanswered(self, sample: ScoringInput, reason: str) -> Score:
        """0, and no count of violations: there is no value to check."""
        return Score(0.0, reason, {"errors": None})

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The share of answers that fit."""
        text = (
            "Share of samples whose answer is JSON that fits the suite's JSON Schema: mean of 1 where it "
            "does and 0 where not. Unparsed and refused answers count as 0; failed samples are left out."
        )
        return (fraction(name, text),)
