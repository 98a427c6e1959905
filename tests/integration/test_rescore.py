"""`evalrun rescore` as its user runs it: new scores for old answers, without a model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tests.program import evalrun
from tests.servers import ChatServer

from evalrun.errors import UserError
from evalrun.sweep.rescore import rescore
from evalrun.tracking.parquet import iter_samples
from evalrun.tracking.store import Store

N = 30


def write_suite(folder: Path, server: ChatServer) -> Path:
    rows = [
        {"id": f"q{i}", "text": f"say {i}", "label": "yes" if i % 2 else "no", "group": "ab"[i % 2]}
        for i in range(N)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite: dict[str, Any] = {
        "name": "labels",
        "models": [
            {
                "id": "served",
                "provider": "openai_compatible",
                "base_url": server.base_url,
                "model": "scripted",
            }
        ],
        "prompts": [{"id": "plain", "text": "{{ text }}"}],
        "datasets": [
            {"id": "rows", "path": "rows.jsonl", "key": "id", "target": "label", "sensitive": ["group"]}
        ],
        "parse": ["first_line"],
        "scorers": ["exact_match"],
        "gates": ["exact_match >= 0"],
        "performance": {"concurrency": 4, "retries": 0},
    }
    path = folder / "suite.yaml"
    path.write_text(json.dumps(suite))
    return path


def answer(body: dict[str, Any]) -> str:
    number = int(body["messages"][-1]["content"].removeprefix("say "))
    return "unsure\nLabel: " + ("yes" if number % 3 else "no")


def contents(folder: Path) -> dict[str, str]:
    """Digests of every file of a sweep but its audit trail."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "events.jsonl"
    }


SCORERS = """\
parse: [{regex: "Label: (\\\\w+)"}]
scorers:
  - exact_match
  - {not: {includes: {values: [unsure], of: output}}}
  - {exact_match: {name: first, parse: [first_line]}}
derive: {overall: "0.5*exact_match + 0.5*not_includes"}
gates: ["exact_match >= 0.9"]
"""


def test_new_scores_for_old_answers(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer = answer
    done = evalrun(write_suite(project, chat_server), "--no-report", "--json")
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    asked, folder = len(chat_server.bodies), Path(first["folder"])
    before, events = contents(folder), (folder / "events.jsonl").read_text().splitlines()
    (project / "new.yaml").write_text(SCORERS)
    again = evalrun("rescore", "latest", "--scorers", "new.yaml", "--json")
    assert again.returncode == 1, again.stderr
    result = json.loads(again.stdout)
    assert len(chat_server.bodies) == asked
    assert (result["parent"], result["status"]) == (first["sweep"], "complete")
    assert Path(result["report"]).exists()
    values = {metric["name"]: metric["value"] for metric in result["runs"][0]["metrics"]}
    right = sum((i % 2 == 1) == (i % 3 != 0) for i in range(N)) / N
    assert values["exact_match"] == pytest.approx(right)
    assert values["not_includes"] == 0
    assert values["first"] == 0
    assert values["overall"] == pytest.approx(right / 2)
    assert [gate["verdict"] for gate in result["gates"]] == ["fail"]
    _old_is_untouched(folder, before, events, result["sweep"])
    _measurements_are_carried_over(first, result)
    child = Path(result["folder"])
    manifest = json.loads((child / "sweep.json").read_text())
    assert manifest["parent"] == first["sweep"]
    assert manifest["rescore"]["text"] == SCORERS
    assert manifest["spec_digest"] != json.loads((folder / "sweep.json").read_text())["spec_digest"]
    assert json.loads((child / "events.jsonl").read_text().splitlines()[0])["action"] == "rescore"
    listed = json.loads(evalrun("list", "--json").stdout)
    assert {row["sweep"] for row in listed} == {first["sweep"], result["sweep"]}
    verified = evalrun("audit", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def _old_is_untouched(folder: Path, before: dict[str, str], events: list[str], child: str) -> None:
    assert contents(folder) == before
    now = (folder / "events.jsonl").read_text().splitlines()
    assert now[: len(events)] == events
    [new] = map(json.loads, now[len(events) :])
    assert (new["action"], new["detail"]["child"]) == ("rescore", child)


def _measurements_are_carried_over(first: dict[str, Any], second: dict[str, Any]) -> None:
    def measured(result: dict[str, Any]) -> dict[str, Any]:
        return {
            metric["name"]: metric
            for metric in result["runs"][0]["metrics"]
            if metric["name"].split(".")[0] in ("performance", "memory", "cpu", "cost")
        }

    assert measured(first)
    assert measured(first) == measured(second)
    run = first["runs"][0]["run"]
    old, new = (
        list(iter_samples(Path(result["folder"]) / "runs" / run / "samples.parquet", decode=True))
        for result in (first, second)
    )
    made = ("status", "answer", "answer_json", "error")
    for a, b in zip(old, new, strict=True):
        keep = [name for name in a if name not in made and not name.startswith(("score.", "reason."))]
        assert {name: a[name] for name in keep} == {name: b[name] for name in keep}
        assert b["answer"] in ("yes", "no")
        assert {"score.exact_match", "score.overall", "reason.first", "sensitive.group"} <= b.keys()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with one finished sweep of recorded answers, some missing, some refused by the parser."""
    folder = tmp_path_factory.mktemp("recorded")
    rows = [
        {
            "id": i,
            "out": None if i == 3 else f'{{"v": {i}}}' if i % 2 else "nothing",
            "want": {"v": i},
            "n": [i],
        }
        for i in range(20)
    ]
    suite = {
        "name": "recorded",
        "models": [{"id": "m", "provider": "recorded", "column": "out"}],
        "prompts": [{"id": "p", "text": "{{ id }}"}],
        "datasets": [{"id": "d", "rows": rows, "key": "id", "target": "want"}],
        "parse": [{"json": "v"}],
        "scorers": ["exact_match"],
    }
    (folder / "suite.yaml").write_text(json.dumps(suite))
    done = evalrun(folder / "suite.yaml", "--store", folder / "store", "--no-report", "--quiet")
    assert done.returncode == 0, done.stderr
    return Store(folder / "store")


def test_targets_rows_and_endings_are_as_they_were(recorded: Store, tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text("parse: [json]\nscorers: [json_fields, json_valid]\n")
    parent = recorded.resolve("recorded")
    outcome = rescore(recorded, parent, tmp_path / "new.yaml")
    old, new = parent.runs()[0], outcome.runs[0]
    assert new["counts"]["failed"] == old["counts"]["failed"] == 1
    samples = list(iter_samples(outcome.folder.samples_path(new["run"]), decode=True))
    by_id = {int(sample["sample_id"]): sample for sample in samples}
    assert by_id[3]["status"] == "failed"
    assert by_id[3]["score.json_fields"] is None
    assert by_id[5]["score.json_fields"] == 1
    assert by_id[5]["answer_json"] == {"v": 5}
    assert by_id[5]["target_json"] == {"v": 5}
    assert by_id[5]["vars.n"] == [5]
    assert (by_id[4]["status"], by_id[4]["score.json_fields"]) == ("unparsed", 0)
    assert outcome.manifest["suite"]["resolved"]["derive"] == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- exact_mach\n", r"new\.yaml:1.*unknown scorer 'exact_mach'"),
        ("parse: []\nscorers:\n  - includes: {vals: [x]}\n", r"new\.yaml:3.*vals"),
        ("scores: [exact_match]\n", r"new\.yaml:1.*unknown key 'scores'"),
        ("", "empty"),
        ("just text", "names no scorers"),
        ("scorers: [exact_match]\ngates: [what]\n", "what"),
        ("scorers: [exact_match]\nderive: {x: y + 1}\n", "there is no score 'y'"),
        ("scorers: [exact_match\n", r"new\.yaml:"),
    ],
)
def test_a_wrong_file_is_one_clear_message_and_leaves_nothing(
    recorded: Store, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "new.yaml").write_text(text)
    before = [folder.path.name for folder in recorded.folders()]
    with pytest.raises(UserError, match=said):
        rescore(recorded, recorded.folders()[-1], tmp_path / "new.yaml")
    assert [folder.path.name for folder in recorded.folders()] == before


def test_a_sweep_that_is_not_complete_is_refused(recorded: Store, tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text("[exact_match]\n")
    parent = recorded.folders()[-1]
    other = recorded.create_sweep("unfinished")
    other.write_manifest({**parent.read_manifest(), "sweep": other.ulid, "status": "interrupted"})
    with pytest.raises(UserError, match="not complete"):
        rescore(recorded, other, tmp_path / "new.yaml")
