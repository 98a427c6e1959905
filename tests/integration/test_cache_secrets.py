"""What tells cached answers apart: also what is secret of how a model is asked, which no file may hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.program import evalrun
from tests.recorded import recorded_suite, yes_no
from tests.servers import ChatServer, completion

SECRETS = {
    "KEY_A": "ka-" + "1" * 20,
    "KEY_B": "kb-" + "2" * 20,
    "ROUTE_1": "r1-" + "3" * 20,
    "ROUTE_2": "r2-" + "4" * 20,
}


async def _echo(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
    names = ("Authorization", "X-Route")
    said = [request.headers.get(name, "") for name in names] + [str(body.get("route_token", ""))]
    return web.json_response(completion(hashlib.sha256("|".join(said).encode()).hexdigest()[:12]))


@pytest.fixture
def suite(tmp_path: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six models of one server that differ in nothing but what is secret."""
    monkeypatch.chdir(tmp_path)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    chat_server.behaviour = _echo
    address = chat_server.base_url
    same = {"provider": "openai_compatible", "model": "x"}
    models = [
        {"id": "plain", "base_url": address},
        {"id": "key_a", "base_url": address, "api_key_env": "KEY_A"},
        {"id": "key_b", "base_url": address, "api_key_env": "KEY_B"},
        {"id": "route_1", "base_url": address, "headers_env": {"X-Route": "ROUTE_1"}},
        {"id": "route_2", "base_url": address, "headers_env": {"X-Route": "ROUTE_2"}},
        {"id": "user_a", "base_url": address.replace("http://", "http://me:${KEY_A}@")},
        {"id": "user_b", "base_url": address.replace("http://", "http://me:${KEY_B}@")},
        {"id": "body_1", "base_url": address, "extra_body": {"route_token": "${ROUTE_1}"}},
        {"id": "body_2", "base_url": address, "extra_body": {"route_token": "${ROUTE_2}"}},
    ]
    return recorded_suite(tmp_path, yes_no([True] * 3), [], models=[{**same, **model} for model in models])


def answers(suite: Path, *words: str) -> tuple[dict[str, str], int, str]:
    """The answer of each model, how many were cached, and what the terminal said."""
    done = evalrun(suite, "-q", "--no-report", "--fresh", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = json.loads(evalrun("show", "latest", "--json").stdout)["runs"]
    found = {}
    for run in runs:
        rows = json.loads(evalrun("samples", run["run"], "--json").stdout)["samples"]
        (found[run["model"]],) = {row["output"] for row in rows}
    return found, sum(run["counts"]["cached"] for run in runs), done.stdout + done.stderr


def test_models_that_differ_in_a_secret_share_no_answer(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, cached, said = answers(suite)
    assert len(set(first.values())) == 9 and cached == 0, first
    assert "from the cache" not in said
    again, cached, said = answers(suite)
    assert again == first and cached == 27
    assert "27 of 27 answers came from the cache, the oldest of " in said
    monkeypatch.setenv("ROUTE_2", "r9-" + "5" * 20)
    changed, cached, said = answers(suite)
    assert {name for name in first if changed[name] != first[name]} == {"route_2", "body_2"}
    assert cached == 21 and "21 of 27 answers" in said
    explained = evalrun("cache", "explain", "latest", "s0000", "--run", "key_a")
    assert "kept since" in explained.stdout, explained.stdout + explained.stderr
    explained = evalrun("cache", "explain", suite, "s0000", "--run", "route_2")
    assert "kept since" in explained.stdout, explained.stdout + explained.stderr


def test_no_file_holds_a_secret_or_its_plain_digest(suite: Path) -> None:
    answers(suite)
    data = b"".join(path.read_bytes() for path in Path(".evalrun").rglob("*") if path.is_file())
    for value in SECRETS.values():
        assert value.encode() not in data
        for name in ("md5", "sha1", "sha256", "sha512"):
            digest = hashlib.new(name, value.encode())
            assert digest.hexdigest().encode() not in data and digest.digest() not in data
    assert Path(".evalrun/cache/salt").stat().st_mode & 0o77 == 0


def test_a_changed_module_beside_the_function_asks_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "answering_app.py").write_text(
        "def answer(row):\n    from answering_helper import word\n    return word()\n"
    )
    helper = tmp_path / "answering_helper.py"
    helper.write_text("def word():\n    return 'no'\n")
    model = {"id": "m", "provider": "python", "function": "answering_app:answer"}
    path = recorded_suite(tmp_path, yes_no([True] * 3), [], models=[model])
    assert answers(path)[:2] == ({"m": "no"}, 0)
    helper.write_text("def word():\n    return 'yes'\n")
    import sys

    for name in ("answering_app", "answering_helper"):
        sys.modules.pop(name, None)
    found, cached, _ = answers(path)
    assert found == {"m": "yes"} and cached == 0
