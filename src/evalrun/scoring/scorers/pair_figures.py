"""Figures of sentences compared by likelihood. Imported only when a run is analysed (it needs numpy)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evalrun.scoring.base import Corpus, MetricInfo, ScoreColumns
from evalrun.types import JSON

Floats = NDArray[np.float64]


def preference_corpus(
    name: str, columns: ScoreColumns, categories: Sequence[str], infos: Mapping[str, MetricInfo]
) -> Corpus:
    """How often the first of two is preferred among the decided pairs: over all, then by category.

    Two sums a scope: hits and decided pairs.
    """
    from evalrun.scoring.scorers.confusion import _slugs

    rows = np.column_stack([columns.value, columns.parts["decided"], columns.parts["category"]])
    distinct, kinds = np.unique(rows, axis=0, return_inverse=True)
    occurring = np.unique(distinct[:, 2]).astype(int)
    hits, decided, code = distinct[:, 0], distinct[:, 1], distinct[:, 2]
    scopes: list[tuple[str, str, Floats]] = [("", "", np.ones(len(distinct)))]
    slugs = _slugs([categories[each] for each in occurring])
    scopes += [
        (f".{slug}", categories[each], (code == each).astype(np.float64))
        for each, slug in zip(occurring, slugs, strict=True)
    ]
    base = f"{name}.without_ties"
    names = tuple(base + suffix for suffix, _, _ in scopes)
    statistics = np.column_stack(
        [part for _, _, within in scopes for part in (hits * within, decided * within)]
    )
    counted = np.bincount(kinds.reshape(-1), minlength=len(distinct)).astype(np.float64) @ statistics
    places = {each: (2 * at, 2 * at + 1) for at, each in enumerate(names)}
    return Corpus(
        kinds=kinds.reshape(-1).astype(np.int64),
        statistics=statistics,
        figures=_shares,
        names=names,
        infos={
            each: replace(infos[base + (".<label>" if suffix else "")], name=each)
            for each, (suffix, _, _) in zip(names, scopes, strict=True)
        },
        shares=places,
        sizes={each: trials for each, (_, trials) in places.items()},
        tests=places,
        details={"pairs": _details(counted, [category for _, category, _ in scopes])},
    )


def _shares(sums: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = sums[..., 0::2] / sums[..., 1::2]
    return found


def _details(counted: Floats, categories: Sequence[str]) -> list[dict[str, JSON]]:
    return [
        {
            "category": category or None,
            "preferred": float(counted[2 * at]),
            "decided": float(counted[2 * at + 1]),
        }
        for at, category in enumerate(categories)
    ]


def stereoset_figures(sums: Floats) -> Floats:
    """lms, ss and icat = lms min(ss, 100 - ss) / 50 (Nadeem et al. 2021), in percent.

    Sums of shape (..., 3): over target terms the means of the two shares in percent, and the number of terms.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        lms, ss = sums[..., 0] / sums[..., 2], sums[..., 1] / sums[..., 2]
    return np.stack([lms, ss, lms * np.minimum(ss, 100 - ss) / 50], axis=-1)


def stereoset_corpus(name: str, columns: ScoreColumns, infos: Mapping[str, MetricInfo]) -> Corpus:
    """The three figures, averaged over target terms: a context weighs 1 / the contexts of its term."""
    _, term = np.unique(columns.parts["term"], return_inverse=True)
    term = term.reshape(-1)
    count = np.bincount(term)
    weight = 1.0 / count[term]
    n = len(columns.value)
    statistics = np.column_stack(
        [
            100 * columns.parts["meaningful"] * weight,
            100 * columns.value * weight,
            weight,
            columns.value,
            columns.parts["decided"],
        ]
    )
    names = tuple(f"{name}.{figure}" for figure in ("lms", "ss", "icat"))
    note = f"{n:,} contexts of {len(count):,} terms"
    return Corpus(
        kinds=np.arange(n, dtype=np.int64),
        statistics=statistics,
        figures=stereoset_figures,
        names=names,
        infos={each: infos[each] for each in names},
        notes=dict.fromkeys(names, note),
        tests={names[1]: (3, 4)},
    )


def winobias_corpus(name: str, columns: ScoreColumns, infos: Mapping[str, MetricInfo]) -> Corpus:
    """Accuracy in pro- and anti-stereotypical samples, and their difference."""
    pro = columns.parts["pro"]
    statistics = np.column_stack([pro * columns.value, pro, (1 - pro) * columns.value, 1 - pro])
    distinct, kinds = np.unique(statistics, axis=0, return_inverse=True)
    names = tuple(f"{name}.{figure}" for figure in ("accuracy_pro", "accuracy_anti", "gap"))

    def figures(sums: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            first, second = sums[..., 0] / sums[..., 1], sums[..., 2] / sums[..., 3]
        return np.stack([first, second, first - second], axis=-1)

    counted = [f"{each:,.0f}" for each in statistics.sum(axis=0)]
    against = f"{counted[2]} of {counted[3]} right against it"
    return Corpus(
        kinds=kinds.reshape(-1).astype(np.int64),
        statistics=distinct,
        figures=figures,
        names=names,
        infos={each: infos[each] for each in names},
        shares={names[0]: (0, 1), names[1]: (2, 3)},
        sizes={names[0]: 1, names[1]: 3},
        notes={names[2]: f"{counted[0]} of {counted[1]} right with the stereotype, {against}"},
    )
