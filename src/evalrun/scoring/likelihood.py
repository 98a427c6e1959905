"""From likelihoods to a choice: the document that is kept of a sample that was asked for one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evalrun.types import JSON, Ask, ErrorKind, ProviderError

MEASURES = {"sum": "logprob", "per_token": "per_token", "per_byte": "per_byte"}
"""What may decide, and the key in which an option has it."""


def decided(ask: Ask, likelihood: JSON) -> dict[str, JSON]:
    """What a response's likelihood says, in words of the ask. Natural logarithms throughout.

    For a choice: `options`, each with `option`, `answer`, `logprob` (the sum), `tokens`, `per_token` and
    `per_byte` (UTF-8 bytes of the option as the suite has it, without the separator, as acc_norm of
    lm-evaluation-harness counts characters), null where the model did not tell; `chosen`, the answer of the
    option with the highest value of `by`, the first of several; `margin` to the next. For a perplexity: the
    sums. Raises ProviderError (application) for what a provider of one's own got wrong.
    """
    try:
        if ask.kind == "perplexity":
            return {"kind": "perplexity", **_perplexity(likelihood)}
        if ask.kind == "pairs":
            return _pairs(ask, likelihood)
        if ask.kind == "tokens":
            return {**likelihood, "kind": "tokens", "chosen": None}
        if ask.kind == "rolling":
            return {**likelihood, "kind": "rolling", "logprob": float(likelihood["logprob"])}
        return _choice(ask, likelihood)
    except (LookupError, TypeError, ValueError) as error:
        what = f"the likelihood that the provider gave cannot be read: {type(error).__name__}: {error}"
        raise ProviderError(ErrorKind.APPLICATION, what) from error


def _choice(ask: Ask, likelihood: Mapping[str, Any]) -> dict[str, JSON]:
    given = likelihood["options"]
    if len(given) != len(ask.options):
        raise ValueError(f"{len(given)} likelihoods for {len(ask.options)} options")
    options = [
        _option(option, answer, measured)
        for option, answer, measured in zip(ask.options, ask.answers, given, strict=True)
    ]
    values = [each[MEASURES[ask.by]] for each in options]
    known = sorted((value for value in values if value is not None), reverse=True)
    chosen = ask.answers[values.index(known[0])] if known else None
    more = {key: likelihood[key] for key in ("moved", "unscored") if likelihood.get(key)}
    return {
        "kind": "choose",
        "via": ask.via,
        "by": ask.by,
        "options": options,
        "chosen": chosen,
        "margin": known[0] - known[1] if len(known) > 1 else None,
        **more,
    }


def _pairs(ask: Ask, likelihood: Mapping[str, Any]) -> dict[str, JSON]:
    """`pairs`, each with `logprob`, `greedy` and `tokens`; `chosen`, the likeliest of the answers."""
    pairs = [{**each, "logprob": float(each["logprob"])} for each in likelihood["pairs"]]
    if len(pairs) != len(ask.pairs):
        raise ValueError(f"{len(pairs)} likelihoods for {len(ask.pairs)} pairs of texts")
    values = [each["logprob"] for each in pairs[: len(ask.answers)]]
    chosen = ask.answers[values.index(max(values))] if values else None
    return {**likelihood, "kind": "pairs", "pairs": pairs, "chosen": chosen}


def _option(option: str, answer: str, measured: Mapping[str, Any]) -> dict[str, JSON]:
    value, tokens = measured["logprob"], measured.get("tokens")
    size = len(option.encode("utf-8", "replace"))
    if value is not None:
        value = float(value)
        if not math.isfinite(value):
            raise ValueError(f"the log-likelihood of '{option}' is {value}")
    return {
        "option": option,
        "answer": answer,
        "logprob": value,
        "tokens": tokens,
        "per_token": value / tokens if value is not None and tokens else None,
        "per_byte": value / size if value is not None and size else None,
    }


def _perplexity(likelihood: Mapping[str, Any]) -> dict[str, JSON]:
    value = float(likelihood["logprob"])
    if not math.isfinite(value):
        raise ValueError(f"the log-likelihood is {value}")
    counts = {name: int(likelihood[name]) for name in ("tokens", "bytes", "words")}
    unscored = int(likelihood.get("unscored") or 0)
    return {"nll": -value, **counts, **({"unscored": unscored} if unscored else {})}


def probabilities(likelihood: JSON, measure: str = "logprob") -> list[float] | None:
    """The options' likelihoods as probabilities that add up to one; None where none is known.

    An option that is not known (not among the top tokens) has probability 0.
    """
    values: Sequence[float | None] = [option[measure] for option in likelihood["options"]]
    known = [value for value in values if value is not None]
    if not known:
        return None
    highest = max(known)
    weights = [0.0 if value is None else math.exp(value - highest) for value in values]
    total = sum(weights)
    return [weight / total for weight in weights]
