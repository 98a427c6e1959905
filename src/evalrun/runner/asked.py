"""What a run that asks for likelihoods sends: no parameter of generation, which nothing depends on then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from evalrun.types import JSON, Ask

if TYPE_CHECKING:
    from evalrun.suite.plan import RunSpec

_OF_GENERATION = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "typical_p", "max_tokens", "max_completion_tokens", "stop"}
    | {"seed", "n", "best_of", "logprobs", "top_logprobs", "echo", "logit_bias", "stream", "stream_options"}
    | {"frequency_penalty", "presence_penalty", "repeat_penalty", "repetition_penalty"}
    | {"min_tokens", "ignore_eos", "response_format", "tools", "tool_choice", "parallel_tool_calls"}
)


def sent_params(spec: RunSpec) -> Mapping[str, JSON]:
    """The parameters that shape what a run is answered: all of them, or those that a likelihood needs."""
    return spec.params if spec.prompt.ask is None else likelihood_params(spec.params)


def likelihood_params(params: Mapping[str, JSON]) -> dict[str, JSON]:
    """The parameters that a likelihood depends on."""
    return {name: value for name, value in params.items() if name not in _OF_GENERATION}


def key_parts(ask: Ask) -> list[JSON]:
    """What of an ask shapes what the model says. What decides between the options (`by`), and what they stand
    for, does not."""
    return [ask.kind, ask.via, ask.continuations, ask.context, ask.top if ask.via == "first_token" else None]
