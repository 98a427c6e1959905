"""What a queue asks, and of what: checked here, whether a form, a program or the command line says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from evalrun.server.asked import Refused

LEVELS: Mapping[str, str] = {
    "pass_fail": "nominal", "choice": "nominal", "text": "nominal", "pair": "nominal", "scale": "ordinal",
}  # fmt: skip
"""Kinds of a schema, each with the level that its answers are compared at."""

MOST_ANSWER, MOST_CHOICES, MOST_STEPS = 4_000, 50, 20
_FIXED = {"pass_fail": ["pass", "fail"], "pair": ["A", "B", "tie"], "text": list[str]()}


def _parted(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Names: TypeAlias = Annotated[list[str], BeforeValidator(_parted)]
"""A list, or a text parted by commas, as forms send it."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)


class Schema(_Part):
    """The question, and what may be answered."""

    kind: Literal["pass_fail", "choice", "scale", "text", "pair"]
    question: Annotated[str, Field(max_length=1_000)] = ""
    choices: Names = []
    show_target: bool = False
    min: Annotated[int, Field(exclude=True)] = 1
    max: Annotated[int, Field(exclude=True)] = 5

    @model_validator(mode="after")
    def _with_choices(self) -> Self:
        choices = _FIXED.get(self.kind, self.choices)
        if self.kind == "scale":
            if not self.min < self.max <= self.min + MOST_STEPS:
                raise ValueError(f"a scale goes up from 'min' to 'max', by at most {MOST_STEPS} steps")
            choices = [str(step) for step in range(self.min, self.max + 1)]
        if self.kind == "choice" and not 2 <= len(set(choices)) == len(choices) <= MOST_CHOICES:
            raise ValueError(f"a choice has 2 to {MOST_CHOICES} different 'choices'")
        object.__setattr__(self, "choices", choices)
        return self


class Wish(_Part):
    """A queue that is to be made: which samples, what of them, for how many people."""

    title: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
    run: str = ""
    asks: Schema = Field(alias="schema")
    where: Annotated[str, Field(max_length=2_000)] = ""
    pick: Literal["sample", "worst", "query"] = "sample"
    n: Annotated[int, Field(ge=1, le=5_000)] = 100
    seed: str = ""
    overlap: Annotated[int, Field(ge=1, le=20)] = 1
    blind: bool = False
    other: str = ""
    show: Names = []

    @model_validator(mode="after")
    def _pairs_have_two(self) -> Self:
        if (self.asks.kind == "pair") != bool(self.other):
            raise ValueError("pairs, and only they, have an 'other' run")
        if self.other and self.run == self.other:
            raise ValueError("a pair needs two different runs")
        return self


def read_wish(values: Mapping[str, Any]) -> Wish:
    """What a queue is to be; its schema in `schema`, or, of a form, beside the rest. Raises Refused."""
    given = {name: value for name, value in values.items() if value != ""}
    schema = given.get("schema", given)
    try:
        return Wish.model_validate(
            {**given, "schema": orjson.loads(schema) if isinstance(schema, str) else schema}
        )
    except orjson.JSONDecodeError as error:
        raise Refused(400, "'schema' is no JSON object") from error
    except ValidationError as error:
        told = [
            (".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, "))
            for each in error.errors()[:5]
        ]
        raise Refused(
            400, "; ".join(f"{where}: {what}" if where else what for where, what in told)
        ) from error


def checked(schema: Mapping[str, Any], value: Any) -> Any:
    """An answer that the schema has. Raises Refused."""
    if schema["kind"] == "text":
        if not isinstance(value, str) or not value.strip() or len(value) > MOST_ANSWER:
            raise Refused(400, f"an answer has 1 to {MOST_ANSWER:,} characters")
        return value.strip()
    if isinstance(value, bool) or str(value) not in schema["choices"]:
        raise Refused(400, f"'{str(value)[:80]}' is none of: {', '.join(schema['choices'])}")
    return int(str(value)) if schema["kind"] == "scale" else str(value)
