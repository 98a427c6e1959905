"""Engines of our own share this machine's memory: in which order they are started, and which runs on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel
from tests.recorded import recorded_suite

from evalrun.providers.base import Provider
from evalrun.types import JSON, Request, Response

LOG = "ENGINE_LOG"


class NoOptions(BaseModel):
    """This engine takes none."""


class Engine(Provider):
    """A toy engine on this machine: writes down when it is started, asked and stopped."""

    Options: ClassVar[type[BaseModel]] = NoOptions
    summary: ClassVar[str] = "a toy"
    supports: ClassVar[frozenset[str]] = frozenset({"chat"})
    running = False

    @property
    def endpoint(self) -> str:
        return f"local:toy:{self.spec.id}"

    def _note(self, what: str) -> None:
        with Path(os.environ[LOG]).open("a") as log:
            log.write(f"{what} {self.spec.id}\n")

    async def start(self) -> None:
        if not self.running:
            self._note("start")
        self.running = True

    async def close(self) -> None:
        if self.running:
            self._note("stop")
        self.running = False

    def identity(self) -> dict[str, JSON]:
        return {"provider": "toy", "model": self.spec.id}

    async def generate(self, request: Request) -> Response:
        judging = "You grade" in str(request.messages)
        self._note("judge" if judging else "ask")
        return Response(output='{"grade": "correct"}' if judging else "yes")


def log_of(folder: Path, models: list[str], **parts: Any) -> list[str]:
    """What engines did, in order, repetitions once. Their provider is that of an installed package."""
    made = folder / "toy-1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (made / "entry_points.txt").write_text(f"[evalrun.providers]\ntoy = {__name__}:Engine\n")
    entries = [{"id": name, "provider": "toy"} for name in models]
    rows = [{"id": f"s{at}", "want": "yes"} for at in range(3)]
    suite = recorded_suite(folder, rows, [], models=entries, performance={"warmup": 0}, **parts)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "evalrun", suite, "--no-report", "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(root), str(folder)]),
             LOG: str(folder / "log")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["runs"]) == len(models)
    return [line for line, _ in groupby((folder / "log").read_text().splitlines())]


def test_a_model_that_also_judges_is_run_last_and_goes_on_to_judge(project: Path) -> None:
    """So one engine at a time is in memory, and the judge's is started once."""
    log = log_of(project, ["both", "other"], scorers=["exact_match", {"judge": {"model": "both"}}])
    assert log == [
        "start other", "ask other", "stop other", "start both", "ask both", "judge both", "stop both",
    ]  # fmt: skip


def test_engines_that_only_answer_are_run_as_the_suite_has_them(project: Path) -> None:
    log = log_of(project, ["both", "other"])
    assert log == ["start both", "ask both", "stop both", "start other", "ask other", "stop other"]
