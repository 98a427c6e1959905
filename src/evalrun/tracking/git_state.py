"""The state of the code that a suite belongs to: commit, branch, remote, what is changed, what is untracked.

Git is asked with a short timeout and without anything that a repository's own configuration could start.
Nothing here ever fails: what cannot be had is recorded with the reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from evalrun.frozen import frozen
from evalrun.secrets import scrub, scrub_url

TIMEOUT_S = 2.0
DIFF_BYTES = 500_000
UNTRACKED_FILES = 200
UNTRACKED_BYTES = 5_000_000
"""Untracked files are hashed up to this size altogether; beyond it only their names and sizes are kept."""

_GIT = (
    "git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", "-c", "color.ui=false",
    "-c", "core.pager=cat",
)  # fmt: skip


@frozen
class _Answer:
    """What a git command wrote. `total` and `sha256` speak of all of it, `text` of the part that was kept."""

    text: str
    total: int
    sha256: str
    fault: str = ""


def git_state(folder: Path) -> dict[str, Any]:
    """The repository that `folder` is in, as JSON; `{"unavailable": reason}` where there is none.

    The diff is that of tracked files against the last commit, scrubbed of secrets and cut to 500 kB; its
    SHA-256 is that of the whole, unscrubbed diff.
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top.fault:
        return {"unavailable": top.fault}
    root = Path(top.text.rstrip("\n"))
    with ThreadPoolExecutor(4, "evalrun-git") as threads:
        status = threads.submit(
            _git, root, "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=all"
        )
        diff = threads.submit(
            _git, root, "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--submodule=short"
        )
        remote = threads.submit(_git, root, "config", "--get-regexp", r"^remote\..*\.url$")
        head = threads.submit(_git, root, "rev-parse", "HEAD")
    state: dict[str, Any] = {
        "commit": None if head.result().fault else head.result().text.strip(),
        "remote": _remote(remote.result()),
        **_status(root, status.result()),
    }
    return state | _diff(diff.result(), has_commit=state["commit"] is not None)


def _status(root: Path, answer: _Answer) -> dict[str, Any]:
    if answer.fault:
        return {"branch": None, "dirty": None, "untracked": [], "status_unavailable": answer.fault}
    branch, changed, untracked = None, 0, []
    entries = iter(answer.text.split("\0"))
    for entry in entries:
        if entry.startswith("# branch.head "):
            branch = entry.removeprefix("# branch.head ")
        elif entry.startswith("? "):
            untracked.append(entry[2:])
        elif entry[:2] in {"1 ", "2 ", "u "}:
            changed += 1
            if entry[0] == "2":
                next(entries, None)  # a rename is followed by its old name
    return {
        "branch": branch,
        "dirty": changed > 0,
        "changed_files": changed,
        "untracked_files": len(untracked),
        "untracked": _hashed(root, sorted(untracked)[:UNTRACKED_FILES]),
    }


def _hashed(root: Path, names: list[str]) -> list[dict[str, Any]]:
    left = UNTRACKED_BYTES
    found = []
    for name in names:
        entry: dict[str, Any] = {"path": scrub(name)}
        with contextlib.suppress(OSError):
            path = root / name
            if path.is_file() and not path.is_symlink():
                entry["bytes"] = path.stat().st_size
                if entry["bytes"] <= left:
                    left -= entry["bytes"]
                    entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        found.append(entry)
    return found


def _diff(answer: _Answer, *, has_commit: bool) -> dict[str, Any]:
    if answer.fault:
        reason = answer.fault if has_commit else "there is no commit yet"
        return {"diff": None, "diff_unavailable": reason}
    if not answer.total:
        return {"diff": None}
    text = scrub(answer.text)
    return {
        "diff": {
            "text": text,
            "sha256": answer.sha256,
            "bytes": answer.total,
            "truncated": answer.total > DIFF_BYTES,
        }
    }


def _remote(answer: _Answer) -> str | None:
    """The URL of `origin`, else of the first remote."""
    urls = dict(line.split(" ", 1) for line in answer.text.splitlines() if " " in line)
    if answer.fault or not urls:
        return None
    return scrub_url(urls.get("remote.origin.url", next(iter(urls.values()))))


def _git(folder: Path, *arguments: str) -> _Answer:
    # Inside a git hook, GIT_DIR and the like would name another repository than the suite's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    # Into files: a child that git left behind would keep a pipe open, and a long diff would take memory.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                [*_GIT, *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=complaints,
                start_new_session=True,
            )
        except OSError as error:
            return _Answer("", 0, "", f"git cannot be started: {error.strerror or error}")
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return _Answer("", 0, "", f"git did not answer within {TIMEOUT_S:g} s")
        finally:
            if process.returncode is None:
                _end(process)
        output.seek(0)
        complaints.seek(0)
        if code:
            complaint = complaints.read(2000).decode("utf-8", "replace").strip()
            fault = scrub(complaint.splitlines()[0]) if complaint else f"git failed ({code})"
            return _Answer("", 0, "", fault)
        sha256 = hashlib.file_digest(output, "sha256").hexdigest()
        total = output.tell()
        output.seek(0)
        kept = output.read(DIFF_BYTES)
    if total > len(kept):
        # Cut between lines, so that no half of a secret is left over unrecognised.
        kept = kept[: kept.rfind(b"\n") + 1]
    return _Answer(kept.decode("utf-8", "replace"), total, sha256)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End git, and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
