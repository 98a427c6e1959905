"""The corpus part of a judge: alpha, kappa and correlations as functions of sums over samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evalrun.scoring.base import Corpus, ScoreColumns
from evalrun.scoring.judge import agreement

if TYPE_CHECKING:
    from evalrun.scoring.judge.scorer import Judge

Floats = NDArray[np.float64]


def agreement_corpus(judge: Judge, columns: ScoreColumns) -> Corpus:
    """The figures of a judge. A sample's kind is the grades that it got; sums are those of its tables."""
    size = len(judge.menu.labels)
    several = [part for part in judge.parts if part.startswith("by.")]
    grades = np.stack([columns.parts[part] for part in ("human", "grade", *several)], axis=1)
    codes = np.where(np.isnan(grades), -1, grades).astype(np.int64)
    rows, kinds = np.unique(codes, axis=0, return_inverse=True)
    human = rows[:, 0] >= 0
    paired = human & (rows[:, 1] >= 0)
    table = np.zeros((len(rows), size, size))
    at = np.flatnonzero(paired)
    table[at, rows[at, 0], rows[at, 1]] = 1.0
    counts = np.stack([(rows[:, 2:] == code).sum(1) for code in range(size)], axis=1).astype(np.float64)
    several_graded = counts.sum(1) > 1
    same = paired & (rows[:, 0] == rows[:, 1])
    ends = np.stack([paired, same, several_graded], axis=1).astype(np.float64)
    together = agreement.coincidences(counts)
    statistics = np.concatenate([ends, table.reshape(len(rows), -1), together.reshape(len(rows), -1)], axis=1)
    names = tuple(info.name for info in judge.metrics() if _is_agreement(judge.name, info.name))
    of_people = {name: 0 for name in names if ".human." in name}
    accuracy = f"{judge.name}.human.accuracy"
    return Corpus(
        kinds=kinds.reshape(-1).astype(np.int64),
        statistics=statistics,
        figures=_Figures(judge, names, size),
        names=names,
        infos={info.name: info for info in judge.metrics()},
        shares={accuracy: (1, 0)} if accuracy in names else {},
        sizes={**of_people, **({f"{judge.name}.alpha": 2} if several else {})},
    )


def _is_agreement(judge: str, name: str) -> bool:
    return name.startswith((f"{judge}.human.", f"{judge}.alpha"))


class _Figures:
    """From sums (..., k) to the figures (..., m)."""

    def __init__(self, judge: Judge, names: tuple[str, ...], size: int) -> None:
        self._ordered, self._level = judge.menu.ordered, judge.level
        self._values = np.array(judge.menu.values)
        self._names = [name.removeprefix(f"{judge.name}.") for name in names]
        self._size = size

    def __call__(self, sums: Floats) -> Floats:
        shape, cells = (*sums.shape[:-1], self._size, self._size), self._size**2
        table = sums[..., 3 : 3 + cells].reshape(shape)
        together = sums[..., 3 + cells :].reshape(shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            accuracy = sums[..., 1] / sums[..., 0]
        makers = {
            "alpha": lambda: agreement.alpha(together, self._level, self._values),
            "human.accuracy": lambda: accuracy,
            "human.kappa": lambda: agreement.kappa(table, quadratic=self._ordered),
            "human.spearman": lambda: agreement.spearman(table),
            "human.kendall": lambda: agreement.kendall(table),
        }
        return np.stack([makers[name]() for name in self._names], axis=-1)
