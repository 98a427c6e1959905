"""How a sample becomes a row: the columns, their types, and the text forms of what has no type.

Scalars of the dataset's columns keep their type where all rows agree (numbers may mix: they become double).
What is nested or mixed becomes JSON text, and the column says so in its metadata.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import orjson

from evalrun.tracking.plain import plain
from evalrun.types import JSON

STRING, INTEGER, NUMBER, BOOLEAN, AS_JSON = "string", "int64", "double", "bool", "json"
"""Kinds of columns. `json` is stored as string."""

_STR, _INT, _FLOAT, _BOOL, _NESTED, _WIDE, _HUGE = (1 << bit for bit in range(7))
_BITS: Mapping[type, int] = {
    str: _STR, int: _INT, float: _FLOAT, bool: _BOOL, list: _NESTED, dict: _NESTED, type(None): 0,
}  # fmt: skip
_EXACT = 1 << 53
_INT64 = 1 << 63
_LOOKS = 1000

IDENTITY: tuple[tuple[str, str], ...] = (("sample_id", STRING), ("repeat", INTEGER), ("position", INTEGER))
"""Columns that say which sample it is."""

TEXTS: tuple[tuple[str, str], ...] = (
    ("messages", AS_JSON),
    ("prompt", STRING),
    ("output", STRING),
    ("answer", STRING),
    ("answer_json", AS_JSON),
    ("target", STRING),
    ("target_json", AS_JSON),
)
"""What was asked, said and wanted. The `_json` columns have what lost its type as text, and null for text."""

FACTS: tuple[tuple[str, str], ...] = (
    ("status", STRING),
    ("error", STRING),
    ("finish_reason", STRING),
    ("prompt_tokens", INTEGER),
    ("completion_tokens", INTEGER),
    ("ttft_s", NUMBER),
    ("e2e_s", NUMBER),
    ("tpot_s", NUMBER),
    ("client_queue_s", NUMBER),
    ("sent_s", NUMBER),
    ("done_s", NUMBER),
    ("attempts", INTEGER),
    ("attempt_log", AS_JSON),
    ("cached", BOOLEAN),
    ("warmup", BOOLEAN),
    ("cost_usd", NUMBER),
    ("reasoning", STRING),
    ("tool_calls", AS_JSON),
    ("model", STRING),
    ("fingerprint", STRING),
    ("cluster", STRING),
)
"""How it went."""

SOMETIMES: tuple[tuple[str, str], ...] = (
    ("logprobs", AS_JSON),
    ("likelihood", AS_JSON),
    ("cached_prompt_tokens", INTEGER),
    ("chunk_gaps", AS_JSON),
    ("scheduled_s", NUMBER),
)
"""Columns that are there only where a sample has such a value."""

_TOP: tuple[str, ...] = (
    *(name for name, _ in IDENTITY),
    *(name for name, _ in FACTS),
    "messages",
    "prompt",
    "output",
    "answer",
    "target",
    "vars",
    "scores",
    "reasons",
    "sensitive",
)
"""The fields of a journal record that are taken at once."""

_ATTEMPT_LOG = [name for name, _ in FACTS].index("attempt_log")

LONG_TEXTS = frozenset(
    {
        "messages",
        "prompt",
        "output",
        "reasoning",
        "tool_calls",
        "attempt_log",
        "logprobs",
        "likelihood",
        "chunk_gaps",
    }
)
"""Columns whose smallest and largest value say nothing: no statistics, no dictionary."""


class Shape:
    """Learns the columns of a run from its records, one at a time. A few kilobytes, however many rows."""

    def __init__(self) -> None:
        self._vars: dict[str, int] = {}
        self._scores: dict[str, None] = {}
        self._reasons: dict[str, None] = {}
        self._sensitive: dict[str, None] = {}
        self._seen: dict[tuple[object, ...], tuple[str, ...]] = {}
        self._sometimes: set[str] = set()

    def learn(self, record: Mapping[str, Any]) -> None:
        """Take one record into account."""
        row = record.get("vars") or {}
        for name, _ in SOMETIMES:
            if record.get(name) is not None:
                self._sometimes.add(name)
        # Nearly all rows look alike: what a look has taught is learnt once.
        look = (
            *row,
            *map(type, row.values()),
            *(record.get("scores") or ()),
            None,
            *(record.get("reasons") or ()),
            None,
            *(record.get("sensitive") or ()),
        )
        integers = self._seen.get(look)
        if integers is None:
            integers = self._learn(row, record)
            if len(self._seen) < _LOOKS:
                self._seen[look] = integers
        for key in integers:
            if not -_EXACT <= row[key] <= _EXACT:
                self._vars[key] |= _width(row[key])

    def _learn(self, row: Mapping[str, Any], record: Mapping[str, Any]) -> tuple[str, ...]:
        """Learn a new look; returns the columns that hold integers in it, whose size must still be seen."""
        for key, value in row.items():
            self._vars[key] = self._vars.get(key, 0) | _BITS[type(value)]
        self._scores.update(dict.fromkeys(record.get("scores") or ()))
        self._reasons.update(dict.fromkeys(record.get("reasons") or ()))
        self._sensitive.update(dict.fromkeys(record.get("sensitive") or ()))
        return tuple(key for key, value in row.items() if type(value) is int)

    def columns(self) -> list[tuple[str, str]]:
        """The columns as (name, kind), in their order. Columns without any value are strings."""
        return [
            *IDENTITY,
            *((f"vars.{key}", kind_of(bits)) for key, bits in self._vars.items()),
            *TEXTS,
            *FACTS,
            *(each for each in SOMETIMES if each[0] in self._sometimes),
            *((f"score.{key}", NUMBER) for key in self._scores),
            *((f"reason.{key}", STRING) for key in self._reasons),
            *((f"sensitive.{key}", STRING) for key in self._sensitive),
        ]

    def values(self, records: Sequence[Mapping[str, Any]]) -> list[Sequence[Any]]:
        """The values of every column, in the order of `columns`."""
        identity = len(IDENTITY)
        top = transposed(records, _TOP)
        facts, (messages, prompt, output, answer, target) = top[identity:-9], top[-9:-4]
        row, scores, reasons, sensitive = top[-4:]
        facts[_ATTEMPT_LOG] = _none_for_empty(facts[_ATTEMPT_LOG])
        return [
            *top[:identity],
            *transposed(row, list(self._vars)),
            _none_for_empty(messages),
            prompt,
            output,
            [text_form(value) for value in answer],
            [None if isinstance(value, str) else value for value in answer],
            [text_form(value) for value in target],
            [None if isinstance(value, str) else value for value in target],
            *facts,
            *transposed(records, [name for name, _ in SOMETIMES if name in self._sometimes]),
            *transposed(scores, list(self._scores)),
            *transposed(reasons, list(self._reasons)),
            *transposed(sensitive, list(self._sensitive)),
        ]


def _none_for_empty(values: Sequence[Any]) -> list[Any]:
    """An empty list of messages or attempts says that there are none."""
    return [value or None for value in values]


def transposed(rows: Sequence[Mapping[str, Any] | None], names: Sequence[str]) -> list[Sequence[Any]]:
    """One sequence of values for each name; None where a row lacks it."""
    if len(names) > 1:
        with contextlib.suppress(KeyError, TypeError):
            # All rows have all names: the common case, and several times faster.
            return list(zip(*map(itemgetter(*names), rows), strict=True))  # type: ignore[arg-type]
    return [[None if row is None else row.get(name) for row in rows] for name in names]


def kind_of(bits: int) -> str:
    """The kind of a column whose values showed these types."""
    exact = {0: STRING, _STR: STRING, _BOOL: BOOLEAN, _INT: INTEGER, _INT | _WIDE: INTEGER}
    if bits in exact:
        return exact[bits]
    return NUMBER if bits in {_FLOAT, _INT | _FLOAT} else AS_JSON


def kind_of_values(values: Iterable[JSON]) -> str:
    """The kind of a column with these values."""
    bits = 0
    for value in values:
        bits |= _BITS[type(value)] | (_width(value) if type(value) is int else 0)
    return kind_of(bits)


def _width(value: int) -> int:
    """Whether a double holds an integer exactly (0), else whether 64 bits do."""
    if -_EXACT <= value <= _EXACT:
        return 0
    return _WIDE if -_INT64 <= value < _INT64 else _HUGE


def json_text(value: JSON) -> str:
    """A value as compact JSON text."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        import json

        return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))


def text_form(value: JSON) -> str | None:
    """An answer or target as text: text as it is, null as null, numbers and the rest as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json_text(value)
