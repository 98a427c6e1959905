"""OpenTelemetry, OTLP/HTTP in JSON: a run is a trace, a sample a span, a score an event; after the fact.

Names are those of the GenAI conventions (open-telemetry/semantic-conventions-genai, development); what they
have no name for is under `evalrun.*`. Ids come from sweep, run and sample: sent twice they are the same.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, Literal
from urllib.parse import unquote

import orjson
from pydantic import Field

from evalrun._version import __version__
from evalrun.errors import UserError
from evalrun.results import RunResults
from evalrun.secrets import scrub_json
from evalrun.sinks.base import Item, Refused, Sink, UrlOptions, call, sink
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


class OtlpOptions(UrlOptions):
    """A collector, Langfuse, Phoenix, … at its OTLP/HTTP address; the part behind it is added."""

    signals: list[Literal["traces", "logs", "metrics"]] = Field(
        default=["traces", "logs", "metrics"],
        min_length=1,
        description="What is sent: spans of samples, events of scores, figures of runs.",
    )
    content: bool = Field(default=False, description="Prompts, answers, targets and reasons too.")
    headers_env: str = Field(
        default="OTEL_EXPORTER_OTLP_HEADERS",
        description="The environment variable with headers, such as a key: key=value,key=value.",
    )


@sink("otlp")
class OtlpSink(Sink):
    """Headers come from a variable of the environment, `TRACEPARENT` gives the span that runs are in."""

    Options = OtlpOptions
    summary = "Whatever takes OpenTelemetry: a trace a run, a span a sample, an event a score, metrics."

    def __init__(self, options: OtlpOptions) -> None:
        self.address = options.url
        self._options = options
        if options.headers_env != "OTEL_EXPORTER_OTLP_HEADERS" and options.headers_env not in os.environ:
            raise UserError(f"the variable {options.headers_env} is not set", where="otlp: headers_env")
        self._headers = {"Content-Type": "application/json", **_headers(options.headers_env)}
        self._parent = _PARENT.fullmatch(os.environ.get("TRACEPARENT", "").strip())

    def items(self, folder: SweepFolder) -> Iterator[Item]:
        """For each run: its span and figures, then its samples' spans and events, a batch at a time."""
        manifest, content = folder.read_manifest(), self._options.content
        for run_id in folder.run_ids():
            if not folder.is_finished(run_id):
                continue
            run = Run(folder, manifest, run_id, self._parent and self._parent.groups())
            digest = hashlib.sha256(
                f"{run.results.digests.get('samples_sha256')}|{content}|{run.trace}".encode()
            ).hexdigest()
            items = [
                Item(f"traces/{run_id}", digest, partial(_root, run)),
                Item(f"metrics/{run_id}", digest, partial(metrics, run)),
            ]
            for number, rows in enumerate(_batches(read_rows(folder, run_id, content))):
                key = f"{run_id}/{number}"
                items.append(Item(f"traces/{key}", digest, partial(_spans, run, rows)))
                items.append(Item(f"logs/{key}", digest, partial(logs, run, rows)))
                yield from (item for item in items if self._wanted(item))
                items = []
            yield from (item for item in items if self._wanted(item))

    def _wanted(self, item: Item) -> bool:
        return item.key.partition("/")[0] in self._options.signals

    def send(self, item: Item) -> str:
        """To `/v1/traces`, `/v1/logs` or `/v1/metrics`; what was taken only in part is a refusal."""
        signal = item.key.partition("/")[0]
        body = orjson.dumps(scrub_json(item.body()))
        said = call("POST", f"{self.address}/v1/{signal}", body, self._headers)
        try:
            partial = (orjson.loads(said) if said else {}).get("partialSuccess") or {}
        except (ValueError, AttributeError):
            return ""
        lost = sum(int(partial.get(f"rejected{kind}") or 0) for kind in ("Spans", "LogRecords", "DataPoints"))
        if lost:
            raise Refused(f"{lost} rejected: {partial.get('errorMessage', '')}"[:500])
        return ""


def _headers(variable: str) -> dict[str, str]:
    """As the OpenTelemetry specification writes them: `key=value,key=value`, percent-encoded."""
    pairs = [p.partition("=") for p in os.environ.get(variable, "").split(",") if p.strip()]
    headers = {unquote(key.strip()): unquote(value.strip()) for key, _, value in pairs}
    if any(not key or not re.fullmatch(r"[\x20-\x7e]*", key + value) for key, value in headers.items()):
        raise UserError("has to be key=value,key=value", where=variable)
    return headers


def read_rows(folder: SweepFolder, run_id: str, content: bool) -> Iterator[dict[str, Any]]:
    """The samples of a run: what spans and events tell, with texts only where `content` is asked for."""
    from evalrun.tracking.parquet import column_names, iter_samples

    path = folder.samples_path(run_id)
    wanted = {*COLUMNS, *(CONTENT if content else ())}
    scores = ("score.", "reason.") if content else ("score.",)
    columns = [name for name in column_names(path) if name in wanted or name.startswith(scores)]
    return iter_samples(path, BATCH, columns)


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(rows, BATCH)):
        yield batch


def _root(run: Run) -> dict[str, Any]:
    return traces([run.span()])


def _spans(run: Run, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return traces([run.sample_span(row) for row in rows])


class Run:
    """A run as a trace."""

    def __init__(
        self, folder: SweepFolder, manifest: Mapping[str, Any], run_id: str, parent: Sequence[str] | None
    ) -> None:
        self.folder = folder
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

    def own_trace(self, row: Mapping[str, Any]) -> str:
        """The trace id of a sample where each is a trace."""
        return _id(f"{self.name}|{row['sample_id']}|{row['repeat']}", 16)

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


def traces(spans: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
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
        if name.startswith("score.") and isinstance(value, (int, float)) and math.isfinite(value)
    ]
    return {
        "resourceLogs": [{"resource": _RESOURCE, "scopeLogs": [{"scope": _SCOPE, "logRecords": records}]}]
    }


DURATION_BOUNDS = tuple(0.01 * 2**power for power in range(14))
TOKEN_BOUNDS = tuple(4**power for power in range(14))
"""The buckets that the GenAI conventions name."""


def metrics(run: Run) -> dict[str, Any]:
    """An ExportMetricsServiceRequest: the run's figures with their intervals as gauges, and, of answers that
    were timed, the conventions' histograms of durations and tokens."""
    of_run = {"evalrun.run": run.results.run, "gen_ai.request.model": run.results.model}
    of_run |= {"gen_ai.operation.name": "chat", "gen_ai.provider.name": run.provider}
    of_run |= {"evalrun.prompt": run.results.prompt, "evalrun.dataset": run.results.dataset}
    told: list[dict[str, Any]] = []
    for metric in run.results.metrics:
        about = {**of_run, "evalrun.n": metric.n}
        about |= {f"evalrun.slice.{column}": group for column, group in metric.slice.items()}
        figures = {"": metric.value, ".ci_low": metric.ci_low, ".ci_high": metric.ci_high}
        for suffix, value in figures.items():
            if value is not None:
                point = {
                    "timeUnixNano": str(run.end),
                    "asDouble": _double(value),
                    "attributes": _attributes(about),
                }
                gauge = {"dataPoints": [point]}
                told.append({"name": f"evalrun.{metric.name}{suffix}", "unit": metric.unit, "gauge": gauge})
    timed: dict[str, list[float]] = {"e2e_s": [], "prompt_tokens": [], "completion_tokens": []}
    for row in read_rows(run.folder, run.results.run, False):
        for column, values in timed.items():
            if row.get(column) is not None and not (row.get("cached") or row.get("warmup")):
                values.append(row[column])
    duration = _histogram(run, timed["e2e_s"], DURATION_BOUNDS, of_run)
    told.append({"name": "gen_ai.client.operation.duration", "unit": "s", **_delta(duration)})
    tokens = [
        point
        for kind, column in (("input", "prompt_tokens"), ("output", "completion_tokens"))
        for point in _histogram(run, timed[column], TOKEN_BOUNDS, {**of_run, "gen_ai.token.type": kind})
    ]
    told.append({"name": "gen_ai.client.token.usage", "unit": "{token}", **_delta(tokens)})
    told = [each for each in told if "gauge" in each or each["histogram"]["dataPoints"]]
    return {
        "resourceMetrics": [{"resource": _RESOURCE, "scopeMetrics": [{"scope": _SCOPE, "metrics": told}]}]
    }


def _delta(points: list[dict[str, Any]]) -> dict[str, Any]:
    return {"histogram": {"aggregationTemporality": 1, "dataPoints": points}}


def _histogram(
    run: Run, values: Sequence[float], bounds: Sequence[float], about: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One point; a bucket holds what is at most its bound. None where nothing was measured."""
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect_left(bounds, value)] += 1
    point = {
        "startTimeUnixNano": str(run.begin), "timeUnixNano": str(run.end), "count": str(len(values)),
        "sum": float(sum(values)), "explicitBounds": [float(bound) for bound in bounds],
        "bucketCounts": [str(count) for count in counts], "attributes": _attributes(about),
    }  # fmt: skip
    return [point] if values else []


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


def _double(value: float) -> float | str:
    """As Protobuf's JSON has it: what is no number is a word."""
    return value if math.isfinite(value) else {"inf": "Infinity", "-inf": "-Infinity"}.get(str(value), "NaN")


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items() if value is not None]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": _double(value)}
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
