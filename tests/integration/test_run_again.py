"""Running again what was run: checkout, lock, verify, --reuse, and a server that changes under a run."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.servers import ChatServer, completion

from evalrun.cli.main import main
from evalrun.errors import UserError
from evalrun.sweep.checkout import checkout
from evalrun.tracking.audit import verify as audit
from evalrun.tracking.store import Store

Evalrun = Callable[..., tuple[int, str, str]]

SUITE = """\
name: again
seed: 3
models:
  - {{id: m, provider: openai_compatible, base_url: "{url}", model: scripted, params: {{temperature: 0}}}}
prompts:
  - {{id: file, file: ../prompts/q.j2, few_shot: {{count: 2, split: train}}}}
  - {{id: inline, text: "{{{{ question }}}}", system: "Be brief."}}
datasets:
  - id: odd
    path: data/odd.jsonl
    key: id
    target: answer
    sensitive: [lang]
    splits: {{train: data/train.jsonl}}
    shuffle: true
    limit: 12
    columns: {{upper: "{{{{ question | upper }}}}"}}
  - id: sheet
    path: data/sheet.csv
    target: answer
    splits: {{train: data/train.jsonl}}
    where: "answer != '4'"
parse: [last_number]
scorers: [numeric]
gates: ["numeric >= 0"]
"""


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def suite(project: Path, chat_server: ChatServer) -> Path:
    """A suite whose parts are hard to restore: an include, a file above the suite, CSV, a mix of 1 and 1.0,
    of null and nothing, nested values, a shuffle, a filter, made columns, few-shot examples."""
    (project / "suites/data").mkdir(parents=True)
    (project / "prompts/inc").mkdir(parents=True)
    (project / "prompts/q.j2").write_text('{% include "inc/head.j2" %}\nQ: {{ question }}')
    (project / "prompts/inc/head.j2").write_text("Answer with a number.")
    rows = []
    for i in range(20):
        row: dict[str, Any] = {"id": f"r{i}", "question": f"{i} + 1?", "lang": ["en", "de"][i % 2]}
        row |= {"answer": 42 if i % 2 else 42.0, "extra": None if i % 3 else {"k": [1, 2.0, None]}}
        rows.append(row | ({"sometimes": "x"} if i % 5 == 0 else {}))
    write_lines(project / "suites/data/odd.jsonl", rows)
    write_lines(project / "suites/data/train.jsonl", [{"question": f"t{i}", "answer": i} for i in range(6)])
    with (project / "suites/data/sheet.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["question", "answer", "empty"], *([f"{i} * 2?", 2 * i, ""] for i in range(8))])
    path = project / "suites/s.yaml"
    path.write_text(SUITE.format(url=chat_server.base_url))
    return path


@pytest.fixture
def evalrun(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Evalrun:
    """The program, in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["evalrun", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def run_suite(evalrun: Evalrun, path: Path, *options: str) -> dict[str, Any]:
    code, out, err = evalrun(path, "--no-report", "--json", *options)
    assert code == 0, err
    return {**json.loads(out), "stderr": err}


def test_a_checkout_runs_with_the_same_digests(evalrun: Evalrun, suite: Path, project: Path) -> None:
    run_suite(evalrun, suite)
    shutil.move(suite.parent, project / "gone")
    shutil.rmtree(project / "prompts")
    code, out, err = evalrun("checkout", "latest", "out", "--json")
    done = json.loads(out)
    assert (code, done["differs"], done["notes"]) == (0, [], []), err
    assert len(done["same"]) == 6 and all(done["same"].values())
    assert (project / "out/original.yaml").read_text() == (project / "gone/s.yaml").read_text()
    run_suite(evalrun, project / "out/suite.yaml")
    new, old = Store(project / ".evalrun").folders()
    for part in ("datasets", "prompts"):
        of_old = {key: each["digest"] for key, each in getattr(old.manifest(), part).items()}
        assert {key: each["digest"] for key, each in getattr(new.manifest(), part).items()} == of_old
    assert new.read_manifest()["examples"] == old.read_manifest()["examples"] != {}
    cells = [[each["cell_digest"] for each in folder.read_manifest()["plan"]] for folder in (new, old)]
    assert cells[0] == cells[1]
    assert [run["counts"]["cached"] for run in new.runs()] == [run["counts"]["samples"] for run in old.runs()]


def test_a_checkout_says_what_it_could_not_restore(evalrun: Evalrun, suite: Path, project: Path) -> None:
    run_suite(evalrun, suite)
    (folder,) = Store(project / ".evalrun").folders()
    shutil.rmtree(folder.path / "inputs")  # as a sweep of an older version
    code, _, err = evalrun("checkout", "latest", "out")
    assert code == 3
    assert "dataset odd is not what it was" in err and "prompt" not in err


@pytest.mark.parametrize("name", ["../../evil.j2", "/tmp/evil.j2", "a/../../evil.j2", "..\\evil.j2"])
def test_paths_of_a_manifest_cannot_climb_out(
    evalrun: Evalrun, suite: Path, project: Path, name: str
) -> None:
    run_suite(evalrun, suite)
    (folder,) = Store(project / ".evalrun").folders()
    document = json.loads((folder.path / "sweep.json").read_text())
    document["prompts"]["file"]["source"][name] = "stolen"
    document["suite"]["resolved"]["datasets"][0]["path"] = "../../../evil.jsonl"
    document["suite"]["resolved"]["prompts"][0]["file"] = "/tmp/../evil/q.j2"
    (folder.path / "sweep.json").write_text(json.dumps(document))
    before = set(project.parent.rglob("*evil*"))
    with pytest.raises(UserError, match="leads out of the folder"):
        checkout(folder, project / "deep/out")
    assert set(project.parent.rglob("*evil*")) == before


def test_a_checkout_goes_into_an_empty_folder_only(evalrun: Evalrun, suite: Path, project: Path) -> None:
    run_suite(evalrun, suite)
    (project / "out").mkdir()
    (project / "out/mine").write_text("x")
    assert evalrun("checkout", "latest", "out")[0] == 2


def test_drift_from_the_lock_is_an_error_that_names_it(
    evalrun: Evalrun, suite: Path, project: Path, chat_server: ChatServer
) -> None:
    assert evalrun("lock", suite, "--check")[0] == 2  # nothing is pinned
    assert evalrun("lock", suite)[0] == 0
    assert evalrun("lock", suite, "--check")[0] == 0
    run_suite(evalrun, suite)
    run_suite(evalrun, suite, "--limit", "3", "--prompts", "inline")
    sent = len(chat_server.bodies)
    rows = (suite.parent / "data/odd.jsonl").read_text()
    (suite.parent / "data/odd.jsonl").write_text(rows.replace("0 + 1?", "0 + 1!"))
    (project / "prompts/inc/head.j2").write_text("Answer with a numeral.")
    (suite.parent / "data/train.jsonl").write_text('{"question": "t", "answer": 1}\n' * 3)
    code, out, err = evalrun(suite, "--no-report")
    assert (code, out, len(chat_server.bodies)) == (2, "", sent)
    for part in (
        "dataset odd: the selected rows",
        "dataset odd: the file",
        "prompt file/chat",
        "examples file/odd",
    ):
        assert part in err
    assert "prompt inline" not in err and "dataset sheet" not in err
    assert evalrun(suite, "--no-report", "--limit", "3")[0] == 2  # the file differs, whatever is taken of it
    assert evalrun(suite, "--no-report", "--no-lock")[0] == 0
    assert "prompt file/chat" in evalrun("lock", suite)[1]
    assert evalrun(suite, "--no-report")[0] == 0
    newest = Store(project / ".evalrun").folders()[0].read_manifest()
    assert len(newest["lock"]) == 64


def test_a_cell_done_before_is_pointed_out_and_taken_over(
    evalrun: Evalrun, suite: Path, project: Path, chat_server: ChatServer
) -> None:
    first = run_suite(evalrun, suite)
    sent = len(chat_server.bodies)
    assert "the same was" not in first["stderr"]
    second = run_suite(evalrun, suite, "--no-cache")
    assert f"sweep {first['sweep']}" in second["stderr"] and "--reuse" in second["stderr"]
    assert len(chat_server.bodies) == 2 * sent
    (project / "prompts/inc/head.j2").write_text("Answer with a numeral.")  # half of the cells are new
    third = run_suite(evalrun, suite, "--no-cache", "--reuse")
    assert len(chat_server.bodies) == 2.5 * sent
    assert [gate["verdict"] for gate in third["gates"]].count("pass") == 4
    store = Store(project / ".evalrun")
    folder = store.resolve(third["sweep"])
    reused = folder.read_manifest()["reused"]
    assert set(reused) == {"m-inline-odd", "m-inline-sheet"}
    assert {each["sweep"] for each in reused.values()} == {second["sweep"]}
    run = folder.read_run("m-inline-odd")
    origin = store.resolve(second["sweep"]).read_run("m-inline-odd")
    assert run["metrics"] == origin["metrics"] and run["reused"]["sweep"] == second["sweep"]
    assert "--reuse" in run["warnings"][0] and "latency" in run["warnings"][0]
    assert "--reuse" in third["stderr"]
    assert pq.read_table(folder.samples_path("m-inline-odd")).num_rows == 12
    assert audit(store).broken == []
    fourth = run_suite(evalrun, suite, "--reuse")  # what was taken over names who asked the model
    assert (
        Store(project / ".evalrun")
        .resolve(fourth["sweep"])
        .read_manifest()["reused"]["m-inline-odd"]["sweep"]
        == second["sweep"]
    )


def test_altered_samples_are_not_taken_over_and_reindex_finds_cells_again(
    evalrun: Evalrun, suite: Path, project: Path, chat_server: ChatServer
) -> None:
    run_suite(evalrun, suite)
    sent = len(chat_server.bodies)
    store = Store(project / ".evalrun")
    (store.root / "cells.index").unlink()
    assert evalrun("reindex")[0] == 0
    path = store.folders()[0].samples_path("m-inline-odd")
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 5), path)
    again = run_suite(evalrun, suite, "--no-cache", "--reuse")
    assert len(chat_server.bodies) == sent + 12
    assert set(store.resolve(again["sweep"]).read_manifest()["reused"]) == {
        "m-file-odd", "m-file-sheet", "m-inline-sheet",
    }  # fmt: skip


def test_other_scorers_or_parameters_are_another_cell(evalrun: Evalrun, suite: Path) -> None:
    run_suite(evalrun, suite)
    for change in (
        "models.0.params.temperature=0.5",
        "scorers=[exact_match]",
        "seed=4",
        "performance.stream=true",
    ):
        found = run_suite(evalrun, suite, "--set", change, "--set", "gates=[]", "--prompts", "inline")
        assert "the same was" not in found["stderr"], change
    assert "the same was" in run_suite(evalrun, suite, "--set", "description=other")["stderr"]


def test_verify_agrees_with_a_server_that_stayed_and_differs_from_one_that_changed(
    evalrun: Evalrun, suite: Path, chat_server: ChatServer
) -> None:
    run_suite(evalrun, suite)
    asked = {json.dumps(body["messages"]) for body in chat_server.bodies}
    chat_server.bodies.clear()
    code, out, _ = evalrun("verify", "latest", "--samples", "10", "--json")
    same = json.loads(out)
    assert (code, same["asked"], same["share"], same["differs"]) == (0, 10, 1.0, False)
    assert len(chat_server.bodies) == 10
    assert {json.dumps(body["messages"]) for body in chat_server.bodies} <= asked
    assert [run["asked"] for run in same["runs"]] == [3, 3, 2, 2]
    chat_server.answer = lambda body: "forty-two: 42"  # other words, the same answer
    words = json.loads(evalrun("verify", "latest", "--samples", "10", "--json")[1])
    assert (words["share"], words["differs"], words["runs"][0]["same_answer"]) == (0.0, False, 3)
    assert evalrun("verify", "latest", "--samples", "10", "--min-agreement", "0.5")[0] == 1
    chat_server.answer = lambda body: "7"
    code, out, _ = evalrun("verify", "latest", "--samples", "24", "--run", "m-inline-odd", "--json")
    other = json.loads(out)
    assert (code, other["asked"], other["differs"]) == (1, 12, True)
    assert other["runs"][0]["metrics"][0]["difference"] == -1.0
    assert "m-inline-odd" in evalrun("verify", "latest", "--run", "m-inline-odd")[1]


def test_a_server_that_changes_in_mid_run_is_told(
    evalrun: Evalrun, suite: Path, project: Path, chat_server: ChatServer
) -> None:
    from aiohttp import web

    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        late = len(chat_server.bodies) > 6
        document = {**completion("42"), "model": "scripted-2" if late else "scripted-1"}
        return web.json_response({**document, "system_fingerprint": "fp-b" if late else "fp-a"})

    chat_server.behaviour = behaviour
    found = run_suite(
        evalrun, suite, "--datasets", "odd", "--prompts", "inline", "--set", "performance.concurrency=1"
    )
    run = Store(project / ".evalrun").folders()[0].read_run("m-inline-odd")
    said = run["details"]["answered_by"]
    assert said["models"] == {"scripted-1": 6, "scripted-2": 6}
    assert (said["fingerprints"], said["fingerprint_changes"]) == ({"fp-a": 6, "fp-b": 6}, 1)
    assert len(run["warnings"]) == 2
    assert "system_fingerprint changed during the run" in found["stderr"]
