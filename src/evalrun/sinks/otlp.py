"""OpenTelemetry, OTLP/HTTP in JSON: a trace a run, a span a sample, an event a score, after the fact.

Names are those of the GenAI conventions (open-telemetry/semantic-conventions-genai, development); what they
have no name for is under `evalrun.*`. Ids come from sweep, run and sample: sent twice they are the same.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import unquote

import orjson

from evalrun._version import __version__
from evalrun.errors import UserError
from evalrun.results import RunResults
from evalrun.secrets import scrub_json
from evalrun.sinks.base import Item, Options, Refused, call, check_url
from evalrun.tracking.folder import SweepFolder

BATCH = 500
"""Samples a request."""

COLUMNS = (
    "sample_id",
    "repeat",
    "status",
    "error",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "ttft_s",
    "e2e_s",
    "sent_s",
    "done_s",
    "cached",
    "warmup",
)
CONTENT = ("messages", "prompt", "output", "target")

_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_INTERNAL, _CLIENT = 1, 3
_ERROR = 2


class OtlpSink:
    """`OTEL_EXPORTER_OTLP_HEADERS` gives headers, such as a key; `TRACEPARENT` the span that runs are in."""

    def __init__(self, options: Options) -> None:
        self._url = check_url(options.url, "otlp")
        self._content = options.content
        self._headers = {"Content-Type": "application/json", **_headers()}
        self._parent = _PARENT.fullmatch(os.environ.get("TRACEPARENT", "").strip())

    def items(self, folder: SweepFolder) -> Iterator[Item]:
        """For each run: its span, then its samples' spans and events, a batch at a time."""
        manifest = folder.read_manifest()
        for run_id in folder.run_ids():
            if not folder.is_finished(run_id):
                continue
            run = Run(folder, manifest, run_id, self._parent and self._parent.groups())
            digest = hashlib.sha256(
                f"{run.results.digests.get('samples_sha256')}|{self._content}|{run.trace}".encode()
            ).hexdigest()
            yield Item(f"traces/{run_id}", digest, partial(self._root, run))
            for number, rows in enumerate(_batches(folder, run_id, self._content)):
                key = f"{run_id}/{number}"
                yield Item(f"traces/{key}", digest, partial(self._spans, run, rows))
                yield Item(f"logs/{key}", digest, partial(logs, run, rows))

    def _root(self, run: Run) -> dict[str, Any]:
        return traces(run, [run.span()])

    def _spans(self, run: Run, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return traces(run, [run.sample_span(row) for row in rows])

    def send(self, item: Item) -> str:
        """To `/v1/traces` or `/v1/logs`; what was taken only in part is a refusal."""
        signal = item.key.partition("/")[0]
        said = call("POST", f"{self._url}/v1/{signal}", orjson.dumps(scrub_json(item.body())), self._headers)
        try:
            partial = (orjson.loads(said) if said else {}).get("partialSuccess") or {}
        except (ValueError, AttributeError):
            return ""
        lost = int(partial.get("rejectedSpans") or partial.get("rejectedLogRecords") or 0)
        if lost:
            raise Refused(f"{lost} rejected: {partial.get('errorMessage', '')}"[:500])
        return ""


def _headers() -> dict[str, str]:
    """As the OpenTelemetry specification writes them: `key=value,key=value`, percent-encoded."""
    pairs = [
        p.partition("=") for p in os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "").split(",") if p.strip()
    ]
    headers = {unquote(key.strip()): unquote(value.strip()) for key, _, value in pairs}
    if any(not key or not re.fullmatch(r"[\x20-\x7e]*", key + value) for key, value in headers.items()):
        raise UserError("has to be key=value,key=value", where="OTEL_EXPORTER_OTLP_HEADERS")
    return headers


def _batches(folder: SweepFolder, run_id: str, content: bool) -> Iterator[list[dict[str, Any]]]:
    from evalrun.tracking.parquet import column_names, iter_samples

    path = folder.samples_path(run_id)
    wanted = {*COLUMNS, *(CONTENT if content else ())}
    scores = ("score.", "reason.") if content else ("score.",)
    columns = [name for name in column_names(path) if name in wanted or name.startswith(scores)]
    batch: list[dict[str, Any]] = []
    for row in iter_samples(path, BATCH, columns):
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


class Run:
    """A run as a trace."""

    def __init__(
        self, folder: SweepFolder, manifest: Mapping[str, Any], run_id: str, parent: Sequence[str] | None
    ) -> None:
        self.results: RunResults = folder.run(run_id)
        self.manifest = manifest
        self.name = f"{folder.ulid}|{run_id}"
        self.trace = parent[0] if parent else _id(self.name, 16)
        self.root = _id(f"{self.name}|root", 8)
        self._parent = parent[1] if parent else ""
        timings = self.results.timings
        self.begin = _nanoseconds(timings.started_at or str(manifest["started_at"]))
        end = _nanoseconds(timings.finished_at) if timings.finished_at else self.begin
        self.end = max(end, self.begin)
        model = manifest.get("models", {}).get(self.results.model, {})
        self.provider = str(model.get("provider") or "unknown") if isinstance(model, Mapping) else "unknown"

    def span(self) -> dict[str, Any]:
        """The span that all samples of the run are in."""
        run, data = self.results, self.manifest.get("datasets", {})
        attributes = {
            "evalrun.sweep": self.manifest["sweep"],
            "evalrun.run": run.run,
            "evalrun.model": run.model,
            "evalrun.project": self.manifest.get("project"),
            "evalrun.prompt": run.prompt,
            "evalrun.dataset": run.dataset,
            "evalrun.dataset_digest": data.get(run.dataset, {}).get("digest"),
        }
        return self._span("evalrun.run", self.root, self._parent, _INTERNAL, self.begin, self.end, attributes)

    def sample_id(self, row: Mapping[str, Any]) -> str:
        """The span id of a sample."""
        return _id(f"{self.name}|{row['sample_id']}|{row['repeat']}", 8)

    def sample_span(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """One answer, from its request to its end, as it was measured."""
        begin, end = self.times(row)
        parameters = self.results.params
        reason = row.get("finish_reason")
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": self.provider,
            "gen_ai.request.model": self.results.model,
            "gen_ai.request.temperature": parameters.get("temperature"),
            "gen_ai.request.top_p": parameters.get("top_p"),
            "gen_ai.request.max_tokens": parameters.get("max_tokens"),
            "gen_ai.usage.input_tokens": row.get("prompt_tokens"),
            "gen_ai.usage.output_tokens": row.get("completion_tokens"),
            "gen_ai.response.finish_reasons": [reason] if reason else None,
            "evalrun.ttft_s": row.get("ttft_s"),
            "evalrun.sample_id": row["sample_id"],
            "evalrun.repeat": row["repeat"],
            "evalrun.status": row["status"],
            "evalrun.cached": row.get("cached"),
            "evalrun.warmup": row.get("warmup"),
            **_content(row),
        }
        name = f"chat {self.results.model}"
        span = self._span(name, self.sample_id(row), self.root, _CLIENT, begin, end, attributes)
        if row["status"] == "failed":
            error = str(row.get("error") or "failed")
            span["status"] = {"code": _ERROR, "message": error}
            span["attributes"] += _attributes({"error.type": error.split(":")[0].split(" ")[0] or "_OTHER"})
        return span

    def times(self, row: Mapping[str, Any]) -> tuple[int, int]:
        """Begin and end, Unix nanoseconds; without a measurement (recorded, cached) the run's beginning."""
        begin = self.begin + round((row.get("sent_s") or 0.0) * 1e9)
        return begin, begin + round((row.get("e2e_s") or 0.0) * 1e9)

    def _span(
        self, name: str, own: str, parent: str, kind: int, begin: int, end: int, attributes: Mapping[str, Any]
    ) -> dict[str, Any]:
        span = {
            "traceId": self.trace,
            "spanId": own,
            "name": name,
            "kind": kind,
            "startTimeUnixNano": str(begin),
            "endTimeUnixNano": str(end),
            "attributes": _attributes(attributes),
        }
        return {**span, "parentSpanId": parent} if parent else span


def traces(run: Run, spans: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """An ExportTraceServiceRequest."""
    return {"resourceSpans": [{"resource": _RESOURCE, "scopeSpans": [{"scope": _SCOPE, "spans": [*spans]}]}]}


def logs(run: Run, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """An ExportLogsServiceRequest: a `gen_ai.evaluation.result` for each score, in its sample's span."""
    records = [
        {
            "timeUnixNano": str(run.times(row)[1]),
            "eventName": "gen_ai.evaluation.result",
            "severityNumber": 9,
            "traceId": run.trace,
            "spanId": run.sample_id(row),
            "attributes": _attributes(
                {
                    "gen_ai.evaluation.name": name.removeprefix("score."),
                    "gen_ai.evaluation.score.value": float(value),
                    "gen_ai.evaluation.explanation": row.get(f"reason.{name.removeprefix('score.')}"),
                    "evalrun.sample_id": row["sample_id"],
                    "evalrun.repeat": row["repeat"],
                }
            ),
        }
        for row in rows
        for name, value in row.items()
        if name.startswith("score.") and isinstance(value, (int, float)) and value == value
    ]
    return {
        "resourceLogs": [{"resource": _RESOURCE, "scopeLogs": [{"scope": _SCOPE, "logRecords": records}]}]
    }


def _content(row: Mapping[str, Any]) -> dict[str, Any]:
    """Texts, where they were read; shaped as the conventions' JSON schemas say."""
    sent: list[dict[str, Any]] = []
    if row.get("messages"):
        sent = [
            {
                "role": str(m.get("role", "user")),
                "parts": [{"type": "text", "content": _text(m.get("content"))}],
            }
            for m in orjson.loads(row["messages"])
        ]
    elif row.get("prompt"):
        sent = [{"role": "user", "parts": [{"type": "text", "content": row["prompt"]}]}]
    answer = {
        "role": "assistant",
        "parts": [{"type": "text", "content": row.get("output")}],
        "finish_reason": row.get("finish_reason") or "stop",
    }
    return {
        "gen_ai.input.messages": _json(scrub_json(sent)) if sent else None,
        "gen_ai.output.messages": _json(scrub_json([answer])) if row.get("output") is not None else None,
        "evalrun.target": row.get("target"),
    }


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _text(content: Any) -> str:
    return content if isinstance(content, str) else _json(content)


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items() if value is not None]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(part) for part in value]}}
    return {"stringValue": str(value)}


_RESOURCE = {"attributes": _attributes({"service.name": "evalrun", "service.version": __version__})}
_SCOPE = {"name": "evalrun", "version": __version__}


def _id(text: str, size: int) -> str:
    return hashlib.sha256(text.encode()).digest()[:size].hex()


def _nanoseconds(moment: str) -> int:
    """Whole microseconds, exactly: a float of seconds would lose some."""
    seen = datetime.fromisoformat(moment)
    return int(seen.replace(microsecond=0).timestamp()) * 10**9 + seen.microsecond * 1000
