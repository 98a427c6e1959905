"""A suite's own code, edited between two sweeps: what old code answered or scored is not the new's.

Each case is one edit that turns the value of the suite's metric from 1 to 0.
"""

from __future__ import annotations

import importlib
import linecache
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from tests.program import evalrun
from tests.recorded import document_of, recorded_suite

FILES = {
    "app.py": """
        from pathlib import Path
        import wording
        def answer(sample):
            if sample.sample_id in ("s2", "s3") and not Path("ready").exists():
                raise RuntimeError("not ready")
            return sample.text
        def helped(sample):
            return wording.said(answer(sample))
    """,
    "wording.py": "def said(text):\n    return text\n",
    "scores.py": """
        from pydantic import BaseModel
        from evalrun.scoring.base import MetricInfo, Scorer, ScorerOptions
        from evalrun.types import Score
        from judging import same
        def plain(answer, target):
            return answer == target
        def helped(answer, target):
            return same(answer, target)
        class Whole(Scorer):
            Options = ScorerOptions
            name = "whole"
            def score(self, sample):
                return Score(float(len(sample.answer) == 3), "its length")
            @classmethod
            def describe(cls, name):
                return (MetricInfo(name, "score", "higher", "three letters"),)
    """,
    "judging.py": "import deeper\ndef same(one, other):\n    return (one == other) is deeper.RIGHT\n",
    "deeper.py": "RIGHT = True\n",
    "reading.py": """
        from cutting import cut
        def plain(text):
            return text
        def helped(text):
            return cut(text)
    """,
    "cutting.py": "def cut(text):\n    return text.strip()\n",
    "unrelated.py": "NOTHING = 0\n",
    "prompt.j2": "{% include 'part.j2' %}",
    "part.j2": "yes",
}  # fmt: skip


@dataclass(frozen=True)
class Edit:
    """What stands in `file` becomes something else. `parts` are the suite's sections that use the code."""

    file: str
    old: str
    new: str
    parts: dict[str, Any] = field(default_factory=dict)


def _scored_by(name: str) -> dict[str, Any]:
    return {"scorers": [{"python": f"scores:{name}"}]}


def _answered_by(name: str) -> dict[str, Any]:
    return {"models": [{"id": "m", "provider": "python", "function": f"app:{name}"}]}


SCORING = {
    "scorer": Edit("scores.py", "answer == target", "not (answer == target)", _scored_by("plain")),
    "scorer class": Edit("scores.py", "== 3", "== 300", _scored_by("Whole")),
    "module of a scorer": Edit("judging.py", "is deeper", "is not deeper", _scored_by("helped")),
    "module of a module": Edit("deeper.py", "True", "False", _scored_by("helped")),
    "parser": Edit("reading.py", "return text", "return text[1:]", {"parse": [{"python": "reading:plain"}]}),
    "module of a parser": Edit(
        "cutting.py", "text.strip()", "text.strip('y')", {"parse": [{"python": "reading:helped"}]}
    ),
}
ANSWERING = {
    "provider": Edit("app.py", "return sample.text", "return 'not ' + sample.text", _answered_by("answer")),
    "module of a provider": Edit("wording.py", "return text", "return 'not ' + text", _answered_by("helped")),
    "included template": Edit("part.j2", "yes", "anything else"),
}
CASES = {**SCORING, **ANSWERING}


class Beside:
    """The files beside a suite. In one process as in several, each sweep sees them as they are then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in FILES.items():
            (folder / name).write_text(dedent(text))

    def suite(self, edit: Edit) -> Path:
        rows = [{"id": f"s{at}", "want": "yes"} for at in range(4)]
        parts = {
            **_answered_by("answer"),
            "prompts": [{"id": "p", "file": "prompt.j2"}],
            "performance": {"warmup": 0, "retries": 0},
            "errors": {"tolerate": 0.25},
        }
        return recorded_suite(self.folder, rows, [], **{**parts, **edit.parts})

    def ready(self) -> None:
        """From now on the application answers every sample."""
        (self.folder / "ready").touch()

    def edit(self, edit: Edit) -> None:
        path = self.folder / edit.file
        assert edit.old in path.read_text()
        path.write_text(path.read_text().replace(edit.old, edit.new))
        self.forget()

    def forget(self) -> None:
        """What a process that begins anew has not imported."""
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(str(self.folder)):
                del sys.modules[name]
        importlib.invalidate_caches()
        linecache.clearcache()


@pytest.fixture
def beside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Beside]:
    monkeypatch.syspath_prepend(project)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # edits within a second look the same to Python
    for name in list(sys.modules):
        if f"{name}.py" in FILES:
            monkeypatch.delitem(sys.modules, name)
    files = Beside(project)
    yield files
    files.forget()


def value(document: dict[str, Any]) -> float:
    """The suite's metric."""
    (run,) = document["runs"]
    names = ("exact_match", "plain", "helped", "whole")
    (found,) = [each["value"] for each in run["metrics"] if each["name"] in names and not each["slice"]]
    return float(found)


def cases(known: dict[str, Edit]) -> list[Any]:
    """Parameters with names."""
    return [pytest.param(edit, id=name) for name, edit in known.items()]


@pytest.mark.parametrize("edit", cases(CASES))
def test_reuse_takes_over_nothing_that_old_code_made(beside: Beside, edit: Edit) -> None:
    beside.ready()
    suite = beside.suite(edit)
    assert value(document_of(suite, "--no-report")) == 1
    unchanged = evalrun(suite, "--no-report", "--reuse", "--fresh")
    assert "taken over" in unchanged.stderr
    beside.edit(edit)
    assert value(document_of(suite, "--no-report", "--reuse", "--fresh")) == 0


def test_code_that_nothing_imports_may_change(beside: Beside) -> None:
    beside.ready()
    suite = beside.suite(SCORING["module of a scorer"])
    document_of(suite, "--no-report")
    beside.edit(Edit("unrelated.py", "0", "1"))
    assert "taken over" in evalrun(suite, "--no-report", "--reuse", "--fresh").stderr


@pytest.mark.parametrize("edit", cases(CASES))
def test_the_lock_reports_it(beside: Beside, edit: Edit) -> None:
    beside.ready()
    suite = beside.suite(edit)
    assert evalrun("lock", suite).returncode == 0
    assert evalrun("lock", suite, "--check").returncode == 0
    assert evalrun(suite, "--no-report").returncode == 0
    beside.edit(edit)
    assert evalrun("lock", suite, "--check").returncode == 2
    refused = evalrun(suite, "--no-report", "--fresh")
    assert refused.returncode == 2
    assert "changed" in refused.stderr


@pytest.mark.parametrize("edit", cases(CASES))
def test_an_interrupted_sweep_of_old_code_is_not_resumed(beside: Beside, edit: Edit) -> None:
    suite = beside.suite(edit)
    interrupted = document_of(suite, "--no-report", code=3)
    beside.ready()
    beside.edit(edit)
    result = document_of(suite, "--no-report")
    assert not result["resumed"]
    assert result["sweep"] != interrupted["sweep"]
    assert value(result) == 0


def test_an_interrupted_sweep_of_the_same_code_is_resumed(beside: Beside) -> None:
    suite = beside.suite(SCORING["module of a scorer"])
    interrupted = document_of(suite, "--no-report", code=3)
    beside.ready()
    result = document_of(suite, "--no-report")
    assert result["resumed"]
    assert result["sweep"] == interrupted["sweep"]
    assert value(result) == 1


@pytest.mark.parametrize("edit", cases(ANSWERING))
def test_answers_of_old_code_do_not_come_from_the_cache(beside: Beside, edit: Edit) -> None:
    beside.ready()
    suite = beside.suite(edit)
    assert value(document_of(suite, "--no-report")) == 1
    assert document_of(suite, "--no-report", "--fresh")["runs"][0]["counts"]["cached"] == 4
    beside.edit(edit)
    result = document_of(suite, "--no-report", "--fresh")
    assert value(result) == 0
    assert result["runs"][0]["counts"]["cached"] == 0


@pytest.mark.parametrize("edit", cases(SCORING))
def test_answers_are_kept_where_only_their_scoring_changed(beside: Beside, edit: Edit) -> None:
    beside.ready()
    suite = beside.suite(edit)
    document_of(suite, "--no-report")
    beside.edit(edit)
    result = document_of(suite, "--no-report", "--fresh")
    assert value(result) == 0
    assert result["runs"][0]["counts"]["cached"] == 4
