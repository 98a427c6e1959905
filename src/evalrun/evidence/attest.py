"""Attestations of gates: in-toto statements of the predicate "test result", in DSSE envelopes.

They say: of these artifacts (the sweep, its prompts, the weights), by this configuration (suite, datasets),
these checks passed, warned or failed. https://in-toto.io/Statement/v1,
https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalrun.atomic import place_for, write_private
from evalrun.canonical import canonical_json
from evalrun.errors import UserError
from evalrun.evidence import dsse
from evalrun.tracking.folder import MANIFEST, RUN, SweepFolder, file_sha256
from evalrun.tracking.plain import document_bytes

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of an attestation. `differs` are the names whose digests are not those of the sweep that
    it was held against."""

    status: str
    signer: str = ""
    result: str = ""
    predicate_type: str = ""
    differs: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether a known signer says so, of this sweep where one was named."""
        return self.status == "valid"


def statement(
    folder: SweepFolder, gates: Sequence[Mapping[str, Any]], *, strict: bool = False
) -> dict[str, Any]:
    """The statement of a sweep's gates, each a mapping with `gate`, `run` and `verdict`. With `strict` what
    cannot be decided counts as failed. Raises UserError where there are no gates."""
    if not gates:
        raise UserError(
            "there are no gates to attest",
            where=folder.path.name,
            remedy="Give some to evalrun gate: --gate 'exact_match >= 0.5'",
        )
    tests: dict[str, list[str]] = {"passedTests": [], "warnedTests": [], "failedTests": []}
    for gate in gates:
        failed = gate["verdict"] == "fail" or (strict and gate["verdict"] != "pass")
        kind = "passedTests" if gate["verdict"] == "pass" else "failedTests" if failed else "warnedTests"
        tests[kind].append(f"{gate.get('run') or 'sweep'}: {gate['gate']}")
    result = "FAILED" if tests["failedTests"] else "WARNED" if tests["warnedTests"] else "PASSED"
    return {
        "_type": STATEMENT,
        "subject": subjects(folder),
        "predicateType": TEST_RESULT,
        "predicate": {"result": result, "configuration": _configuration(folder), **tests},
    }


def subjects(folder: SweepFolder) -> list[dict[str, Any]]:
    """What the gates speak of: the sweep's documents, its prompts, and the weights where they are known."""
    manifest = folder.manifest()
    digests = {f"{folder.ulid}/{MANIFEST}": file_sha256(folder.path / MANIFEST)}
    for run in folder.run_ids():
        digests[f"{folder.ulid}/runs/{run}/{RUN}"] = file_sha256(folder.path / "runs" / run / RUN)
    for name, prompt in manifest.prompts.items():
        digests[f"prompt/{name}"] = str(prompt.get("digest") or "")
    for name, model in manifest.models.items():
        digests[f"weights/{name}"] = str(model.get("weights_sha256") or "")
    return [_resource(name, digest) for name, digest in digests.items() if _is_sha256(digest)]


def write(document: Mapping[str, Any], out: Path, key: Path | None) -> None:
    """Write a statement, in an envelope signed by `key` where one is given. Raises UserError."""
    payload = canonical_json(dict(document))
    if key is not None:
        document = dsse.envelope(PAYLOAD_TYPE, payload, dsse.private_key(key))
    write_private(place_for(out), document_bytes(document))


def check(file: Path, signers: Path, folder: SweepFolder | None = None) -> Checked:
    """An attestation against public keys and, if given, the sweep that it is to be of.

    Raises UserError where it is no envelope, or the keys cannot be read.
    """
    known = dsse.signers_in(signers)
    document = dsse.read_json(file)
    if not isinstance(document, dict):
        raise UserError("is no attestation", where=str(file))
    if document.get("_type") == STATEMENT:
        return Checked("not signed")
    kind, payload, signatures = dsse.opened(document, file)
    status, signer = dsse.verified(kind, payload, signatures, known)
    if status != "valid":
        return Checked(status, signer)
    return _of_statement(payload, kind, signer, file, folder)


def _of_statement(payload: bytes, kind: str, signer: str, file: Path, folder: SweepFolder | None) -> Checked:
    import json

    try:
        said = json.loads(payload) if kind == PAYLOAD_TYPE else None
    except (ValueError, RecursionError):
        said = None
    if (
        not isinstance(said, dict)
        or said.get("_type") != STATEMENT
        or not isinstance(said.get("subject"), list)
    ):
        raise UserError("what is signed is no in-toto statement", where=str(file))
    predicate = said.get("predicate")
    result = str(predicate.get("result", "")) if isinstance(predicate, dict) else ""
    differs: tuple[str, ...] = ()
    if folder is not None:
        attested = {_name(each): each.get("digest") for each in said["subject"] if isinstance(each, dict)}
        now = {each["name"]: each["digest"] for each in subjects(folder)}
        differs = tuple(sorted(n for n in now.keys() | attested.keys() if now.get(n) != attested.get(n)))
    status = "other subject" if differs else "valid"
    return Checked(status, signer, result, str(said.get("predicateType", "")), differs)


def _name(subject: Mapping[str, Any]) -> str:
    return str(subject.get("name", ""))


def _configuration(folder: SweepFolder) -> list[dict[str, Any]]:
    manifest = folder.manifest()
    text = hashlib.sha256(manifest.suite.text.encode()).hexdigest()
    # The name of its file alone: where it lay is nobody's business.
    digests = {f"suite/{Path(manifest.suite.path or manifest.name).name}": text}
    digests |= {f"dataset/{name}": str(data.get("digest") or "") for name, data in manifest.datasets.items()}
    return [_resource(name, digest) for name, digest in digests.items() if _is_sha256(digest)]


def _resource(name: str, digest: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest}}


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
