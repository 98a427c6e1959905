"""`evalrun export`: each format read back by its own package or checked against its own schema."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tests.program import evalrun

SECRET = "sk-abcdefghijklmnop1234"
SCHEMAS = Path(__file__).parent / "schemas"
SUITE = """name: s
models: [{id: m_1, provider: recorded, column: o}, {id: n, provider: recorded, column: t}]
prompts: [{id: p, text: "{{ q }}"}]
datasets: [{id: d, path: rows.jsonl, key: id, target: "{{ t }}", sensitive: [dialect]}]
scorers: [exact_match]
fairness: {by: [dialect], min_group: 1}
gates: ["exact_match >= 0.1"]
"""
ROWS = [
    {
        "id": f"r{i}",
        "q": f"=q{i} & {SECRET}",
        "t": "yes",
        "o": "no" if i % 2 else "yes",
        "dialect": "ab"[i % 3 > 0],
    }
    for i in range(6)
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "s.yaml").write_text(SUITE)
    done = evalrun("s.yaml", "--store", folder / "st", "--no-report", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "st"


def _export(store: Path, kind: str, *words: str | Path) -> Any:
    done = evalrun("export", "latest", "--as", kind, "--store", store, *words, cwd=store.parent)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout
    return done.stdout


def _figure(store: Path) -> dict[str, Any]:
    (path,) = store.glob("sweeps/*/runs/m_1-*/run.json")
    metrics = json.loads(path.read_text())["metrics"]
    figure: dict[str, Any] = next(m for m in metrics if m["name"] == "exact_match" and not m["slice"])
    return figure


def test_a_leaderboard_as_csv_has_every_figure_to_the_digit(store: Path) -> None:
    rows = {row["model"]: row for row in csv.DictReader(io.StringIO(_export(store, "csv")))}
    wanted = _figure(store)
    assert rows["m_1"]["standing"] in ("tied", "behind") and rows["n"]["standing"] == "best"
    for suffix, key in {"": "value", ".ci_low": "ci_low", ".ci_high": "ci_high", ".n": "n"}.items():
        assert float(rows["m_1"][f"exact_match{suffix}"]) == wanted[key]
    assert "exact_match[dialect=a]" in rows["n"]


def test_samples_as_csv_are_no_formulas_and_as_parquet_whole(store: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(_export(store, "csv", "--samples"))))
    assert len(rows) == 12 and all(row["vars.q"].startswith("'=q") for row in rows)
    import pyarrow.parquet as pq

    _export(store, "parquet", "--out", tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    assert len(table) == 12 and {*table["run.model"].to_pylist()} == {"m_1", "n"}
    assert SECRET not in str(table.to_pylist()) and "redacted" in str(table["vars.q"].to_pylist())


def test_a_leaderboard_as_latex_and_markdown(store: Path) -> None:
    text = _export(store, "latex")
    assert r"\begin{tabular}{lrrl}" in text and r"m\_1-p-d" in text and r"\textbf{1.00" in text
    body = re.sub(r"\\[&%$#_{}]", "", text.replace(r"\textbf{", "").replace(r"\begin{tabular}{lrrl}", ""))
    assert body.count("&") == 3 * 3  # nothing of ours is read as a command
    lines = _export(store, "markdown").splitlines()
    assert len(lines) == 4 and {line.count(" | ") for line in lines} == {3}


def test_every_eval_ever_by_its_schemas(store: Path, tmp_path: Path) -> None:
    _export(store, "eee", "--out", tmp_path, "--samples", "--organization", "us")
    whole = json.loads((SCHEMAS / "eval.schema.json").read_text())
    of_sample = json.loads((SCHEMAS / "instance_level_eval.schema.json").read_text())
    documents = [json.loads(path.read_text()) for path in tmp_path.glob("data/s/unknown/*/*.json")]
    assert len(documents) == 2
    for document in documents:
        jsonschema.validate(document, whole, jsonschema.Draft7Validator)
        lines = (tmp_path / document["detailed_evaluation_results"]["file_path"]).read_text().splitlines()
        assert len(lines) == 6 and SECRET not in "".join(lines)
        for line in lines:
            jsonschema.validate(json.loads(line), of_sample, jsonschema.Draft7Validator)
    mine = next(each for each in documents if each["model_info"]["name"] == "m_1")
    result = next(r for r in mine["evaluation_results"] if r["evaluation_name"] == "d/exact_match")
    said, wanted = result["score_details"], _figure(store)
    assert said["score"] == wanted["value"]
    assert said["uncertainty"]["num_samples"] == wanted["n"]
    assert said["uncertainty"]["confidence_interval"]["lower"] == wanted["ci_low"]
    assert said["uncertainty"].get("standard_error", {}).get("value") == wanted["se"]
    assert "d/exact_match[dialect=a]" in {r["evaluation_name"] for r in mine["evaluation_results"]}


def test_openlineage_events_have_their_ids_and_places(store: Path) -> None:
    events = [json.loads(line) for line in _export(store, "openlineage").splitlines()]
    assert [event["eventType"] for event in events] == ["START", *["START", "COMPLETE"] * 2, "COMPLETE"]
    sweep = events[0]["run"]["runId"]
    assert events[-1]["run"]["runId"] == sweep
    assert all(event["run"]["facets"]["parent"]["run"]["runId"] == sweep for event in events[1:-1])
    (gates,) = {
        json.dumps(e["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"]) for e in events[1:-1]
    }
    assert json.loads(gates) == [{"assertion": "exact_match >= 0.1", "success": True}]
    client = pytest.importorskip("openlineage.client", reason="needs openlineage-python")
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState  # type: ignore[import-not-found]

    assert client
    for event in events:  # their own types check what they take
        run, job = Run(event["run"]["runId"]), Job(event["job"]["namespace"], event["job"]["name"])
        RunEvent(eventTime=event["eventTime"], run=run, job=job, eventType=RunState[event["eventType"]])


def test_croissant_gives_the_rows_and_notices_a_changed_byte(store: Path, tmp_path: Path) -> None:
    data = store.parent / "rows.jsonl"
    _export(store, "croissant", "--out", store.parent / "croissant.json")
    document = json.loads((store.parent / "croissant.json").read_text())
    assert document["distribution"][0]["contentUrl"] == "rows.jsonl"
    mlc = pytest.importorskip("mlcroissant", reason="needs mlcroissant")
    rows = list(mlc.Dataset(str(store.parent / "croissant.json")).records("rows"))
    assert [row["rows/q"].decode() for row in rows] == [row["q"] for row in ROWS]
    before = data.read_bytes()
    try:
        data.write_bytes(before.replace(b"no", b"on", 1))
        with pytest.raises(Exception, match="Download"):
            list(mlc.Dataset(str(store.parent / "croissant.json")).records("rows"))
    finally:
        data.write_bytes(before)


def test_logs_of_inspect_are_read_back(store: Path, tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="needs inspect_ai (extra: inspect)")
    _export(store, "inspect", "--out", tmp_path)
    (path,) = tmp_path.glob("*m_1*.eval")
    read = log.read_eval_log(str(path))
    assert read.status == "success" and len(read.samples) == 6
    assert read.results.scores[0].metrics["mean"].value == _figure(store)["value"]
    assert sum(sample.scores["exact_match"].value for sample in read.samples) == 3
    assert SECRET not in read.model_dump_json()


def test_hugging_face_takes_what_is_of_the_hub_only(store: Path, tmp_path: Path) -> None:
    for words, said in ([], "not guessed"), (["--scale", "1"], "no run is on a dataset of the Hub"):
        done = evalrun("export", "latest", "--as", "hf", "--out", tmp_path, *words, "--store", store)
        assert done.returncode == 2 and said in done.stderr
    (path,) = store.glob("sweeps/*/sweep.json")
    before = path.read_text()
    document = json.loads(before)
    document["datasets"]["d"]["source"] |= {"kind": "hub", "hub": "openai/gsm8k", "config": "main"}
    try:
        path.write_text(json.dumps(document))
        _export(store, "hf", "--out", tmp_path, "--scale", "100")
    finally:
        path.write_text(before)
    from huggingface_hub import parse_eval_result_entries

    text = (tmp_path / ".eval_results" / "m_1-p-d.yaml").read_text()
    (entry,) = parse_eval_result_entries(yaml.safe_load(text))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("openai/gsm8k", "main", 50.0)
    assert "n = 6" in (entry.notes or "")


@pytest.mark.parametrize("kind", ["parquet", "eee", "inspect"])
def test_what_is_written_to_files_asks_where(store: Path, kind: str) -> None:
    done = evalrun("export", "latest", "--as", kind, "--store", store)
    assert done.returncode == 2 and "--out" in done.stderr
