"""What a runner of GitHub Actions or GitLab does with a job, as far as the jobs of the docs use it.

A job begins in a clean folder with the repository in it; shell steps run by `bash -e`; a step after one that
failed runs only with `if: always()`; a cache is found by its key or the newest with a prefix of it, and is
never written twice under one key. `pip install` installs nothing: what it was asked for is kept.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).parents[1] / "docs" / "ci.md"


def documented(section: str) -> dict[Any, Any]:
    """The YAML of the job in a section of docs/ci.md."""
    text = DOCS.read_text().split(f"\n### {section}\n", 1)[1]
    found = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert found is not None
    document = yaml.safe_load(found[1])
    assert isinstance(document, dict)
    return document


@dataclass
class Night:
    """What came of one job."""

    failed: bool = False
    output: str = ""
    artifacts: dict[str, str] = field(default_factory=dict)


class Runner:
    """Keeps caches from job to job; each job has a folder of its own that is gone afterwards."""

    def __init__(self, root: Path, repository: Path, variables: Mapping[str, str]) -> None:
        self._root, self._repository, self._variables = root, repository, variables
        self._caches: dict[str, Path] = {}
        self._count = 0
        self.installed: list[str] = []
        self._bin = root / "bin"
        self._bin.mkdir(parents=True)
        self._script("evalrun", f'exec {sys.executable} -m evalrun "$@"')
        self._script("pip", f'echo "$@" >> {root}/installed')

    def github(self, document: Mapping[Any, Any]) -> Night:
        """One run of the only job of a workflow."""
        (job,) = document["jobs"].values()
        night, folder = Night(), self._clean_folder()
        given = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
        for step in job["steps"]:
            if night.failed and step.get("if") != "always()":
                continue
            kind = str(step.get("uses", "")).partition("@")[0]
            options = {key: self._said(value) for key, value in (step.get("with") or {}).items()}
            environment = {key: self._said(value) for key, value in (step.get("env") or {}).items()}
            if "run" in step:
                self._shell(self._said(step["run"]), folder, {**given, **environment}, night)
            elif kind == "actions/cache/restore":
                self._restore(folder, options["path"], options["key"], options.get("restore-keys", ""))
            elif kind == "actions/cache/save":
                self._save(folder, options["path"], options["key"])
            elif kind == "actions/upload-artifact":
                self._upload(folder, options["path"].split(), night)
            else:
                assert kind in ("actions/checkout", "actions/setup-python"), kind
        shutil.rmtree(folder)
        return night

    def gitlab(self, document: Mapping[Any, Any]) -> Night:
        """One run of the only job of a pipeline; all lines of its script are one shell."""
        (job,) = document.values()
        night, folder = Night(), self._clean_folder()
        cache, artifacts = job["cache"], job["artifacts"]
        for path in cache["paths"]:
            self._restore(folder, path, cache["key"], "")
        self._shell("\n".join(job["script"]), folder, {"CI": "true", **self._variables}, night)
        if not night.failed or cache.get("when") == "always":
            for path in cache["paths"]:
                self._caches.pop(cache["key"], None)  # GitLab's are written again
                self._save(folder, path, cache["key"])
        if not night.failed or artifacts.get("when") == "always":
            self._upload(folder, artifacts["paths"], night)
        shutil.rmtree(folder)
        return night

    def store(self) -> Path:
        """The newest store that was kept."""
        return list(self._caches.values())[-1]

    def _script(self, name: str, text: str) -> None:
        path = self._bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def _clean_folder(self) -> Path:
        self._count += 1
        folder = self._root / f"job{self._count}"
        shutil.copytree(self._repository, folder)
        return folder

    def _said(self, text: object) -> str:
        """A text with its expressions in the place of them."""
        known = {"github.run_id": str(1000 + self._count), "github.run_attempt": "1"}
        known |= {f"secrets.{name}": value for name, value in self._variables.items()}
        return re.sub(r"\$\{\{\s*([\w.]+)\s*\}\}", lambda found: known[found[1]], str(text))

    def _shell(self, script: str, folder: Path, more: Mapping[str, str], night: Night) -> None:
        names = ("PYTHON", "EVALRUN_CACHE")  # without a cache each job would make the charts' JavaScript anew
        kept = {name: value for name, value in os.environ.items() if name.startswith(names)}
        environment = {**kept, "PATH": f"{self._bin}:{os.environ['PATH']}", "HOME": str(folder), **more}
        done = subprocess.run(
            ["bash", "-e", "-c", script], cwd=folder, env=environment, capture_output=True, text=True,
            timeout=240, check=False,
        )  # fmt: skip
        night.output += done.stdout + done.stderr
        night.failed = night.failed or done.returncode != 0
        asked = self._root / "installed"
        self.installed = asked.read_text().splitlines() if asked.exists() else []

    def _restore(self, folder: Path, path: str, key: str, prefixes: str) -> None:
        keys = [each for each in self._caches if each == key]
        for prefix in prefixes.split():
            keys += [each for each in reversed(self._caches) if each.startswith(prefix)]
        if keys:
            shutil.copytree(self._caches[keys[0]], folder / path)

    def _save(self, folder: Path, path: str, key: str) -> None:
        if key in self._caches or not (folder / path).exists():
            return
        kept = self._root / "caches" / f"{len(list(self._root.glob('caches/*')))}"
        shutil.copytree(folder / path, kept)
        self._caches[key] = kept

    def _upload(self, folder: Path, paths: list[str], night: Night) -> None:
        for path in paths:
            if (folder / path).is_file():
                night.artifacts[path] = (folder / path).read_text()
