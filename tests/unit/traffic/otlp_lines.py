"""Traces as instrumentations write them, one function a generation of names."""

import json
from typing import Any

SENT = [{"role": "user", "content": "My card was charged twice"}]
ANSWER = "billing"


def value(given: Any) -> dict[str, Any]:
    """A value as OTLP's JSON has it: whole numbers as text."""
    if isinstance(given, bool):
        return {"boolValue": given}
    if isinstance(given, int):
        return {"intValue": str(given)}
    if isinstance(given, float):
        return {"doubleValue": given}
    if isinstance(given, list):
        return {"arrayValue": {"values": [value(item) for item in given]}}
    if isinstance(given, dict):
        return {"kvlistValue": {"values": [{"key": k, "value": value(v)} for k, v in given.items()]}}
    return {"stringValue": given}


def attributes(given: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value(item)} for key, item in given.items()]


def ids(number: int) -> tuple[str, str]:
    return f"{number:032x}", f"{number:016x}"


def span(number: int, own: dict[str, Any], **more: Any) -> dict[str, Any]:
    trace, identity = ids(number)
    begin = 1_760_000_000_000_000_000 + number * 1_000_000_000
    return {
        "traceId": trace,
        "spanId": identity,
        "name": "chat gpt-x",
        "kind": 3,
        "startTimeUnixNano": str(begin),
        "endTimeUnixNano": str(begin + 500_000_000),
        "attributes": attributes(own),
        **more,
    }


def line(*spans: dict[str, Any], service: str = "triage") -> str:
    resource = {"attributes": attributes({"service.name": service})}
    scope = {"scope": {"name": "test"}, "spans": list(spans)}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]})


def newest(number: int = 1, **more: Any) -> dict[str, Any]:
    sent = [{"role": "user", "parts": [{"type": "text", "content": SENT[0]["content"]}]}]
    out = [{"role": "assistant", "parts": [{"type": "text", "content": ANSWER}], "finish_reason": "stop"}]
    own = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.input.messages": json.dumps(sent),
        "gen_ai.output.messages": json.dumps(out),
    }
    return span(number, {**own, **more.pop("own", {})}, **more)


def details(number: int = 2) -> tuple[dict[str, Any], str]:
    """A span whose content is in a log record."""
    own = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
    }
    sent = [{"role": "user", "parts": [{"type": "text", "content": SENT[0]["content"]}]}]
    out = [{"role": "assistant", "parts": [{"type": "text", "content": ANSWER}], "finish_reason": "stop"}]
    trace, identity = ids(number)
    record = {
        "timeUnixNano": "1760000001000000000",
        "eventName": "gen_ai.client.inference.operation.details",
        "traceId": trace,
        "spanId": identity,
        "attributes": attributes({"gen_ai.input.messages": sent, "gen_ai.output.messages": out}),
    }
    logs = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})
    return span(number, own), logs


def span_events(number: int = 3) -> dict[str, Any]:
    own = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
    }
    at = "1760000001000000000"
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}
    events = [
        {"name": "gen_ai.user.message", "timeUnixNano": at, "attributes": attributes(SENT[0])},
        {"name": "gen_ai.choice", "timeUnixNano": at, "attributes": attributes(choice)},
    ]
    return span(number, own, events=events)


def openllmetry(number: int = 4) -> dict[str, Any]:
    own = {
        "llm.request.type": "chat",
        "gen_ai.system": "openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.usage.prompt_tokens": 12,
        "gen_ai.usage.completion_tokens": 3,
        "gen_ai.prompt.0.role": "user",
        "gen_ai.prompt.0.content": SENT[0]["content"],
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.content": ANSWER,
        "gen_ai.completion.0.finish_reason": "stop",
    }
    return span(number, own)


def openinference(number: int = 5) -> dict[str, Any]:
    own = {
        "openinference.span.kind": "LLM",
        "llm.provider": "openai",
        "llm.model_name": "gpt-x",
        "llm.token_count.prompt": 12,
        "llm.token_count.completion": 3,
        "llm.finish_reason": "stop",
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": SENT[0]["content"],
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": ANSWER,
    }
    return span(number, own)
