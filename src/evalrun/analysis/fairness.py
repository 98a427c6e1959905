"""Scores, endings, speed and decisions by group, and the gap between the best and the worst group.

Group means come from fairlearn's MetricFrame; the groups it would get wrong are kept from it: a group
without data has no value (never 0 or 1), a missing group is a row of its own outside the gap, a group that
is too small is shown and not compared.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.correction import holm
from evalrun.analysis.fairness_definitions import contrast_info, criterion_info
from evalrun.analysis.fairness_groups import (
    MISSING,
    Decision,
    FairnessPlan,
    GroupColumn,
    Measure,
    decisions,
    group_columns,
    groups_of_units,
    plain_measures,
    subset,
)
from evalrun.analysis.fairness_inference import Chance, Part, chance_of_gap, chance_of_largest, contrast
from evalrun.analysis.intervals import Estimate, mean
from evalrun.analysis.quality import metric
from evalrun.analysis.rates import gap_info
from evalrun.analysis.table import SampleTable
from evalrun.scoring.base import Scorer
from evalrun.types import JSON, MetricValue

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FEW_VALUES = 50
"""fairlearn is given at most so many distinct values a measure: a MetricFrame takes some 10 us for each."""


@dataclass(frozen=True, slots=True)
class Split:
    """A measure and the groups of a column; `codes` has one a unit, -1 where the group is missing.

    `within` is the level of a control column that the units are restricted to.
    """

    groups: GroupColumn
    measure: Measure
    codes: Ints
    within: Mapping[str, str] = field(default_factory=dict)


def group_means(splits: Sequence[Split]) -> list[dict[int, float]]:
    """Means by group code, through one MetricFrame of fairlearn; a group without data is not there.

    Each split is one value of the control feature, so that a run costs one frame and not one a measure. Equal
    values of one group are one weighted row. Measures with many values (times) are averaged directly.

    fairlearn is imported here only: that takes seconds.
    """
    means: list[dict[int, float]] = [{} for _ in splits]
    framed = []
    for at, split in enumerate(splits):
        if len(split.codes) == 0:
            continue
        if len(np.unique(split.measure.units.values)) <= _FEW_VALUES:
            framed.append(at)
        else:
            for code in np.unique(split.codes):
                means[at][int(code)] = float(split.measure.units.values[split.codes == code].mean())
    if framed:
        for at, found in zip(framed, _framed([splits[at] for at in framed]), strict=True):
            means[at] = found
    return means


def _framed(splits: Sequence[Split]) -> list[dict[int, float]]:
    from fairlearn.metrics import MetricFrame

    def average(y_true: Floats, y_pred: Floats, weight: Floats) -> float:
        return float(np.average(y_pred, weights=weight))

    means: list[dict[int, float]] = [{} for _ in splits]
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


MOST_LEVELS = 50
"""A control column with more levels than this leaves too few samples in each."""


@dataclass(frozen=True, slots=True)
class GroupResult:
    """One group's value. Only a `compared` group takes part in the gap."""

    group: str
    estimate: Estimate
    compared: bool
    note: str


@dataclass(frozen=True, slots=True)
class Compared:
    """One measure by group: the metrics, the same for the report, and the compared groups by code."""

    split: Split
    metrics: list[MetricValue]
    detail: dict[str, JSON]
    groups: Mapping[int, GroupResult]
    chance: Chance | None

    def part(self, codes: Sequence[int]) -> Part:
        """The units of some groups, for a permutation."""
        return _part(self.split, codes)


def fairness_metrics(
    table: SampleTable, scorers: Sequence[Scorer], plan: FairnessPlan
) -> tuple[list[MetricValue], dict[str, JSON]]:
    """Everything by group, with gaps and contrasts, for every column; and the same for the report.

    details: by column (intersections as `a-b`) `note`, `min_group`, `reference`, `metrics` {measure: {unit,
    direction, groups, gap, contrasts, note}}, `criteria` {name: …}, `decisions` (a note), `control` {column:
    {level: {metrics, criteria}}}.
    """
    if not plan.by:
        return [], {}
    columns, refused = group_columns(table, plan)
    details: dict[str, JSON] = {
        name: {"note": why, "min_group": plan.min_group, "metrics": {}, "criteria": {}}
        for name, why in refused.items()
    }
    measures = plain_measures(table, scorers, plan)
    decided, why_not = decisions(table, scorers, plan)
    metrics: list[MetricValue] = []
    levels = _levels(table, plan)
    places = [(column, level) for column in columns for level in (None, *levels.get(column.name, ()))]
    listed = [*measures, *(each for one in decided for each in _rates_of(one))]
    splits = [_split(column, measure, level) for column, level in places for measure in listed]
    means = group_means(splits)
    for at, (column, level) in enumerate(places):
        mine = slice(at * len(listed), (at + 1) * len(listed))
        found, detail = _compare(splits[mine], means[mine], decided, plan, alone=level is None)
        metrics += found
        if level is None:
            reference = None if column.reference is None else column.labels[column.reference]
            details[column.name] = {
                "note": column.note,
                "min_group": plan.min_group,
                "reference": reference,
                "decisions": why_not,
                "control": {},
                **detail,
            }
        else:
            kept = details[column.name]["control"].setdefault(level.column, {})
            kept[level.label] = detail
    return metrics, {name: details[name] for name in [*(each.name for each in columns), *refused]}


@dataclass(frozen=True, slots=True)
class _Level:
    """One value of a control column: its samples."""

    column: str
    label: str
    codes: Ints


def _levels(table: SampleTable, plan: FairnessPlan) -> dict[str, tuple[_Level, ...]]:
    """The levels of the control columns for each column; a column does not control itself.

    Of a column that is not stored, only levels that are large enough are shown.
    """
    levels = []
    for name in plan.control:
        column = table.sensitive.get(name)
        if column is not None and len(column.labels) <= MOST_LEVELS:
            levels += [
                _Level(name, label, (column.codes == code).astype(np.int64))
                for code, label in enumerate(column.labels)
                if name not in plan.withheld or int((column.codes == code).sum()) >= plan.min_group
            ]
    by = [*((name,) for name in plan.by), *(tuple(each) for each in plan.intersections)]
    return {"-".join(names): tuple(each for each in levels if each.column not in names) for names in by}


def _split(column: GroupColumn, measure: Measure, level: _Level | None) -> Split:
    codes = groups_of_units(column.codes, measure.units)
    if level is None:
        return Split(column, measure, codes)
    keep = groups_of_units(level.codes, measure.units) == 1
    kept = replace(measure, units=subset(measure.units, keep))
    return Split(column, kept, codes[keep], {level.column: level.label})


def _rates_of(decision: Decision) -> tuple[Measure, ...]:
    return decision.selection, decision.true_positives, decision.false_positives


def _compare(
    splits: Sequence[Split],
    means: Sequence[Mapping[int, float]],
    decided: Sequence[Decision],
    plan: FairnessPlan,
    *,
    alone: bool,
) -> tuple[list[MetricValue], dict[str, JSON]]:
    """All measures of one column (in one level of a control column, where it is not `alone`)."""

    metrics: list[MetricValue] = []
    measured: dict[str, JSON] = {}
    results = [compare_groups(split, mean, plan) for split, mean in zip(splits, means, strict=True)]
    for result in results:
        # Under a control column only what sums a level up is a metric; the rest is in the details.
        metrics += (
            result.metrics if alone else [each for each in result.metrics if each.name.endswith(".gap")]
        )
        measured[result.split.measure.info.name] = result.detail
    found, detail = criteria(results[len(results) - 3 * len(decided) :], decided, plan)
    return [*metrics, *found], {"metrics": measured, "criteria": detail}


def compare_groups(split: Split, means: Mapping[int, float], plan: FairnessPlan) -> Compared:
    """One measure by the groups of one column: a metric a group, the gap, the contrasts."""
    info, column = split.measure.info, split.groups
    here = split.codes if split.within else column.codes
    present = [*range(len(column.labels)), *([-1] if (here < 0).any() else [])]
    results = {code: _group_result(split, code, means.get(code), plan.min_group) for code in present}
    shown = {code: each for code, each in results.items() if not _hidden(column, each)}
    metrics = [
        replace(
            metric(info, each.estimate, _joined(each.note, split.measure.note)),
            slice={**column.slice_of(code), **split.within},
        )
        for code, each in shown.items()
    ]
    compared = {code: each for code, each in results.items() if each.compared}
    gap, gap_detail, chance = _gap(split, compared, plan.seed)
    contrasts, contrast_details = _contrasts(split, compared)
    listed = [
        {**asdict(each.estimate), "group": each.group, "compared": each.compared, "note": one.note}
        for each, one in zip(shown.values(), metrics, strict=True)
    ]
    detail = {
        "unit": info.unit,
        "direction": info.direction,
        "groups": listed,
        "gap": gap_detail,
        "contrasts": contrast_details,
        "withheld": len(results) - len(shown),
        "note": split.measure.note,
    }
    return Compared(split, [*metrics, gap, *contrasts], detail, compared, chance)


def _hidden(column: GroupColumn, result: GroupResult) -> bool:
    """Groups of columns that are not stored are shown only where they are large enough."""
    return column.withheld and not result.compared


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


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


def _part(split: Split, codes: Sequence[int]) -> Part:
    keep = np.isin(split.codes, list(codes))
    _, labels = np.unique(split.codes[keep], return_inverse=True)
    own = split.measure.units
    clusters = None if own.clusters is None else own.clusters[keep]
    return Part(own.values[keep], labels.astype(np.int64), clusters)


def _gap(
    split: Split, compared: Mapping[int, GroupResult], seed: int
) -> tuple[MetricValue, JSON, Chance | None]:
    """The gap between the compared groups (by code), beside what chance alone gives."""
    info = gap_info(split.groups.name, split.measure.info)
    n = sum(each.estimate.n for each in compared.values())
    if len(compared) < 2:
        why = f"a gap needs two groups that are large enough, and there {_are(len(compared))}"
        missing = metric(info, Estimate(None, n, note=_joined(why, split.measure.note)))
        return replace(missing, slice=dict(split.within)), None, None
    lower = split.measure.info.direction == "lower"
    ranked = sorted(compared.values(), key=lambda each: each.estimate.value or 0.0, reverse=not lower)
    best, worst = ranked[0], ranked[-1]
    gap = abs((best.estimate.value or 0.0) - (worst.estimate.value or 0.0))
    part = _part(split, list(compared))
    chance = chance_of_gap(part.values, part.groups, part.clusters, seed_of(info.name, seed))
    words = ("highest", "lowest") if split.measure.info.direction == "none" else ("best", "worst")
    note = _gap_note(best, worst, words, chance)
    detail = {
        "value": gap,
        "best": best.group,
        "worst": worst.group,
        "chance_gap_mean": chance.gap_mean,
        "chance_gap_p95": chance.gap_p95,
        "p": chance.p,
        "permutations": chance.permutations,
        "how": chance.how,
        "note": note,
    }
    made = metric(info, Estimate(gap, n, note=note))
    return replace(made, slice=dict(split.within)), detail, chance


def seed_of(name: str, seed: int) -> int:
    """The seed of one figure's permutations: they depend on the root seed and its name."""
    return zlib.crc32(name.encode(), seed & 0xFFFFFFFF)


def _are(count: int) -> str:
    return "is one" if count == 1 else "is none"


def _gap_note(best: GroupResult, worst: GroupResult, words: tuple[str, str], chance: Chance) -> str:
    if chance.permutations == 0:
        return "all groups have the same value"
    return (
        f"{words[0]} {best.group} {best.estimate.value:.3g}, {words[1]} {worst.group} "
        f"{worst.estimate.value:.3g}; with shuffled groups 95 % of gaps are at most {chance.gap_p95:.3g}, "
        f"{chance.gap_mean:.3g} on average (p = {chance.p:.2g})"
    )


def _contrasts(
    split: Split, compared: Mapping[int, GroupResult]
) -> tuple[list[MetricValue], list[dict[str, JSON]]]:
    """Each compared group against the reference or against all others together, p adjusted by Holm."""
    reference = split.groups.reference
    if len(compared) < 2 or (reference is not None and reference not in compared):
        return [], []
    own, info = split.measure.units, contrast_info(split.groups.name, split.measure.info)
    codes = [code for code in compared if code != reference]
    found = []
    for code in codes:
        others = [reference] if reference is not None else [each for each in compared if each != code]
        found.append(
            contrast(
                own.values,
                split.codes == code,
                np.isin(split.codes, others),
                own.clusters,
                independent=not own.repeated,
                bounds=split.measure.info.bounds,
            )
        )
    # Two groups against each other are one test, seen from either side.
    mirrored = reference is None and len(codes) == 2
    adjusted = [each.p for each in found] if mirrored else holm([each.p for each in found])
    against = "the rest" if reference is None else split.groups.labels[reference]
    metrics, details = [], []
    for code, each, p in zip(codes, found, adjusted, strict=True):
        said = f"against {against}" + ("" if p is None else f": p = {p:.2g} (Holm)")
        estimate = Estimate(each.value, each.n, each.se, each.low, each.high, each.method, each.note)
        made = metric(info, estimate, said)
        metrics.append(replace(made, slice={**split.groups.slice_of(code), **split.within}))
        details.append({"group": compared[code].group, "against": against, **asdict(each), "p_holm": p})
    return metrics, details


_NO_GROUPS = "two groups that are large enough are needed, and there are none"


def criteria(
    results: Sequence[Compared], decided: Sequence[Decision], plan: FairnessPlan
) -> tuple[list[MetricValue], dict[str, JSON]]:
    """The criteria of every decision; `results` holds selection, true and false positive rate of each."""
    metrics: list[MetricValue] = []
    details: dict[str, JSON] = {}
    for at, decision in enumerate(decided):
        selection, true_positives, false_positives = results[3 * at : 3 * at + 3]
        for kind, parts in (
            ("demographic_parity", (selection,)),
            ("equal_opportunity", (true_positives,)),
            ("equalized_odds", (true_positives, false_positives)),
        ):
            found, detail = _criterion(kind, parts, decision, plan)
            metrics += found
            details[f"{kind}{decision.suffix}"] = detail
    return metrics, details


def _criterion(
    kind: str, parts: Sequence[Compared], decision: Decision, plan: FairnessPlan
) -> tuple[list[MetricValue], dict[str, JSON]]:
    """Difference and ratio over the groups that are compared in every part."""
    split = parts[0].split
    column = split.groups.name
    difference = criterion_info(column, f"{kind}.difference", decision.suffix)
    ratio = criterion_info(column, f"{kind}.ratio", decision.suffix)
    codes = [code for code in parts[0].groups if all(code in part.groups for part in parts)]
    n = sum(part.groups[code].estimate.n for part in parts for code in codes)
    if len(codes) < 2:
        notes = [_NO_GROUPS, *dict.fromkeys(part.split.measure.note for part in parts)]
        missing = Estimate(None, n, note="; ".join(each for each in notes if each))
        metrics = [metric(difference, missing), metric(ratio, missing)]
        detail: dict[str, JSON] = {"label": decision.label, "difference": None, "ratio": None}
        return [replace(each, slice=dict(split.within)) for each in metrics], {**detail, "note": missing.note}
    rates = [{code: part.groups[code].estimate.value or 0.0 for code in codes} for part in parts]
    gap = max(max(each.values()) - min(each.values()) for each in rates)
    chance = _chance(parts, codes, seed_of(difference.name, plan.seed))
    ratios = [min(each.values()) / max(each.values()) for each in rates if max(each.values()) > 0]
    note = (
        "all groups have the same rates"
        if chance.permutations == 0
        else f"with shuffled groups 95 % are at most {chance.gap_p95:.3g}, {chance.gap_mean:.3g} on average "
        f"(p = {chance.p:.2g})"
    )
    # 0/0: nobody was given the label. fairlearn gives 0 or NaN there, neither of which was measured.
    least = min(ratios) if len(ratios) == len(rates) else None
    undefined = "" if least is not None else "a rate is 0 in every group, so there is no ratio"
    made = [
        metric(difference, Estimate(gap, n, note=note)),
        metric(ratio, Estimate(least, n, note=undefined)),
    ]
    detail = {
        "label": decision.label,
        "difference": gap,
        "ratio": least,
        "groups": _shown(parts, codes),
        "chance_gap_mean": chance.gap_mean,
        "chance_gap_p95": chance.gap_p95,
        "p": chance.p,
        "permutations": chance.permutations,
        "how": chance.how,
        "note": "; ".join(each for each in (note, undefined) if each),
    }
    return [replace(each, slice=dict(split.within)) for each in made], detail


def _chance(parts: Sequence[Compared], codes: Sequence[int], seed: int) -> Chance:
    return chance_of_largest([part.part(codes) for part in parts], seed)


def _shown(parts: Sequence[Compared], codes: Sequence[int]) -> list[Mapping[str, JSON]]:
    """The rates of each group, by the name of the rate."""
    return [
        {
            "group": parts[0].groups[code].group,
            **{part.split.measure.info.name: part.groups[code].estimate.value for part in parts},
        }
        for code in codes
    ]
