"""One call of a model as production records have it, whatever wrote them; and what was wrong with them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from evalrun.types import JSON

CUT = frozenset(2**power for power in range(10, 21))
"""Lengths at which exporters cut attribute values: a text of just that many characters is taken as cut."""

TORN, SHAPE, NO_CONTENT, CUT_OFF, TWICE, FUTURE, NO_TIME, UNSORTED, THRESHOLD, EVENTS, CHOICES = (
    "lines that are no JSON (torn)",
    "records of an unknown shape",
    "calls without recorded content",
    "calls whose content was cut at a length limit",
    "duplicates",
    "times in the future",
    "times that are missing or unreadable",
    "records out of the order of time",
    "sampling thresholds that cannot be read",
    "events of calls that are not there",
    "calls with several choices (the first is taken)",
)
"""What records are counted as. Of these TORN, SHAPE, NO_CONTENT, CUT_OFF, TWICE and EVENTS are left out."""


@dataclass(slots=True)
class Call:
    """A call, as far as it is known. Times are Unix nanoseconds, `kept` is the share of such traces that was
    kept when they were recorded, `cut` says that content was cut off."""

    trace: str = ""
    span: str = ""
    root: bool = False
    generation: bool = False
    name: str = ""
    begin_ns: int | None = None
    end_ns: int | None = None
    model: str | None = None
    provider: str | None = None
    operation: str | None = None
    service: str | None = None
    prompt_version: str | None = None
    messages: list[dict[str, str]] | None = None
    output: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    ttft_s: float | None = None
    finish_reason: str | None = None
    error: str | None = None
    user: str | None = None
    conversation: str | None = None
    response_id: str | None = None
    arm: str | None = None
    feedback: JSON = None
    kept: float | None = None
    cut: bool = False
    plain: bool = False
    """Whether it is a row with columns of its own, to which `map` was applied where it was read."""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def request_id(self) -> str:
        """What feedback and experiments call it by: the response's id, else trace and span."""
        return self.response_id or (f"{self.trace}-{self.span}" if self.span else self.trace)


@dataclass
class Tally:
    """How much was read, and what was wrong with it: counted and named, with the first place of each."""

    records: int = 0
    calls: int = 0
    matching: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)
    """Attributes of the conventions' namespaces that are not known here, by name."""
    notes: list[str] = field(default_factory=list)

    def absorb(self, other: Tally) -> None:
        """What was counted elsewhere."""
        self.records, self.calls = self.records + other.records, self.calls + other.calls
        self.matching += other.matching
        self.wrong.update(other.wrong)
        self.unknown.update(other.unknown)
        self.first = {**other.first, **self.first}
        self.notes = list(dict.fromkeys([*self.notes, *other.notes]))

    def note(self, what: str, where: str = "") -> None:
        """Count one."""
        self.wrong[what] += 1
        if where:
            self.first.setdefault(what, where)


def text_of(value: Any) -> str | None:
    """Content as text: parts joined, tool calls as JSON; None where there is none."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = [part for part in map(_part, value) if part]
        return "\n".join(parts) if parts else None
    return _part(value)


def _part(part: Any) -> str | None:
    if not isinstance(part, dict):
        return part if isinstance(part, str) else dumps(part)
    for key in ("content", "text"):
        if isinstance(part.get(key), str):
            return str(part[key])
    if part.get("type") == "reasoning":
        return None
    if isinstance(part.get("text"), dict):  # {"text": {"value": …}}
        return text_of(part["text"].get("value"))
    return dumps(part)


def messages_of(value: Any) -> list[dict[str, str]] | None:
    """Messages as role and text, from any of the shapes in which they are written; None where there are
    none."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if isinstance(value, dict):
        inner = value.get("messages")
        return messages_of(inner) if inner is not None else messages_of([value])
    if not isinstance(value, list) or not value:
        return None
    found = []
    for message in value:
        if isinstance(message, str):
            found.append({"role": "user", "content": message})
        elif isinstance(message, dict):
            own = mapping(message.get("message")) or message
            if (content := message_text(own)) is not None:
                found.append({"role": str(own.get("role") or "user"), "content": content})
    return found or None


def message_text(message: Mapping[str, Any]) -> str | None:
    """The text of a message: its parts or content, else the tools that it calls."""
    content = text_of(message.get("parts") if message.get("parts") is not None else message.get("content"))
    if content is None and message.get("text") is not None:
        content = text_of(message["text"])
    if not content and message.get("tool_calls"):
        return dumps(message["tool_calls"])
    return content


def mapping(value: Any) -> dict[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def dumps(value: Any) -> str:
    """Any value as JSON text."""
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def labelled(value: Any) -> str:
    """A value as the name of a group: as it is where it is text, "none" where it is missing."""
    return "none" if value is None or value == "" else value if isinstance(value, str) else dumps(value)


def loaded(value: Any) -> tuple[Any, bool]:
    """A value that may be JSON in a text, and whether it was cut: it begins like JSON and is none."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return orjson.loads(value), False
        except orjson.JSONDecodeError:
            return value, True
    return value, isinstance(value, str) and len(value) in CUT


def nanoseconds(value: Any) -> int | None:
    """A moment in any of the usual forms (ISO 8601; Unix seconds, milliseconds, micro- or nanoseconds, also
    as text) as Unix nanoseconds; None where it is none."""
    if isinstance(value, str):
        if len(value) == 19 and value.isdigit():
            return int(value)
        try:
            return nanoseconds(float(value)) if not value.isdigit() else nanoseconds(int(value))
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        value = moment
    if isinstance(value, datetime):
        at: datetime = value if value.tzinfo else value.replace(tzinfo=UTC)
        return int(at.replace(microsecond=0).timestamp()) * 10**9 + at.microsecond * 1000
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value <= 0
    ):
        return None
    for limit, factor in ((1e11, 10**9), (1e14, 10**6), (1e17, 10**3), (1e20, 1)):
        if value < limit:
            return int(value * factor)
    return None


def whole(value: Any) -> int | None:
    """A count of tokens, which OTLP writes as text; None where it is none."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        made = float(value)
    except (TypeError, ValueError):
        return None
    return made if math.isfinite(made) else None


def named(value: Any) -> str | None:
    """A name as text; None where there is none, or it is empty."""
    if value is None or value == "" or isinstance(value, dict | list):
        return None
    return str(value)


_STEP = re.compile(r"""\[(-?\d+)\]|\[["']([^"']+)["']\]|([^.\[\]]+)""")


def value_at(row: Mapping[str, Any], path: str) -> Any:
    """What stands at a path such as `reply.text`, `messages[-1].content` or `attributes["a.b"]`; None where
    nothing does."""
    if path in row:
        return row[path]
    value: Any = row
    for index, quoted, name in _STEP.findall(path):
        if index:
            at = int(index)
            value = value[at] if isinstance(value, list) and -len(value) <= at < len(value) else None
        else:
            value = value.get(quoted or name) if isinstance(value, Mapping) else None
    return value


def first_of(values: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The first of several names under which there is a value, newest first."""
    for name in names:
        if (value := values.get(name)) is not None:
            return value
    return None
