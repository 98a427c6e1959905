"""The comment on a pull or merge request, and the jobs that make it, with a forge on loopback."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.program import evalrun

ROOT = Path(__file__).parents[3]
WORKFLOW = ROOT / ".github" / "workflows" / "evaluate.yml"
PIPELINE = ROOT / "docs" / "evaluate.gitlab-ci.yml"
SUITE = """name: s
models: [{id: m, provider: recorded, column: o}]
prompts: [{id: p, text: "{{ q }}"}]
datasets: [{id: d, rows: [{q: a, t: x, o: x}, {q: b, t: x, o: z}], target: "{{ t }}"}]
scorers: [exact_match]
gates:
  - exact_match >= 0.4
  - exact_match >= 0.9
"""


class Forge:
    """Keeps comments; pages of a hundred."""

    def __init__(self) -> None:
        self.comments: list[dict[str, Any]] = [{"id": at, "body": "by people"} for at in range(150)]
        self.status, self.tokens, self.calls = 200, set[str](), list[str]()
        self.url = ""


@pytest.fixture
def forge() -> Iterator[Forge]:
    state = Forge()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            state.calls.append(self.command)
            token = self.headers["Authorization"] or self.headers["PRIVATE-TOKEN"] or ""
            state.tokens.add(token)
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"{}")
            said: Any = {}
            if state.status == 200 and self.command == "GET":
                page = int(self.path.partition("&page=")[2])
                said = state.comments[(page - 1) * 100 : page * 100]
            elif state.status == 200 and self.command == "POST":
                state.comments.append({"id": len(state.comments), **body})
            elif state.status == 200:
                state.comments[int(self.path.rpartition("/")[2])].update(body)
            data = json.dumps(said).encode()
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_PUT = _answer

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{http.server_port}"
        yield state
        http.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forge")
    (folder / "s.yaml").write_text(SUITE)
    return folder


def _github(forge: Forge) -> dict[str, str]:
    return {
        "GITHUB_ACTIONS": "true", "GITHUB_REF": "refs/pull/7/merge", "GITHUB_REPOSITORY": "team/repo",
        "GITHUB_API_URL": forge.url, "GITHUB_TOKEN": "tok", "GITLAB_CI": "", "CI_MERGE_REQUEST_IID": "",
    }  # fmt: skip


def _gitlab(forge: Forge) -> dict[str, str]:
    return {
        "GITLAB_CI": "true", "CI_MERGE_REQUEST_IID": "7", "CI_PROJECT_ID": "3", "CI_API_V4_URL": forge.url,
        "GITLAB_TOKEN": "tok", "GITHUB_ACTIONS": "",
    }  # fmt: skip


@pytest.fixture(scope="module")
def store(folder: Path) -> Path:
    assert evalrun("s.yaml", "--store", folder / "st", "--no-report", cwd=folder).returncode == 1
    return folder / "st"


@pytest.mark.parametrize("kind", [_github, _gitlab])
def test_one_comment_is_made_then_changed_and_never_repeated(store: Path, forge: Forge, kind: Any) -> None:
    def said(*words: str | Path) -> str:
        done = evalrun("comment", "latest", "--store", store, *words, env=kind(forge))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert said() == "comment: made" and said() == "comment: the same"
    text = store.parent / "other.md"
    text.write_text("other\n" + "long line\n" * 20_000)
    assert said("--body", text) == "comment: changed"
    (ours,) = [each for each in forge.comments if "evalrun" in each["body"]]
    assert len(forge.comments) == 151 and ours["body"].startswith("<!-- evalrun s -->\nother\n")
    assert len(ours["body"]) < 65_536
    assert forge.tokens == {"Bearer tok" if kind is _github else "tok"}


def test_a_forge_that_refuses_is_told_with_its_words_and_no_request_is_no_fault(
    store: Path, forge: Forge
) -> None:
    forge.status = 403
    done = evalrun("comment", "latest", "--store", store, env=_github(forge))
    assert done.returncode == 3 and "403" in done.stderr
    push = {**_github(forge), "GITHUB_REF": "refs/heads/main"}
    assert evalrun("comment", "latest", "--store", store, env=push).stdout == "comment: no request\n"
    for env in {**_github(forge), "GITHUB_TOKEN": ""}, {"GITHUB_ACTIONS": "", "GITLAB_CI": ""}:
        assert evalrun("comment", "latest", "--store", store, env=env).returncode == 2


def test_a_failed_gate_is_marked_at_its_line_in_the_suite(store: Path, folder: Path) -> None:
    words = ("gate", "latest", "--store", store, "--code-quality", folder / "quality.json")
    env = {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(folder), "GITHUB_STEP_SUMMARY": ""}
    done = evalrun(*words, env=env, cwd=folder)
    assert f"::error title=evalrun gate,file=s.yaml,line={len(SUITE.splitlines())}::" in done.stderr
    (finding,) = json.loads((folder / "quality.json").read_text())
    assert finding["location"] == {"path": "s.yaml", "lines": {"begin": 8}}
    assert finding["severity"] == "major" and len(finding["fingerprint"]) == 64


def _scripts(kind: str) -> list[str]:
    if kind == "github":
        steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["evaluate"]["steps"]
        return [step["run"] for step in steps if "run" in step]
    job = yaml.safe_load(PIPELINE.read_text())["evaluation"]
    return [*job["script"], *job["after_script"]]


@pytest.mark.parametrize(("kind", "given"), [("github", _github), ("gitlab", _gitlab)])
def test_the_steps_of_the_jobs_run_as_they_stand(tmp_path: Path, forge: Forge, kind: str, given: Any) -> None:
    (tmp_path / "s.yaml").write_text(SUITE)
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, line in {"evalrun": f'exec {sys.executable} -m evalrun "$@"', "pip": "exit 0"}.items():
        (commands / name).write_text(f"#!/bin/sh\n{line}\n")
        (commands / name).chmod(0o755)
    env = {
        **given(forge), "PATH": f"{commands}:/usr/bin:/bin", "SUITE": "s.yaml", "OPTIONS": "--limit 2",
        "PACKAGE": "evalrun-llm", "HOME": str(tmp_path),
        "PYTHONPATH": ":".join(path for path in sys.path if path),
    }  # fmt: skip
    codes = [
        subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=env, capture_output=True).returncode
        for script in _scripts(kind)
    ]
    assert codes == [0, 1, 0]  # the gate fails the job, and its comment is made all the same
    assert (tmp_path / "gates.xml").exists() and (tmp_path / "report.html").exists()
    assert forge.comments[-1]["body"].startswith("<!-- evalrun s -->")


@pytest.mark.parametrize(("schema", "file"), [("github-workflows", WORKFLOW), ("gitlab-ci", PIPELINE)])
def test_the_jobs_fit_the_schemas_of_their_forges(schema: str, file: Path) -> None:
    pytest.importorskip("check_jsonschema", reason="needs check-jsonschema")
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    words += ["--data-transform", "gitlab-ci"] if schema == "gitlab-ci" else []
    done = subprocess.run([*words, str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
