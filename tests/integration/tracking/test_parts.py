"""Runs of so many samples that their table is a folder of parts: everything reads it as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests.program import evalrun

import evalrun as api
from evalrun.tracking import parts
from evalrun.tracking.folder import file_sha256
from evalrun.tracking.parquet import damage, reading

ROWS = 50
"""Rows of the runs; MOST_ROWS is made 20 where the table is to have parts."""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    rows = [
        {"id": f"r{n}", "q": f"question {n}", "a": "yes", "said": "yes" if n % 3 else "no", "g": "xy"[n % 2]}
        for n in range(ROWS)
    ]
    path = tmp_path / "suite.json"
    path.write_text(
        json.dumps(
            {
                "name": "many",
                "models": [{"id": "m", "provider": "recorded", "column": "said"}],
                "prompts": [{"id": "p", "messages": [{"role": "user", "content": "{{ q }}"}]}],
                "datasets": [{"id": "d", "rows": rows, "key": "id", "target": "{{ a }}", "sensitive": ["g"]}],
                "scorers": ["exact_match"],
            }
        )
    )
    return path


def run(suite: Path, store: Path, *more: str) -> dict[str, Any]:
    done = evalrun("run", suite, "--json", "--store", store, *more)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few rows are too many for one file, with row groups as small."""
    monkeypatch.setattr(parts, "MOST_ROWS", 20)
    monkeypatch.setattr("evalrun.tracking.parquet.ROW_GROUP", 10)
    monkeypatch.setattr("evalrun.tracking.parquet._PARSED", 10)
    monkeypatch.setattr("evalrun.tracking.parquet._REWRITTEN", 10)


def test_a_table_of_parts_is_read_as_one(
    suite: Path, tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = run(suite, tmp_path / "parts", "--report", str(tmp_path / "parts.html"))
    table = next(tmp_path.glob("parts/sweeps/*/runs/*/samples.parquet"))
    assert [file.name for file in parts.files_of(table)] == [parts.part(n) for n in range(3)]
    assert [pq.ParquetFile(file).metadata.num_rows for file in parts.files_of(table)] == [20, 20, 10]
    assert {file.stat().st_mode & 0o777 for file in parts.files_of(table)} == {0o600}
    monkeypatch.setattr(parts, "MOST_ROWS", 1_000_000)
    one = run(suite, tmp_path / "one", "--no-report")
    # The same samples and figures, to the last digit.
    whole = next(tmp_path.glob("one/sweeps/*/runs/*/samples.parquet"))
    pd.testing.assert_frame_equal(pd.read_parquet(table), pd.read_parquet(whole))
    assert figures(told) == figures(one)
    with duckdb.connect() as database:
        query = f"SELECT count(*), sum(\"score.exact_match\") FROM '{table}/*.parquet'"
        assert database.execute(query).fetchone() == (ROWS, 33.0)
    with reading(table) as file:
        assert (file.metadata.num_rows, file.read(columns=["sample_id"]).num_rows) == (ROWS, ROWS)
    assert '"n":50' in (tmp_path / "parts.html").read_text()


def test_every_command_reads_it(suite: Path, tmp_path: Path, few: None) -> None:
    store = tmp_path / "store"
    sweep = run(suite, store, "--no-report")["sweep"]
    found = evalrun("samples", sweep, "score.exact_match < 1", "--json", "--store", store)
    assert (found.returncode, len(json.loads(found.stdout)["samples"])) == (0, 17), found.stderr
    counted = evalrun(
        "sql", "SELECT sweep, run, count(*) AS n FROM samples GROUP BY ALL", "--store", store, "--json"
    )
    assert [sweep, "m-p-d", ROWS] in _rows(counted.stdout), counted.stderr
    assert len(api.open_store(store).sweep(sweep).runs[0].samples()) == ROWS
    shown = evalrun("report", sweep, "--out", tmp_path / "again.html", "--store", store)
    assert shown.returncode == 0, shown.stderr
    checked = evalrun("audit", "verify", "--store", store)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    taken = run(suite, store, "--reuse", "--fresh", "--no-report")
    assert taken["runs"][0]["counts"]["samples"] == ROWS
    scorers = tmp_path / "scorers.yaml"
    scorers.write_text("scorers: [exact_match, token_f1]")
    again = evalrun("rescore", sweep, "--scorers", scorers, "--store", store)
    assert again.returncode == 0, again.stderr
    tables = list(store.glob("sweeps/*/runs/*/samples.parquet"))
    assert (len(tables), {table.is_dir() for table in tables}) == (3, {True})
    part = parts.files_of(next(table for table in tables if sweep in str(table)))[1]
    part.write_bytes(part.read_bytes()[:-20])
    assert damage(part.parent) == "it was cut off"
    refused = evalrun("samples", sweep, "--json", "--store", store)
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    assert evalrun("audit", "verify", "--store", store).returncode != 0


def test_rows_are_erased_from_it(suite: Path, tmp_path: Path, few: None) -> None:
    store = tmp_path / "store"
    sweep = run(suite, store, "--no-report")["sweep"]
    words = ("--where", 'sample_id == "r25"', "--reason", "withdrawn", "--yes", "--store", store)
    erased = evalrun("erase", sweep, *words)
    assert erased.returncode == 0, erased.stderr
    (table,) = store.glob("sweeps/*/runs/*/samples.parquet")
    ids = pd.read_parquet(table)["sample_id"]
    assert (len(ids), "r25" in set(ids)) == (ROWS - 1, False)
    checked = evalrun("audit", "verify", "--store", store)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def figures(told: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics of a run without those of the machine."""
    metrics = told["runs"][0]["metrics"]
    return [metric for metric in metrics if metric["name"].startswith(("exact", "fairness", "status"))]


def _rows(text: str) -> list[Any]:
    value = json.loads(text)
    return list(value if isinstance(value, list) else value["rows"])


def test_its_digest_is_of_its_parts(tmp_path: Path) -> None:
    for name, text in (("part-00001.parquet", b"b"), ("part-00000.parquet", b"a")):
        (tmp_path / name).write_bytes(text)
    before = file_sha256(tmp_path)
    (tmp_path / "part-00001.parquet").write_bytes(b"c")
    assert file_sha256(tmp_path) != before


def test_a_report_of_too_many_shows_some_and_says_which(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalrun.reports.samples.MOST_SHOWN", 20)
    report = tmp_path / "r.html"
    run(suite, tmp_path / "store", "--report", str(report))
    text = report.read_text().partition('id="samples-index">')[2].partition("</script>")[0]
    index = json.loads(text)
    assert index["of"] == ROWS
    assert 10 <= index["n"] <= 30
    assert sum(index["runs"][0]["chunks"]) == index["n"]
