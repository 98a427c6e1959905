"""BLEU, chrF and TER from counts that add up over samples: the formulas of sacrebleu 2, for whole arrays.

Every function takes sums of shape (..., k) and gives values of shape (...), on sacrebleu's scale of 0 to 100
(TER may exceed it). The counts of a sample come from sacrebleu itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
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
