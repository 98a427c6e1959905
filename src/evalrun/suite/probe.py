"""What `evalrun probe` does with a suite: how often, against what control, and what was promised."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from evalrun.spans import span_s
from evalrun.suite.findings import complaint
from evalrun.suite.formula import FormulaError, parse_formula
from evalrun.suite.values import Spec


def _span(text: str) -> str:
    if span_s(text) is None:
        raise ValueError(f"'{text}' is no span of time: write 30s, 5m, 2h or 30d")
    return text


def _http(text: str) -> str:
    if urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).hostname:
        raise ValueError("it is no http:// or https:// address")
    return text


def _formula(text: str) -> str:
    try:
        parse_formula(text)
    except FormulaError as error:
        raise complaint(str(error), error.remedy, ()) from None
    return text


Span = Annotated[str, AfterValidator(_span)]


class SloSpec(Spec):
    """A service level objective: the share of requests that are to be good."""

    objective: float = Field(gt=0, lt=1, description="The share of requests that are to be good: 0.995.")
    good: Annotated[str, AfterValidator(_formula)] = Field(
        default="ok",
        description="Which request is good, of ok (1 where it was answered), e2e_s, ttft_s, score (the first "
        "scorer's) and the names of scores: ok and e2e_s < 5 and score >= 0.8. A name without a value makes "
        "the request bad.",
    )
    window: Span = Field(default="30d", description="Over which time the share is taken: 30d.")


class ProbeSpec(Spec):
    """A probe: the suite asked of a deployment again and again."""

    every: Span = Field(default="5m", description="Time between two turns; turns keep to the clock.")
    env: str = Field(
        default="", description="The environment that is probed, as `evalrun deployed --env` names it."
    )
    control: Annotated[str, AfterValidator(_http)] | None = Field(
        default=None,
        description="An address that answers whenever this machine has a network. Where it does not answer "
        "either, a failed turn is unknown and no outage.",
    )
    slo: SloSpec | None = Field(default=None, description="What was promised; its burn rate is watched.")
