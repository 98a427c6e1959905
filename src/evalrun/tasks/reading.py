"""Files and values of other tools' configurations: what cannot be read is one error that names the place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from evalrun.errors import UserError


def text_of(path: Path) -> str:
    """A text in UTF-8, with or without a byte order mark. A configuration may name a device or a pipe, which
    never ends: only files are read."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file", where=str(path))
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 (byte {error.start:,})", where=str(path), remedy="Save it as UTF-8."
        ) from error
    except ValueError as error:
        raise UserError(f"{str(path)!r} is no name of a file: {error}") from error


def parse_yaml(text: str, path: Path) -> Any:
    """YAML or JSON as JSON values: dates stay texts, and halves of surrogate pairs become U+FFFD.

    Raises UserError, also for aliases that lead back to themselves or stand for millions of values.
    """
    try:
        value = yaml.load(text, Loader=_Plain)
        if "*" in text and _expanded(value, {}) > MOST_VALUES:
            raise ValueError(f"its aliases stand for more than {MOST_VALUES:,} values")
        return _whole_texts(value) if "\\u" in text or "\\U" in text else value
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(
            f"{path}{line} is no YAML: {error.problem or error.context}",
            where=str(path),
            remedy="Within { } and [ ] a text with ? : , or # stands in quotes.",
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no YAML: {str(error).splitlines()[0]}", where=str(path)) from error


MOST_VALUES = 2_000_000
"""Values at most that a configuration may hold when its aliases are written out."""


def _expanded(value: Any, known: dict[int, int]) -> int:
    """How many values there are with every alias written out. Raises ValueError for one within itself."""
    if not isinstance(value, dict | list):
        return 1
    size = known.get(id(value))
    if size == 0:
        raise ValueError("an alias stands within what it stands for")
    if size is None:
        known[id(value)] = 0
        items = value.values() if isinstance(value, dict) else value
        size = known[id(value)] = 1 + sum(_expanded(item, known) for item in items)
    return size


def _whole_texts(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_whole_texts(key): _whole_texts(item) for key, item in value.items()}
    return [_whole_texts(item) for item in value] if isinstance(value, list) else value


class _Plain(yaml.SafeLoader):
    """As JSON has it: dates stay texts."""


_Plain.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file."""
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if line.strip():
            try:
                yield _whole_texts(as_mapping(json.loads(line), f"{path}:{number}"))
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}:{number} is no JSON: {error}", where=str(path)) from error


def as_mapping(value: Any, where: str) -> dict[str, Any]:
    """A mapping, or an error that names `where`."""
    if not isinstance(value, dict):
        raise UserError(f"{where} is no mapping", where=where)
    return value


def as_list(value: Any, where: str) -> list[Any]:
    """A list, empty for None, or an error that names `where`."""
    if value is not None and not isinstance(value, list):
        raise UserError(f"{where} is no list", where=where)
    return value or []


def as_number(text: Any, where: str) -> float:
    """A number, or an error that names `where`."""
    try:
        return float(text)
    except (TypeError, ValueError) as error:
        raise UserError(f"'{text}' is no number", where=where) from error


def as_whole(value: Any, where: str) -> int:
    """A whole number above 0, or an error that names `where`."""
    number = as_number(value, where)
    if not number.is_integer() or number < 1:
        raise UserError(f"{where} is no whole number above 0: {value}", where=where)
    return int(number)
