"""Results of other tools: per-sample values are the source's, and their sweep says where it came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalrun.errors import UserError
from evalrun.sweep.imported import IMPORTED, write_sweep
from evalrun.tasks.logs import read_results
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
