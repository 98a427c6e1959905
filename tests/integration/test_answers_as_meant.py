"""Through a whole sweep: reasoning stands beside the answer, odd data are told of, values stay exact."""

import json
from pathlib import Path

import pyarrow.parquet as pq
from tests.program import evalrun

BIG = 123456789012345678901234567890


def written(folder: Path, rows: list[dict[str, object]], rest: str) -> Path:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = folder / "suite.yaml"
    path.write_text(
        "name: meant\nmodels: [{id: rec, provider: recorded, column: out}]\n"
        f"datasets: [{{id: d, path: rows.jsonl, key: k, target: target}}]\n{rest}"
    )
    return path


def run(folder: Path, *arguments: str) -> tuple[str, list[dict[str, object]]]:
    result = evalrun(*arguments, "--store", folder / "s", "--no-report")
    assert result.returncode == 0, result.stderr
    (samples,) = (folder / "s").glob("sweeps/*/runs/*/samples.parquet")
    return result.stdout + result.stderr, pq.read_table(samples).to_pylist()


def test_reasoning_is_stored_beside_the_answer_whoever_sent_it(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"k": "a", "q": "x", "out": "<think>A or B? A. No.</think>\n\nB", "target": "B"},
        {"k": "b", "q": "x", "out": "B", "target": "B"},
        {"k": "c", "q": "x", "out": "<think>never closed, the answer is A", "target": "A"},
        {"k": "d", "q": "x", "out": "so A</think>B", "target": "B"},
    ]
    path = written(
        tmp_path,
        rows,
        "prompts: [{id: p, text: '{{ q }}'}]\nparse: [{choice: [A, B, C, D]}]\nscorers: [exact_match]\n",
    )
    _, samples = run(tmp_path, str(path))
    seen = {
        row["sample_id"]: (row["output"], row["reasoning"], row["answer"], row["status"]) for row in samples
    }
    assert seen == {
        "a": ("B", "A or B? A. No.", "B", "scored"),
        "b": ("B", None, "B", "scored"),
        "c": ("", "never closed, the answer is A", None, "unparsed"),
        "d": ("B", "so A", "B", "scored"),
    }


def test_great_numbers_and_nulls_go_through_a_sweep(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"k": "a", "n": BIG, "hint": None, "out": str(BIG), "target": BIG},
        {"k": "b", "n": 1, "hint": "h", "out": str(BIG + 1), "target": BIG},
    ]
    path = written(
        tmp_path, rows, "prompts: [{id: p, text: 'n={{ n }} {{ hint }}.'}]\nscorers: [exact_match, numeric]\n"
    )
    output, samples = run(tmp_path, str(path))
    assert "column 'hint', which is null in 1 rows" in output
    first, second = sorted(samples, key=lambda row: str(row["sample_id"]))
    assert f"n={BIG} ." in str(first["messages"])
    assert str(BIG) in str(first["vars.n"])
    assert first["target"] == str(BIG)
    assert [first["score.exact_match"], first["score.numeric"]] == [1, 1]
    assert [second["score.exact_match"], second["score.numeric"]] == [0, 0]


def test_plan_and_validate_say_what_is_odd_about_the_data(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"k": "a", "q": "one", "hint": None, "out": "1", "target": "1"}]
    path = written(
        tmp_path,
        rows,
        "prompts: [{id: p, text: '{{ q }}{{ hint }}', few_shot: {count: 1, path: shots.jsonl}}]\n"
        "scorers: [exact_match]\n",
    )
    shots = [{"q": "ONE ", "hint": None, "target": "1"}, {"q": "two", "hint": None, "target": "2"}]
    (tmp_path / "shots.jsonl").write_text("\n".join(map(json.dumps, shots)))
    for command in ("validate", "plan"):
        result = evalrun(command, path)
        assert result.returncode == 0, result.stderr
        assert "null in 1 rows" in result.stderr
        assert "1 of the 2 few-shot examples" in result.stderr
        warnings = json.loads(evalrun(command, path, "--json").stdout)["warnings"]
        assert len(warnings) == 2
