"""The samples of a run as versions of each other: which belong together, and one value for each version.

A unit is a row of the dataset with the values of the other attributes held fixed; it has a value in each
version along one axis. Units are paired; clusters (rows, or what the dataset names) are what was drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.table import STATUS_CODES, SampleTable
from evalrun.suite.dataset import ORIGINAL, PERTURB
from evalrun.types import Status

if TYPE_CHECKING:
    from evalrun.suite.dataset import DatasetSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def axes_of(spec: DatasetSpec) -> dict[str, tuple[str, ...]]:
    """The axes along which a dataset's samples have versions: name to the versions in order."""
    if spec.perturb:
        return {PERTURB: (ORIGINAL, *(each.id for each in spec.perturb))}
    return {name: tuple(each.values) for name, each in spec.counterfactual.items()}


@dataclass(frozen=True)
class Versioned:
    """One axis of a run. `unit` and `version` have one code a sample, -1 where it has no version."""

    axis: str
    versions: tuple[str, ...]
    unit: Ints
    version: Ints
    bases: tuple[str, ...]
    table: SampleTable

    @classmethod
    def of(cls, table: SampleTable, axes: Mapping[str, Sequence[str]], axis: str) -> Versioned:
        """The units along one of the axes of a dataset."""
        size = len(table)
        labels: dict[str, Sequence[str | None]] = {}
        for name in axes:
            column = table.sensitive.get(name)
            labels[name] = (
                [None] * size
                if column is None
                else [None if code < 0 else column.labels[code] for code in column.codes.tolist()]
            )
        keys: dict[tuple[str | None, ...], int] = {}
        unit, bases = np.full(size, -1, np.int64), []
        version = np.full(size, -1, np.int64)
        order = {name: at for at, name in enumerate(axes[axis])}
        for row, sample_id in enumerate(table.sample_ids()):
            mine = labels[axis][row]
            if mine is None or mine not in order:
                continue
            values = {name: labels[name][row] for name in axes}
            base = sample_id.removesuffix(_suffix(values))
            key = (base, *(value for name, value in values.items() if name != axis))
            if key not in keys:
                keys[key] = len(keys)
                bases.append(base)
            unit[row], version[row] = keys[key], order[mine]
        return cls(axis, tuple(axes[axis]), unit, version, tuple(bases), table)

    @property
    def size(self) -> int:
        """The number of units."""
        return len(self.bases)

    @cached_property
    def clusters(self) -> Ints | None:
        """The cluster of each unit, or None where every unit is one of its own."""
        if self.table.clusters is None:
            return None
        codes = np.zeros(self.size, np.int64)
        rows = np.flatnonzero(self.unit >= 0)
        codes[self.unit[rows]] = self.table.clusters[rows]
        return codes if len(np.unique(codes)) < self.size else None

    def matrix(self, values: Floats, keep: Mask) -> Floats:
        """Mean over repeats for each unit and version, shape (units, versions); NaN where there is none."""
        keep = keep & (self.unit >= 0) & ~np.isnan(values)
        width = len(self.versions)
        cell = self.unit[keep] * width + self.version[keep]
        count = np.bincount(cell, minlength=self.size * width)
        sums = np.bincount(cell, weights=values[keep], minlength=self.size * width)
        means: Floats = np.divide(sums, count, out=np.full(len(sums), np.nan), where=count > 0)
        return means.reshape(self.size, width)

    @cached_property
    def outcomes(self) -> Ints:
        """What each sample came to: the code of its answer, one code for unparsed, one for refused; -1
        where it failed."""
        answers, _ = self.table.texts()
        codes = answers.codes.astype(np.int64)
        size = len(answers.labels)
        codes[codes < 0] = size
        codes[self.table.is_status(Status.UNPARSED)] = size + 1
        codes[self.table.is_status(Status.REFUSED)] = size + 2
        codes[np.equal(self.table.status, STATUS_CODES[Status.FAILED])] = -1
        return codes

    def outcome_name(self, code: int) -> str:
        """An outcome in words."""
        labels = self.table.texts()[0].labels
        extra = ("(no answer)", "(unparsed)", "(refused)")
        return labels[code] if code < len(labels) else extra[code - len(labels)]

    @cached_property
    def shares(self) -> list[tuple[Ints, Floats, Ints]]:
        """For each version: keys (unit x outcomes + outcome), their share of the repeats, and of each unit
        the number of repeats."""
        width = int(self.outcomes.max(initial=0)) + 1
        found = []
        for version in range(len(self.versions)):
            keep = (self.version == version) & (self.outcomes >= 0)
            keys, counts = np.unique(self.unit[keep] * width + self.outcomes[keep], return_counts=True)
            repeats = np.bincount(self.unit[keep], minlength=self.size)
            found.append((keys, counts / repeats[keys // width], repeats))
        return found

    def flips(self, one: int, other: int) -> Floats:
        """For each unit the share of pairs of repeats whose outcomes differ; NaN where one is missing."""
        width = int(self.outcomes.max(initial=0)) + 1
        (keys_a, share_a, n_a), (keys_b, share_b, n_b) = self.shares[one], self.shares[other]
        common, at_a, at_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
        agree = np.bincount(common // width, weights=share_a[at_a] * share_b[at_b], minlength=self.size)
        return np.where((n_a > 0) & (n_b > 0), np.clip(1 - agree, 0, 1), np.nan)

    def resampled(self, version: int) -> Floats:
        """For each unit the share of pairs of its repeats in one version whose outcomes differ; NaN where
        there are no two."""
        width = int(self.outcomes.max(initial=0)) + 1
        keys, share, n = self.shares[version]
        repeats = n[keys // width]
        counts = share * repeats
        with np.errstate(invalid="ignore", divide="ignore"):
            same = np.bincount(
                keys // width, weights=counts * (counts - 1) / (repeats * (repeats - 1)), minlength=self.size
            )
        return np.where(n > 1, 1 - same, np.nan)


def _suffix(values: Mapping[str, str | None]) -> str:
    """What the id of a version ends in: as `datasets.versions` makes it."""
    return "".join(
        f"~{name}={value}"
        for name, value in values.items()
        if value is not None and not (name == PERTURB and value == ORIGINAL)
    )
