"""Figures of a whole run from sums over its samples. Imported only for analysis: it needs numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evalrun.scoring.base import Corpus, Interval, MetricInfo, ScoreColumns
from evalrun.scoring.text import slugs
from evalrun.types import JSON

Floats = NDArray[np.float64]

Z = 1.959963984540054
"""The 0.975 quantile of the normal distribution."""

_BLOCK = 4_000_000
"""So many pairs are compared at once."""


def correlation_corpus(
    name: str, answers: Floats, targets: Floats, infos: Mapping[str, MetricInfo], max_pairs: int
) -> Corpus:
    """Pearson's, Spearman's and Kendall's correlation as figures of a run."""
    n = len(answers)
    # Sums of squares of numbers far from 0 would lose their digits: measure from the means, in deviations.
    x, y = (_standard(column) for column in (answers, targets))
    names = tuple(f"{name}.{which}" for which in ("pearson", "spearman", "kendall"))
    spearman = pearson(ranks(answers), ranks(targets))
    kendall = kendall_tau(answers, targets) if n <= max_pairs else math.nan
    notes = {} if n <= max_pairs else {names[2]: f"{n} samples: more than max_pairs, which is {max_pairs}"}
    return Corpus(
        kinds=np.arange(n, dtype=np.int64),
        statistics=np.stack([np.ones(n), x, y, x * x, y * y, x * y], axis=1),
        figures=_pearson_from_sums,
        names=names,
        infos={each: infos[each] for each in names},
        notes=notes,
        fixed={
            names[1]: (spearman, fisher_interval(spearman, (1 + spearman**2 / 2), n - 3)),
            names[2]: (kendall, fisher_interval(kendall, 0.437, n - 4)),
        },
    )


def _standard(column: Floats) -> Floats:
    spread = float(column.std())
    scaled: Floats = (column - column.mean()) / (spread if spread > 0 and math.isfinite(spread) else 1.0)
    return scaled


def _pearson_from_sums(sums: Floats) -> Floats:
    n, x, y, xx, yy, xy = (sums[..., at] for at in range(6))
    with np.errstate(invalid="ignore", divide="ignore"):
        # Rounding may leave a sum of squares of a constant just above 0: that is no spread.
        spread_x, spread_y = ((q - s * s / n) for q, s in ((xx, x), (yy, y)))
        none = (spread_x <= 1e-12 * n) | (spread_y <= 1e-12 * n)
        value = np.where(none, np.nan, (xy - x * y / n) / np.sqrt(spread_x * spread_y))
    pearson_r = np.clip(value, -1.0, 1.0)[..., None]
    same: Floats = np.repeat(pearson_r, 3, axis=-1)
    return same


def pearson(x: Floats, y: Floats) -> float:
    """Pearson's correlation; NaN where either does not vary."""
    x, y = x - x.mean(), y - y.mean()
    below = math.sqrt(float(x @ x) * float(y @ y))
    return max(-1.0, min(1.0, float(x @ y) / below)) if below > 0 else math.nan


def ranks(column: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    _, code, count = np.unique(column, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks: Floats = (2 * last - count + 1) / 2.0
    return ranks[code]


def kendall_tau(x: Floats, y: Floats) -> float:
    """Tau-b over all pairs, a block of rows at a time; NaN where either does not vary."""
    n = len(x)
    score = tied_x = tied_y = 0
    step = max(1, _BLOCK // max(n, 1))
    x_codes, y_codes = (np.unique(each, return_inverse=True)[1].astype(np.int32) for each in (x, y))
    for begin in range(0, n, step):
        signs = [
            np.sign(c[begin : begin + step, None] - c[None, :]).astype(np.int8) for c in (x_codes, y_codes)
        ]
        score += int((signs[0] * signs[1]).sum(dtype=np.int64))
        tied_x += int((signs[0] == 0).sum())
        tied_y += int((signs[1] == 0).sum())
    # Every pair was seen twice, and every sample against itself.
    below = math.sqrt(n * n - tied_x) * math.sqrt(n * n - tied_y)
    return score / below if below > 0 else math.nan


def fisher_interval(value: float, variance: float, freedom: int) -> Interval | None:
    """The 95 % interval of a correlation, tanh(atanh(r) ± z sqrt(variance / freedom)).

    `variance` and `freedom` (n less a few) are those of the coefficient: Bonett & Wright 2000. None for
    too few samples and for r = ±1.
    """
    if freedom < 1 or math.isnan(value) or abs(value) >= 1:
        return None
    width = math.sqrt(variance / freedom)
    centre = math.atanh(value)
    low, high = math.tanh(centre - Z * width), math.tanh(centre + Z * width)
    return Interval(width * (1 - value * value), low, high, "fisher-z")


def calibration_error(confidence: Floats, right: Floats, bins: int, info: MetricInfo) -> Corpus | None:
    """Over samples: the sum over bins of |sum of confidences - hits| / n. None without samples.

    Bins are (0, 1/bins], …: a confidence on the edge counts in the lower one, and 0 in the first.
    """
    n = len(confidence)
    if n == 0:
        return None
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    statistics = np.zeros((n, bins + 1))
    statistics[np.arange(n), place] = confidence - right
    statistics[:, bins] = 1.0

    def figures(sums: Floats) -> Floats:
        error: Floats = np.abs(sums[..., :bins]).sum(axis=-1) / sums[..., bins]
        return error[..., None]

    return Corpus(np.arange(n, dtype=np.int64), statistics, figures, (info.name,), {info.name: info})


def preference_corpus(
    name: str, columns: ScoreColumns, categories: Sequence[str], infos: Mapping[str, MetricInfo]
) -> Corpus:
    """How often the first of two is preferred among the decided pairs: over all, then by category.

    Two sums a scope: hits and decided pairs.
    """
    rows = np.column_stack([columns.value, columns.parts["decided"], columns.parts["category"]])
    distinct, kinds = np.unique(rows, axis=0, return_inverse=True)
    occurring = np.unique(distinct[:, 2]).astype(int)
    hits, decided, code = distinct[:, 0], distinct[:, 1], distinct[:, 2]
    scopes: list[tuple[str, str, Floats]] = [("", "", np.ones(len(distinct)))]
    names_of = slugs([categories[each] for each in occurring])
    scopes += [
        (f".{slug}", categories[each], (code == each).astype(np.float64))
        for each, slug in zip(occurring, names_of, strict=True)
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
        shares: Floats = sums[..., 0::2] / sums[..., 1::2]
    return shares


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


Formula = Callable[[Floats], Floats]


def bleu_formula(order: int, smoothing: str, smooth_value: float | None) -> Formula:
    """BLEU (Papineni et al. 2002) from answer length, target length, matches and totals by n-gram order.

    100 bp exp(mean over n of log p_n) with p_n = matches / totals and bp = exp(1 - r/c) where the answer is
    shorter. Smoothing of p_n = 0 as in Chen and Cherry (2014): exp, floor, add-k or none.
    """

    def bleu(sums: Floats) -> Floats:
        size, wanted = sums[..., 0], sums[..., 1]
        matches, totals = sums[..., 2 : 2 + order].copy(), sums[..., 2 + order : 2 + 2 * order].copy()
        some = matches.sum(axis=-1) > 0
        if smoothing == "add-k":
            added = 1.0 if smooth_value is None else smooth_value
            matches[..., 1:] += added
            totals[..., 1:] += added
        # Without any n-gram of an order the higher orders have none either: sacrebleu stops there.
        known = np.logical_and.accumulate(totals > 0, axis=-1)
        zero = known & (matches == 0)
        safe = np.where(totals > 0, totals, 1.0)
        precision = np.where(known, matches / safe, 0.0)
        if smoothing == "exp":
            precision = np.where(zero, 1 / (2.0 ** np.cumsum(zero, axis=-1) * safe), precision)
        elif smoothing == "floor":
            precision = np.where(zero, (0.1 if smooth_value is None else smooth_value) / safe, precision)
        with np.errstate(divide="ignore", invalid="ignore"):
            penalty = np.where(size < wanted, np.exp(1 - wanted / np.where(size > 0, size, np.nan)), 1.0)
            mean = np.exp(np.log(precision).mean(axis=-1))
        return np.where(some, 100 * np.nan_to_num(penalty) * mean, 0.0)

    return bleu


def chrf_formula(orders: int, beta: int) -> Formula:
    """chrF (Popović 2015), or chrF++ with words: per order answer, target and common n-grams.

    100 (1 + beta^2) P R / (beta^2 P + R) with P and R averaged over the orders that both texts have.
    """

    def chrf(sums: Floats) -> Floats:
        counts = sums[..., : 3 * orders].reshape((*sums.shape[:-1], orders, 3))
        given, wanted, common = counts[..., 0], counts[..., 1], counts[..., 2]
        both = (given > 0) & (wanted > 0)
        number = np.maximum(both.sum(axis=-1), 1)
        precision = np.where(both, common / np.where(both, given, 1.0), 0.0).sum(axis=-1) / number
        recall = np.where(both, common / np.where(both, wanted, 1.0), 0.0).sum(axis=-1) / number
        below = beta**2 * precision + recall
        value: Floats = 100 * (1 + beta**2) * precision * recall / np.where(below > 0, below, 1.0)
        return value

    return chrf


def ter(sums: Floats) -> Floats:
    """TER (Snover et al. 2006): edits per word of the target; 100 for any edit against empty targets."""
    edits, size = sums[..., 0], sums[..., 1]
    return 100 * np.where(size > 0, edits / np.where(size > 0, size, 1.0), (edits > 0).astype(np.float64))


def error_rate(sums: Floats) -> Floats:
    """Edits per unit of the target; the number of edits where there is no unit, as in jiwer."""
    edits, size = sums[..., 0], sums[..., 1]
    return edits / np.where(size > 0, size, 1.0)
