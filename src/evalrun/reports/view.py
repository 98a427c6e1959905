"""What the report shows, as plain frozen values: templates and the terminal read these and nothing else.

Everything here is made from `sweep.json`, `run.json` and the columns of `samples.parquet`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from evalrun.reports.numbers import decimals_for, interval, quantity
from evalrun.types import JSON, Counts

Standing: TypeAlias = Literal["best", "tied", "behind", "unknown"]
"""Where a run stands against the best of its dataset by the primary metric; "tied" cannot be told apart.
Where all runs have the same value all are tied and nobody is best."""

PALETTE = 8
"""Colours and shapes that runs can be told apart by."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric as it is shown. `slice` is empty for all samples."""

    name: str
    value: float | None
    n: int
    unit: str
    direction: str
    low: float | None = None
    high: float | None = None
    method: str = ""
    note: str = ""
    slice: Mapping[str, str] = field(default_factory=dict)

    @property
    def decimals(self) -> int:
        """Decimals that the interval supports."""
        if self.low is None or self.high is None:
            return 2
        return decimals_for((self.high - self.low) / 2)

    @property
    def text(self) -> str:
        """The value with its unit."""
        return quantity(self.value, self.unit, self.decimals)

    @property
    def interval(self) -> str:
        """The interval in the value's unit; empty where there is none."""
        if self.low is None or self.high is None:
            return ""
        if self.is_share:
            return interval(self.low, self.high, self.decimals)
        return f"[{quantity(self.low, self.unit)}, {quantity(self.high, self.unit)}]"

    @property
    def is_share(self) -> bool:
        """Whether it is a fraction or a plain score, written without a unit."""
        return self.unit in ("fraction", "score", "", "1")


@dataclass(frozen=True, slots=True)
class Difference:
    """best - run over the `n` sample ids that both scored, with its p and 95 % bounds (see standings.py).

    `detectable` is the true difference that so many pairs find four times in five; None where unknown.
    """

    mean: float
    n: int
    p: float
    low: float | None
    high: float | None
    method: str
    detectable: float | None


@dataclass(frozen=True, slots=True)
class RunView:
    """One run. `label` is the shortest name that tells it apart within its dataset, `full` within the sweep,
    `spoken` the label as it stands in a sentence; `parts` are the label's own.

    `colour` indexes the palette; it stands for `family`: the label, or model or prompt where labels are many.
    """

    run: str
    label: str
    parts: Sequence[str]
    spoken: str
    full: str
    model: str
    prompt: str
    dataset: str
    params: Mapping[str, JSON]
    status: str
    counts: Counts
    figures: Sequence[Figure]
    details: Mapping[str, JSON]
    timings: Mapping[str, JSON]
    colour: int = 0
    family: str = ""
    primary: Figure | None = None
    standing: Standing = "unknown"
    difference: Difference | None = None

    def figure(self, name: str) -> Figure | None:
        """The metric of that name over all samples, if the run has it."""
        for each in self.figures:
            if each.name == name and not each.slice:
                return each
        return None

    def value(self, name: str) -> float | None:
        """The value of that metric, or None."""
        found = self.figure(name)
        return found.value if found else None


@dataclass(frozen=True, slots=True)
class Phrase:
    """A piece of a sentence; `kind` is "run" for a run's name, "value" for a figure, "whole" for what is not
    broken over two lines, else empty."""

    text: str
    kind: str = ""


Sentence: TypeAlias = Sequence[Phrase]


def words(sentence: Sentence) -> str:
    """The sentence as plain text."""
    return "".join(phrase.text for phrase in sentence)


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure of the best run, shown large; `anchor` is the section that says more."""

    title: str
    value: str
    beside: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the sweep says about one dataset: sentences from the verdict down to its limits."""

    dataset: str
    verdict: Sentence
    more: Sequence[Sentence]
    advice: Sentence
    unequal: Sequence[str]
    cautions: Sequence[str]
    facts: Sequence[Fact]
    runs: Sequence[RunView]

    @property
    def verdict_is_measured(self) -> bool:
        """Whether the verdict gives a figure with its interval."""
        return bool(self.runs) and self.runs[0].primary is not None and bool(self.runs[0].primary.interval)

    @property
    def has_tied(self) -> bool:
        """Whether some run cannot be told apart from the best."""
        return any(run.standing == "tied" for run in self.runs[1:])

    @property
    def best(self) -> RunView | None:
        """The run that the verdict is about; None where nobody is best."""
        return next((run for run in self.runs if run.standing == "best"), None)


@dataclass(frozen=True, slots=True)
class Table:
    """A small table of texts; the first column names the row. `numeric` columns are set right."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Chart:
    """A Vega-Lite specification with what stands in for it where it cannot be seen.

    A `wide` one is as wide as the page; a `folded` one is for those who want it.
    """

    key: str
    title: str
    alt: str
    spec: Mapping[str, JSON]
    table: Table
    note: str = ""
    wide: bool = False
    folded: bool = False
