"""Journals become Parquet: every sample once, every value kept, whatever it is."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalrun.errors import UserError
from evalrun.runner.journal import read_journal
from evalrun.tracking.parquet import (
    column_names,
    iter_samples,
    journal_to_parquet,
    read_columns,
    rewrite_columns,
    system_to_parquet,
)
from evalrun.types import Attempt, Message, SampleRecord, Status


def record(number: int = 0, **changes: Any) -> SampleRecord:
    values: dict[str, Any] = {
        "sample_id": f"id-{number}",
        "repeat": 0,
        "position": number,
        "vars": {"text": f"text {number}", "label": "bug"},
        "target": "bug",
        "status": Status.SCORED,
        "messages": (Message("system", "Answer."), Message("user", f"text {number}")),
        "output": f"Label: bug {number}",
        "answer": "bug",
        "finish_reason": "stop",
        "prompt_tokens": 20,
        "completion_tokens": 4,
        "ttft_s": 0.01,
        "e2e_s": 0.02,
        "attempts": 1,
        "attempt_log": (Attempt(0.0, 0.02),),
        "scores": {"exact_match": 1.0},
        "reasons": {"exact_match": "equal"},
        "sensitive": {"dialect": "aave"},
        "cluster": "t1",
    }
    return SampleRecord(**{**values, **changes})


def write(path: Path, records: list[Any]) -> Path:
    with path.open("ab") as file:
        for each in records:
            file.write(each if isinstance(each, bytes) else orjson.dumps(each) + b"\n")
    return path


def convert(tmp_path: Path, records: list[Any]) -> list[dict[str, Any]]:
    journal, out = write(tmp_path / "journal.jsonl", records), tmp_path / "samples.parquet"
    n = journal_to_parquet(journal, out)
    rows = list(iter_samples(out))
    assert len(rows) == n
    return rows


def test_a_row_has_the_columns_of_the_contract(tmp_path: Path) -> None:
    (row,) = convert(tmp_path, [record(7)])
    assert list(row) == [
        "sample_id", "repeat", "position", "vars.text", "vars.label", "messages", "prompt", "output",
        "answer", "answer_json", "target", "target_json", "status", "error", "finish_reason", "prompt_tokens",
        "completion_tokens", "ttft_s", "e2e_s", "tpot_s", "client_queue_s", "sent_s", "done_s", "attempts",
        "attempt_log", "cached", "warmup", "cost_usd", "reasoning", "tool_calls", "model", "fingerprint",
        "cluster", "score.exact_match", "reason.exact_match", "sensitive.dialect",
    ]  # fmt: skip
    assert row["messages"] == '[{"role":"system","content":"Answer."},{"role":"user","content":"text 7"}]'
    assert json.loads(row["attempt_log"])[0]["duration_s"] == 0.02
    assert {key: value for key, value in row.items() if value is None} == dict.fromkeys(
        [
            "prompt", "answer_json", "target_json", "error", "tpot_s", "client_queue_s", "sent_s", "done_s",
            "cost_usd", "reasoning", "tool_calls", "model", "fingerprint",
        ]
    )  # fmt: skip
    assert (row["position"], row["status"], row["cached"], row["ttft_s"]) == (7, "scored", False, 0.01)


def test_no_messages_and_no_attempts_are_null(tmp_path: Path) -> None:
    (row,) = convert(tmp_path, [record(messages=(), attempt_log=(), prompt="Label:")])
    assert (row["messages"], row["attempt_log"], row["prompt"]) == (None, None, "Label:")


def test_the_last_line_of_a_sample_counts_and_rows_follow_the_dataset(tmp_path: Path) -> None:
    records = [
        record(2, status=Status.FAILED, output=None),
        record(1, repeat=1),
        record(0),
        record(1),
        record(2, output="later"),
        record(0, repeat=1),
    ]
    rows = convert(tmp_path, records)
    assert [(row["sample_id"], row["repeat"]) for row in rows] == [
        ("id-0", 0), ("id-0", 1), ("id-1", 0), ("id-1", 1), ("id-2", 0),
    ]  # fmt: skip
    assert rows[4]["output"] == "later"
    assert rows[4]["status"] == "scored"


@pytest.mark.parametrize("torn", [b'{"sample_id":"id-9","re', b'{"sample_id":"id-9"}', b"\x00" * 100])
def test_a_torn_last_line_is_dropped_as_the_runner_drops_it(tmp_path: Path, torn: bytes) -> None:
    rows = convert(tmp_path, [record(0), b"not json\n", b'["a list"]\n', record(1), torn])
    assert [row["sample_id"] for row in rows] == ["id-0", "id-1"]
    assert [each["sample_id"] for each in read_journal(tmp_path / "journal.jsonl")] == ["id-0", "id-1"]


def test_an_empty_journal_gives_an_empty_file(tmp_path: Path) -> None:
    assert convert(tmp_path, []) == []
    assert "sample_id" in column_names(tmp_path / "samples.parquet")


def test_columns_of_the_dataset_keep_their_types(tmp_path: Path) -> None:
    first = {
        "s": "x",
        "i": 1,
        "f": 0.5,
        "b": True,
        "n": 1,
        "mixed": 1,
        "nested": {"a": [1]},
        "none": None,
        "big": 2**63,
    }
    second = {
        "s": None,
        "i": None,
        "f": None,
        "b": None,
        "n": 0.5,
        "mixed": "1",
        "nested": None,
        "late": 3,
        "big": 1,
    }
    rows = convert(tmp_path, [record(0, vars=first), record(1, vars=second)])
    found = [{key[5:]: value for key, value in row.items() if key.startswith("vars.")} for row in rows]
    assert found == [
        {"s": "x", "i": 1, "f": 0.5, "b": True, "n": 1.0, "mixed": "1", "nested": '{"a":[1]}', "none": None,
         "big": str(2**63), "late": None},
        {"s": None, "i": None, "f": None, "b": None, "n": 0.5, "mixed": '"1"', "nested": None, "none": None,
         "big": "1", "late": 3},
    ]  # fmt: skip
    assert type(found[0]["b"]) is bool
    assert type(found[0]["i"]) is int
    decoded = list(
        iter_samples(tmp_path / "samples.parquet", columns=["vars.mixed", "vars.nested"], decode=True)
    )
    assert decoded == [{"vars.mixed": 1, "vars.nested": {"a": [1]}}, {"vars.mixed": "1", "vars.nested": None}]


@pytest.mark.parametrize(
    ("value", "text", "as_json"),
    [("a", "a", None), (None, None, None), (3, "3", 3), (0.5, "0.5", 0.5), (True, "true", True),
     ({"a": 1}, '{"a":1}', {"a": 1}), ([], "[]", []), ([1], "[1]", [1])],
)  # fmt: skip
def test_answers_and_targets_have_a_text_form_and_keep_their_type(
    tmp_path: Path, value: Any, text: str | None, as_json: Any
) -> None:
    convert(tmp_path, [record(0, answer=value, target=value)])
    (row,) = iter_samples(tmp_path / "samples.parquet", decode=True)
    assert (row["answer"], row["answer_json"]) == (text, as_json)
    assert (row["target"], row["target_json"]) == (text, as_json)


def test_scores_may_be_missing_in_some_rows_and_columns_in_others(tmp_path: Path) -> None:
    rows = convert(
        tmp_path,
        [
            record(0, scores={}, reasons={}, sensitive={}),
            record(1, scores={"exact_match": None, "judge": 0.5}),
        ],
    )
    assert [row["score.exact_match"] for row in rows] == [None, None]
    assert [row["score.judge"] for row in rows] == [None, 0.5]
    assert [row["sensitive.dialect"] for row in rows] == [None, "aave"]


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.lists(st.fixed_dictionaries({"a": JSON, "b": JSON}), min_size=1, max_size=6), st.text(), JSON)
def test_any_value_comes_back(tmp_path: Path, rows: list[dict[str, Any]], output: str, answer: Any) -> None:
    (tmp_path / "journal.jsonl").unlink(missing_ok=True)
    convert(tmp_path, [record(n, vars=row, output=output, answer=answer) for n, row in enumerate(rows)])
    back = list(iter_samples(tmp_path / "samples.parquet", decode=True))
    for row, found in zip(rows, back, strict=True):
        assert [found["vars.a"], found["vars.b"], found["output"]] == [row["a"], row["b"], output]
        assert (found["answer"] if isinstance(answer, str) else found["answer_json"]) == answer


def test_lone_surrogates_and_nuls_do_not_stop_it(tmp_path: Path) -> None:
    pair = "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")
    line = json.dumps(
        {"sample_id": "a\0b", "repeat": 0, "position": 0, "vars": {"x": "nul \0"}, "output": pair}
    )
    rows = convert(tmp_path, [line.encode() + b"\n"])
    assert rows[0]["sample_id"] == "a\0b"
    assert rows[0]["vars.x"] == "nul \0"
    assert rows[0]["output"] == pair


def test_values_of_the_wrong_type_do_not_stop_it(tmp_path: Path) -> None:
    odd = {
        "sample_id": 5,
        "repeat": 0,
        "position": 0,
        "prompt_tokens": "many",
        "completion_tokens": 2**64 - 1,
        "ttft_s": "0.5",
        "output": {"a": 1},
        "cached": "yes",
        "scores": {"x": True},
    }
    (row,) = convert(tmp_path, [odd])
    assert {key: value for key, value in row.items() if value is not None} == {
        "sample_id": "5",
        "repeat": 0,
        "position": 0,
        "ttft_s": 0.5,
        "output": '{"a":1}',
        "cached": True,
        "score.x": 1.0,
    }


def test_long_texts_and_scattered_lines_are_found_again(tmp_path: Path) -> None:
    records = [record(n, output=str(n) * 300_000) for n in (5, 3, 9, 0)] + [record(3, output="short")]
    rows = convert(tmp_path, records)
    assert [(row["position"], row["output"][:1], len(row["output"])) for row in rows] == [
        (0, "0", 300_000), (3, "s", 5), (5, "5", 300_000), (9, "9", 300_000),
    ]  # fmt: skip


def test_the_file_is_private_zstd_versioned_and_replaced_whole(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    out = tmp_path / "samples.parquet"
    out.write_bytes(b"old")
    convert(tmp_path, [record(n) for n in range(20_000)])
    with pq.ParquetFile(out) as file:
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
        assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [8192, 8192, 3616]
        assert file.schema_arrow.metadata[b"evalrun.schema_version"] == b"1"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal.jsonl", "samples.parquet"]
    assert [row["position"] for row in iter_samples(out, columns=["position"])] == list(range(20_000))


def test_columns_are_read_by_name_and_unknown_ones_are_named(tmp_path: Path) -> None:
    convert(tmp_path, [record(0)])
    table = read_columns(tmp_path / "samples.parquet", ["score.exact_match", "status"])
    assert table.to_pydict() == {"score.exact_match": [1.0], "status": ["scored"]}
    with pytest.raises(UserError, match="no column") as caught:
        read_columns(tmp_path / "samples.parquet", ["score.exactmatch"])
    assert "score.exact_match" in caught.value.problems[0].remedy


@pytest.mark.parametrize("content", [None, b"", b"PAR1 torn"])
def test_a_missing_or_torn_file_is_a_clear_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "samples.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"samples\.parquet"):
        list(iter_samples(path))


def test_damaged_data_is_a_clear_error_and_not_a_crash(tmp_path: Path) -> None:
    convert(tmp_path, [record(n, output=os.urandom(20).hex()) for n in range(2000)])
    path = tmp_path / "samples.parquet"
    data = bytearray(path.read_bytes())
    data[4 : len(data) // 2] = os.urandom(len(data) // 2 - 4)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"samples\.parquet"):
        list(iter_samples(path))


def test_resource_readings_become_parquet(tmp_path: Path) -> None:
    rows = [
        {"t_s": 0.0, "phase": "load", "engine_pss_bytes": None},
        {"t_s": 0.5, "phase": "run", "engine_pss_bytes": 7},
    ]
    write(tmp_path / "system.jsonl", [*rows, b'{"t_s": 1'])
    assert system_to_parquet(tmp_path / "system.jsonl", tmp_path / "system.parquet") == 2
    assert list(iter_samples(tmp_path / "system.parquet")) == rows
    write(tmp_path / "none.jsonl", [])
    assert system_to_parquet(tmp_path / "none.jsonl", tmp_path / "none.parquet") == 0


def test_a_full_disk_is_a_clear_error_and_keeps_the_journal(tmp_path: Path) -> None:
    journal = write(tmp_path / "journal.jsonl", [record(n, output=os.urandom(500).hex()) for n in range(200)])
    script = """
import resource, signal, sys
from pathlib import Path
from evalrun.errors import UserError
from evalrun.tracking.parquet import journal_to_parquet
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    journal_to_parquet(Path(sys.argv[1]), Path(sys.argv[2]))
except UserError as error:
    print(int(error.exit_code), error)
"""
    out = tmp_path / "samples.parquet"
    done = subprocess.run(
        [sys.executable, "-c", script, str(journal), str(out)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("3 "), done.stdout
    assert "the disk is full" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["journal.jsonl"]


def test_memory_and_imports_stay_small(tmp_path: Path) -> None:
    """Half the rows of the contract's bar, in a process of its own; pandas would take 70 MB alone."""
    journal = write(tmp_path / "journal.jsonl", [record(n) for n in range(50_000)])
    script = """
import resource, sys
from pathlib import Path
import numpy, pyarrow.parquet
from evalrun.tracking.parquet import iter_samples, journal_to_parquet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
n = journal_to_parquet(Path(sys.argv[1]), Path(sys.argv[2]))
print(n, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, "pandas" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(journal), str(tmp_path / "samples.parquet")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    n, grown_mb, pandas = done.stdout.split()
    assert (n, pandas) == ("50000", "False")
    assert int(grown_mb) <= 60


def test_converting_is_not_much_slower_than_parsing(tmp_path: Path) -> None:
    """Measured against parsing the same lines, since machines differ: about six times on an idle one."""
    journal = write(tmp_path / "journal.jsonl", [record(n) for n in range(20_000)])
    journal_to_parquet(journal, tmp_path / "warm.parquet")
    started = time.process_time()
    for line in journal.read_bytes().splitlines():
        orjson.loads(line)
    parsing = time.process_time() - started
    started = time.process_time()
    journal_to_parquet(journal, tmp_path / "samples.parquet")
    assert time.process_time() - started < 20 * parsing


def test_columns_are_made_anew_and_the_others_keep_values_types_and_metadata(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    records = [record(n, vars={"tags": ["a", n]}) for n in range(5000)]
    out = tmp_path / "samples.parquet"
    journal_to_parquet(write(tmp_path / "journal.jsonl", records), out)
    before = pq.read_table(out)
    made = {"score.judge": "double", "reason.judge": "string", "answer_json": "json", "status": "string"}
    rows = ({"score.judge": n / 2, "answer_json": {"n": n}} for n in range(5000))
    assert rewrite_columns(out, out, made, rows, dropped=["score.exact_match"]) == 5000
    after = pq.read_table(out)
    kept = [name for name in before.schema.names if name not in (*made, "score.exact_match")]
    assert after.select(kept).equals(before.select(kept))
    assert [after.schema.field(name) for name in kept] == [before.schema.field(name) for name in kept]
    assert after.schema.metadata == before.schema.metadata
    tail = ["reason.exact_match", "score.judge", "reason.judge", "sensitive.dialect"]
    assert after.schema.names == [*before.schema.names[:-3], *tail]
    row = list(iter_samples(out, decode=True))[4321]
    assert (row["score.judge"], row["answer_json"], row["status"]) == (2160.5, {"n": 4321}, None)
    assert row["sample_id"] == "id-4321"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_too_few_rows_leave_the_file_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "samples.parquet"
    journal_to_parquet(write(tmp_path / "journal.jsonl", [record(n) for n in range(3)]), out)
    before = out.read_bytes()
    with pytest.raises(ValueError, match="more rows"):
        rewrite_columns(out, out, {"score.judge": "double"}, iter([{}]))
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "samples" in path.name] == ["samples.parquet"]
