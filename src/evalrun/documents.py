"""Typed documents read back from JSON: tolerant of what an earlier or a later version wrote.

Keys that this version does not know are left alone, keys that an earlier one did not write get their
defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

_T = TypeVar("_T")


def read(kind: type[_T], document: Mapping[str, Any], where: Path | None = None) -> _T:
    """A document (`run.json`, or `results` of `sweep.json`) as typed values.

    Raises UserError that names the key that cannot be read, and the file `where` it stands. (Pydantic would
    do the same after a tenth of a second in which it compiles all of these classes.)
    """
    from evalrun.errors import UserError

    try:
        value: _T = _reader(cast("Any", kind))(document)
    except _Unreadable as error:
        raise UserError(f"{'.'.join(reversed(error.keys))}: {error.what}", where=str(where or "")) from None
    return value


class _Unreadable(Exception):
    """`what` is wrong with the value under `keys`, the innermost first."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.keys: list[str] = []
        super().__init__(what)


_Reader: TypeAlias = Callable[[Any], Any]


@cache
def _reader(kind: Any) -> _Reader:
    """What turns a JSON value into a value of this type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _dataclass_reader(kind)
    if origin is Literal:
        return partial(_one_of, arguments)
    if origin is tuple:
        return partial(_tuple, [_reader(argument) for argument in arguments if argument is not Ellipsis])
    if origin in (Union, UnionType):
        inner = _reader(next(argument for argument in arguments if argument is not NoneType))
        return lambda value: None if value is None else inner(value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        inner = _reader(arguments[1])
        return partial(_mapping, inner)
    return {float: _float, int: _int, str: _str}.get(kind, lambda value: value)


def _dataclass_reader(kind: Any) -> _Reader:
    hints = get_type_hints(kind)
    needed = [
        each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING
    ]
    known = [each.name for each in fields(kind)]

    readers: dict[str, _Reader] = {}

    def make(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _Unreadable("not a mapping")
        values = {}
        for name in known:
            if name in value:
                if name not in readers:  # made when first needed: of most kinds a document has none
                    readers[name] = _reader(hints[name])
                try:
                    values[name] = readers[name](value[name])
                except _Unreadable as error:
                    error.keys.append(name)
                    raise
        for name in needed:
            if name not in values:
                raise _Unreadable(f"'{name}' is missing")
        return kind(**values)

    return make


def _tuple(readers: list[_Reader], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _Unreadable("not a list")
    if len(readers) == 1:
        return tuple(map(readers[0], value))
    if len(readers) != len(value):
        raise _Unreadable(f"not a list of {len(readers)}")
    return tuple(read_one(each) for read_one, each in zip(readers, value, strict=True))


def _mapping(inner: _Reader, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _Unreadable("not a mapping")
    return {str(key): inner(each) for key, each in value.items()}


def _one_of(known: tuple[Any, ...], value: Any) -> Any:
    if value not in known:
        raise _Unreadable(f"{value!r} is none of {', '.join(map(str, known))}")
    return value


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Unreadable("not a number")
    return float(value)


def _int(value: Any) -> int:
    if not isinstance(value, int | float) or value != int(value):
        raise _Unreadable("not a whole number")
    return int(value)


def _str(value: Any) -> str:
    if isinstance(value, Mapping | list) or value is None:
        raise _Unreadable("not a text")
    return str(value)
