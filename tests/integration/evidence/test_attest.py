"""Attestations of gates: what they say, who signed, and that other tools read them."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from tests.program import evalrun
from tests.recorded import document_of

from evalrun.evidence import dsse
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store

pytest.importorskip("cryptography", reason="needs cryptography (extra: sign)")


@pytest.fixture
def attested(store: Store, keys: Path, tmp_path: Path) -> Path:
    out = tmp_path / "gates.intoto.json"
    done = evalrun("gate", "latest", "--attest", out, "--key", keys / "ana", "--store", store.root)
    assert done.returncode == 1, done.stderr  # one of the two gates fails, and that is attested
    return out


def verify(file: Path, signers: Path, store: Store, *words: str, code: int = 0) -> dict[str, object]:
    return document_of(
        "attest", "verify", file, "--signers", signers, *words, "--store", store.root, code=code
    )


def test_what_an_attestation_says(attested: Path, store: Store, sweep: SweepFolder) -> None:
    envelope = json.loads(attested.read_text())
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    predicate = statement["predicate"]
    assert predicate["result"] == "FAILED" and predicate["failedTests"] == ["m-p-d: exact_match >= 0.9"]
    assert predicate["passedTests"] == ["m-p-d: exact_match >= 0.5"] and predicate["warnedTests"] == []
    digests = {each["name"]: each["digest"]["sha256"] for each in statement["subject"]}
    manifest = hashlib.sha256((sweep.path / "sweep.json").read_bytes()).hexdigest()
    assert digests[f"{sweep.ulid}/sweep.json"] == manifest
    assert digests["prompt/p"] == sweep.manifest().prompts["p"]["digest"]
    assert {each["name"] for each in predicate["configuration"]} == {"suite/suite.yaml", "dataset/d"}


@pytest.mark.parametrize("signers", ["ana.pub", "signers"])
def test_it_verifies_by_lists_and_by_keys(attested: Path, keys: Path, store: Store, signers: str) -> None:
    said = verify(attested, keys / signers, store, "--sweep", "latest")
    assert said["status"] == "valid" and said["result"] == "FAILED"
    assert said["signer"] in ("ana@example.org", "Ana Souza")


def test_what_does_not_verify(attested: Path, keys: Path, store: Store, sweep: SweepFolder) -> None:
    assert verify(attested, keys / "bob.pub", store, code=1)["status"] == "unknown signer"
    assert verify(attested, keys / "expired", store, code=1)["status"] == "expired"
    envelope = json.loads(attested.read_text())
    changed = base64.b64decode(envelope["payload"]).replace(b"FAILED", b"PASSED")
    other = attested.with_name("other.json")
    other.write_text(json.dumps({**envelope, "payload": base64.b64encode(changed).decode()}))
    assert verify(other, keys / "ana.pub", store, code=1)["status"] == "altered"
    (sweep.path / "sweep.json").write_text((sweep.path / "sweep.json").read_text() + "\n")
    said = verify(attested, keys / "ana.pub", store, "--sweep", "latest", code=1)
    assert (said["status"], said["differs"]) == ("other subject", [f"{sweep.ulid}/sweep.json"])


def test_a_stored_sweep_is_attested_and_a_bare_statement_is_not_signed(
    store: Store, keys: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bare.json"
    done = evalrun("attest", "latest", "--out", out, "--store", store.root)
    assert done.returncode == 0 and "not signed" in done.stdout
    assert json.loads(out.read_text())["predicate"]["result"] == "FAILED"
    assert verify(out, keys / "ana.pub", store, code=1)["status"] == "not signed"


def test_the_envelope_of_the_protocol_is_made_to_the_byte(attested: Path, keys: Path) -> None:
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    made = [dsse.envelope("http://example.com/HelloWorld", b"hello world", key) for _ in range(2)]
    assert made[0] == made[1]


def test_another_tool_verifies_it(attested: Path, keys: Path) -> None:
    pytest.importorskip("securesystemslib", reason="needs securesystemslib (extra: dev)")
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey

    from evalrun.evidence.dsse import signers_in

    document = json.loads(attested.read_text())
    (signer,) = signers_in(keys / "ana.pub")
    keyid = document["signatures"][0]["keyid"]
    public = SSlibKey(keyid, "ed25519", "ed25519", {"public": signer.key.public_bytes_raw().hex()})
    envelope = Envelope.from_dict(document)
    assert envelope.verify([public], 1).keys() == {keyid}
    envelope.payload += b" "
    with pytest.raises(Exception, match=r"threshold|signatures"):
        envelope.verify([public], 1)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"payload": "e", "payloadType": "x", "signatures": [1]}', "[" * 100_000, "\x00"],
)
def test_what_is_no_attestation_is_one_message(store: Store, keys: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "no.json"
    file.write_text(text)
    done = evalrun("attest", "verify", file, "--signers", keys / "ana.pub", "--store", store.root)
    assert done.returncode == 2 and done.stderr.count("error:") == 1, done.stderr


def test_keys_that_cannot_be_used(store: Store, keys: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    for key, said in ((keys / "ana.pub", "holds no private key"), (keys / "none", "cannot be read")):
        done = evalrun("attest", "latest", "--out", out, "--key", key, "--store", store.root)
        assert done.returncode == 2 and said in done.stderr
        assert not out.exists()
    done = evalrun("gate", "latest", "--key", keys / "ana", "--store", store.root)
    assert done.returncode == 2 and "--attest" in done.stderr
