"""What is compared (scores, endings, length and time of answers, decisions) between which groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.catalogue import RATES, performance_info
from evalrun.analysis.fairness_definitions import DECISIONS, FPR, SELECTION, TPR
from evalrun.analysis.quality import counted, score_column, score_infos, units
from evalrun.analysis.samples import SampleTable
from evalrun.frozen import frozen
from evalrun.registry import nearest
from evalrun.scoring.base import Labelled, MetricInfo, Scorer
from evalrun.types import Status

if TYPE_CHECKING:
    from evalrun.suite.schema import FairnessSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

MISSING = "(missing)"
"""How samples without a group are called."""

MOST_GROUPS = 200
"""A column with more groups than this is an identifier and no group."""

MOST_LEVELS = 50
"""A control column with more levels than this leaves too few samples in each."""

_NAMED = 5


@frozen
class FairnessPlan:
    """Which groups are compared, by what, and against whom.

    `positive` is the label of a favourable decision; with `one_vs_rest` every label takes that part in turn.
    `reference` names for a column the group that the others are compared with (else each with the rest).
    `withheld` are columns that are not stored: their groups below `min_group` are not shown at all. Of no
    column are groups shown that have fewer than `least_shown` samples.
    """

    by: Sequence[str]
    min_group: int = 30
    positive: str | None = None
    one_vs_rest: bool = False
    reference: Mapping[str, str] = field(default_factory=dict)
    intersections: Sequence[Sequence[str]] = ()
    control: Sequence[str] = ()
    withheld: frozenset[str] = frozenset()
    least_shown: int = 0
    exclude_unparsed: bool = False
    seed: int = 0

    @classmethod
    def of(
        cls,
        spec: FairnessSpec,
        *,
        exclude_unparsed: bool,
        seed: int,
        withheld: Sequence[str] = (),
        least_shown: int = 0,
    ) -> FairnessPlan:
        """The plan that a suite declares."""
        return cls(
            by=tuple(spec.by),
            min_group=max(spec.min_group, least_shown),
            positive=spec.positive,
            one_vs_rest=spec.one_vs_rest,
            reference=dict(spec.reference),
            intersections=tuple(tuple(names) for names in spec.intersections),
            control=tuple(spec.control),
            withheld=frozenset(withheld),
            least_shown=least_shown,
            exclude_unparsed=exclude_unparsed,
            seed=seed,
        )


@frozen
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
    least_shown: int = 0
    note: str = ""

    def slice_of(self, code: int) -> Mapping[str, str]:
        """The slice of a group; that of the samples without one names each column as missing."""
        return self.slices[code] if code >= 0 else dict.fromkeys(self.columns, MISSING)


@frozen
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
        if (size := (mine := column.codes == code).sum()) >= plan.min_group
        or (name not in plan.withheld and size >= plan.least_shown)
    ]


def group_columns(table: SampleTable, plan: FairnessPlan) -> tuple[list[GroupColumn], dict[str, str]]:
    """The columns to compare by, and for each that cannot be used the reason."""
    usable: list[GroupColumn] = []
    refused: dict[str, str] = {}
    for columns in [*((name,) for name in plan.by), *map(tuple, plan.intersections)]:
        absent = [name for name in columns if name not in table.sensitive]
        if absent:
            refused["-".join(columns)] = f"the samples have no column '{absent[0]}'"
            continue
        column = _column(columns, [table.sensitive[name] for name in columns], plan)
        if len(column.labels) > MOST_GROUPS:
            refused[column.name] = f"{len(column.labels)} groups: more than {MOST_GROUPS} are not compared"
        else:
            usable.append(column)
    return usable, refused


def _column(columns: tuple[str, ...], parts: Sequence[Labelled], plan: FairnessPlan) -> GroupColumn:
    """The groups of one column, or the combinations of several that occur, in the order of the labels."""
    sizes = [max(1, len(part.labels)) for part in parts]
    known = np.logical_and.reduce([part.codes >= 0 for part in parts])
    cells = np.ravel_multi_index([np.maximum(part.codes, 0) for part in parts], sizes)
    occurring = np.arange(len(parts[0].labels)) if len(parts) == 1 else np.unique(cells[known])

    def values(cell: int) -> list[str]:
        return [part.labels[at] for part, at in zip(parts, np.unravel_index(cell, sizes), strict=True)]

    name, withheld = "-".join(columns), not plan.withheld.isdisjoint(columns)
    labels = tuple(", ".join(values(cell)) for cell in occurring)
    wanted, notes = plan.reference.get(name), []
    if wanted is not None and wanted not in labels:
        notes.append(f"no sample is in the reference group '{wanted}': each group is compared with the rest")
    # Combinations without a single sample would else be silently absent. Where a column is not stored they
    # are not named: a value may be that of a few samples.
    empty = 0 if len(parts) == 1 else math.prod(sizes) - len(occurring)
    if empty:
        free = np.setdiff1d(np.arange(min(math.prod(sizes), 10_000)), occurring)[:_NAMED]
        named = "; ".join(", ".join(values(cell)) for cell in free)
        listed = "" if withheld else f": {named}{' …' if empty > len(free) else ''}"
        notes.append(f"{empty} combinations have no samples{listed}")
    return GroupColumn(
        name=name,
        columns=columns,
        labels=labels,
        slices=tuple(dict(zip(columns, values(cell), strict=True)) for cell in occurring),
        codes=np.where(known, np.searchsorted(occurring, cells), -1).astype(np.int64),
        reference=labels.index(wanted) if wanted in labels else None,
        withheld=withheld,
        least_shown=plan.least_shown,
        note="; ".join(notes),
    )


MOST_LABELS = 30
"""With more labels than this there is no one-against-the-rest: they are texts, most likely, and no labels."""

NUMBERS = ("completion_tokens", "e2e_s", "ttft_s")


@frozen
class Measure:
    """Something that is compared between groups: what it is, one value a unit (a sample id, the mean over its
    repeats), the first sample and the cluster of each, and a note on all of it."""

    info: MetricInfo
    values: Floats
    rows: Ints
    clusters: Ints | None
    repeated: bool
    note: str = ""

    @classmethod
    def of(cls, info: MetricInfo, table: SampleTable, values: Floats, keep: Mask, note: str = "") -> Measure:
        """A column with one value a sample, of the samples in `keep` that have one."""
        own = units(table, values, keep & ~np.isnan(values))
        rows = own.rows[np.searchsorted(own.unit, np.arange(len(own.values)))]
        return cls(info, own.values, rows, own.clusters, own.repeated, note)

    def only(self, keep: Mask) -> Measure:
        """The measure over some of the units."""
        clusters = None if self.clusters is None else self.clusters[keep]
        return replace(self, values=self.values[keep], rows=self.rows[keep], clusters=clusters)


@frozen
class Decision:
    """The rates of one positive label: who is given it, of those who should be, and of those who should not.

    `suffix` is what its metrics' names end in: empty for a declared positive label, else `.<label>`.
    """

    label: str
    suffix: str
    selection: Measure
    true_positives: Measure
    false_positives: Measure


def score_and_rate_columns(
    table: SampleTable, scorers: Sequence[Scorer], exclude_unparsed: bool
) -> list[tuple[MetricInfo, Floats, Mask]]:
    """Every score, and every rate of endings: one value a sample, and the samples that it is over."""
    within = counted(table, exclude_unparsed)
    scores = [
        (info, score_column(table, name), within) for scorer in scorers for name, info in score_infos(scorer)
    ]
    return [
        *scores,
        *((rate.info, rate.hits(table).astype(np.float64), rate.within(table)) for rate in RATES),
    ]


def plain_measures(table: SampleTable, scorers: Sequence[Scorer], plan: FairnessPlan) -> list[Measure]:
    """Every score and rate of the run, the tokens of every answer, and times of those that this run sent and
    timed itself."""
    columns = score_and_rate_columns(table, scorers, plan.exclude_unparsed)
    measures = [Measure.of(info, table, values, keep) for info, values, keep in columns]
    timed = table.answered & ~table.cached & ~table.warmup
    for name in NUMBERS:
        keep = table.answered if name == "completion_tokens" else timed
        info = performance_info(f"performance.{name}.mean")
        measure = Measure.of(info, table, table.number(name), keep)
        measures += [measure] if len(measure.values) else []
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
    from evalrun.scoring.text import slugs, truth_values

    answers, targets = table.texts()
    answers = Labelled(answers.codes, truth_values(answers.labels, targets.labels))
    answers, targets = _keyed(answers, fold), _keyed(targets, fold)
    given = np.where(table.is_status(Status.SCORED), answers.codes, -1)
    within = counted(table, plan.exclude_unparsed)
    known = within & (targets.codes >= 0)
    target_labels = sorted({targets.labels[code] for code in np.unique(targets.codes) if code >= 0})
    labels = sorted({answers.labels[code] for code in np.unique(given) if code >= 0} | {*target_labels})

    def decision(label: str, suffix: str, note: str = "") -> Decision:
        selected = (given == _code(answers, label)).astype(np.float64)
        positive = targets.codes == _code(targets, label)
        keeps = (within, known & positive, known & ~positive)
        rates = [
            Measure.of(replace(DECISIONS[name], name=name + suffix), table, selected, keep & (not note), note)
            for name, keep in zip((SELECTION, TPR, FPR), keeps, strict=True)
        ]
        return Decision(label, suffix, *rates)

    if plan.positive is not None:
        wanted = _key(plan.positive, fold)
        note = "" if wanted in labels else _never(plan.positive, labels)
        return [decision(wanted, "", note)], note
    # What counts as a label are the targets: an answer that names none of them is no class of its own.
    classes = target_labels or labels
    if len(classes) > MOST_LABELS:
        return [], f"{len(classes)} labels: one against the rest is made up to {MOST_LABELS}"
    made = [decision(label, f".{slug}") for label, slug in zip(classes, slugs(classes), strict=True)]
    return made, "" if made else "there are no labels"


def _never(positive: str, labels: Sequence[str]) -> str:
    near = nearest(positive, labels)
    hint = f"; did you mean '{near}'?" if near else ""
    return f"neither an answer nor a target is the positive label '{positive}'{hint}"


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
