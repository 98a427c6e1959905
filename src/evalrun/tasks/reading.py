"""Files and values of other tools' configurations: what cannot be read is one error that names the place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from evalrun.errors import UserError


def text_of(path: Path) -> str:
    """A text in UTF-8, with or without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 (byte {error.start:,})", where=str(path), remedy="Save it as UTF-8."
        ) from error


def parse_yaml(text: str, path: Path) -> Any:
    """YAML or JSON as JSON values: dates stay texts."""
    try:
        return yaml.load(text, Loader=_Plain)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no YAML: {str(error).splitlines()[0]}", where=str(path)) from error


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
                yield as_mapping(json.loads(line), f"{path}:{number}")
            except ValueError as error:
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
