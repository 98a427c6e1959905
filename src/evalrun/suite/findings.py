"""What is wrong with a suite, before it has a place: pydantic's errors put into plain words.

A `Finding` says where in the data a problem is (a path of keys and indices). Whoever knows the file turns the
path into a line.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticCustomError

from evalrun.frozen import frozen
from evalrun.registry import did_you_mean as did_you_mean
from evalrun.registry import nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

DataPath: TypeAlias = tuple[str | int, ...]
"""Keys and indices from the top of the suite (or of one entry) down to a value."""

_BEGINNING = 4
"""Keys with so many first letters in common may be meant for one another."""

FINDINGS = "evalrun_findings"
"""The pydantic error type that carries findings of our own validators in its context."""


@frozen
class Finding:
    """One problem at a path. `at_key`: the key itself is what is wrong, not its value; `unknown`: nobody
    knows it; `missing` is the key that is not there."""

    path: DataPath
    what: str
    remedy: str = ""
    at_key: bool = False
    unknown: bool = False
    missing: str = ""

    def under(self, prefix: DataPath) -> Finding:
        """The same finding, seen from further up."""
        return replace(self, path=(*prefix, *self.path))


def complaint(what: str, remedy: str = "", path: DataPath = ()) -> PydanticCustomError:
    """The exception by which a validator of the schema reports one finding."""
    return complaints([Finding(path, what, remedy)])


def complaints(findings: Sequence[Finding]) -> PydanticCustomError:
    """The exception by which a validator of the schema reports several findings at once."""
    message = "; ".join(f"{item.what}. {item.remedy}".rstrip(". ") for item in findings)
    return PydanticCustomError(FINDINGS, "{message}", {"message": message, "findings": tuple(findings)})


def describe(value: Any) -> str:
    """A value as a person would call it: "the number 5", "a list"."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text '{value if len(value) <= 60 else value[:57] + '...'}'"
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
    return f"a {type(value).__name__}"


def from_pydantic(
    errors: Iterable[ErrorDetails],
    data: Any,
    root: type[BaseModel],
    *,
    also_known: Iterable[str] = (),
    owner: str = "",
) -> list[Finding]:
    """Pydantic's errors as findings, one for each place.

    `data` is what was validated, `root` the model that did; `also_known` are keys that are allowed at the top
    beside root's own; `owner` names the thing that misses a key ("model 'a'").
    """
    found: list[Finding] = []
    choices: dict[DataPath, list[tuple[str, Any]]] = {}
    for error in errors:
        path, in_union = _real_path(error, data)
        if error["type"] == FINDINGS:
            found += [item.under(path) for item in error["ctx"]["findings"]]
        elif error["type"] == "missing":
            found.append(_missing(path, str(error["loc"][-1]), root, owner))
        elif error["type"] == "extra_forbidden":
            found.append(_unknown_key(path, root, also_known))
        elif in_union and (expected := _expected(error)):
            choices.setdefault(path, []).append((expected, error["input"]))
        else:
            found.append(_wrong_value(path, error))
    return without_mistyped(found + _unions(choices, found))


def without_mistyped(found: list[Finding]) -> list[Finding]:
    """A required key that is there under another name is one problem, not two: the unknown key is told, and
    which one it stands for."""
    missing = {(item.path, item.missing): item for item in found if item.missing}
    told = []
    for item in found:
        near = item.unknown and _stands_for(item, [name for path, name in missing if path == item.path[:-1]])
        if near:
            del missing[item.path[:-1], near]
            told.append(replace(item, remedy=f"Did you mean '{near}', which is missing?"))
        else:
            told.append(item)
    return [item for item in told if not item.missing or (item.path, item.missing) in missing]


def _stands_for(unknown: Finding, names: Sequence[str]) -> str | None:
    """Which of the missing keys a mistyped one was meant to be: by its letters, or as a part of it."""
    key = str(unknown.path[-1]).lower()
    if near := nearest(key, names):
        return near
    alike = (name for name in names if key in name or name in key or key[:_BEGINNING] == name[:_BEGINNING])
    return next(alike, None)


def known_keys(model: type[BaseModel]) -> list[str]:
    """The keys that a mapping for this model may have in a suite."""
    return [field.alias or name for name, field in model.model_fields.items() if not field.exclude]


def _real_path(error: ErrorDetails, data: Any) -> tuple[DataPath, bool]:
    """The part of pydantic's location that exists in the data, and whether union labels were dropped."""
    location = error["loc"][:-1] if error["type"] == "missing" else error["loc"]
    path: list[str | int] = []
    skipped = False
    for part in location:
        if _holds(data, part):
            data = data[part]
            path.append(part)
        else:
            skipped = True
    return tuple(path), skipped


def _holds(data: Any, part: str | int) -> bool:
    if isinstance(data, list | tuple):
        return isinstance(part, int) and part < len(data)
    return isinstance(data, dict) and part in data


def _missing(path: DataPath, key: str, root: type[BaseModel], owner: str) -> Finding:
    model = _model_at(root, path)
    field = model.model_fields.get(key) if model else None
    inside = owner or _label(path).removesuffix(": ")
    what = f"'{key}' is missing" + (f" in {inside}" if inside else "")
    remedy = f"{key}: {field.description}" if field and field.description else ""
    return Finding(path, what, remedy, missing=key)


def _label(path: DataPath) -> str:
    """The name of a value for the beginning of a message: "limit: ", "models[4]: "."""
    keys = [part for part in path if isinstance(part, str)]
    if not keys:
        return ""
    indices = path[path.index(keys[-1]) + 1 :]
    return keys[-1] + "".join(f"[{part}]" for part in indices) + ": "


def _unknown_key(path: DataPath, root: type[BaseModel], also_known: Iterable[str]) -> Finding:
    key = str(path[-1])
    model = _model_at(root, path[:-1])
    known = known_keys(model) if model else []
    if len(path) == 1:
        known += also_known
    return Finding(path, f"unknown key '{key}'", did_you_mean(key, known), at_key=True, unknown=True)


def _unions(choices: Mapping[DataPath, list[tuple[str, Any]]], found: Sequence[Finding]) -> list[Finding]:
    """One finding for each value that fitted no alternative, unless something deeper already explains it."""
    explained = {item.path[:size] for item in found for size in range(len(item.path) + 1)}
    explained |= {path[:size] for path in choices for size in range(len(path))}
    result = []
    for path, alternatives in choices.items():
        if path not in explained:
            wanted = " or ".join(dict.fromkeys(expected for expected, _ in alternatives))
            what = f"{_label(path)}expected {wanted}, found {describe(alternatives[0][1])}"
            result.append(Finding(path, what))
    return result


_TYPES: Mapping[str, str] = {
    "string_type": "text",
    "string_sub_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "path_type": "a path",
    "url_type": "a URL",
    "none_required": "nothing (null)",
}

_BOUNDS: Mapping[str, str] = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_pattern_mismatch": "must fit the pattern {pattern}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
}


def _expected(error: ErrorDetails) -> str:
    """What the value should have been, or "" where the error does not say it in these terms."""
    if error["type"] in ("literal_error", "enum"):
        return str(error["ctx"]["expected"])
    return _TYPES.get(error["type"], "")


def _wrong_value(path: DataPath, error: ErrorDetails) -> Finding:
    value, context, label = error["input"], error.get("ctx", {}), _label(path)
    if expected := _expected(error):
        return Finding(path, f"{label}expected {expected}, found {describe(value)}", _type_remedy(error))
    if bound := _BOUNDS.get(error["type"]):
        return Finding(path, f"{label}{bound.format(**context)}, found {describe(value)}")
    if error["type"] == "too_short":
        least = context["min_length"]
        return Finding(path, f"{label}needs at least {least} {'entry' if least == 1 else 'entries'}")
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return Finding(path, label + (message[:1].lower() + message[1:] if message[1:2].islower() else message))


def _type_remedy(error: ErrorDetails) -> str:
    value = error["input"]
    match error["type"]:
        case "string_type" if isinstance(value, bool | int | float):
            return "Put it in quotes to make it text."
        case "list_type" if isinstance(value, str | int | float):
            return "Write it as a list, in [ ]."
        case "literal_error" | "enum" if isinstance(value, str):
            words = [
                word.strip("'") for word in str(error["ctx"]["expected"]).replace(" or ", ", ").split(", ")
            ]
            near = nearest(value, words)
            return f"Did you mean '{near}'?" if near else ""
    return ""


def _model_at(root: type[BaseModel], path: DataPath) -> type[BaseModel] | None:
    """The model that describes the mapping at a path below a model, where there is one."""
    current: Any = root
    for part in path:
        current = _plain(current)
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            if field is None:
                return None
            current = field.annotation
        elif get_origin(current) in (list, tuple, dict, Mapping):
            current = get_args(current)[-1]
        else:
            return None
    current = _plain(current)
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _plain(annotation: Any) -> Any:
    """An annotation without Annotated[...] and without "| None"."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (typing.Union, types.UnionType):
            parts = [part for part in get_args(annotation) if part is not type(None)]
            if len(parts) != 1:
                return annotation
            annotation = parts[0]
        else:
            return annotation
