"""Scores by group, and the gap between the best and the worst group.

Group means come from fairlearn's MetricFrame; the groups it would get wrong are kept from it: a group
without data has no value (never 0 or 1), a missing group is a row of its own outside the gap, a group that
is too small is shown and not compared. fairlearn is imported in `group_means` only: that takes seconds.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.intervals import Estimate, mean
from evalrun.analysis.permutation import Chance, chance_of_gap
from evalrun.analysis.quality import Units, counted, metric, score_column, score_infos, units
from evalrun.analysis.rates import RATES, gap_info
from evalrun.analysis.table import SampleTable
from evalrun.scoring.base import Labelled, MetricInfo, Scorer
from evalrun.types import JSON, MetricValue

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MISSING = "(missing)"
"""How samples without a group are called."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that is compared between groups: what it is, and one value a unit."""

    info: MetricInfo
    units: Units


@dataclass(frozen=True, slots=True)
class Split:
    """A measure and the groups of a column; `codes` has one a unit, -1 where the group is missing."""

    column: str
    groups: Labelled
    measure: Measure
    codes: Ints


@dataclass(frozen=True, slots=True)
class GroupResult:
    """One group's value. Only a `compared` group takes part in the gap."""

    group: str
    estimate: Estimate
    compared: bool
    note: str


def warm_imports() -> None:
    """Import fairlearn now: in a thread while the models answer, so that the analysis does not wait."""
    import fairlearn.metrics  # noqa: F401


def fairness_metrics(
    table: SampleTable,
    scorers: Sequence[Scorer],
    by: Sequence[str],
    *,
    min_group: int,
    exclude_unparsed: bool,
    seed: int,
) -> tuple[list[MetricValue], dict[str, JSON]]:
    """Every score and rate by group, with gaps, for every column; and the same for the report."""
    metrics: list[MetricValue] = []
    details: dict[str, JSON] = {}
    measures = [*_score_measures(table, scorers, exclude_unparsed), *_rate_measures(table)] if by else []
    splits: list[Split] = []
    for column in by:
        groups = table.sensitive.get(column)
        missing = f"the samples have no column '{column}'" if groups is None else ""
        details[column] = {"note": missing, "min_group": min_group, "metrics": {}}
        if groups is not None:
            splits += [Split(column, groups, each, _codes(groups, each.units)) for each in measures]
    for split, means in zip(splits, group_means(splits), strict=True):
        found, detail = compare_groups(split, means, min_group, seed)
        metrics += found
        details[split.column]["metrics"][split.measure.info.name] = detail
    return metrics, details


def _codes(groups: Labelled, sample_units: Units) -> Ints:
    """The group of each unit: that of its first sample."""
    first = np.zeros(len(sample_units.values), np.int64)
    # The rows are in the order of units, so writing backwards leaves each unit's first row.
    first[sample_units.unit[::-1]] = sample_units.rows[::-1]
    return groups.codes[first].astype(np.int64)


def _score_measures(table: SampleTable, scorers: Sequence[Scorer], exclude_unparsed: bool) -> list[Measure]:
    within = counted(table, exclude_unparsed)
    measures = []
    for scorer in scorers:
        for name, info in score_infos(scorer):
            values = score_column(table, name)
            measures.append(Measure(info, units(table, values, within & ~np.isnan(values))))
    return measures


def _rate_measures(table: SampleTable) -> list[Measure]:
    return [
        Measure(rate.info, units(table, rate.hits(table).astype(np.float64), rate.within(table)))
        for rate in RATES
    ]


def compare_groups(
    split: Split, means: Mapping[int, float], min_group: int, seed: int
) -> tuple[list[MetricValue], dict[str, JSON]]:
    """One measure by the groups of one column: a metric a group, the gap, and the same for the report."""
    info = split.measure.info
    present = [*range(len(split.groups.labels)), *([-1] if (split.groups.codes < 0).any() else [])]
    results = {code: _group_result(split, code, means.get(code), min_group) for code in present}
    metrics = [
        replace(metric(info, each.estimate, each.note), slice={split.column: each.group})
        for each in results.values()
    ]
    compared = {code: each for code, each in results.items() if each.compared}
    gap, gap_detail = _gap(split, compared, seed)
    listed = [
        {**asdict(each.estimate), "group": each.group, "compared": each.compared, "note": one.note}
        for each, one in zip(results.values(), metrics, strict=True)
    ]
    return [*metrics, gap], {"groups": listed, "gap": gap_detail}


def group_means(splits: Sequence[Split]) -> list[dict[int, float]]:
    """Means by group code, through one MetricFrame of fairlearn; a group without data is not there.

    Each split is one value of the control feature, so that a run costs one frame and not one a measure. Equal
    values of one group are one weighted row, because a MetricFrame takes some 10 microseconds a row.
    """
    means: list[dict[int, float]] = [{} for _ in splits]
    if not any(len(split.codes) for split in splits):
        return means
    from fairlearn.metrics import MetricFrame

    def average(y_true: Floats, y_pred: Floats, weight: Floats) -> float:
        return float(np.average(y_pred, weights=weight))

    values, codes, which, weight = _weighted_rows(splits)
    # The groups are integer codes: labels of any kind, odd characters and None cannot mislead it.
    frame = MetricFrame(
        metrics=average,
        y_true=values,
        y_pred=values,
        sensitive_features=codes,
        control_features=which,
        sample_params={"weight": weight},
    )
    for (at, code), value in frame.by_group.items():
        if not np.isnan(value):
            means[at][int(code)] = float(value)
    return means


def _weighted_rows(splits: Sequence[Split]) -> tuple[Floats, Ints, Ints, Ints]:
    """The distinct (value, group code, number of the split), and how many units have each."""
    values = np.concatenate([split.measure.units.values for split in splits])
    codes = np.concatenate([split.codes for split in splits])
    which = np.repeat(np.arange(len(splits)), [len(split.codes) for split in splits])
    order = np.lexsort((values, codes, which))
    values, codes, which = values[order], codes[order], which[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (np.diff(values) != 0) | (np.diff(codes) != 0) | (np.diff(which) != 0)
    starts = np.flatnonzero(new)
    return values[starts], codes[starts], which[starts], np.diff(np.append(starts, len(order)))


def _group_result(split: Split, code: int, value: float | None, min_group: int) -> GroupResult:
    mine = split.codes == code
    own = split.measure.units
    clusters = None if own.clusters is None else own.clusters[mine]
    found = mean(own.values[mine], clusters, repeated=own.repeated, bounds=split.measure.info.bounds)
    estimate = replace(found, value=value)
    if code < 0:
        return GroupResult(MISSING, estimate, False, "samples without a group are not part of the gap")
    small = estimate.n < min_group
    note = f"too small: fewer than {min_group} samples, not part of the gap" if small and estimate.n else ""
    return GroupResult(split.groups.labels[code], estimate, not small and value is not None, note)


def _gap(split: Split, compared: Mapping[int, GroupResult], seed: int) -> tuple[MetricValue, JSON]:
    """The gap between the compared groups (by code), beside what chance alone gives."""
    measure, codes = split.measure, split.codes
    info = gap_info(split.column, measure.info)
    if len(compared) < 2:
        why = f"a gap needs two groups that are large enough, and there {_are(len(compared))}"
        n = sum(each.estimate.n for each in compared.values())
        return metric(info, Estimate(None, n, note=why)), None
    ranked = sorted(compared.values(), key=lambda each: each.estimate.value or 0.0)
    if measure.info.direction != "lower":
        ranked.reverse()
    best, worst = ranked[0], ranked[-1]
    gap = abs((best.estimate.value or 0.0) - (worst.estimate.value or 0.0))
    keep = np.isin(codes, list(compared))
    _, labels = np.unique(codes[keep], return_inverse=True)
    clusters = None if measure.units.clusters is None else measure.units.clusters[keep]
    own_seed = zlib.crc32(info.name.encode(), seed & 0xFFFFFFFF)
    chance = chance_of_gap(measure.units.values[keep], labels.astype(np.int64), clusters, own_seed)
    note = _gap_note(best, worst, chance)
    estimate = Estimate(gap, int(keep.sum()), note=note)
    detail = {
        "value": gap,
        "best": best.group,
        "worst": worst.group,
        "chance_gap_p95": chance.gap_p95,
        "p": chance.p,
        "permutations": chance.permutations,
        "how": chance.how,
        "note": note,
    }
    return metric(info, estimate), detail


def _are(count: int) -> str:
    return "is one" if count == 1 else "is none"


def _gap_note(best: GroupResult, worst: GroupResult, chance: Chance) -> str:
    if chance.permutations == 0:
        return "all groups have the same value"
    return (
        f"best {best.group} {best.estimate.value:.3g}, worst {worst.group} {worst.estimate.value:.3g}; with "
        f"shuffled groups 95 % of gaps are at most {chance.gap_p95:.3g} (p = {chance.p:.2g})"
    )
