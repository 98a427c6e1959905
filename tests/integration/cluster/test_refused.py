"""What cannot be asked is refused in one message before anything is sent, and nothing is lost."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from tests.integration.cluster.conftest import manifest_of, runs_of, write_suite
from tests.program import evalrun
from tests.servers import ChatServer

pytest.importorskip("ray", reason="needs ray (extra: ray)")
pytest.importorskip("obstore", reason="needs obstore (extra: ray)")


@pytest.mark.parametrize(
    ("address", "code"),
    [("ray://127.0.0.1:{free}", 3), ("ray://nohost.invalid:6379", 3), ("ray://localhost", 3),
     ("ray://", 2), ("slurm", 2), ("ray://me:pw@h:1", 2)],
)  # fmt: skip
def test_no_cluster_at_the_address(tmp_path: Path, address: str, code: int) -> None:
    """Ray itself would wait for minutes."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # taken, and nobody listens
        suite = write_suite(tmp_path, "http://127.0.0.1:9/v1", 3)
        done = evalrun(suite, "--on", address.format(free=taken.getsockname()[1]), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "--on" in done.stderr
    assert not list((tmp_path / ".evalrun" / "sweeps").glob("*"))


def test_options_and_places_that_cannot_be(on: str, tmp_path: Path) -> None:
    """Options without --on, addresses with secrets, unknown kinds of store, a file in the folder's place."""
    suite = write_suite(tmp_path, "http://127.0.0.1:9/v1", 3)
    (tmp_path / "file").write_text("")
    for words, code, said in (
        (["--at", "x"], 2, "--on"),
        (["--on", on, "--at", "ftp://host/x"], 2, "ftp://host/x"),
        (["--on", on, "--at", "s3://KEY:pw@bucket/x"], 2, "holds a secret"),
        (["--on", on, "--at", "s3://"], 2, "no place"),
        (["--on", on, "--at", str(tmp_path / "file")], 3, "cannot be"),
        (["--on", on, "--shard", "0"], 2, "--shard"),
    ):
        done = evalrun(suite, *words, cwd=tmp_path)
        assert (done.returncode, said in done.stderr) == (code, True), (words, done.stderr)
        assert "KEY:pw" not in done.stderr and "Traceback" not in done.stderr


def test_a_node_without_the_variable_is_named(on: str, tmp_path: Path, chat_server: ChatServer) -> None:
    """The key is a variable of each node; nothing is asked where one has it not, and no object holds it."""
    secret = "sk-verysecret0123456789"
    suite = write_suite(tmp_path, chat_server.base_url, 20, model={"api_key_env": "THE_KEY"})
    words = (suite, "--on", on, "--at", tmp_path / "at", "--store", tmp_path / "store", "--no-report")
    done = evalrun(*words, cwd=tmp_path, env={"THE_KEY": secret})
    assert done.returncode == 2, done.stderr
    assert "THE_KEY" in done.stderr and chat_server.bodies == []
    for path in (tmp_path / "at").rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes()


def test_another_plan_is_refused_by_name(on: str, tmp_path: Path, chat_server: ChatServer) -> None:
    """A plan that says other rows or versions than are here: each difference is named, nothing asked."""
    chat_server.answer = lambda body: 1 / 0  # type: ignore[return-value]
    suite = write_suite(tmp_path, chat_server.base_url, 20, errors={"tolerate": 0})
    words = (suite, "--on", on, "--at", tmp_path / "at", "--store", tmp_path / "store", "--no-report")
    assert evalrun(*words, cwd=tmp_path).returncode == 3
    (plan,) = (tmp_path / "at").rglob("plan.json")
    said = json.loads(plan.read_text())
    said["digests"] |= {"evalrun": "0.0.1", "rows of rows": "0" * 64, "prompt direct/chat": "1" * 64}
    plan.write_text(json.dumps(said))
    chat_server.answer, before = lambda body: "42", len(chat_server.bodies)
    done = evalrun(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    for name in ("evalrun differs", "rows of rows differs", "prompt direct/chat differs"):
        assert name in done.stderr
    assert len(chat_server.bodies) == before
    fresh = evalrun(*words, "--fresh", cwd=tmp_path)
    assert fresh.returncode == 0, fresh.stderr
    assert len(runs_of(tmp_path / "store")) == 1
    assert manifest_of(tmp_path / "store")["status"] == "complete"


def test_what_a_cluster_does_not_ask(on: str, tmp_path: Path) -> None:
    """Levels of load, and a GPU that no node has."""
    suite = write_suite(tmp_path, "http://127.0.0.1:9/v1", 3, load={"rates": ["1/s"], "seconds": 5})
    done = evalrun(suite, "--on", on, "--no-report", cwd=tmp_path)
    assert done.returncode == 2 and "load" in done.stderr, done.stderr
    suite = write_suite(tmp_path, "http://127.0.0.1:9/v1", 3, model={"resources": {"gpus": 1}})
    done = evalrun(suite, "--on", on, "--no-report", cwd=tmp_path)
    assert done.returncode == 3 and "1 gpus" in done.stderr, done.stderr
