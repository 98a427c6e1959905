"""The least and the greatest that figures of many rows may be, whatever the lost rows would have been.

Exact where nothing more is said: F1 and recall of a class, precision of a class, micro F1, pass@k and pass^k.
Of macro F1 and recall the greatest value is exact; the least is, too, unless answers may name classes that
have not been seen: then it is a value that they cannot fall below.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.quality import units
from evalrun.scoring.base import Labelled, ScoreColumns, Scorer
from evalrun.scoring.text import slugs

if TYPE_CHECKING:
    from evalrun.analysis.lost import Bounds, Column
    from evalrun.analysis.samples import SampleTable

Floats = NDArray[np.float64]

_PASS = re.compile(r"repeats\..+\.(pass_at|pass_hat)_(\d+)")


def tight_bounds(metric: str, column: Column, table: SampleTable, scorer: Scorer | None) -> Bounds | None:
    """The bounds of a metric of all samples, or of a slice; None where the range of the metric is all that
    is known. `column` has the score that it is made of, with its known and its lost rows."""
    rows = column.known | column.lost
    if (found := _PASS.fullmatch(metric)) is not None and set(column.info.bounds) == {0.0, 1.0}:
        from evalrun.analysis import repeats

        figure = repeats.pass_at_k if found[1] == "pass_at" else repeats.pass_hat_k
        ends = [figure(table.ids[rows], column.filled(end)[rows], int(found[2])).value for end in (0.0, 1.0)]
        return ends[0], ends[1]
    if scorer is None or not hasattr(scorer, "confusion"):
        return None
    if units(table, column.values, rows).repeated:
        return None
    known = column.known[rows]
    confusion = scorer.confusion(_columns(column, table, scorer, rows))
    size = len(confusion.classes)
    own = confusion.target < size
    hit = (confusion.target == confusion.answer) & own & known
    answers = confusion.answer[own & known]

    def by_class(codes: Any) -> Floats:
        return np.bincount(codes[codes < size], minlength=size).astype(np.float64)

    counts = _Counts(
        by_class(confusion.target[hit]),
        by_class(answers),
        by_class(confusion.target[own & known]),
        by_class(confusion.target[own & ~known]),
        closed=bool(getattr(scorer.options, "labels", None)),
    )
    return counts.bounds(metric.removeprefix(f"{scorer.name}."), slugs(confusion.classes))


def _columns(column: Column, table: SampleTable, scorer: Scorer, rows: NDArray[np.bool_]) -> ScoreColumns:
    def texts() -> tuple[Labelled, Labelled]:
        answers, targets = table.texts()
        return (
            Labelled(answers.codes[rows], answers.labels),
            Labelled(targets.codes[rows], targets.labels),
        )

    return ScoreColumns(value=column.values[rows], parts={}, status=table.status[rows], texts=texts)


class _Counts:
    """Hits, answers and targets of each class among the known rows, and targets of the lost ones; `closed`
    says that an answer can be of no other class."""

    def __init__(self, hits: Floats, answers: Floats, targets: Floats, lost: Floats, *, closed: bool) -> None:
        self.hits, self.answers, self.targets, self.lost = hits, answers, targets, lost
        self.all = float(lost.sum())
        self.closed = closed

    def bounds(self, figure: str, labels: list[str]) -> Bounds | None:
        kind, _, label = figure.partition(".")
        overall: Mapping[str, Callable[[], Bounds]] = {
            "f1_macro": self.f1_macro,
            "recall_macro": self.recall_macro,
            "f1_micro": self.f1_micro,
        }
        if figure in overall:
            return overall[figure]()
        if label not in labels or kind not in ("f1", "precision", "recall"):
            return None
        at = labels.index(label)
        hits, answers, targets, lost = (
            float(each[at]) for each in (self.hits, self.answers, self.targets, self.lost)
        )
        others = self.all - lost
        least = {
            "f1": (2 * hits, answers + others + targets + lost),
            "precision": (hits, answers + others),
            "recall": (hits, targets + lost),
        }[kind]
        most = {
            "f1": (2 * (hits + lost), answers + targets + 2 * lost),
            "precision": (hits + lost, answers + lost),
            "recall": (hits + lost, targets + lost),
        }[kind]
        if not least[1]:
            return None, None
        # Where no row can be of the class, it has a value only if a lost answer names it wrongly.
        return least[0] / least[1], most[0] / most[1] if most[1] else 0.0

    def f1_micro(self) -> Bounds:
        """Every lost row is named wrongly, or rightly."""
        below = float(self.answers.sum() + self.targets.sum()) + 2 * self.all
        hits = 2 * float(self.hits.sum())
        return (hits / below, (hits + 2 * self.all) / below) if below else (None, None)

    def f1_macro(self) -> Bounds:
        """Best where every lost row is right: a wrong answer takes from its target's class, and from the one
        that it names. Worst where each is wrong and the answers go, one by one, where they take the most."""
        targets = self.targets + self.lost
        best = _mean_of_classes(
            2 * (self.hits + self.lost), self.answers + targets + self.lost, targets + self.answers
        )
        answers = self.answers.copy()
        room = self.all - self.lost  # a wrong answer does not name its own target
        for _ in range(int(self.all)):
            below = np.maximum(answers + targets, 1e-300)
            taken = np.where(room > 0, 2 * self.hits / below - 2 * self.hits / (below + 1), -1.0)
            at = int(taken.argmax())
            if taken[at] <= 0:
                break
            answers[at] += 1
            room[at] -= 1
        return self._with_unseen(2 * self.hits, answers + targets, targets + answers), best

    def recall_macro(self) -> Bounds:
        targets = self.targets + self.lost
        occurs = targets + self.answers
        best = _mean_of_classes(self.hits + self.lost, targets, occurs)
        return self._with_unseen(self.hits, targets, occurs), best

    def _with_unseen(self, above: Floats, below: Floats, occurs: Floats) -> float | None:
        """The mean over classes where lost answers name as many unseen ones, each with 0, as they can."""
        unseen = float((occurs == 0).sum()) if self.closed else self.all
        seen = float((occurs > 0).sum())
        value = _mean_of_classes(above, below, occurs)
        return None if value is None else value * seen / (seen + min(unseen, self.all))


def _mean_of_classes(above: Floats, below: Floats, occurs: Floats) -> float | None:
    there = occurs > 0
    if not there.any():
        return None
    shares = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return float(shares[there].mean())
