"""What a document of evidence is: sections of lines, each measured, answered by people, or left to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from evalrun.errors import Problem, UserError
from evalrun.registry import nearest

State: TypeAlias = Literal["measured", "answered", "to be completed"]
TO_BE_COMPLETED = "to be completed by the provider"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where a line can be checked: a file of the sweep's folder, what to look for in it, and a command that
    shows the samples behind it."""

    file: str
    at: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that a document says. `text` is what people read; `value` with `n` and its interval the
    figure, where it is one. `key` is the question's in `card.yaml`, for what no measurement knows."""

    label: str
    text: str
    state: State = "measured"
    value: float | None = None
    unit: str = ""
    n: int | None = None
    low: float | None = None
    high: float | None = None
    evidence: Evidence | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a document; `reference` is the place in the text that asks for it."""

    title: str
    reference: str = ""
    lines: tuple[Line, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A whole document. `front` is the metadata of a model card, `native` what stands for the whole where the
    document has a JSON form of its own."""

    kind: str
    title: str
    sweep: str
    run: str
    made_at: str
    intro: str = ""
    sections: tuple[Section, ...] = ()
    front: Mapping[str, Any] | None = None
    native: Mapping[str, Any] | None = field(default=None, repr=False)

    def count(self, state: State) -> int:
        """How many lines are in a state."""
        return sum(line.state == state for section in self.sections for line in section.lines)


@dataclass(frozen=True, slots=True)
class Answers:
    """What `card.yaml` says. `file` is its name; without one there are no answers."""

    file: str = ""
    said: Mapping[str, Any] = field(default_factory=dict)

    def line(self, key: str, label: str) -> Line:
        """The answer to a question, or that it is to be completed."""
        text = _text(self.said.get(key))
        if not text:
            return Line(label, TO_BE_COMPLETED, "to be completed", key=key)
        return Line(label, text, "answered", evidence=Evidence(self.file, key), key=key)

    def text(self, key: str) -> str:
        """The answer as text; empty where there is none."""
        return _text(self.said.get(key))

    def check(self, known: Mapping[str, str], settings: frozenset[str]) -> None:
        """Raise a UserError for keys that no document asks for, and for answers that are no text."""
        problems = []
        for key, value in self.said.items():
            if key in settings:
                continue
            if key not in known:
                near = nearest(str(key), known)
                remedy = f"Did you mean '{near}'?" if near else "`evalrun card SWEEP --questions` lists them."
                problems.append(Problem(f"no document asks for '{key}'", self.file, remedy))
            elif not _is_answer(value):
                problems.append(Problem(f"'{key}' is a text, or a list of texts", self.file))
        if problems:
            raise UserError(problems)


def _is_answer(value: Any) -> bool:
    plain = str | int | float | bool | None
    return isinstance(value, plain) or (isinstance(value, list) and all(isinstance(v, plain) for v in value))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(filter(None, map(_text, value)))
    return "" if value is None else str(value).strip()
