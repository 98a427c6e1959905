"""Frozen dataclasses with slots, made in a twentieth of the time.

`dataclass(frozen=True, slots=True)` compiles six methods for every class, which takes a millisecond: a third
of a second of every command, for hundreds of classes most of which it makes no value of. Here all classes
share five of these methods, and the sixth, `__init__`, is compiled when a class makes its first value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from functools import cache
from operator import attrgetter
from reprlib import recursive_repr
from typing import Any, TypeVar, cast, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[_T]) -> type[_T]:
    """The class as a frozen dataclass with slots; `fields`, `replace`, `asdict`, pickle and copy know it.

    A method that the class defines stays as it is.
    """
    lacking = {name: method for name, method in _SHARED.items() if cls.__dict__.get(name) is None}
    first = "__init__" not in cls.__dict__
    cls.__doc__ = cls.__doc__ or cls.__name__  # or `dataclass` makes one of the signature
    made: Any = dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    for name, method in lacking.items():
        setattr(made, name, method)
    if first:
        made.__init__ = _first_init(made)
    return cast("type[_T]", made)


def _first_init(made: Any) -> Callable[..., None]:
    """What stands in for `__init__` until the first value is made, and then compiles the real one."""

    def __init__(self: Any, *arguments: Any, **named: Any) -> None:
        made.__init__ = init = _init_of(made)
        init(self, *arguments, **named)

    return __init__


def _init_of(made: Any) -> Callable[..., None]:
    """The `__init__` that `dataclass` would make. (It compiles two more methods with it.)"""
    scope: dict[str, Any] = {"_set": object.__setattr__, "_lacking": MISSING}
    parameters, named, body = ["self"], ["*"], []
    for known in fields(made):
        name, default, made_by = known.name, f"_default_{known.name}", f"_make_{known.name}"
        parameter, value, otherwise = name, name, default
        if known.default is not MISSING:
            scope[default], parameter = known.default, f"{name}={default}"
        elif known.default_factory is not MISSING:
            scope[made_by], parameter, otherwise = known.default_factory, f"{name}=_lacking", f"{made_by}()"
            value = f"{otherwise} if {name} is _lacking else {name}"
        if known.init:
            (named if known.kw_only else parameters).append(parameter)
        body.append(f"    _set(self, {name!r}, {value if known.init else otherwise})")
    if hasattr(made, "__post_init__"):
        body.append("    self.__post_init__()")
    head = ", ".join(parameters + named if len(named) > 1 else parameters)
    # Of names of fields alone, as `dataclass` does it.
    exec("\n".join([f"def __init__({head}):", *(body or ["    pass"])]), scope)  # noqa: S102
    init: Callable[..., None] = scope["__init__"]
    init.__qualname__, init.__module__ = f"{made.__qualname__}.__init__", made.__module__
    init.__annotations__ = {known.name: known.type for known in fields(made) if known.init} | {"return": None}
    return init


def _setattr(self: Any, name: str, value: Any) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


@recursive_repr()
def _repr(self: Any) -> str:
    shown = (f"{known.name}={getattr(self, known.name)!r}" for known in fields(self) if known.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: Any, other: object) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    cls: Any = type(self)
    compared = _compared(cls)
    return compared(self) == compared(other)


def _hash(self: Any) -> int:
    cls: Any = type(self)
    return hash(_compared(cls)(self))


@cache
def _compared(cls: Any) -> Callable[[Any], Any]:
    """What values of a class are compared and hashed by."""
    names = [known.name for known in fields(cls) if known.compare]
    return attrgetter(*names) if names else lambda _: ()


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, known.name) for known in fields(self)]


def _setstate(self: Any, state: list[Any]) -> None:
    for known, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, known.name, value)


_SHARED: dict[str, Any] = {
    "__setattr__": _setattr,
    "__delattr__": _delattr,
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__getstate__": _getstate,
    "__setstate__": _setstate,
}
