"""What a suite asks of fairness, and the groups of samples that it compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.table import SampleTable
from evalrun.scoring.base import Labelled

if TYPE_CHECKING:
    from evalrun.suite.schema import FairnessSpec

Ints = NDArray[np.int64]

MISSING = "(missing)"
"""How samples without a group are called."""

MOST_GROUPS = 200
"""A column with more groups than this is an identifier and no group."""

_NAMED = 5


@dataclass(frozen=True, slots=True)
class FairnessPlan:
    """Which groups are compared, by what, and against whom.

    `positive` is the label of a favourable decision; with `one_vs_rest` every label takes that part in turn.
    `reference` names for a column the group that the others are held against (else each against the rest).
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
    have which value. `reference` is the code of the group that the others are held against.
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
    return None, f"no sample is in the reference group '{wanted}': each group is held against the rest"
