"""From the raw output of one sample to its answer and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evalrun.errors import Problem, UserError
from evalrun.scoring.base import RESERVED_NAMES, Parser, Scorer, ScoringInput, Unparsed
from evalrun.scoring.derived import Derived, derived_in_order
from evalrun.scoring.functions import FunctionParser, FunctionScorer
from evalrun.types import JSON, ErrorKind, Row, Score, Status, hot_value

if TYPE_CHECKING:
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


class Pipeline:
    """The parsers and scorers of a suite, ready to be used on every sample.

    Either may be a component or a plain function. A scorer may have parsers of its own: then it sees what
    these make of the output, and the others do not. Raises UserError where two scorers have the same name.
    """

    def __init__(self, parsers: Iterable[Any], scorers: Iterable[Any], *, late: bool = True) -> None:
        """`late` says whether scorers that take long are to score."""
        self.parsers: Sequence[Parser] = _as_parsers(parsers)
        self.scorers: Sequence[Scorer] = as_scorers(scorers)
        self._chain = _Chain(self.parsers)
        self._scorers: list[tuple[Scorer, _Chain | None]] = [
            (scorer, _own_chain(scorer))
            for scorer in self.scorers
            if not (isinstance(scorer, Derived) or scorer.asks or (scorer.late and not late))
        ]
        self._derived = derived_in_order(self.scorers)

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
            return self._by_likelihood(output, target, row, likelihood)
        status, answer, error, reason = Status.SCORED, None, None, ""
        if refused:
            status, reason = Status.REFUSED, "refused: the model declined to answer"
        else:
            try:
                answer = self._chain.run(output, row)
            except Unparsed as unparsed:
                status, error, reason = Status.UNPARSED, unparsed.reason, f"unparsed: {unparsed.reason}"
            except Exception as broken:
                what = f"{ErrorKind.APPLICATION}: a parser broke: {type(broken).__name__}: {broken}"
                return Scored(Status.FAILED, None, what, {}, {})
        sample = ScoringInput(answer, output, target, status, row, tool_calls)
        scores: dict[str, float | None] = {}
        reasons: dict[str, str] = {}
        for scorer, chain in self._scorers:
            try:
                if chain is not None and not refused:
                    verdict = _with_own_chain(scorer, chain, sample)
                elif status is Status.SCORED:
                    verdict = scorer.score(sample)
                else:
                    verdict = scorer.unanswered(sample, reason)
            except Exception as broken:
                scores[scorer.name] = None
                reasons[scorer.name] = f"the scorer broke: {type(broken).__name__}: {broken}"
                continue
            scores[scorer.name] = verdict.value
            reasons[scorer.name] = verdict.reason
            if verdict.parts:
                for part, value in verdict.parts.items():
                    scores[f"{scorer.name}.{part}"] = value
        for derived in self._derived:
            scores[derived.name], reasons[derived.name] = derived.derive(scores)
        return Scored(status, answer, error, scores, reasons)

    def _by_likelihood(self, output: str, target: JSON, row: Row, likelihood: JSON) -> Scored:
        """Score a choice. A perplexity has no answer: only scorers that read likelihoods speak of it."""
        answer, choice = likelihood.get("chosen"), likelihood["kind"] == "choose"
        status, error = Status.SCORED, None
        if choice and answer is None:
            status, error = Status.UNPARSED, "none of the options is among the likeliest first tokens"
        sample = ScoringInput(answer, output, target, status, row, None, likelihood)
        scores: dict[str, float | None] = {}
        reasons: dict[str, str] = {}
        for scorer, _ in self._scorers:
            try:
                if not (choice or scorer.reads_likelihood):
                    verdict = Score(None, "no answer was asked for")
                elif error is None:
                    verdict = scorer.score(sample)
                else:
                    verdict = scorer.unanswered(sample, f"unparsed: {error}")
            except Exception as broken:
                verdict = Score(None, f"the scorer broke: {type(broken).__name__}: {broken}")
            scores[scorer.name], reasons[scorer.name] = verdict.value, verdict.reason
            scores.update({f"{scorer.name}.{part}": value for part, value in verdict.parts.items()})
        for derived in self._derived:
            scores[derived.name], reasons[derived.name] = derived.derive(scores)
        return Scored(status, answer, error, scores, reasons)


class _Chain:
    """Parsers one after the other."""

    __slots__ = ("_steps",)

    def __init__(self, parsers: Iterable[Parser]) -> None:
        self._steps: list[tuple[Callable[..., JSON], bool]] = [
            (parser.parse_with_row if parser.reads_row else parser.parse, parser.reads_row)
            for parser in parsers
        ]

    def run(self, output: str, row: Row) -> JSON:
        """The answer: the last parser's value, or the output itself, stripped, where there is none."""
        if not self._steps:
            return output.strip()
        answer: JSON = output
        for step, reads_row in self._steps:
            answer = step(answer, row) if reads_row else step(answer)
        return answer


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


def _as_parsers(parsers: Iterable[Any]) -> tuple[Parser, ...]:
    return tuple(parser if isinstance(parser, Parser) else FunctionParser(parser) for parser in parsers)


def suite_scorers(suite: Suite) -> tuple[Scorer, ...]:
    """The scorers of a suite, those derived from others last. Raises UserError with every problem."""
    built = [each.build() for each in suite.scorers]
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
