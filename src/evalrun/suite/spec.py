"""The base of everything in a suite, and what a suite says of money, rates and budgets."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evalrun.suite.findings import complaint


class Spec(BaseModel):
    """The base of everything in a suite: frozen, strict, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class PriceSpec(Spec):
    """What a model costs, in US dollars for each million tokens."""

    input_per_million_usd: float = Field(ge=0, description="Price of a million prompt tokens, in US dollars.")
    output_per_million_usd: float = Field(
        ge=0, description="Price of a million generated tokens, in US dollars."
    )


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
