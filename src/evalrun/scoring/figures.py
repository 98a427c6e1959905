"""Figures of a whole run from sums over its samples. Imported only for analysis: it needs numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evalrun.scoring.base import Corpus, MetricInfo, ScoreColumns, Smooth
from evalrun.scoring.text import slugs
from evalrun.types import JSON

Floats = NDArray[np.float64]

FEW_RANKED, MOSTLY_TIED = 30, 60
"""Up to so many samples the interval of a rank correlation covers 91 to 98 %, mostly tied ones 83 to 97 %."""
FEW_OF_A_KIND = 10

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
    few = f"{n} samples: more than max_pairs, which is {max_pairs}"
    kendall = kendall_smooth(answers, targets) if n <= max_pairs else _unknown(n, few)
    return Corpus(
        kinds=np.arange(n, dtype=np.int64),
        statistics=np.stack([np.ones(n), x, y, x * x, y * y, x * y], axis=1),
        figures=_pearson_from_sums,
        names=names,
        infos={each: infos[each] for each in names},
        smooth={names[1]: spearman_smooth(answers, targets), names[2]: kendall},
    )


def _unknown(n: int, note: str = "") -> Smooth:
    return Smooth(math.nan, np.zeros(n), math.nan, note=note)


def _fisher(value: float, influence: Floats, *columns: Floats) -> Smooth:
    """A correlation on Fisher's scale; no interval at ±1. A few samples that mostly tie are noted."""
    value = max(-1.0, min(1.0, value))
    tied = max((float(np.unique(column, return_counts=True)[1].max()) for column in columns), default=0.0)
    n, note = len(influence), ""
    mostly = tied > n / 2
    if n <= (MOSTLY_TIED if mostly else FEW_RANKED):
        note = f"{n} samples{', most of them tied' * mostly}: the interval is rough"
    if abs(value) >= 1 - 1e-12:
        return Smooth(value, np.zeros(len(influence)), math.inf, "fisher-z", note=note)
    return Smooth(value, influence / (1 - value * value), math.atanh(value), "fisher-z", note=note)


def spearman_smooth(x: Floats, y: Floats) -> Smooth:
    """Spearman's rank correlation with influences: of the covariance C and variances A, B of the mid-ranks,
    r = C / sqrt(A B), each sample having a rank of its own and a place in the ranks of all others."""
    n = len(x)
    value = pearson(ranks(x), ranks(y)) if n else math.nan
    if math.isnan(value):
        return _unknown(n)
    u, v = ((ranks(column) - 0.5) / n - 0.5 for column in (x, y))
    a, b, c = (float(p @ q) / n for p, q in ((u, u), (v, v), (u, v)))
    of_c = u * v + (_above(x, v) + _above(y, u)) / n - 3 * c
    of_a, of_b = (w * w + 2 * _above(z, w) / n - 3 * m for z, w, m in ((x, u, a), (y, v, b)))
    return _fisher(value, of_c / math.sqrt(a * b) - value / 2 * (of_a / a + of_b / b), x, y)


def _above(x: Floats, weights: Floats) -> Floats:
    """For each sample the weights of those with greater x, and half of those with the same."""
    codes = np.unique(x, return_inverse=True)[1]
    sums = np.bincount(codes, weights=weights)
    after = np.cumsum(sums[::-1])[::-1] - sums
    return np.asarray((after + sums / 2)[codes], np.float64)


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
    pearson_r = np.clip(value, -1.0, 1.0)
    no_sums = np.full_like(pearson_r, np.nan)  # of the rank correlations
    return np.stack([pearson_r, no_sums, no_sums], axis=-1)


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


def kendall_smooth(x: Floats, y: Floats) -> Smooth:
    """Kendall's tau-b over all pairs, a block of rows at a time, with influences: those of three means of
    pairs (twice a sample's own mean less the whole), tau-b = T / sqrt(X Y). NaN where either does not vary.
    """
    n = len(x)
    if n < 2:
        return _unknown(n)
    agree, apart_x, apart_y = np.empty(n), np.empty(n), np.empty(n)
    step = max(1, _BLOCK // n)
    x_codes, y_codes = (np.unique(each, return_inverse=True)[1].astype(np.int32) for each in (x, y))
    for begin in range(0, n, step):
        rows = slice(begin, begin + step)
        signs = [np.sign(c[rows, None] - c[None, :]).astype(np.int8) for c in (x_codes, y_codes)]
        agree[rows] = (signs[0] * signs[1]).sum(axis=1, dtype=np.int64)
        apart_x[rows], apart_y[rows] = (np.count_nonzero(each, axis=1) for each in signs)
    score, pairs_x, pairs_y = float(agree.sum()), float(apart_x.sum()), float(apart_y.sum())
    if pairs_x == 0 or pairs_y == 0:
        return _unknown(n)
    root = math.sqrt(pairs_x) * math.sqrt(pairs_y)
    value = score / root
    of_pairs = apart_x * n / pairs_x + apart_y * n / pairs_y - 2
    return _fisher(value, 2 * (agree * n - score) / root - value * of_pairs, x, y)


def kendall_tau(x: Floats, y: Floats) -> float:
    """Tau-b over all pairs; NaN where either does not vary."""
    return kendall_smooth(x, y).value


def calibration_corpus(
    name: str, confidence: Floats, right: Floats, bins: int, infos: Mapping[str, MetricInfo]
) -> Corpus | None:
    """Expected calibration error, AUROC and AURC of confidences (0 to 1) and hits (0 or 1), each of shape
    (n,).

    The error is the sum over bins of |sum of confidences - hits| / n; bins are (0, 1/bins], …: a confidence
    on the edge counts in the lower one, and 0 in the first. None without samples.
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
        return np.stack([error, np.full_like(error, np.nan), np.full_like(error, np.nan)], axis=-1)

    ece, auroc, aurc = names = tuple(f"{name}.{figure}" for figure in ("ece", "auroc", "aurc"))
    return Corpus(
        np.arange(n, dtype=np.int64),
        statistics,
        figures,
        names,
        {each: infos[each] for each in names},
        notes={ece: _by_chance(confidence, place, bins)},
        fixed={ece: (float(figures(statistics.sum(axis=0))[0]), None)},
        smooth={auroc: auroc_smooth(confidence, right), aurc: aurc_smooth(confidence, right)},
    )


def _by_chance(confidence: Floats, place: NDArray[np.int64], bins: int) -> str:
    """The error if every confidence were right: |normal| with the variance of each bin's hits."""
    n = len(confidence)
    spread = np.sqrt(np.bincount(place, weights=confidence * (1 - confidence), minlength=bins))
    drawn = np.abs(np.random.default_rng(0).standard_normal((2_000, bins))) @ spread / n
    mean, most = float(drawn.mean()), float(np.sort(drawn)[round(0.95 * len(drawn)) - 1])
    return (
        "no interval: it is biased upwards, and resampling would add to that; perfect confidences like these "
        f"give {mean:.3g} by chance, and up to {most:.3g} in 95 of 100 cases"
    )


def auroc_smooth(confidence: Floats, right: Floats) -> Smooth:
    """The chance that a right answer has the greater confidence than a wrong one, ties counting half, with
    the placements of DeLong, DeLong and Clarke-Pearson (1988) as influences, on the logit scale."""
    n, hits = len(right), right > 0.5
    positives, negatives = int(hits.sum()), int((~hits).sum())
    if not positives or not negatives:
        return _unknown(n, "there are no wrong answers" if positives else "there are no right answers")
    above = _above(confidence, hits.astype(np.float64)) / positives
    below = 1 - _above(confidence, (~hits).astype(np.float64)) / negatives
    value = float(below[hits].mean())
    influence = np.where(hits, (below - value) * n / positives, (above - value) * n / negatives)
    few = min(positives, negatives)
    note = f"{few} {'right' if few == positives else 'wrong'} answers: the interval may be too narrow"
    note = note if few < FEW_OF_A_KIND else ""
    if not 0 < value < 1:
        return Smooth(value, np.zeros(n), math.inf, "logit", note=note)
    logit = math.log(value / (1 - value))
    return Smooth(value, influence / (value * (1 - value)), logit, "logit", note=note)


def aurc_smooth(confidence: Floats, right: Floats) -> Smooth:
    """Area under the risk-coverage curve: the mean over samples of the share wrong among those whose
    confidence is at least as high (Geifman and El-Yaniv 2017; equal confidences enter together).

    With G(s) the share of confidences from s on, L(s) the share wrong and at least s: the mean of R = L/G. A
    sample (s, l) moves it by R(s) + l E[1(S <= s)/G(S)] - E[1(S <= s) L(S)/G(S)²] - the mean.
    """
    n, loss = len(right), 1 - right
    codes = np.unique(-confidence, return_inverse=True)[1]  # 0 is the most confident
    size = np.bincount(codes).astype(np.float64)
    covered = np.cumsum(size) / n
    wrong = np.cumsum(np.bincount(codes, weights=loss)) / n
    risk = wrong / covered

    def from_here(values: Floats) -> Floats:
        """Mean over samples of a value of their confidence, of those no more confident."""
        shares = values * size / n
        return np.asarray(np.cumsum(shares[::-1])[::-1], np.float64)

    value = float(risk @ size) / n
    entered, shared = from_here(1 / covered), from_here(wrong / covered**2)
    influence = (risk - value + 0.0)[codes] + loss * entered[codes] - shared[codes]
    few = int(loss.sum())
    note = f"{few} wrong answers: the interval may be too narrow" if few < FEW_OF_A_KIND else ""
    if value <= 0:
        return Smooth(value, np.zeros(n), -math.inf, "log", note=note)
    return Smooth(value, influence / value, math.log(value), "log", note=note)


def ratio_smooth(value: float, above: Floats, below: Floats, scale: str) -> Smooth:
    """A ratio of sums: `value` is its exponential ("log"), or some multiple of it ("plain"). A sample counts
    by its share of the sum below, so that a few long ones leave few degrees of freedom."""
    total = float(below.sum())
    if math.isnan(value) or total <= 0:
        return _unknown(len(above))
    ratio = float(above.sum()) / total
    influence = (above - ratio * below) * len(above) / total
    if scale == "log":
        return Smooth(value, influence, ratio, scale, below / total)
    factor = value / ratio if ratio else 1.0
    return Smooth(value, influence * factor, value, scale, below / total)


def influences(
    corpus_figures: Callable[[Floats], Floats], statistics: Floats, sums: Floats, n: float, at: int
) -> Floats:
    """What one more sample of each kind does to a figure of sums: its derivative in the direction of the
    sample, d/de figure((1 - e) sums + e n statistics), shape (K,)."""
    step = 1e-5
    moved = corpus_figures((1 - step) * sums + step * n * statistics)[..., at]
    return np.asarray((moved - corpus_figures(sums)[..., at]) / step, np.float64)


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
    Two more columns are lms ss / 50 and lms (100 - ss) / 50, the lesser of which icat is.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        lms, ss = sums[..., 0] / sums[..., 2], sums[..., 1] / sums[..., 2]
    sides = lms * ss / 50, lms * (100 - ss) / 50
    return np.stack([lms, ss, np.minimum(*sides), *sides], axis=-1)


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
        least_of={names[2]: (3, 4)},
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
