"""Weights & Biases offline and trackio, by their real packages, each in a process of its own."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.program import evalrun

from evalrun.sinks.trackers import TrackerOptions

SECRET = "sk-abcdefghijklmnop1234"
SUITE = """name: s
models: [{{id: m, provider: recorded, column: o}}]
prompts: [{{id: p, text: "{{{{ q }}}}"}}]
datasets: [{{id: d, rows: [{{q: "tell {0}", t: x, o: x}}, {{q: "hear {0}", t: x, o: "{0}"}}], target: t}}]
scorers: [exact_match]
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "s.yaml").write_text(SUITE.format(SECRET).replace("target: t}", 'target: "{{ t }}"}'))
    done = evalrun(tmp_path / "s.yaml", "--store", tmp_path / "st", "--no-report")
    assert done.returncode == 0, done.stderr
    return tmp_path / "st"


def _sync(store: Path, target: str, *words: str, code: int = 0, **env: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "evalrun", "sync", "latest", "--to", target, "--store", str(store)]
    environment = {**os.environ, **env, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [*command, "--json", *words], capture_output=True, text=True, env=environment, cwd=store.parent
    )
    assert done.returncode == code, done.stdout + done.stderr
    sent: dict[str, Any] = json.loads(done.stdout)["sinks"][0]
    return sent


def test_trackio_has_the_figures_once(store: Path) -> None:
    pytest.importorskip("trackio", reason="needs trackio (extra: trackio)")
    where = store.parent / "trackio"
    assert _sync(store, "trackio=triage", "--content", TRACKIO_DIR=str(where))["sent"] == 1
    for outbox in store.glob("sweeps/*/outbox/*.jsonl"):
        outbox.unlink()
    assert _sync(store, "trackio=triage", TRACKIO_DIR=str(where))["sent"] == 1
    program = (
        "import json, trackio\nfrom trackio.sqlite_storage import SQLiteStorage\n"
        "runs = list(trackio.Api().runs('triage'))\n"
        "logs = [SQLiteStorage.get_logs('triage', run.name, run_id=run.id) for run in runs]\n"
        "print(json.dumps([[run.config for run in runs], logs], default=str))\n"
    )
    env = {**os.environ, "TRACKIO_DIR": str(where)}
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=env, check=True
    )
    configs, logs = json.loads(said.stdout.splitlines()[-1])
    (path,) = store.glob("sweeps/*/runs/*/run.json")
    figure = next(m for m in json.loads(path.read_text())["metrics"] if m["name"] == "exact_match")
    assert [config["model"] for config in configs] == ["m"] and [len(rows) for rows in logs] == [1]
    assert logs[0][0]["exact_match"] == figure["value"] == 0.5
    assert logs[0][0]["exact_match/ci_low"] == figure["ci_low"]
    assert not any(SECRET.encode() in file.read_bytes() for file in where.rglob("*") if file.is_file())


def test_wandb_offline_leaves_a_run_without_texts_or_secrets(store: Path) -> None:
    pytest.importorskip("wandb", reason="needs wandb (extra: wandb)")
    env = {"WANDB_MODE": "offline", "WANDB_DIR": str(store.parent), "MY_API_KEY": SECRET}
    assert _sync(store, "wandb=triage", **env)["sent"] == 1
    (run,) = (store.parent / "wandb").glob("offline-run-*")
    (file,) = run.glob("*.wandb")
    data = b"".join(each.read_bytes() for each in run.rglob("*") if each.is_file())
    assert b"exact_match" in file.read_bytes() and b"triage" in file.read_bytes()
    assert SECRET.encode() not in data and b"tell " not in data
    assert not [each.name for each in run.rglob("*") if each.name in ("output.log", "requirements.txt")]
    assert _sync(store, "wandb=triage", **env)["unchanged"] == 1


def test_trackio_that_cannot_write_leaves_it_waiting(store: Path) -> None:
    pytest.importorskip("trackio", reason="needs trackio (extra: trackio)")
    (store.parent / "file").touch()
    sent = _sync(store, "trackio=triage", code=3, TRACKIO_DIR=str(store.parent / "file"))
    assert (sent["sent"], sent["waiting"]) == (0, 1) and sent["words"]
    assert _sync(store, "trackio=triage", TRACKIO_DIR=str(store.parent / "folder"))["sent"] == 1


def test_wandb_that_refuses_gets_it_parked_and_nothing_but_what_was_asked_for(store: Path) -> None:
    """A server that answers 401: no telemetry of theirs, no secret, and its words are kept."""
    pytest.importorskip("wandb", reason="needs wandb (extra: wandb)")
    seen: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append((self.path, self.rfile.read(int(self.headers["Content-Length"] or 0))))
            self.send_response(401)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        env = {"WANDB_BASE_URL": f"http://127.0.0.1:{http.server_port}", "WANDB_API_KEY": "0" * 40}
        sent = _sync(store, "wandb=triage", code=3, WANDB_DIR=str(store.parent), MY_API_KEY=SECRET, **env)
        http.shutdown()
    assert (sent["sent"], sent["parked"]) == (0, 1) and "401" in sent["words"]
    assert {path for path, _ in seen} == {"/graphql"}
    assert not any(SECRET.encode() in body for _, body in seen)


@pytest.mark.parametrize("name", ["a/b", "", "x" * 200, "a:b"])
def test_a_name_that_they_refuse_is_known_before(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a project"):
        TrackerOptions(project=name)


@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_a_package_that_is_missing_is_said_before_anything_is_asked(tmp_path: Path, package: str) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    text = SUITE.format("x").replace("target: t}", 'target: "{{ t }}"}')
    (tmp_path / "s.yaml").write_text(f"{text}sinks: [{{{package}: triage}}]\n")
    done = evalrun(tmp_path / "s.yaml", "--store", tmp_path / "st", "--no-report")
    assert done.returncode == 2 and f"evalrun-llm[{package}]" in done.stderr
