"""`evalrun sync` to servers on loopback that keep every byte, refuse, break off or are not there."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.program import evalrun

SECRET = "sk-abcdefghijklmnop1234"


@dataclass
class Server:
    """What it was sent, and what it answers: a status and a body; `silent_s` it is silent before."""

    url: str = ""
    status: int = 200
    said: bytes = b"{}"
    silent_s: float = 0.0
    quiet: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, bytes]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.requests.append((self.path, body))
            state.quiet.wait(state.silent_s)
            self.send_response(state.status)
            self.end_headers()
            self.wfile.write(state.said)

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
