"""A dataset whose samples are asked in several versions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from evalrun.canonical import canonical_json
from evalrun.datasets.dataset import Dataset
from evalrun.datasets.findings import Findings
from evalrun.datasets.item import Item
from evalrun.datasets.shape import BadRow, Shape
from evalrun.datasets.source import Source
from evalrun.datasets.survey import Selection
from evalrun.datasets.versions import Versions
from evalrun.types import JSON


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
