"""The short names of sweeps and runs: `previous`, `latest~1`, numbers, ends of ids, names of axes.

Whatever a list or a table shows of a sweep or a run is taken back where one is asked for.
"""

from __future__ import annotations

import contextlib
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from evalrun.atomic import open_private
from evalrun.errors import UserError
from evalrun.tracking.folder import MANIFEST, SweepFolder, names_of
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.tracking.store import Store

NUMBERS = "numbers"
"""A file of the store: the ids of its sweeps, in the order of their numbers."""

_BACK = re.compile(r"(.+)~(\d{1,6})\Z", re.DOTALL)
_NUMBER = re.compile(r"#?([1-9]\d{0,8})\Z")
_ULID = 26
CUT = "…"
"""Stands in a table for what was cut out of a name."""
_END = 4
"""So many last characters of an id may stand for it: sweeps of one day share the first ones."""


def is_place(name: str) -> bool:
    """Whether a name says a place in the order of sweeps: `previous`, `latest~2`, `12`, `#12`."""
    return name == "previous" or _BACK.match(name) is not None or _NUMBER.match(name) is not None


def short_sweep(store: Store, name: str, folders: Sequence[SweepFolder]) -> SweepFolder | None:
    """The sweep that a short name stands for, or None where it is none.

    `previous` is `latest~1`; X~N is the N-th sweep before X of the same project; `12` and `#12` the 12th of
    the store; four or more last characters of an id that only one sweep has. Raises UserError where it
    is one of these and there is no such sweep.
    """
    if name == "previous":
        return sweep_before(store.resolve("latest"), 1, folders)
    if back := _BACK.match(name):
        return sweep_before(store.resolve(back[1]), int(back[2]), folders)
    if number := _NUMBER.match(name):
        return _numbered(store, int(number[1]), folders)
    if CUT in name:
        cut = [folder for folder in folders if _is(folder.ulid, name.upper())]
        return cut[0] if len(cut) == 1 else None
    if _END <= len(name) < _ULID:
        ends = [folder for folder in folders if folder.ulid.endswith(name.upper())]
        if len(ends) > 1:
            raise UserError(
                f"'{name}' fits {len(ends)} sweeps: {names_of(ends)}",
                remedy="Give more characters of the id.",
            )
        return ends[0] if ends else None
    return None


def sweep_before(sweep: SweepFolder, steps: int, folders: Sequence[SweepFolder]) -> SweepFolder:
    """The sweep that is so many before another of its project; `folders` are the newest first.

    Raises UserError where there are fewer.
    """
    project, left = sweep.manifest().project, steps
    if steps == 0:
        return sweep
    for folder in _of_project(project, (each for each in folders if each.ulid < sweep.ulid)):
        left -= 1
        if left == 0:
            return folder
    raise UserError(
        f"there is no sweep {'before' if steps == 1 else f'{steps} before'} {sweep.path.name} in the project"
        f" '{project}'",
        remedy="`evalrun list` shows the sweeps that there are.",
    )


def _of_project(project: str, folders: Iterator[SweepFolder]) -> Iterator[SweepFolder]:
    for folder in folders:
        with contextlib.suppress(UserError):
            if (folder.path / MANIFEST).exists() and folder.manifest().project == project:
                yield folder


def _numbered(store: Store, number: int, folders: Sequence[SweepFolder]) -> SweepFolder:
    known = read_numbers(store, [folder.ulid for folder in folders])
    match = next((folder for folder in folders if known.get(folder.ulid) == number), None)
    if match is not None and (match.path / MANIFEST).exists():
        return match
    was = "was deleted" if number in known.values() else "is not there"
    raise UserError(
        f"sweep {number} {was}; the store has numbers up to {max(known.values(), default=0)}",
        where=str(store.root),
        remedy="`evalrun list` shows the numbers.",
    )


def read_numbers(store: Store, ids: Sequence[str]) -> dict[str, int]:
    """The number of every sweep, from 1 in the order of their ids; those that had none get the next ones.

    A number stays with its sweep: deleted sweeps keep theirs, and what is copied into the store comes after
    what is there. In a store that cannot be written the numbers hold for this once.
    """
    path = store.root / NUMBERS
    known = _known(path)
    new = sorted(set(ids).difference(known))
    if new:
        with contextlib.suppress(OSError):
            return _enter(path, new)
    return _with(known, new)


def number_of(folder: SweepFolder) -> int | None:
    """The number that a sweep has in its store; None where it has none yet, or lies in no store."""
    return _known(folder.path.parent.parent / NUMBERS).get(folder.ulid)


def _known(path: Path) -> dict[str, int]:
    try:
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return {}
    return _with({}, [line for line in text.split("\n") if len(line) == _ULID])


def _with(known: dict[str, int], new: Sequence[str]) -> dict[str, int]:
    for ulid in new:
        known.setdefault(ulid, len(known) + 1)
    return known


def _enter(path: Path, new: Sequence[str]) -> dict[str, int]:
    """Append the ids that are still new once nobody else writes."""
    import fcntl
    import os

    descriptor = open_private(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    with os.fdopen(descriptor, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        known = _known(path)
        fresh = [ulid for ulid in new if ulid not in known]
        file.write("".join(f"{ulid}\n" for ulid in fresh).encode("ascii"))
    return _with(known, fresh)


# Runs


def pick_run(folder: SweepFolder, name: str) -> list[str]:
    """The finished runs that a name fits; see `fitting`."""
    ids = folder.run_ids()
    return [name] if name in ids else fitting(name, {run_id: axes(folder.run(run_id)) for run_id in ids})


def _is(name: str, said: str) -> bool:
    """Whether a name is what was said, which a table may have cut in the middle."""
    head, cut, tail = said.partition(CUT)
    if not cut:
        return name == said
    return len(name) > len(head) + len(tail) and name.startswith(head) and name.endswith(tail)


def fitting(name: str, runs: Mapping[str, Sequence[str]]) -> list[str]:
    """Of runs (id to what they go by) those that a name fits by the first rule that fits any.

    The id; a beginning of it; names that the run goes by (`rules`, `rules/tickets`,
    `rules · temperature=0.7`); parts of these; parts of the id.
    """
    for fits in (lambda run_id: _is(run_id, name), lambda run_id: bool(name) and run_id.startswith(name)):
        if matches := list(filter(fits, runs)):
            return matches
    parts = [part.casefold() for part in re.split(r"\s*[/·,]\s*|\s+", name.strip()) if part]
    if not parts:
        return []
    said = {run_id: [each.casefold() for each in names] for run_id, names in runs.items()}
    for rule in (_is, operator.contains):
        matches = [
            run_id
            for run_id, names in said.items()
            if all(any(rule(of, part) for of in names) for part in parts)
        ]
        if matches:
            return matches
    return [run_id for run_id in runs if all(part in run_id.casefold() for part in parts)]


class Cell(Protocol):
    """A run, planned or with its results."""

    @property
    def model(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def dataset(self) -> str: ...
    @property
    def params(self) -> Mapping[str, JSON]: ...


def axes(run: Cell) -> list[str]:
    """What a run goes by: model, prompt, dataset, and each parameter as `temperature=0.7`."""
    return [run.model, run.prompt, run.dataset, *params_of(run, [*run.params])]


def params_of(run: Cell, names: Sequence[str]) -> list[str]:
    """These parameters of a run, as far as it has them: `temperature=0.7`."""
    return [f"{name}={plain_value(run.params[name])}" for name in names if name in run.params]


def plain_value(value: JSON) -> str:
    """A parameter's value on one line."""
    if isinstance(value, str):
        return value
    import json

    return json.dumps(value, ensure_ascii=False)
