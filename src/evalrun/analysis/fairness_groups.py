"""What is compared (scores, endings, length and time of answers, decisions) between which groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.catalogue import performance_info
from evalrun.analysis.fairness_definitions import DECISIONS, FPR, SELECTION, TPR
from evalrun.analysis.quality import Units, counted, score_column, score_infos, units
from evalrun.analysis.rates import RATES
from evalrun.analysis.table import SampleTable
from evalrun.registry import nearest
from evalrun.scoring.base import Labelled, MetricInfo, Scorer
from evalrun.types import Status

if TYPE_CHECKING:
    from evalrun.suite.schema import FairnessSpec


Ints = NDArray[np.int64]

MISSING = "(missing)"
"""How samples without a group are called."""

MOST_GROUPS = 200
"""A column with more groups than this is an identifier and no group."""

MOST_LEVELS = 50
"""A control column with more levels than this leaves too few samples in each."""

_NAMED = 5


@dataclass(frozen=True, slots=True)
class FairnessPlan:
    """Which groups are compared, by what, and against whom.

    `positive` is the label of a favourable decision; with `one_vs_rest` every label takes that part in turn.
    `reference` names for a column the group that the others are compared with (else each with the rest).
    `withheld` are columns that are not stored: their groups below `min_group` are not shown at all.
    """

    by: Sequence[str]
    min_group: int = 30
    positive: str | None = None
    one_vs_rest: bool = False
    reference: Mapping[str, str] = field(default_factory=dict)
    intersections: Sequence[Sequence[str]] = ()
    control: Sequence[str] = ()
    withheld: frozenset[str] = frozenset()
    exclude_unparsed: bool = False
    seed: int = 0

    @classmethod
    def of(
        cls, spec: FairnessSpec, *, exclude_unparsed: bool, seed: int, withheld: Sequence[str] = ()
    ) -> FairnessPlan:
        """The plan that a suite declares."""
        return cls(
            by=tuple(spec.by),
            min_group=spec.min_group,
            positive=spec.positive,
            one_vs_rest=spec.one_vs_rest,
            reference=dict(spec.reference),
            intersections=tuple(tuple(each) for each in spec.intersections),
            control=tuple(spec.control),
            withheld=frozenset(withheld),
            exclude_unparsed=exclude_unparsed,
            seed=seed,
        )


@dataclass(frozen=True, slots=True)
class GroupColumn:
    """The groups of one column, or of several taken together.

    `codes` has one entry a sample, -1 where a group is missing; `slices` says of each label which columns
    have which value. `reference` is the code of the group that the others are compared with.
    """

    name: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    slices: tuple[Mapping[str, str], ...]
    codes: Ints
    reference: int | None = None
    withheld: bool = False
    note: str = ""

    def slice_of(self, code: int) -> Mapping[str, str]:
        """The slice of a group; that of the samples without one names each column as missing."""
        return self.slices[code] if code >= 0 else dict.fromkeys(self.columns, MISSING)


@dataclass(frozen=True, slots=True)
class Level:
    """One value of a control column: `codes` is 1 for its samples, 0 for the others."""

    column: str
    label: str
    codes: Ints


def control_levels(table: SampleTable, plan: FairnessPlan) -> list[Level]:
    """The levels of the control columns. Of a column that is not stored, only those that are large enough."""
    return [
        Level(name, label, mine.astype(np.int64))
        for name in plan.control
        if (column := table.sensitive.get(name)) is not None and len(column.labels) <= MOST_LEVELS
        for code, label in enumerate(column.labels)
        if (mine := column.codes == code).sum() >= plan.min_group or name not in plan.withheld
    ]


def group_columns(table: SampleTable, plan: FairnessPlan) -> tuple[list[GroupColumn], dict[str, str]]:
    """The columns to compare by, and for each that cannot be used the reason."""
    found: list[GroupColumn] = []
    refused: dict[str, str] = {}
    for columns in [*((name,) for name in plan.by), *(tuple(each) for each in plan.intersections)]:
        name = "-".join(columns)
        absent = [each for each in columns if each not in table.sensitive]
        if absent:
            refused[name] = f"the samples have no column '{absent[0]}'"
            continue
        column = _column(name, columns, [table.sensitive[each] for each in columns], plan)
        if len(column.labels) > MOST_GROUPS:
            refused[name] = f"{len(column.labels)} groups: more than {MOST_GROUPS} are not compared"
            continue
        found.append(column)
    return found, refused


def _column(
    name: str, columns: tuple[str, ...], parts: Sequence[Labelled], plan: FairnessPlan
) -> GroupColumn:
    withheld = not plan.withheld.isdisjoint(columns)
    if len(parts) == 1:
        labels = parts[0].labels
        reference, note = _reference(name, labels, plan)
        slices = tuple({name: label} for label in labels)
        codes = parts[0].codes.astype(np.int64)
        return GroupColumn(name, columns, labels, slices, codes, reference, withheld, note)
    codes, combined = _crossed(parts)
    labels = tuple(
        ", ".join(part.labels[at] for part, at in zip(parts, one, strict=True)) for one in combined
    )
    crossed = tuple(
        {column: part.labels[at] for column, part, at in zip(columns, parts, one, strict=True)}
        for one in combined
    )
    reference, note = _reference(name, labels, plan)
    empty = _empty(parts, combined, named=not withheld)
    note = "; ".join(part for part in (note, empty) if part)
    return GroupColumn(name, columns, labels, crossed, codes, reference, withheld, note)


def _crossed(parts: Sequence[Labelled]) -> tuple[Ints, list[tuple[int, ...]]]:
    """One code for each combination that occurs, in the order of the labels."""
    stacked = np.stack([part.codes.astype(np.int64) for part in parts], axis=1)
    known = (stacked >= 0).all(axis=1)
    codes = np.full(len(stacked), -1, np.int64)
    if not known.any():
        return codes, []
    rows, inverse = np.unique(stacked[known], axis=0, return_inverse=True)
    codes[known] = inverse.reshape(-1)
    return codes, [tuple(int(at) for at in row) for row in rows]


def _empty(parts: Sequence[Labelled], occurring: Sequence[tuple[int, ...]], *, named: bool) -> str:
    """A sentence on combinations without a single sample, which would else be silently absent.

    Where a column is not stored they are not `named`: a value may be that of a few samples.
    """
    sizes = [len(part.labels) for part in parts]
    total = int(np.prod(sizes))
    missing = total - len(occurring)
    if not missing:
        return ""
    if not named:
        return f"{missing} combinations have no samples"
    there = set(occurring)
    shown = []
    for at in range(min(total, 10_000)):
        one = tuple(int(each) for each in np.unravel_index(at, sizes))
        if one not in there:
            shown.append(", ".join(part.labels[each] for part, each in zip(parts, one, strict=True)))
        if len(shown) == _NAMED:
            break
    more = " …" if missing > len(shown) else ""
    return f"{missing} combinations have no samples: {'; '.join(shown)}{more}"


def _reference(name: str, labels: Sequence[str], plan: FairnessPlan) -> tuple[int | None, str]:
    wanted = plan.reference.get(name)
    if wanted is None:
        return None, ""
    if wanted in labels:
        return labels.index(wanted), ""
    return None, f"no sample is in the reference group '{wanted}': each group is compared with the rest"


Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MOST_LABELS = 30
"""With more labels than this there is no one-against-the-rest: they are texts, most likely, and no labels."""

NUMBERS = ("completion_tokens", "e2e_s", "ttft_s")


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that is compared between groups: what it is, one value a unit, and a note on all of it."""

    info: MetricInfo
    units: Units
    note: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The rates of one positive label: who is given it, of those who should be, and of those who should not.

    `suffix` is what its metrics' names end in: empty for a declared positive label, else `.<label>`.
    """

    label: str
    suffix: str
    selection: Measure
    true_positives: Measure
    false_positives: Measure


def plain_measures(table: SampleTable, scorers: Sequence[Scorer], plan: FairnessPlan) -> list[Measure]:
    """Every score and rate of the run, and length and time of its answers where they were measured."""
    return [*_scores(table, scorers, plan.exclude_unparsed), *_rates(table), *_numbers(table)]


def _scores(table: SampleTable, scorers: Sequence[Scorer], exclude_unparsed: bool) -> list[Measure]:
    within = counted(table, exclude_unparsed)
    measures = []
    for scorer in scorers:
        for name, info in score_infos(scorer):
            values = score_column(table, name)
            measures.append(Measure(info, units(table, values, within & ~np.isnan(values))))
    return measures


def _rates(table: SampleTable) -> list[Measure]:
    return [
        Measure(rate.info, units(table, rate.hits(table).astype(np.float64), rate.within(table)))
        for rate in RATES
    ]


def _numbers(table: SampleTable) -> list[Measure]:
    """Tokens of every answer; times of those that this run sent and timed itself."""
    measures = []
    timed = table.answered & ~table.cached & ~table.warmup
    for name in NUMBERS:
        values = table.number(name)
        keep = (table.answered if name == "completion_tokens" else timed) & ~np.isnan(values)
        if keep.any():
            info = performance_info(f"performance.{name}.mean")
            measures.append(Measure(info, units(table, values, keep)))
    return measures


def decisions(
    table: SampleTable, scorers: Sequence[Scorer], plan: FairnessPlan
) -> tuple[list[Decision], str]:
    """The decisions that the suite asks about, and a sentence on why there are none."""
    if plan.positive is None and not plan.one_vs_rest:
        return [], ""
    fold = any(
        scorer.registered == "classification" and getattr(scorer.options, "ignore_case", False)
        for scorer in scorers
    )
    answers, targets = (_keyed(column, fold) for column in table.texts())
    answered = table.is_status(Status.SCORED)
    given = np.where(answered, answers.codes, -1)
    targets_known = np.unique(targets.codes[targets.codes >= 0])
    labels = sorted(
        {answers.labels[code] for code in np.unique(given[given >= 0])}
        | {targets.labels[code] for code in targets_known}
    )
    within = counted(table, plan.exclude_unparsed)
    if plan.positive is not None:
        wanted = _key(plan.positive, fold)
        note = "" if wanted in labels else _never(plan.positive, labels)
        return [_decision(table, given, answers, targets, wanted, within, "", note)], note
    from evalrun.scoring.scorers.confusion import _slugs as slugs

    # What counts as a label are the targets: an answer that names none of them is no class of its own.
    classes = [targets.labels[code] for code in targets_known] or labels
    if len(classes) > MOST_LABELS:
        return [], f"{len(classes)} labels: one against the rest is made up to {MOST_LABELS}"
    found = [
        _decision(table, given, answers, targets, label, within, f".{slug}", "")
        for label, slug in zip(sorted(classes), slugs(sorted(classes)), strict=True)
    ]
    return found, "" if found else "there are no labels"


def _never(positive: str, labels: Sequence[str]) -> str:
    near = nearest(positive, labels)
    hint = f"; did you mean '{near}'?" if near else ""
    return f"neither an answer nor a target is the positive label '{positive}'{hint}"


def _decision(
    table: SampleTable,
    given: NDArray[np.int32],
    answers: Labelled,
    targets: Labelled,
    label: str,
    within: Mask,
    suffix: str,
    note: str,
) -> Decision:
    selected = (given == _code(answers, label)).astype(np.float64)
    known = within & (targets.codes >= 0)
    positive = targets.codes == _code(targets, label)
    nothing = np.zeros(len(table), np.bool_)
    keeps = (within, known & positive, known & ~positive)
    made = []
    for name, keep in zip((SELECTION, TPR, FPR), keeps, strict=True):
        info = replace(DECISIONS[name], name=name + suffix)
        made.append(Measure(info, units(table, selected, nothing if note else keep), note))
    return Decision(label, suffix, *made)


def _code(column: Labelled, label: str) -> int:
    return column.labels.index(label) if label in column.labels else -2


def _keyed(column: Labelled, fold: bool) -> Labelled:
    """The column with labels that mean the same under one code."""
    keys = [_key(label, fold) for label in column.labels]
    labels = tuple(sorted(set(keys)))
    table = np.array([*(labels.index(key) for key in keys), -1], np.int32)
    return Labelled(table[column.codes], labels)


def _key(label: str, fold: bool) -> str:
    """A label as it is compared: without space at its ends, whole numbers in one form (1, 1.0, "1")."""
    text = label.strip()
    whole, dot, rest = text.partition(".")
    if dot and rest.strip("0") == "" and whole.lstrip("-").isdecimal():
        text = whole
    return text.casefold() if fold else text


def groups_of_units(codes: Ints, sample_units: Units) -> Ints:
    """The group of each unit: that of its first sample."""
    first = np.zeros(len(sample_units.values), np.int64)
    # The rows are in the order of units, so writing backwards leaves each unit's first row.
    first[sample_units.unit[::-1]] = sample_units.rows[::-1]
    return codes[first].astype(np.int64)


def subset(sample_units: Units, keep: Mask) -> Units:
    """Only some of the units."""
    rows = keep[sample_units.unit]
    renumbered = np.cumsum(keep) - 1
    clusters = None if sample_units.clusters is None else sample_units.clusters[keep]
    return Units(
        sample_units.values[keep],
        sample_units.rows[rows],
        renumbered[sample_units.unit[rows]],
        clusters,
        sample_units.repeated,
    )
