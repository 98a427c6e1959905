"""Scores, endings, speed and decisions by group, and what lies between the groups.

Grouping is fairlearn's: one MetricFrame gives every value by group, and the greatest difference and the least
ratio between the groups that are compared. What it would get wrong is kept from it: a group without data has
no row in it and so no value (never 0 or 1), a missing group and one that is too small are shown and not
compared, a single group has no gap, 0/0 is no ratio, and labels reach it as codes, whatever they are. Its
bootstrap is not used, as one of a maximum never covers zero. Intervals, permutations and Holm's correction
are ours (`fairness_inference`), and count on arrays: a MetricFrame takes milliseconds for each group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.catalogue import gap_info
from evalrun.analysis.correction import ALPHA
from evalrun.analysis.fairness_definitions import contrast_info, criterion_info
from evalrun.analysis.fairness_groups import (
    MISSING,
    Decision,
    FairnessPlan,
    GroupColumn,
    Level,
    Measure,
    control_levels,
    decisions,
    group_columns,
    plain_measures,
)
from evalrun.analysis.fairness_inference import contrast, jointly_tested
from evalrun.analysis.intervals import mean
from evalrun.analysis.permutation import Chance, Part, by_chance, corrected_together
from evalrun.analysis.quality import metric
from evalrun.analysis.samples import SampleTable
from evalrun.canonical import figure_seed
from evalrun.frozen import frozen
from evalrun.results import (
    ByChance,
    ColumnGroups,
    Criterion,
    Estimate,
    Gap,
    GroupContrast,
    GroupLevel,
    GroupMeasure,
    GroupValue,
)
from evalrun.scoring.base import Scorer
from evalrun.types import MetricValue

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FEW_VALUES = 50
"""A group's values reach fairlearn one row a distinct value up to so many, else as one row with their mean:
a MetricFrame takes some 10 us a row."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """A measure and the groups of a column; `codes` has one a unit, -1 where the group is missing.

    `compared` are the groups that are large enough. `within` is the level of a control column that the units
    are restricted to.
    """

    groups: GroupColumn
    measure: Measure
    codes: Ints
    compared: frozenset[int]
    min_group: int
    within: Mapping[str, str] = field(default_factory=dict)

    @property
    def reference(self) -> int | None:
        """The reference group as its place among the compared ones."""
        compared = sorted(self.compared)
        return compared.index(self.groups.reference) if self.groups.reference in compared else None

    def part(self) -> Part:
        """The units of the compared groups, for a permutation."""
        keep = np.isin(self.codes, list(self.compared))
        own = self.measure.only(keep)
        labels = np.unique(self.codes[keep], return_inverse=True)[1].astype(np.int64)
        return Part(own.values, labels, own.clusters)


@frozen
class Framed:
    """What a MetricFrame says of a split: values by group code, and greatest difference and least ratio
    between its compared groups; None for fewer than two groups, and for a ratio of zeros."""

    values: Mapping[int, float]
    difference: float | None
    ratio: float | None


@frozen
class _Place:
    """A column, or a column within one level of a control column: its splits, and those of each criterion."""

    column: GroupColumn
    level: Level | None
    splits: Sequence[Split]
    criteria: Sequence[tuple[str, Decision, Sequence[Split]]]

    def all_splits(self) -> list[Split]:
        return [*self.splits, *(part for _, _, parts in self.criteria for part in parts)]


def fairness_metrics(
    table: SampleTable, scorers: Sequence[Scorer], plan: FairnessPlan
) -> tuple[list[MetricValue], dict[str, ColumnGroups]]:
    """Everything by group, with gaps, contrasts and criteria, for every column; and the same typed."""
    columns, refused = group_columns(table, plan)
    decided, why_not = decisions(table, scorers, plan)
    measures = plain_measures(table, scorers, plan)
    levels = control_levels(table, plan)
    places = [
        _place(column, level, measures, decided, plan.min_group)
        for column in columns
        for level in (None, *(one for one in levels if one.column not in column.columns))
    ]
    framed = frame([split for place in places for split in place.all_splits()])
    tested = _tested(places, framed, plan.seed)
    metrics: list[MetricValue] = []
    by_column: dict[str, ColumnGroups] = {}
    control: dict[str, dict[str, dict[str, GroupLevel]]] = {column.name: {} for column in columns}
    for place in places:
        column, level = place.column, place.level
        made, measured, criteria = _compare(place, framed, tested)
        metrics += made
        if level is not None:
            control[column.name].setdefault(level.column, {})[level.label] = GroupLevel(measured, criteria)
            continue
        by_column[column.name] = ColumnGroups(
            note=column.note,
            min_group=plan.min_group,
            reference=None if column.reference is None else column.labels[column.reference],
            decisions=why_not,
            metrics=measured,
            criteria=criteria,
            control=control[column.name],
            correction=tested.sentence,
        )
    return metrics, {
        **by_column,
        **{name: ColumnGroups(why, plan.min_group) for name, why in refused.items()},
    }


def _place(
    column: GroupColumn,
    level: Level | None,
    measures: Sequence[Measure],
    decided: Sequence[Decision],
    min_group: int,
) -> _Place:
    splits = [_split(column, measure, level, min_group) for measure in measures]
    criteria = []
    for decision in decided:
        selection, true_positives, false_positives = (
            _split(column, measure, level, min_group)
            for measure in (decision.selection, decision.true_positives, decision.false_positives)
        )
        splits += [selection, true_positives, false_positives]
        both = true_positives.compared & false_positives.compared
        odds = [
            part if part.compared == both else replace(part, compared=both)
            for part in (true_positives, false_positives)
        ]
        criteria += [
            ("demographic_parity", decision, [selection]),
            ("equal_opportunity", decision, [true_positives]),
            ("equalized_odds", decision, odds),
        ]
    return _Place(column, level, splits, criteria)


def _split(column: GroupColumn, measure: Measure, level: Level | None, min_group: int) -> Split:
    within = {}
    if level is not None:
        measure, within = measure.only(level.codes[measure.rows] == 1), {level.column: level.label}
    codes = column.codes[measure.rows]
    sizes = np.bincount(codes[codes >= 0], minlength=len(column.labels))
    compared = frozenset(np.flatnonzero(sizes >= max(1, min_group)).tolist())
    return Split(column, measure, codes, compared, min_group, within)


def frame(splits: Sequence[Split]) -> dict[Split, Framed]:
    """All splits through one MetricFrame, so that a run costs one frame and not one a measure.

    Its control feature is which split a row is of, and whether the row's group is compared. fairlearn is
    imported here only: that takes seconds.
    """
    splits = list(dict.fromkeys(splits))
    rows = [_rows(split, at) for at, split in enumerate(splits)]
    if not any(len(one[0]) for one in rows):
        return {split: Framed({}, None, None) for split in splits}
    from fairlearn.metrics import MetricFrame

    def average(y_true: Floats, y_pred: Floats, weight: Floats) -> float:
        return float(np.average(y_pred, weights=weight))

    values, codes, control, weights = (np.concatenate(column) for column in zip(*rows, strict=True))
    framed = MetricFrame(
        metrics=average,
        y_true=values,
        y_pred=values,
        sensitive_features=codes,
        control_features=control,
        sample_params={"weight": weights},
    )
    by_group: list[dict[int, float]] = [{} for _ in splits]
    for (level, code), value in framed.by_group.items():
        if not np.isnan(value):
            by_group[level // 2][int(code)] = float(value)
    differences, ratios = framed.difference(), framed.ratio()
    result = {}
    for at, split in enumerate(splits):
        difference = ratio = None
        if len(split.compared) > 1:
            difference, ratio = float(differences[2 * at + 1]), float(ratios[2 * at + 1])
        # fairlearn's 0/0 is NaN: nobody was given the label, so no ratio was measured.
        result[split] = Framed(by_group[at], difference, None if ratio is None or np.isnan(ratio) else ratio)
    return result


def _rows(split: Split, at: int) -> tuple[Floats, Ints, Ints, Ints]:
    """Values, group codes, control feature and weights of the rows that stand for a split."""
    values, codes = split.measure.values, split.codes
    distinct, value = np.unique(values, return_inverse=True)
    if len(distinct) <= _FEW_VALUES:
        counts = np.bincount((codes + 1) * len(distinct) + value)
        cells = np.flatnonzero(counts)
        value_of, group = distinct[cells % max(1, len(distinct))], cells // max(1, len(distinct)) - 1
        weights = counts[cells]
    else:
        group = np.unique(codes)
        value_of = np.array([values[codes == code].mean() for code in group])
        weights = np.ones_like(group)
    return value_of, group, 2 * at + np.isin(group, list(split.compared)), weights


@frozen
class _Tested:
    """What chance alone gives for each gap (by its split) and criterion (by its splits) of a run, and the p
    values corrected over all of them."""

    chances: Mapping[tuple[Split, ...], Chance]
    corrected: Mapping[tuple[Split, ...], float]
    tests: int
    columns: int

    @property
    def sentence(self) -> str:
        """How p values are corrected, for people."""
        if not self.tests:
            return ""
        columns = f"{self.columns} column{'' if self.columns == 1 else 's'}"
        return (
            f"A gap is called wider than chance where p, corrected for all {self.tests} gaps of this run "
            f"({columns}; every metric and control level), is below 0.05: where groups do not differ, at "
            f"most one run in twenty shows any."
        )

    def of(self, parts: Sequence[Split]) -> ByChance:
        """As it is written down."""
        key = tuple(parts)
        return replace(self.chances[key].result, p_corrected=self.corrected[key])


def _tested(places: Sequence[_Place], framed: Mapping[Split, Framed], seed: int) -> _Tested:
    chances: dict[tuple[Split, ...], Chance] = {}
    for place in places:
        level = "" if place.level is None else f"|{place.level.column}={place.level.label}"
        named: list[tuple[str, tuple[Split, ...]]] = [
            (gap_info(place.column.name, split.measure.info).name, (split,)) for split in place.splits
        ]
        named += [
            (criterion_info(place.column.name, f"{kind}.difference", decision.suffix).name, tuple(parts))
            for kind, decision, parts in place.criteria
        ]
        for name, parts in named:
            if parts in chances or any(framed[part].difference is None for part in parts):
                continue
            reference = parts[0].reference if len(parts) == 1 else None
            units = [part.part() for part in parts]
            chances[parts] = by_chance(units, figure_seed(seed, name + level), reference)
    known = {parts: chance for parts, chance in chances.items() if len(chance.drawn)}
    together = dict(zip(chances, corrected_together(list(chances.values())), strict=True))
    return _Tested(chances, together, len(known), len({parts[0].groups.name for parts in known}))


def _compare(
    place: _Place, framed: Mapping[Split, Framed], tested: _Tested
) -> tuple[list[MetricValue], dict[str, GroupMeasure], dict[str, Criterion]]:
    metrics: list[MetricValue] = []
    measures: dict[str, GroupMeasure] = {}
    criteria: dict[str, Criterion] = {}
    for split in place.splits:
        made, measures[split.measure.info.name] = _measure(split, framed[split], tested)
        # Under a control column only what sums a level up is a metric; the rest is in the details.
        metrics += made if place.level is None else [one for one in made if one.name.endswith(".gap")]
    for kind, decision, parts in place.criteria:
        made, criteria[f"{kind}{decision.suffix}"] = _criterion(kind, decision, parts, framed, tested)
        metrics += made
    return metrics, measures, criteria


def _measure(split: Split, framed: Framed, tested: _Tested) -> tuple[list[MetricValue], GroupMeasure]:
    """One measure by the groups of one column: a metric a group, the gap, the contrasts."""
    info, column = split.measure.info, split.groups
    here = split.codes if split.within else column.codes
    present = [*range(len(column.labels)), *([-1] if (here < 0).any() else [])]
    # Groups of columns that are not stored are shown only where they are large enough to be compared.
    few = {code for code in present if column.withheld or np.count_nonzero(here == code) < column.least_shown}
    shown = [code for code in present if code in split.compared or code not in few]
    metrics, groups = [], []
    for code in shown:
        estimate, note = _group_estimate(split, code, framed.values.get(code))
        where = {**column.slice_of(code), **split.within}
        made = metric(info, estimate, _joined(note, split.measure.note), where)
        metrics.append(made)
        label = MISSING if code < 0 else column.labels[code]
        values = asdict(replace(estimate, note=made.note))
        groups.append(GroupValue(**values, group=label, compared=code in split.compared))
    gap, gap_detail = _gap(split, framed, [one for one in groups if one.compared], tested)
    contrasts, contrast_details = _contrasts(split, tested)
    return [*metrics, gap, *contrasts], GroupMeasure(
        unit=info.unit,
        direction=info.direction,
        groups=tuple(groups),
        gap=gap_detail,
        contrasts=tuple(contrast_details),
        withheld=len(present) - len(shown),
        note=split.measure.note,
    )


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _group_estimate(split: Split, code: int, value: float | None) -> tuple[Estimate, str]:
    """A group's value with its interval, and why it is not compared."""
    own = split.measure.only(split.codes == code)
    estimate = mean(own.values, own.clusters, repeated=own.repeated, bounds=own.info.bounds)
    note = ""
    if code < 0:
        note = "samples without a group are not part of the gap"
    elif estimate.n and code not in split.compared:
        note = f"too small: fewer than {split.min_group} samples, not part of the gap"
    return replace(estimate, value=value), note


def _gap(
    split: Split, framed: Framed, compared: Sequence[GroupValue], tested: _Tested
) -> tuple[MetricValue, Gap | None]:
    """The gap between the compared groups, beside what chance alone gives."""
    info, of = gap_info(split.groups.name, split.measure.info), split.measure.info
    n = sum(group.n for group in compared)
    if framed.difference is None:
        why = f"a gap needs two groups that are large enough, and there is {'one' if compared else 'none'}"
        missing = Estimate(None, n, note=_joined(why, split.measure.note))
        return metric(info, missing, slice=split.within), None
    ranked = sorted(compared, key=lambda group: group.value or 0.0, reverse=of.direction != "lower")
    best, worst = ranked[0], ranked[-1]
    chance = tested.of([split])
    first, last = ("highest", "lowest") if of.direction == "none" else ("best", "worst")
    note = "all groups have the same value"
    if chance.permutations:
        note = (
            f"{first} {best.group} {best.value:.3g}, {last} {worst.group} {worst.value:.3g}; "
            f"with shuffled groups 95 % of gaps are at most {_by_chance(chance, tested)}"
        )
    shown = asdict(replace(chance, note=note))
    gap = Gap(**shown, value=framed.difference, best=best.group, worst=worst.group)
    return metric(info, Estimate(framed.difference, n, note=note), slice=split.within), gap


def _by_chance(chance: ByChance, tested: _Tested) -> str:
    p = f"p = {chance.p:.2g}"
    if tested.tests > 1 and chance.p_corrected is not None:
        p += f", {chance.p_corrected:.2g} corrected for {tested.tests} gaps"
    return f"{chance.chance_gap_p95:.3g}, {chance.chance_gap_mean:.3g} on average ({p})"


def _contrasts(split: Split, tested: _Tested) -> tuple[list[MetricValue], list[GroupContrast]]:
    """Each compared group against the reference or against all others together, for all of them at once."""
    column, own, info = split.groups, split.measure, split.measure.info
    reference, compared = column.reference, sorted(split.compared)
    if len(compared) < 2 or (reference is not None and reference not in compared):
        return [], []
    codes = [code for code in compared if code != reference]
    tests = 1 if len(compared) == 2 else len(codes)
    all_compared = np.isin(split.codes, compared)
    results = []
    for code in codes:
        mine = split.codes == code
        against = all_compared & ~mine if reference is None else split.codes == reference
        how: dict[str, Any] = {"independent": not own.repeated, "bounds": info.bounds}
        results.append(contrast(own.values, mine, against, own.clusters, **how, level=1 - ALPHA / tests))
    family = tested.chances[split,].of_contrasts([compared.index(code) for code in codes])
    results, adjusted = jointly_tested(results, family, info.bounds, tests)
    against_label = "the rest" if reference is None else column.labels[reference]
    metrics, details = [], []
    for code, one, p in zip(codes, results, adjusted, strict=True):
        note = f"against {against_label}" + ("" if p is None else f": p = {p:.2g} (for {len(codes)} groups)")
        estimate = Estimate(one.value, one.n, one.se, one.low, one.high, one.method, one.note)
        where = {**column.slice_of(code), **split.within}
        metrics.append(metric(contrast_info(column.name, info), estimate, note, where))
        details.append(GroupContrast(column.labels[code], against_label, **asdict(one), p_holm=p))
    return metrics, details


def _criterion(
    kind: str, decision: Decision, parts: Sequence[Split], framed: Mapping[Split, Framed], tested: _Tested
) -> tuple[list[MetricValue], Criterion]:
    """Difference and ratio over the groups that are compared in every part: demographic parity, equal
    opportunity, equalized odds."""
    column, within = parts[0].groups, parts[0].within
    difference_info = criterion_info(column.name, f"{kind}.difference", decision.suffix)
    ratio_info = criterion_info(column.name, f"{kind}.ratio", decision.suffix)
    codes, units = sorted(parts[0].compared), [part.part() for part in parts]
    n = sum(len(one.values) for one in units)
    differences = [framed[part].difference for part in parts]
    if None in differences:
        why = "two groups that are large enough are needed, and there are none"
        note = _joined(why, *dict.fromkeys(part.measure.note for part in parts))
        missing = Estimate(None, n, note=note)
        metrics = [metric(info, missing, slice=within) for info in (difference_info, ratio_info)]
        return metrics, Criterion(label=decision.label, note=note)
    difference = max(one for one in differences if one is not None)
    ratios = [one for part in parts if (one := framed[part].ratio) is not None]
    ratio = min(ratios) if len(ratios) == len(parts) else None
    chance = tested.of(parts)
    note = "all groups have the same rates"
    if chance.permutations:
        note = f"with shuffled groups 95 % are at most {_by_chance(chance, tested)}"
    undefined = "" if ratio is not None else "a rate is 0 in every group, so there is no ratio"
    metrics = [
        metric(difference_info, Estimate(difference, n, note=note), slice=within),
        metric(ratio_info, Estimate(ratio, n, note=undefined), slice=within),
    ]
    rates = [{part.measure.info.name: framed[part].values[code] for part in parts} for code in codes]
    return metrics, Criterion(
        **asdict(replace(chance, note=_joined(note, undefined))),
        label=decision.label,
        difference=difference,
        ratio=ratio,
        groups=tuple({"group": column.labels[code], **rate} for code, rate in zip(codes, rates, strict=True)),
    )
