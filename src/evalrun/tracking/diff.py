"""What changed between two sweeps: the suite, models, prompts, data, packages, machine and code."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from evalrun.canonical import canonical_json
from evalrun.frozen import frozen
from evalrun.served import KINDS
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.model import SweepManifest
from evalrun.tracking.parquet import column_names, iter_samples
from evalrun.tracking.plain import flatten, plain
from evalrun.types import JSON

SHOWN = 20
"""Rows of each kind that are named."""

_PREFIXES = ("vars.", "sensitive.")
_COLUMNS = ("target", "target_json", "cluster")


@frozen
class RowChange:
    """A row with the same id and other content: column to (before, after)."""

    sample_id: str
    columns: dict[str, tuple[Any, Any]]


@frozen
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
            found.append(_diff_rows(name, _samples_of(a, name), _samples_of(b, name)))
    return found


def _samples_of(folder: SweepFolder, dataset: str) -> Path | None:
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
        tuple(_row_changes(a, b, changed[:SHOWN])),
        "" if added or removed or changed else "the rows are the same: their order or selection differs",
    )


def _digests(path: Path) -> dict[str, bytes]:
    """Eight bytes for the content of each sample id."""
    found: dict[str, bytes] = {}
    for sample_id, content in _rows(path):
        found.setdefault(sample_id, hashlib.sha256(canonical_json(content)).digest()[:8])
    return found


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    wanted = [name for name in column_names(path) if name.startswith(_PREFIXES) or name in _COLUMNS]
    for row in iter_samples(path, columns=["sample_id", *wanted]):
        content = {key: plain(row[key]) for key in wanted if row[key] is not None}
        yield str(row["sample_id"]), content


def _row_changes(a: Path, b: Path, ids: list[str]) -> Iterator[RowChange]:
    if not ids:
        return
    wanted = set(ids)
    sides: list[dict[str, dict[str, Any]]] = [{}, {}]
    for side, path in zip(sides, (a, b), strict=True):
        for sample_id, content in _rows(path):
            if sample_id in wanted:
                side.setdefault(sample_id, content)
    for id_ in ids:
        one, other = sides[0][id_], sides[1][id_]
        columns = {
            key: (one.get(key), other.get(key))
            for key in dict.fromkeys([*one, *other])
            if one.get(key) != other.get(key)
        }
        yield RowChange(id_, columns)


_WORD = re.compile(r"\s+|\w+|[^\w\s]")
_MOST_WORDS = 20_000
_CODE = ("git.commit", "git.branch", "git.dirty", "git.diff.sha256")


@frozen
class Change:
    """One value that differs. None stands for what one side does not have."""

    name: str
    before: JSON
    after: JSON


@frozen
class Piece:
    """A piece of a text: in both, only before ("removed") or only after ("added")."""

    kind: Literal["same", "removed", "added"]
    text: str


@frozen
class PromptDiff:
    """How one text of a prompt (its template, a message or an include) differs, word by word."""

    prompt: str
    text: str
    pieces: tuple[Piece, ...]


@frozen
class SweepDiff:
    """All that differs between two sweeps. Empty tuples where nothing does; `data` names every dataset."""

    a: str
    b: str
    suite: tuple[Change, ...]
    models: tuple[Change, ...]
    prompts: tuple[PromptDiff, ...]
    data: tuple[DataDiff, ...]
    packages: tuple[Change, ...]
    machine: tuple[Change, ...]
    code: tuple[Change, ...]

    @property
    def same(self) -> bool:
        """Whether nothing at all differs."""
        parts = (self.suite, self.models, self.prompts, self.packages, self.machine, self.code)
        return not any(parts) and all(each.same for each in self.data)

    def rows(self) -> list[dict[str, Any]]:
        """One row a difference: `part`, `name`, `before`, `after`. Of changed datasets, the rows that are
        named (`DATASET/SAMPLE`); null on the side that lacks one."""
        parts = ("suite", "models", "packages", "machine", "code")
        rows = [
            {"part": part, "name": change.name, "before": change.before, "after": change.after}
            for part in parts
            for change in getattr(self, part)
        ]
        for prompt in self.prompts:
            sides = (
                "".join(piece.text for piece in prompt.pieces if piece.kind in ("same", side))
                for side in ("removed", "added")
            )
            rows.append({"part": "prompts", "name": f"{prompt.prompt}.{prompt.text}", **_sides(*sides)})
        for data in self.data:
            named = [(sample, _sides("in the dataset", None)) for sample in data.removed_ids]
            named += [(sample, _sides(None, "in the dataset")) for sample in data.added_ids]
            for change in data.changes:
                values = change.columns.items()
                named += [(f"{change.sample_id}.{name}", _sides(*pair)) for name, pair in values]
            rows += [{"part": "data", "name": f"{data.dataset}/{name}", **pair} for name, pair in named]
        return rows


def _sides(before: Any, after: Any) -> dict[str, Any]:
    return {"before": before, "after": after}


def diff_sweeps(a: SweepFolder, b: SweepFolder) -> SweepDiff:
    """Compare two sweeps by their folders alone. Raises UserError where one cannot be read."""
    first, second = a.manifest(), b.manifest()
    one, other = first.provenance, second.provenance
    return SweepDiff(
        a=a.ulid,
        b=b.ulid,
        suite=_changes(_suite(first), _suite(second)),
        models=(*_changes(first.models, second.models), *_served(first, second)),
        prompts=tuple(_prompts(first, second)),
        data=tuple(diff_data(a, b)),
        packages=_changes(_packages(one), _packages(other)),
        machine=_changes(_part(one, "machine", "python"), _part(other, "machine", "python")),
        code=tuple(
            change
            for change in _changes(_part(one, "git", "evalrun"), _part(other, "git", "evalrun"))
            if change.name in (*_CODE, "evalrun")
        ),
    )


def _served(first: SweepManifest, second: SweepManifest) -> list[Change]:
    """What servers called the models; where one side does not say, that is no change."""
    found = []
    for model, before in first.served.items():
        after = second.served.get(model) or {}
        for kind, word in KINDS.items():
            one, other = before.get(kind), after.get(kind)
            if one and other and one != other:
                found.append(Change(f"{model}.{word}", one, other))
    return found


def word_diff(before: str, after: str) -> tuple[Piece, ...]:
    """The difference of two texts by words, blanks and signs; whole lines where the texts are very long."""
    pattern = _WORD if len(before) + len(after) < 8 * _MOST_WORDS else re.compile(r".*\n?")
    left = [each for each in pattern.findall(before) if each]
    right = [each for each in pattern.findall(after) if each]
    pieces: list[Piece] = []
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            pieces.append(Piece("same", "".join(left[i:j])))
            continue
        if j > i:
            pieces.append(Piece("removed", "".join(left[i:j])))
        if m > k:
            pieces.append(Piece("added", "".join(right[k:m])))
    return tuple(pieces)


def _prompts(first: SweepManifest, second: SweepManifest) -> list[PromptDiff]:
    found = []
    for name in dict.fromkeys([*first.prompts, *second.prompts]):
        one, other = _texts(first, name), _texts(second, name)
        for part in dict.fromkeys([*one, *other]):
            before, after = one.get(part, ""), other.get(part, "")
            if before != after:
                found.append(PromptDiff(name, part, word_diff(before, after)))
    return found


def _texts(manifest: SweepManifest, prompt: str) -> dict[str, str]:
    source = manifest.prompts.get(prompt, {}).get("source")
    return {str(key): str(value) for key, value in source.items()} if isinstance(source, Mapping) else {}


def _suite(manifest: SweepManifest) -> dict[str, JSON]:
    """The resolved suite with lists of things that have an id as objects by id: order is no change.

    Prompt texts are left to the word diff.
    """
    resolved = manifest.suite.resolved
    if not isinstance(resolved, Mapping):
        return {}
    keyed = {key: _by_id(value) for key, value in resolved.items()}
    if isinstance(keyed.get("prompts"), Mapping):
        keyed["prompts"] = {
            name: {key: value for key, value in prompt.items() if key not in ("text", "messages", "system")}
            for name, prompt in keyed["prompts"].items()
        }
    return keyed


def _by_id(value: JSON) -> JSON:
    if (
        isinstance(value, list)
        and value
        and all(isinstance(each, Mapping) and "id" in each for each in value)
    ):
        return {str(each["id"]): each for each in value}
    return value


def _packages(provenance: Mapping[str, JSON]) -> dict[str, JSON]:
    packages = provenance.get("packages")
    return {
        str(each["name"]): each.get("version")
        for each in (packages if isinstance(packages, list) else ())
        if isinstance(each, Mapping) and "name" in each
    }


def _part(provenance: Mapping[str, JSON], *names: str) -> dict[str, JSON]:
    return {name: provenance[name] for name in names if name in provenance}


def _changes(before: Mapping[str, JSON], after: Mapping[str, JSON]) -> tuple[Change, ...]:
    one, other = dict(flatten(before)), dict(flatten(after))
    return tuple(
        Change(name, one.get(name), other.get(name))
        for name in dict.fromkeys([*one, *other])
        if one.get(name) != other.get(name)
    )
