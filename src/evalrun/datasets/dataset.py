"""A dataset as the runner reads it: selected, checked, named, and read anew each time it is gone through."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from evalrun.canonical import canonical_json
from evalrun.datasets.shape import BadRow, Item, Shape
from evalrun.datasets.source import Findings, Source, open_source
from evalrun.datasets.survey import ID_DIGITS, Chosen, Selection, Survey
from evalrun.datasets.versions import Versions
from evalrun.errors import UserError
from evalrun.types import JSON, Row

if TYPE_CHECKING:
    from evalrun.suite.dataset import DatasetSpec


class StoresRows(Protocol):
    """Says what is stored of rows."""

    def identity(self, sample_id: str, row: Row) -> str:
        """The id under which a sample is stored."""
        ...

    def row(self, row: Row) -> dict[str, JSON]:
        """What is stored of a row."""
        ...


class Dataset:
    """Rows that were read through once and found good.

    `columns` are those that every selected row has, derived ones included; `partial` has the others, each
    with a place where it is missing. `nulls` are the columns that are null in some rows: in how many, and
    where first. `binary` are columns that hold bytes; of a mapping, which of its keys do. `digest` is the
    SHA-256 over the selected rows and targets in order; `source` says where they came from; `warnings` what a
    person should know of them.
    Going through it gives the same items in the same order every time, and keeps none of them.
    """

    def __init__(self, name: str, source: Source, shape: Shape, selection: Selection) -> None:
        survey = Survey(name, source, shape, selection)
        self._chosen: Chosen = survey.run()
        self._source, self._shape = source, shape
        self.id = name
        self.columns = tuple(each for each in survey.presence.columns if each not in shape.withheld)
        self.partial = {column: source.place(at) for column, at in survey.presence.partial.items()}
        self.digest = self._chosen.digest
        self.warnings: list[str] = [*source.warnings, *survey.warnings]
        self.nulls = {column: (count, source.place(at)) for column, (count, at) in survey.nulls.items()}
        self.binary = survey.binary
        self.source: dict[str, JSON] = source.describe()
        self.redactor: StoresRows | None = None
        """What becomes of ids and rows that are personal; None where they are stored as they are."""

    def __len__(self) -> int:
        return self._chosen.count

    def __iter__(self) -> Iterator[Item]:
        """The selected items. Raises UserError when the file has changed since it was opened."""
        for item, _ in self._selected():
            yield item

    def source_rows(self) -> Iterator[dict[str, JSON]]:
        """The selected rows as the source has them, before columns are made and versions of them; where a
        `redactor` is set, as they may be stored."""
        for _, row in self._selected():
            yield row if self.redactor is None else self.redactor.row(row)

    def withheld_groups(self) -> dict[str, dict[str, str | None]]:
        """The groups in columns that are not stored, read from the source anew: column to group by sample id.

        They are for aggregates only, and must not be written anywhere.
        """
        found: dict[str, dict[str, str | None]] = {name: {} for name in sorted(self._shape.withheld)}
        for item, row in self._selected() if found else ():
            groups = self._shape.withheld_groups(self._shape.complete(row))
            for sample_id in self._ids_of(item, row):
                for name, group in groups.items():
                    found[name][sample_id] = group
        return found

    def _ids_of(self, item: Item, row: dict[str, JSON]) -> list[str]:
        """The ids of the samples that are made from a selected row."""
        return [item.sample_id]

    def _selected(self) -> Iterator[tuple[Item, dict[str, JSON]]]:
        """The selected items, each with its row as the source has it."""
        self._source.check_unchanged()
        rows = self._found_again() if self._chosen.numbers else self._read_again()
        count = 0
        try:
            for number, row, full in islice(rows, self._chosen.count):
                sample_id = self._sample_id(number, row, full)
                if self.redactor is not None:
                    sample_id = self.redactor.identity(sample_id, full)
                yield self._shape.item(sample_id, count, full), row
                count += 1
        except BadRow as error:
            self._source.check_unchanged()
            raise UserError(str(error), where=f"dataset {self.id}") from error
        if count != self._chosen.count:
            self._source.check_unchanged()
            raise UserError("rows that were there before are gone", where=f"dataset {self.id}")

    def _read_again(self) -> Iterator[tuple[int, dict[str, JSON], dict[str, JSON]]]:
        findings = Findings()
        for number, _, row in self._source.records(findings):
            findings.raise_if_any()
            full = self._shape.complete(row)
            if self._shape.keeps(full) and self._shape.in_part(full, row):
                yield number, row, full

    def _found_again(self) -> Iterator[tuple[int, dict[str, JSON], dict[str, JSON]]]:
        chosen = self._chosen
        find = chosen.spool.read if chosen.spool else self._source.read_at
        for number, row in zip(chosen.numbers, find(iter(chosen.places)), strict=False):
            yield number, row, self._shape.complete(row)

    def _sample_id(self, number: int, row: dict[str, JSON], full: dict[str, JSON]) -> str:
        key = self._shape.key_of(full)
        if key is not None:
            return key
        digits = hashlib.sha256(canonical_json(row)).hexdigest()[:ID_DIGITS]
        occurrence = self._chosen.occurrences.get(number)
        return f"{digits}-{occurrence}" if occurrence else digits


def open_dataset(
    spec: DatasetSpec, base_dir: Path, seed: int, split: str | None = None, store: Path | None = None
) -> Dataset:
    """Read a dataset through once: check every row that will be used, name and count them.

    Relative paths start at `base_dir`. With `split`, one of the dataset's further splits is opened for
    few-shot examples: the same columns, target, key and filter apply, limit, shuffle, groups and clusters
    do not. Without a shuffle, reading stops at the limit, and what stands behind it is not looked at. `store`
    has the key of pseudonyms, for production records.

    Raises UserError with all problems found, each with file and line; the first ten in full.
    """
    examples = split is not None
    selection = Selection(
        limit=None if examples else spec.limit, shuffle=spec.shuffle and not examples, seed=seed
    )
    shape = Shape(spec, examples=examples)
    source = open_source(spec, base_dir, split, store)
    if not examples and (spec.counterfactual or spec.perturb):
        from evalrun.datasets.versions import open_versions

        return VersionedDataset(spec.id, source, shape, selection, open_versions(spec, base_dir, seed))
    return Dataset(spec.id, source, shape, selection)


def open_examples(spec: DatasetSpec, path: Path, base_dir: Path) -> Dataset:
    """Open a file of few-shot examples with the settings of the dataset that they are for.

    Raises UserError as `open_dataset` does.
    """
    plain = spec.model_copy(
        update={
            "path": path,
            "hub": None,
            "rows": None,
            "traffic": None,
            "format": None,
            "config": None,
            "revision": None,
        }
    )
    selection = Selection(limit=None, shuffle=False, seed=0)
    return Dataset(spec.id, open_source(plain, base_dir), Shape(spec, examples=True), selection)


class VersionedDataset(Dataset):
    """Every row of a dataset in all its versions, one after the other.

    The rows are selected as without versions: a limit counts rows. A version's id is the row's id and what
    sets it apart (`7~name=Emily`); the original of a perturbed row, and a row that no version changes, keep
    the plain id. The value of each attribute is among the groups, and the row's id is the cluster unless the
    dataset names one. Opening it makes every version once, so that what cannot be made is known before any
    model is asked.
    """

    def __init__(
        self, name: str, source: Source, shape: Shape, selection: Selection, versions: Versions
    ) -> None:
        super().__init__(name, source, shape, selection)
        self._versions = versions
        self._rows = self._chosen.count
        self._count = self._check()
        identity = canonical_json({"rows": self.digest, "versions": versions.identity})
        self.digest = hashlib.sha256(identity).hexdigest()
        self.source = {**self.source, "rows": self._rows, "versions": versions.identity}

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        """The items in all versions. Raises UserError when the file has changed since it was opened."""
        position = 0
        for item, row in self._selected():
            for version in self._expand(item, row):
                yield replace(version, position=position)
                position += 1

    def _expand(self, item: Item, row: dict[str, JSON]) -> Iterator[Item]:
        """The versions of one row. Raises BadRow."""
        base = item.sample_id
        for suffix, labels, changed in self._versions.of(row, base):
            full = self._shape.complete(changed)
            keeps = self._versions.keeps_target
            made = replace(item, row=self._shape.visible(full)) if keeps else self._shape.item(base, 0, full)
            yield replace(
                made,
                sample_id=base + suffix,
                sensitive={**made.sensitive, **labels},
                cluster=item.cluster or base,
                base=base,
            )

    def _ids_of(self, item: Item, row: dict[str, JSON]) -> list[str]:
        return [version.sample_id for version in self._expand(item, row)]

    def _check(self) -> int:
        """Make every version once; their number. Raises UserError with what is wrong."""
        findings = Findings()
        count, alone = 0, 0
        for item, row in self._selected():
            try:
                made = [version.sample_id for version in self._expand(item, row)]
            except BadRow as error:
                findings.add(str(error), f"dataset {self.id}, sample '{item.sample_id}'")
                continue
            if "~" in item.sample_id and any(
                f"~{axis.name}=" in item.sample_id for axis in self._versions.axes
            ):
                findings.add(
                    f"the sample's id '{item.sample_id}' reads like that of a version", f"dataset {self.id}"
                )
            count += len(made)
            alone += len(made) == 1
        findings.raise_if_any()
        if alone:
            what = "row has" if alone == 1 else "rows have"
            self.warnings.append(
                f"{alone:,} of {self._rows:,} {what} one version only: nothing changes in it"
            )
        return count
