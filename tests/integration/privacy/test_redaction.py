"""Forty items planted wherever a sweep keeps texts: no byte of the store and the report holds one, and the
scores are those of the texts as they were."""

import json
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
import yaml
from tests.program import evalrun

EMAILS = [f"person{number}@mail{number}.example.org" for number in range(10)]
CARDS = [
    "4111 1111 1111 1111",
    "5555-5555-5555-4444",
    "378282246310005",
    "6011111111111117",
    "3530111333300000",
]
IBANS = ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "FR14 2004 1010 0505 0001 3M02 606",
         "NL91ABNA0417164300", "CH93 0076 2011 6238 5295 7"]  # fmt: skip
PHONES = ["+49 30 9012345", "(415) 555-2671", "0171 9876543", "+1-202-555-0143", "020 7946 0958"]
IDS = ["536-90-4399", "2001:db8::7334", "203.0.113.77"]
SECRETS = ["sk-abcdefghijklmnopqrstuvwx99", "ghp_abcdefghijklmnopqrstuvwxyz012345"]
NAMES = ["Annegret Kowalczyk", "Thandiwe Okonkwo", "Siobhán Ó Briain", "Lars-Erik Holmström", "Wei Zhangsun"]
OTHERS = ["CUST-991234", "CUST-991235", "CUST-991236", "private remark 77", "member of the choir"]
PLANTED = [*EMAILS, *CARDS, *IBANS, *PHONES, *IDS, *SECRETS, *NAMES, *OTHERS]

MODEL = """
import os

def answer(question):
    row = question.row
    if "fails" in row["text"]:
        raise ValueError("cannot read " + row["text"])
    return {
        "output": "I write to " + row["mail"] + ", dear " + row["name"] + ". Label: refund",
        "reasoning": row["name"].upper() + " pays by " + row["card"],
        "tool_calls": [{"function": {"name": "send", "arguments": '{"to": "' + row["mail"] + '"}'}}],
    }

def judge(question):
    if os.environ.get("PLANTED_KILL") and EXTRA in question.text:
        os._exit(9)
    grade = "correct" if "@mail" in question.text else "incorrect"
    return '{"reason": "' + EXTRA + ' was helped", "grade": "' + grade + '"}'

EXTRA = "person9@mail9.example.org"
"""


def rows() -> list[dict[str, str]]:
    texts = [*IBANS, *PHONES]
    return [
        {
            "customer": OTHERS[number % 3],
            "name": NAMES[number % 5],
            "mail": EMAILS[number],
            "card": CARDS[number % 5],
            "remark": OTHERS[3 + number % 2],
            "text": f"{'fails' if number == 7 else 'please'} {texts[number]} {IDS[number % 3]} "
            f"{SECRETS[number % 2]}",
            "label": "refund" if number % 2 else "other",
        }
        for number in range(10)
    ]


def suite(privacy: dict[str, object] | None) -> str:
    sections = {
        "name": "planted",
        "description": f"Asked for by {EMAILS[0]}",
        "models": [{"id": "m", "provider": "python", "function": "planted_model:answer"}],
        "judges": [{"id": "j", "provider": "python", "function": "planted_model:judge"}],
        "prompts": [{"id": "p", "text": "{{ text }} by {{ name }}, {{ card }}: {{ remark }}"}],
        "datasets": [{"id": "d", "rows": rows(), "key": "mail", "target": "label"}],
        "parse": [{"regex": r"Label: (\w+)"}],
        "scorers": ["exact_match", {"includes": {}}, {"judge": {"model": "j"}}],
        "errors": {"tolerate": 1},
        "privacy": privacy,
    }
    return yaml.safe_dump({name: value for name, value in sections.items() if value is not None})


def forms(item: str) -> list[bytes]:
    """An item in the forms in which a file may hold it."""
    escaped = json.dumps(item)[1:-1]
    texts = {item, escaped, quote(item), item.lower(), item.upper()}
    return [text.encode(code) for text in texts for code in ("utf-8", "utf-16-le")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delitem(sys.modules, "planted_model", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "planted_model.py").write_text(MODEL)
    (tmp_path / "data.txt").write_text("before\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    (tmp_path / "data.txt").write_text(f"{EMAILS[1]} {CARDS[0]}\n")  # in the diff that the sweep keeps
    return tmp_path


def test_nothing_that_was_planted_is_stored_and_scores_stay(folder: Path) -> None:
    privacy = {
        "redact": "standard",
        "known": ["name"],
        "subject": "customer",
        "columns": {"remark": "withhold", "card": "drop"},
    }
    (folder / "private.yaml").write_text(suite(privacy))
    (folder / "open.yaml").write_text(suite(None))
    words = ("--set", f"tags.who={EMAILS[2]}")
    said = evalrun(
        folder / "private.yaml", "--store", folder / "store", "--report", folder / "r.html", *words
    )
    assert said.returncode == 0, said.stderr
    evalrun(folder / "open.yaml", "--store", folder / "open", "--report", folder / "open.html")

    files = [path for path in [*(folder / "store").rglob("*"), folder / "r.html"] if path.is_file()]
    whole = {path: path.read_bytes() for path in files}
    for parquet in (folder / "store").rglob("*.parquet"):
        whole[parquet] += json.dumps(pq.read_table(parquet).to_pylist(), default=str).encode()
    leaks = {(path.name, item) for item in PLANTED for path, data in whole.items()
             if any(form in data for form in forms(item))}  # fmt: skip
    assert not leaks
    assert not [item for item in PLANTED if item in said.stdout + said.stderr]
    assert not (folder / "store" / "cache" / "responses.db").exists()
    assert not list((folder / "store").rglob("raw.bin"))

    def scores(store: Path) -> list[object]:
        (file,) = store.rglob("samples.parquet")
        table = pq.read_table(file).sort_by("position")
        return [table.column(name).to_pylist() for name in table.column_names if name.startswith("score.")]

    assert scores(folder / "store") == scores(folder / "open")
    assert any(
        "<EMAIL_1>" in str(row)
        for row in pq.read_table(next((folder / "store").rglob("judge.parquet"))).to_pylist()
    )


def grades(store: Path) -> list[object]:
    (file,) = store.rglob("samples.parquet")
    return pq.read_table(file).sort_by("position").column("score.judge").to_pylist()


def test_judges_are_given_texts_as_they_were_or_what_is_stored(folder: Path) -> None:
    (folder / "raw.yaml").write_text(suite({"known": ["name"]}))
    (folder / "clean.yaml").write_text(suite({"known": ["name"], "judges": "redacted"}))
    (folder / "apart.yaml").write_text(suite({"known": ["name"], "judges": {"j": "redacted"}}))
    (folder / "wrong.yaml").write_text(suite({"known": ["name"], "judges": {"jj": "redacted"}}))
    said = evalrun(folder / "wrong.yaml", "--store", folder / "wrong")
    assert said.returncode == 2 and "there is no judge 'jj'" in said.stderr
    for name in ("raw", "clean", "apart"):
        said = evalrun(folder / f"{name}.yaml", "--store", folder / name, "--no-report")
        assert said.returncode == 0, said.stderr
    assert set(grades(folder / "raw")) == {1.0, None}
    assert set(grades(folder / "clean")) == set(grades(folder / "apart")) == {0.0, None}
    assert not list((folder / "raw").rglob("*raw*"))


def test_a_killed_sweep_keeps_nothing_readable_and_is_judged_by_the_same_texts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "s.yaml").write_text(suite({"known": ["name"], "subject": "customer"}))
    store = folder / "store"
    child = os.fork()
    if child == 0:
        os.environ["PLANTED_KILL"] = "1"
        try:
            evalrun(folder / "s.yaml", "--store", store, "--no-report")
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    (kept,) = store.glob("sweeps/*/runs/*/raw.bin")
    (key,) = store.glob("keys/*.raw")
    data = b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())
    assert kept.stat().st_size > 1000 and stat.S_IMODE(key.stat().st_mode) == 0o600
    planted = [*EMAILS, *NAMES, *CARDS, *OTHERS[:3]]
    assert not [item for item in planted if any(form in data for form in forms(item))]
    aside = key.read_bytes()
    key.unlink()
    lost = evalrun(folder / "s.yaml", "--store", store, "--no-report")
    assert lost.returncode == 3 and "lost its key" in lost.stderr, lost.stderr
    key.write_bytes(aside)
    said = evalrun(folder / "s.yaml", "--store", store, "--no-report")
    assert said.returncode == 0, said.stderr
    assert set(grades(store)) == {1.0, None}
    assert not kept.exists() and not key.exists()


def test_a_cache_under_the_stores_key_answers_and_cannot_be_read(folder: Path) -> None:
    (folder / "s.yaml").write_text(suite({"known": ["name"], "cache": "encrypted"}))
    store = folder / "store"
    first, again = (
        json.loads(evalrun(folder / "s.yaml", "--store", store, "--no-report", "--fresh", "--json").stdout)
        for _ in range(2)
    )
    counts = [document["runs"][0]["counts"] for document in (first, again)]
    assert [each["cached"] for each in counts] == [0, 9]
    assert grades_of(first) == grades_of(again)
    cache = b"".join(path.read_bytes() for path in (store / "cache").iterdir())
    assert not [item for item in PLANTED if any(form in cache for form in forms(item))]
    (store / "keys" / "privacy.key").write_bytes(os.urandom(32))
    said = evalrun(folder / "s.yaml", "--store", store, "--no-report", "--fresh", "--json")
    other = json.loads(said.stdout)
    assert other["runs"][0]["counts"]["cached"] == 0


def grades_of(document: dict[str, Any]) -> object:
    (metric,) = [m for m in document["runs"][0]["metrics"] if m["name"] == "judge" and not m["slice"]]
    return metric["value"], metric["n"]


def test_a_gate_on_what_is_found(folder: Path) -> None:
    gates = '\ngates: ["privacy.findings == 0"]\n'
    (folder / "clean.yaml").write_text(suite({"known": ["name"]}) + gates)
    (folder / "open.yaml").write_text(suite(None) + gates)
    clean = evalrun(folder / "clean.yaml", "--store", folder / "store", "--no-report", "--json")
    assert clean.returncode == 0, clean.stderr
    opened = evalrun(folder / "open.yaml", "--store", folder / "open", "--no-report", "--json")
    assert opened.returncode == 1
    (gate,) = json.loads(opened.stdout)["gates"]
    assert gate["value"] > 40
    later = evalrun("gate", "latest", "--gate", "privacy.findings <= 5", "--store", folder / "open")
    assert later.returncode == 1
    wrong = evalrun("gate", "latest", "--gate", "exact_match == 0", "--store", folder / "open")
    assert wrong.returncode == 2 and "compared by '=='" in wrong.stderr


def test_scan_finds_what_an_open_sweep_holds_and_prints_no_value(folder: Path) -> None:
    (folder / "open.yaml").write_text(suite(None))
    store = folder / "store"
    evalrun(folder / "open.yaml", "--store", store, "--report", folder / "r.html")
    said = evalrun("privacy", "scan", "latest", "--store", store, "--json")
    document = json.loads(said.stdout)
    kinds = {(Path(each["file"]).name, each["column"], each["entity"]) for each in document["findings"]}
    assert ("samples.parquet", "vars.mail", "email") in kinds
    assert ("samples.parquet", "vars.card", "credit_card") in kinds
    assert not any(item in said.stdout for item in PLANTED)
    assert evalrun("privacy", "scan", "all", "--store", store, "--fail").returncode == 1
    with sqlite3.connect(folder / "notes.db") as connection:
        connection.execute("CREATE TABLE note (words TEXT)")
        connection.execute("INSERT INTO note VALUES (?)", (IBANS[0],))
    (folder / "d.json").write_text(
        json.dumps({"by": {EMAILS[3]: 1}, "card": 4111111111111111, "t": 4539148803436467.5})
    )
    named = json.loads(evalrun("privacy", "scan", folder / "d.json", "--json").stdout)["findings"]
    assert [(each["column"], each["entity"]) for each in named] == [("by", "email"), ("card", "credit_card")]
    said = evalrun("privacy", "scan", folder / "notes.db")
    assert "note.words  iban: 1" in said.stdout
    assert evalrun("privacy", "scan", "nowhere", "--store", store).returncode == 2


def test_taken_up_again_and_not_by_another_privacy(folder: Path) -> None:
    """Ids that are pseudonyms are recognised when the sweep is taken up; verify and rescore refuse."""
    (folder / "s.yaml").write_text(suite({"redact": "standard"}))
    store = folder / "store"
    first = json.loads(evalrun(folder / "s.yaml", "--store", store, "--json").stdout)
    for words in (
        ("verify", first["sweep"]),
        ("rescore", first["sweep"], "--scorers", folder / "scorers.yaml"),
    ):
        (folder / "scorers.yaml").write_text("scorers: [exact_match]\n")
        said = evalrun(*words, "--store", store)
        assert said.returncode == 2
        assert "redacted" in said.stderr
    assert evalrun("audit", "verify", "--store", store).returncode == 0


@pytest.mark.parametrize(
    ("privacy", "said"),
    [
        ({"known": ["nmae"]}, "Did you mean 'name'"),
        ({"columns": {"nothing": "drop"}}, "no dataset has a column 'nothing'"),
        ({"columns": {"name": "hide"}}, "found the text 'hide'"),
        ({"entities": ["emial"]}, "Did you mean 'email'"),
        ({"recognisers": [{"name": "x", "python": "planted_model:judge"}]}, "the recogniser raised"),
    ],
)
def test_a_wrong_section_is_said_and_nothing_is_stored(
    folder: Path, privacy: dict[str, object], said: str
) -> None:
    (folder / "s.yaml").write_text(suite(privacy))
    outcome = evalrun(folder / "s.yaml", "--store", folder / "store")
    assert outcome.returncode == 2
    assert said in outcome.stderr
    assert not list((folder / "store").rglob("samples.parquet"))
