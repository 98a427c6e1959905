"""`evalrun sync` to servers on loopback that keep every byte, refuse, break off or are not there."""

import base64
import json
import re
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.program import evalrun

SECRET = "sk-abcdefghijklmnop1234"
OWN = "correct-horse-battery"


MLFLOW = {
    "experiment_id": "1", "trace": {"trace_info": {}},
    "run": {"info": {"run_id": "r", "experiment_id": "1", "artifact_uri": "mlflow-artifacts:/1/r/artifacts"}},
}  # fmt: skip
"""What MLflow answers, as far as the sink reads it."""


@dataclass
class Server:
    """What it was sent, and what it answers: a status and a body; `silent_s` it is silent before, `short`
    bytes are missing at the end. `ill` are the statuses of the first answers."""

    url: str = ""
    status: int = 200
    said: bytes = b"{}"
    silent_s: float = 0.0
    short: int = 0
    ill: list[int] = field(default_factory=list)
    quiet: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, bytes]] = field(default_factory=list)
    wire: list[bytes] = field(default_factory=list)
    """Every byte: the request line, headers and body of each."""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            state.requests.append((self.path, body))
            state.wire.append(self.raw_requestline + bytes(self.headers) + body)
            state.quiet.wait(state.silent_s)
            self.send_response(state.ill.pop(0) if state.ill else state.status)
            if state.short:
                self.send_header("Content-Length", str(len(state.said) + state.short))
            self.end_headers()
            self.wfile.write(state.said)

        do_GET = do_POST = do_PUT = _answer

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{http.server_port}"
        yield state
        state.quiet.set()
        http.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sinks")
    rows = [
        {"id": f"r{i}", "q": f"q {SECRET}", "t": "yes", "o": "yes" if i < 3 else SECRET} for i in range(4)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "s.yaml").write_text(
        "name: s\nmodels: [{id: m, provider: recorded, column: o}]\nprompts: [{id: p, text: '{{ q }}'}]\n"
        "datasets: [{id: d, path: rows.jsonl, key: id, target: '{{ t }}'}]\nscorers: [exact_match]\n"
    )
    done = evalrun(folder / "s.yaml", "--store", folder / "st", "--report", folder / "r.html")
    assert done.returncode == 0, done.stderr
    return folder / "st"


@pytest.fixture(autouse=True)
def nothing_sent_yet(store: Path) -> None:
    for path in store.glob("sweeps/*/outbox/*"):
        path.unlink()


def _sync(store: Path, *words: str, **env: str) -> tuple[int, dict[str, Any]]:
    done = evalrun("sync", "latest", "--store", store, "--json", *words, env=env)
    return done.returncode, json.loads(done.stdout)["sinks"][0]


def _spans(server: Server) -> list[dict[str, Any]]:
    bodies = [json.loads(body) for path, body in server.requests if path == "/v1/traces"]
    return [s for body in bodies for r in body["resourceSpans"] for c in r["scopeSpans"] for s in c["spans"]]


def test_spans_and_events_name_the_samples_and_are_sent_once(store: Path, server: Server) -> None:
    code, sent = _sync(store, "--to", f"otlp={server.url}")
    assert (code, sent["sent"], sent["waiting"]) == (0, 4, 0)
    root, *samples = _spans(server)
    assert root["name"] == "evalrun.run" and len(samples) == 4
    assert {span["parentSpanId"] for span in samples} == {root["spanId"]}
    (log,) = [json.loads(body) for path, body in server.requests if path == "/v1/logs"]
    records = log["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    assert [record["spanId"] for record in records] == [span["spanId"] for span in samples]
    scores = [
        a["value"]["doubleValue"]
        for r in records
        for a in r["attributes"]
        if a["key"].endswith("score.value")
    ]
    assert sorted(scores) == [0.0, 1.0, 1.0, 1.0]
    assert _sync(store, "--to", f"otlp={server.url}")[1]["unchanged"] == 4
    assert len(server.requests) == 4


def test_figures_of_a_run_are_gauges_with_their_interval(store: Path, server: Server) -> None:
    _sync(store, "--to", f"otlp={server.url}")
    (body,) = [json.loads(body) for path, body in server.requests if path == "/v1/metrics"]
    metrics = body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    points = {each["name"]: each["gauge"]["dataPoints"][0]["asDouble"] for each in metrics if "gauge" in each}
    assert points["evalrun.exact_match"] == 0.75
    assert points["evalrun.exact_match.ci_low"] < 0.75 < points["evalrun.exact_match.ci_high"]
    assert not any("histogram" in each for each in metrics)  # recorded answers were not timed


def test_texts_are_sent_only_when_asked_for_and_never_a_secret(store: Path, server: Server) -> None:
    _sync(store, "--to", f"otlp={server.url}")
    assert not any(b"messages" in body for _, body in server.requests)
    _sync(store, "--to", f"otlp={server.url}", "--content")
    assert any(b"gen_ai.input.messages" in body for _, body in server.requests)
    assert not any(SECRET.encode() in body for _, body in server.requests)


def _of_hex(value: Any) -> Any:
    """Ids are hex in OTLP's JSON, where Protobuf's own has base64."""
    if isinstance(value, list):
        return [_of_hex(part) for part in value]
    if not isinstance(value, dict):
        return value
    ids = ("traceId", "spanId", "parentSpanId")
    return {
        key: base64.b64encode(bytes.fromhex(part)).decode() if key in ids else _of_hex(part)
        for key, part in value.items()
    }


@pytest.mark.parametrize("signal", ["trace", "logs", "metrics"])
def test_what_is_sent_is_otlp_by_its_own_definition(store: Path, server: Server, signal: str) -> None:
    """Every key is one that opentelemetry-proto knows, with its type; ids have their lengths."""
    pytest.importorskip("opentelemetry.proto", reason="needs opentelemetry-proto (comes with mlflow)")
    import importlib

    from google.protobuf import json_format

    _sync(store, "--to", f"otlp={server.url}", "--content")
    module = importlib.import_module(f"opentelemetry.proto.collector.{signal}.v1.{signal}_service_pb2")
    kind = getattr(module, f"Export{signal.capitalize()}ServiceRequest")
    path = f"/v1/{signal}s".replace("ss", "s")
    read = [json_format.ParseDict(_of_hex(json.loads(b)), kind()) for p, b in server.requests if p == path]
    assert read
    if signal == "trace":
        spans = [s for each in read for r in each.resource_spans for c in r.scope_spans for s in c.spans]
        assert {(len(span.trace_id), len(span.span_id)) for span in spans} == {(16, 8)}
        assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in spans)
    elif signal == "metrics":
        found = [m for one in read for r in one.resource_metrics for c in r.scope_metrics for m in c.metrics]
        values = {m.name: m.gauge.data_points[0].as_double for m in found}
        assert values["evalrun.exact_match"] == 0.75
    else:
        records = [
            e for each in read for r in each.resource_logs for c in r.scope_logs for e in c.log_records
        ]
        assert {record.event_name for record in records} == {"gen_ai.evaluation.result"}


def test_runs_belong_to_the_trace_of_the_surroundings(store: Path, server: Server) -> None:
    parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    _sync(store, "--to", f"otlp={server.url}", TRACEPARENT=parent)
    root, *samples = _spans(server)
    assert {span["traceId"] for span in [root, *samples]} == {"ab" * 16}
    assert root["parentSpanId"] == "cd" * 8


@pytest.mark.parametrize(
    ("status", "parked", "waiting"), [(401, 4, 0), (413, 4, 0), (302, 4, 0), (500, 0, 4), (429, 0, 4)]
)
def test_what_a_server_does_not_take_stays_with_its_words(
    store: Path, server: Server, status: int, parked: int, waiting: int
) -> None:
    server.status, server.said = status, f"because {SECRET}".encode()
    code, sent = _sync(store, "--to", f"otlp={server.url}")
    assert (code, sent["parked"], sent["waiting"]) == (3, parked, waiting)
    assert sent["words"] == f"{status} because [redacted]"
    assert len(server.requests) == (4 if parked else 1)  # a server that is ill is asked once
    server.status, server.said = 200, b"{}"
    assert _sync(store, "--to", f"otlp={server.url}")[:1] == (0,)


def test_a_server_that_is_not_there(store: Path, server: Server) -> None:
    code, sent = _sync(store, "--to", "otlp=http://127.0.0.1:9")
    assert (code, sent["sent"], sent["waiting"]) == (3, 0, 4)


@pytest.mark.parametrize(
    ("ill", "sent", "asked"), [([500, 429], 4, 6), ([503] * 9, 0, 3), ([401, 500], 3, 5)]
)
def test_what_waits_is_tried_again_and_what_is_refused_is_not(
    store: Path, server: Server, monkeypatch: pytest.MonkeyPatch, ill: list[int], sent: int, asked: int
) -> None:
    monkeypatch.setattr("evalrun.sinks.main.PAUSES_S", (0.0,))
    server.ill = ill
    code, said = _sync(store, "--to", f"otlp={server.url}", "--tries", "3")
    assert (code, said["sent"], said["unchanged"]) == (0 if sent == 4 else 3, sent, 0)
    assert len(server.requests) == asked


@pytest.mark.parametrize("name", ["otlp", "mlflow", "openlineage"])
@pytest.mark.parametrize("trouble", ["down", "silent", "breaks off", "refuses"])
def test_each_sink_that_is_a_server_bears_one_that_is_ill_and_gets_it_later(
    store: Path, server: Server, monkeypatch: pytest.MonkeyPatch, name: str, trouble: str
) -> None:
    monkeypatch.setattr("evalrun.sinks.base.TIMEOUT_S", 0.3)
    server.said = orjson.dumps(MLFLOW)
    broken = {"silent": {"silent_s": 60.0}, "refuses": {"status": 403}, "breaks off": {"short": 9}}
    for key, value in broken.get(trouble, {}).items():
        setattr(server, key, value)
    url = "http://127.0.0.1:9" if trouble == "down" else server.url
    code, sent = _sync(store, "--to", f"{name}={url}")
    assert code == 3 and sent["sent"] == 0 and sent["words"]
    assert bool(sent["parked"]) == (trouble == "refuses") and bool(sent["waiting"]) == (trouble != "refuses")
    server.silent_s, server.status, server.short = 0.0, 200, 0
    server.quiet.set()
    code, sent = _sync(store, "--to", f"{name}={server.url}")
    assert (code, sent["waiting"], sent["parked"]) == (0, 0, 0) and sent["sent"] >= 3
    assert _sync(store, "--to", f"{name}={server.url}")[1]["sent"] == 0


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with secrets in prompts, targets, answers, groups, failures, arguments and tags."""
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "asked_for_secrets.py").write_text(
        "def answer(prompt, **_):\n"
        f"    if 'fail' in prompt: raise RuntimeError('Authorization: Bearer {OWN}')\n"
        f"    return '{SECRET} {OWN}'\n"
    )
    (folder / "s.yaml").write_text(
        f"name: s\ndescription: '{SECRET}'\ntags: {{by: '{SECRET}'}}\nperformance: {{retries: 0}}\n"
        "models: [{id: m, provider: python, function: 'asked_for_secrets:answer'}]\n"
        "prompts: [{id: p, text: '{{ q }}'}]\nerrors: {tolerate: 1}\n"
        f"datasets: [{{id: d, rows: [{{q: 'fail {SECRET}', t: '{OWN}', g: '{SECRET}'}}, "
        f"{{q: '{OWN}', t: x, g: y}}], " + "target: '{{ t }}', sensitive: [g]}]\n"
        "scorers: [exact_match]\n"
    )
    words = ("--store", folder / "st", "--no-report", "--set", f"tags.more={SECRET}")
    done = evalrun(folder / "s.yaml", *words, env={"SERVICE_API_KEY": OWN}, cwd=folder)
    assert done.returncode in (0, 3), done.stderr
    return folder / "st"


@pytest.mark.parametrize("name", ["otlp", "mlflow", "openlineage"])
def test_no_secret_is_in_any_byte(secrets: Path, server: Server, name: str) -> None:
    server.said = orjson.dumps(MLFLOW)
    env = {"SERVICE_API_KEY": OWN, "MLFLOW_TRACKING_TOKEN": "t"}
    done = evalrun("sync", "latest", "--store", secrets, "--to", f"{name}={server.url}", "--content", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    packed = [
        piece for body in server.wire for piece in re.findall(rb">([A-Za-z0-9+/]{40,}={0,2})</script", body)
    ]
    sent = b"\n".join([*server.wire, *(zlib.decompress(base64.b64decode(piece)) for piece in packed)])
    assert len(server.wire) > 2 and bool(packed) == (name == "mlflow")  # the report's samples are deflated
    assert (b"redacted" in sent) == (name != "openlineage")
    assert SECRET.encode() not in sent and OWN.encode() not in sent


def test_a_torn_line_of_the_outbox_costs_only_its_item(store: Path, server: Server) -> None:
    _sync(store, "--to", f"otlp={server.url}")
    (outbox,) = store.glob("sweeps/*/outbox/otlp.jsonl")
    outbox.write_bytes(outbox.read_bytes()[:-20])
    _, sent = _sync(store, "--to", f"otlp={server.url}")
    assert (sent["sent"], sent["unchanged"]) == (1, 3)
    assert _sync(store, "--to", f"otlp={server.url}")[1]["unchanged"] == 4


@pytest.mark.parametrize(
    "target", ["mlflw=http://h", "mlflow=localhost:5000", "otlp=http://u:p@h", "otlp", "otlp=http://h:x"]
)
def test_a_wrong_target_is_said_before_anything_is_sent(store: Path, target: str) -> None:
    done = evalrun("sync", "latest", "--store", store, "--to", target)
    assert done.returncode == 2 and done.stderr.startswith("error: ")


def test_a_server_that_is_no_mlflow(store: Path, server: Server) -> None:
    server.said = b"<html>"
    code, sent = _sync(store, "--to", f"mlflow={server.url}")
    assert (code, sent["parked"], sent["words"]) == (3, 3, "it did not answer as an MLflow server does")


SUITE = """name: s
models: [{{id: m, provider: recorded, column: o}}]
prompts: [{{id: p, text: "{{{{ q }}}}"}}]
datasets: [{{id: d, rows: [{{q: a, t: x, o: x}}, {{q: b, t: x, o: z}}], target: "{{{{ t }}}}"}}]
scorers: [exact_match]
sinks: {}
"""


def _sweep(folder: Path, sinks: str) -> tuple[int, str, Path]:
    (folder / "s.yaml").write_text(SUITE.format(sinks))
    done = evalrun(folder / "s.yaml", "--store", folder / "st", "--no-report", "--fresh")
    return done.returncode, done.stderr, folder / "st"


@pytest.mark.parametrize("trouble", ["nobody there", "401", "500", "silent"])
def test_a_sink_that_is_ill_changes_no_exit_code_and_gets_all_of_it_later(
    tmp_path: Path, server: Server, trouble: str
) -> None:
    if trouble.isdigit():
        server.status = int(trouble)
    server.silent_s = 60.0 if trouble == "silent" else 0.0
    url = "http://127.0.0.1:9" if trouble == "nobody there" else server.url
    code, said, store = _sweep(tmp_path, f"[{{otlp: {{url: '{url}'}}}}]")
    assert code == 0 and "evalrun sync" in said
    server.silent_s = 0.0
    server.quiet.set()
    server.status = 200
    if trouble != "nobody there":
        done = evalrun("sync", "latest", "--store", store, "--json")
        sent = json.loads(done.stdout)["sinks"][0]
        assert (done.returncode, sent["sent"] + sent["unchanged"], sent["waiting"]) == (0, 4, 0)


def test_a_sweep_sends_itself_once_beside_sync(tmp_path: Path, server: Server) -> None:
    _, _, store = _sweep(tmp_path, f"[{{otlp: '{server.url}'}}]")
    done = evalrun("sync", "latest", "--store", store, "--json")  # waits for the process that the sweep left
    sent = json.loads(done.stdout)["sinks"][0]
    assert done.returncode == 0 and sent["sent"] + sent["unchanged"] == 4
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("sinks", "line"),
    [
        ("[{mlflw: {url: 'http://h'}}]", "Did you mean 'mlflow'"),
        ("[{mlflow: {url: 'localhost:5000'}}]", "no address"),
        ("[{mlflow: {uri: 'http://h'}}]", "Did you mean 'url'"),
        ("[{otlp: {url: 'http://h', headers_env: NOT_SET_ANYWHERE}}]", "NOT_SET_ANYWHERE"),
        ("[{otlp: 'http://h'}, {otlp: 'http://i'}]", "named twice"),
    ],
)
def test_a_wrong_sink_of_a_suite_is_said_before_anything_is_asked(
    tmp_path: Path, sinks: str, line: str
) -> None:
    code, said, store = _sweep(tmp_path, sinks)
    assert code == 2 and line in said and not list(store.glob("sweeps/*"))


def test_killed_in_the_middle_it_goes_on_and_nothing_is_there_twice(tmp_path: Path, server: Server) -> None:
    _, _, store = _sweep(tmp_path, "[]")
    server.silent_s = 60.0
    words = [sys.executable, "-m", "evalrun", "sync", "latest", "--store", str(store)]
    child = subprocess.Popen([*words, "--to", f"otlp={server.url}"], stderr=subprocess.DEVNULL)
    while not server.requests and child.poll() is None:
        time.sleep(0.01)
    child.kill()
    child.wait()
    server.silent_s = 0.0
    code, sent = _sync(store, "--to", f"otlp={server.url}")
    assert (code, sent["sent"]) == (0, 4)
    ids = [span["spanId"] for span in _spans(server)]
    assert len(set(ids)) == 3  # the run's and two samples', though the first was sent twice


def test_the_textfile_of_a_sweep_counts_what_its_runs_count(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SUITE.format("[]") + 'gates: ["exact_match >= 0.4"]\n')
    words = ("--store", tmp_path / "st", "--no-report", "--metrics-file", tmp_path / "e.prom")
    assert evalrun(tmp_path / "s.yaml", *words, "--metrics", "127.0.0.1:0").returncode == 0
    text = (tmp_path / "e.prom").read_text()
    (path,) = (tmp_path / "st").glob("sweeps/*/runs/*/run.json")
    scored = json.loads(path.read_text())["counts"]["scored"]
    assert f'evalrun_samples_total{{project="s",run="m-p-d",status="scored"}} {scored}' in text
    assert 'evalrun_gate{project="s",run="m-p-d",gate="exact_match >= 0.4"} 1' in text
    assert evalrun(tmp_path / "s.yaml", *words, "--metrics", "nowhere").returncode == 2
