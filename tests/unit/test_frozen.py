"""`frozen` makes what `dataclass(frozen=True, slots=True)` makes."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, replace
from typing import Any

import pytest

from evalrun.frozen import frozen


@frozen
class Place:
    """Where."""

    name: str
    tags: list[str] = field(default_factory=list, compare=False)
    code: int = field(default=7, repr=False)
    seen: list[int] = field(default_factory=list, init=False, compare=False)


@frozen
class Visited(Place):
    """A place, with what follows from it."""

    when: str = ""
    of: Any = field(default=None, kw_only=True)
    kind: str = field(default="visit", init=False)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("nowhere")


def test_it_is_made_shown_compared_and_hashed_as_a_dataclass_is() -> None:
    def reference(cls: type, base: type) -> type:
        known = {known.name: known for known in fields(cls) if known.name in cls.__annotations__}
        own = {"__annotations__": cls.__annotations__, "__qualname__": cls.__qualname__, **known}
        return dataclass(frozen=True, slots=True)(type(cls.__name__, (base,), own))

    place = reference(Place, object)
    for ours, theirs in ((Place, place), (Visited, reference(Visited, place))):
        for arguments, named in [(("a",), {}), (("a", ["x"], 3), {}), (("a",), {"code": 1})]:
            made, other = ours(*arguments, **named), theirs(*arguments, **named)
            assert repr(made) == repr(other)
            assert asdict(made) == asdict(other)
            assert made == ours(*arguments, **named) and hash(made) == hash(ours(*arguments, **named))
        assert ours("a", ["x"]) == ours("a", ["y"]) and ours("a") != ours("a", [], 8)
        assert ours("a").__slots__ == theirs("a").__slots__ and ours.__match_args__ == theirs.__match_args__
        for wrong in [(), ("a", [], 1, "b", 2, 3)]:
            with pytest.raises(TypeError, match=rf"{ours.__name__}\.__init__\(\)"):
                ours(*wrong)
        mine, yours = (
            inspect.signature(each.__init__).parameters.values() for each in (ours, theirs("a").__class__)
        )
        assert [(each.name, each.kind, each.annotation) for each in mine] == [
            (each.name, each.kind, each.annotation) for each in yours
        ]
        assert ours("a").seen == [] and ours("a").seen is not ours("a").seen
    assert Visited("a", of=1).of == 1 and Visited("a") != Place("a")
    with pytest.raises(ValueError, match="nowhere"):
        Visited("")


def test_it_is_frozen_and_can_be_copied_and_sent() -> None:
    made = Visited("a", ["x"], when="now")
    for name in ("name", "new"):
        with pytest.raises(FrozenInstanceError):
            setattr(made, name, "b")
    with pytest.raises(FrozenInstanceError):
        del made.name
    assert not hasattr(made, "__dict__")
    for other in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made)), replace(made)):
        assert other == made and other.tags == ["x"]
    assert replace(made, name="b").name == "b"


def test_what_a_class_defines_itself_stays() -> None:
    @frozen
    class Own:
        value: int

        def __init__(self, text: str) -> None:
            object.__setattr__(self, "value", int(text))

        def __eq__(self, other: object) -> bool:
            return isinstance(other, int) and self.value == other

        def __repr__(self) -> str:
            return "own"

    assert Own("3") == 3 and repr(Own("3")) == "own" and isinstance(hash(Own("3")), int)


def test_a_base_that_was_never_made_is_made_for_a_class_with_an_init_of_its_own() -> None:
    @frozen
    class Base:
        value: int

    class Derived(Base):
        def __init__(self) -> None:
            super().__init__(5)

    assert Derived().value == 5 and Derived().value == 5
