"""Bars of production traffic: a million spans read, sampled and redacted; drift of 100,000 rows.

    python benchmarks/traffic.py [SPANS] [ROWS]

In a process of its own, whose seconds and peak memory are printed beside the bars.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

import psutil

IMPORT_BAR_S, IMPORT_BAR_MB = 60, 500
DRIFT_BAR_S = 20


def write_spans(path: Path, spans: int) -> None:
    """OTLP JSON lines of 100 spans each, two generations a trace, with content."""
    words = "my card was charged twice and the refund for order {} did not come to ann{}@example.org yet " * 3
    with path.open("w") as file:
        for first in range(0, spans, 100):
            batch = [_span(at, words.format(*[at] * 6)) for at in range(first, min(spans, first + 100))]
            file.write(json.dumps({"resourceSpans": [{"resource": {"attributes": [
                {"key": "service.name", "value": {"stringValue": "triage"}}]},
                "scopeSpans": [{"spans": batch}]}]}) + "\n")  # fmt: skip


def _span(at: int, text: str) -> dict[str, object]:
    begin = 1_760_000_000_000_000_000 + at * 10_000_000
    own = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.response.id": f"chatcmpl-{at}",
        "user.id": f"user-{at % 5000}",
        "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": text}]}]),
        "gen_ai.output.messages": json.dumps(
            [
                {
                    "role": "assistant",
                    "parts": [{"type": "text", "content": "billing"}],
                    "finish_reason": "stop",
                }
            ]
        ),
    }
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in own.items()]
    attributes += [
        {"key": f"gen_ai.usage.{way}_tokens", "value": {"intValue": "60"}} for way in ("input", "output")
    ]
    return {
        "traceId": f"{at // 2:032x}",
        "spanId": f"{at:016x}",
        "traceState": "ot=th:8",
        "name": "chat",
        "startTimeUnixNano": str(begin),
        "endTimeUnixNano": str(begin + 400_000_000),
        "attributes": attributes,
    }


def import_spans(path: Path, out: Path, redact: str) -> None:
    """What the child of the first bar does."""
    from evalrun.traffic.main import Wanted, take

    take(Wanted([path], n=10_000, redact=redact, store=out.parent), out)


def drift_rows(rows: int) -> None:
    """What the child of the second bar does."""
    import numpy as np

    from evalrun.analysis.drift import Side, drift

    rng = np.random.default_rng(0)

    def side(shift: float) -> Side:
        columns: dict[str, object] = {}
        for at in range(20):
            columns[f"number_{at}"] = rng.normal(shift * (at == 0), 1, rows)
        for at in range(15):
            columns[f"count_{at}"] = rng.poisson(5 + 100 * at, rows).astype(float)
        for at in range(14):
            columns[f"class_{at}"] = rng.choice(list("abcdefgh"), rows).tolist()
        columns["text"] = [f"ticket {a} about {b} and {c}" for a, b, c in rng.integers(0, 5000, (rows, 3))]
        return Side("", columns, rows)

    drift(side(0.0), side(0.1))


def _timed(*arguments: str) -> tuple[float, float]:
    """Seconds, and the most megabytes that the child and its own children held together, looked at ten times
    a second."""
    begin, most = time.perf_counter(), 0
    process = psutil.Popen([sys.executable, __file__, *arguments])
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            held = [each.memory_info().rss for each in (process, *process.children(recursive=True))]
            most = max(most, sum(held))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.perf_counter() - begin, most / 1e6


def main(spans: int, rows: int) -> None:
    """Print the bars and what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "traces.jsonl", Path(folder) / "rows.parquet"
        write_spans(path, spans)
        seconds, mb = _timed("import", str(path), str(out), "standard")
        print(
            f"{spans:,} spans ({path.stat().st_size / 1e9:.2f} GB) read, sampled, redacted: {seconds:.1f} s "
            f"(bar {IMPORT_BAR_S}), {mb:.0f} MB (bar {IMPORT_BAR_MB})"
        )
    seconds, _ = _timed("drift", str(rows))
    print(f"drift over {rows:,} rows a side, 50 columns: {seconds:.1f} s (bar {DRIFT_BAR_S})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["import"]:
        import_spans(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    elif sys.argv[1:2] == ["drift"]:
        drift_rows(int(sys.argv[2]))
    else:
        main(int((sys.argv[1:] or ["1000000"])[0]), int((sys.argv[2:] or ["100000"])[0]))
