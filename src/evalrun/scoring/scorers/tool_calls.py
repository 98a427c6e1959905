"""Whether the model called the right tools with the right arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from evalrun.scoring.base import MetricInfo, Scorer, ScorerOptions, ScoringInput, fraction, shown
from evalrun.scoring.structure import same_value, value_of
from evalrun.types import JSON, Score, Status

_STAY = (
    " Calls are those of the response, else those in the answer as JSON. Refused answers, and answers "
    "without calls, count like empty lists of calls; failed samples are left out."
)


class ToolCallsOptions(ScorerOptions):
    """Options of the scorer `tool_calls`."""

    ordered: bool = Field(default=False, description="Whether the calls must come in the target's order.")
    ignore_case: bool = Field(
        default=False, description="Whether text in arguments is the same in either case."
    )
    abs_tolerance: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Greatest difference of equal numbers in arguments.",
    )


@dataclass(frozen=True, slots=True)
class Call:
    """A tool's name and its arguments."""

    name: str
    arguments: JSON


class ToolCalls(Scorer):
    """1 where the calls are those of the target, and F1 over calls and over names."""

    Options: ClassVar[type[ToolCallsOptions]] = ToolCallsOptions
    registered = "tool_calls"
    needs_target = True
    parts = ("f1", "name_f1")
    summary = (
        "1 where the model called the target's tools with the target's arguments and no others; F1 over "
        'calls, and over names alone. Targets: [{"name": …, "arguments": {…}}], or as the chat API writes '
        "them."
    )

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0 with two F1; None where the target is no list of calls."""
        wanted = calls_of(value_of(sample.target))
        if wanted is None:
            return Score(None, f"the target {shown(sample.target)} is no list of tool calls")
        given = calls_of(sample.tool_calls) if sample.tool_calls else calls_of(value_of(sample.answer))
        given = given or []
        hits = matched(given, wanted, self._same)
        names = matched(given, wanted, lambda one, other: one.name == other.name)
        exact = hits == len(given) == len(wanted)
        if exact and self.options.ordered:
            exact = all(self._same(one, other) for one, other in zip(given, wanted, strict=True))
        size = len(given) + len(wanted)
        f1, name_f1 = (2 * common / size if size else 1.0 for common in (hits, names))
        reason = f"{hits} of {len(wanted)} calls are right, {len(given)} were made"
        if given:
            reason += f": {', '.join(call.name for call in given[:5])}"
        return Score(float(exact), reason, {"f1": f1, "name_f1": name_f1})

    def unanswered(self, sample: ScoringInput, reason: str) -> Score:
        """Calls need no parser; a refusal makes none."""
        if sample.status is Status.UNPARSED and sample.tool_calls:
            return self.score(sample)
        return super().unanswered(sample, reason)

    def _same(self, one: Call, other: Call) -> bool:
        return one.name == other.name and same_value(
            one.arguments,
            other.arguments,
            ignore_case=self.options.ignore_case,
            tolerance=self.options.abs_tolerance,
        )

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The share of samples with the right calls, then the two F1."""
        return (
            fraction(
                f"{name}.match",
                "Share of samples whose tool calls are the target's: the same names with equal arguments, "
                "each as often, in any order unless the suite says otherwise." + _STAY,
            ),
            fraction(
                f"{name}.f1",
                "Mean over samples of F1 over tool calls, 2 x (calls of the answer that are in the target, "
                "each matched once) / (calls of answer + calls of target); 1 where neither has any." + _STAY,
            ),
            fraction(
                f"{name}.name_f1",
                "The same F1 over the names of the tools alone, whatever the arguments." + _STAY,
            ),
        )


def calls_of(value: JSON) -> list[Call] | None:
    """The calls in a list, or in one call; None where the value is neither.

    A call is {"name", "arguments"}, or as the chat API has it {"function": {"name", "arguments"}}; arguments
    may be JSON text, as they are there.
    """
    if value is None:
        return None
    entries = value if isinstance(value, list | tuple) else [value]
    calls = []
    for entry in entries:
        inner = entry.get("function", entry) if isinstance(entry, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            return None
        arguments = value_of(inner.get("arguments", inner.get("parameters")))
        calls.append(Call(inner["name"], {} if arguments in (None, "") else arguments))
    return calls


def matched(given: list[Call], wanted: list[Call], same: Callable[[Call, Call], bool]) -> int:
    """How many of the given calls have one of their own among the wanted."""
    left = list(wanted)
    hits = 0
    for call in given:
        at = next((at for at, other in enumerate(left) if same(call, other)), None)
        if at is not None:
            hits += 1
            del left[at]
    return hits
