"""Signatures of sweeps by an SSH key, verified by evalrun and by ssh-keygen alone, and what breaks them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.program import evalrun
from tests.recorded import document_of

from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store


def sign(store: Store, keys: Path, *words: str, key: str = "ana") -> subprocess.CompletedProcess[str]:
    return evalrun("sign", "latest", "--key", keys / key, *words, "--store", store.root)


def status(store: Store, keys: Path, signers: str, *words: str | Path, code: int = 1) -> str:
    document = document_of(
        "audit", "verify", "latest", "--signers", keys / signers, *words, "--store", store.root, code=code
    )
    (signature,) = document["signatures"]
    return str(signature["status"])


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_signature_holds_here_and_by_ssh_keygen_alone(store: Store, sweep: SweepFolder, keys: Path) -> None:
    done = sign(store, keys, "--as", "Ana Souza, ML lead", "--role", "approved", "--json")
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)
    document = document_of("audit", "verify", "latest", "--signers", keys / "signers", "--store", store.root)
    (signature,) = document["signatures"]
    assert document["intact"] and signature["status"] == "valid"
    assert signature["signer"] == "Ana Souza" and signature["claimed"] == "Ana Souza, ML lead"
    assert signature["role"] == "approved"
    options = ["-Y", "verify", "-f", keys / "signers", "-I", "ana@example.org", "-s", written["signature"]]
    signed = Path(written["signed"]).read_bytes()

    def alone(namespace: str, data: bytes) -> int:
        words = ["ssh-keygen", *map(str, options), "-n", namespace]
        return subprocess.run(words, input=data, capture_output=True, check=False).returncode

    assert alone("evalrun", signed) == 0
    assert alone("git", signed) == 255 and alone("evalrun", signed + b" ") == 255
    (run,) = json.loads(signed)["runs"]
    assert run == sweep.run_ids()[0]


@pytest.mark.parametrize(
    ("signers", "status_"),
    [("bob_only", "unknown signer"), ("expired", "expired"), ("git_only", "unknown signer")],
)
def test_signers_are_told_apart(store: Store, keys: Path, signers: str, status_: str) -> None:
    assert sign(store, keys).returncode == 0
    assert status(store, keys, signers) == status_


def test_a_revoked_key_is_named(store: Store, keys: Path) -> None:
    sign(store, keys)
    assert status(store, keys, "signers", "--revoked", keys / "ana.pub") == "revoked"
    assert status(store, keys, "signers", "--revoked", keys / "bob.pub", code=0) == "valid"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("sweep.json", '"recorded"', '"recordet"'),
        ("runs/m-p-d/run.json", "exact_match", "exact_watch"),
        ("signatures/1.json", "approved", "rejected"),
        ("signatures/1.json.sig", "U1NIU0lH", "U1NIU0lI"),
        ("events.jsonl", '"finish_run"', '"finish_rum"'),
    ],
)
def test_what_was_altered_after_it_was_signed(
    store: Store, sweep: SweepFolder, keys: Path, file: str, old: str, new: str
) -> None:
    sign(store, keys, "--role", "approved")
    edit(sweep.path / file, old, new)
    assert status(store, keys, "signers") == "altered"


def test_a_trail_made_anew_does_not_pass(store: Store, sweep: SweepFolder, keys: Path) -> None:
    """Someone who writes every file makes a trail that fits together; the signature does not fit it."""
    sign(store, keys)
    events = [json.loads(line) for line in (sweep.path / "events.jsonl").read_text().splitlines()]
    (sweep.path / "events.jsonl").unlink()
    for event in events:
        sweep.append_event(event["action"], event["detail"], target=event["target"], actor="mallory")
    assert status(store, keys, "signers") == "altered"


def test_a_signature_of_another_sweep_does_not_count(store: Store, sweep: SweepFolder, keys: Path) -> None:
    sign(store, keys)
    file = sweep.path / "signatures" / "1.json"
    other = json.loads(file.read_text()) | {"sweep": "0" * 26}
    file.write_text(json.dumps(other))
    file.with_name("1.json.sig").unlink()
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-f", keys / "ana", "-n", "evalrun", file], check=True)
    assert status(store, keys, "signers") == "altered"


def test_what_people_add_later_changes_no_signature_and_a_later_score_is_told(
    store: Store, sweep: SweepFolder, keys: Path
) -> None:
    sign(store, keys)
    evalrun("annotate", "latest", "looked at", "--store", store.root)
    assert status(store, keys, "signers", code=0) == "valid"
    (run,) = sweep.runs()
    sweep.finish_run(run["run"], {**run, "digests": {}, "notes": ["scored again"]})
    store.index(sweep)
    assert status(store, keys, "signers", code=0) == "superseded"


def test_unsigned_sweeps_and_missing_files(store: Store, sweep: SweepFolder, keys: Path) -> None:
    assert status(store, keys, "signers") == "not signed"
    words = ("audit", "verify", "--signers", keys / "signers", "--store", store.root)
    assert evalrun(*words).returncode == 0  # of a whole store it is only said
    sign(store, keys)
    (sweep.path / "signatures" / "1.json.sig").unlink()
    assert status(store, keys, "signers") == "missing"


def test_a_sweep_that_was_altered_is_not_signed(store: Store, sweep: SweepFolder, keys: Path) -> None:
    (sweep.path / "runs" / "m-p-d" / "samples.parquet").write_bytes(b"other")
    done = sign(store, keys)
    assert done.returncode == 1 and "not signed: samples.parquet: was altered" in done.stderr
    assert not (sweep.path / "signatures").exists()


def test_bad_input_is_one_message(
    store: Store, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no_key").write_text("hello")
    for words, said in (
        ((keys / "none",), "none: cannot be read: No such file"),
        ((tmp_path / "no_key",), "no_key: cannot sign: "),
        ((keys / "ana", "--as", "two\nlines"), "--as: is a text of at most 200 characters"),
    ):
        done = evalrun("sign", "latest", "--key", *words, "--store", store.root)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert done.stderr.count("error:") == 1
    monkeypatch.setenv("PATH", str(tmp_path))
    done = sign(store, keys)
    assert done.returncode == 2 and "OpenSSH's `ssh-keygen`, which is not here" in done.stderr


def test_a_sweep_that_is_not_finished_is_not_signed(store: Store, sweep: SweepFolder, keys: Path) -> None:
    sweep.update_manifest(status="running")
    done = sign(store, keys)
    assert done.returncode == 2 and "is not finished" in done.stderr
