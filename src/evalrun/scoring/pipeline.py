"""From the raw output of one sample to its answer and scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from evalrun.errors import Problem, UserError
from evalrun.scoring.base import (
    NO_TARGET,
    NOT_APPLICABLE,
    RESERVED_NAMES,
    Parser,
    Scorer,
    ScoringInput,
    Unparsed,
    plain_value,
)
from evalrun.scoring.derived import Derived, derived_in_order
from evalrun.scoring.functions import FunctionParser, FunctionScorer
from evalrun.templates import compile_value, is_template
from evalrun.types import JSON, ErrorKind, Row, Score, Status, hot_value

if TYPE_CHECKING:
    from evalrun.suite.prompt import PromptSpec
    from evalrun.suite.schema import Suite


@hot_value
class Scored:
    """What became of an answer. `error` is the parser's reason where it is unparsed.

    `scores` and `reasons` are keyed by scorer name, further values of a scorer by `<name>.<part>`. A score of
    None means that the scorer could not say. The status is FAILED only where a parser itself broke.
    """

    status: Status
    answer: JSON
    error: str | None
    scores: Mapping[str, float | None]
    reasons: Mapping[str, str]


When: TypeAlias = Literal["at once", "deferred", "always", "never"]
"""Which scorers score: the quick ones, as an answer comes; those that take long, when all answers are there;
both, or none. Those that ask models, and those derived from others, are never among them."""


class Pipeline:
    """The parsers and scorers of a suite, ready to be used on every sample.

    Either may be a component or a plain function. A scorer may have parsers of its own: then it sees what
    these make of the output, and the others do not. Raises UserError where two scorers have the same name.
    """

    def __init__(self, parsers: Iterable[Any], scorers: Iterable[Any], when: When = "always") -> None:
        self.parsers: Sequence[Parser] = _as_parsers(parsers)
        self.scorers: Sequence[Scorer] = as_scorers(scorers)
        self._chain = _Chain(self.parsers)
        self._scorers: list[tuple[Scorer, _Chain | None]] = [
            (scorer, _own_chain(scorer))
            for scorer in self.scorers
            if not (isinstance(scorer, Derived) or scorer.asks)
            and when in ("always", "deferred" if scorer.late else "at once")
        ]
        self._targets = {
            scorer.name: _own_target(scorer.own_target, scorer.name)
            for scorer, _ in self._scorers
            if scorer.own_target is not None
        }
        self.derived: Sequence[Derived] = derived_in_order(self.scorers)

    def for_prompt(self, prompt: PromptSpec | None) -> Pipeline:
        """What reads the answers to a prompt: this, with the prompt's own parsers where it has any. Raises
        UserError for one that cannot be built."""
        if prompt is None or prompt.parse is None:
            return self
        made = copy(self)
        made.parsers = _as_parsers(each.build() for each in prompt.parse)
        made._chain = _Chain(made.parsers)
        return made

    @property
    def active(self) -> list[Scorer]:
        """The scorers that `evaluate` scores by."""
        return [scorer for scorer, _ in self._scorers]

    def evaluate(
        self,
        output: str,
        target: JSON,
        row: Row,
        refused: bool = False,
        tool_calls: JSON = None,
        likelihood: JSON = None,
    ) -> Scored:
        """Parse and score one answer. Never raises for what a model wrote.

        Where a likelihood was asked for, the chosen option is the answer, and no parser reads the output.
        """
        if likelihood is not None:
            status, answer, error, reason = _decided(likelihood)
        else:
            status, answer, error, reason = self._parsed(output, row, refused)
        if status is Status.FAILED:
            return Scored(status, None, error, {}, {})
        sample = ScoringInput(answer, output, target, status, row, tool_calls, likelihood)
        scores: dict[str, float | None] = {}
        reasons: dict[str, str] = {}
        for scorer, chain in self._scorers:
            try:
                own = self._targets.get(scorer.name)
                asked = sample if own is None else replace(sample, target=own(row))
                if own is not None and asked.target in (None, "", []):
                    verdict = Score(None, f"{NOT_APPLICABLE}: this row has no target for it")
                else:
                    verdict = _plain(_verdict(scorer, chain, asked, reason))
                if verdict.value is None and target in (None, "", []) and "target" in verdict.reason:
                    # Whatever the scorer says of the missing target: such a row is none of its own, not lost.
                    verdict = replace(verdict, reason=NO_TARGET)
            except Exception as broken:
                verdict = Score(None, f"the scorer broke: {type(broken).__name__}: {broken}")
            scores[scorer.name] = verdict.value
            reasons[scorer.name] = verdict.reason
            if verdict.parts:
                for part, value in verdict.parts.items():
                    scores[f"{scorer.name}.{part}"] = value
        self.derive(scores, reasons)
        return Scored(status, answer, error, scores, reasons)

    def derive(self, scores: dict[str, float | None], reasons: dict[str, str]) -> None:
        """Add the scores that are made from others."""
        for derived in self.derived:
            scores[derived.name], reasons[derived.name] = derived.derive(scores)

    def _parsed(self, output: str, row: Row, refused: bool) -> tuple[Status, JSON, str | None, str]:
        """Status, answer, what kept a parser from reading it, and the same as a scorer's reason."""
        if refused:
            return Status.REFUSED, None, None, "refused: the model declined to answer"
        try:
            return Status.SCORED, self._chain.run(output, row), None, ""
        except Unparsed as unparsed:
            return Status.UNPARSED, None, unparsed.reason, f"unparsed: {unparsed.reason}"
        except Exception as broken:
            what = f"{ErrorKind.APPLICATION}: a parser broke: {type(broken).__name__}: {broken}"
            return Status.FAILED, None, what, ""


def _plain(score: Score) -> Score:
    """A score whose numbers are Python's own, whatever class the scorer gives (numpy's, a truth value)."""
    if type(score.value) is float and not score.parts:
        return (
            score if math.isfinite(score.value) else Score(None, f"{score.reason}: {score.value} is no score")
        )
    value = _number(score.value)
    if value is None and score.value is not None:
        return _plain(Score(float(score.value), score.reason))
    return Score(value, str(score.reason), {part: _number(each) for part, each in score.parts.items()})


def _number(value: Any) -> float | None:
    """None for what is none, or not finite."""
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _decided(likelihood: JSON) -> tuple[Status, JSON, str | None, str]:
    """As `Pipeline._parsed`, for a choice by likelihood. A perplexity has no answer."""
    answer = likelihood.get("chosen")
    if likelihood["kind"] == "choose" and answer is None:
        error = "none of the options is among the likeliest first tokens"
        return Status.UNPARSED, None, error, f"unparsed: {error}"
    return Status.SCORED, answer, None, ""


def _verdict(scorer: Scorer, chain: _Chain | None, sample: ScoringInput, reason: str) -> Score:
    """A scorer's score of one sample; `reason` is why there is no answer."""
    likelihood = sample.likelihood
    if likelihood is not None:
        if likelihood["kind"] != "choose" and not scorer.reads_likelihood:
            return Score(None, "no answer was asked for")
    elif chain is not None and sample.status is not Status.REFUSED:
        return _with_own_chain(scorer, chain, sample)
    return scorer.score(sample) if sample.status is Status.SCORED else scorer.unanswered(sample, reason)


def _with_else(parser: Parser) -> Callable[..., JSON]:
    """What a parser does, with its `else` where it finds nothing."""
    parse: Callable[..., JSON] = parser.parse_with_row if parser.reads_row else parser.parse
    if not parser.otherwise:
        return parse

    def parsed(*arguments: Any) -> JSON:
        try:
            return parse(*arguments)
        except Unparsed:
            return parser.otherwise[0]

    return parsed


class _Chain:
    """Parsers one after the other."""

    __slots__ = ("_steps",)

    def __init__(self, parsers: Iterable[Parser]) -> None:
        self._steps: list[tuple[Callable[..., JSON], bool]] = [
            (_with_else(parser), parser.reads_row) for parser in parsers
        ]

    def run(self, output: str, row: Row) -> JSON:
        """The answer: the last parser's value, or the output itself, stripped, where there is none."""
        if not self._steps:
            return output.strip()
        answer: JSON = output
        for step, reads_row in self._steps:
            answer = step(answer, row) if reads_row else step(answer)
        return answer if type(answer) is str else plain_value(answer)


def _own_chain(scorer: Scorer) -> _Chain | None:
    specs = scorer.own_parsers
    return _Chain(_as_parsers(spec.build() for spec in specs)) if specs else None


def _with_own_chain(scorer: Scorer, chain: _Chain, sample: ScoringInput) -> Score:
    try:
        answer = chain.run(sample.output, sample.row)
    except Unparsed as unparsed:
        sample = replace(sample, answer=None, status=Status.UNPARSED)
        return scorer.unanswered(sample, f"unparsed: {unparsed.reason}")
    return scorer.score(replace(sample, answer=answer, status=Status.SCORED))


def _own_target(written: str, name: str) -> Callable[[Row], JSON]:
    """Reads a scorer's own target from a row: a column, or what a template makes of the columns."""
    if not is_template(written):
        return lambda row: row.get(written)
    evaluate = compile_value(written, f"scorer {name}, target").evaluate
    return lambda row: evaluate(row if "row" in row else {**row, "row": row})


def _as_parsers(parsers: Iterable[Any]) -> tuple[Parser, ...]:
    return tuple(parser if isinstance(parser, Parser) else FunctionParser(parser) for parser in parsers)


def suite_scorers(suite: Suite) -> tuple[Scorer, ...]:
    """The scorers of a suite, those derived from others last. Raises UserError with every problem."""
    built = [scorer.build() for scorer in suite.scorers]
    made = as_scorers([*built, *(Derived(name, formula) for name, formula in suite.derive.items())])
    derived_in_order(made)
    if "code_execution" not in suite.allow and (running := [each.name for each in made if each.runs_code]):
        raise UserError(
            f"the scorer {running[0]} runs code that models wrote, which the suite does not allow",
            where="scorers",
            remedy="Say 'allow: [code_execution]' in the suite if you want that.",
        )
    return made


def as_scorers(scorers: Iterable[Any]) -> tuple[Scorer, ...]:
    """Scorers, with plain functions wrapped. Raises UserError for a name that is taken."""
    made = tuple(each if isinstance(each, Scorer) else FunctionScorer(each) for each in scorers)
    names = [scorer.name for scorer in made]
    taken = sorted(RESERVED_NAMES.intersection(names))
    if taken:
        raise UserError(
            f"'{taken[0]}' is a metric of evalrun's own",
            where="scorers",
            remedy="Give the scorer another name.",
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            [
                Problem(
                    f"two scorers are named '{name}'",
                    "scorers",
                    f"Give one another name: {{{name}: {{name: …}}}}.",
                )
                for name in twice
            ]
        )
    return made
