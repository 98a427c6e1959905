"""Two samples compared: shares, numbers, texts and embeddings, each with a test that holds its level.

Formulas and what was found of them by simulation stand in docs/traffic.md. Everything here is seeded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.distributions import normal_quantile

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 10
POWER = 0.80
_DRAWS, _FIRST, _ENOUGH = 9_999, 999, 100
_WORK = 4_000_000
"""So many draws times cells a permutation test makes at most; with more cells it makes fewer."""


def psi_of(reference: Floats, live: Floats) -> float:
    """Population stability index of two vectors of shares: sum of (p - q) ln(p / q)."""
    return float(((live - reference) * np.log(live / reference)).sum())


def jensen_shannon(reference: Floats, live: Floats) -> float:
    """The Jensen-Shannon distance (base 2) of two vectors of shares: 0 for the same, 1 for disjoint ones."""
    middle = (reference + live) / 2

    def divergence(p: Floats) -> float:
        return float((p * np.log2(np.divide(p, middle, out=np.ones_like(p), where=p > 0))).sum())

    return math.sqrt(max(0.0, (divergence(reference) + divergence(live)) / 2))


@dataclass(frozen=True, slots=True)
class Shares:
    """Counts compared: PSI (counts + 0.5, renormalised), its p by law, and the least PSI that is seen with
    power 0.80."""

    psi: float
    p: float
    least: float
    cells: int


def psi_test(reference: Floats, live: Floats, alpha: float = 0.05) -> Shares:
    """PSI by its law: without drift it is (1/n + 1/m) chi-squared with B - 1 degrees of freedom.

    A threshold such as 0.1 without n means nothing: with 200 rows a side and 10 bins PSI is above it in 31 %
    of windows without any drift.
    """
    from scipy.stats import chi2

    n, m, cells = float(reference.sum()), float(live.sum()), len(reference)
    p, q = (reference + 0.5) / (n + 0.5 * cells), (live + 0.5) / (m + 0.5 * cells)
    value, scale = psi_of(p, q), 1 / n + 1 / m
    if cells < 2:
        return Shares(0.0, 1.0, math.nan, cells)
    least = _noncentrality(cells - 1, alpha) * scale
    return Shares(value, float(chi2.sf(value / scale, cells - 1)), least, cells)


@lru_cache(maxsize=256)
def _noncentrality(df: int, alpha: float) -> float:
    """The noncentrality at which a chi-squared test at `alpha` has power 0.80."""
    from scipy.optimize import brentq
    from scipy.stats import chi2, ncx2

    critical = float(chi2.ppf(1 - alpha, df))
    return float(brentq(lambda noncentrality: ncx2.sf(critical, df, noncentrality) - POWER, 1e-6, 1e4))


def quantile_edges(reference: Floats, bins: int = BINS) -> Floats:
    """Inner edges of quantile bins of the reference, ties merged: fewer edges than bins - 1 where values
    repeat."""
    edges = np.quantile(reference, np.arange(1, bins) / bins)
    edges = np.unique(edges)
    return np.asarray(edges[edges > reference.min()] if len(edges) else edges, np.float64)


def binned(values: Floats, edges: Floats) -> Floats:
    """Counts between edges."""
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1).astype(float)


def class_test(reference: Floats, live: Floats, effective: float = 1.0, seed: int = 0) -> tuple[str, float]:
    """Chi-squared of two rows of counts; permutation where fewer than 5 are expected in a cell. `effective`
    is what a row of clusters is worth (one over the design effect: Rao and Scott)."""
    from scipy.stats import chi2

    table = np.stack([reference, live])
    table = table[:, table.sum(0) > 0]
    if table.shape[1] < 2:
        return "one value only", 1.0
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    observed = float(((table - expected) ** 2 / expected).sum())
    if effective < 1 or expected.min() >= 5:
        name = "chi-squared" if effective == 1 else "chi-squared, clusters"
        return name, float(chi2.sf(observed * effective, table.shape[1] - 1))
    weight = 1 / expected[0] + 1 / expected[1]

    def statistic(first: Floats) -> Floats:
        return np.asarray(((first - expected[0]) ** 2 * weight).sum(1))

    return "chi-squared, permuted", _permuted(table, statistic, observed, seed)


def _permuted(table: Floats, statistic: Callable[[Floats], Floats], observed: float, seed: int) -> float:
    """p of a statistic of the first rows of tables with the same margins, as permuting labels gives them:
    999 draws, and more where so few of them reach what was observed that p would be rough. Draws that are
    just as far count half (mid-p), since few values make the statistic take few."""
    rng = np.random.default_rng(seed)
    colours, size = table.sum(0).astype(np.int64), int(table[0].sum())
    hits, done, near = 0.0, 0, 1e-9 * max(1.0, observed)
    for count in (_FIRST, int(max(0, min(_DRAWS, _WORK // table.shape[1]) - _FIRST))):
        drawn = rng.multivariate_hypergeometric(colours, size, count, method="marginals").astype(float)
        beyond = statistic(drawn) - observed
        hits += float((beyond > near).sum()) + float((np.abs(beyond) <= near).sum()) / 2
        done += count
        if hits > _ENOUGH:
            break
    return (1 + hits) / (1 + done)


def _share(hits: NDArray[np.bool_]) -> float:
    """(1 + #) / (1 + B): a permutation p is never 0."""
    return float((1 + hits.sum()) / (1 + len(hits)))


def number_test(reference: Floats, live: Floats, effective: float = 1.0, seed: int = 0) -> tuple[str, float]:
    """Kolmogorov-Smirnov; permuted where values repeat, for which the usual law rejects far too rarely."""
    from scipy.stats import ks_2samp, kstwobign

    values, counts = np.unique(np.concatenate([reference, live]), return_counts=True)
    n, m = len(reference), len(live)
    if effective < 1:
        size = n * m / (n + m) * effective
        statistic = float(ks_2samp(reference, live, method="asymp").statistic)
        return "Kolmogorov-Smirnov, clusters", float(kstwobign.sf(statistic * math.sqrt(size)))
    tied = 1 - len(values) / (n + m)
    if tied < 0.05 or len(values) > 20_000:
        exact = "exact" if max(n, m) <= 1_000 and not tied else "asymp"
        return "Kolmogorov-Smirnov", float(ks_2samp(reference, live, method=exact).pvalue)
    first = np.bincount(np.searchsorted(values, reference), minlength=len(values)).astype(float)
    table = np.stack([first, counts - first])
    observed = _ks(first[None, :], counts, n, m)[0]
    usual = float(ks_2samp(reference, live, method="asymp").pvalue)  # too large with ties, never too small
    if usual < 1e-4:
        return "Kolmogorov-Smirnov", usual
    p = _permuted(table, lambda drawn: _ks(drawn, counts, n, m), observed, seed)
    return "Kolmogorov-Smirnov, permuted", p


def _ks(first: Floats, total: Ints, n: int, m: int) -> Floats:
    below, others = np.cumsum(first, axis=1), np.cumsum(total)
    return np.asarray(np.abs(below / n - (others - below) / m).max(axis=1))


def design_effect(values: Floats, clusters: Ints) -> float:
    """How much the variance of the mean grows because rows come in clusters (codes >= 0); at least 1."""
    n, spread = len(values), float(values.var(ddof=1)) if len(values) > 1 else 0.0
    if spread == 0:
        return 1.0
    sums = np.bincount(clusters, values - values.mean())
    count = int((np.bincount(clusters) > 0).sum())
    if count < 2:
        return float(n)
    return max(1.0, float((sums**2).sum()) * count / (count - 1) / (n * spread))


@dataclass(frozen=True, slots=True)
class Told:
    """How well a classifier tells two samples of texts apart: AUC on the half that it was not fitted to."""

    auc: float
    low: float
    high: float
    p: float
    least: float
    n_reference: int
    n_live: int


def classifier_test(reference: Sequence[str], live: Sequence[str], seed: int = 0) -> Told | None:
    """The classifier two-sample test with a hold-out: character 3- to 5-grams hashed to 2^15, logistic
    regression fitted to one half, Mann-Whitney on the other. Texts that are the same go to the same half.

    Cross-validated scores with Mann-Whitney would give false alarms in 20 % (they depend on each other).
    None where a half lacks one of the sides.
    """
    from scipy.stats import mannwhitneyu
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression

    from evalrun.canonical import derived_seed

    texts = [*reference, *live]
    of_live = np.r_[np.zeros(len(reference), bool), np.ones(len(live), bool)]
    fitted = np.array([derived_seed(seed, "half", text) & 1 for text in texts], bool)
    if (
        min(np.bincount(of_live[fitted], minlength=2).min(), np.bincount(of_live[~fitted], minlength=2).min())
        < 10
    ):
        return None
    vectors = HashingVectorizer(analyzer="char", ngram_range=(3, 5), n_features=2**15, alternate_sign=False)
    made = vectors.transform([text[:2_000] for text in texts])
    model = LogisticRegression(
        C=10.0, max_iter=200, class_weight="balanced", solver="liblinear", random_state=0
    )
    model.fit(made[fitted], of_live[fitted])
    scores = model.decision_function(made[~fitted])
    one, other = scores[of_live[~fitted]], scores[~of_live[~fitted]]
    found = mannwhitneyu(one, other, alternative="greater", method="asymptotic")
    auc, n, m = float(found.statistic) / (len(one) * len(other)), len(other), len(one)
    error = math.sqrt(_auc_variance(auc, m, n))
    z = normal_quantile(0.975)
    null = math.sqrt((n + m + 1) / (12 * n * m))
    least = 0.5 + (normal_quantile(0.95) + normal_quantile(POWER)) * null
    return Told(auc, max(0.0, auc - z * error), min(1.0, auc + z * error), float(found.pvalue), least, n, m)


def _auc_variance(auc: float, positives: int, negatives: int) -> float:
    """Hanley and McNeil (1982)."""
    one, two = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (one - auc**2) + (negatives - 1) * (two - auc**2)
    return max(0.0, spread / (positives * negatives))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def separating_words(
    reference: Sequence[str], live: Sequence[str], most: int = 10
) -> list[tuple[str, float, float, float]]:
    """Words (and pairs of words) whose share of texts differs most: word, share on either side, z of two
    proportions. They explain; they are not tested."""
    from sklearn.feature_extraction.text import CountVectorizer

    try:
        counter = CountVectorizer(binary=True, analyzer=_words, max_features=50_000)
        made = counter.fit_transform([text[:2_000] for text in (*reference, *live)])
    except ValueError:  # no text holds a word
        return []
    n, m = len(reference), len(live)
    first, second = (np.asarray(part.sum(0)).ravel() for part in (made[:n], made[n:]))
    pooled = (first + second + 1) / (n + m + 2)
    z = (second / m - first / n) / np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    names = counter.get_feature_names_out()
    order = np.argsort(-np.abs(z))[:most]
    return [
        (str(names[at]), float(first[at] / n), float(second[at] / m), float(z[at]))
        for at in order
        if abs(z[at]) > 2
    ]


MMD_ROWS, MMD_DRAWS = 1_000, 999


def mmd_test(reference: Floats, live: Floats, seed: int = 0) -> tuple[float, float]:
    """MMD² (unbiased, RBF with the median distance of the pooled rows) of vectors, shapes (n, d) and (m, d),
    at most 1,000 a side, and its p by 999 permutations: (1 + #) / (1 + B), never 0."""
    rng = np.random.default_rng(seed)
    one, other = (
        side if len(side) <= MMD_ROWS else side[rng.choice(len(side), MMD_ROWS, replace=False)]
        for side in (reference, live)
    )
    pooled = np.concatenate([one, other])
    squares = (pooled**2).sum(1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * pooled @ pooled.T, 0.0)
    apart = distances[np.triu_indices(len(pooled), 1)]
    width = float(np.median(apart)) or 1.0
    kernel = np.exp(-distances / width)
    np.fill_diagonal(kernel, 0.0)
    n, total = len(one), len(pooled)
    marks = np.zeros((MMD_DRAWS + 1, total))
    marks[0, :n] = 1
    for row in range(1, MMD_DRAWS + 1):
        marks[row, rng.choice(total, n, replace=False)] = 1
    rows = marks @ kernel
    within = (rows * marks).sum(1)
    across = rows.sum(1) - within
    others = kernel.sum() - within - 2 * across
    m = total - n
    values = within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * across / (n * m)
    return float(values[0]), _share(values[1:] >= values[0] - 1e-15)


def decompose(reference: Any, live: Any, segments: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """A difference of means as mix and quality, each with its standard error.

    `reference` and `live` are (scores, segment codes). Over segments s with shares p and means y, mix is the
    sum of (p1 - p0) (y0 + y1) / 2 and quality that of (p0 + p1) / 2 (y1 - y0): they add up exactly (Kitagawa
    1955). A segment that one side lacks has the other's mean: all of it is mix. Errors by influence of rows.
    """
    shares, means, counts = [], [], []
    for scores, codes in (reference, live):
        count = np.bincount(codes, minlength=segments).astype(float)
        total = np.bincount(codes, scores, minlength=segments)
        counts.append(count)
        shares.append(count / len(scores))
        means.append(np.divide(total, count, out=np.full(segments, np.nan), where=count > 0))
    own = [means[0].copy(), means[1].copy()]
    for side in (0, 1):
        missing = np.isnan(own[side])
        own[side][missing] = means[1 - side][missing]
        own[side] = np.nan_to_num(own[side])
    (p0, p1), (y0, y1) = shares, own
    mix, quality = float(((p1 - p0) * (y0 + y1) / 2).sum()), float(((p0 + p1) / 2 * (y1 - y0)).sum())
    errors = [0.0, 0.0]
    for side, sign, (scores, codes) in ((0, -1, reference), (1, 1, live)):
        share, residual = shares[side][codes], scores - own[side][codes]
        there = np.where(counts[1 - side][codes] > 0, 1.0, 2.0)  # the other side's mean moves with this one
        of_mix = sign * ((y0 + y1) / 2)[codes] + (p1 - p0)[codes] / 2 * residual / share * there
        of_quality = ((y1 - y0) / 2)[codes] + np.where(
            there == 1, sign * (p0 + p1)[codes] / 2 * residual / share, 0.0
        )
        errors[0] += float(np.var(of_mix)) / len(scores)
        errors[1] += float(np.var(of_quality)) / len(scores)
    return (mix, math.sqrt(errors[0])), (quality, math.sqrt(errors[1]))
