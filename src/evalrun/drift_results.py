"""What a comparison of two sets of rows came to: concluded by `analysis.drift`, shown by all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["input", "answer", "score", "speed"]


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """One column. `p` is of `test`, `q` is p adjusted over all tests of the window, `drift` whether q is
    below the level (None where there are too few rows). `effect` is the PSI, of scores the difference of
    means (live minus reference) with its interval; `least` is the least effect that these rows show with
    power 0.80, at the level of one test. `reference` and `live` say what the column was on either side."""

    column: str
    role: Role
    kind: Literal["class", "number", "embedding"]
    test: str
    p: float | None
    q: float | None
    effect: float | None
    effect_name: str
    drift: bool | None
    n_reference: int
    n_live: int
    least: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    reference: str = ""
    live: str = ""
    moved: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """A word that separates: the share of texts with it on either side, and its z."""

    word: str
    reference: float
    live: float
    z: float


@dataclass(frozen=True, slots=True)
class TextDrift:
    """Whether a classifier tells the texts of both sides apart on a half that it was not fitted to: `auc` is
    0.5 where it cannot."""

    column: str
    auc: float | None
    ci_low: float | None
    ci_high: float | None
    p: float | None
    q: float | None
    drift: bool | None
    n_reference: int
    n_live: int
    least: float | None = None
    words: Sequence[Word] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of the rows: its share and mean score on either side."""

    segment: str
    share_reference: float
    share_live: float
    score_reference: float | None
    score_live: float | None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a difference, with its interval and p."""

    value: float
    ci_low: float
    ci_high: float
    p: float


@dataclass(frozen=True, slots=True)
class ScoreDrift:
    """A score's change in two parts that add up: `mix`, because other rows are asked, and `quality`, because
    alike rows are answered otherwise, over the segments of column `by`."""

    score: str
    reference: float
    live: float
    difference: float
    by: str
    mix: Part
    quality: Part
    segments: Sequence[Segment] = ()
    direction: str = "higher"


@dataclass(frozen=True, slots=True)
class Estimated:
    """The accuracy of rows without labels, estimated from the column `confidence`, which was calibrated by
    the reference's `score`; `reference` is the accuracy there."""

    score: str
    confidence: str
    reference: float
    live: float
    ci_low: float | None
    ci_high: float | None
    n: int
    note: str


@dataclass(frozen=True, slots=True)
class DriftResults:
    """Two sets of rows compared. `inputs_changed` and `answers_worse` are None where there are too few rows
    or nothing to judge by; `sentences` say it all in words, the verdict first."""

    reference: str
    live: str
    n_reference: int
    n_live: int
    alpha: float
    columns: Sequence[ColumnDrift] = ()
    texts: Sequence[TextDrift] = ()
    scores: Sequence[ScoreDrift] = ()
    only_reference: Sequence[str] = ()
    only_live: Sequence[str] = ()
    inputs_changed: bool | None = None
    answers_changed: bool | None = None
    answers_worse: bool | None = None
    sentences: Sequence[str] = ()
    notes: Sequence[str] = ()
    estimated: Sequence[Estimated] = ()

    @property
    def tested(self) -> list[ColumnDrift | TextDrift]:
        """Every test of the window."""
        return [*self.columns, *self.texts]

    @property
    def drifted(self) -> bool:
        """Whether anything drifted."""
        return any(each.drift for each in self.tested)
