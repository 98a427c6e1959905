"""Datasets on object storage: read by row group, with keys from the environment that are stored nowhere."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.object_server import ObjectServer
from tests.program import evalrun

from evalrun.suite.values import url_of

GROUPS, ROWS = 40, 250
"""Row groups of the file, and rows of each."""


def table(rows: range) -> bytes:
    text = [f"question {n} " + "x" * 50 + str(n) * 20 for n in rows]
    data = {"q": text, "a": ["yes"] * len(rows), "said": ["yes" if n % 4 else "no" for n in rows]}
    out = io.BytesIO()
    pq.write_table(pa.table(data), out, row_group_size=ROWS, compression="none")
    return out.getvalue()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    with ObjectServer() as made:
        made.objects["bucket/rows/all.parquet"] = table(range(GROUPS * ROWS))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, f"of-the-environment-{name[4:10]}")
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
        yield made


def suite(folder: Path, path: str, **keys: Any) -> Path:
    made = {
        "name": "remote",
        "models": [{"id": "m", "provider": "recorded", "column": "said"}],
        "prompts": [{"id": "p", "messages": [{"role": "user", "content": "{{ q }}"}]}],
        "datasets": [{"id": "d", "path": path, "target": "{{ a }}", **keys}],
        "scorers": ["exact_match"],
    }
    (folder / "suite.json").write_text(json.dumps(made))
    return folder / "suite.json"


def run(folder: Path, path: str, **keys: Any) -> Any:
    words = ("--json", "--no-report", "--store", folder / "store")
    return evalrun("run", suite(folder, path, **keys), *words, env={"EVALRUN_CACHE": str(folder / "cache")})


def counted(done: Any) -> tuple[int, float]:
    assert done.returncode == 0, done.stderr
    (ended,) = json.loads(done.stdout)["runs"]
    (metric,) = (each for each in ended["metrics"] if each["name"] == "exact_match" and not each["slice"])
    return ended["counts"]["samples"], metric["value"]


def test_a_limit_fetches_the_row_groups_it_needs(store: ObjectServer, tmp_path: Path) -> None:
    size = len(store.objects["bucket/rows/all.parquet"])
    assert counted(run(tmp_path, "s3://bucket/rows/all.parquet", limit=100)) == (100, 0.75)
    assert store.sent < 0.15 * size
    assert store.keys == {"of-the-environment-ACCESS"}
    everything = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert b"of-the-environment" not in everything
    assert b"s3://bucket/rows/all.parquet" in everything


def test_all_rows_are_read_once(store: ObjectServer, tmp_path: Path) -> None:
    store.objects["bucket/rows/all.parquet"] = table(range(1000))
    assert counted(run(tmp_path, "s3://bucket/rows/all.parquet", shuffle=True)) == (1000, 0.75)
    assert store.sent < 1.5 * len(store.objects["bucket/rows/all.parquet"])


@pytest.mark.parametrize("path", ["s3://bucket/parts", "s3://bucket/parts/", "s3://bucket/parts/p*.parquet"])
def test_a_folder_or_a_pattern_is_its_files_in_order(path: str, store: ObjectServer, tmp_path: Path) -> None:
    for number in (2, 0, 1):
        store.objects[f"bucket/parts/p{number}.parquet"] = table(range(100 * number, 100 * number + 100))
    store.objects["bucket/parts/_SUCCESS"] = b""
    assert counted(run(tmp_path, path)) == (300, 0.75)
    (samples,) = (tmp_path / "store").glob("sweeps/*/runs/*/samples.parquet")
    first = pq.read_table(samples)["vars.q"].to_pylist()
    assert [text.split()[1] for text in first] == [str(n) for n in range(300)]


def test_other_formats_are_fetched_once(store: ObjectServer, tmp_path: Path) -> None:
    lines = "".join(json.dumps({"q": str(n), "a": "yes", "said": "yes"}) + "\n" for n in range(20))
    store.objects["bucket/rows.jsonl"] = lines.encode()
    for _ in range(2):
        assert counted(run(tmp_path, "s3://bucket/rows.jsonl")) == (20, 1.0)
    assert len(store.gets) == 1


def test_whatever_fsspec_knows(tmp_path: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/rows/all.parquet", table(range(100)))
    assert counted(run(tmp_path, "memory://rows/all.parquet", limit=40)) == (40, 0.75)


@pytest.mark.parametrize(
    ("path", "refuse", "code", "said"),
    [
        ("s3://bucket/rows/none.parquet", None, 2, "there is no such file"),
        ("s3://bucket/rows/x*.parquet", None, 2, "no file is like the pattern"),
        ("s3://bucket/*/x.parquet", None, 2, "may stand for names of files"),
        ("s3://bucket/torn.parquet", None, 2, "is not a whole Parquet file"),
        ("s3://key:secret@bucket/x.parquet", None, 2, "holds credentials"),
        ("s3://bucket/x.parquet?secret_key=abc", None, 2, "holds credentials"),
        ("nothing://bucket/x.parquet", None, 2, "'nothing://' cannot be read"),
        ("s3://bucket/rows/all.parquet", (403, "AccessDenied"), 2, "Set AWS_ACCESS_KEY_ID"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(
    path: str, refuse: Any, code: int, said: str, store: ObjectServer, tmp_path: Path
) -> None:
    store.objects["bucket/torn.parquet"] = b"PAR1" + b"x" * 100
    store.refuse = refuse
    ended = run(tmp_path, path)
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "abc" not in ended.stderr


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    script = "import sys; from evalrun.cli.main import main; sys.argv[0] = 'evalrun'; main()"
    import os
    import subprocess
    import sys

    words = ["plan", str(suite(tmp_path, "hf://datasets/owner/name/train.parquet"))]
    env = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_TELEMETRY": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", script, *words], env=env, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 2, ended.stderr
    assert "hf://datasets/owner/name/train.parquet cannot be read" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://b/k.parquet", "s3://b/k.parquet"),
        ("hf://datasets/o/n/x.parquet", "hf://datasets/o/n/x.parquet"),
        ("C:/rows.jsonl", None),
        ("data/rows.jsonl", None),
        ("/abs/rows:/x.jsonl", None),
        ("file:///rows.jsonl", None),
    ],
)
def test_which_paths_are_addresses(path: str, url: str | None) -> None:
    assert url_of(Path(path)) == url
