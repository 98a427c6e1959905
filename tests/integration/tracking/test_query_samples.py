"""Finding samples, and SQL that can do nothing but read them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.program import evalrun
from tracking_samples import MakeSweep, run_of

from evalrun.errors import UserError
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.parquet import journal_to_parquet
from evalrun.tracking.samples import find_run, find_samples
from evalrun.tracking.sql import ask
from evalrun.tracking.store import Store


def record(at: int, **changes: Any) -> dict[str, Any]:
    return {
        "sample_id": f"s{at}", "repeat": 0, "position": at, "vars": {"text": f"row {at}", "n": at},
        "messages": [{"role": "user", "content": f"row {at}"}], "output": "x" * at, "answer": "bug",
        "target": "bug", "status": "scored", "completion_tokens": at * 10, "e2e_s": 0.1 * at,
        "cached": at % 2 == 0, "scores": {"exact_match": float(at % 2)}, "sensitive": {"dialect": "sae"},
        **changes,
    }  # fmt: skip


@pytest.fixture
def folder(store: Store, make_sweep: MakeSweep, tmp_path: Path) -> SweepFolder:
    """A sweep whose run `m-direct-d` has ten samples; the last failed, so that it has no score."""
    made = make_sweep()
    journal = tmp_path / "journal.jsonl"
    records = [record(at) for at in range(9)]
    records.append(record(9, status="failed", output=None, answer=None, scores={}, completion_tokens=None))
    journal.write_text("".join(json.dumps(each) + "\n" for each in records))
    journal_to_parquet(journal, made.samples_path("m-direct-d"))
    made.finish_run("m-direct-d", run_of("m-direct-d"))
    store.index(made)
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "0123456789"),
        ("score.exact_match == 0 and completion_tokens > 20", "468"),
        ("not score.exact_match == 0", "13579"),
        ("score.exact_match == None", "9"),
        ("len(output) > 6", "78"),
        ("'row 3' in vars.text or vars.n in (5, 6)", "356"),
        ("cached and vars.n >= 4", "468"),
        ("cached == False and 2 < vars.n < 6", "35"),
        ('sensitive["dialect"] == "sae" and status != \'scored\'', "9"),
        ("e2e_s >= 0.75", "89"),
        ("answer == target and vars.n == 1", "1"),
        ("completion_tokens == vars.n", "0"),
    ],
)
def test_finds_samples(folder: SweepFolder, text: str, expected: str) -> None:
    found = find_samples(folder.samples_path("m-direct-d"), text)
    assert "".join(row["sample_id"][1:] for row in found.rows) == expected
    assert found.total == len(expected)


def test_sorts_limits_and_decodes(folder: SweepFolder) -> None:
    path = folder.samples_path("m-direct-d")
    found = find_samples(path, "", sort=["-completion_tokens"], limit=2)
    assert [row["sample_id"] for row in found.rows] == ["s8", "s7"]
    assert found.total == 10
    assert found.rows[0]["messages"] == [{"role": "user", "content": "row 8"}]
    assert find_samples(path, "", sort=["completion_tokens"]).rows[-1]["sample_id"] == "s9"


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("exact_match == 0", "samples have no 'exact_match'", "Did you mean 'score.exact_match'?"),
        ("score.exact_mach == 0", "samples have no", "score.exact_match"),
        ("completion_tokens > 'x'", "a number is compared with a text", "^^^"),
        ("len(vars.n) > 1", "len() is for texts", "^^^"),
        ('vars["x\\"; drop"] == 1', "samples have no", ""),
    ],
)
def test_errors_in_sample_queries_point_at_the_place(
    folder: SweepFolder, text: str, what: str, hint: str
) -> None:
    with pytest.raises(UserError) as caught:
        find_samples(folder.samples_path("m-direct-d"), text)
    assert what in str(caught.value) and hint in str(caught.value)


def test_missing_and_broken_files_are_named(folder: SweepFolder) -> None:
    with pytest.raises(UserError, match=r"samples\.parquet"):
        find_samples(folder.path / "runs" / "none" / "samples.parquet")
    path = folder.samples_path("m-direct-d")
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UserError, match=r"samples\.parquet"):
        find_samples(path, "vars.n == 1")


def test_runs_are_found_by_their_beginning(folder: SweepFolder) -> None:
    assert find_run(folder, "m-d") == "m-direct-d"
    for name, said in (("m-", "fits 2 runs"), ("m-drect-d", "Did you mean 'm-direct-d'")):
        with pytest.raises(UserError, match=said):
            find_run(folder, name)


def test_the_command_takes_a_sweep_before_the_run(store: Store, folder: SweepFolder) -> None:
    for run in (["m-direct-d"], [f"{folder.ulid}/m-direct-d"], ["m-direct-d", "--sweep", folder.ulid]):
        done = evalrun("samples", run[0], "vars.n > 7", *run[1:], "--store", store.root, "--json")
        assert [each["sample_id"] for each in json.loads(done.stdout)["samples"]] == ["s8", "s9"]


def test_sql_reads_runs_metrics_and_samples(store: Store, folder: SweepFolder) -> None:
    joined = ask(
        store,
        "select runs.prompt, metrics.value, count(*) from runs join metrics using (sweep, run) "
        "join samples using (sweep, run) where metrics.name = 'exact_match' and slice = '{}' group by all",
    )
    assert joined.columns[0] == "prompt" and joined.rows == (("direct", 0.5, 10),)
    typed = ask(store, 'select sum("vars.n"), bool_or(cached), min(sweep) from samples', [folder])
    assert typed.rows == ((45, True, folder.ulid),)
    params = ask(store, "select distinct params->>'temperature', archived from runs")
    assert params.rows == (("0.7", False),)
    assert {row[0] for row in ask(store, "show tables").rows} == {"runs", "metrics", "samples"}


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_text('{secret}')",
        "select * from read_csv('{secret}')",
        "select * from '{secret}'",
        "select * from glob('{folder}/*')",
        "copy (select 1) to '{folder}/out.csv'",
        "copy samples to '{parquet}'",
        "attach '{folder}/x.db'",
        "create table t as select 1",
        "insert into runs select * from runs",
        "delete from runs",
        "set enable_external_access = true",
        "pragma database_list",
        "install httpfs",
        "export database '{folder}/e'",
        "select 1; select 2",
        "select getenv('HOME')",
        "explain analyze copy (select 1) to '{folder}/out.csv'",
        "select * from query('copy (select 1) to ''{folder}/out.csv''')",
        "",
        "selec 1",
    ],
)
def test_sql_can_neither_read_other_files_nor_write(
    store: Store, folder: SweepFolder, tmp_path: Path, sql: str
) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\nplanted,1\n")
    parquet = folder.samples_path("m-direct-d")
    before = parquet.read_bytes(), sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as caught:
        ask(store, sql.format(secret=secret, folder=tmp_path, parquet=parquet))
    assert "planted" not in str(caught.value)
    assert (parquet.read_bytes(), sorted(tmp_path.rglob("*"))) == before


def test_sql_over_an_empty_store(store: Store) -> None:
    assert ask(store, "select count(*) from runs").rows == ((0,),)
    assert ask(store, "select count(*) from samples").rows == ((0,),)


def test_sql_leaves_out_a_broken_file_and_names_it(
    store: Store, folder: SweepFolder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.samples_path("m-direct-d").write_bytes(b"junk")
    ask(store, "select count(*) from samples")
    assert "m-direct-d/samples.parquet are left out" in caplog.text
    assert ask(store, "select count(*) from runs").rows != ((0,),)


def test_the_program_says_nothing_but_the_answer(store: Store, folder: SweepFolder) -> None:
    command = [sys.executable, "-m", "evalrun", "sql", "select 1 as one", "--store", str(store.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (["one", "1"], "")


def test_a_list_may_be_long_and_a_chain_may_not(folder: SweepFolder) -> None:
    path = folder.samples_path("m-direct-d")
    listed = ",".join(['"x"'] * 2400)
    assert find_samples(path, f"status in ({listed})").total == 0
    with pytest.raises(UserError, match="at most 300"):
        find_samples(path, "<".join(["completion_tokens"] * 302))
