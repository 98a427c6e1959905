"""OpenTelemetry traces as files: five generations of the names in which instrumentations record content.

Newest first: `gen_ai.input.messages`, the event `gen_ai.client.inference.operation.details`, events of one
message each (`gen_ai.user.message`, `gen_ai.choice`), `gen_ai.prompt.N.content` (OpenLLMetry), and
OpenInference's `llm.input_messages.N.message.content` (Phoenix). What one lacks is taken from the next.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from evalrun.traffic.calls import (
    CHOICES,
    CUT,
    SHAPE,
    THRESHOLD,
    Call,
    Tally,
    first_of,
    loaded,
    mapping,
    message_text,
    messages_of,
    named,
    nanoseconds,
    number,
    text_of,
    whole,
)

Attributes = dict[str, Any]
Last = dict[str, tuple[int, str]]
"""By trace: when its last generation began, and the span of that."""
Mine: TypeAlias = Callable[[str], bool]
"""Whether a trace is one of those that are looked at."""
Events = dict[str, list[tuple[str, Attributes, int | None]]]
"""By trace and span: name, attributes and time of each event."""

DETAILS = "gen_ai.client.inference.operation.details"
NO_GENERATION = frozenset(
    {"embeddings", "embedding", "execute_tool", "invoke_agent", "create_agent", "retrieval"}
)

_NAMES: dict[str, tuple[str, ...]] = {
    "model": (
        "gen_ai.response.model", "gen_ai.request.model", "llm.model_name", "llm.response.model",
        "llm.request.model",
    ),
    "provider": ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system"),
    "operation": ("gen_ai.operation.name", "llm.request.type"),
    "prompt_tokens": (
        "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt",
        "llm.usage.prompt_tokens",
    ),
    "completion_tokens": (
        "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion",
        "llm.usage.completion_tokens",
    ),
    "finish_reason": (
        "gen_ai.response.finish_reasons", "gen_ai.completion.0.finish_reason", "llm.response.finish_reason",
        "llm.finish_reason",
    ),
    "user": (
        "user.id", "enduser.id", "enduser.pseudo.id", "gen_ai.user.id",
        "traceloop.association.properties.user_id",
    ),
    "conversation": ("gen_ai.conversation.id", "session.id", "traceloop.association.properties.session_id"),
    "response_id": ("gen_ai.response.id", "llm.response.id"),
    "ttft_s": ("gen_ai.response.time_to_first_chunk", "gen_ai.server.time_to_first_token"),
    "prompt_version": (
        "gen_ai.prompt.version", "prompt.version", "prompt_version", "llm.prompt_template.version",
    ),
    "arm": ("arm", "evalrun.arm"),
    "feedback": ("feedback",),
}  # fmt: skip
"""The names of each field, newest first."""
_NAMED = frozenset(_NAMES) - {"prompt_tokens", "completion_tokens", "ttft_s", "feedback"}
"""Those that are plain names."""
_SLOTS = {name: (field, rank) for field, names in _NAMES.items() for rank, name in enumerate(names)}
_GENERATION = frozenset(
    {*_NAMES["operation"], "gen_ai.request.model", "llm.model_name", "openinference.span.kind"}
)

_KNOWN = re.compile(
    r"gen_ai\.(input\.messages|output\.messages|system_instructions|operation\.name|provider\.name|system|"
    r"request\.|response\.|usage\.|token\.|conversation\.|agent\.|tool\.|prompt\b|completion\b|output\.type|"
    r"data_source\.|evaluation\.|embeddings\.|orchestrator\.|user\.id|server\.|openai\.|workflow\.|is_streaming)"
    r"|llm\.(input_messages|output_messages|token_count|model_name|provider|system|invocation_parameters|"
    r"prompt|usage|request|response|tools|cost|finish_reason|is_streaming|headers|chat|user|frequency|"
    r"presence|top_k|choices|function_call)"
)


def is_otlp(line: Any) -> bool:
    """Whether a JSON value is an export request of traces or logs, or a span as the SDK prints it."""
    return isinstance(line, dict) and (
        not line.keys().isdisjoint(("resourceSpans", "resource_spans", "resourceLogs", "resource_logs"))
        or ("context" in line and "attributes" in line)
    )


def log_events(document: Mapping[str, Any], events: Events) -> None:
    """Put the events that log records hold into `events`, by trace and span; records of an unknown shape hold
    none."""
    for resource in _listed(document, "resourceLogs", "resource_logs"):
        for scope in _listed(resource, "scopeLogs", "scope_logs"):
            for record in _listed(scope, "logRecords", "log_records"):
                with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
                    _log_event(record, events)


def _log_event(record: Mapping[str, Any], events: Events) -> None:
    attributes = attributes_of(record.get("attributes"))
    name = record.get("eventName") or record.get("event_name") or attributes.get("event.name")
    key = _id(_first(record, "traceId", "trace_id")) + _id(_first(record, "spanId", "span_id"))
    if not isinstance(name, str) or not name.startswith("gen_ai."):
        return
    body = _value(record.get("body") or {})
    attributes.update(body if isinstance(body, dict) else {"content": body})
    at = nanoseconds(_first(record, "timeUnixNano", "time_unix_nano"))
    events.setdefault(key, []).append((name, attributes, at))


def spans(
    document: Mapping[str, Any], events: Events, tally: Tally, where: str, last: Last | None = None,
    mine: Mine | None = None,
) -> Iterator[Call]:  # fmt: skip
    """The spans of one line, those that are no calls of a model among them; with `last` only the last
    generation of each trace, with `mine` only those of traces that it says yes to."""
    if isinstance(document.get("context"), dict):
        about = mapping(mapping(document.get("resource")).get("attributes"))
        if (call := _read(_from_sdk(document), about, events, tally, where, last, mine)) is not None:
            yield call
        return
    for resource in _listed(document, "resourceSpans", "resource_spans"):
        about = _about(resource, tally, where)
        for scope in _listed(resource, "scopeSpans", "scope_spans"):
            for span in _listed(scope, "spans", "spans"):
                if (call := _read(span, about, events, tally, where, last, mine)) is not None:
                    yield call


def _about(resource: Mapping[str, Any], tally: Tally, where: str) -> Attributes:
    """The attributes of a resource; one of an unknown shape has none."""
    try:
        return attributes_of(mapping(resource.get("resource")).get("attributes"))
    except (KeyError, TypeError, ValueError, AttributeError):
        tally.note(SHAPE, where)
        return {}


def last_of_traces(document: Mapping[str, Any], last: Last, mine: Mine | None = None) -> int:
    """Note the last generation of each trace, by when it began, without reading more of it than that; how
    many generations there were."""
    seen = 0
    flat = [document] if isinstance(document.get("context"), dict) else []
    for span in [_from_sdk(each) for each in flat] or _all_spans(document):
        try:
            own = span["attributes"]
            if isinstance(own, list):
                few = {item["key"]: item["value"] for item in own if item["key"] in _GENERATION}
                own = {k: v["stringValue"] if "stringValue" in v else _value(v) for k, v in few.items()}
            trace = _id(_first(span, "traceId", "trace_id"))
            if _is_generation(own) and (mine is None or mine(trace)):
                seen += 1
                begin = nanoseconds(_first(span, "startTimeUnixNano", "start_time_unix_nano")) or 0
                place = (begin, _id(_first(span, "spanId", "span_id")))
                if place > last.get(trace, (-1, "")):
                    last[trace] = place
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return seen


def _all_spans(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in _listed(document, "resourceSpans", "resource_spans"):
        for scope in _listed(resource, "scopeSpans", "scope_spans"):
            yield from _listed(scope, "spans", "spans")


_NONE = (0, "")


def _read(
    span: Any,
    resource: Attributes,
    events: Events,
    tally: Tally,
    where: str,
    last: Last | None,
    mine: Mine | None,
) -> Call | None:
    try:
        trace, own = _id(_first(span, "traceId", "trace_id")), _id(_first(span, "spanId", "span_id"))
        if mine is not None and not mine(trace):
            events.pop(trace + own, None)
            return None
        tally.records += 1
        if not trace or not own:
            raise ValueError("no ids")
        if last is not None and last.get(trace, _NONE)[1] != own:
            events.pop(trace + own, None)
            return None
        return call_of(span, resource, events, tally, where)
    except (KeyError, TypeError, ValueError, AttributeError):
        tally.note(SHAPE, where)
        return None


def call_of(
    span: Mapping[str, Any], resource: Attributes, events: Events, tally: Tally, where: str = ""
) -> Call:
    """One span. Raises KeyError, TypeError, ValueError or AttributeError for what is no span."""
    own = span.get("attributes")
    attributes = own if isinstance(own, dict) else attributes_of(own)
    trace, identity = _id(_first(span, "traceId", "trace_id")), _id(_first(span, "spanId", "span_id"))
    if not trace or not identity:
        raise ValueError("no ids")
    heard = [
        (
            str(e.get("name")),
            attributes_of(e.get("attributes")),
            nanoseconds(_first(e, "timeUnixNano", "time_unix_nano")),
        )
        for e in span.get("events") or ()
    ]
    if events:
        heard += events.pop(trace + identity, ())
    for name, more, _ in heard:
        if name == DETAILS:
            attributes = {**more, **attributes}
    call = Call(
        trace=trace,
        span=identity,
        root=not _first(span, "parentSpanId", "parent_span_id"),
        name=str(span.get("name") or ""),
        begin_ns=nanoseconds(_first(span, "startTimeUnixNano", "start_time_unix_nano")),
        end_ns=nanoseconds(_first(span, "endTimeUnixNano", "end_time_unix_nano")),
        service=named(resource.get("service.name")),
        attributes={**resource, **attributes} if resource else attributes,
    )
    _fill(call, attributes, tally)
    call.generation = _is_generation(attributes)
    _content(call, attributes, heard, tally)
    _status(call, span.get("status"), attributes)
    _speed(call, heard)
    state = _first(span, "traceState", "trace_state")
    if state:
        try:
            call.kept = kept_share(state)
        except ValueError:
            tally.note(THRESHOLD, where)
    return call


def _is_generation(attributes: Attributes) -> bool:
    kind = attributes.get("openinference.span.kind")
    if kind is not None:
        return str(kind).upper() == "LLM"
    operation = attributes.get("gen_ai.operation.name") or attributes.get("llm.request.type")
    if operation is not None:
        return operation not in NO_GENERATION
    return "gen_ai.request.model" in attributes or "llm.model_name" in attributes


def _fill(call: Call, attributes: Attributes, tally: Tally) -> None:
    """The fields that are attributes, each under the newest of its names; unknown names are counted."""
    fields, unknown = _plan(tuple(key for key, value in attributes.items() if value is not None))
    for field, key, plain in fields:
        value = attributes[key]
        setattr(call, field, value or None if plain and type(value) is str else _field(field, value))
    for key in unknown:
        tally.unknown[key] += 1


@lru_cache(maxsize=1024)
def _plan(keys: tuple[str, ...]) -> tuple[list[tuple[str, str, bool]], list[str]]:
    """Which attribute each field is read of, and whether it is a plain name; and the unknown names. Spans of
    one instrumentation have the same attributes."""
    ranked: dict[str, tuple[int, str]] = {}
    for key in keys:
        if (slot := _SLOTS.get(key)) is not None:
            ranked[slot[0]] = min(ranked.get(slot[0], (99, "")), (slot[1], key))
    unknown = [key for key in keys if key.startswith(("gen_ai.", "llm.")) and key not in _SLOTS]
    return (
        [(field, key, field in _NAMED) for field, (_, key) in ranked.items()],
        [key for key in unknown if _KNOWN.match(key) is None],
    )


def _field(field: str, value: Any) -> Any:
    """The value of a field that is no plain name, or none as yet."""
    match field:
        case "prompt_tokens" | "completion_tokens":
            return whole(value)
        case "ttft_s":
            return number(value)
        case "feedback":
            return value
        case "finish_reason" if isinstance(value, list):
            return named(value[0]) if value else None
    return named(value)


def _content(
    call: Call, attributes: Attributes, heard: list[tuple[str, Attributes, int | None]], tally: Tally
) -> None:
    """What was asked and answered, under the newest names that there are."""
    sent, cut_in = loaded(attributes.get("gen_ai.input.messages"))
    answered, cut_out = loaded(attributes.get("gen_ai.output.messages"))
    system, cut_system = loaded(attributes.get("gen_ai.system_instructions"))
    call.messages = messages_of(sent) if not cut_in else None
    if call.messages and (said := text_of(system)) and not cut_system:
        call.messages = [{"role": "system", "content": said}, *call.messages]
    choices = answered if isinstance(answered, list) and not cut_out else []
    if choices and isinstance(choices[0], dict):
        call.output = message_text(choices[0])
        call.finish_reason = call.finish_reason or named(choices[0].get("finish_reason"))
    several = len(choices) > 1 and all(
        isinstance(c, dict) and c.get("role", "assistant") == "assistant" for c in choices
    )
    call.cut = cut_in or cut_out or cut_system
    if (call.messages is None or call.output is None) and heard:
        several |= _from_events(call, heard)
    if call.messages is None:
        call.messages = _numbered(attributes, "gen_ai.prompt.", "") or _numbered(
            attributes, "llm.input_messages.", "message."
        )
    if call.output is None:
        for prefix, inner in (("gen_ai.completion.", ""), ("llm.output_messages.", "message.")):
            made = _numbered(attributes, prefix, inner)
            if made:
                call.output = made[0]["content"]
                several |= len(made) > 1
                break
    if call.messages is None:
        call.messages = _value_of(
            call,
            attributes,
            ("input.value", "traceloop.entity.input", "ai.prompt.messages", "ai.prompt", "gen_ai.prompt"),
        )
    if call.output is None:
        out = _value_of(
            call,
            attributes,
            ("output.value", "traceloop.entity.output", "ai.response.text", "gen_ai.completion"),
        )
        call.output = out[-1]["content"] if out else None
    if call.output is not None and len(call.output) >= 1024:
        call.cut |= loaded(call.output)[1] and call.output[:1] not in ("[", "{")
    if several:
        tally.note(CHOICES)


def _from_events(call: Call, heard: list[tuple[str, Attributes, int | None]]) -> bool:
    """Messages and choices from events of one message each; whether there were several choices."""
    sent: list[dict[str, str]] = []
    choices: list[Attributes] = []
    for name, event, _ in heard:
        if name == "gen_ai.choice":
            inner, cut = loaded(event.get("message"))
            call.cut |= cut and isinstance(inner, str) and inner[:1] in ("[", "{")
            message = inner if isinstance(inner, dict) else {"content": inner} if inner is not None else event
            choices.append({**message, "finish_reason": event.get("finish_reason")})
        elif name.startswith("gen_ai.") and name.endswith(".message"):
            content = message_text(event)
            if content is not None:
                sent.append({"role": str(event.get("role") or name.split(".")[1]), "content": content})
        elif name == "gen_ai.content.prompt":
            sent += messages_of(loaded(event.get("gen_ai.prompt"))[0]) or []
        elif name == "gen_ai.content.completion":
            choices += messages_of(loaded(event.get("gen_ai.completion"))[0]) or []
    call.messages = call.messages or sent or None
    if call.output is None and choices:
        call.output = message_text(choices[0])
        call.finish_reason = call.finish_reason or named(choices[0].get("finish_reason"))
    return len(choices) > 1


def _numbered(attributes: Attributes, prefix: str, inner: str) -> list[dict[str, str]] | None:
    """`PREFIX.N.[INNER]role` and `….content` for N = 0, 1, …"""
    found = []
    at = 0
    while at < 10_000:
        head = f"{prefix}{at}.{inner}"
        content = attributes.get(f"{head}content")
        if content is None:
            parts = [
                text
                for part in range(100)
                if (text := attributes.get(f"{head}contents.{part}.message_content.text")) is not None
            ]
            content = "\n".join(map(str, parts)) if parts else None
        if content is None or content == "":
            tools = {key: value for key, value in attributes.items() if key.startswith(f"{head}tool_calls.")}
            content = str(sorted(tools.items())) if tools else content
        if content is None and f"{head}role" not in attributes:
            break
        if content is not None:
            role = str(attributes.get(f"{head}role") or "user")
            made = loaded(content)[0] if str(content)[:2] == "[{" else content  # parts, as text
            found.append({"role": role, "content": text_of(made) or str(content)})
        at += 1
    return found or None


def _value_of(call: Call, attributes: Attributes, names: tuple[str, ...]) -> list[dict[str, str]] | None:
    value = first_of(attributes, names)
    if value is None:
        return None
    made, cut = loaded(value)
    if cut and (
        "json" in str(attributes.get(f"{names[0].partition('.')[0]}.mime_type")) or len(value) in CUT
    ):
        call.cut = True
        return None
    if isinstance(made, dict) and "choices" in made and isinstance(made["choices"], list):
        made = made["choices"]
    return messages_of(made) or (messages_of(str(value)) if value != "" else None)


def _status(call: Call, status: Any, attributes: Attributes) -> None:
    code = _first(status, "code", "status_code") if isinstance(status, dict) else None
    if "error.type" in attributes or code in (2, "2", "STATUS_CODE_ERROR", "ERROR"):
        said = named(status.get("message") or status.get("description")) if isinstance(status, dict) else None
        kind = named(attributes.get("error.type"))
        call.error = ": ".join(part for part in (kind, said) if part) or "error"


def _speed(call: Call, heard: list[tuple[str, Attributes, int | None]]) -> None:
    """Time to the first chunk; a span that ends there has no end of its own."""
    if call.ttft_s is None and call.begin_ns is not None:
        chunks = [at for name, _, at in heard if at and ("chunk" in name or "first_token" in name.lower())]
        call.ttft_s = (min(chunks) - call.begin_ns) / 1e9 if chunks else None
    if call.ttft_s is not None and call.begin_ns is not None and call.end_ns is not None:
        ended = abs((call.end_ns - call.begin_ns) / 1e9 - call.ttft_s) < 0.001
        if ended and (call.completion_tokens or 0) > 1:
            call.end_ns = None


@lru_cache(maxsize=1024)
def kept_share(state: str) -> float | None:
    """The share of traces that head sampling kept, from `tracestate`: `ot=th:8` is 0.5.

    The threshold T has 56 bits, trailing zeros dropped, and 1 - T / 2^56 are kept (OpenTelemetry: TraceState,
    probability sampling). None where it has none. Raises ValueError for one that cannot be read.
    """
    for entry in state.split(","):
        key, _, value = entry.strip().partition("=")
        if key != "ot":
            continue
        for part in value.split(";"):
            name, _, digits = part.partition(":")
            if name.strip() == "th":
                if not re.fullmatch(r"[0-9a-fA-F]{1,14}", digits):
                    raise ValueError(state)
                return 1 - int(digits.ljust(14, "0"), 16) / 2**56
    return None


def attributes_of(items: Any) -> Attributes:
    """A list of key and value as a mapping; numbers in text become numbers."""
    if not items:
        return {}
    if isinstance(items, dict):
        return items
    try:  # nearly all are texts
        return {
            item["key"]: value["stringValue"] if "stringValue" in (value := item["value"]) else _value(value)
            for item in items
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    found: Attributes = {}
    for item in items:
        value = item.get("value")
        if value is not None:
            found[item["key"]] = value["stringValue"] if "stringValue" in value else _value(value)
    return found


def _value(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    for key, inner in value.items():
        if key == "intValue":
            return int(inner)
        match key:
            case "stringValue" | "string_value" | "boolValue" | "bool_value" | "bytesValue" | "bytes_value":
                return inner
            case "int_value":
                return int(inner)
            case "doubleValue" | "double_value":
                return float(inner)
            case "arrayValue" | "array_value":
                return [_value(item) for item in (inner or {}).get("values") or ()]
            case "kvlistValue" | "kvlist_value":
                return attributes_of((inner or {}).get("values"))
    return None


def _listed(value: Any, *names: str) -> Iterator[dict[str, Any]]:
    found = _first(value, *names) if isinstance(value, dict) else None
    if isinstance(found, list):
        yield from (item for item in found if isinstance(item, dict))


def _first(value: Mapping[str, Any], one: str, other: str = "") -> Any:
    found = value.get(one)
    return value.get(other) if found is None else found


_HEX = "0123456789abcdef"


def _id(text: Any) -> str:
    """An id as hexadecimal digits, also where an exporter wrote base64, or 0x before it."""
    if not isinstance(text, str) or not text:
        return ""
    if len(text) in (16, 32):
        if not text.strip(_HEX):
            return text
        lowered = text.lower()
        if not lowered.strip(_HEX):
            return lowered
    if text.startswith("0x"):
        return text[2:].lower()
    try:
        return base64.b64decode(text, validate=True).hex() or text
    except (binascii.Error, ValueError):
        return text


def _from_sdk(span: Mapping[str, Any]) -> dict[str, Any]:
    """A span as `ReadableSpan.to_json` writes it, in the names of OTLP."""
    context, status = mapping(span.get("context")), mapping(span.get("status"))
    state = context.get("trace_state")
    return {
        "traceId": context.get("trace_id"),
        "spanId": context.get("span_id"),
        "parentSpanId": span.get("parent_id"),
        "traceState": state.strip("[]'\"") if isinstance(state, str) else None,
        "name": span.get("name"),
        "startTimeUnixNano": span.get("start_time"),
        "endTimeUnixNano": span.get("end_time"),
        "attributes": span.get("attributes"),
        "status": {"code": status.get("status_code"), "message": status.get("description")},
        "events": [
            {"name": e.get("name"), "timeUnixNano": e.get("timestamp"), "attributes": e.get("attributes")}
            for e in _listed(span, "events")
        ],
    }
