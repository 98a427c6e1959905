"""The scorer `judge`: what a suite says of it, what it asks, and how grades that models give are combined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from evalrun.errors import UserError
from evalrun.scoring.asking import AskingScorer, Judged, Reply
from evalrun.scoring.base import (
    Corpus,
    MetricInfo,
    ScoreColumns,
    ScorerOptions,
    check_labels,
    fraction,
    one_or_more,
)
from evalrun.scoring.functions import scorer
from evalrun.scoring.scorers.judge_grades import MAX_GRADES, Menu
from evalrun.suite.prompt import PromptSpec
from evalrun.types import JSON, Score

if TYPE_CHECKING:
    from evalrun.scoring.scorers.judge_agreement import Level


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
        if self.choices is not None and len({choice.casefold() for choice in self.choices}) < len(
            self.choices
        ):
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


GIVEN = ("question", "answer", "reference", "grades", "example", "first", "second")
"""The names that a judge's prompt may use besides the columns."""

_RIGHT = (
    "Is the answer right?{% if reference %} Compare it with the reference: the meaning counts, not the "
    "wording.{% endif %}"
)
_BETTER = (
    "Which answer is more correct and more helpful?{% if reference %} The reference is right.{% endif %}"
)
_QUESTION = """<question>
{{ question }}
</question>
{% if reference %}<reference>
{{ reference }}
</reference>
{% endif %}"""
_GRADE = """You grade an answer to a question.

[question]<answer>
{{ answer }}
</answer>

[rubric]
The grade is {{ grades }}. Write JSON and nothing else:
{{ example }}"""
_PAIR = """You compare two answers to a question.

[question]<answer_A>
{{ first }}
</answer_A>
<answer_B>
{{ second }}
</answer_B>

[rubric]
Neither the order nor the length of the answers counts. Grade "A" if A is better, "B" if B is better, "tie" if
they are equally good. Write JSON and nothing else:
{{ example }}"""

ASK_AGAIN = "There is no such grade. The grade is {grades}. Write only: {example}"
"""The second question to a judge whose grade could not be read."""


def judge_prompt(options: JudgeOptions, name: str, base_dir: Path) -> PromptSpec:
    """The prompt of a judge. Raises UserError where a file cannot be read."""
    if options.prompt_file is not None:
        return PromptSpec(id=name, file=options.prompt_file)
    if options.prompt is not None:
        return PromptSpec(id=name, text=options.prompt)
    rubric = options.rubric
    if options.rubric_file is not None:
        rubric = _text(base_dir / options.rubric_file, name)
    if rubric is None:
        rubric = _RIGHT if options.pairwise is None else _BETTER
    text = _GRADE if options.pairwise is None else _PAIR
    return PromptSpec(id=name, text=text.replace("[question]", _QUESTION).replace("[rubric]", rubric.strip()))


def _text(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the rubric '{path}' cannot be read: {error}", where=f"scorer {name}") from None


_AGREEMENT = (
    " Interval: the influence of each sample on Fisher's z, with two samples added that are spread over all "
    "pairs of grades, so that it holds where nearly all grades are alike."
)
_HUMAN = " Over the samples that have both a grade from the judges and a person's grade on the menu."


ORDERS = ("ab", "ba")
"""Of a pair: the judged answer first, and second."""

_A, _B, _TIE = 0, 1, 2


@scorer(
    "judge",
    summary="Grades that other models give: on a scale, by choices, or by comparing two answers in both "
    "orders; asked after the run.",
    metric=(
        MetricInfo(
            "",
            "grade",
            "higher",
            "Mean of the grades that the judges gave, each worth what the suite says. A grade that is not on "
            "the menu, or cannot be read after asking once more, leaves its sample out: it is counted in "
            "`{name}.unscored`. An answer without any text gets the lowest grade. Of pairs: 1 for an answer "
            "that won in both orders, 0 for one that lost in both, 0.5 otherwise.",
        ),
        fraction(
            "unscored",
            "Share of the answered samples to which no judge gave a grade on the menu, whether it answered "
            "something else or not at all.",
            "lower",
        ),
        fraction(
            "reasked",
            "Share of the answered samples for which a judge had to be asked again, because its grade could "
            "not be read or was not on the menu.",
            "lower",
        ),
        fraction(
            "first_position",
            "Share of a pair's decided verdicts (ties left out, both orders together) in which the answer "
            "shown first won; the mean over samples. A judge without position bias gives 0.5.",
            "none",
        ),
        fraction(
            "inconsistent",
            "Share of the pairs of which a judge said different things in the two orders; they count as "
            "ties.",
            "lower",
        ),
        MetricInfo(
            "alpha",
            "agreement",
            "higher",
            "Krippendorff's alpha among the judges: 1 - observed / expected disagreement, over the samples "
            "with two grades at least; nominal, ordinal or interval as the suite says. 1 is full agreement, "
            "0 what chance would give." + _AGREEMENT,
            (-1.0, 1.0),
        ),
        fraction("human.accuracy", "Share of samples where judge and person gave the same grade." + _HUMAN),
        MetricInfo(
            "human.kappa",
            "agreement",
            "higher",
            "Cohen's kappa of judge and person: 1 - observed / expected disagreement. On a scale the "
            "disagreement is weighted by the squared distance, and a mean of several judges is rounded."
            + _HUMAN
            + _AGREEMENT,
            (-1.0, 1.0),
        ),
        MetricInfo(
            "human.spearman",
            "correlation",
            "higher",
            "Spearman's rank correlation of the judge's grades with the person's, ties sharing their mean "
            "rank." + _HUMAN + _AGREEMENT,
            (-1.0, 1.0),
        ),
        MetricInfo(
            "human.kendall",
            "correlation",
            "higher",
            "Kendall's tau-b of the judge's grades with the person's." + _HUMAN + _AGREEMENT,
            (-1.0, 1.0),
        ),
    ),
)
class Judge(AskingScorer[JudgeOptions]):
    """Grades by one or several models. See docs/judges.md for what such a number means."""

    def __init__(self, options: JudgeOptions) -> None:
        super().__init__(options)
        self.menu: Menu = options.menu
        self.pairwise = options.pairwise is not None
        self.combine = options.combine or ("mean" if self.menu.ordered else "majority")
        several = tuple(f"by.{model}" for model in options.model) if len(options.model) > 1 else ()
        pairs = ("first_position", "inconsistent") if self.pairwise else ()
        self.parts = ("unscored", "reasked", *pairs, "grade", "human", *several)

    @property
    def models(self) -> Sequence[str]:
        """The ids of the judges."""
        return self.options.model

    @property
    def orders(self) -> tuple[str, ...]:
        """The requests that each judge gets about a sample."""
        return ORDERS if self.pairwise else ("",)

    @property
    def level(self) -> Level:
        """How far grades are apart, for alpha."""
        return self.options.alpha or ("ordinal" if self.menu.ordered else "nominal")

    def judged(self, sample: Judged) -> Score:
        """The score of a sample from what its judges said."""
        human = self._human(sample.row)
        if sample.nothing:
            worst = self.menu.bounds[0]
            code = self.menu.values.index(worst)
            parts = {"unscored": 0.0, "reasked": 0.0, "grade": float(code), "human": human}
            return Score(worst, f"{sample.nothing}: the lowest grade, without asking", parts)
        codes = {model: self._code(sample.replies.get(model, {})) for model in self.models}
        replies = [reply for each in sample.replies.values() for reply in each.values()]
        given = [code for code in codes.values() if code is not None]
        parts = {
            "unscored": float(not given),
            "reasked": float(any(reply.asked > 1 for reply in replies)),
            "human": human,
            **(self._position(sample.replies) if self.pairwise else {}),
        }
        if len(self.models) > 1:
            parts |= {f"by.{model}": _float(code) for model, code in codes.items()}
        if not given:
            return Score(None, self._unscored(sample.replies), {**parts, "grade": None})
        value, grade = self._combined(given)
        return Score(value, self._reason(codes, sample.replies), {**parts, "grade": _float(grade)})

    def _human(self, row: Mapping[str, object]) -> float | None:
        if self.options.human is None:
            return None
        return _float(self.menu.number(row.get(self.options.human)))

    def _code(self, replies: Mapping[str, Reply]) -> int | None:
        """What one judge says of a sample; of a pair, only what it says in both orders, else a tie."""
        codes = [replies[order].code for order in self.orders if order in replies]
        if len(codes) < len(self.orders) or None in codes:
            return None
        if not self.pairwise:
            return codes[0]
        forward, backward = codes[0], {_A: _B, _B: _A}.get(codes[1] or 0, _TIE)
        return forward if forward == backward else _TIE

    def _combined(self, codes: Sequence[int]) -> tuple[float, int | None]:
        """The value, and the grade that it is (None where it lies between names)."""
        values = self.menu.values
        if self.combine == "mean":
            value = sum(values[code] for code in codes) / len(codes)
            if self.menu.ordered:
                return value, round(value - values[0] + 1e-9)
            return value, codes[0] if len(set(codes)) == 1 else None
        most = max(codes.count(code) for code in codes)
        winners = sorted({code for code in codes if codes.count(code) == most})
        value = sum(values[code] for code in winners) / len(winners)
        return value, winners[0] if len(winners) == 1 else None

    def _position(self, replies: Mapping[str, Mapping[str, Reply]]) -> dict[str, float | None]:
        """How often the answer shown first won, and whether a judge contradicted itself."""
        first, decided, whole, inconsistent = 0, 0, 0, 0
        for reply in replies.values():
            codes = [reply[order].code for order in self.orders if order in reply]
            first += sum(code == _A for code in codes)
            decided += sum(code in (_A, _B) for code in codes)
            if len(codes) == len(ORDERS) and None not in codes:
                whole += 1
                inconsistent += (codes[0], codes[1]) not in ((_A, _B), (_B, _A), (_TIE, _TIE))
        return {
            "first_position": first / decided if decided else None,
            "inconsistent": inconsistent / whole if whole else None,
        }

    def _unscored(self, replies: Mapping[str, Mapping[str, Reply]]) -> str:
        faults = [
            f"{model}: {reply.fault}"
            for model, each in replies.items()
            for reply in each.values()
            if reply.fault
        ]
        return "unscored: " + ("; ".join(dict.fromkeys(faults)) or "no judge gave a grade")

    def _reason(self, codes: Mapping[str, int | None], replies: Mapping[str, Mapping[str, Reply]]) -> str:
        texts = []
        for model, code in codes.items():
            said = replies.get(model, {})
            why = next((reply.reason for reply in said.values() if reply.reason), "")
            grade = "no grade" if code is None else self.menu.labels[code]
            if self.pairwise and code is not None:
                grade = ("better", "worse", "tie")[code]
                if len({reply.code for reply in said.values()}) == 1 and said["ab"].code != _TIE:
                    grade = "tie (the verdict changed with the order)"
            name = f"{model}: " if len(codes) > 1 else ""
            texts.append(f"{name}{grade}" + (f": {why}" if why else ""))
        return "; ".join(texts)

    def aggregate(self, columns: ScoreColumns) -> Corpus | None:
        """Agreement among the judges, and with people."""
        if len(self.models) == 1 and self.options.human is None:
            return None
        from evalrun.scoring.scorers.judge_agreement import agreement_corpus

        return agreement_corpus(self, columns)

    def metrics(self) -> tuple[MetricInfo, ...]:
        """Those of `describe` that this judge has, with the bounds of its grades."""
        first, *others = self.describe(self.name)
        low, high = self.menu.bounds
        unit = "fraction" if (low, high) == (0.0, 1.0) else "grade"
        mean = MetricInfo(self.name, unit, "higher", first.definition, (low, high))
        return (mean, *(other for other in others if self._has(other.name.removeprefix(self.name))))

    def _has(self, suffix: str) -> bool:
        if suffix in (".first_position", ".inconsistent"):
            return self.pairwise
        if suffix == ".alpha":
            return len(self.models) > 1
        if suffix in (".human.spearman", ".human.kendall"):
            return self.options.human is not None and self.menu.ordered
        return self.options.human is not None or not suffix.startswith(".human.")


def _float(code: int | None) -> float | None:
    return None if code is None else float(code)
