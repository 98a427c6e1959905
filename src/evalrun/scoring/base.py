"""What parsers and scorers are, and what they are given.

A parser turns a value into a value: the first gets the raw output, each next one what the former made;
the last value is the answer. A scorer compares the answer with the target and says why it scored so.

The smallest of either is a function with a decorator (`evalrun.scoring.functions`); a scorer with figures of
all samples, or a state of its own, is a class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, get_args

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator
from typing_extensions import TypeVar

from evalrun.errors import Problem
from evalrun.frozen import frozen
from evalrun.scoring.columns import Corpus as Corpus
from evalrun.scoring.columns import Interval as Interval
from evalrun.scoring.columns import Labelled as Labelled
from evalrun.scoring.columns import ScoreColumns as ScoreColumns
from evalrun.scoring.columns import Smooth as Smooth
from evalrun.scoring.columns import as_text as as_text
from evalrun.scoring.columns import plain_value as plain_value
from evalrun.scoring.info import MetricInfo as MetricInfo
from evalrun.scoring.info import fraction as fraction
from evalrun.suite.components import Chain, ParserSpec
from evalrun.types import JSON, Row, Score, Status, hot_value

RESERVED_NAMES = frozenset(
    {"performance", "memory", "cpu", "cost", "fairness", "counterfactual", "robustness", "repeats"}
    | {"error_rate", "unparsed_rate", "refused_rate"}
)
"""First parts of metric names that no scorer may take."""

NO_TARGET = "there is no target"

NOT_APPLICABLE = "not applicable"
"""How the reason of a score of None begins where the scorer does not speak of such a row: it is not lost."""

NOT_ASKED = "was asked for"
"""How it ends where the prompt asked for something else than the scorer reads."""

COMPARED_WITH = "this is the run that others are compared with"


def is_lost(reason: str | None) -> bool:
    """Whether a score of None with this reason is missing where there should be one: the scorer broke, a
    judge gave no grade. Not so where the row has no target, or none of the scorer's (no number in it, no
    label): such rows are the same for every model.
    """
    reason = reason or ""
    of_no_concern = reason.startswith((NO_TARGET, NOT_APPLICABLE, COMPARED_WITH))
    return not (of_no_concern or reason.endswith(NOT_ASKED))


class Unparsed(Exception):
    """The model answered, and a parser could not read it. The reason completes the sentence "unparsed: …"."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@hot_value
class ScoringInput:
    """What a scorer sees of a sample: the parsed answer, the raw output, the target and the dataset row.

    `tool_calls` are those of the response, as the chat API has them, or None. `likelihood` is what
    `evalrun.scoring.likelihood.decided` gives where the prompt asks for one, else None.
    """

    answer: JSON
    output: str
    target: JSON
    status: Status
    row: Row
    tool_calls: JSON = None
    likelihood: JSON = None


class Options(BaseModel):
    """The base of every component's options: frozen, and no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class ScorerOptions(Options):
    """Options that every scorer has."""

    name: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9_]*$",
        max_length=60,
        description="Name of the score in results. Default: the scorer's own. "
        "Give one where a suite uses the same scorer twice.",
    )

    target: str | None = Field(
        default=None,
        description="The right answer for this scorer alone: a column's name, or a template where it holds "
        "{{ }}. A row in which it is empty is not scored. Default: the dataset's target.",
    )

    parse: Chain = Field(
        default_factory=list,
        description="Parsers of this scorer's own, from the raw output to the answer that it sees. "
        "Default: the suite's.",
    )

    @field_serializer("parse")
    def _as_written(self, chain: list[ParserSpec]) -> list[JSON]:
        return [each.resolved() for each in chain]

    @field_validator("name")
    @classmethod
    def _free(cls, value: str | None) -> str | None:
        if value in RESERVED_NAMES:
            raise ValueError(f"'{value}' is a metric of evalrun's own; choose another name")
        return value


OptionsT = TypeVar("OptionsT", bound=BaseModel, default=Any)


class Component(ABC, Generic[OptionsT]):
    """What parsers and scorers have in common: a name, and options of a type.

    `class Mine(Scorer[MyOptions])` has the options MyOptions, which suites are validated by. `shorthand` is
    the option that takes a bare value: {regex: "[0-9]"} for {regex: {pattern: "[0-9]"}}. The decorators
    `parser` and `scorer` set the name and the summary.
    """

    Options: ClassVar[type[BaseModel]]
    shorthand: ClassVar[str | None] = None
    summary: ClassVar[str] = ""
    registered: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in cls.__dict__.get("__orig_bases__", ()):
            for argument in get_args(base):
                if isinstance(argument, type) and issubclass(argument, BaseModel):
                    cls.Options = argument

    def __init__(self, options: OptionsT) -> None:
        self.options = options


class Parser(Component[OptionsT]):
    """One step from raw output to answer."""

    Options: ClassVar[type[BaseModel]] = Options
    otherwise: tuple[JSON, ...] = ()
    """What its value is where it finds nothing, alone in a tuple; empty where the answer is unparsed then."""
    reads_row: bool = False
    """Whether `parse_with_row` is to be called instead of `parse`."""

    @abstractmethod
    def parse(self, value: JSON) -> JSON:
        """The value made from the one before. Raises Unparsed with a reason."""

    def parse_with_row(self, value: JSON, row: Row) -> JSON:
        """Like `parse`, for parsers that need the dataset row (options that differ from row to row)."""
        return self.parse(value)


@frozen
class Example:
    """What a suite says (`entry`, YAML), an answer, a target, and the score that comes of it (4 digits)."""

    entry: str
    answer: JSON
    target: JSON
    value: float


class Scorer(Component[OptionsT]):
    """A function of one sample, with an optional part over all samples.

    `defined` are its metrics, named in it: "" is the mean of its score, "f1" that of its part f1; "{name}" in
    a definition stands for the scorer's name. `correctness` says that the score judges whether the answer is
    right, so that an answer that could not be read, or a refusal, scores 0. `parts` are the names of further
    values that `score` gives; they are stored as columns `score.<name>.<part>`.
    `unanswered_as_empty` is for scores of which 0 is the best, or that keep counts: there such a sample is
    scored as an empty answer.
    """

    Options: ClassVar[type[BaseModel]] = ScorerOptions
    defined: ClassVar[tuple[MetricInfo, ...]] = ()
    example: ClassVar[Example | None] = None
    correctness: bool = True
    unanswered_as_empty: ClassVar[bool] = False
    asks: ClassVar[bool] = False
    """Whether its scores come from a model that is asked after the run (`evalrun.scoring.asking`)."""
    reads_likelihood: bool = False
    """Whether it scores samples that were asked for a likelihood and have no answer."""
    needs_target: bool = False
    """Whether it can say nothing of a sample without a target, however that was answered."""
    late: bool = False
    """Whether it takes so long that it scores, in threads, when a run's answers are all there."""
    runs_code: bool = False
    """Whether it runs what models wrote, which a suite must allow."""
    parts: tuple[str, ...] = ()

    def __init__(self, options: OptionsT) -> None:
        super().__init__(options)
        self.name: str = getattr(options, "name", None) or self.registered or type(self).__name__.lower()

    @property
    def own_parsers(self) -> Sequence[ParserSpec]:
        """The parsers between the raw output and the answer that it sees; none for the suite's."""
        specs: Sequence[ParserSpec] = getattr(self.options, "parse", ())
        return specs

    @property
    def own_target(self) -> str | None:
        """The column or template that holds its own targets; None for the dataset's."""
        return self.options.target if isinstance(self.options, ScorerOptions) else None

    @abstractmethod
    def score(self, sample: ScoringInput) -> Score:
        """The verdict on one sample. Pure, synchronous, a few microseconds."""

    def check(self, columns: Sequence[str], where: str) -> Sequence[Problem]:
        """What keeps it from scoring rows with these columns on this machine; `where` names the dataset."""
        return ()

    def abandon(self) -> None:
        """End what a late scorer is at in other threads: nobody wants the results any more."""
        return

    def unanswered(self, sample: ScoringInput, reason: str) -> Score:
        """The verdict on a sample whose output could not be read, or was a refusal; its answer is None."""
        if self.needs_target and sample.target is None:
            return Score(None, NO_TARGET)
        if self.unanswered_as_empty:
            return replace(self.score(replace(sample, answer="")), reason=reason)
        value = 0.0 if self.correctness else None
        return Score(value, reason, dict.fromkeys(self.parts, value))

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The metrics of a scorer of this class that is called `name`; the first is the mean of its score.

        The mean of a part is listed under `<name>.<part>`; parts not listed are stored and not shown.
        """
        return tuple(
            replace(
                info,
                name=f"{name}.{info.name}" if info.name else name,
                definition=info.definition.replace("{name}", name),
            )
            for info in cls.defined
        )

    def metrics(self) -> tuple[MetricInfo, ...]:
        """The metrics of this scorer; the first is the mean of its score."""
        return self.describe(self.name)

    def metrics_by_name(self) -> dict[str, MetricInfo]:
        """The same by their names."""
        return {info.name: info for info in self.metrics()}

    def aggregate(self, columns: ScoreColumns) -> Corpus | None:
        """The figures that are not a mean of per-sample scores, or None where there are none.

        There is at least one sample.
        """
        return None


def shown(value: JSON, limit: int = 80) -> str:
    """A value in quotes, cut for a reason that is read on a screen."""
    text = value if isinstance(value, str) else as_text(value)
    return f"'{text}'" if len(text) <= limit else f"'{text[: limit - 1]}…'"


def alternatives(target: JSON) -> Sequence[JSON]:
    """The acceptable targets: the entries of a list, else the one value."""
    return target if isinstance(target, list | tuple) else (target,)


def target_texts(target: JSON) -> list[str]:
    """The acceptable targets as texts, without those that are null."""
    return [as_text(alternative) for alternative in alternatives(target) if alternative is not None]


def one_or_more(value: Any) -> Any:
    """A list from a single text; other values as they are."""
    return [value] if isinstance(value, str) else value


def check_labels(value: Any) -> Any:
    """Labels as text. A bare yes, no, on or off in YAML is a truth value: that is said, not guessed at."""
    if not isinstance(value, list):
        return value
    if any(isinstance(item, bool) for item in value):
        raise ValueError(
            'YAML reads a bare yes, no, on, off, true or false as a truth value: quote it ("yes")'
        )
    labels = [as_text(item) if isinstance(item, int | float) else item for item in value]
    twice = sorted({str(item) for item in labels if labels.count(item) > 1})
    if twice:
        raise ValueError(f"'{twice[0]}' is listed twice")
    return labels
