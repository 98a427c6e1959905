"""From the raw output of one sample to its answer and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalrun.errors import Problem, UserError
from evalrun.scoring.base import RESERVED_NAMES, Parser, Scorer, ScoringInput, Unparsed
from evalrun.scoring.functions import FunctionParser, FunctionScorer
from evalrun.types import JSON, ErrorKind, Row, Status


@dataclass(frozen=True, slots=True)
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

    Either may be a component or a plain function. Raises UserError where two scorers have the same name.
    """

    def __init__(self, parsers: Iterable[Any], scorers: Iterable[Any]) -> None:
        self.parsers: Sequence[Parser] = tuple(
            parser if isinstance(parser, Parser) else FunctionParser(parser) for parser in parsers
        )
        self.scorers: Sequence[Scorer] = as_scorers(scorers)
        self._steps: list[tuple[Callable[..., JSON], bool]] = [
            (parser.parse_with_row if parser.reads_row else parser.parse, parser.reads_row)
            for parser in self.parsers
        ]
        self._scores = [(scorer.name, scorer.score) for scorer in self.scorers]

    def evaluate(self, output: str, target: JSON, row: Row, refused: bool = False) -> Scored:
        """Parse and score one answer. Never raises for what a model wrote."""
        if refused:
            return self._without_answer(Status.REFUSED, None, "refused: the model declined to answer")
        answer: JSON = output
        try:
            for step, reads_row in self._steps:
                answer = step(answer, row) if reads_row else step(answer)
        except Unparsed as error:
            return self._without_answer(Status.UNPARSED, error.reason, f"unparsed: {error.reason}")
        except Exception as error:
            what = f"{ErrorKind.APPLICATION}: a parser broke: {type(error).__name__}: {error}"
            return Scored(Status.FAILED, None, what, {}, {})
        if not self._steps:
            answer = output.strip()
        sample = ScoringInput(answer, output, target, Status.SCORED, row)
        scores: dict[str, float | None] = {}
        reasons: dict[str, str] = {}
        for name, score in self._scores:
            try:
                verdict = score(sample)
            except Exception as error:
                scores[name] = None
                reasons[name] = f"the scorer broke: {type(error).__name__}: {error}"
                continue
            scores[name] = verdict.value
            reasons[name] = verdict.reason
            if verdict.parts:
                for part, value in verdict.parts.items():
                    scores[f"{name}.{part}"] = value
        return Scored(Status.SCORED, answer, None, scores, reasons)

    def _without_answer(self, status: Status, error: str | None, reason: str) -> Scored:
        """Scores where there is no answer: 0 from scorers of correctness, none from the others."""
        scores: dict[str, float | None] = {}
        reasons: dict[str, str] = {}
        for scorer in self.scorers:
            value = 0.0 if scorer.correctness else None
            scores[scorer.name] = value
            reasons[scorer.name] = reason
            for part in scorer.parts:
                scores[f"{scorer.name}.{part}"] = value
        return Scored(status, None, error, scores, reasons)


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
