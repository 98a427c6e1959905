"""A suite made of Python values, written as the YAML that the same suite would be in a file.

So it goes the way of every suite: the same checks, the same digests, a manifest that can be run again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from evalrun.errors import UserError
from evalrun.suite.components import PYTHON
from evalrun.suite.tree import core_value


def suite_text(sections: Mapping[str, Any]) -> str:
    """The YAML of a suite: sections by name, as the YAML language has them, or in these shorter forms.

    `models`, `prompts` and `datasets` may be mappings from an id to an entry; a prompt may be its text, a
    dataset its rows (a list of mappings, a pandas DataFrame) or the path of its file, and a model, a parser
    or a scorer a Python function. Raises UserError for a function that cannot be found again by its name.
    """
    written = {
        name: _section(name, value)
        for name, value in sections.items()
        if value is not None and (not isinstance(value, Sequence | Mapping) or len(value))
    }
    return yaml.dump(written, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _section(name: str, value: Any) -> Any:
    if name in ("models", "judges", "prompts", "datasets"):
        return [_entry(name, own_id, entry) for own_id, entry in _named(name, value)]
    if name in ("parse", "scorers"):
        listed = [value] if isinstance(value, str | Mapping) or callable(value) else value
        return [{PYTHON: _target(each)} if callable(each) else _plain(each) for each in listed]
    return _plain(value)


def _named(section: str, value: Any) -> Iterable[tuple[str | None, Any]]:
    if isinstance(value, Mapping) and not {"id", "provider", "text", "path"} & value.keys():
        return value.items()
    if isinstance(value, str | Mapping) or callable(value) or hasattr(value, "to_dict"):
        value = [value]
    return [(None, entry) for entry in value]


def _entry(section: str, own_id: str | None, entry: Any) -> dict[str, Any]:
    """An entry with its id: a text becomes a prompt, rows a dataset, a function a model."""
    if section == "prompts" and isinstance(entry, str):
        made: dict[str, Any] = {"text": entry}
    elif section == "datasets" and isinstance(entry, str | Path):
        made = {"path": str(entry)}
    elif section == "datasets" and not isinstance(entry, Mapping):
        made = {"rows": entry}
    elif callable(entry):
        target = _target(entry)
        made = {"provider": PYTHON, "function": target}
        own_id = own_id or target.rpartition(":")[2].strip("_")
    else:
        made = dict(entry)
    if hasattr(made.get("rows"), "to_dict"):
        made["rows"] = _records(made["rows"])
    named = {"id": made.pop("id", None) or own_id or section.removesuffix("s")}
    return {**named, **{key: _plain(value) for key, value in made.items()}}


def _records(frame: Any) -> list[dict[str, Any]]:
    """The rows of a DataFrame; a missing value is null."""
    missing = frame.isna().to_dict("records")
    return [
        {str(name): None if gone[name] else value for name, value in row.items()}
        for row, gone in zip(frame.to_dict("records"), missing, strict=True)
    ]


def _plain(value: Any) -> Any:
    """A value that YAML has a form for: numpy's numbers and arrays, paths, times as what they stand for."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, Path):
        return str(value)
    for method in ("isoformat", "tolist"):
        if callable(made := getattr(value, method, None)):
            return _plain(made())
    raise UserError(
        f"a suite cannot hold a value of type {type(value).__name__}",
        remedy="Give texts, numbers, lists and mappings.",
    )


def _target(function: Callable[..., Any]) -> str:
    """`module:name` of a function or class, by which a run finds it again."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module and getattr(sys.modules.get(module), name, None) is function:
        return f"{module}:{name}"
    raise UserError(
        f"'{name or function!r}' cannot be found again by its name",
        remedy="Define it with def at the top of a module or of the notebook, under a name of its own.",
    )


class _Dumper(yaml.SafeDumper):
    """YAML that reads the same by the rules of 1.2, which suites are read by."""


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    try:
        plain = core_value(value) == value and isinstance(core_value(value), str)
    except ValueError:
        plain = False
    style = "|" if "\n" in value else None if plain else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
_Dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]
