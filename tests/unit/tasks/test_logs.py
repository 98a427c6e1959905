"""Results of other tools: per-sample values are the source's, and their sweep says where it came from."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalrun.errors import UserError
from evalrun.sweep.imported import IMPORTED, write_sweep
from evalrun.tasks.logs.main import read_results
from evalrun.tracking.store import Store


def _lm_eval(folder: Path) -> Path:
    rows = [
        {"doc_id": at, "doc": {"q": f"q{at}"}, "target": "1",
         "arguments": {"gen_args_0": {"arg_0": f"p{at}"}},
         "resps": [[f" out{at}"]], "filtered_resps": ["x"], "filter": name, "metrics": ["exact_match"],
         "exact_match": value, "doc_hash": f"hash{at}-0123456789"}
        for name, values in (("strict-match", [1.0, 0.0, 1.0]), ("flexible-extract", [1.0, 1.0, 1.0]))
        for at, value in enumerate(values)
    ]  # fmt: skip
    (folder / "samples_own_T.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "results_T.json").write_text(json.dumps({
        "results": {"own": {"exact_match,strict-match": 2 / 3, "exact_match_stderr,strict-match": 0.33,
                            "exact_match,flexible-extract": 1.0, "exact_match_stderr,flexible-extract": 0.0},
                    "unlogged": {"acc,none": 0.5}},
        "model_name": "m", "higher_is_better": {"own": {"exact_match": True}},
    }))  # fmt: skip
    return folder


def test_lm_eval_logs_become_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    results = read_results("lm-eval", _lm_eval(tmp_path / "logs"))
    assert [each["what"] for each in results.left_out] == ["task unlogged"]
    (run,) = results.runs
    assert [each.scores["exact_match.strict_match"] for each in run.samples] == [1.0, 0.0, 1.0]
    assert run.samples[0].sample_id == "own-hash0-012345"
    folder = write_sweep(Store(tmp_path / "store"), results)
    (stored,) = folder.runs()
    metric = next(each for each in stored["metrics"] if each["name"] == "exact_match.strict_match")
    assert (metric["value"], metric["se"], metric["n"]) == (2 / 3, 0.33, 3)
    assert not any(each["name"].startswith("performance.e2e") for each in stored["metrics"])
    manifest = folder.read_manifest()
    assert manifest["status"] == "complete"
    assert set(manifest[IMPORTED]["sha256"]) == {"results_T.json", "samples_own_T.jsonl"}


def test_promptfoo_results_keep_failed_samples_apart(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    row = {"promptIdx": 0, "provider": {"id": "p"}, "prompt": {"raw": "hi"}, "vars": {}}
    path.write_text(json.dumps({"results": {"version": 3, "results": [
        {**row, "testIdx": 0, "response": {"output": "a"}, "success": True, "score": 1,
         "namedScores": {"T": 0.5},
         "latencyMs": 20},
        {**row, "testIdx": 1, "response": {}, "error": "boom", "success": False, "score": 0},
    ]}}))  # fmt: skip
    (run,) = read_results("promptfoo-results", path).runs
    assert run.samples[0].scores == {"score": 1.0, "passed": 1.0, "score.t": 0.5}
    assert run.samples[0].e2e_s == 0.02
    assert run.samples[1].output is None
    assert "boom" in (run.samples[1].error or "")


@pytest.mark.parametrize("kind", ["lm-eval", "inspect", "promptfoo-results", "openai-evals"])
def test_other_files_are_an_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.json"
    path.write_text("[]")
    with pytest.raises(UserError):
        read_results(kind, path)


def _promptfoo_bytes() -> bytes:
    rows = [
        {"promptIdx": 0, "testIdx": at, "provider": {"id": "p"}, "vars": {"q": "é"}, "success": True,
         "score": 1, "response": {"output": f"out {at}"}}
        for at in range(3)
    ]  # fmt: skip
    return json.dumps({"results": {"version": 3, "results": rows}}).encode()


def _openai_bytes() -> bytes:
    lines: list[dict[str, object]] = [{"spec": {"eval_name": "e", "completion_fns": ["m"]}}]
    for at in range(3):
        lines.append({"sample_id": f"s{at}", "type": "sampling", "data": {"prompt": "é", "sampled": ["x"]}})
        lines.append({"sample_id": f"s{at}", "type": "match", "data": {"correct": True, "expected": "x"}})
    return "\n".join(json.dumps(line) for line in [*lines, {"final_report": {"accuracy": 1.0}}]).encode()


def _inspect_header() -> dict[str, object]:
    scores = [{"name": "includes", "metrics": {"accuracy": {"value": 1.0}}}]
    return {"eval": {"task": "t", "model": "m"}, "status": "success", "plan": {},
            "results": {"total_samples": 3, "scores": scores}}  # fmt: skip


def _inspect_samples() -> list[dict[str, object]]:
    return [
        {"id": at, "epoch": 1, "input": "é", "target": "x", "output": {"completion": "x"},
         "scores": {"includes": {"value": "C"}}}
        for at in range(3)
    ]  # fmt: skip


def _archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps(_inspect_header()))
        for at, sample in enumerate(_inspect_samples()):
            archive.writestr(f"samples/{at}_epoch_1.json", json.dumps(sample))
    return buffer.getvalue()


FILES = {
    ("promptfoo-results", "r.json"): _promptfoo_bytes(),
    ("openai-evals", "r.jsonl"): _openai_bytes(),
    ("inspect", "l.json"): json.dumps({**_inspect_header(), "samples": _inspect_samples()}).encode(),
    ("inspect", "l.eval"): _archive(),
    ("lm-eval", "samples_own_T.jsonl"): b"",
    ("lm-eval", "results_T.json"): b"",
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@pytest.mark.parametrize(("kind", "name"), FILES)
@given(cut=st.floats(0, 1), flip=st.integers(0, 255))
def test_a_torn_or_damaged_file_is_an_error_or_what_is_left_of_it(
    tmp_path: Path, kind: str, name: str, cut: float, flip: int
) -> None:
    """Nothing but UserError; of a file that is cut never more than there was, and it is told of."""
    folder = tmp_path / f"{kind}-{name}"
    folder.mkdir(exist_ok=True)
    path = folder / name
    if kind == "lm-eval":
        _lm_eval(folder)
        whole, target = path.read_bytes(), folder
    else:
        whole, target = FILES[kind, name], path
    place = int(cut * len(whole))
    torn = whole[:place] + (bytes([flip]) + whole[place + 1 :] if flip else b"")
    path.write_bytes(torn)
    try:
        results = read_results(kind, target)
    except UserError as error:
        assert path.name in str(error) or kind == "lm-eval"
        return
    if not flip:
        assert sum(len(run.samples) for run in results.runs) <= 3
        whole_again = torn.strip() == whole.strip() or name == "samples_own_T.jsonl"
        assert whole_again or results.left_out or any(run.notes for run in results.runs)


def test_a_file_that_ends_before_its_time_is_told_of(tmp_path: Path) -> None:
    """Cut at the end of a line nothing is torn; the counts of the source say that rows are missing."""
    _lm_eval(tmp_path)
    path = tmp_path / "results_T.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "n-samples": {"own": {"original": 3, "effective": 3}}}))
    assert read_results("lm-eval", tmp_path).runs[0].notes == []
    samples = tmp_path / "samples_own_T.jsonl"
    lines = samples.read_text().splitlines()
    samples.write_text("\n".join([line for line in lines if '"doc_id": 2' not in line]))
    assert "holds 2 of the 3 documents" in read_results("lm-eval", tmp_path).runs[0].notes[0]
    log = tmp_path / "l.json"
    log.write_text(json.dumps({**_inspect_header(), "samples": _inspect_samples()[:2]}))
    assert "holds 2 of the 3 samples" in read_results("inspect", log).runs[0].notes[-1]
    record = tmp_path / "r.jsonl"
    record.write_bytes(b"\n".join(_openai_bytes().splitlines()[:-1]))
    assert "final_report" in read_results("openai-evals", record).left_out[0]["why"]
