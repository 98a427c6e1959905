"""How often the intervals hold what they should: the tables of coverage that docs/statistics.md quotes.

python benchmarks/coverage.py [--quick] [--only NAME ...] [--repeats N] [--docs docs/statistics.md]

Data of a known truth are drawn again and again and given to the functions that make evalrun's figures; a cell
says in how many of 100 cases the 95 % interval held the truth. A star says that a note stood beside the
figure in at least half of the cases: outside 93 to 97 there should be one. A cell is empty where fewer than
half of the cases had an interval. With 1,000 repeats, chance moves a 95 by 1.4 either way.

One function a table, under `@table`; whatever is drawn comes from the generator it is given. `--docs` writes
the tables between the two marks of that page, and nothing else on the page may give such a number.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalrun import registry
from evalrun.analysis.influence import smooth_interval
from evalrun.analysis.intervals import mean, mean_clustered, percentile
from evalrun.analysis.paired import paired_difference
from evalrun.analysis.permutation import Part, by_chance
from evalrun.analysis.quality import Units, corpus_estimates
from evalrun.analysis.throughput import Answers, steady_window, throughput_metrics
from evalrun.results import Estimate
from evalrun.scoring import figures
from evalrun.scoring.base import MetricInfo, ScoreColumns
from evalrun.scoring.scorers import judge_agreement
from evalrun.scoring.scorers.confusion import Confusion

Floats = NDArray[np.float64]
Rng = np.random.Generator
MARK, MORE = "<!-- coverage.py: {name} -->", "<!-- coverage.py: more -->"
UNIT = (0.0, 1.0)
REPEATS, QUICK = 1_000, 100


@dataclass(frozen=True)
class Table:
    """`rows` are a name and a cell for each of the columns, which are mostly sizes n."""

    title: str
    columns: Sequence[str]
    rows: list[tuple[str, Sequence[str]]] = field(default_factory=list)
    told: str = ""

    def markdown(self) -> str:
        head = ["data", *self.columns]
        lines = [head, ["---"] * len(head), *([name, *cells] for name, cells in self.rows)]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"**{self.title}**{' ' + self.told if self.told else ''}\n\n{body}\n"


Make = Callable[[Rng, int], Table]
TABLES: dict[str, Make] = {}


def table(make: Make) -> Make:
    """A table by the name of its function, which gets a seeded generator and how often to draw."""
    TABLES[make.__name__] = make
    return make


@dataclass
class Tally:
    """How often intervals held a truth."""

    held: int = 0
    had: int = 0
    noted: int = 0
    all: int = 0

    def add(self, low: float | None, high: float | None, truth: float, note: str) -> None:
        self.all += 1
        self.noted += bool(note)
        if low is not None and high is not None:
            self.had += 1
            self.held += low - 1e-12 <= truth <= high + 1e-12

    def cell(self) -> str:
        if self.had < self.all / 2:
            return ""
        star = "\\*" if self.noted >= self.all / 2 else ""
        return f"{100 * self.held / self.had:.0f}{star}"


def cells(
    sizes: Sequence[int], repeats: int, truth: float, draw: Callable[[int], Estimate | Any]
) -> list[str]:
    """A cell for each size; `draw` makes the estimate of one data set of that size."""
    found = []
    for n in sizes:
        tally = Tally()
        for _ in range(repeats):
            made = draw(n)
            tally.add(made.low, made.high, truth, made.note)
        found.append(tally.cell())
    return found


def sizes_of(sizes: Sequence[int]) -> list[str]:
    return [f"n = {n}" for n in sizes]


SIZES = (10, 30, 100, 1000)
MANY = 1_000_000


@table
def means(rng: Rng, repeats: int) -> Table:
    """Means of one run."""

    def piled(share: float) -> Callable[[int], Floats]:
        def draw(n: int) -> Floats:
            values = rng.random(n)
            values[rng.random(n) < share] = 1.0
            return values

        return draw

    bounded: Mapping[str, Callable[[int], Floats]] = {
        "0/1, p = 0.7": lambda n: (rng.random(n) < 0.7) + 0.0,
        "0/1, p = 0.99": lambda n: (rng.random(n) < 0.99) + 0.0,
        "uniform": lambda n: rng.random(n),
        "80 % ones, the rest uniform": piled(0.8),
        "95 % ones, the rest uniform": piled(0.95),
        "99 % ones, the rest uniform": piled(0.99),
    }
    found = Table("Means", sizes_of(SIZES))
    for name, values in bounded.items():
        truth = 0.7 if "0.7" in name else 0.99 if "0.99" in name else float(values(MANY).mean())
        row = cells(SIZES, repeats, truth, lambda n, values=values: mean(values(n), bounds=UNIT))  # type: ignore[misc]
        found.rows.append((name, row))
    for sigma in (0.5, 1.0, 1.5):
        truth = math.exp(sigma**2 / 2)
        row = cells(SIZES, repeats, truth, lambda n, sigma=sigma: mean(rng.lognormal(0, sigma, n)))  # type: ignore[misc]
        found.rows.append((f"lognormal, sigma = {sigma:g}, no bound", row))
    return found


@table
def pass_at_k(rng: Rng, repeats: int) -> Table:
    """pass@5 of 10 answers, chances of a right answer drawn from a beta distribution."""
    from evalrun.analysis import repeats as runs

    missed = np.array([math.comb(10 - right, 5) / math.comb(10, 5) for right in range(11)])
    found = Table("pass@5 of 10 answers", sizes_of(SIZES))
    for a, b in ((0.5, 0.5), (2, 2), (2, 1), (5, 1), (8, 1)):
        chances = rng.beta(a, b, MANY)
        truth = 1 - float(missed[rng.binomial(10, chances)].mean())

        def draw(n: int, a: float = a, b: float = b) -> Estimate:
            scores = rng.random((n, 10)) < rng.beta(a, b, n)[:, None]
            return runs.pass_at_k(np.repeat(np.arange(n), 10), scores.ravel() + 0.0, 5)

        found.rows.append((f"beta({a:g}, {b:g}): {truth:.4f}", cells(SIZES, repeats, truth, draw)))
    return found


@table
def clusters(rng: Rng, repeats: int) -> Table:
    """Clustered means of 0/1 scores, chances differing between clusters."""
    counts = (5, 10, 30, 100)
    shapes: Mapping[str, Callable[[int], NDArray[np.int64]]] = {
        "equal, 10 rows": lambda c: np.full(c, 10),
        "geometric sizes, 1 to 60": lambda c: np.maximum(1, np.geomspace(1, 60, c).round()).astype(np.int64),
        "one holds half": lambda c: np.concatenate([[5 * (c - 1)], np.full(c - 1, 5)]),
    }
    found = Table("Means with clusters, 0/1 scores, p = 0.7", [f"{c} clusters" for c in counts])
    for name, sizes in shapes.items():
        for icc in (0.0, 0.1, 0.5):
            spread = 1 / icc - 1 if icc else 0.0

            def draw(c: int, sizes: Any = sizes, spread: float = spread) -> Estimate:
                rows = np.repeat(np.arange(c), sizes(c))
                chances = rng.beta(0.7 * spread, 0.3 * spread, c) if spread else np.full(c, 0.7)
                return mean_clustered((rng.random(len(rows)) < chances[rows]) + 0.0, rows, UNIT)

            row = []
            for c in counts:  # the note is told where it warns, not where it only counts
                tally = Tally()
                for _ in range(repeats):
                    made = draw(c)
                    tally.add(made.low, made.high, 0.7, "few" if "too narrow" in made.note else "")
                row.append(tally.cell())
            found.rows.append((f"{name}, intraclass correlation {icc:g}", row))
    return found


@table
def paired(rng: Rng, repeats: int) -> Table:
    """Differences of two runs, 0/1 scores: shares of pairs that only one of the two has right."""
    found = Table("Paired differences of 0/1 scores", sizes_of(SIZES))
    for only_a, only_b in ((0.01, 0.01), (0.05, 0.1), (0.2, 0.2), (0.02, 0.9), (0.0, 0.93)):

        @dataclass
        class Made:
            low: float | None
            high: float | None
            note: str = ""

        def draw(n: int, a: float = only_a, b: float = only_b) -> Any:
            place = rng.random(n)
            first, second = (place < a) + 0.0, ((place >= a) & (place < a + b)) + 0.0
            made = paired_difference(first, second, permutations=1)
            return Made(made.ci_low, made.ci_high, made.note)

        row = cells(SIZES, repeats, only_b - only_a, draw)
        found.rows.append((f"only A right {only_a:g}, only B {only_b:g}", row))
    return found


@table
def rank_correlations(rng: Rng, repeats: int) -> Table:
    """Spearman and Kendall of numbers, of ratings, and of ratings of which most are the best."""
    sizes = (10, 30, 100, 400)
    cuts: Mapping[str, Sequence[float]] = {
        "numbers": (),
        "ratings 1 to 5": (-1.2, -0.4, 0.4, 1.2),
        "ratings, seven of ten 5": (-2.2, -1.8, -1.3, -0.5),
    }

    def pairs(n: int, rho: float, at: Sequence[float]) -> tuple[Floats, Floats]:
        x = rng.standard_normal(n)
        y = rho * x + math.sqrt(1 - rho * rho) * rng.standard_normal(n)
        return (np.digitize(x, at) + 0.0, np.digitize(y, at) + 0.0) if at else (x, y)

    found = Table("Rank correlations", sizes_of(sizes))
    for which, make in (("Spearman", figures.spearman_smooth), ("Kendall", figures.kendall_smooth)):
        for name, at in cuts.items():
            for rho in (0.0, 0.8):
                truth = float(np.mean([make(*pairs(3_000, rho, at)).value for _ in range(8)]))

                def draw(n: int, rho: float = rho, at: Any = at, make: Any = make) -> Estimate:
                    return smooth_interval(make(*pairs(n, rho, at)))

                row = cells(sizes, repeats, truth, draw)
                found.rows.append((f"{which}, {name}, rho = {rho:g}", row))
    return found


@table
def agreement(rng: Rng, repeats: int) -> Table:
    """Cohen's kappa of two labels by the share of the commoner one, and nominal alpha of three judges."""
    sizes = (10, 30, 100, 400)
    found = Table("Agreement", sizes_of(sizes))
    from evalrun.analysis.feedback import kappa

    @dataclass
    class Made:
        low: float | None
        high: float | None
        note: str = ""

    for common in (0.5, 0.9, 0.95):
        for truth in (0.3, 0.6, 0.8):
            chance = common**2 + (1 - common) ** 2
            off = (1 - chance) * (1 - truth) / 2
            shares = [common - off, off, off, 1 - common - off]

            def draw(n: int, shares: Any = shares) -> Any:
                counts = rng.multinomial(n, shares)
                first = np.repeat([0, 0, 1, 1], counts).astype(str).tolist()
                second = np.repeat([0, 1, 0, 1], counts).astype(str).tolist()
                made = kappa(first, second)
                return Made(made.ci_low, made.ci_high, made.note)

            found.rows.append(
                (f"kappa {truth:g}, {common:.0%} one label", cells(sizes, repeats, truth, draw))
            )
    for common in (0.5, 0.9):
        found.rows.append(_alpha(rng, repeats, sizes, common))
    return found


def _alpha(rng: Rng, repeats: int, sizes: Sequence[int], common: float) -> tuple[str, list[str]]:
    """Three judges who copy the truth with 85 %, else draw from the shares of the labels."""
    values = np.arange(2.0)

    def counts(n: int) -> Floats:
        truth = rng.random(n) >= common
        drawn = rng.random((n, 3)) >= common
        given = np.where(rng.random((n, 3)) < 0.85, truth[:, None], drawn).sum(axis=1)
        return np.stack([3 - given, given], axis=1) + 0.0

    def figure(sums: Floats) -> Floats:
        return judge_agreement.alpha(sums[..., 1:].reshape(*sums.shape[:-1], 2, 2), "nominal", values)[
            ..., None
        ]

    truth = float(figure(_alpha_rows(counts(MANY)).sum(axis=0))[0])
    even = np.zeros((4, 5))
    even[:, 0] = 1.0
    for at in range(4):
        pair = np.zeros((2, 2))
        pair[at // 2, at % 2] = 1.0
        even[at, 1:] = (1.5 * (pair + pair.T)).ravel()

    def draw(n: int) -> Estimate:
        rows = _alpha_rows(counts(n))
        smooth = judge_agreement.agreement_smooth(figure, 0, rows, np.arange(n), even, 0)
        return smooth_interval(smooth, bounds=(-1.0, 1.0))

    return f"alpha {truth:.2f}, three judges, {common:.0%} one label", cells(sizes, repeats, truth, draw)


def _alpha_rows(counts: Floats) -> Floats:
    together = judge_agreement.coincidences(counts).reshape(len(counts), -1)
    return np.concatenate([np.ones((len(counts), 1)), together], axis=1)


@table
def corpus_figures(rng: Rng, repeats: int) -> Table:
    """Macro F1 of five classes, and perplexity of texts of unequal length."""
    sizes = (10, 30, 100, 300, 1000)
    found = Table("Figures of a whole run", sizes_of(sizes))
    shares = np.array([0.6, 0.2, 0.1, 0.07, 0.03])
    classes = tuple("abcde")
    infos = {
        name: MetricInfo(name, "fraction", "higher", "", UNIT)
        for name in ("f1_macro", "precision_macro", "recall_macro", "f1_micro", "mcc", "f1.<label>",
                     "precision.<label>", "recall.<label>")
    }  # fmt: skip

    def confusion(n: int) -> Confusion:
        target = rng.choice(5, n, p=shares)
        answer = np.where(rng.random(n) < 0.75, target, rng.choice(5, n, p=[0.4, 0.2, 0.2, 0.1, 0.1]))
        return Confusion(classes, target.astype(np.int64), answer.astype(np.int64))

    def macro(n: int) -> Estimate:
        corpus = confusion(n).corpus("c", infos)
        units = Units(np.zeros(n), np.arange(n), np.arange(n), None, False)
        made = corpus_estimates(corpus, units, int(rng.integers(2**31)))[0]
        return Estimate(made.value, n, low=made.low, high=made.high, note=corpus.notes.get("c.f1_macro", ""))

    many = confusion(MANY).corpus("c", infos)
    mass = np.bincount(many.kinds, minlength=len(many.statistics)) @ many.statistics
    truth = float(many.figures(mass)[0])
    found.rows.append(
        ("macro F1, classes of 60, 20, 10, 7, 3 %", cells(sizes, max(50, repeats // 4), truth, macro))
    )

    def perplexity(n: int) -> Estimate:
        tokens = np.maximum(1, rng.lognormal(4, 1, n))
        nll = tokens * rng.normal(2.5, 0.5, n)
        value = math.exp(float(nll.sum() / tokens.sum()))
        return smooth_interval(figures.ratio_smooth(value, nll, tokens, "log"))

    found.rows.append(("perplexity, lognormal lengths", cells(sizes, repeats, math.exp(2.5), perplexity)))
    return found


@table
def confidence(rng: Rng, repeats: int) -> Table:
    """AUROC and the area under the risk-coverage curve of confidences."""
    sizes = (30, 100, 300, 1000)

    def spread(n: int) -> tuple[Floats, Floats]:
        stated = rng.beta(4, 1.5, n)
        return stated, (rng.random(n) < stated) + 0.0

    def stated(n: int) -> tuple[Floats, Floats]:
        given = rng.choice([0.5, 0.7, 0.8, 0.9, 0.95, 1.0], n, p=[0.05, 0.05, 0.1, 0.3, 0.3, 0.2])
        return given, (rng.random(n) < given - 0.1) + 0.0

    found = Table(
        "Confidence", sizes_of(sizes), told="The expected calibration error has no interval, so no coverage."
    )
    for what, make in (
        ("AUROC", figures.auroc_smooth),
        ("area under risk and coverage", figures.aurc_smooth),
    ):
        for name, draw in (("any number", spread), ("six round numbers", stated)):
            truth = make(*draw(MANY)).value
            row = cells(
                sizes, repeats, truth, lambda n, make=make, draw=draw: smooth_interval(make(*draw(n)))
            )  # type: ignore[misc]
            found.rows.append((f"{what}, {name}", row))
    return found


@table
def speed(rng: Rng, repeats: int) -> Table:
    """Percentiles of latency, and rates of closed loops whose answers have geometric lengths."""
    sizes = (10, 60, 200, 1000)
    found = Table("Speed", sizes_of(sizes))
    for q, least in ((0.5, 8), (0.9, 51), (0.95, 104), (0.99, 528)):
        truth = math.exp(_normal(q))
        row = []
        for n in sizes:
            made = cells([n], repeats, truth, lambda n, q=q: percentile(np.sort(rng.lognormal(0, 1, n)), q))  # type: ignore[misc]
            row.append(made[0] if n >= least else "")
        found.rows.append((f"p{100 * q:g} of independent latencies", row))
    for slots in (4, 16):
        tokens, requests = [], []
        for n in sizes:
            tallies = [Tally(), Tally()]
            for rates in _loops(rng, repeats, n, slots):
                for tally, made, truth in zip(tallies, rates, (slots / 1.2, slots * 50 / 1.2), strict=True):
                    tally.add(made.ci_low, made.ci_high, truth, made.note)
            requests.append(tallies[0].cell())
            tokens.append(tallies[1].cell())
        found.rows.append((f"tokens/s, {slots} streams", tokens))
        found.rows.append((f"requests/s, {slots} streams", requests))
    for spread in (0.0, 0.5):
        for q in (0.5, 0.95, 0.99):
            row = [_gaps(rng, repeats, n, spread, q) if n > 10 else "" for n in sizes]
            kind = f"p{100 * q:g} of the times between chunks"
            found.rows.append(
                (f"{kind}, answers {'as fast' if not spread else 'not as fast'} as one another", row)
            )
    return found


def _gaps(rng: Rng, repeats: int, n: int, spread: float, q: float) -> str:
    """n answers of 1 to 59 chunks, whose times are log-normal around a level of the answer."""
    from evalrun.analysis import chunk_gaps

    tally, truth = Tally(), 0.02 * math.exp(math.hypot(0.5, spread) * _normal(q))
    for _ in range(repeats):
        sizes = rng.integers(1, 60, n)
        levels = np.repeat(rng.normal(0, spread, n), sizes)
        gaps_us = np.rint(2e4 * np.exp(levels + rng.normal(0, 0.5, len(levels)))).astype(np.int64)
        answers = [chunk_gaps.Answers(gaps_us, sizes)]
        gaps = chunk_gaps.Gaps.of(lambda answers=answers: answers)  # type: ignore[misc]
        assert gaps is not None
        made = chunk_gaps.gap_percentiles(gaps, [q])[0]
        tally.add(made.low, made.high, truth, made.note)
    return tally.cell()


def _normal(q: float) -> float:
    from evalrun.analysis.distributions import normal_quantile

    return normal_quantile(q)


def _loops(rng: Rng, repeats: int, n: int, slots: int) -> Iterator[Sequence[Any]]:
    free, loop = np.zeros((repeats, slots)), np.arange(repeats)
    tokens = rng.geometric(1 / 50, (n, repeats)) + 0.0
    sent, done = np.empty((n, repeats)), np.empty((n, repeats))
    for at in range(n):
        slot = free.argmin(axis=1)
        sent[at] = free[loop, slot]
        free[loop, slot] = done[at] = sent[at] + 0.2 + 0.02 * tokens[at]
    for one in zip(sent.T, done.T, tokens.T, strict=True):
        window = steady_window(*one[:2])
        assert window is not None
        yield throughput_metrics(window, Answers.of(*one[:2], np.full(n, 0.2), one[2]))


def _no_texts() -> Any:
    raise AssertionError("no answer is read")


@table
def icat(rng: Rng, repeats: int) -> Table:
    """ICAT of StereoSet: terms of four contexts each, whose shares differ."""
    sizes = (20, 80, 300)
    found = Table("ICAT of StereoSet", [f"{n} terms" for n in sizes])
    for stereotype in (0.5, 0.55, 0.7):

        def draw(n: int, mean_share: float = stereotype) -> Estimate:
            share = rng.beta(6 * mean_share, 6 * (1 - mean_share), n)
            value = (rng.random((n, 4)) < share[:, None]).ravel() + 0.0
            parts = {
                "meaningful": rng.binomial(2, 0.9, 4 * n) / 2,
                "decided": np.ones(4 * n),
                "term": np.repeat(np.arange(n), 4).astype(np.float64),
            }
            status = np.zeros(4 * n, np.int8)
            columns = ScoreColumns(value, parts, status, _no_texts)
            scorer = registry.load("scorer", "stereoset")
            infos = scorer(scorer.Options()).metrics_by_name()
            corpus = figures.stereoset_corpus("stereoset", columns, infos)
            rows = np.arange(4 * n)
            terms = np.repeat(np.arange(n), 4)
            return corpus_estimates(corpus, Units(value, rows, rows, terms, False), int(rng.integers(2**31)))[
                2
            ]

        truth = 90 * min(stereotype, 1 - stereotype) * 2
        found.rows.append((f"ss = {100 * stereotype:g}, lms = 90", cells(sizes, repeats // 4, truth, draw)))
    return found


@table
def false_alarms(rng: Rng, repeats: int) -> Table:
    """Gaps and contrasts between groups that have the same mean."""
    found = Table(
        "Groups that do not differ: false alarms at 5 %, of 100",
        ["gap", "any contrast"],
        told="A cell says how often p was at most 0.05.",
    )
    for (name, draw), own in zip(_ALIKE.items(), rng.spawn(len(_ALIKE)), strict=True):
        found.rows.append((name, _alarms(own, min(repeats, ALARMS), draw)))
    return found


def _alarms(rng: Rng, repeats: int, draw: Callable[[Rng], tuple[Any, Any, Any]]) -> list[str]:
    gaps = contrasts = 0
    for _ in range(repeats):
        values, groups, clusters = draw(rng)
        chance = by_chance([Part(values, groups, clusters)], int(rng.integers(2**31)))
        k = int(groups.max()) + 1
        gaps += (chance.result.p or 1.0) <= 0.05
        family = chance.of_contrasts(range(k))
        contrasts += min(family.adjusted([0] if k == 2 else range(k))) <= 0.05
    return [f"{100 * each / repeats:.0f}" for each in (gaps, contrasts)]


ALARMS = 1_000
"""So many repeats of a table of false alarms at most; chance moves a 5 by 0.7 either way."""


def _sized(sizes: Sequence[int]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(sizes)), sizes)


def _spread(rng: Rng, sizes: Sequence[int], spreads: Sequence[float]) -> tuple[Any, Any, Any]:
    groups = _sized(sizes)
    return rng.normal(size=len(groups)) * np.array(spreads)[groups], groups, None


def _lognormal(rng: Rng, sizes: Sequence[int]) -> tuple[Any, Any, Any]:
    groups = _sized(sizes)
    return rng.lognormal(size=len(groups)), groups, None


def _shares(rng: Rng, sizes: Sequence[int], share: float) -> tuple[Any, Any, Any]:
    groups = _sized(sizes)
    return (rng.random(len(groups)) < share) + 0.0, groups, None


def _nested(rng: Rng, sizes: Sequence[int]) -> tuple[Any, Any, Any]:
    clusters = np.repeat(np.arange(sum(sizes)), 8)
    rates = rng.beta(1, 1, sum(sizes))
    return (rng.random(len(clusters)) < rates[clusters]) + 0.0, _sized(sizes)[clusters], clusters


def _crossed(rng: Rng, count: int, k: int) -> tuple[Any, Any, Any]:
    clusters = np.repeat(np.arange(count), 5 * k)
    groups = np.tile(np.repeat(np.arange(k), 5), count)
    effects = rng.normal(size=(count, 1)) + rng.normal(size=(count, k))
    return effects[clusters, groups] + rng.normal(size=len(clusters)), groups, clusters


_ALIKE: Mapping[str, Callable[[Rng], tuple[Any, Any, Any]]] = {
    "normal, groups of 30 and 300, the small one with three times the spread": partial(
        _spread, sizes=(30, 300), spreads=(3, 1)
    ),
    "normal, groups of 12 and 200, the small one with four times the spread": partial(
        _spread, sizes=(12, 200), spreads=(4, 1)
    ),
    "normal, groups of 20, 60 and 400, the small one with three times the spread": partial(
        _spread, sizes=(20, 60, 400), spreads=(3, 1, 1)
    ),
    "normal, groups of 30 and 300, the large one with three times the spread": partial(
        _spread, sizes=(30, 300), spreads=(1, 3)
    ),
    "log-normal, groups of 30, 30, 30 and 1,000": partial(_lognormal, sizes=(30, 30, 30, 1000)),
    "0/1 at 95 %, groups of 30, 30, 30 and 1,000": partial(_shares, sizes=(30, 30, 30, 1000), share=0.95),
    "0/1, four groups of 10, 20, 40 and 100 clusters of 8": partial(_nested, sizes=(10, 20, 40, 100)),
    "20 templates with five rows for each of 2 groups": partial(_crossed, count=20, k=2),
    "12 templates with five rows for each of 3 groups": partial(_crossed, count=12, k=3),
}


def main() -> None:
    """Print the tables, or write them into the page that quotes them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} repeats: a look, no table to quote")
    parser.add_argument("--repeats", type=int, help=f"draws for a cell (default {REPEATS})")
    parser.add_argument("--only", nargs="+", choices=sorted(TABLES), help="tables to make")
    parser.add_argument("--docs", type=Path, help="write the tables into this page")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    repeats = options.repeats or (QUICK if options.quick else REPEATS)
    for name in options.only or TABLES:
        begun = time.monotonic()
        made = TABLES[name](np.random.default_rng([options.seed, *name.encode()]), repeats).markdown()
        print(made, flush=True)
        print(f"({name}: {time.monotonic() - begun:.0f} s)\n", file=sys.stderr, flush=True)
        if options.docs is not None:
            page = options.docs.read_text(encoding="utf-8")
            options.docs.write_text(with_table(page, name, made), encoding="utf-8")


def with_table(page: str, name: str, made: str) -> str:
    """The page with this table between its marks."""
    mark = MARK.format(name=name)
    block = f"{mark}\n\n{made}\n{mark}"
    parts = page.split(mark)
    if len(parts) == 3:
        return f"{parts[0]}{block}{parts[2]}"
    if len(parts) != 1 or page.count(MORE) != 1:
        sys.exit(f"the page has no place for the table {name}: it needs two marks {mark}, or one {MORE}")
    return page.replace(MORE, f"{block}\n\n{MORE}")


if __name__ == "__main__":
    main()
