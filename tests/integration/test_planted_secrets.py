"""Keys planted wherever a key can stand appear in no file, no report and no line of output."""

from __future__ import annotations

import gzip
import json
import random
import sqlite3
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from aiohttp import web
from tests.program import evalrun
from tests.servers import ChatServer, completion

ALNUM, HEX, CAPITALS = string.ascii_letters + string.digits, string.hexdigits[:16], string.ascii_uppercase
SHAPES = {
    "sk-proj-": (ALNUM, 48), "sk-ant-api03-": (ALNUM, 80), "hf_": (ALNUM, 34), "ghp_": (ALNUM, 36),
    "github_pat_": (ALNUM, 60), "glpat-": (ALNUM, 20), "AKIA": (CAPITALS, 16), "AIza": (ALNUM, 35),
    "xoxb-": (ALNUM, 40), "sk_live_": (ALNUM, 24), "npm_": (ALNUM, 36), "gsk_": (ALNUM, 52),
    "pypi-AgEIcHlwaS5vcmc": (ALNUM, 60), "xai-": (ALNUM, 80), "nvapi-": (ALNUM, 64), "r8_": (ALNUM, 37),
    "dapi": (HEX, 32), "lin_api_": (ALNUM, 40), "figd_": (ALNUM, 40), "NRAK-": (CAPITALS, 27),
    "fw_": (ALNUM, 24), "tgp_v1_": (ALNUM, 43), "dp.pt.": (ALNUM, 43), "secret_": (ALNUM, 43),
    "sntrys_": (ALNUM, 60), "dckr_pat_": (ALNUM, 27), "1234567890:AA": (ALNUM, 33), "SK": (HEX, 32),
    "ATATT3xFfGF0": (ALNUM, 60), "pscale_tkn_": (ALNUM, 43),
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.": (ALNUM, 43),
}  # fmt: skip
"""What keys begin with that are known by their looks."""

VARIABLES = ("MY_KEY", "EXTRA_SECRET", "AWS_SECRET_ACCESS_KEY", "SERVICE_PASSWORD")
"""Their values look like nothing: only the names say what they are."""

COMMANDS = (
    "show latest", "show latest --json", "audit --json", "list --json", "whatis prod", "lock s.yaml",
    "samples m --json", "checkout latest out", "report latest --out r2.html",
)  # fmt: skip

Keys = dict[str, str]


@pytest.fixture
def keys() -> Keys:
    """Each key by what it begins with, or by where it stands."""
    rng = random.Random(5)
    shaped = {kind: kind + "".join(rng.choices(of, k=length)) for kind, (of, length) in SHAPES.items()}
    plain = (*VARIABLES, "userinfo", "query", "option", "webhook")
    return shaped | {name: "".join(rng.choices(ALNUM, k=24)) + "x7" for name in plain}


@pytest.fixture
def server(chat_server: ChatServer, keys: Keys) -> ChatServer:
    """Answers some questions, and to the others an error that repeats all it was told, and more."""

    async def behaviour(body: dict[str, object], request: web.Request) -> web.StreamResponse:
        question = chat_server.questions[-1]
        told = json.dumps({"headers": dict(request.headers), "url": str(request.url), "body": body})
        text = f"Incorrect API key provided: {keys['sk-ant-api03-']} {told}"
        if question.startswith("1"):
            return web.json_response({"error": {"message": text}}, status=400)
        if question.startswith("2"):
            return web.Response(text=text, status=500)
        if question.startswith("3"):
            return web.Response(text=f"no JSON {text}")
        return web.json_response(completion("42"))

    chat_server.behaviour = behaviour
    return chat_server


def plant(folder: Path, keys: Keys, server: ChatServer) -> str:
    """A repository with a key in its remote and all of them in what is changed, and a suite with many."""

    def git(*words: str) -> None:
        author = ("-c", "user.email=a@example.org", "-c", "user.name=a")
        subprocess.run(["git", *author, *words], cwd=folder, check=True, capture_output=True)

    (folder / "code.py").write_text("x = 1\n")
    git("init", "-q")
    git("add", "code.py")
    git("commit", "-qm", "first")
    git("remote", "add", "origin", f"https://oauth2:{keys['userinfo']}@example.org/a.git")
    lines = [f"{'value' if kind in SHAPES else 'password'} = {key!r}" for kind, key in keys.items()]
    (folder / "code.py").write_text("\n".join(lines))
    (folder / "d.jsonl").write_text(
        "".join(json.dumps({"id": f"r{at}", "q": f"{at % 6} is", "a": "42"}) + "\n" for at in range(12))
    )
    base = f"http://bob:{keys['userinfo']}@127.0.0.1:{server.port}/v1"
    text = f"""\
# {keys["hf_"]}
name: planted
description: "with {keys["glpat-"]} and password={keys["query"]}"
models:
  - {{id: m, provider: openai_compatible, base_url: "{server.base_url}", model: x, api_key_env: MY_KEY,
      headers_env: {{X-Extra: EXTRA_SECRET}},
      extra_body: {{api_key: "{keys["option"]}", note: "{keys["sk_live_"]}",
                   deep: {{password: "{keys["query"]}"}}}}}}
  - {{id: u, provider: openai_compatible, base_url: "{base}", model: x}}
prompts: [{{id: p, text: "{{{{ q }}}}"}}]
datasets: [{{id: d, path: d.jsonl, key: id, target: "{{{{ a }}}}"}}]
scorers: [exact_match]
tags: {{owner: "{keys["xoxb-"]}"}}
performance: {{retries: 1}}
alerts: {{when: ["exact_match < 2"], webhook: "http://127.0.0.1:{server.port}/services/{keys["webhook"]}"}}
"""
    (folder / "s.yaml").write_text(text)
    return base


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    """All that was written, readable."""
    for path in folder.rglob("*"):
        if not path.is_file() or ".git" in path.parts or path.name in ("code.py", "s.yaml"):
            continue
        name, data = str(path.relative_to(folder)), path.read_bytes()
        yield name, data.decode("utf-8", "replace")
        if path.suffix == ".gz":
            yield name, gzip.decompress(data).decode()
        elif path.suffix == ".parquet":
            yield name, json.dumps(pq.read_table(path).to_pylist(), default=str)
        elif path.suffix == ".db":
            with sqlite3.connect(path) as database:
                yield name, "\n".join(database.iterdump())


def test_planted_keys_come_out_nowhere(project: Path, keys: Keys, server: ChatServer) -> None:
    base = plant(project, keys, server)
    environment = {name: keys[name] for name in VARIABLES}
    said: dict[str, str] = {}

    def run(*words: str, expect: int = 0) -> None:
        done = evalrun(*words, env=environment)
        assert done.returncode == expect, (words, done.stderr)
        said[" ".join(words[:3])] = done.stdout + done.stderr

    run("plan", "s.yaml", "--json")
    run("s.yaml", "--json", "--report", "r.html", "--set", f"tags.t={keys['npm_']}")
    address = base.replace(keys["userinfo"], keys["option"])
    run("s.yaml", "--fresh", "--no-cache", "--no-report", "--set", f"models.1.base_url={address}")
    run("annotate", "latest", f"see {keys['lin_api_']}, password={keys['query']}")
    run("tag", "latest", f"k={keys['dp.pt.']}")
    run("deployed", "latest/m-p-d", "--env", "prod", "--url", f"{base}?token={keys['query']}")
    for command in COMMANDS:
        run(*command.split())
    server.stop()
    run("s.yaml", "--fresh", "--no-cache", "--no-report", expect=3)

    found = {
        f"{kind} in {name}"
        for name, text in [*said.items(), *texts(project)]
        for kind, key in keys.items()
        if key.removeprefix(kind) in text
    }
    assert found == set()
    kept = [*(project / ".evalrun").rglob("*")]
    assert len(kept) > 20 and not [each for each in kept if each.stat().st_mode & 0o077]
