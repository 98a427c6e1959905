"""One subject of three erased from a hundred rows: texts gone from every file, a trail that still verifies
and names what was erased, guesses that nothing confirms, and a process killed between any two steps."""

import hashlib
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tests.program import evalrun

from evalrun.canonical import canonical_json
from evalrun.privacy.subjects import due
from evalrun.sinks import otlp
from evalrun.sinks.outbox import Receipt, append_receipt
from evalrun.tracking.leaves import SALT_BYTES, leaf, row_bytes, salts_path
from evalrun.tracking.store import Store

SUBJECT, ROWS = "K-17-subject", 100
MODEL = "def answer(question):\n    return 'I have read: ' + question.row['letter']\n"


def rows() -> list[dict[str, Any]]:
    return [
        {
            "customer": SUBJECT if at % 3 == 0 else f"K-{at}",
            "letter": f"letter number {at} of {'somebody' if at % 3 == 0 else 'others'} é<&>{at};",
            "label": "billing" if at % 2 else "bug",
        }
        for at in range(ROWS)
    ]


PLANTED = [row["letter"] for row in rows() if row["customer"] == SUBJECT]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one sweep, its cache, report and labels."""
    folder = tmp_path_factory.mktemp("erasure")
    (folder / "erasure_model.py").write_text(MODEL)
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    suite = {
        "name": "letters",
        "models": [{"id": "m", "provider": "python", "function": "erasure_model:answer"}],
        "prompts": [{"id": "p", "text": "{{ letter }}", "few_shot": {"count": 1, "path": "data.jsonl"}}],
        "datasets": [
            {"id": "d", "path": "data.jsonl", "target": "label"},
            {"id": "inline", "rows": [*rows()[:4], {**rows()[1], "customer": SUBJECT}], "target": "label"},
        ],
        "scorers": ["exact_match"],
        "retention": {"samples": "30d", "minimum": "40d", "sweeps": "10y"},
    }
    (folder / "s.yaml").write_text(yaml.safe_dump(suite))
    said = evalrun("s.yaml", "--store", "store", "--report", "reports/r.html", cwd=folder)
    assert said.returncode == 0, said.stderr
    (samples,) = folder.glob("store/sweeps/*/runs/*-d/samples.parquet")
    ids = pq.read_table(samples).column("sample_id").to_pylist()
    labels = "".join(json.dumps({"sample_id": ids[at], "label": "good"}) + "\n" for at in range(6))
    (folder / "labels.jsonl").write_text(labels)
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "w")
    return tmp_path / "w"


def erase(world: Path, *words: str) -> dict[str, Any]:
    said = evalrun("erase", *words, "--reason", "asked for", "--yes", "--json", "--store", "store", cwd=world)
    assert said.returncode == 0, said.stderr
    document: dict[str, Any] = json.loads(said.stdout)
    return document


def verify(world: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        evalrun("audit", "verify", "--json", "--store", "store", cwd=world).stdout
    )
    return document


def everything(world: Path) -> bytes:
    """All bytes of the store and the report, tables read too."""
    found = b""
    for path in [*(world / "store").rglob("*"), *(world / "reports").rglob("*")]:
        if path.is_file():
            found += path.read_bytes()
            if path.suffix == ".parquet":
                found += json.dumps(pq.read_table(path).to_pylist(), default=str, ensure_ascii=False).encode()
    return found


def planted_in(data: bytes) -> list[str]:
    import html

    forms = {
        text: {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], html.escape(text)}
        for text in PLANTED
    }
    return [
        text for text, of in forms.items()
        if any(form.encode(code) in data for form in of for code in ("utf-8", "utf-16-le"))
    ]  # fmt: skip


def test_a_subject_goes_and_the_trail_verifies(world: Path) -> None:
    before = everything(world)
    assert len(planted_in(before)) == len(PLANTED)
    said = evalrun("erase", "--subject", SUBJECT, "--reason", "asked", "--store", "store", cwd=world)
    assert "37 rows would be erased" in said.stdout
    assert everything(world) == before  # a dry run

    certificate = erase(world, "--subject", SUBJECT)
    assert certificate["rows"] == 37
    assert certificate["cache_entries"] >= 34
    assert [Path(page).name for page in certificate["pages"]] == ["r.html"]
    assert any("backups" in left["what"] for left in certificate["unreached"])
    after = everything(world)
    assert planted_in(after) == []
    assert SUBJECT.encode() not in after
    result = verify(world)
    assert result["intact"], result["broken"]
    assert "37 rows erased, texts of theirs taken out of" in result["erased"][0]["what"]  # as examples
    assert "asked for" in result["erased"][0]["what"]
    left = pq.read_table(next(world.glob("store/sweeps/*/runs/*-d/samples.parquet")))
    assert left.num_rows == ROWS - 34
    shown = evalrun("show", "latest", "--store", "store", cwd=world)
    assert shown.returncode == 0
    assert "34 samples were erased since: the figures are of all" in " ".join(shown.stdout.split())
    run = json.loads(next(world.glob("store/sweeps/*/runs/*-d/run.json")).read_text())
    assert "34 samples were erased since" in run["warnings"][-1]
    assert not list((world / "store" / "erasures").rglob("plan.json"))
    again = evalrun(
        "erase", "--subject", SUBJECT, "--reason", "again", "--yes", "--store", "store", cwd=world
    )
    assert "0 rows would be erased." in again.stdout


def test_no_digest_that_is_left_confirms_a_guess(world: Path) -> None:
    """Who knows a row to the letter finds nothing of it: not its id, not a leaf, not a digest of the row."""
    table = next(world.glob("store/sweeps/*/runs/*-d/samples.parquet"))
    samples = pq.read_table(table).to_pylist()
    erased = [at for at, row in enumerate(samples) if row["vars.customer"] == SUBJECT]
    known = list(row_bytes(table))
    salts = salts_path(table).read_bytes()
    guesses = set()
    for at in erased:
        salt = salts[at * SALT_BYTES : (at + 1) * SALT_BYTES]
        guesses |= {
            samples[at]["sample_id"],
            hashlib.sha256(known[at]).hexdigest(),
            leaf(b"", known[at]).hex(),
        }
        guesses |= {leaf(bytes(SALT_BYTES), known[at]).hex(), salt.hex()}
        row = next(each for each in rows() if each["letter"] == samples[at]["vars.letter"])
        guesses.add(hashlib.sha256(canonical_json(row)).hexdigest()[:16])
    erase(world, "--subject", SUBJECT)
    data = everything(world)
    left = data + data.hex().encode()
    assert not [guess for guess in guesses if guess.encode() in left]


def changed_by_hand(table: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(table)), table)


def better(rows: pa.Table) -> pa.Table:
    """The same rows with other answers."""
    return rows.set_column(rows.column_names.index("output"), "output", pa.array(["better"] * len(rows)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.slice(1), "was altered"),
        (better, "is not what it was"),
    ],
)
def test_a_change_by_hand_after_an_erasure_is_named(
    world: Path, change: Callable[[pa.Table], pa.Table], said: str
) -> None:
    erase(world, "--subject", SUBJECT)
    table = next(world.glob("store/sweeps/*/runs/*-d/samples.parquet"))
    changed_by_hand(table, change)
    result = verify(world)
    assert not result["intact"]
    assert any(
        said in each["what"] and each["where"] == str(table.relative_to(world)) for each in result["broken"]
    )


def test_numbers_may_stay_and_rows_go_later(world: Path) -> None:
    erase(world, "--subject", SUBJECT, "--keep-numbers")
    table = next(world.glob("store/sweeps/*/runs/*-d/samples.parquet"))
    kept = [row for row in pq.read_table(table).to_pylist() if row["sample_id"].startswith("erased-")]
    assert len(kept) == 34
    assert all(
        row["score.exact_match"] is not None and row["output"] is row["vars.letter"] is None for row in kept
    )
    assert verify(world)["intact"]
    assert planted_in(everything(world)) == []
    (world / "ids.txt").write_text("\n".join(row["sample_id"] for row in kept[:5]))
    assert erase(world, "--samples", "ids.txt")["rows"] >= 5
    assert verify(world)["intact"]
    erase(world, "--where", "sample_id == 'erased-31'")
    assert verify(world)["intact"]


STEPS = [
    "evalrun.privacy.stage:_told_run",  # before anything is told: half of the new files are there
    "evalrun.tracking.folder:SweepFolder.append_event",
    "evalrun.privacy.erase:sync",  # one file has taken the place of the old one
    "evalrun.privacy.elsewhere:clean_cache",
    "evalrun.privacy.elsewhere:clean_pages",
    "evalrun.privacy.erase:overwrite",
]


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_it_goes_on(world: Path, step: str) -> None:
    """The process dies before each step; `--resume` ends in the same state."""
    if "pages" not in step:
        shutil.rmtree(world / "reports")
        (world / "reports").mkdir()
    child = os.fork()
    if child == 0:  # the child dies as by kill -9: nothing is closed, flushed or told
        import importlib

        module, _, name = step.partition(":")
        owner = importlib.import_module(module)
        *path, last = name.split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, last, lambda *_, **__: os._exit(9))
        try:
            evalrun("erase", "--subject", SUBJECT, "--reason", "x", "--yes", "--store", "store", cwd=world)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    assert len(list((world / "store" / "erasures").rglob("plan.json"))) == 1
    other = evalrun("erase", "--subject", "K-1", "--reason", "x", "--store", "store", cwd=world)
    assert other.returncode == 2
    assert "--resume" in other.stderr
    assert evalrun("erase", "--resume", "--store", "store", cwd=world).returncode == 0
    result = verify(world)
    assert result["intact"], result["broken"]
    assert planted_in(everything(world)) == []
    events = next(world.glob("store/sweeps/*/events.jsonl")).read_text().splitlines()
    assert sum(json.loads(line)["action"] == "erase" for line in events) == 1
    assert not list(world.rglob(".erase-*"))


def test_a_hold_is_in_the_way_and_nothing_is_half_erased(world: Path) -> None:
    evalrun("privacy", "hold", "latest", "--reason", "case 4711", "--store", "store", cwd=world)
    before = everything(world)
    said = evalrun("erase", "--subject", SUBJECT, "--reason", "x", "--yes", "--store", "store", cwd=world)
    assert (said.returncode, "case 4711" in said.stderr) == (1, True)
    assert evalrun("delete", "latest", "--yes", "--store", "store", cwd=world).returncode == 1
    assert everything(world) == before
    evalrun("privacy", "release", "latest", "--store", "store", cwd=world)
    assert erase(world, "--subject", SUBJECT)["rows"] == 37


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--where", "vars.nothing == 1", "--reason", "x"], "samples have no 'vars.nothing'"),
        (["--where", "vars.letter ==", "--reason", "x"], ""),
        (["--subject", "a"], "--reason"),
        (["--reason", "x"], "exactly one"),
        (["--subject", "Ana", "--reason", "Ana asked"], "names the subject"),
        (["--samples", "nowhere.txt", "--reason", "x"], "cannot be read"),
        (["--subject", "a", "--reason", "x", "--pages", "nowhere"], "no such file"),
        (["nosweep", "--subject", "a", "--reason", "x"], "no sweep"),
    ],
)
def test_bad_input_changes_nothing(world: Path, words: list[str], said: str) -> None:
    outcome = evalrun("erase", *words, "--yes", "--store", "store", cwd=world)
    assert outcome.returncode == 2
    assert said in outcome.stderr
    assert len(planted_in(everything(world))) == len(PLANTED)


def test_freed_pages_of_the_cache_hold_nothing(world: Path) -> None:
    cache = world / "store" / "cache" / "responses.db"
    with sqlite3.connect(cache) as connection:
        (before,) = connection.execute("SELECT count(*) FROM response").fetchone()
    gone = erase(world, "--subject", SUBJECT)["cache_entries"]
    with sqlite3.connect(cache) as connection:
        assert connection.execute("SELECT count(*) FROM response").fetchone() == (before - gone,)
    raw = b"".join(path.read_bytes() for path in cache.parent.iterdir())
    assert planted_in(raw) == []


def test_what_is_kept_of_somebody(world: Path) -> None:
    said = evalrun("privacy", "export", "--subject", SUBJECT, "--store", "store", cwd=world)
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    assert len(lines) == 37
    assert {line["row"]["vars.customer"] for line in lines} == {SUBJECT}


def test_retention(world: Path) -> None:
    folders = Store(world / "store").folders()
    now = datetime.now(UTC)
    assert [each.action for each in due(folders, now)] == ["nothing"]
    assert "at least" in due(folders, now + timedelta(days=35))[0].why
    assert [each.action for each in due(folders, now + timedelta(days=41))] == ["texts"]
    assert [each.action for each in due(folders, now + timedelta(days=3651))] == ["delete"]
    assert "0 of 1 sweeps" in evalrun("retain", "--store", "store", cwd=world).stdout


def in_days(days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of retention goes ahead."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(days=days)

    monkeypatch.setattr("evalrun.privacy.subjects.datetime", Later)


def retain(world: Path, *words: str) -> dict[str, Any]:
    said = evalrun("retain", *words, "--json", "--store", "store", cwd=world)
    assert said.returncode == 0, said.stderr
    document: dict[str, Any] = json.loads(said.stdout)
    return document


def test_retain_takes_texts_then_the_sweep_and_leaves_what_is_held(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = next(world.glob("store/sweeps/*/runs/*-d/samples.parquet"))
    scores = pq.read_table(table).column("score.exact_match").to_pylist()
    assert retain(world, "--yes")["certificate"] is None  # too young
    in_days(41, monkeypatch)
    assert retain(world)["dry_run"] and len(planted_in(everything(world))) == len(PLANTED)
    evalrun("privacy", "hold", "latest", "--reason", "case 4711", "--store", "store", cwd=world)
    assert retain(world, "--yes")["due"][0]["why"] == "on hold: case 4711"
    assert len(planted_in(everything(world))) == len(PLANTED)
    evalrun("privacy", "release", "latest", "--store", "store", cwd=world)
    certificate = retain(world, "--yes")["certificate"]
    assert (certificate["rule"], certificate["rows"], certificate["numbers_kept"]) == ("retention", 105, True)
    assert planted_in(everything(world)) == []
    left = pq.read_table(table)
    assert left.column("score.exact_match").to_pylist() == scores
    assert set(left.column("output").to_pylist()) == {None}
    assert verify(world)["intact"]
    assert [each["action"] for each in retain(world, "--yes")["due"]] == ["nothing"]
    in_days(3651, monkeypatch)
    assert [each["action"] for each in retain(world, "--yes")["due"]] == ["delete"]
    assert not list(world.glob("store/sweeps/*"))
    assert evalrun("audit", "verify", "--store", "store", cwd=world).returncode == 0


class Elsewhere(BaseHTTPRequestHandler):
    """What takes results, and of MLflow's API only what finds a run and deletes traces."""

    asked: ClassVar[list[tuple[str, bytes]]] = []

    def do_GET(self) -> None:
        self._answer({"run": {"info": {"experiment_id": "7"}}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.path, body))
        self._answer({"traces_deleted": len(json.loads(body).get("request_ids", []))})

    def _answer(self, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def elsewhere() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Elsewhere.asked.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_what_was_sent_elsewhere_is_asked_back_or_named(world: Path, elsewhere: str) -> None:
    to = f"openlineage={elsewhere}"
    assert evalrun("sync", "latest", "--to", to, "--store", "store", cwd=world).returncode == 0
    (folder,) = Store(world / "store").folders()
    run_id = next(each for each in folder.run_ids() if each.endswith("-d"))
    sent = Receipt(f"run/{run_id}", "x", elsewhere, "sent", remote="run-of-theirs")
    append_receipt(folder.path / "outbox" / "mlflow.jsonl", sent)
    run = otlp.Run(folder, folder.read_manifest(), run_id, None)
    rows = pq.read_table(folder.samples_path(run_id)).to_pylist()
    traces = {f"tr-{run.own_trace(row)}" for row in rows if row["vars.customer"] == SUBJECT}
    certificate = erase(world, "--subject", SUBJECT)
    deleted = [body for path, body in Elsewhere.asked if path == "/api/3.0/mlflow/traces/delete-traces"]
    assert traces <= {each for body in deleted for each in json.loads(body)["request_ids"]}
    by_sink = {each["sink"]: each for each in certificate["sinks"]}
    assert by_sink["mlflow"]["deleted"] >= 34 and by_sink["openlineage"]["deleted"] is None
    (named,) = [left for left in certificate["unreached"] if f"openlineage ({elsewhere})" in left["what"]]
    assert "Ask whoever keeps it" in named["do"]
    assert "rows were erased since" in (folder.path / "outbox" / "openlineage.jsonl").read_text()
    result = verify(world)
    assert result["intact"], result["broken"]


def test_rows_of_a_run_that_is_not_finished_go_too(world: Path) -> None:
    (world / "erasure_stops.py").write_text(
        "def answer(question):\n    text = question.row['letter']\n"
        "    if 'number 60' in text:\n        raise ValueError('no')\n    return text\n"
    )
    suite = yaml.safe_load((world / "s.yaml").read_text())
    suite |= {"name": "stopped", "errors": {"tolerate": 0}, "datasets": suite["datasets"][:1]}
    suite["models"][0] |= {"function": "erasure_stops:answer", "concurrency": 1}
    (world / "stopped.yaml").write_text(yaml.safe_dump(suite))
    assert evalrun("stopped.yaml", "--store", "store", "--no-report", cwd=world).returncode == 3
    (journal,) = world.glob("store/sweeps/*/runs/*/journal.jsonl")
    lines = len(journal.read_bytes().splitlines())
    certificate = erase(world, "--subject", SUBJECT)
    assert certificate["rows"] == 37 + 21
    assert planted_in(everything(world)) == []
    assert len(journal.read_bytes().splitlines()) == lines - 21
    assert verify(world)["intact"]
