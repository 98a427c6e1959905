"""What a choice by likelihood says beyond the chosen option: how sure the model was, and whether rightly."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from evalrun.scoring.base import (
    Corpus,
    MetricInfo,
    ScoreColumns,
    Scorer,
    ScorerOptions,
    ScoringInput,
    alternatives,
    as_text,
    fraction,
    shown,
)
from evalrun.scoring.likelihood import MEASURES, probabilities
from evalrun.types import JSON, Score

_LONGEST_REASON = 400


class OptionLikelihoodOptions(ScorerOptions):
    """Options of the scorer `option_likelihood`."""

    bins: int = Field(default=10, ge=1, le=100, description="Bins of equal width for the calibration error.")


class OptionLikelihood(Scorer):
    """The probability of the right option among the options, and the calibration of these probabilities."""

    Options: ClassVar[type[OptionLikelihoodOptions]] = OptionLikelihoodOptions
    registered = "option_likelihood"
    correctness = False
    parts = (
        "accuracy_sum",
        "accuracy_per_token",
        "accuracy_per_byte",
        "brier",
        "confidence",
        "right",
        "margin",
    )
    summary = (
        "For prompts with ask: {choose: …}: the probability of the right option among the options, whether "
        "each of the three measures (sum, per token, per byte) chooses it, the margin, Brier score and "
        "calibration error."
    )

    def score(self, sample: ScoringInput) -> Score:
        """The probability of the options that are a target; None without options, or without a target."""
        likelihood = sample.likelihood
        if not likelihood or likelihood.get("kind") != "choose":
            return Score(None, "no choice by likelihood was asked for")
        options = likelihood["options"]
        targets = {as_text(each).strip() for each in alternatives(sample.target) if each is not None}
        right = [as_text(each["answer"]).strip() in targets for each in options]
        if not any(right):
            return Score(None, f"the target {shown(sample.target)} is none of the options")
        shares = probabilities(likelihood)
        if shares is None:
            return Score(None, "the likelihood of none of the options is known")
        first = max(range(len(shares)), key=lambda at: shares[at])
        parts: dict[str, float | None] = {
            f"accuracy_{measure}": _chooses(options, right, key) for measure, key in MEASURES.items()
        }
        parts["brier"] = _brier(shares, right)
        parts["confidence"], parts["right"] = shares[first], float(right[first])
        parts["margin"] = likelihood.get("margin")
        value = min(1.0, sum(share for share, hit in zip(shares, right, strict=True) if hit))
        return Score(value, _reason(options, shares), parts)

    def aggregate(self, columns: ScoreColumns) -> Corpus | None:
        """Expected calibration error of the most probable option."""
        from evalrun.scoring.scorers.calibration_figures import calibration_error

        name = f"{self.name}.ece"
        info = next(each for each in self.metrics() if each.name == name)
        parts = columns.parts
        return calibration_error(parts["confidence"], parts["right"], self.options.bins, info)

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The mean probability of the right option first."""
        shares = (
            "p = exp(log-likelihood) of an option over the sum for all options; an option that is not among "
            "the top tokens (first_token) has p = 0."
        )
        left_out = " Samples that were asked for no choice, or whose target is no option, are left out."
        accuracy = (
            "Share of samples for which {0} chooses the target; of equals the first is chosen." + left_out
        )
        return (
            fraction(name, f"Mean probability of the right option among the options: {shares}" + left_out),
            fraction(f"{name}.accuracy_sum", accuracy.format("the log-likelihood")),
            fraction(f"{name}.accuracy_per_token", accuracy.format("the log-likelihood by tokens")),
            fraction(
                f"{name}.accuracy_per_byte",
                accuracy.format("the log-likelihood by UTF-8 bytes of the option (as acc_norm)"),
            ),
            MetricInfo(
                f"{name}.brier",
                "score",
                "lower",
                f"Brier score over all options (Brier 1950): mean of the sum over options of (p - hit)², "
                f"{shares} "
                "0 is best, 2 worst." + left_out,
                (0.0, 2.0),
            ),
            fraction(
                f"{name}.confidence", f"Mean p of the most probable option: {shares}" + left_out, "none"
            ),
            fraction(f"{name}.right", "Share of samples whose most probable option is right." + left_out),
            fraction(
                f"{name}.ece",
                "Expected calibration error (Guo et al. 2017) of the most probable option: the sum over "
                "bins of p "
                "of the share of samples in the bin times the distance of their mean p from their accuracy. "
                "It is "
                "biased upwards for few samples." + left_out,
                "lower",
            ),
            MetricInfo(
                f"{name}.margin",
                "nats",
                "none",
                "Mean distance of the chosen option from the next, in the measure that decides ('by')."
                + left_out,
                (0.0, None),
            ),
        )


def _chooses(options: list[dict[str, Any]], right: list[bool], key: str) -> float | None:
    known = [(each[key], at) for at, each in enumerate(options) if each.get(key) is not None]
    if not known:
        return None
    highest = max(value for value, _ in known)
    return float(right[next(at for value, at in known if value == highest)])


def _brier(shares: list[float], right: list[bool]) -> float:
    """Over options; where several are right, any of them is a hit with an equal share."""
    hit = 1.0 / sum(right)
    return sum(
        (share - (hit if is_right else 0.0)) ** 2 for share, is_right in zip(shares, right, strict=True)
    )


def _reason(options: list[dict[str, JSON]], shares: list[float]) -> str:
    found = [
        f"{shown(each['option'], 30)} "
        + (
            "not among the top tokens"
            if each["logprob"] is None
            else f"{each['logprob']:.3f} (p {share:.2f})"
        )
        for each, share in zip(options, shares, strict=True)
    ]
    text = ", ".join(found)
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 1] + "…"
