"""What a suite says of explaining answers: which samples, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from evalrun.suite.values import Spec


def _written(value: object) -> object:
    return {"n": value} if isinstance(value, int) and not isinstance(value, bool) else value


class ExplainSamples(Spec):
    """Which samples of each run are explained."""

    n: int = Field(default=5, ge=1, description="How many of each run, those with the lowest score first.")
    where: str = Field(
        default="", description="Only samples for which this query holds: score.exact_match == 0."
    )
    ids: list[str] = Field(default_factory=list, description="These samples, in place of a choice.")


class ExplainRules(Spec):
    """Answers that are explained when a run is over; see `evalrun explain`."""

    samples: Annotated[ExplainSamples, BeforeValidator(_written)] = Field(
        default_factory=ExplainSamples, description="Which ones; a number is short for {n: number}."
    )
    models: list[str] = Field(
        default_factory=list,
        description="Only runs of these models; each must give likelihoods. Default: all.",
    )
    method: Literal["occlusion", "shapley", "owen", "gradient", "integrated_gradients"] = Field(
        default="occlusion",
        description="How much a part adds: by leaving it out, by Shapley's value, by Owen's, or, with "
        "provider transformers, by gradients.",
    )
    units: list[Literal["section", "sentence", "word"]] = Field(
        default=["section", "sentence", "word"], min_length=1, description="What is left out."
    )
    target: Literal["auto", "answer", "target", "contrast"] = Field(
        default="auto",
        description="Whose likelihood is explained: the answer's, the target's, or the difference of answer "
        "and target (runner-up where the answer is right). auto: contrast for choices, else the answer.",
    )
    removal: Literal["auto", "delete", "mask", "resample"] = Field(
        default="auto", description="What stands in a part's place. auto: words are masked, the rest deleted."
    )
    most: int = Field(default=400, ge=8, description="Prompts asked about at most for a level of a sample.")
    faithfulness: bool = Field(default=True, description="Set each ranking beside random ones.")
    attention: int = Field(
        default=0,
        ge=0,
        description="Of so many samples of a run, maps of attention are kept (provider transformers).",
    )
    seconds: float | None = Field(
        default=None,
        gt=0,
        strict=False,
        description="After so many seconds no further sample is begun.",
    )
