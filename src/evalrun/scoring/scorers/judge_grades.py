"""The grades that a judge may give, and how a grade is read out of what it wrote.

A judge is asked for JSON. Weak models put prose around it, break it off, or write the grade alone: all of
that is read where it is unambiguous. What is not on the menu is never bent into something that is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from evalrun.types import JSON

PAIR = ("A", "B", "tie")
"""What a judge of pairs may say."""

MAX_GRADES = 20
"""A finer scale is no finer judgement, and agreement is computed from a table of grades by grades."""

_KEYS = ("grade", "score", "rating", "verdict", "winner", "label", "choice")
_LONGEST = 20_000
_SHORT = 300
_BRACES = 50
_WORDS = 2
"""What follows "grade is" and has more words is prose, no grade."""


@dataclass(frozen=True, slots=True)
class Menu:
    """The grades by label, what each is worth, and whether they are steps of a scale."""

    labels: tuple[str, ...]
    values: tuple[float, ...]
    ordered: bool

    @classmethod
    def of_scale(cls, low: int, high: int) -> Menu:
        """The whole numbers from low to high."""
        steps = range(low, high + 1)
        return cls(tuple(map(str, steps)), tuple(map(float, steps)), True)

    @classmethod
    def of_choices(cls, choices: Mapping[str, float]) -> Menu:
        """Labels with their values."""
        return cls(tuple(choices), tuple(float(value) for value in choices.values()), False)

    @classmethod
    def of_pairs(cls) -> Menu:
        """A wins, B wins, or neither; worth what they are to A."""
        return cls(PAIR, (1.0, 0.0, 0.5), False)

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value."""
        return min(self.values), max(self.values)

    @property
    def said(self) -> str:
        """The menu in words, for a prompt."""
        if self.ordered:
            return f"a whole number from {self.labels[0]} (worst) to {self.labels[-1]} (best)"
        return "one of: " + ", ".join(self.labels)

    def code(self, said: JSON) -> int | None:
        """The place on the menu of what was said, or None. 4, 4.0, "4" and, of 5, "4/5" are the same."""
        if isinstance(said, bool) or said is None:
            said = {True: "true", False: "false", None: ""}[said]
        if self.ordered:
            return self._step(said)
        text = str(said).strip().strip("\"'`*.").strip().casefold()
        places = [at for at, label in enumerate(self.labels) if label.casefold() == text]
        return places[0] if len(places) == 1 else None

    def _step(self, said: JSON) -> int | None:
        if isinstance(said, str):
            match = re.fullmatch(r"\s*\**(-?\d+(?:\.0+)?)(?:\s*(?:/|out of)\s*(\d+))?\**\.?\s*", said)
            if match is None or (match[2] is not None and match[2] != self.labels[-1]):
                return None
            said = float(match[1])
        if not isinstance(said, int | float) or said not in self.values:
            return None
        return self.values.index(said)

    def number(self, label: JSON) -> int | None:
        """The place on the menu of a human label: as `code`, or one of the values."""
        code = self.code(label)
        if code is None and isinstance(label, int | float | bool) and self.values.count(float(label)) == 1:
            return self.values.index(float(label))
        return code

    def schema(self, reason: bool) -> dict[str, JSON]:
        """The JSON Schema of a verdict, with a reason before the grade or without."""
        grade: dict[str, JSON] = {"type": "string", "enum": list(self.labels)}
        if self.ordered:
            grade = {"type": "integer", "enum": [int(value) for value in self.values]}
        properties: dict[str, JSON] = {"reason": {"type": "string"}} if reason else {}
        properties["grade"] = grade
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def example(self) -> str:
        """A verdict as it should be written, for a prompt."""
        return f'{{"reason": "<one short sentence>", "grade": {self._form()}}}'

    def example_again(self) -> str:
        """The same without a reason."""
        return f'{{"grade": {self._form()}}}'

    def _form(self) -> str:
        if self.ordered:
            return f"<{self.labels[0]}-{self.labels[-1]}>"
        return '"<' + "|".join(self.labels) + '>"'


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said: a place on the menu, or None with the `fault` that kept it from being read."""

    code: int | None
    reason: str
    fault: str = ""


def read_verdict(text: str, menu: Menu) -> Verdict:
    """Read a grade: the last JSON object that has one, else "grade: X", else a grade that stands alone.

    Of several such objects the last is the verdict; two grades in prose that contradict each other are none.
    What a model thought before it answered is no verdict.
    """
    text = text.rpartition("</think>")[2][-_LONGEST:]
    verdict = _from_json(text)
    if verdict is not None:
        said, reason = verdict
        code = menu.code(said)
        return Verdict(code, reason, "" if code is not None else f"off the menu: {_cut(str(said))!r}")
    named = _named(text)
    codes = {menu.code(each) for each in named}
    if len(codes) == 1 and None not in codes:
        return Verdict(codes.pop(), _cut(text.strip(), _SHORT))
    if len(codes - {None}) > 1:
        return Verdict(None, "", "several grades that contradict each other")
    named = [each for each in named if len(each.split()) <= _WORDS]
    if named:
        return Verdict(None, "", f"off the menu: {_cut(named[-1])!r}")
    alone = {menu.code(each) for each in (text, _first_line(text), _last_line(text))} - {None}
    if len(alone) == 1:
        return Verdict(alone.pop(), _cut(text.strip(), _SHORT))
    said = _cut(text.strip())
    return Verdict(None, "", f"no grade in {said!r}" if said else "an empty verdict")


def _from_json(text: str) -> tuple[JSON, str] | None:
    verdict = None
    for value in _objects(text):
        keys = {str(key).casefold(): item for key, item in value.items()}
        grade = next((keys[key] for key in _KEYS if key in keys), None)
        if grade is not None:
            reason = next((keys[key] for key in ("reason", "explanation", "rationale") if key in keys), "")
            verdict = grade, _cut(str(reason).strip(), _SHORT)
    return verdict


def _objects(text: str) -> Iterator[dict[str, JSON]]:
    """The JSON objects in a text, not those within another."""
    decoder = json.JSONDecoder(strict=False)
    at, tries = text.find("{"), 0
    while at >= 0 and tries < _BRACES:
        tries += 1
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            if isinstance(value, dict):
                yield value
        at = text.find("{", end)


_NAMED = re.compile(
    rf'(?<![A-Za-z])(?:{"|".join(_KEYS)})["*]*\s*(?:is\s*:?|:|=)\s*["*]*\s*((?:(?!\.(?:\s|$))[^\n"*,;{{}}])+)',
    re.IGNORECASE,
)
_MORE = re.compile(r"\s+(?:because|since|as|for|and|but|-)\s", re.IGNORECASE)


def _named(text: str) -> list[str]:
    """What follows "grade:", "score is" and the like, up to the end of the phrase."""
    return [_MORE.split(match[1])[0].strip() for match in _NAMED.finditer(text)]


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def _cut(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
