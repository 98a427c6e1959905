"""A store that something happened to: a crash between two files, a bit that fell over, a file cut short, a
folder that is gone or may not be read. What is whole goes on working, and what is not is named.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.program import evalrun
from tests.recorded import document_of, recorded_suite, yes_no
from tests.servers import ChatServer
from tests.users import as_user, shared_place

N = 40


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite of two recorded models, in the current folder, so that the store is `.evalrun`."""
    monkeypatch.chdir(tmp_path)
    rows = yes_no([at % 3 > 0 for at in range(N)], n=["yes"] * N)
    return recorded_suite(tmp_path, rows, ["m", "n"])


@pytest.fixture
def swept(suite: Path) -> Path:
    """The folder of a finished sweep in `.evalrun`."""
    done = evalrun(suite, "-q", "--no-report")
    assert done.returncode == 0, done.stderr
    (folder,) = Path(".evalrun/sweeps").resolve().iterdir()
    return folder


def dying(words: list[str], where: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a process that is killed when it comes to `where`: MODULE:FUNCTION[:FIRST ARGUMENT
    BUT ONE]."""
    program = """
import importlib, os, sys
module, name, *wanted = sys.argv.pop(1).split(":")
module = importlib.import_module(module)
real = getattr(module, name)
def at_the_end(*given, **named):
    if not wanted or given[1] == wanted[0]:
        os._exit(137)
    return real(*given, **named)
setattr(module, name, at_the_end)
from evalrun.cli.main import main
main()
"""
    command = [sys.executable, "-c", program, where, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_default_command_leaves_a_trail_that_knows_its_sweep(suite: Path) -> None:
    done = evalrun(suite, "-q", "--report", "report.html")
    assert done.returncode == 0 and Path("report.html").exists(), done.stderr
    verified = evalrun("audit", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    (folder,) = Path(".evalrun/sweeps").iterdir()
    recorded = [json.loads(line) for line in Path(".evalrun/events.jsonl").read_text().splitlines()]
    last = json.loads((folder / "events.jsonl").read_text().splitlines()[-1])
    assert recorded[-1]["target"] == folder.name[:26] and recorded[-1]["detail"]["head"] == last["hash"]
    shutil.rmtree(folder)
    gone = evalrun("audit", "verify")
    assert gone.returncode == 1 and "gone without a tombstone" in gone.stdout


@pytest.mark.parametrize(
    "where",
    [
        "evalrun.tracking.events:append_event:start",
        "evalrun.tracking.events:append_event:begin_run",
        "evalrun.sweep.finish:journal_to_parquet",
        "evalrun.tracking.events:append_event:finish_run",
        "evalrun.tracking.events:append_event:finish",
        "evalrun.sweep.main:note_cells",
    ],
)
def test_a_process_killed_at_any_step_leaves_what_the_same_command_completes(suite: Path, where: str) -> None:
    killed = dying([str(suite), "-q", "--no-report"], where)
    assert killed.returncode == 137, killed.stderr
    again = evalrun(suite, "-q", "--no-report", "--json")
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout)
    assert [run["counts"]["samples"] for run in result["runs"]] == [N, N]
    verified = evalrun("audit", "verify")
    assert verified.returncode == 0, verified.stdout
    promoted = evalrun("promote", f"{result['sweep']}/m-p-d", "--as", "production", "--reason", "it is whole")
    assert promoted.returncode == 0, promoted.stderr
    assert not list(Path(".evalrun").glob("sweeps/*/unfinished"))


def test_a_rescore_that_was_killed_is_completed_by_the_same_command(swept: Path) -> None:
    Path("scorers.yaml").write_text("[edit_distance]")
    words = ["rescore", swept.name, "--scorers", "scorers.yaml", "--no-report"]
    killed = dying(words, "evalrun.tracking.events:append_event:finish_run")
    assert killed.returncode == 137, killed.stderr
    again = evalrun(*words)
    assert again.returncode == 0, again.stderr
    assert len(list(Path(".evalrun/sweeps").iterdir())) == 2, "the child goes on, and is not begun anew"
    assert evalrun("audit", "verify").returncode == 0


def test_temporary_files_of_a_killed_process_are_removed(suite: Path) -> None:
    dying([str(suite), "-q", "--no-report"], "evalrun.tracking.events:append_event:finish_run")
    (folder,) = Path(".evalrun/sweeps").iterdir()
    left = [
        folder / ".sweep.json.4711-0badcafe.tmp",
        folder / "runs/m-p-d/.samples.parquet.4711-0badcafe.tmp",
    ]
    for path in left:
        path.write_bytes(b"half")
    assert evalrun(suite, "-q", "--no-report").returncode == 0
    assert not [path for path in left if path.exists()]


def test_damaged_lines_of_a_journal_are_asked_again_and_said(suite: Path) -> None:
    killed = dying([str(suite), "-q", "--no-report"], "evalrun.sweep.finish:journal_to_parquet")
    assert killed.returncode == 137
    (journal,) = Path(".evalrun/sweeps").glob("*/runs/*/journal.jsonl")
    rng = random.Random(3)
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == N
    for at in range(0, N, 5):
        line = bytearray(lines[at])
        place = rng.randrange(len(line) - 30)  # before the checksum
        line[place] ^= 1 << rng.randrange(8)
        lines[at] = bytes(line)
    journal.write_bytes(b"".join(lines))
    done = evalrun(suite, "-q", "--no-report", "--json")
    assert done.returncode == 0, done.stderr
    runs = {run["run"]: run for run in json.loads(done.stdout)["runs"]}
    assert runs["m-p-d"]["counts"]["samples"] == N == runs["m-p-d"]["counts"]["scored"]
    value = next(each["value"] for each in runs["m-p-d"]["metrics"] if each["name"] == "exact_match")
    assert value == sum(at % 3 > 0 for at in range(N)) / N
    assert "damaged in" in done.stderr and "asked again" in done.stderr


def test_a_damaged_id_in_a_journal_without_checksums_adds_no_sample(suite: Path) -> None:
    killed = dying([str(suite), "-q", "--no-report"], "evalrun.sweep.finish:journal_to_parquet")
    assert killed.returncode == 137
    (journal,) = Path(".evalrun/sweeps").glob("*/runs/*/journal.jsonl")
    lines = [json.loads(line) for line in journal.read_bytes().splitlines()]
    for line in lines:
        del line["crc32"]  # as an earlier version wrote it
    lines[3]["sample_id"] = "q" + lines[3]["sample_id"][1:]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = evalrun(suite, "-q", "--no-report", "--json")
    assert done.returncode == 0, done.stderr
    runs = {run["run"]: run for run in json.loads(done.stdout)["runs"]}
    assert runs["m-p-d"]["counts"]["samples"] == N == runs["m-p-d"]["counts"]["scored"]
    assert f"samples that the dataset has not ({lines[3]['sample_id']})" in done.stderr


def test_a_bit_that_fell_over_in_samples_is_said(swept: Path) -> None:
    path = swept / "runs/m-p-d/samples.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 1
    path.write_bytes(data)
    assert "are not those of its figures" in " ".join(evalrun("show", "latest").stdout.split())


def spoil(path: Path, how: str) -> None:
    """Do to a file what may happen to one."""
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "garbage":
        path.write_bytes(random.Random(5).randbytes(5000))
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        spoilt = bytearray(data)
        for at in range(100, len(data) // 2, 3):
            spoilt[at] ^= 0x5A
        path.write_bytes(bytes(spoilt))


@pytest.mark.parametrize("how", ["folder", "garbage", "cut", "middle"])
def test_a_cache_that_cannot_be_used_costs_a_warning(
    tmp_path: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model = {"id": "m", "provider": "openai_compatible", "base_url": chat_server.base_url, "model": "x"}
    path = recorded_suite(tmp_path, yes_no([True] * N), [], models=[model])
    assert evalrun(path, "-q", "--no-report").returncode == 0
    cache = Path(".evalrun/cache/responses.db")
    for more in cache.parent.glob("responses.db-*"):
        more.unlink()
    spoil(cache, how)
    done = evalrun(path, "-q", "--no-report", "--fresh", "--json")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["counts"]["samples"] == N and run["counts"]["failed"] == 0
    assert "response cache" in done.stderr and "Traceback" not in done.stderr


READING = [
    ("list",),
    ("find",),
    ("find", "metric.exact_match > 0.8"),
    ("sql", "select model, count(*) from runs join metrics using (sweep, run) group by 1"),
    ("trend",),
    ("show", "recorded"),
    ("reindex",),
    ("audit", "verify"),
]


@pytest.mark.parametrize("how", ["folder", "garbage", "cut", "middle", "empty", "missing"])
@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_a_damaged_catalog_is_set_aside_and_made_anew(swept: Path, how: str, words: tuple[str, ...]) -> None:
    before = evalrun(*words).stdout
    for more in Path(".evalrun").glob("catalog.db-*"):
        more.unlink()
    spoil(Path(".evalrun/catalog.db"), how)
    done = evalrun(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout == before and "Traceback" not in done.stderr
    if how in ("folder", "garbage") and words[0] != "show":  # which finds this one without a catalog
        assert list(Path(".evalrun").glob("catalog.db.broken-*"))


def test_texts_of_the_catalog_that_are_none_any_more_are_found(swept: Path) -> None:
    evalrun("list")
    for more in Path(".evalrun").glob("catalog.db-*"):
        more.unlink()
    catalog = Path(".evalrun/catalog.db")
    data = catalog.read_bytes()
    assert data.count(b"exact_match") > 1
    catalog.write_bytes(
        data.replace(b"exact_match", b"exact\xff\xfe\xffatc").replace(b"recorded", b"re\xff\xffrded")
    )
    for words in READING[:5]:
        done = evalrun(*words)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("how", ["folder", "garbage", "cut", "empty", "missing", "middle"])
def test_samples_that_cannot_be_read_are_named_and_the_rest_is_shown(swept: Path, how: str) -> None:
    spoil(swept / "runs/m-p-d/samples.parquet", how)
    shown = evalrun("show", "latest")
    assert shown.returncode == 0, shown.stderr
    wrong = "are not those of its figures: it is damaged from row" if how == "middle" else "cannot be shown"
    said = " ".join(shown.stdout.split())
    assert "exact_match" in said and f"The samples of m-p-d {wrong}" in said
    report = evalrun("report", "latest", "--out", "report.html")
    page = Path("report.html").read_text()
    assert report.returncode == 0, report.stderr
    assert f"The samples of m-p-d {wrong}" in page and "n-p-d" in page
    assert evalrun("site", "out").returncode == 0
    asked = evalrun("samples", "m-p-d")
    assert asked.returncode == 2 and "samples.parquet" in asked.stderr and "Traceback" not in asked.stderr
    assert evalrun("samples", "n-p-d").returncode == 0
    compared = evalrun("compare", "m-p-d", "n-p-d")
    assert compared.returncode in (0, 2) and "Traceback" not in compared.stderr, compared.stderr
    if how != "middle":
        counted = evalrun("sql", "select count(*) from samples")
        assert counted.returncode == 0 and str(N) in counted.stdout, counted.stderr


@pytest.mark.parametrize("how", ["a few bytes", "another table"])
def test_samples_that_are_others_than_were_written_end_in_a_message(swept: Path, how: str) -> None:
    path = swept / "runs/m-p-d/samples.parquet"
    Path("scorers.yaml").write_text("scorers: [includes]")
    if how == "a few bytes":
        data = bytearray(path.read_bytes())
        for at in (200, 300):
            data[at] ^= 0x55
        path.write_bytes(data)
    else:
        pq.write_table(pa.table({"a": [1, 2]}), path)
    assert "are not those of its figures" in " ".join(evalrun("show", "latest").stdout.split())
    for words in (
        ("samples", "m-p-d"),
        ("compare", "latest", "latest"),
        ("sql", "select count(output) from samples"),
        ("report", "latest", "--out", "report.html"),
        ("rescore", "latest", "--scorers", "scorers.yaml"),
        ("verify", "latest"),
    ):
        done = evalrun(*words)
        assert done.returncode in (0, 1, 2, 3) and "Traceback" not in done.stderr, (words, done.stderr)
        named = "samples.parquet" if words[0] != "sql" else "error: "
        assert done.returncode == 0 or named in done.stderr, (words, done.stderr)


@pytest.mark.parametrize(
    "how", ["manifest is a folder", "runs is a file", "trail is a folder", "run is garbage"]
)
def test_one_folder_that_cannot_be_read_is_named_and_the_others_are_entered(suite: Path, how: str) -> None:
    for _ in range(2):
        assert evalrun(suite, "-q", "--no-report", "--fresh").returncode == 0
    bad, good = sorted(Path(".evalrun/sweeps").iterdir())
    if how == "runs is a file":
        shutil.rmtree(bad / "runs")
        (bad / "runs").write_text("")
    else:
        name = {"m": "sweep.json", "t": "events.jsonl", "r": "runs/m-p-d/run.json"}[how[0]]
        spoil(bad / name, "garbage" if how[0] == "r" else "folder")
    entered = evalrun("reindex")
    assert entered.returncode == 0 and bad.name in entered.stderr, entered.stderr
    verified = evalrun("audit", "verify")
    assert verified.returncode == 1 and "Traceback" not in verified.stderr
    assert bad.name in verified.stdout and good.name not in verified.stdout
    assert evalrun("audit").returncode == 0
    listed = evalrun("list", "--json")
    assert good.name[:26] in listed.stdout


@pytest.mark.parametrize("what", ["store", "sweep", "run"])
def test_a_store_that_is_removed_ends_the_sweep_soon(
    tmp_path: Path, chat_server: ChatServer, what: str
) -> None:
    chat_server.delay_s = 0.02
    model = {"id": "m", "provider": "openai_compatible", "base_url": chat_server.base_url, "model": "x"}
    prompts = [{"id": name, "text": name + " {{ id }}"} for name in "pq"]
    path = recorded_suite(
        tmp_path, yes_no([True] * 400), [], models=[model], prompts=prompts, performance={"concurrency": 4}
    )
    command = [sys.executable, "-m", "evalrun", str(path), "--store", str(tmp_path / "store"), "-q"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    end = time.monotonic() + 60
    while len(chat_server.bodies) < 20 and time.monotonic() < end:
        time.sleep(0.005)
    place = {"store": "store", "sweep": "store/sweeps/*", "run": "store/sweeps/*/runs/*"}[what]
    for folder in tmp_path.glob(place):
        shutil.rmtree(folder, ignore_errors=True)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    assert "Traceback" not in output + errors and "removed" in errors
    assert len(chat_server.bodies) < 400 + (400 if what == "run" else 0)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that other users may enter."""
    with shared_place() as place:
        yield place


def test_a_store_that_may_only_be_read_is_read(open_place: Path) -> None:
    shared_place = open_place
    path = recorded_suite(shared_place, yes_no([True, False] * 20), ["m"])
    store = shared_place / "store"
    for _ in range(2):
        assert evalrun(path, "-q", "--no-report", "--store", store, "--fresh").returncode == 0
    evalrun("list", "--store", store)
    for folder, _, files in os.walk(store):
        Path(folder).chmod(0o755)
        for name in files:
            (Path(folder) / name).chmod(0o644)
    asked = [*READING[:6], READING[7], ("samples", "m-p-d"), ("site", shared_place / "home-4711/site")]
    ours = {words: evalrun(*words, "--store", store).stdout for words in asked[:-1]}
    cache = shared_place / "home-4711/cache"  # with what is made once for all pages, by a process of its own
    evalrun("site", shared_place / "site", "--store", store, env={"EVALRUN_CACHE": str(cache)})
    for path in [cache.parent, *cache.parent.rglob("*")]:
        os.chown(path, 4711, 4711)
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    for words in asked:
        theirs = as_user(4711, *words, "--store", store, cwd=shared_place)
        assert theirs.returncode == 0, (words, theirs.stderr)
        assert words[0] == "site" or theirs.stdout == ours[words]
    assert before == {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    refused = as_user(4711, "tag", "latest", "a=b", "--store", store, cwd=shared_place)
    assert refused.returncode == 3 and "cannot write here" in refused.stderr
    # One folder of it may not be read at all: it is named, and the others are there.
    hidden = sorted((store / "sweeps").iterdir())[0]
    hidden.chmod(0o700)
    (store / "catalog.db").chmod(0o600)
    listed = as_user(4711, "list", "--json", "--store", store, cwd=shared_place)
    assert listed.returncode == 0, listed.stderr
    assert [each["folder"] for each in json.loads(listed.stdout)] == [
        str(sorted((store / "sweeps").iterdir())[1])
    ]
    verified = as_user(4711, "audit", "verify", "--store", store, cwd=shared_place)
    assert verified.returncode == 1 and hidden.name in verified.stdout and "Traceback" not in verified.stderr


def test_the_tables_of_a_result_are_those_of_a_whole_store(swept: Path) -> None:
    """What the tests above compare with is what it should be."""
    (run,) = [run for run in document_of("find")["runs"] if run["model"] == "n"]
    assert run["samples"] == N


@pytest.mark.parametrize("left", [0, 8192, 40_960])
def test_a_disk_that_is_full_when_the_cache_is_opened_is_said(
    tmp_path: Path, chat_server: ChatServer, left: int
) -> None:
    model = {"id": "m", "provider": "openai_compatible", "base_url": chat_server.base_url, "model": "x"}
    suite = recorded_suite(tmp_path, yes_no([True] * 4), [], models=[model])
    place = tmp_path / "store" / "cache"
    place.mkdir(parents=True)
    script = (
        f"mount -t tmpfs -o size=64k tmpfs {place} || exit 77\n"
        f"head -c {65536 - left} /dev/zero > {place}/fill\n"
        f"exec {sys.executable} -m evalrun {suite} -q --no-report --store {tmp_path}/store"
    )
    try:
        command = ["unshare", "-rm", "sh", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if done.returncode in (1, 77) and "evalrun" not in done.stderr and "disk" not in done.stderr:
        pytest.skip(f"no file system of one's own can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 3 and "the disk is full" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and chat_server.bodies == []


def test_a_full_disk_keeps_nothing_from_being_looked_at(tmp_path: Path) -> None:
    suite, store = recorded_suite(tmp_path, yes_no([True] * 4), ["m"]), tmp_path / "store"
    store.mkdir()
    run = f"{sys.executable} -m evalrun"
    script = (
        f"mount -t tmpfs -o size=4m tmpfs {store} || exit 77\n"
        f"{run} {suite} -q --no-report --store {store} || exit 78\n"
        f"cat /dev/zero > {store}/fill 2>/dev/null\n"
        f"exec {run} list --store {store}"
    )
    try:
        command = ["unshare", "-rm", "sh", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if done.returncode in (1, 77) and "evalrun" not in done.stderr and "disk" not in done.stderr:
        pytest.skip(f"no file system of one's own can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "complete" in done.stdout
