"""A sweep as Prometheus sees it: counted while it runs, served at an address or kept in a textfile.

A textfile (node_exporter's collector reads it) is what a batch job needs: a served figure ends with its
process. No sample or sweep is a label, so that series stay as many as a project has runs. Text format 0.0.4.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from evalrun.atomic import disk_errors, replacing
from evalrun.errors import UserError
from evalrun.secrets import scrub
from evalrun.tracking.folder import SweepFolder
from evalrun.types import SampleRecord

EVERY_S = 5.0
"""How often the textfile is written while samples come."""

BOUNDS = tuple(0.01 * 2**power for power in range(14))
"""Buckets of seconds, as the GenAI conventions of OpenTelemetry have them."""

NAMES: Mapping[str, tuple[str, str]] = {
    "evalrun_samples_planned": ("gauge", "Samples that a run asks in all."),
    "evalrun_samples_total": ("counter", "Samples that ended, by how they ended."),
    "evalrun_cached_total": ("counter", "Samples that were answered from the cache."),
    "evalrun_requests_in_flight": ("gauge", "Requests that an endpoint has not answered yet."),
    "evalrun_retries_total": ("counter", "Further attempts, by what ended the one before."),
    "evalrun_tokens_total": ("counter", "Tokens of answers that were asked for now."),
    "evalrun_cost_usd_total": ("counter", "US dollars that answers cost, where models have a price."),
    "evalrun_ttft_seconds": ("histogram", "Seconds to the first chunk with content."),
    "evalrun_e2e_seconds": ("histogram", "Seconds from a request to the end of its answer."),
    "evalrun_score": ("gauge", "A metric of a finished run, over all its samples."),
    "evalrun_score_ci_low": ("gauge", "The low end of its 95 % interval."),
    "evalrun_score_ci_high": ("gauge", "The high end of its 95 % interval."),
    "evalrun_gate": ("gauge", "A gate on a run: 1 passes, 0 fails, 2 cannot be decided."),
    "evalrun_exit_code": ("gauge", "The exit code of the last sweep."),
    "evalrun_last_finished_timestamp_seconds": ("gauge", "When the last sweep ended."),
}
"""Every metric with its type and meaning."""

_GATES = {"fail": 0, "pass": 1, "inconclusive": 2}

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counts the samples of a sweep as they come.

    `address` (HOST:PORT, HOST may be missing) is listened at, `file` is kept up to date. Raises UserError
    where either cannot be had, before anything is asked.
    """

    def __init__(self, project: str, address: str | None = None, file: Path | None = None) -> None:
        self._project = project
        self._file = file
        self._values: dict[tuple[str, Labels], float] = {}
        self._buckets: dict[tuple[str, Labels], list[float]] = {}
        self._asking: dict[str, tuple[str, Callable[[], int]]] = {}
        self._lock = threading.Lock()
        self._written = 0.0
        self.trouble = ""
        self._server = None if address is None else _listen(address, self.text)
        if file is not None:
            self._write()
            if self.trouble:
                self.close()
                raise UserError(self.trouble, where="--metrics-file")

    @property
    def address(self) -> str:
        """Where it listens, HOST:PORT; "" where it does not."""
        return "" if self._server is None else "{}:{}".format(*self._server.server_address[:2])

    def begin(self, run: str, total: int) -> None:
        """A run of so many samples begins."""
        with self._lock:
            self._values["evalrun_samples_planned", self._labels(run=run)] = total

    def asking(self, run: str, endpoint: str, in_flight: Callable[[], int]) -> None:
        """A run asks an endpoint; `in_flight` tells from any thread how many requests it has there."""
        with self._lock:
            self._asking[run] = (scrub(endpoint), in_flight)

    def sample(self, run: str, record: SampleRecord) -> None:
        """One sample ended."""
        with self._lock:
            self._count("evalrun_samples_total", 1, run=run, status=record.status.value)
            self._count("evalrun_cost_usd_total", record.cost_usd, run=run)
            if record.cached:
                self._count("evalrun_cached_total", 1, run=run)
            else:
                for attempt in record.attempt_log[:-1]:
                    self._count("evalrun_retries_total", 1, run=run, cause=attempt.error or "")
                self._count("evalrun_tokens_total", record.prompt_tokens, run=run, direction="input")
                self._count("evalrun_tokens_total", record.completion_tokens, run=run, direction="output")
                self._observe("evalrun_ttft_seconds", record.ttft_s, run)
                self._observe("evalrun_e2e_seconds", record.e2e_s, run)
        if self._file is not None and time.monotonic() - self._written > EVERY_S:
            self._write()

    def finish(self, folder: SweepFolder, manifest: Mapping[str, Any]) -> None:
        """What the sweep came to."""
        with self._lock:
            for run_id in folder.run_ids():
                results = folder.run(run_id)
                about = {"run": run_id, "model": results.model, "prompt": results.prompt}
                for metric in results.metrics:
                    if not metric.slice:
                        labels = self._labels(**about, dataset=results.dataset, metric=metric.name)
                        figures = {"": metric.value, "_ci_low": metric.ci_low, "_ci_high": metric.ci_high}
                        for suffix, value in figures.items():
                            if value is not None:
                                self._values[f"evalrun_score{suffix}", labels] = value
            for gate in manifest["gates"]:
                labels = self._labels(run=gate["run"], gate=gate["gate"])
                self._values["evalrun_gate", labels] = _GATES.get(str(gate["verdict"]), 2)
            self._values["evalrun_exit_code", self._labels()] = int(manifest["exit_code"])
            self._values["evalrun_last_finished_timestamp_seconds", self._labels()] = time.time()
        if self._file is not None:
            self._write()

    def close(self) -> None:
        """Listen no longer."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def text(self) -> str:
        """All of it in Prometheus' text format."""
        with self._lock:
            values = {**self._values}
            for endpoint, in_flight in self._asking.values():
                key = ("evalrun_requests_in_flight", self._labels(endpoint=endpoint))
                values[key] = values.get(key, 0) + in_flight()
            buckets = {at: [*counts] for at, counts in self._buckets.items()}
        lines: list[str] = []
        for name, (kind, meaning) in NAMES.items():
            rows = [_line(key[0], key[1], value) for key, value in values.items() if key[0] == name]
            for key, counts in buckets.items():
                if key[0] == name:
                    rows += _histogram(name, key[1], counts)
            if rows:
                lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *rows]
        return "\n".join([*lines, ""])

    def _labels(self, **labels: str) -> Labels:
        return (("project", self._project), *labels.items())

    def _count(self, name: str, by: float | None, **labels: str) -> None:
        if by is not None:
            key = (name, self._labels(**labels))
            self._values[key] = self._values.get(key, 0) + by

    def _observe(self, name: str, value: float | None, run: str) -> None:
        if value is not None:
            counts = self._buckets.setdefault((name, self._labels(run=run)), [0.0] * (len(BOUNDS) + 2))
            counts[bisect_left(BOUNDS, value)] += 1
            counts[-1] += value

    def _write(self) -> None:
        """The textfile, whole or not at all: it is read at any moment. A full disk fails no sweep."""
        if self._file is None:
            return
        self._written = time.monotonic()
        try:
            with disk_errors(self._file.parent), replacing(self._file) as temporary:
                temporary.write_text(self.text(), encoding="utf-8")
                temporary.chmod(0o644)  # node_exporter is another user
        except (UserError, OSError) as error:
            self.trouble = f"the textfile of metrics cannot be written: {error}"


def _line(name: str, labels: Labels, value: float) -> str:
    inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
    return f"{name}{{{inner}}} {value!r}"


def _histogram(name: str, labels: Labels, counts: list[float]) -> Iterator[str]:
    """Cumulative counts up to each bound, as the format wants them; then the sum and the count."""
    seen = 0.0
    for bound, count in zip([*BOUNDS, "+Inf"], counts[:-1], strict=True):
        seen += count
        yield _line(f"{name}_bucket", (*labels, ("le", str(bound))), seen)
    yield _line(f"{name}_sum", labels, counts[-1])
    yield _line(f"{name}_count", labels, seen)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _listen(address: str, text: Any) -> ThreadingHTTPServer:
    """A server at HOST:PORT that answers every GET of /metrics, in a thread that ends with the process."""
    host, _, port = address.rpartition(":")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there = self.path.partition("?")[0] in ("/", "/metrics")
            body = text().encode() if there else b"not found\n"
            self.send_response(200 if there else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    try:
        server = ThreadingHTTPServer((host.strip("[]") or "127.0.0.1", int(port)), Handler)
    except (ValueError, OverflowError):
        remedy = "Write HOST:PORT, such as 127.0.0.1:9464."
        raise UserError(f"'{address}' is no address", where="--metrics", remedy=remedy) from None
    except OSError as error:
        what = f"cannot listen at {address}: {error.strerror or error}"
        raise UserError(what, where="--metrics", remedy="Take a free port of this machine.") from None
    threading.Thread(target=server.serve_forever, name="evalrun-metrics", daemon=True).start()
    return server
