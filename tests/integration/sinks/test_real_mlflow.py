"""`mlflow server` in a process of its own, started once, read back by MLflow's own client."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.program import evalrun

pytest.importorskip("mlflow", reason="needs mlflow (pip install mlflow)")

SUITE = """name: {name}
models: [{{id: m, provider: recorded, column: o, mlflow: triage/1}}, {{id: n, provider: recorded, column: t}}]
prompts: [{{id: p, text: "{{{{ q }}}}"}}]
datasets: [{{id: d, path: rows.jsonl, key: id, target: "{{{{ t }}}}", sensitive: [dialect]}}]
scorers: [exact_match]
fairness: {{by: [dialect], min_group: 1}}
sinks: [{{mlflow: {{url: "{url}", content: true}}}}]
"""
SECRET = "sk-abcdefghijklmnop1234"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/m.db"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*words, "--artifacts-destination", str(folder / "art")], stdout=log, stderr=log, cwd=folder,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "DO_NOT_TRACK": "true"},
        )  # fmt: skip
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + 300
        while time.monotonic() < end and server.poll() is None:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield address
        server.terminate()
        server.wait()


def _sweep(folder: Path, url: str, name: str) -> Path:
    rows = [
        {"id": f"r{i}", "q": f"q{i} {SECRET}", "t": "yes", "o": "no"[: i % 2 * 2] or "yes"} for i in range(6)
    ]
    rows = [{**row, "dialect": "a=b[c]" if i < 3 else "x"} for i, row in enumerate(rows)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "s.yaml").write_text(SUITE.format(name=name, url=url))
    done = evalrun(folder / "s.yaml", "--store", folder / "st", "--no-report")
    assert done.returncode == 0, done.stderr
    return folder / "st"


def _sync(store: Path) -> dict[str, Any]:
    done = evalrun("sync", "latest", "--store", store, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    sent: dict[str, Any] = json.loads(done.stdout)["sinks"][0]
    return sent


def _seen(url: str, name: str) -> tuple[Any, list[Any], list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(url, url)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    traces = client.search_traces(locations=[experiment.experiment_id])
    return client, list(client.search_runs([experiment.experiment_id])), list(traces)


def test_what_the_suite_names_is_there_once_and_equal(tmp_path: Path, url: str) -> None:
    store = _sweep(tmp_path, url, "whole")
    sent = _sync(store)
    assert sent["sent"] + sent["unchanged"] == 5  # the sweep, two runs, the failures of one, the report
    client, runs, traces = _seen(url, "whole")
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {run.data.params["model"]: run for run in runs if run is not parent}
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    run = children["m"]
    (path,) = store.glob("sweeps/*/runs/m-*/run.json")
    document = json.loads(path.read_text())
    figure = next(each for each in document["metrics"] if each["name"] == "exact_match" and not each["slice"])
    assert run.data.metrics["exact_match"] == figure["value"] == 0.5
    assert run.data.metrics["exact_match/ci_low"] == figure["ci_low"]
    assert "exact_match/dialect:a_b_c_" in run.data.metrics and run.info.status == "FINISHED"
    (sweep,) = store.glob("sweeps/*/sweep.json")
    digest = json.loads(sweep.read_text())["datasets"]["d"]["digest"]
    assert run.inputs.dataset_inputs[0].dataset.digest == digest[:32]
    there = {each.path for each in client.list_artifacts(parent.info.run_id, "evalrun")}
    assert there == {"evalrun/report.html"}
    assert len(traces) == 3  # the rows that are wrong
    assessed = [{each.name: each.value for each in trace.info.assessments} for trace in traces]
    assert assessed == [{"exact_match": 0.0, "target": "yes"}] * 3
    assert not any(SECRET in trace.to_json() for trace in traces)
    assert _sync(store)["sent"] == 0
    for outbox in store.glob("sweeps/*/outbox/mlflow.jsonl"):
        outbox.unlink()  # as if it had been killed before it could note anything
    assert _sync(store)["sent"] == 5
    _, again, traces_again = _seen(url, "whole")
    assert len(again) == len(runs) and len(traces_again) == 3
    assert all(len(trace.info.assessments) == 2 for trace in traces_again)


def test_an_erasure_deletes_traces_and_sends_the_rest_anew(tmp_path: Path, url: str) -> None:
    store = _sweep(tmp_path, url, "erased")
    _sync(store)
    assert len(_seen(url, "erased")[2]) == 3
    words = ("--where", "vars.id == 'r1'", "--reason", "asked", "--yes", "--json", "--store", store)
    done = evalrun("erase", *words)
    assert done.returncode == 0, done.stderr
    (sink,) = json.loads(done.stdout)["sinks"]
    assert sink["deleted"] == 1 and sink["sent_anew"] == 5
    _, runs, traces = _seen(url, "erased")
    assert len(traces) == 2 and len(runs) == 3
    assert _sync(store)["sent"] == 0


def test_a_promotion_is_an_alias_of_the_model_version(tmp_path: Path, url: str) -> None:
    from mlflow import MlflowClient

    store = _sweep(tmp_path, url, "promoted")
    _sync(store)
    client = MlflowClient(url, url)
    client.create_registered_model("triage")
    client.create_model_version("triage", "s3://bucket/triage")
    words = ("--as", "production", "--reason", "better", "--store", store)
    assert evalrun("promote", "latest/m-p-d", *words).returncode == 0
    assert _sync(store)["waiting"] == 0
    assert str(client.get_model_version_by_alias("triage", "production").version) == "1"


def test_a_name_that_the_server_refuses_is_parked_with_its_words(tmp_path: Path, url: str) -> None:
    store = _sweep(tmp_path, "http://127.0.0.1:9", "refused")
    target = ("--to", f"mlflow={url}", "--experiment", "x" * 600)
    done = evalrun("sync", "latest", *target, "--store", store, "--json")
    sent = json.loads(done.stdout)["sinks"][0]
    assert (done.returncode, sent["sent"]) == (3, 0) and sent["parked"] and "exceeds" in sent["words"]
