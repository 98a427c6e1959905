"""Percentiles of the times between chunks (inter-token latency), pooled over the answers of a run.

Answers are read in batches, twice, and of all gaps only a histogram is held, in bins of 0.8 % of their time
(7 bits, as in an HDR histogram): memory does not grow with the tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

from evalrun.analysis.catalogue import CHUNK_GAPS, CLOSED_LOOP, PERCENTILES, performance_info
from evalrun.analysis.distributions import t_quantile
from evalrun.analysis.intervals import FEW, FEW_FREEDOM, LEVEL
from evalrun.analysis.quality import metric
from evalrun.analysis.samples import SampleTable
from evalrun.frozen import frozen
from evalrun.results import Estimate
from evalrun.tracking.parquet import reading
from evalrun.types import JSON, MetricValue

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

AT_ONCE = 0.05
"""From this share of gaps of 0 on it is said that chunks came together."""
_BITS = 7
_BATCH = 1024
_HISTOGRAM_BINS = 40
_CDF_POINTS = 200


@frozen
class Answers:
    """Some answers: their gaps in microseconds, one answer after the other, and how many each has."""

    gaps_us: Ints
    sizes: Ints

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Answers:
        """From lists as samples have them, one an answer."""
        sizes = np.array([len(one) for one in lists], np.int64)
        return cls(np.array([gap for one in lists for gap in one], np.int64), sizes)


Read = Callable[[], Iterable[Answers]]
"""Gives the answers, batch by batch, as often as it is called."""


@frozen
class Gaps:
    """All gaps: `gap_s` are the middles of the bins that have any, `count` how many each has."""

    gap_s: Floats
    count: Ints
    bins: Ints
    answers: int
    greatest_s: float
    read: Read

    @classmethod
    def of(cls, read: Read) -> Gaps | None:
        """None where there are no gaps."""
        totals, answers, greatest = np.zeros(1, np.int64), 0, 0
        for batch in read():
            seen = np.bincount(_bins(batch.gaps_us), minlength=len(totals))
            seen[: len(totals)] += totals
            totals, answers = seen, answers + len(batch.sizes)
            greatest = max(greatest, int(batch.gaps_us.max()))
        bins = np.flatnonzero(totals)
        if not len(bins):
            return None
        return cls(_middles(bins) / 1e6, totals[bins], bins, answers, greatest / 1e6, read)

    @property
    def n(self) -> int:
        """Number of gaps."""
        return int(self.count.sum())


def _bins(gaps_us: Ints) -> Ints:
    """The bin of each gap: below 2^7 µs each value is one, above the leading 7 bits count."""
    shift = np.maximum(np.frexp(gaps_us.astype(np.float64))[1].astype(np.int64) - _BITS, 0)
    return np.asarray((shift << (_BITS - 1)) + (gaps_us >> shift))


def _middles(bins: Ints) -> Floats:
    """The middle of each bin, in microseconds."""
    shift = np.maximum((bins >> (_BITS - 1)) - 1, 0)
    low = (bins - (shift << (_BITS - 1))) << shift
    return np.asarray(low + ((1 << shift) - 1) / 2)


def read_gaps(table: SampleTable, rows: NDArray[np.int64]) -> Gaps | None:
    """The gaps of some entries of a table; None where none of them has any."""
    with reading(table.source) as file:
        if "chunk_gaps" not in file.schema_arrow.names:
            return None
    wanted = np.zeros(len(table), np.bool_)
    wanted[table.order[rows]] = True

    def read() -> Iterator[Answers]:
        start = 0
        with reading(table.source) as file:
            for batch in file.iter_batches(batch_size=_BATCH, columns=["chunk_gaps"], use_threads=False):
                here = wanted[start : start + batch.num_rows].tolist()
                start += batch.num_rows
                texts = batch.column(0).to_pylist()
                texts = [text for text, keep in zip(texts, here, strict=True) if keep and text]
                if texts:
                    yield Answers.of(orjson.loads(f"[{','.join(texts)}]"))

    return Gaps.of(read)


def gap_metrics(gaps: Gaps, note: str = "", loop: str = CLOSED_LOOP) -> list[MetricValue]:
    """Percentiles and the greatest of the gaps; n is the number of gaps. `loop` is said of percentiles."""
    n = gaps.n
    zeros = float(gaps.count[gaps.gap_s == 0].sum()) / n
    together = f"{zeros:.0%} of the gaps are 0: chunks that came together" if zeros >= AT_ONCE else ""
    common = "; ".join(part for part in (f"gaps of {gaps.answers} answers", together, note) if part)
    shown = {label: q for label, (q, needed) in PERCENTILES.items() if n >= needed}
    known = dict(zip(shown, gap_percentiles(gaps, list(shown.values())), strict=True))
    metrics = []
    for label, (_, needed) in PERCENTILES.items():
        info = performance_info(f"performance.{CHUNK_GAPS}.{label}")
        few = Estimate(None, n, note=f"{label} needs {needed} gaps, there are {n}")
        said = f"{common}; {loop}" if loop and label in known else common
        metrics.append(metric(info, known.get(label, few), said))
    greatest = metric(performance_info(f"performance.{CHUNK_GAPS}.max"), Estimate(gaps.greatest_s, n), common)
    return [*metrics, greatest]


def gap_percentiles(gaps: Gaps, quantiles: Sequence[float], level: float = LEVEL) -> list[Estimate]:
    """Quantiles of all gaps, with Woodruff's intervals for answers as clusters.

    Woodruff 1952 (Journal of the American Statistical Association 47, 635): the share of gaps at or below the
    quantile is a ratio of sums over answers, with residuals e = gaps up to it - gaps · share and SE that of a
    ratio; the quantiles at both ends of the share's interval are those of the interval. That is a t interval
    on the logit of the share (Korn and Graubard 1998, Survey Methodology 24, 193), with (sum e²)² / sum e⁴
    degrees of freedom: few answers may hold most of the slow gaps. SE is at least that of as many independent
    gaps: answers that are alike to the last gap say nothing of how others vary.
    """
    n, below = gaps.n, np.cumsum(gaps.count)
    at = np.searchsorted(below, np.array(quantiles) * n * (1 - 1e-12))
    if gaps.answers < 2:
        alone = "gaps of one answer have no interval"
        return [Estimate(float(gaps.gap_s[place]), n, note=alone) for place in at]
    return [
        _interval(gaps, below, q, place, powers, level)
        for q, place, powers in zip(quantiles, at.tolist(), _residuals(gaps, below, at), strict=True)
    ]


def _residuals(gaps: Gaps, below: Ints, at: Ints) -> list[list[float]]:
    """For each quantile the sums over answers of e² and e⁴."""
    sums = np.zeros((len(at), 2))
    limits = list(zip(sums, gaps.bins[at].tolist(), (below[at] / below[-1]).tolist(), strict=True))
    for batch in gaps.read():
        bins, begins = _bins(batch.gaps_us), np.cumsum(batch.sizes) - batch.sizes
        for row, limit, share in limits:
            squares = np.square(np.add.reduceat(bins <= limit, begins, dtype=np.int64) - batch.sizes * share)
            row += float(squares.sum()), float(squares @ squares)
    return sums.tolist()


def _interval(gaps: Gaps, below: Ints, q: float, at: int, powers: Sequence[float], level: float) -> Estimate:
    n, answers, (squares, fourths) = gaps.n, gaps.answers, powers
    value = float(gaps.gap_s[at])
    df = max(1.0, squares * squares / fourths) if fourths > 0 else answers - 1.0
    se = max(math.sqrt(answers / (answers - 1) * squares) / n, math.sqrt(q * (1 - q) / n))
    half = min(500.0, t_quantile(0.5 + level / 2, df) * se / (q * (1 - q)))
    ends = [1 / (1 + (1 - q) / q * math.exp(side)) for side in (half, -half)]
    if ends[0] * n < 1 or (1 - ends[1]) * n < 1:
        return Estimate(value, n, note="so few gaps, or answers, do not support an interval")
    low, high = np.searchsorted(below, np.array(ends) * n)
    note = f"worth {df:.2g} answers, {FEW}" if df < FEW_FREEDOM else ""
    return Estimate(value, n, None, float(gaps.gap_s[low]), float(gaps.gap_s[high]), "woodruff", note)


def gap_distribution(gaps: Gaps) -> dict[str, JSON]:
    """Points of the distribution function and a histogram, as of the other latencies."""
    n = gaps.n
    share = np.cumsum(gaps.count) / n
    points = np.unique(np.searchsorted(share, np.linspace(0, 1, _CDF_POINTS) * (1 - 1e-12)))
    bins = int(min(_HISTOGRAM_BINS, max(5, round(n**0.5))))
    counts, edges = np.histogram(gaps.gap_s, bins, weights=gaps.count)
    return {
        "n": n,
        "cdf": {"x": gaps.gap_s[points].tolist(), "p": share[points].tolist()},
        "histogram": {"edges": edges.tolist(), "counts": counts.round().astype(int).tolist()},
    }
