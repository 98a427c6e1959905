"""The base of everything in a suite, kinds of values, and what it says of money, rates and budgets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from evalrun.suite.findings import complaint, describe
from evalrun.suite.formula import FormulaError, parse_formula


class Spec(BaseModel):
    """The base of everything in a suite: frozen, strict, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class PriceSpec(Spec):
    """What a model costs, in US dollars for each million tokens."""

    input_per_million_usd: float = Field(ge=0, description="Price of a million prompt tokens, in US dollars.")
    output_per_million_usd: float = Field(
        ge=0, description="Price of a million generated tokens, in US dollars."
    )

    cached_input_per_million_usd: float | None = Field(
        default=None,
        ge=0,
        description="Price of a million prompt tokens that the provider had in its cache, in US dollars. "
        "Default: that of the others.",
    )

    batch_factor: float | None = Field(
        default=None,
        ge=0,
        description="What the batch API takes of these prices, where the model says `batch`. Default: 0.5.",
    )

    def batched(self) -> PriceSpec:
        """The prices of the batch API."""
        factor = 0.5 if self.batch_factor is None else self.batch_factor
        cached = self.cached_input_per_million_usd
        return PriceSpec(
            input_per_million_usd=factor * self.input_per_million_usd,
            output_per_million_usd=factor * self.output_per_million_usd,
            cached_input_per_million_usd=None if cached is None else factor * cached,
        )

    def usd(self, prompt_tokens: float, completion_tokens: float, cached_prompt_tokens: float = 0) -> float:
        """What so many tokens cost, in US dollars. Those that the provider had in its cache are a part of the
        prompt's."""
        cached = min(cached_prompt_tokens, prompt_tokens)
        dear = self.input_per_million_usd
        cheap = dear if self.cached_input_per_million_usd is None else self.cached_input_per_million_usd
        read = (prompt_tokens - cached) * dear + cached * cheap
        return (read + completion_tokens * self.output_per_million_usd) / 1e6


class LimitsSpec(Spec):
    """What an endpoint allows in a minute: the strictest that its models name, shared by all its runs."""

    requests_per_minute: int | None = Field(
        default=None, ge=1, description="Requests in any 60 seconds at most, retries included."
    )
    tokens_per_minute: int | None = Field(
        default=None, ge=1, description="Tokens of prompts and answers in any 60 seconds at most."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.requests_per_minute is None and self.tokens_per_minute is None:
            raise complaint("empty limits limit nothing", "Name requests_per_minute or tokens_per_minute.")
        return self


class ResourcesSpec(Spec):
    """What a cluster sets aside for a model (`--on ray`): for each engine, or each task that asks it."""

    gpus: float = Field(default=0, ge=0, description="GPUs; a part of one where several share it.")
    cpus: float = Field(default=1, ge=0, description="CPU cores.")
    memory_gb: float | None = Field(default=None, gt=0, description="Memory in 10^9 bytes.")


class BudgetSpec(Spec):
    """What a sweep may spend, all its parts together, before it stops and can be taken up again."""

    usd: float | None = Field(
        default=None, gt=0, description="US dollars at most. Every model needs a price then."
    )
    minutes: float | None = Field(default=None, gt=0, description="Minutes of running at most.")
    tokens: int | None = Field(
        default=None, ge=1, description="Tokens of prompts and answers at most; cached answers cost none."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.usd is None and self.minutes is None and self.tokens is None:
            raise complaint("an empty budget allows everything", "Name usd, minutes, tokens or several.")
        return self


LocalPath = Annotated[Path, Field(strict=False)]
"""A path as written: relative ones start at the suite's folder."""


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Patterns = Annotated[
    list[str],
    BeforeValidator(_one_or_more),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""One pattern, or a list of them."""


def _fraction(value: Any) -> Any:
    """0.02 from "2%"; other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        return float(value.removesuffix("%")) / 100 if value.endswith("%") else float(value)
    except ValueError:
        raise complaint(f"expected a fraction or a percentage, found {describe(value)}") from None


Fraction = Annotated[
    float,
    BeforeValidator(_fraction),
    Field(ge=0, le=1),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$"},
            ]
        }
    ),
]
"""A share between 0 and 1, or a percentage such as "2%"."""


def _formula(value: str) -> str:
    try:
        parse_formula(value)
    except FormulaError as error:
        raise complaint(str(error), error.remedy) from None
    return value


Formula = Annotated[str, AfterValidator(_formula)]
"""Arithmetic over the scores of a sample."""


def exactly_one(spec: Spec, keys: tuple[str, ...]) -> None:
    """Complain unless exactly one of the keys is given."""
    given = [key for key in keys if getattr(spec, key) is not None]
    if len(given) == 1:
        return
    choice = f"{', '.join(keys[:-1])} or {keys[-1]}"
    if given:
        raise complaint(f"{' and '.join(given)} exclude each other", f"Give exactly one of {choice}.")
    raise complaint(f"one of {choice} is missing")


_URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/\\])", re.ASCII)


def url_of(path: Path) -> str | None:
    """The address that a path of a suite is; None for a local one. (A `Path` has lost one of its slashes.)"""
    text = path.as_posix()
    match = _URL.match(text)
    return f"{match[1]}://{text[match.end() :]}" if match and match[1] != "file" else None
