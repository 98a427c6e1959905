"""Which rows of a dataset were added, removed or changed between two sweeps, by sample id."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalrun.canonical import canonical_json
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.parquet import column_names, iter_samples
from evalrun.tracking.plain import plain

SHOWN = 20
"""Rows of each kind that are named."""

_PREFIXES = ("vars.", "sensitive.")
_COLUMNS = ("target", "target_json", "cluster")


@dataclass(frozen=True, slots=True)
class RowChange:
    """A row with the same id and other content: column to (before, after)."""

    sample_id: str
    columns: dict[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class DataDiff:
    """How the rows of one dataset differ. Counts are of all rows; ids and changes are the first few.

    `same` says that the digests agree, and then nothing was read. `note` says why rows could not be compared.
    """

    dataset: str
    same: bool
    added: int = 0
    removed: int = 0
    changed: int = 0
    added_ids: tuple[str, ...] = ()
    removed_ids: tuple[str, ...] = ()
    changes: tuple[RowChange, ...] = field(default=())
    note: str = ""


def diff_data(a: SweepFolder, b: SweepFolder) -> list[DataDiff]:
    """Compare the datasets of two sweeps, those that both have by their rows.

    Rows are read from the samples of one run each: what was not asked of any model is not seen.
    """
    first, second = a.manifest().datasets, b.manifest().datasets
    found = []
    for name in dict.fromkeys([*first, *second]):
        if name not in first or name not in second:
            found.append(DataDiff(name, False, note=f"only in the {'second' if name in second else 'first'}"))
        elif first[name].get("digest") == second[name].get("digest"):
            found.append(DataDiff(name, True))
        else:
            found.append(_diff_rows(name, _samples(a, name), _samples(b, name)))
    return found


def _samples(folder: SweepFolder, dataset: str) -> Path | None:
    for run_id in folder.run_ids():
        path = folder.samples_path(run_id)
        if folder.run(run_id).dataset == dataset and path.exists():
            return path
    return None


def _diff_rows(name: str, a: Path | None, b: Path | None) -> DataDiff:
    if a is None or b is None:
        return DataDiff(name, False, note="the digests differ; no finished run has its samples")
    before, after = _digests(a), _digests(b)
    added = [each for each in after if each not in before]
    removed = [each for each in before if each not in after]
    changed = [each for each in after if each in before and before[each] != after[each]]
    return DataDiff(
        name,
        False,
        len(added),
        len(removed),
        len(changed),
        tuple(added[:SHOWN]),
        tuple(removed[:SHOWN]),
        tuple(_changes(a, b, changed[:SHOWN])),
        "" if added or removed or changed else "the rows are the same: their order or selection differs",
    )


def _digests(path: Path) -> dict[str, bytes]:
    """Eight bytes for the content of each sample id."""
    found: dict[str, bytes] = {}
    for sample_id, content in _rows(path):
        found.setdefault(sample_id, hashlib.sha256(canonical_json(content)).digest()[:8])
    return found


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    wanted = [each for each in column_names(path) if each.startswith(_PREFIXES) or each in _COLUMNS]
    for row in iter_samples(path, columns=["sample_id", *wanted]):
        content = {key: plain(row[key]) for key in wanted if row[key] is not None}
        yield str(row["sample_id"]), content


def _changes(a: Path, b: Path, ids: list[str]) -> Iterator[RowChange]:
    if not ids:
        return
    wanted = set(ids)
    sides: list[dict[str, dict[str, Any]]] = [{}, {}]
    for side, path in zip(sides, (a, b), strict=True):
        for sample_id, content in _rows(path):
            if sample_id in wanted:
                side.setdefault(sample_id, content)
    for each in ids:
        one, other = sides[0][each], sides[1][each]
        columns = {
            key: (one.get(key), other.get(key))
            for key in dict.fromkeys([*one, *other])
            if one.get(key) != other.get(key)
        }
        yield RowChange(each, columns)
