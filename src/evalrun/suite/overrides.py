"""What the command line changes in a suite before it is validated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TypeAlias

from evalrun.errors import Problem
from evalrun.frozen import frozen
from evalrun.suite.findings import describe, did_you_mean
from evalrun.suite.tree import Node, Place, Unexpanded, expanded, parse_yaml

SECTIONS = ("models", "prompts", "datasets")
"""The axes of the matrix whose entries have ids."""

COMPONENTS = ("parse", "scorers")
"""The lists whose entries go by the name of a component."""

_DATA_SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".json", ".csv", ".parquet")


@frozen
class Overrides:
    """Options of the command line that change a suite.

    `limit` replaces the limit of every dataset. `models`, `prompts`, `datasets` are the ids to keep (None:
    all). `data` points a dataset at a local file, relative to the current folder. `sets` are assignments
    such as "models.smollm2.params.temperature=0.7": keys, indices or ids with dots between, and a YAML value.
    """

    limit: int | None = None
    models: tuple[str, ...] | None = None
    prompts: tuple[str, ...] | None = None
    datasets: tuple[str, ...] | None = None
    data: Mapping[str, Path] = field(default_factory=dict)
    sets: tuple[str, ...] = ()


Identify: TypeAlias = Callable[[Node], str | None]


def apply(
    root: Node, overrides: Overrides, env: Mapping[str, str]
) -> tuple[dict[str, list[str]], list[Problem]]:
    """Change the tree in place.

    Returns the ids that each section had before any were left out, and the problems, each named by its
    option.
    """
    problems: list[Problem] = []

    def identify(node: Node) -> str | None:
        return _identifier(node, env)

    for assignment in overrides.sets:
        problems += _set(root, assignment, identify)
    for dataset, path in overrides.data.items():
        problems += _point_at(root, dataset, Path(path), identify)
    if overrides.limit is not None:
        place = Place(f"--limit {overrides.limit}")
        for entry in _entries(root, "datasets"):
            if isinstance(entry.value, dict):
                entry.value["limit"] = Node(overrides.limit, place, place)
        for entry in _entries(root, "tasks"):
            if isinstance(entry.value, str):
                entry.value = {"lm_eval": Node(entry.value, entry.place, entry.place)}
            if isinstance(entry.value, dict):
                entry.value["limit"] = Node(overrides.limit, place, place)
    declared = {
        section: [name for entry in _entries(root, section) if (name := identify(entry)) is not None]
        for section in SECTIONS
    }
    _keep_tasks(root, overrides)
    for section in SECTIONS:
        wanted: tuple[str, ...] | None = getattr(overrides, section)
        if wanted is not None:
            problems += _keep(root, section, wanted, declared[section], identify)
    return declared, problems


def _entries(root: Node, section: str) -> list[Node]:
    node = root.child(section)
    return node.value if node is not None and isinstance(node.value, list) else []


def _identifier(node: Node, env: Mapping[str, str]) -> str | None:
    """What a list entry is called: its id, or a component's name."""
    if isinstance(node.value, dict):
        inner = node.value.get("id")
        if inner is not None:
            return _identifier(inner, env) if not isinstance(inner.value, dict | list) else None
        return next(iter(node.value)) if len(node.value) == 1 else None
    if isinstance(node.value, Unexpanded):
        return expanded(node.value.text, env)
    return node.value if isinstance(node.value, str) else None


def _keep(
    root: Node, section: str, wanted: Sequence[str], declared: list[str], identify: Identify
) -> list[Problem]:
    option = f"--{section} {','.join(wanted)}"
    if section == "datasets":
        tasks = [name for entry in _entries(root, "tasks") if (name := _task_name(entry)) is not None]
        wanted = [name for name in wanted if name not in tasks or name in declared]
        if tasks and not wanted:
            if (node := root.child(section)) is not None and isinstance(node.value, list):
                node.value = []
                for key in ("prompts", "datasets", "scorers"):
                    if isinstance(root.value, dict):
                        root.value.pop(key, None)
            return []
    if section == "models":  # triage@500 is a checkpoint of the model triage: which there are is known later
        wanted = [name if name in declared else name.partition("@")[0] for name in wanted]
    unknown = [name for name in wanted if name not in declared]
    if unknown or not wanted:
        singular = section.removesuffix("s")
        return [
            Problem(f"the suite has no {singular} '{name}'", option, did_you_mean(name, declared))
            for name in unknown
        ] or [Problem("names nothing to keep", f"--{section}", did_you_mean("", declared))]
    node = root.child(section)
    if node is not None and isinstance(node.value, list):
        node.value = [entry for entry in node.value if identify(entry) in wanted]
    return []


def _keep_tasks(root: Node, overrides: Overrides) -> None:
    """Leave out tasks that --datasets does not name; a suite without any is asked for nothing else."""
    wanted = overrides.datasets
    node = root.child("tasks")
    if wanted is None or node is None or not isinstance(node.value, list):
        return
    node.value = [entry for entry in node.value if _task_name(entry) in wanted]


def _task_name(node: Node) -> str | None:
    """The id of an entry of `tasks`, else lm_eval's name."""
    if isinstance(node.value, dict):
        inner = node.value.get("id") or node.value.get("lm_eval")
        return inner.value if inner is not None and isinstance(inner.value, str) else None
    return node.value if isinstance(node.value, str) else None


def _point_at(root: Node, name: str, path: Path, identify: Identify) -> list[Problem]:
    """Turn a dataset's source into a local file; everything that is not about the source stays."""
    place = Place(f"--data {name}={path}")
    entries = _entries(root, "datasets")
    for entry in entries:
        if identify(entry) != name or not isinstance(entry.value, dict):
            continue
        if (records := entry.value.get("traffic")) is not None and isinstance(records.value, dict):
            records.value["path"] = Node(str(path.expanduser().absolute()), place, place)
            return []
        for key in ("hub", "rows", "config", "revision", "split"):
            entry.value.pop(key, None)
        if path.name.lower().endswith(_DATA_SUFFIXES):
            entry.value.pop("format", None)
        entry.value["path"] = Node(str(path.expanduser().absolute()), place, place)
        return []
    if _entries(root, "tasks"):
        _point_task_at(root, name, path, place)
        return []
    known = [found for entry in entries if (found := identify(entry)) is not None]
    return [Problem(f"the suite has no dataset '{name}'", str(place), did_you_mean(name, known))]


def _point_task_at(root: Node, task: str, path: Path, place: Place) -> None:
    """Put the files of a task (test.jsonl,train=train.jsonl) under `task_files`."""
    files: dict[str, Node] = {}
    for part in str(path).split(","):
        split, equals, file = part.partition("=")
        if not equals:
            split, file = "test", part
        files[split.strip()] = Node(str(Path(file.strip()).expanduser().absolute()), place, place)
    known = root.child("task_files")
    named = dict(known.value) if known is not None and isinstance(known.value, dict) else {}
    named[task] = Node(files, place, place)
    if isinstance(root.value, dict):
        root.value["task_files"] = Node(named, place, place)


def _set(root: Node, assignment: str, identify: Identify) -> list[Problem]:
    dotted, equals, text = assignment.partition("=")
    steps = dotted.strip().split(".")
    if not equals or not all(steps):
        remedy = "Write it as path=value, for example models.0.params.temperature=0.7."
        return [Problem(f"'{dotted}' is not an assignment", "--set", remedy)]
    option = Place(f"--set {dotted.strip()}")
    value, problems = parse_yaml(text, option.source, lines=False)
    if problems:
        remedy = "Put the value in quotes, within those of the shell, where text is meant."
        return [Problem(item.what, item.where, remedy) for item in problems]
    value = value or Node(None, option)
    value.key_place = option
    try:
        _assign(root, steps, value, identify)
    except _NoSuchPlaceError as error:
        return [Problem(error.what, option.source, error.remedy)]
    return []


class _NoSuchPlaceError(Exception):
    def __init__(self, what: str, remedy: str) -> None:
        self.what, self.remedy = what, remedy


def _assign(root: Node, steps: list[str], value: Node, identify: Identify) -> None:
    """Put a value at the path below the tree's root; mappings on the way are made where there are none."""
    node, done = root, 0
    while True:
        rest = steps[done:]
        if isinstance(node.value, list):
            index, taken = _choose(node.value, rest, ".".join(steps[:done]), identify)
            entry = node.value[index]
            name = ".".join(rest[:taken])
            if done != 1 or steps[0] not in COMPONENTS or not _is_component(entry, name):
                done += taken
                if done == len(steps):
                    node.value[index] = value
                    return
                node = entry
                continue
            if isinstance(entry.value, str):  # `exact_match` becomes `exact_match: {...}`
                entry.value = {name: Node(None, value.place, value.place)}
            node = entry
        if not isinstance(node.value, dict):
            path = ".".join(steps[:done])
            what = f"{path} is {describe(node.plain())}, with nothing below it"
            raise _NoSuchPlaceError(what, f"Set {path} itself.")
        key, taken = _longest(steps[done:], node.value) or (steps[done], 1)
        done += taken
        if done == len(steps):
            node.value[key] = value
            return
        below = node.value.get(key)
        if below is None or below.value is None:
            below = node.value[key] = Node({}, value.place, value.place)
        node = below


def _longest(steps: Sequence[str], names: Collection[str]) -> tuple[str, int] | None:
    """The longest run of steps that is a known name (ids may hold dots), and its length."""
    for count in range(len(steps), 0, -1):
        if (name := ".".join(steps[:count])) in names:
            return name, count
    return None


def _choose(entries: list[Node], steps: Sequence[str], path: str, identify: Identify) -> tuple[int, int]:
    """The index of the list entry that the next steps name, and how many steps that takes."""
    names = [identify(entry) for entry in entries]
    found = _longest(steps, [name for name in names if name is not None])
    if found is not None:
        return names.index(found[0]), found[1]
    if steps[0].isdecimal() and int(steps[0]) < len(entries):
        return int(steps[0]), 1
    remedy = did_you_mean(steps[0], [name for name in names if name is not None])
    if steps[0].isdecimal():
        remedy = f"It has {len(entries)}, counted from 0."
    raise _NoSuchPlaceError(f"{path} has no entry '{steps[0]}'", remedy)


def _is_component(entry: Node, name: str) -> bool:
    """Whether an entry is a parser or scorer that is called by this name (not by its index)."""
    if isinstance(entry.value, dict):
        return set(entry.value) == {name} and name != "id"
    return entry.value == name
