"""Trainings by the command line: killed loops, an MLflow server, messages for what is wrong, pages."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.program import evalrun

from evalrun.tracking.store import Store
from evalrun.tracking.trainings import resolve_training
from evalrun.training.ending import series_of

LOOP = """
import os, sys, time
import evalrun
with evalrun.track("loop", {"lr": 1}, store=sys.argv[1], system=False) as run:
    for step in range(int(sys.argv[2]), int(sys.argv[3])):
        run.log({"loss": 1.0 / (step + 1)}, step=step)
        print(step, time.time(), flush=True)
        time.sleep(0.002)
"""


def test_a_killed_loop_has_all_but_its_last_quarter_second_and_goes_on(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    command = [sys.executable, "-c", LOOP, str(store.root)]
    with subprocess.Popen([*command, "0", "1000000"], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        logged = [line.split() for _, line in zip(range(400), child.stdout, strict=False)]
        child.send_signal(signal.SIGKILL)
        killed = time.time()
        logged += [parts for line in child.stdout if len(parts := line.split()) == 2]
    folder = resolve_training(store, "loop")
    assert folder.status() == "interrupted"
    # A process that waits for its turn on a busy machine writes later by as much.
    due = [int(step) for step, at in logged if float(at) < killed - 2.0 or int(step) < 50]
    steps = series_of(folder).of("loss")[0].tolist()
    assert steps == list(range(len(steps)))
    assert steps[-1] >= max(due)
    done = subprocess.run([*command, str(len(steps)), str(len(steps) + 10)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    again = resolve_training(store, "loop")
    assert again.path == folder.path
    assert again.training().resumed == (steps[-1],)
    assert series_of(again).of("loss")[0].tolist() == list(range(len(steps) + 10))
    assert [event["action"] for event in again.events()] == ["start", "resume", "finish"]


RUN = "0123456789abcdef0123456789abcdef"


class _Mlflow(BaseHTTPRequestHandler):
    """Two endpoints of MLflow's REST API, in pages of two."""

    history = [
        {"key": "loss", "value": value, "step": step, "timestamp": 1_700_000_000_000 + step}
        for step, value in enumerate([2.0, 1.0, "NaN", 1.7976931348623157e308, 0.5])
    ]

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if query.get("run_id") != RUN:
            self.answer(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Run not found"})
        elif parts.path == "/api/2.0/mlflow/runs/get":
            params = [{"key": "lr", "value": "0.1"}, {"key": "name", "value": "tiny"}]
            data = {"metrics": [{"key": "loss"}], "params": params}
            self.answer(200, {"run": {"info": {"run_name": "told"}, "data": data}})
        else:
            at = int(query.get("page_token", 0))
            page = {"metrics": self.history[at : at + 2]}
            more = {"next_page_token": str(at + 2)} if at + 2 < len(self.history) else {}
            self.answer(200, {**page, **more})

    def answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mlflow() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Mlflow) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_mlflow_run_is_read_by_rest_in_pages(mlflow: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = evalrun("training", "import", mlflow, "--run", RUN, "--store", store, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "told"
    folder = resolve_training(Store(store), "told")
    steps, values, walls = series_of(folder).of("loss")
    assert steps.tolist() == [0, 1, 2, 3, 4]
    assert values[[0, 1, 4]].tolist() == [2.0, 1.0, 0.5]
    assert (math.isnan(values[2]), values[3]) == (True, math.inf)
    assert walls[0] == 1_700_000_000.0
    assert folder.training().hyperparameters == {"lr": 0.1, "name": "tiny"}
    wrong = evalrun("training", "import", f"{mlflow}/#/experiments/0/runs/{RUN[::-1]}", "--store", store)
    assert (wrong.returncode, "Run not found" in wrong.stderr) == (2, True)
    gone = evalrun("training", "import", "http://127.0.0.1:9", "--run", RUN, "--store", store)
    assert (gone.returncode, "cannot be reached" in gone.stderr) == (3, True)


def test_the_commands_from_import_to_gate(tmp_path: Path) -> None:
    store, page = tmp_path / "store", tmp_path / "page.html"
    history = [{"step": step, "loss": 4.0 / step, "grad_norm": 1.0} for step in range(1, 30)]
    for name, more in (("good", []), ("bad", [{"step": 30, "loss": 0.0, "grad_norm": math.nan}])):
        (tmp_path / name).mkdir()
        state = {"global_step": 30, "log_history": [*history, *more]}
        (tmp_path / name / "trainer_state.json").write_text(json.dumps(state))
        done = evalrun("training", "import", tmp_path / name, "--store", store, "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["status"] == {"good": "finished", "bad": "diverged"}[name]
        assert told["series"]["loss"][:2] == [[1, 4.0], [2, 2.0]]
        assert told["last"]["loss"] == {"good": 4.0 / 29, "bad": 0.0}[name]
    listed = json.loads(evalrun("training", "list", "--store", store, "--json").stdout)
    assert [each["name"] for each in listed] == ["bad", "good"]
    assert [evalrun("training", "gate", name, "--store", store).returncode for name in ("good", "bad")] == [
        0,
        1,
    ]
    failed = evalrun("training", "gate", "bad", "--when", "diverged", "--store", store)
    assert failed.stdout == "fail  diverged at step 30: grad_norm is nan\n"
    done = evalrun("training", "compare", "good", "bad", "--html", page, "--store", store)
    assert done.returncode == 0, done.stderr
    assert "after it diverged at step 30" in page.read_text()
    shown = json.loads(evalrun("training", "show", "bad", "--store", store, "--json").stdout)
    assert [alert["rule"] for alert in shown["alerts"]] == ["diverged"]
    wrong = evalrun("training", "show", "godo", "--store", store)
    assert (wrong.returncode, "Did you mean 'good'?" in wrong.stderr) == (2, True)
    assert evalrun("audit", "verify", "--store", store).returncode == 0


class _Hook(BaseHTTPRequestHandler):
    """Keeps what is posted."""

    posted: list[str] = []

    def do_POST(self) -> None:
        self.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_an_alert_is_posted_to_a_webhook_once(tmp_path: Path) -> None:
    import evalrun as package

    with ThreadingHTTPServer(("127.0.0.1", 0), _Hook) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/hook"
        with package.track("hooked", store=tmp_path / "store", system=False, webhook=url) as run:
            for step, loss in enumerate((3.0, 2.0, 0.0, 0.0, 0.0), 1):
                run.log({"loss": loss}, step=step)
        until = time.monotonic() + 20
        while not _Hook.posted and time.monotonic() < until:
            time.sleep(0.02)
        server.shutdown()
        thread.join()
    assert len(_Hook.posted) == 1
    assert "*evalrun: hooked*, diverged at step 3" in _Hook.posted[0]


SUITE = """
name: checkpoints
models:
  - {id: m@20, provider: recorded, column: a20, checkpoint: {of: m, step: 20, training: tiny}}
  - {id: m@40, provider: recorded, column: a40, checkpoint: {of: m, step: 40, training: tiny}}
  - {id: m@60, provider: recorded, column: a60, checkpoint: {of: m, step: 60, training: tiny}}
prompts: [{id: p, text: "{{ q }}"}]
datasets: [{id: d, path: rows.jsonl, target: "{{ t }}"}]
scorers: [exact_match]
"""


def test_a_training_leads_to_its_scores_and_scores_to_the_training(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (tmp_path / "out").mkdir()
    history = [{"step": step, "loss": 4.0 / step, "eval_loss": 1.5} for step in (20, 40, 60)]
    state = {"global_step": 60, "log_history": history}
    (tmp_path / "out" / "trainer_state.json").write_text(json.dumps(state))
    rows = [
        {"q": f"question {at * 7919 % 1000}", "t": "yes", "a20": "yes" if at % 5 < 1 else "no",
         "a40": "yes" if at % 20 < 16 else "no", "a60": "yes" if at % 20 < 17 else "no"}
        for at in range(100)
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "suite.yaml").write_text(SUITE)
    assert evalrun("training", "import", tmp_path / "out", "--name", "tiny", "--store", store).returncode == 0
    before = evalrun("training", "best", "tiny", "--store", store)
    assert (before.returncode, "no sweep compared steps" in before.stderr) == (2, True)
    page = tmp_path / "report.html"
    done = evalrun(tmp_path / "suite.yaml", "--store", store, "--report", page, "--json")
    assert done.returncode == 0, done.stderr
    best = json.loads(
        evalrun("training", "best", "tiny", "--by", "exact_match", "--store", store, "--json").stdout
    )
    assert [(line["best"], [value["verdict"] for value in line["values"]]) for line in best] == [
        (40, ["behind", "tied", "best"])
    ]
    shown = evalrun("training", "best", "tiny", "--store", store)
    assert "take step 40 by exact_match" in shown.stdout
    trend = json.loads(evalrun("trend", "--training", "tiny", "--store", store, "--json").stdout)
    assert [(value["step"], value["value"]) for value in trend[0]["values"]] == [
        (20, 0.2),
        (40, 0.8),
        (60, 0.85),
    ]
    query = 'training == "tiny" and step >= 40 and metric.exact_match > 0.5 and training.eval_loss < 2'
    found = json.loads(evalrun("find", query, "--store", store, "--json").stdout)
    assert sorted((run["training"], run["step"]) for run in found["runs"]) == [("tiny", 40), ("tiny", 60)]
    none = json.loads(evalrun("find", "training.eval_loss > 2", "--store", store, "--json").stdout)
    assert none["total"] == 0
    wrong = evalrun("find", "training.evil_loss > 2", "--store", store)
    assert (wrong.returncode, "Did you mean 'eval_loss'?" in wrong.stderr) == (2, True)
    document = json.loads(evalrun("training", "show", "tiny", "--store", store, "--json").stdout)
    assert document["quality"][0]["best"] == 40
