"""What a suite says of a judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from evalrun.scoring.base import ScorerOptions, check_labels, one_or_more
from evalrun.scoring.judge.menu import MAX_GRADES, Menu
from evalrun.types import JSON

Models = Annotated[
    list[str],
    BeforeValidator(one_or_more),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


def _choices(value: Any) -> Any:
    if isinstance(value, list):  # labels alone: the first is worth 1, the last 0
        check_labels(value)
        last = max(1, len(value) - 1)
        return {str(label): 1 - at / last for at, label in enumerate(value)}
    if isinstance(value, dict):
        check_labels(list(value))
    return value


class PairwiseOptions(BaseModel):
    """What each answer is compared with: another run of the sweep, or a column."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(default=None, description="The answers of this model to the same samples.")
    prompt: str | None = Field(default=None, description="The answers to this prompt to the same samples.")
    column: str | None = Field(default=None, description="A column of the dataset that holds an answer.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.column is not None and (self.model or self.prompt):
            raise ValueError("a column excludes model and prompt")
        if self.column is None and not (self.model or self.prompt):
            raise ValueError("name a model, a prompt, or a column to compare with")
        return self


class JudgeOptions(ScorerOptions):
    """Options of the scorer `judge`."""

    model: Models = Field(
        description="Id of a model in `judges` or `models`, or a list of them: all are asked."
    )
    rubric: str | None = Field(
        default=None,
        description="What makes an answer good, in words: a template over the row's columns. Default: "
        "whether it is right, by the target where there is one.",
    )
    rubric_file: Annotated[Path, Field(strict=False)] | None = Field(
        default=None, description="A file with the rubric."
    )
    scale: tuple[int, int] | None = Field(
        default=None, description="The lowest and the highest grade, both whole numbers: [1, 5]."
    )
    choices: Annotated[dict[str, float], BeforeValidator(_choices)] | None = Field(
        default=None,
        description="The grades by name, with what each is worth; a list of names runs from 1 down to 0. "
        "Default, without scale and pairwise: {correct: 1, incorrect: 0}.",
    )
    pairwise: PairwiseOptions | None = Field(
        default=None,
        description="Ask which of two answers is better, in both orders: {model: ID}, {prompt: ID} or "
        "{column: NAME} says what the other one is. 1 wins, 0 loses, 0.5 ties.",
    )
    reference: bool | None = Field(
        default=None, description="Show the judge the target. Default: where a sample has one."
    )
    of: Literal["output", "answer"] = Field(
        default="output", description="What is judged: the raw output, or the parsed answer."
    )
    prompt: str | None = Field(
        default=None,
        description="A prompt of your own, a template over the row's columns and question, answer, "
        "reference, grades (the menu in words), and for pairs first and second.",
    )
    prompt_file: Annotated[Path, Field(strict=False)] | None = Field(
        default=None, description="A file with such a prompt."
    )
    params: dict[str, JSON] = Field(
        default_factory=dict,
        description="Generation parameters of the judge, over those of its entry in `judges`. Default: "
        "temperature 0 and max_tokens 256. Those of a model in `models` are for its own answers.",
    )
    structured: bool = Field(
        default=True,
        description="Ask for JSON by a schema (response_format) where the provider supports it; false for "
        "servers that refuse the field.",
    )
    combine: Literal["majority", "mean"] | None = Field(
        default=None,
        description="What several judges give together. Default: mean on a scale, else the majority; where "
        "grades have equally many votes, the mean of what they are worth.",
    )
    alpha: Literal["nominal", "ordinal", "interval"] | None = Field(
        default=None,
        description="How far grades are apart for Krippendorff's alpha. Default: ordinal on a scale, else "
        "nominal.",
    )
    human: str | None = Field(
        default=None, description="Column with the grade that a person gave; agreement with it is reported."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        kinds = [each for each in ("scale", "choices", "pairwise") if getattr(self, each) is not None]
        if len(kinds) > 1:
            raise ValueError(f"{' and '.join(kinds)} exclude each other")
        for text, file in (("rubric", "rubric_file"), ("prompt", "prompt_file")):
            if getattr(self, text) is not None and getattr(self, file) is not None:
                raise ValueError(f"{text} and {file} exclude each other")
        if (self.prompt or self.prompt_file) and (self.rubric or self.rubric_file):
            raise ValueError("a prompt of your own holds its rubric: give one of the two")
        if self.scale is not None and not 1 <= self.scale[1] - self.scale[0] < MAX_GRADES:
            raise ValueError(f"a scale goes from a lower to a higher grade, in at most {MAX_GRADES} grades")
        if self.choices is not None and not 2 <= len(self.choices) <= MAX_GRADES:
            raise ValueError(f"2 to {MAX_GRADES} choices are needed")
        if self.choices is not None and len({each.casefold() for each in self.choices}) < len(self.choices):
            raise ValueError("two choices differ only in case")
        if len(set(self.model)) < len(self.model):
            raise ValueError("a judge is named twice")
        return self

    @property
    def menu(self) -> Menu:
        """The grades."""
        if self.pairwise is not None:
            return Menu.of_pairs()
        if self.scale is not None:
            return Menu.of_scale(*self.scale)
        return Menu.of_choices(self.choices or {"correct": 1.0, "incorrect": 0.0})
