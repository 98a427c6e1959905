"""Every format gives the same rows, and every kind of damage is named with its place."""

from __future__ import annotations

import datetime
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evalrun.datasets import Dataset, open_dataset
from evalrun.errors import UserError
from evalrun.suite.dataset import DatasetSpec

ROWS = [{"q": "one", "n": "1"}, {"q": "zwei, ü", "n": "007"}, {"q": 'a "b"\nc', "n": ""}]


def opened(folder: Path, seed: int = 7, **settings: Any) -> Dataset:
    return open_dataset(DatasetSpec(id="d", **settings), folder, seed)


def problem(folder: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        opened(folder, **settings)
    return str(caught.value)


def write(folder: Path, name: str, content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
    return name


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def files(folder: Path) -> dict[str, str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write(folder, "a.jsonl", "\ufeff" + lines(ROWS[:1]) + "\n  \n" + lines(ROWS[1:]))
    write(folder, "a.jsonl.gz", gzip.compress(lines(ROWS).encode()))
    write(folder, "a.csv", '\ufeffq,n\r\none,1\r\n"zwei, ü",007\r\n\r\n"a ""b""\nc",\r\n')
    write(folder, "a.json", json.dumps(ROWS))
    write(folder, "wrapped.json", json.dumps({"canary": "x", "note": [1], "examples": ROWS}, indent=1))
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "a.parquet", row_group_size=2)
    return {name: name for name in ("a.jsonl", "a.jsonl.gz", "a.csv", "a.json", "wrapped.json", "a.parquet")}


@pytest.mark.parametrize("shuffle", [False, True])
def test_all_formats_give_the_same_rows_ids_and_digest(tmp_path: Path, shuffle: bool) -> None:
    inline = opened(tmp_path, rows=ROWS, shuffle=shuffle)
    assert sorted(item.row["n"] for item in inline) == ["", "007", "1"]
    for name in files(tmp_path):
        dataset = opened(tmp_path, path=name, shuffle=shuffle)
        assert list(dataset) == list(inline), name
        assert list(dataset) == list(dataset), name
        assert (dataset.digest, len(dataset)) == (inline.digest, 3), name


def test_typed_values_of_parquet_become_json(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {"day": datetime.date(2024, 2, 29), "raw": b"\xff", "deep": {"xs": [1, 2.5, None]}, "ok": True}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "t.parquet")
    (item,) = opened(tmp_path, path="t.parquet")
    assert item.row["day"] == "2024-02-29"
    assert item.row["raw"].startswith("<1 bytes, sha256 ")
    assert item.row["deep"] == {"xs": [1, 2.5, None]}
    assert item.row["ok"] is True


def test_local_files_never_import_the_hub_library(tmp_path: Path) -> None:
    files(tmp_path)
    code = (
        "import sys, pathlib; from evalrun.datasets import open_dataset\n"
        "from evalrun.suite.schema import DatasetSpec\n"
        "for name in ('a.jsonl', 'a.csv', 'a.json'):\n"
        "    list(open_dataset(DatasetSpec(id='d', path=name), pathlib.Path(sys.argv[1]), 1))\n"
        "print([m for m in ('datasets', 'huggingface_hub', 'pyarrow', 'pandas') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (lines(ROWS) + '{"q": "x", "n": "to', "a.jsonl:4: the JSON is torn"),
        ('{"q": 1}\n{"q": }\n', "a.jsonl:2: this is not JSON (column 7)"),
        ('{"q": 1}\n[1, 2]\n', "a.jsonl:2: the line holds a list, not an object"),
        (b'{"q": "a"}\n{"q": "\xff"}\n', "a.jsonl:2: byte 8 of the line is not UTF-8 (0xff)"),
        ('{"q": 1}\n{"q": NaN}\n', "a.jsonl:2: NaN is not a JSON value"),
        ('{"q": 1}\n{"q": -Infinity}\n', "a.jsonl:2: -Infinity is not a JSON value"),
        ("[" * 5000, "a.jsonl:1: this is not JSON"),
        ("", "a.jsonl:1: there are no rows"),
        ("\n \n", "a.jsonl:1: there are no rows"),
    ],
)
def test_damaged_jsonl_names_file_and_line(tmp_path: Path, content: str | bytes, expected: str) -> None:
    write(tmp_path, "a.jsonl", content)
    assert expected in problem(tmp_path, path="a.jsonl")


def test_all_problems_are_found_at_once_and_many_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", lines(ROWS) + "{\n" * 50)
    message = problem(tmp_path, path="a.jsonl")
    assert message.count("torn") == 10
    assert "and 40 more like these" in message


def test_torn_gzip_is_reported(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl.gz", gzip.compress(lines(ROWS * 2000).encode())[:-20])
    assert "compressed file is torn" in problem(tmp_path, path="a.jsonl.gz")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("q,n\na,1\nb\n", "a.csv:3: the row has 1 cells where the header has 2"),
        ('q,n\n"a\nb",1\nc,2,3\n', "a.csv:4: the row has 3 cells where the header has 2"),
        ("q,n,q\na,1,2\n", "a.csv:1: the header names column 'q' twice"),
        (b"q,n\na,\xe9\n", "a.csv:2: byte 3 of the line is not UTF-8 (0xe9)"),
        ('q,n\n"a,1\n', "the CSV cannot be read: unexpected end of data"),
        ("q,n\n", "there are no rows"),
        ("", "there are no rows"),
    ],
)
def test_damaged_csv_names_file_and_line(tmp_path: Path, content: str | bytes, expected: str) -> None:
    write(tmp_path, "a.csv", content)
    assert expected in problem(tmp_path, path="a.csv")


def test_unnamed_csv_columns_get_names(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", ",q\n0,x\n")
    assert opened(tmp_path, path="a.csv").columns == ("column_1", "q")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"q": 1},\n {"q": \n', "a.json:3: the JSON is torn"),
        ('[{"q": 1},\n 5]', "a.json:2 (row 2): the entry is not an object"),
        ('{"a": [{"q": 1}], "b": [{"q": 1}]}', "exactly one list of objects in it (found: a, b)"),
        ('{"a": 1}', "expected an array of objects"),
        ('{"q": 1}\n{"q": 2}\n', "format: jsonl"),
        ('{"k": 1,\n "rows": []}', "there are no rows"),
        ('{"rows": [{"q": 1},\n\n{"q": "x"}]}', "a.json:3 (row 2): column 'q' mixes types: text here"),
        (b'[{"q":\n "\xff"}]', "a.json:2: byte 3 of the line is not UTF-8"),
    ],
)
def test_damaged_json_names_file_and_line(tmp_path: Path, content: str | bytes, expected: str) -> None:
    write(tmp_path, "a.json", content)
    assert expected in problem(tmp_path, path="a.json")


def test_damaged_parquet_is_reported(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write(tmp_path, "torn.parquet", b"PAR1 no more")
    assert "torn.parquet: the Parquet file cannot be read" in problem(tmp_path, path="torn.parquet")
    pq.write_table(pa.table({"x": [1.0, float("nan")]}), tmp_path / "nan.parquet")
    assert "nan.parquet: row 2: column 'x' holds a number that is not finite" in problem(
        tmp_path, path="nan.parquet"
    )


@pytest.mark.parametrize(
    ("values", "differs"),
    [
        ([1, "a"], True),
        ([True, 1], True),
        (["a", ["a"]], True),
        ([1, 2.5], False),
        ([None, 1], False),
        (["a", None], False),
        ([{"a": 1}, {"b": "x"}], False),
    ],
)
def test_a_column_has_one_type(tmp_path: Path, values: list[Any], differs: bool) -> None:
    write(tmp_path, "a.jsonl", lines([{"q": value} for value in values]))
    if not differs:
        assert len(opened(tmp_path, path="a.jsonl")) == 2
        return
    message = problem(tmp_path, path="a.jsonl")
    assert message.startswith(str(tmp_path / "a.jsonl:2"))
    assert "a.jsonl:1" in message


def test_missing_files_folders_and_formats(tmp_path: Path) -> None:
    assert "--data d=PATH" in problem(tmp_path, path="nowhere.jsonl")
    assert "is a folder" in problem(tmp_path, path=".")
    write(tmp_path, "a.txt", lines(ROWS))
    assert "Set the dataset's format" in problem(tmp_path, path="a.txt")
    assert len(opened(tmp_path, path="a.txt", format="jsonl")) == 3


def test_a_file_that_changes_after_opening_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", lines(ROWS))
    dataset = opened(tmp_path, path="a.jsonl")
    write(tmp_path, "a.jsonl", lines(ROWS[:2]))
    with pytest.raises(UserError, match="changed since it was opened"):
        list(dataset)
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(UserError, match="changed since it was opened"):
        list(dataset)


def test_unreachable_hub_names_the_local_copy_as_remedy(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from evalrun.datasets import open_dataset\n"
        "from evalrun.errors import UserError; from evalrun.suite.schema import DatasetSpec\n"
        "try: open_dataset(DatasetSpec(id='d', hub='no/such', split='test', limit=5), pathlib.Path('.'), 1)\n"
        "except UserError as error: print(error)"
    )
    # Nothing listens on port 9 of this machine, so the connection is refused at once.
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PATH": ""}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert "cannot be reached" in run.stdout
    assert "--data d=PATH" in run.stdout


def test_hub_rows_through_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write(data, "train.jsonl", lines(ROWS))
    write(data, "test.jsonl", lines(ROWS[1:]))
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    whole = opened(tmp_path, hub=str(data), split="test")
    streamed = opened(tmp_path, hub=str(data), split="test", limit=1)
    assert [item.row for item in whole] == ROWS[1:]
    assert streamed.source["streaming"] is True
    assert [item.row for item in streamed] == [item.row for item in streamed] == ROWS[1:2]
    local = opened(data, path="test.jsonl")
    assert (local.digest, list(local)) == (whole.digest, list(whole))
    assert "train" in problem(tmp_path, hub=str(data))
    assert "Did you mean 'test'?" in problem(tmp_path, hub=str(data), split="tset")
