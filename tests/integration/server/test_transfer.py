"""Sweeps are pushed and pulled whole, from where it stopped, and nothing else is taken in."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.team import Client, Running

from evalrun.errors import UserError
from evalrun.server.client import Remote, pull, push
from evalrun.server.transfer import ALLOWED, files_of
from evalrun.tracking import changes
from evalrun.tracking.audit import verify
from evalrun.tracking.folder import SweepFolder, file_sha256
from evalrun.tracking.store import Store


@pytest.fixture
def empty(start: Any, tmp_path: Path) -> Running:
    """A server over an empty store."""
    running: Running = start(root=tmp_path / "there")
    return running


def _remote(running: Running, client: Client) -> Remote:
    return Remote(running.origin, client.headers["Authorization"].removeprefix("Bearer "), pause_s=0.01)


def _document(sweep: SweepFolder, **changed: Any) -> dict[str, Any]:
    files = [{"path": f.path, "bytes": f.bytes, "sha256": f.sha256} for f in files_of(sweep)]
    return {"project": "team", "folder": sweep.path.name, "files": files, **changed}


def test_there_and_back_again(empty: Running, root: Path, sweep: SweepFolder, tmp_path: Path) -> None:
    remote = _remote(empty, empty.machine("editor", "team"))
    assert [push(sweep, remote), push(sweep, remote)] == ["new", "present"]
    changes.note(Store(root), sweep, "said since")
    assert push(sweep, remote) == "extended"
    folder, state = pull(Store(tmp_path / "back"), remote, sweep.ulid)
    assert state == "new"
    assert files_of(folder) == files_of(sweep)
    assert pull(Store(tmp_path / "back"), remote, sweep.ulid)[1] == "present"
    assert verify(empty.store).broken == verify(Store(tmp_path / "back")).broken == []
    assert empty.machine("viewer").get("/api/v1/sweeps").json["total"] == 1
    assert not any((empty.store.root / "incoming").iterdir())


def test_two_that_went_apart_are_not_made_one(empty: Running, root: Path, sweep: SweepFolder) -> None:
    remote = _remote(empty, empty.machine("editor", "team"))
    push(sweep, remote)
    changes.note(Store(root), sweep, "on this side")
    changes.note(empty.store, empty.store.folders()[0], "on that side")
    with pytest.raises(UserError, match=r"409.*both were changed"):
        push(sweep, remote)
    assert "on this side" not in (empty.store.folders()[0].path / "events.jsonl").read_text()


def test_a_push_goes_on_where_it_stopped(empty: Running, sweep: SweepFolder) -> None:
    client, path = empty.machine("editor", "team"), f"/api/v1/sweeps/{sweep.ulid}"
    document = _document(sweep)
    assert len(client.post(f"{path}/push", document).json["missing"]) == len(document["files"])
    name = "runs/m-p-d/samples.parquet"
    data = (sweep.path / name).read_bytes()
    first = client.ask("PUT", f"{path}/push/{name}", data=data[:1000], Upload_Offset="0")
    assert first.json == {"offset": 1000}
    again = client.ask("PUT", f"{path}/push/{name}", data=data[:1000], Upload_Offset="0")
    assert (again.status, again.json["offset"]) == (409, 1000)
    assert client.post(f"{path}/push-commit", {"project": "team"}).status == 409
    assert {"path": name, "offset": 1000} in client.post(f"{path}/push", document).json["missing"]
    assert push(sweep, _remote(empty, client)) == "new"
    assert file_sha256(empty.store.folders()[0].path / name) == file_sha256(sweep.path / name)


def test_what_was_altered_on_the_way_is_not_stored(empty: Running, sweep: SweepFolder) -> None:
    client, path = empty.machine("editor", "team"), f"/api/v1/sweeps/{sweep.ulid}"
    name = "runs/m-p-d/samples.parquet"
    altered = bytearray((sweep.path / name).read_bytes())
    altered[40] ^= 1
    (sweep.path / name).write_bytes(altered)
    with pytest.raises(UserError, match=r"422.*altered"):
        push(sweep, _remote(empty, client))  # its digest is announced, and the trail knows another
    assert empty.store.folders() == []
    assert client.post(f"{path}/push-commit", {"project": "team"}).status == 404


def test_a_sweep_of_another_project_is_not_taken_under_this_one(empty: Running, sweep: SweepFolder) -> None:
    client, path = empty.machine("editor", "mine"), f"/api/v1/sweeps/{sweep.ulid}"
    assert client.post(f"{path}/push", _document(sweep)).status == 404
    assert client.post(f"{path}/push", _document(sweep, project="mine")).status == 200
    for file in files_of(sweep):
        data = (sweep.path / file.path).read_bytes()
        assert client.ask("PUT", f"{path}/push/{file.path}", data=data, Upload_Offset="0").status == 200
    answer = client.post(f"{path}/push-commit", {"project": "mine"})
    assert answer.status == 422
    assert "another project" in answer.json["error"]
    assert empty.store.folders() == []


BAD = {
    "out": {"path": "../x", "bytes": 1, "sha256": "0" * 64},
    "a page": {"path": "report.html", "bytes": 1, "sha256": "0" * 64},
    "hidden": {"path": "inputs/.profile", "bytes": 1, "sha256": "0" * 64},
    "deep": {"path": "inputs/a/b", "bytes": 1, "sha256": "0" * 64},
    "a run out": {"path": "runs/../run.json", "bytes": 1, "sha256": "0" * 64},
    "absolute": {"path": "/etc/passwd", "bytes": 1, "sha256": "0" * 64},
    "huge": {"path": "runs/r/samples.parquet", "bytes": 1 << 42, "sha256": "0" * 64},
    "negative": {"path": "runs/r/run.json", "bytes": -1, "sha256": "0" * 64},
    "no digest": {"path": "runs/r/run.json", "bytes": 1, "sha256": "x"},
    "twice": {"path": "SWEEP.json", "bytes": 1, "sha256": "0" * 64},
}


@pytest.mark.parametrize("what", BAD)
def test_no_other_name_or_size_is_taken(what: str, empty: Running, sweep: SweepFolder) -> None:
    client = empty.machine("editor", "team")
    document = _document(sweep)
    document["files"].append(BAD[what])
    answer = client.post(f"/api/v1/sweeps/{sweep.ulid}/push", document)
    assert answer.status == 400, answer.body
    assert not (empty.store.root / "incoming").exists()


@pytest.mark.parametrize("folder", ["../../x", "01ARZ3NDEKTSV4RRFFQ69G5FAV-other", ""])
def test_no_other_folder_is_made(folder: str, empty: Running, sweep: SweepFolder) -> None:
    client = empty.machine("editor", "team")
    answer = client.post(f"/api/v1/sweeps/{sweep.ulid}/push", _document(sweep, folder=folder))
    assert answer.status == 400


def test_more_bytes_than_announced_are_refused(empty: Running, sweep: SweepFolder) -> None:
    client, path = empty.machine("editor", "team"), f"/api/v1/sweeps/{sweep.ulid}"
    client.post(f"{path}/push", _document(sweep))
    size = (sweep.path / "sweep.json").stat().st_size
    answer = client.ask("PUT", f"{path}/push/sweep.json", data=b"x" * (size + 1), Upload_Offset="0")
    assert answer.status == 413
    assert client.ask("PUT", f"{path}/push/lock", data=b"x", Upload_Offset="0").status == 404


def test_a_broken_table_does_not_get_in(empty: Running, sweep: SweepFolder) -> None:
    """As one would make it who has all digests right."""
    run = sweep.path / "runs" / "extra"
    run.mkdir()
    (run / "system.parquet").write_bytes(b"PAR1" + b"\xff" * 64 + b"PAR1")
    with pytest.raises(UserError, match="422"):
        push(sweep, _remote(empty, empty.machine("editor", "team")))
    assert empty.store.folders() == []


def test_names_of_runs_are_names(sweep: SweepFolder) -> None:
    assert ALLOWED.match("runs/a b-c=0.7/run.json")
    assert not ALLOWED.match("runs/a/b/run.json")
    assert not ALLOWED.match("runs/a/run.json\n")


def test_a_crash_while_a_sweep_is_replaced_loses_none(start: Any, root: Path, sweep: SweepFolder) -> None:
    from evalrun.server.transfer import mend

    shutil.move(sweep.path, sweep.path.with_name(f".replaced-{sweep.path.name}"))
    mend(Store(root))
    assert Store(root).folders()[0].ulid == sweep.ulid


@pytest.mark.parametrize(
    ("url", "token", "words"),
    [("ftp://x", "t", "no http"), ("http://far.example", "t", "in the clear"), ("https://x", "", "no token")],
)
def test_a_token_goes_nowhere_it_should_not(
    url: str, token: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVALRUN_TOKEN", raising=False)
    with pytest.raises(UserError, match=words):
        Remote(url, token)
