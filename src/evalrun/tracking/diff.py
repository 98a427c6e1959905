"""What changed between two sweeps: the suite, models, prompts, data, packages, machine and code."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from evalrun.tracking.data_diff import DataDiff, diff_data
from evalrun.tracking.entries import flatten
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.model import SweepManifest
from evalrun.types import JSON

_WORD = re.compile(r"\s+|\w+|[^\w\s]")
_MOST_WORDS = 20_000
_CODE = ("git.commit", "git.branch", "git.dirty", "git.diff.sha256")


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs. None stands for what one side does not have."""

    name: str
    before: JSON
    after: JSON


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a text: in both, only before ("removed") or only after ("added")."""

    kind: Literal["same", "removed", "added"]
    text: str


@dataclass(frozen=True, slots=True)
class PromptDiff:
    """How one text of a prompt (its template, a message or an include) differs, word by word."""

    prompt: str
    text: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
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


def diff_sweeps(a: SweepFolder, b: SweepFolder) -> SweepDiff:
    """Compare two sweeps by their folders alone. Raises UserError where one cannot be read."""
    first, second = a.manifest(), b.manifest()
    one, other = first.provenance, second.provenance
    return SweepDiff(
        a=a.ulid,
        b=b.ulid,
        suite=_changes(_suite(first), _suite(second)),
        models=_changes(first.models, second.models),
        prompts=tuple(_prompts(first, second)),
        data=tuple(diff_data(a, b)),
        packages=_changes(_packages(one), _packages(other)),
        machine=_changes(_part(one, "machine", "python"), _part(other, "machine", "python")),
        code=tuple(
            each
            for each in _changes(_part(one, "git", "evalrun"), _part(other, "git", "evalrun"))
            if each.name in (*_CODE, "evalrun")
        ),
    )


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
