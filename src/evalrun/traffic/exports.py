"""Records that are no OTLP: Langfuse's export, logs of the OpenAI API, Phoenix's frames, and plain rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evalrun.traffic.calls import (
    CHOICES,
    SHAPE,
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
    value_at,
    whole,
)

_OUTPUT = ("output", "response", "answer", "completion", "model_output")
_INPUT = ("messages", "input", "prompt", "question", "query", "text")
_TIME = ("ts", "timestamp", "time", "start_time", "created_at", "created")
_ID = ("request_id", "response_id", "id", "trace_id", "sample_id")


def source_of(row: Any) -> str:
    """Which of SOURCES a JSON object is of."""
    from evalrun.traffic.otlp import is_otlp

    if is_otlp(row):
        return "otlp"
    if not isinstance(row, dict):
        return "jsonl"
    if any(key.startswith(("attributes.", "context.")) for key in row):
        return "openinference"
    if "observations" in row or "traceId" in row or row.get("type") in ("GENERATION", "SPAN", "EVENT"):
        return "langfuse"
    if row.get("object") in ("chat.completion", "response", "text_completion") or (
        ("request" in row or "custom_id" in row) and isinstance(row.get("response"), dict)
    ):
        return "openai_logs"
    return "jsonl"


def calls(row: Any, source: str, mapped: Mapping[str, str], tally: Tally, where: str) -> Iterator[Call]:
    """The calls that a record holds; one of an unknown shape is counted."""
    tally.records += 1
    try:
        if not isinstance(row, dict):
            raise TypeError("no object")
        match source:
            case "langfuse":
                yield from _langfuse(row, tally)
            case "openai_logs":
                yield _openai(row, tally)
            case "openinference":
                yield _frame(row, tally, where)
            case _:
                yield _plain(row, mapped, tally)
    except (KeyError, TypeError, ValueError, AttributeError):
        tally.note(SHAPE, where)


def _langfuse(row: dict[str, Any], tally: Tally) -> Iterator[Call]:
    """A trace with its observations, or one observation."""
    inside = row.get("observations")
    if not isinstance(inside, list) or not all(isinstance(each, dict) for each in inside):
        yield _observation(row, {})
        return
    feedback = next(
        (s.get("value", s.get("stringValue")) for s in row.get("scores") or () if isinstance(s, dict)), None
    )
    trace = {**row, "feedback": feedback}
    whole_trace = _observation({**row, "type": "TRACE", "traceId": row["id"]}, trace)
    whole_trace.span, whole_trace.root = "", True
    tally.records += len(inside)
    yield whole_trace
    for each in inside:
        yield _observation({"traceId": row["id"], **each}, trace)


def _observation(row: Mapping[str, Any], trace: Mapping[str, Any]) -> Call:
    usage = mapping(row.get("usageDetails")) or mapping(row.get("usage"))
    sent, cut_in = loaded(row.get("input"))
    answered, cut_out = loaded(row.get("output"))
    begin, first = (
        nanoseconds(row.get("startTime") or row.get("timestamp")),
        nanoseconds(row.get("completionStartTime")),
    )
    version = row.get("promptVersion")
    about = {key: value for key, value in row.items() if key not in ("input", "output")}
    return Call(
        trace=str(row.get("traceId") or row.get("id") or ""),
        span=str(row["id"]),
        root=not row.get("parentObservationId"),
        generation=str(row.get("type") or "GENERATION").upper() == "GENERATION",
        name=str(row.get("name") or ""),
        begin_ns=begin,
        end_ns=nanoseconds(row.get("endTime")),
        model=named(row.get("model") or row.get("providedModelName")),
        prompt_version=f"{row['promptName']}@{version}" if row.get("promptName") else named(version),
        messages=None if cut_in and isinstance(sent, str) and sent[:1] in "[{" else messages_of(sent),
        output=_answer(answered),
        prompt_tokens=whole(first_of(usage, ("input", "promptTokens", "prompt_tokens", "input_tokens"))),
        completion_tokens=whole(
            first_of(usage, ("output", "completionTokens", "completion_tokens", "output_tokens"))
        ),
        ttft_s=(first - begin) / 1e9 if first and begin else None,
        error=(named(row.get("statusMessage")) or "error") if row.get("level") == "ERROR" else None,
        user=named(trace.get("userId") or row.get("userId")),
        conversation=named(trace.get("sessionId") or row.get("sessionId")),
        feedback=trace.get("feedback"),
        cut=cut_in or cut_out,
        attributes={**mapping(row.get("metadata")), **about},
    )


def _answer(value: Any) -> str | None:
    """The text of an answer that may be a message, a list of them, or what the API returned."""
    if isinstance(value, dict):
        if isinstance(value.get("choices"), list) and value["choices"]:
            value = value["choices"][0]
        return message_text(
            value.get("message") if isinstance(value.get("message"), dict) else value
        ) or text_of(value)
    if isinstance(value, list) and value and isinstance(value[-1], dict) and "role" in value[-1]:
        return message_text(value[-1])
    return text_of(value)


def _openai(row: dict[str, Any], tally: Tally) -> Call:
    """A stored completion or response, a line of a batch's output, or a request beside its response."""
    request, body = mapping(row.get("request")), mapping(row.get("response")) or row
    status = body.get("status_code")
    if "custom_id" in row or isinstance(request.get("body"), dict):
        request, body = mapping(request.get("body")) or request, mapping(body.get("body")) or body
    usage = mapping(body.get("usage"))
    error = row.get("error") or body.get("error")
    if error is None and isinstance(status, int) and status >= 400:
        error = f"HTTP {status}"
    choices = found if isinstance(found := body.get("choices"), list) else []
    output = finish = None
    if choices:
        output, finish = _answer(body), named(choices[0].get("finish_reason"))
        if output is None or output.startswith('{"index"'):
            output = named(choices[0].get("text"))
    elif isinstance(body.get("output"), list):  # the Responses API
        output, finish = _responses_text(body["output"]), named(body.get("status"))
    if len(choices) > 1:
        tally.note(CHOICES)
    asked = first_of({**row, **body, **request}, ("messages", "input", "prompt"))
    metadata = row.get("metadata") or body.get("metadata") or request.get("metadata")
    begin = nanoseconds(first_of({**body, **row}, _TIME))
    took = number(first_of(row, ("latency_s", "duration_s", "e2e_s")))
    return Call(
        trace=str(row.get("custom_id") or body.get("id") or row["id"]),
        generation=True,
        root=True,
        begin_ns=begin,
        end_ns=begin + int(took * 1e9) if begin is not None and took is not None else None,
        model=named(body.get("model") or request.get("model")),
        provider="openai",
        operation="chat",
        messages=messages_of(asked),
        output=output,
        prompt_tokens=whole(first_of(usage, ("prompt_tokens", "input_tokens"))),
        completion_tokens=whole(first_of(usage, ("completion_tokens", "output_tokens"))),
        finish_reason=finish,
        error=text_of(error.get("message") or error) if isinstance(error, dict) else named(error),
        user=named(request.get("user") or row.get("user")),
        response_id=named(body.get("id")),
        arm=named(mapping(metadata).get("arm")),
        attributes={**mapping(metadata), **{k: v for k, v in row.items() if not isinstance(v, dict | list)}},
    )


def _responses_text(items: list[Any]) -> str | None:
    texts = [
        text
        for item in items
        if isinstance(item, dict) and item.get("type") != "reasoning"
        if (text := text_of(item.get("content")) if item.get("content") else text_of([item]))
    ]
    return "\n".join(texts) or None


def _frame(row: dict[str, Any], tally: Tally, where: str) -> Call:
    """A row of Phoenix's frame of spans: `context.trace_id`, `attributes.llm.input_messages` and so on."""
    from evalrun.traffic.otlp import call_of

    attributes: dict[str, Any] = {}
    for key, value in row.items():
        if key.startswith("attributes.") and value is not None:
            name = key.removeprefix("attributes.")
            attributes[name] = value
            for at, message in enumerate(
                value if name.endswith("put_messages") and isinstance(value, list) else ()
            ):
                inner = {k if k.startswith("message.") else f"message.{k}": v for k, v in message.items()}
                attributes |= {f"{name}.{at}.{k}": v for k, v in inner.items()}
    span = {
        "traceId": row.get("context.trace_id") or row.get("trace_id"),
        "spanId": row.get("context.span_id") or row.get("span_id"),
        "parentSpanId": row.get("parent_id"),
        "name": row.get("name"),
        "startTimeUnixNano": row.get("start_time"),
        "endTimeUnixNano": row.get("end_time"),
        "attributes": {"openinference.span.kind": row.get("span_kind"), **attributes},
        "status": {"code": row.get("status_code"), "message": row.get("status_message")},
    }
    return call_of(span, {}, {}, tally, where)


def _plain(row: dict[str, Any], mapped: Mapping[str, str], tally: Tally) -> Call:
    """A row with columns of its own: the usual names, or those that `map` gives."""
    known = {name: value for name, path in mapped.items() if (value := value_at(row, path)) is not None}
    merged = {**row, **known}
    sent = first_of(merged, ("messages", *_INPUT))
    output = _answer(first_of(merged, _OUTPUT))
    messages = messages_of(loaded(sent)[0] if str(sent)[:2] == "[{" else sent)
    if output is None and messages and isinstance(sent, list) and messages[-1]["role"] == "assistant":
        output, messages = messages[-1]["content"], messages[:-1]
    begin = nanoseconds(first_of(merged, _TIME))
    took = number(first_of(merged, ("e2e_s", "latency_s", "duration_s")))
    identity = first_of(merged, _ID)
    if identity is None:
        from evalrun.canonical import digest

        identity = digest([messages, output, begin // 60_000_000_000 if begin else None])[:32]
    error = merged.get("error")
    return Call(
        trace=named(merged.get("trace_id")) or str(identity),
        response_id=str(identity),
        generation=True,
        root=True,
        begin_ns=begin,
        end_ns=begin + int(took * 1e9) if begin is not None and took is not None else None,
        model=named(merged.get("model")),
        service=named(merged.get("service")),
        provider=named(merged.get("provider")),
        operation=named(merged.get("operation")),
        prompt_version=named(merged.get("prompt_version")),
        messages=messages,
        output=output,
        prompt_tokens=whole(first_of(merged, ("prompt_tokens", "input_tokens"))),
        completion_tokens=whole(first_of(merged, ("completion_tokens", "output_tokens"))),
        ttft_s=number(merged.get("ttft_s")),
        finish_reason=named(merged.get("finish_reason")),
        error=text_of(error) if error else None,
        user=named(first_of(merged, ("user_key", "user_id", "user"))),
        conversation=named(first_of(merged, ("conversation", "conversation_id", "session_id"))),
        arm=named(merged.get("arm")),
        feedback=merged.get("feedback"),
        kept=number(merged.get("kept")),
        plain=True,
        attributes=row,
    )  # fmt: skip
