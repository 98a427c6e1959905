"""What the schema alone cannot see: ids that repeat, files that are not there, groups that no dataset has.

These look at the data as written, not at the validated suite, so that they are reported together with
everything else that is wrong. Whatever has the wrong type is left to the schema.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from evalrun.registry import nearest
from evalrun.suite.findings import DataPath, Finding, did_you_mean
from evalrun.suite.sensitive import column_name
from evalrun.suite.versions import PERTURB


def check_data(
    data: Mapping[str, Any], base_dir: Path | None, declared: Mapping[str, Sequence[str]] | None
) -> list[Finding]:
    """Everything that is wrong across entries.

    `base_dir` is where relative paths start (None: files are not looked for); `declared` gives the ids of
    each section before the command line left any out (None: those in the data).
    """
    found = [
        *_repeated_ids(data),
        *_fairness_columns(data),
        *_filters(data, declared),
        *_repeated_sweep_values(data),
    ]
    if base_dir is not None:
        found += _files(data, base_dir)
    return found


def _entries(data: Mapping[str, Any], section: str) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = data.get(section)
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            yield index, entry


def _repeated_ids(data: Mapping[str, Any]) -> Iterator[Finding]:
    models: dict[str, str] = {}  # a judge is named like a model: the two share their ids
    for section in ("models", "judges", "prompts", "datasets"):
        seen = models if section in ("models", "judges") else {}
        for index, entry in _entries(data, section):
            name = entry.get("id")
            if not isinstance(name, str):
                continue
            if name.casefold() in seen:
                other = seen[name.casefold()]
                what = f"the id '{name}' is used twice among the {section}"
                if other != name:
                    what = f"the ids '{other}' and '{name}' differ only in case"
                yield Finding((section, index, "id"), what, "Ids name files and results: choose another.")
            seen.setdefault(name.casefold(), name)


def _fairness_columns(data: Mapping[str, Any]) -> Iterator[Finding]:
    sensitive = {
        column
        for _, entry in _entries(data, "datasets")
        if isinstance(entry.get("sensitive"), list)
        for column in map(column_name, entry["sensitive"])
        if column is not None
    } | _version_columns(data)
    for path, column in _compared_columns(data.get("fairness")):
        if column not in sensitive:
            remedy = (
                did_you_mean(column, sorted(sensitive)) or "Add it to the 'sensitive' columns of a dataset."
            )
            yield Finding(path, f"no dataset lists '{column}' as sensitive", remedy)


def _compared_columns(fairness: Any) -> Iterator[tuple[DataPath, str]]:
    """Every sensitive column that the fairness section names, with its place."""
    if not isinstance(fairness, dict):
        return
    for key in ("by", "control"):
        columns = fairness.get(key)
        for index, column in enumerate(columns if isinstance(columns, list) else []):
            if isinstance(column, str):
                yield ("fairness", key, index), column
    crossed = fairness.get("intersections")
    for index, columns in enumerate(crossed if isinstance(crossed, list) else []):
        for number, column in enumerate(columns if isinstance(columns, list) else []):
            if isinstance(column, str):
                yield ("fairness", "intersections", index, number), column


def _version_columns(data: Mapping[str, Any]) -> set[str]:
    """What the versions of counterfactual samples differ in: each is a column of groups too."""
    return {
        name
        for _, entry in _entries(data, "datasets")
        if isinstance(entry.get("counterfactual"), dict)
        for name in entry["counterfactual"]
        if isinstance(name, str)
    } | {PERTURB for _, entry in _entries(data, "datasets") if entry.get("perturb")}


def _filters(data: Mapping[str, Any], declared: Mapping[str, Sequence[str]] | None) -> Iterator[Finding]:
    if declared is None:
        declared = {
            section: [str(entry.get("id")) for _, entry in _entries(data, section)]
            for section in ("models", "prompts", "datasets")
        }
    tunable = _parameter_names(data)
    for section in ("include", "exclude"):
        for index, entry in _entries(data, section):
            params = entry.get("params")
            for name in params if isinstance(params, dict) else ():
                if name not in tunable:
                    what = f"no model and no sweep has a parameter '{name}'"
                    yield Finding(
                        (section, index, "params", name), what, did_you_mean(name, tunable), at_key=True
                    )
            for axis in ("model", "prompt", "dataset"):
                path: DataPath = (section, index, axis)
                given = entry.get(axis)
                patterns = given if isinstance(given, list) else [given]
                for number, pattern in enumerate(patterns):
                    ids = declared[f"{axis}s"]
                    if isinstance(pattern, str) and not any(fnmatchcase(name, pattern) for name in ids):
                        at = (*path, number) if isinstance(given, list) else path
                        yield Finding(at, f"no {axis} matches '{pattern}'", did_you_mean(pattern, ids))


def _parameter_names(data: Mapping[str, Any]) -> list[str]:
    """The generation parameters that cells can differ in."""
    holders = [data.get("sweep"), *(entry.get("params") for _, entry in _entries(data, "models"))]
    return sorted({name for holder in holders if isinstance(holder, dict) for name in holder})


def _repeated_sweep_values(data: Mapping[str, Any]) -> Iterator[Finding]:
    sweep = data.get("sweep")
    for name, values in sweep.items() if isinstance(sweep, dict) else ():
        for index, value in enumerate(values if isinstance(values, list) else []):
            if any(
                value == other and isinstance(value, bool) == isinstance(other, bool)
                for other in values[:index]
            ):
                yield Finding(("sweep", name, index), f"this value of '{name}' appears twice", "Remove one.")


def _files(data: Mapping[str, Any], base_dir: Path) -> Iterator[Finding]:
    for path, name in _file_names(data):
        file = base_dir / name
        # These two, unlike the methods of Path, also bear names that no file system allows.
        if os.path.isdir(file):  # noqa: PTH112
            yield Finding(path, f"'{name}' is a folder, not a file")
        elif not os.path.exists(file):  # noqa: PTH110
            shown = name if len(name) <= 100 else name[:97] + "..."
            yield Finding(path, f"there is no file '{shown}'", _missing_file(file, base_dir, path))


def _file_names(data: Mapping[str, Any]) -> Iterator[tuple[DataPath, str]]:
    """Every local file that the suite names, with its place in the data."""
    for index, entry in _entries(data, "prompts"):
        few_shot = entry.get("few_shot")
        if isinstance(entry.get("file"), str):
            yield ("prompts", index, "file"), entry["file"]
        if isinstance(few_shot, dict) and isinstance(few_shot.get("path"), str):
            yield ("prompts", index, "few_shot", "path"), few_shot["path"]
    for index, entry in _entries(data, "datasets"):
        if isinstance(entry.get("path"), str):
            yield ("datasets", index, "path"), entry["path"]
        splits = entry.get("splits")
        for split, path in splits.items() if isinstance(splits, dict) else ():
            if isinstance(path, str):
                yield ("datasets", index, "splits", split), path


def nearest_file(file: Path) -> str | None:
    """The name in the same folder that a mistyped file name most likely meant."""
    with suppress(OSError, ValueError):
        return nearest(file.name, sorted(other.name for other in file.parent.iterdir()))
    return None


def _missing_file(file: Path, base_dir: Path, path: DataPath) -> str:
    near = nearest_file(file)
    if near:
        return f"Did you mean '{near}' in the same folder?"
    where = f"Looked for {file}; relative paths start at {base_dir}."
    if path[0] == "datasets" and path[-1] == "path":
        return where + " --data ID=PATH points a dataset at another copy."
    return where
