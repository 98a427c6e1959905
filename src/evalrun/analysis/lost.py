"""Rows that were lost, and what figures may be without them.

A row is lost where a score should be and is none: the request failed, the scorer broke, a judge gave no
grade. Leaving lost rows out would make a figure better the more of the hard rows are lost, so a figure that
lost more of its rows than the suite tolerates is called incomplete, and stands beside the least and the
greatest value that it could have with all of them. These are the worst-case bounds of Manski 1989 (Journal
of Human Resources 24, 343): for a mean of a score between lo and hi with a share q of its rows lost,
(1 - q) mean + q lo to (1 - q) mean + q hi.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from evalrun.analysis.catalogue import RATES
from evalrun.analysis.quality import Floats, Mask, counted, score_column, score_infos, units
from evalrun.analysis.samples import SampleTable
from evalrun.analysis.worst_case import tight_bounds
from evalrun.results import Lost
from evalrun.scoring.base import MetricInfo, Scorer, is_lost
from evalrun.scoring.derived import Derived
from evalrun.tracking.parquet import reading
from evalrun.types import MetricValue, Status

if TYPE_CHECKING:
    from evalrun.analysis.fairness_groups import FairnessPlan, GroupColumn
    from evalrun.analysis.measures import RunSamples

Bounds = tuple[float | None, float | None]

_CAUSE = 300
"""Characters of a cause that are kept."""
_CAUSES = 8
"""Causes that are counted one by one."""
_LATENCY = re.compile(r"performance\.(ttft_s|e2e_s|tpot_s)\.(mean|max|p\d+)")
_OF_WORK = ("performance.requests_per_s", "performance.output_tokens_per_s", "performance.icl_s.", "cost.usd")
"""Figures of what was done, of which a lost row might have had any amount."""
_OF_SCORES = ("repeats", "robustness", "counterfactual", "fairness")
"""First words of figures that are made of other scores."""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A column of scores or of 0 and 1: its values, the rows that have one, and those that lost theirs."""

    info: MetricInfo
    values: Floats
    known: Mask
    lost: Mask

    def only(self, rows: Mask) -> Column:
        """The column over some of the rows."""
        return replace(self, known=self.known & rows, lost=self.lost & rows)

    @property
    def share(self) -> float:
        """The share of its rows that were lost."""
        lost = int(self.lost.sum())
        return lost / (lost + int(self.known.sum())) if lost else 0.0

    def filled(self, value: float) -> Floats:
        """The values with another in the place of the lost ones."""
        return np.where(self.lost, value, self.values)

    def bounds(self, table: SampleTable) -> Bounds:
        """The least and the greatest mean there could be; None where the score has no such bound."""
        found: list[float | None] = []
        for end in self.info.bounds:
            if end is None and self.lost.any():
                found.append(None)
                continue
            own = units(table, self.filled(0.0 if end is None else end), self.known | self.lost).values
            found.append(float(own.mean()) if len(own) else None)
        return found[0], found[1]


class Losses:
    """Which rows every score of a run lost."""

    def __init__(self, table: SampleTable, scorers: Sequence[Scorer], *, exclude_unparsed: bool) -> None:
        self._table, self.scorers = table, scorers
        self.failed: Mask = table.is_status(Status.FAILED)
        self._within = counted(table, exclude_unparsed)
        self._missing = {
            scorer.name: missing
            for scorer in scorers
            if (missing := self._within & np.isnan(score_column(table, scorer.name))).any()
        }

    @property
    def any(self) -> bool:
        """Whether anything may be lost; looked up without reading a file."""
        return bool(self._missing) or bool(self.failed.any()) or bool(self.unpriced.any())

    @cached_property
    def unpriced(self) -> Mask:
        """The rows that cost something that is not known; nothing where no price is known at all."""
        unknown = np.isnan(self._table.number("cost_usd"))
        return unknown & self._table.answered & ~self._table.cached & ~unknown.all()

    @cached_property
    def _said(self) -> Mapping[str, Any]:
        """The columns of errors and of the reasons of scores that are missing, as they lie in the file."""
        wanted = ["error", *(f"reason.{name}" for name in self._missing)]
        with reading(self._table.source) as file:
            wanted = [name for name in wanted if name in file.schema_arrow.names]
            read = file.read(columns=wanted, use_threads=False)
        return {name: read.column(name).combine_chunks() for name in wanted}

    def _text(self, column: str, row: int) -> str:
        """What a column says of a row of the table."""
        said = self._said.get(column)
        return "" if said is None else str(said[int(self._table.order[row])].as_py() or "")

    @cached_property
    def unscored(self) -> Mapping[str, Mask]:
        """The answered rows that each scorer lost its score of, by the scorer's name."""
        found: dict[str, Mask] = {}
        for scorer in self.scorers:
            missing = self._missing.get(scorer.name)
            if missing is None:
                continue
            lost = missing.copy()
            if isinstance(scorer, Derived):
                # Where it wants a score that the row need not have, it need not have this one.
                for wanted in scorer.columns:
                    if wanted in self._missing:
                        lost &= ~(self._missing[wanted] & ~found[wanted])
            else:
                for row in np.flatnonzero(missing).tolist():
                    lost[row] = is_lost(self._text(f"reason.{scorer.name}", row))
            found[scorer.name] = lost
        return found

    def columns(self) -> dict[str, Column]:
        """Every score, and every rate of answers, by the name of the metric that is its mean."""
        nothing = np.zeros(len(self._table), np.bool_)
        found: dict[str, Column] = {}
        for scorer in self.scorers:
            unscored = self.unscored.get(scorer.name, nothing)
            for name, info in score_infos(scorer, self._table.scores):
                values = score_column(self._table, name)
                missing = np.isnan(values)  # a part may be known where the score is not
                lost = self.failed | (unscored & missing)
                found[info.name] = Column(info, values, self._within & ~missing, lost)
        for rate in RATES:
            lost = self.failed if rate.of_answered else nothing
            hits = rate.hits(self._table).astype(np.float64)
            found[rate.info.name] = Column(rate.info, hits, rate.within(self._table), lost)
        return found

    def lost(self, tolerate: float) -> list[Lost]:
        """What each scorer lost, and why; nothing of those that lost nothing."""
        found = []
        for scorer in self.scorers:
            values = score_column(self._table, scorer.name)
            unscored = self.unscored.get(scorer.name, np.zeros(len(self._table), np.bool_))
            rows = np.flatnonzero(self.failed | unscored)
            if not len(rows):
                continue
            of = len(rows) + int((self._within & ~np.isnan(values)).sum())
            # In the order in which they were asked.
            rows = rows[np.argsort(self._table.order[rows], kind="stable")]
            causes = [self._cause(scorer.name, row) for row in rows.tolist()]
            found.append(
                Lost(
                    scorer=scorer.name,
                    lost=len(rows),
                    of=of,
                    failed=int(self.failed.sum()),
                    incomplete=len(rows) > tolerate * of,
                    cause=causes[0],
                    causes=dict(Counter(causes).most_common(_CAUSES)),
                )
            )
        return found

    def _cause(self, scorer: str, row: int) -> str:
        column = "error" if self.failed[row] else f"reason.{scorer}"
        return " ".join((self._text(column, row) or "no score").split())[:_CAUSE]


def mark_incomplete(
    metrics: Iterable[MetricValue],
    table: SampleTable,
    losses: Losses,
    *,
    tolerate: float,
    bounds_of: Callable[[str], Bounds],
    plan: FairnessPlan | None,
) -> list[MetricValue]:
    """The metrics; those that lost more than the share `tolerate` of their rows with bounds and a note.

    `bounds_of` a metric's name gives its least and greatest possible value, `plan` the groups.
    """
    return [*map(_Marking(table, losses, tolerate, bounds_of, plan).marked, metrics)]


class _Marking:
    def __init__(
        self,
        table: SampleTable,
        losses: Losses,
        tolerate: float,
        bounds_of: Callable[[str], Bounds],
        plan: FairnessPlan | None,
    ) -> None:
        self._table, self._tolerate, self._bounds_of, self._plan = table, tolerate, bounds_of, plan
        self._columns = losses.columns()
        self._unpriced, self._scorers = losses.unpriced, losses.scorers
        answered = np.zeros(len(table))
        self._answers = Column(
            MetricInfo("", "", "none", "", (0.0, 1.0)), answered, ~losses.failed, losses.failed
        )
        self._slices: dict[tuple[tuple[str, str], ...], Mask] = {}
        # The longest name first: `judge.human` before `judge`.
        self._names = sorted(self._columns, key=len, reverse=True)
        self._of_scorer: dict[str, Column] = {}
        for scorer in losses.scorers:
            self._of_scorer[scorer.name] = self._columns[score_infos(scorer)[0][1].name]

    def marked(self, metric: MetricValue) -> MetricValue:
        """The metric, and whether it is complete."""
        head = metric.name.partition(".")[0]
        if head == "fairness":
            return self._between_groups(metric)
        own = self._columns.get(metric.name)
        within = self._rows(metric.slice)
        if found := _LATENCY.fullmatch(metric.name):
            return self._latency(metric, found[1], found[2], within)
        if metric.name.startswith(_OF_WORK):
            return self._work(metric, within)
        if own is not None:
            column = own.only(within)
            if column.share <= self._tolerate:
                return metric
            return _incomplete(metric, column, column.bounds(self._table))
        made_of = self._made_of(metric, head)
        if made_of is None or (column := made_of.only(within)).share <= self._tolerate:
            return metric
        scorer = next((each for each in self._scorers if each.name == metric.scorer), None)
        tight = tight_bounds(metric.name, column, self._table, scorer)
        return _incomplete(metric, column, tight or self._bounds_of(metric.name))

    def _latency(self, metric: MetricValue, name: str, statistic: str, within: Mask) -> MetricValue:
        """A latency, of which a failed request may have any: none at all, or an endless one."""
        table = self._table
        timed = self._answers.known & ~table.cached & ~table.warmup & ~np.isnan(table.number(name))
        column = replace(self._answers, known=timed, lost=self._answers.lost & ~table.warmup).only(within)
        if not column.known.any() or column.share <= self._tolerate:
            return metric
        values = table.number(name)[column.known]
        lost = int(column.lost.sum())
        ends = []
        for end in (0.0, math.inf):
            everything = np.concatenate([values, np.full(lost, end)])
            if statistic == "mean":
                ends.append(float(everything.mean()))
            elif statistic == "max":
                ends.append(float(everything.max()))
            else:
                ends.append(_quantile(everything, int(statistic[1:]) / 100))
        high = ends[1] if math.isfinite(ends[1]) else None
        return _incomplete(metric, column, (ends[0], high))

    def _work(self, metric: MetricValue, within: Mask) -> MetricValue:
        """A rate, a time between chunks, or what the answers cost, which only grows with those that are
        missing: requests that failed and, for the cost, answers at a price that is not known."""
        table, lost, known = self._table, self._answers.lost, self._answers.known & ~self._table.cached
        cost = metric.name.startswith("cost.")
        if cost:
            lost, known = lost | self._unpriced, known & ~self._unpriced
        else:
            lost, known = lost & ~table.warmup, known & ~table.warmup
        column = replace(self._answers, known=known, lost=lost).only(within)
        if not column.known.any() or column.share <= self._tolerate:
            return metric
        return _incomplete(metric, column, (metric.value if cost else 0.0, None))

    def _made_of(self, metric: MetricValue, head: str) -> Column | None:
        """The scores that a figure of all samples is made of; None for one that is of no score."""
        if metric.scorer in self._of_scorer:
            return self._of_scorer[metric.scorer]
        if head not in _OF_SCORES:
            return None
        return next(
            (self._columns[name] for name in self._names if f".{name}." in metric.name), self._answers
        )

    def _rows(self, slice_: Mapping[str, str]) -> Mask:
        """The rows of a slice."""
        key = tuple(sorted(slice_.items()))
        if key not in self._slices:
            self._slices[key] = self._inside(slice_)
        return self._slices[key]

    def _inside(self, slice_: Mapping[str, str]) -> Mask:
        inside = np.ones(len(self._table), np.bool_)
        for name, label in slice_.items():
            groups = self._table.sensitive.get(name)
            if groups is None:
                continue
            code = groups.labels.index(label) if label in groups.labels else -1
            inside &= groups.codes == code
        return inside

    @cached_property
    def _groups(self) -> Mapping[str, GroupColumn]:
        from evalrun.analysis.fairness_groups import group_columns

        if self._plan is None:
            return {}
        return {column.name: column for column in group_columns(self._table, self._plan)[0]}

    def _between_groups(self, metric: MetricValue) -> MetricValue:
        """A figure between groups: `fairness.<column>.<metric>.gap`, `.contrast`, or a criterion."""
        rest = metric.name.removeprefix("fairness.")
        name = max((each for each in self._groups if rest.startswith(f"{each}.")), key=len, default=None)
        if name is None or self._plan is None:
            return metric
        groups, figure = self._groups[name], rest[len(name) + 1 :]
        inner, _, kind = figure.rpartition(".")
        column = self._columns.get(inner)
        if kind == "contrast" and column is not None:
            return self._contrast(metric, groups, column)
        exact = kind == "gap" and column is not None
        column = column if column is not None else self._answers
        column = column.only(self._rows(metric.slice))
        parts = [
            part
            for code in range(len(groups.labels))
            if int((part := column.only(groups.codes == code)).known.sum() + part.lost.sum())
            >= max(1, self._plan.min_group)
        ]
        worst = max(parts, key=lambda part: part.share, default=None)
        if worst is None or worst.share <= self._tolerate:
            return metric
        bounds = self._bounds_of(metric.name)
        if exact:
            bounds = _gap_bounds([part.bounds(self._table) for part in parts])
        return _incomplete(metric, worst, bounds, "of one group ")

    def _contrast(self, metric: MetricValue, groups: GroupColumn, column: Column) -> MetricValue:
        """One group's mean minus that of the reference, or of all others."""
        codes = [at for at in range(len(groups.labels)) if metric.slice.items() >= groups.slices[at].items()]
        if not codes:
            return metric
        further = {key: label for key, label in metric.slice.items() if key not in groups.columns}
        column = column.only(self._rows(further))
        mine = column.only(groups.codes == codes[0])
        others = groups.codes != codes[0] if groups.reference is None else groups.codes == groups.reference
        against = column.only(others & (groups.codes >= 0))
        worst = max((mine, against), key=lambda part: part.share)
        if worst.share <= self._tolerate:
            return metric
        (low, high), (least, most) = mine.bounds(self._table), against.bounds(self._table)
        bounds = (
            None if low is None or most is None else low - most,
            None if high is None or least is None else high - least,
        )
        return _incomplete(metric, worst, bounds, "of one side ")


def _quantile(values: Floats, q: float) -> float:
    """The quantile, linear between neighbours; infinite where either of them is."""
    values = np.sort(values)
    place = q * (len(values) - 1)
    low, high = math.floor(place), math.ceil(place)
    if not math.isfinite(values[high]):
        return math.inf
    return float(values[low] + (place - low) * (values[high] - values[low]))


def _gap_bounds(groups: Sequence[Bounds]) -> Bounds:
    """The least and the greatest gap between groups whose values lie between bounds."""
    lows = [-math.inf if low is None else low for low, _ in groups]
    highs = [math.inf if high is None else high for _, high in groups]
    least = max(0.0, max(lows) - min(highs))
    pairs = [highs[i] - lows[j] for i in range(len(groups)) for j in range(len(groups)) if i != j]
    most = max(0.0, *pairs) if pairs else 0.0
    return least, most if math.isfinite(most) else None


def _incomplete(metric: MetricValue, column: Column, bounds: Bounds, where: str = "") -> MetricValue:
    low, high = bounds
    lost = int(column.lost.sum())
    of = lost + int(column.known.sum())
    said = f"incomplete: {lost:,} of {of:,} rows {where}lost, {_between(low, high)}"
    note = "; ".join(part for part in (said, metric.note) if part)
    return replace(metric, incomplete=True, bound_low=low, bound_high=high, note=note)


def _between(low: float | None, high: float | None) -> str:
    """What the value may be, in words."""
    if low is None and high is None:
        return "and the figure has no bounds, so it may be anything"
    if low is None:
        return f"with them at most {high:.4g}, and there is no lower bound"
    if high is None:
        return f"with them at least {low:.4g}, and there is no upper bound"
    return f"with them between {low:.4g} and {high:.4g}"


def filled_ends(run: RunSamples, metric: str) -> tuple[Floats | None, Floats | None]:
    """One value a sample id of a run (as `RunSamples.by_id`), every lost score taken for its least, and for
    its greatest value; None where there is no such bound, or the metric is no mean of scores."""
    from evalrun.analysis.measures import score_column_of

    table, definition = run.table, run.run.details.definitions.get(metric)
    failed = table.is_status(Status.FAILED)
    name = score_column_of(metric, run)
    if name is not None:
        values = score_column(table, name)
        within = counted(table, run.exclude_unparsed)
        known = within & ~np.isnan(values)
        lost = failed | (_unscored(table, name, within) & np.isnan(values))
    else:
        rate = next((rate for rate in RATES if rate.info.name == metric and rate.of_answered), None)
        if rate is None:
            return None, None
        values, known, lost = rate.hits(table).astype(np.float64), rate.within(table), failed
    bounds: Bounds = (0.0, 1.0) if name is None else (None, None) if definition is None else definition.bounds
    ends = [None if end is None else run.by_id(np.where(lost, end, values), known | lost) for end in bounds]
    return ends[0], ends[1]


def _unscored(table: SampleTable, column: str, within: Mask) -> Mask:
    """The answered rows of which the scorer of a column lost its score."""
    parts = column.split(".")
    owners = [".".join(parts[:at]) for at in range(len(parts), 0, -1)]
    with reading(table.source) as file:
        reasons = [f"reason.{owner}" for owner in owners if f"reason.{owner}" in file.schema_arrow.names]
        if not reasons:
            return within & np.isnan(score_column(table, column))
        said = file.read(columns=reasons[:1], use_threads=False).column(0).to_pylist()
    lost = within & np.isnan(score_column(table, reasons[0].removeprefix("reason.")))
    for row in np.flatnonzero(lost).tolist():
        lost[row] = is_lost(said[int(table.order[row])])
    return lost
