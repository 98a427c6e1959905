"""What is recorded about where a sweep came from, on real repositories."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

from evalrun.secrets import MASK
from evalrun.tracking import git_state as git_state_module
from evalrun.tracking.git_state import git_state
from evalrun.tracking.provenance import cgroup_limits, ci_url, collect, llama_cpp_build, machine, packages

KEY = "sk-" + "a1B2" * 12


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    (root / "suites").mkdir(parents=True)
    git(root.parent, "init", "-q", "-b", "trunk", str(root))
    (root / "code.py").write_text("x = 1\n")
    (root / "old name.py").write_text("y = 1\n" * 10)
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    return root


def test_a_clean_repository(repository: Path) -> None:
    git(repository, "remote", "add", "origin", "https://ada:hunter2@example.org/team/p.git?token=abc")
    state = git_state(repository / "suites")
    assert state == {
        "commit": git(repository, "rev-parse", "HEAD"),
        "branch": "trunk",
        "remote": f"https://example.org/team/p.git?token={MASK}",
        "dirty": False,
        "changed_files": 0,
        "untracked_files": 0,
        "untracked": [],
        "diff": None,
    }


def test_changes_staged_and_not_renames_and_untracked_files(repository: Path) -> None:
    (repository / "code.py").write_text("x = 2\n")
    git(repository, "mv", "old name.py", "new näme.py")
    (repository / "suites" / "ü new.yaml").write_bytes(b"name: x\n")
    (repository / "z.txt").write_bytes(b"z")
    state = git_state(repository / "suites")
    assert (state["dirty"], state["changed_files"], state["untracked_files"]) == (True, 2, 2)
    assert state["untracked"] == [
        {"path": "suites/ü new.yaml", "bytes": 8, "sha256": hashlib.sha256(b"name: x\n").hexdigest()},
        {"path": "z.txt", "bytes": 1, "sha256": hashlib.sha256(b"z").hexdigest()},
    ]
    assert "-x = 1\n+x = 2\n" in state["diff"]["text"]
    assert "new näme.py" in state["diff"]["text"]
    assert state["diff"]["truncated"] is False


def test_the_diff_is_scrubbed_and_its_digest_is_of_the_whole(repository: Path) -> None:
    (repository / "code.py").write_text(f'key = "{KEY}"\n')
    diff = git_state(repository)["diff"]
    assert KEY not in json.dumps(diff)
    assert MASK in diff["text"]
    whole = subprocess.run(["git", "diff", "HEAD"], cwd=repository, capture_output=True, check=True).stdout
    assert diff["sha256"] == hashlib.sha256(whole).hexdigest()
    assert diff["bytes"] == len(whole)


def test_a_huge_diff_is_cut_between_lines(repository: Path) -> None:
    (repository / "code.py").write_text(f"{'word ' * 20}\n" * 30_000)
    diff = git_state(repository)["diff"]
    assert diff["truncated"] is True
    assert diff["bytes"] > 3_000_000
    assert 490_000 < len(diff["text"].encode()) <= 500_000
    assert diff["text"].endswith("\n")


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("a")
    state = git_state(tmp_path)
    assert (state["commit"], state["untracked_files"], state["diff"]) == (None, 1, None)
    assert state["diff_unavailable"] == "there is no commit yet"


def test_the_suites_repository_counts_and_not_that_of_a_running_hook(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q", "-b", "elsewhere", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    assert git_state(repository)["branch"] == "trunk"


def test_a_detached_head(repository: Path) -> None:
    git(repository, "checkout", "-q", "--detach")
    state = git_state(repository)
    assert state["branch"] == "(detached)"
    assert state["commit"] == git(repository, "rev-parse", "HEAD")


def is_read(pipe: Path) -> bool:
    """Whether a process has the pipe open to read."""
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def test_no_repository_no_git_and_a_git_that_hangs_are_recorded_not_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "not a git repository" in git_state(tmp_path)["unavailable"]
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    assert git_state(tmp_path) == {"unavailable": "git cannot be started: No such file or directory"}
    held, released = tmp_path / "held", threading.Event()
    os.mkfifo(held)
    (tools / "git").write_text(f"#!/bin/sh\n/bin/cat {held}\n")  # a child that keeps the pipe open
    (tools / "git").chmod(0o755)
    monkeypatch.setattr(git_state_module, "TIMEOUT_S", 0.3)

    def release() -> None:
        released.set()
        with contextlib.suppress(OSError):  # nobody reads it any more
            os.close(os.open(held, os.O_WRONLY | os.O_NONBLOCK))

    patience = threading.Timer(60, release)
    patience.start()
    assert git_state(tmp_path) == {"unavailable": "git did not answer within 0.3 s"}
    patience.cancel()
    assert not released.is_set(), "it was given up while its child held the pipe"
    deadline = time.monotonic() + 30
    while is_read(held):
        assert time.monotonic() < deadline, "the child was left behind"
        time.sleep(0.01)
    assert collect([], tmp_path)["git"] == {"unavailable": "git did not answer within 0.3 s"}


def test_a_repository_cannot_start_programs_through_its_configuration(repository: Path) -> None:
    marker = repository.parent / "started"
    program = repository.parent / "program"
    program.write_text(f"#!/bin/sh\ntouch '{marker}'\n")
    program.chmod(0o755)
    for name in ("core.fsmonitor", "diff.external", "core.pager"):
        git(repository, "config", name, str(program))
    (repository / "code.py").write_text("x = 2\n")
    assert "+x = 2" in git_state(repository)["diff"]["text"]
    assert not marker.exists()


def test_packages_are_those_that_the_standard_library_finds() -> None:
    def norm(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    expected: dict[str, str] = {}
    for each in distributions():
        expected.setdefault(norm(each.metadata["Name"]), each.version)
    found = packages()
    assert {each["name"]: each["version"] for each in found} == expected
    assert [each["name"] for each in found] == sorted(expected)


def test_the_first_package_on_the_path_counts_and_sources_are_scrubbed(tmp_path: Path) -> None:
    for folder, version in (("a", "1.0"), ("b", "2.0")):
        (tmp_path / folder / f"My_Tool-{version}.dist-info").mkdir(parents=True)
    source = {"url": "https://ada:hunter2@example.org/my-tool.git", "vcs_info": {}}
    (tmp_path / "a" / "My_Tool-1.0.dist-info" / "direct_url.json").write_text(json.dumps(source))
    (tmp_path / "b" / "old-3.1-py3.11.egg-info").mkdir()
    assert packages([str(tmp_path / "a"), str(tmp_path / "missing"), str(tmp_path / "b")]) == [
        {"name": "my-tool", "version": "1.0", "source": "https://example.org/my-tool.git"},
        {"name": "old", "version": "3.1"},
    ]


def test_the_machine_is_described() -> None:
    found = machine()
    assert found["cores"] >= found["cores_usable"] >= 1
    assert found["memory_bytes"] > 1 << 28
    assert found["os"]
    assert found["kernel"]


def test_limits_of_nested_cgroups_are_the_tightest(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "own").write_text("0::/a/b\n")
    (inner / "cpu.max").write_text("max 100000\n")
    (inner / "memory.max").write_text("2000000\n")
    (tmp_path / "a" / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "a" / "memory.max").write_text("max\n")
    assert cgroup_limits(tmp_path, tmp_path / "own") == {"cpus": 1.5, "memory_bytes": 2_000_000}
    assert cgroup_limits(tmp_path / "none", tmp_path / "own") == {}


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, None),
        (
            {
                "GITHUB_RUN_ID": "5",
                "GITHUB_REPOSITORY": "team/p",
                "GITHUB_SERVER_URL": "https://github.example",
            },
            "https://github.example/team/p/actions/runs/5",
        ),
        ({"CI_JOB_URL": "https://u:p@gitlab.example/j/1"}, "https://gitlab.example/j/1"),
        ({"BUILD_URL": "https://jenkins.example/job/x/1/"}, "https://jenkins.example/job/x/1/"),
        (
            {
                "SYSTEM_TEAMFOUNDATIONSERVERURI": "https://dev.example/t/",
                "SYSTEM_TEAMPROJECT": "p",
                "BUILD_BUILDID": "7",
            },
            "https://dev.example/t/p/_build/results?buildId=7",
        ),
    ],
)
def test_the_ci_job_is_linked(variables: dict[str, str], url: str | None) -> None:
    assert ci_url(variables) == url


def test_collecting_keeps_only_listed_variables_and_no_secrets(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("HF_ENDPOINT", "https://ada:hunter2@mirror.example")
    monkeypatch.setenv("UNLISTED", "unlisted-value")
    monkeypatch.setenv("SERVED_API_KEY", "correct-horse-battery")
    (repository / "correct-horse-battery.txt").write_text("x")
    argv = ["evalrun", "s.yaml", "--set", f"models.0.key={KEY}", "--api-key", "hunter2", "a\udce4"]
    found: dict[str, Any] = collect(argv, repository)
    text = json.dumps(found)
    for secret in (KEY, "hunter2", "unlisted-value", "correct-horse"):
        assert secret not in text
    assert found["environment"]["OMP_NUM_THREADS"] == "3"
    assert found["argv"][:4] == ["evalrun", "s.yaml", "--set", f"models.0.key={MASK}"]
    assert found["git"]["branch"] == "trunk"
    assert found["python"]["executable"] == sys.executable
    assert {"evalrun-llm", "pydantic"} <= {each["name"] for each in found["packages"]}
    assert re.fullmatch(r"[0-9a-f]{16}", found["host"])


def test_the_commit_that_the_embedded_engine_was_built_from() -> None:
    xllamacpp = pytest.importorskip("xllamacpp")
    build = llama_cpp_build()
    assert build is not None and build["xllamacpp"] == xllamacpp.__version__
    assert re.fullmatch(r"[0-9a-f]{40}", build["xllamacpp_commit"])
