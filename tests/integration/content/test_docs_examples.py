"""Every YAML block, every command and every Python block in README and docs works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))

from doc_blocks import ROOT, Block, Command, blocks
from doc_world import World, write_files, write_modules
from tests.program import evalrun
from tests.servers import ChatServer

from evalrun.cli.main import cli
from evalrun.providers.python_function import RESULT_FIELDS, FunctionInput
from evalrun.registry import entry_points_of
from evalrun.suite.schema import Suite

BLOCKS = blocks()
YAML = [block for block in BLOCKS if block.language in ("yaml", "yml")]
SHELL = [block for block in BLOCKS if any(each.words[0] == "evalrun" for each in block.commands)]
PYTHON = [block for block in BLOCKS if block.language == "python" and not block.text.startswith("# ")]
COMMANDS = [
    (block.place, command)
    for block in SHELL
    for command in block.commands
    if command.words[0] == "evalrun"
]  # fmt: skip
WHOLE = {"name", "models", "prompts", "datasets", "scorers"}

BASE: dict[str, Any] = {
    "name": "example",
    "models": [{"id": "recorded", "provider": "recorded", "column": "answer"}],
    "prompts": [{"id": "direct", "text": "Answer."}, {"id": "old_prompt", "text": "Say it."}],
    "datasets": [
        {"id": "tickets", "path": "data/tickets.jsonl", "key": "ticket_id", "target": "label",
         "sensitive": ["dialect"]}
    ],
    "scorers": ["exact_match"],
}  # fmt: skip
"""What a part of a suite is completed with."""

SERVED = {
    "id": "served",
    "provider": "openai_compatible",
    "base_url": "http://127.0.0.1:9/v1",
    "api": "completions",
}
"""The model where an example needs one over a network; a plan sends it nothing."""

EMBEDDED = {"id": "smollm2", "provider": "llamacpp", "model": "smollm2-135m-instruct"}
"""The model where an example sets an engine."""

SPOKEN_OF: dict[str, Any] = {
    "models": [*BASE["models"], {**BASE["models"][0], "id": "served"}],
    "scorers": ["exact_match", "classification"],
    "fairness": {"by": ["dialect"]},
}
"""What gates and alerts of the docs speak of."""

ELSEWHERE = (
    "evalrun models pull",  # the network
    "evalrun calibrate",  # ten seconds of both cores
    "evalrun catalog use postgresql",  # a database
    "evalrun store create --mode group",  # a group of the system
    "evalrun store --store /data/evals",
    "evalrun load suite.yaml --rates",  # minutes: a schedule is kept, whatever the server
    "evalrun load suite.yaml --search",
    "evalrun watch",  # a training
    "evalrun probe",  # a deployment
    "evalrun experiment",  # its users
    "evalrun serve",  # these need a server, or its extra
    "evalrun queue",
    "evalrun push",
    "evalrun pull",
    "evalrun user",
    "evalrun token",
    "evalrun suite.yaml --on",  # a cluster
    "evalrun suite.yaml --push",
    "evalrun sign",  # somebody's key
    "evalrun attest",
    "evalrun card",  # its output goes to a file, by the shell
    "evalrun audit verify latest --signers",
    "evalrun explain",  # a server that gives log-probabilities of prompts
    "evalrun import",  # files of other tools
    "evalrun traffic import",  # traces
    "evalrun drift",  # what they are compared with
    "evalrun feedback import",  # what users said
    "evalrun search suites/search.yaml",  # the Hub
    "evalrun suites/crows_pairs.yaml",  # a server that gives log-probabilities of prompts
)
"""Beginnings of commands that are not run here but only read. The tests of these commands run them."""


def _id(block: Block) -> str:
    return block.place


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The modules that extending.md shows, where Python finds them."""
    folder = tmp_path_factory.mktemp("modules")
    write_modules(BLOCKS, folder)
    sys.path.insert(0, str(folder))
    entry_points_of.cache_clear()
    yield folder
    sys.path.remove(str(folder))
    entry_points_of.cache_clear()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ChatServer() as server, pytest.MonkeyPatch.context() as patch:
        patch.delenv("EVALRUN_STORE", raising=False)
        patch.setenv("NO_COLOR", "1")
        made = World(tmp_path_factory.mktemp("world"), server)
        made.make()
        yield made


@pytest.mark.parametrize("block", YAML, ids=_id)
def test_a_yaml_block_is_part_of_a_suite_that_can_be_planned(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: Path
) -> None:
    document = yaml.safe_load(block.text)
    assert isinstance(document, dict), "show the key as well, so that readers know where the lines belong"
    if any(isinstance(job, dict) and "script" in job for job in document.values()):  # a GitLab pipeline
        return
    if "apiVersion" in document or "num_nodes" in document:  # of a cluster's launcher, tested where these are
        return
    if "jobs" in document:
        assert any("run" in step for job in document["jobs"].values() for step in job["steps"])
        return
    if "tasks" in document and find_spec("lm_eval") is None:
        pytest.skip("needs lm_eval (extra: lmeval)")
    unknown = set(document) - set(Suite.model_fields)
    assert not unknown, f"no keys of a suite: {sorted(unknown)}"
    for name in re.findall(r"(?<!\$)\$\{(\w+)\}|api_key_env: (\w+)", block.text):
        monkeypatch.setenv("".join(name), "https://example.org/hook")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    write_files(tmp_path)
    needs_server = any(key in block.text for key in ("ask:", "workers:"))
    base = {**BASE, "models": [SERVED]} if needs_server else BASE
    if "gates" in document or "alerts" in document:
        base = {**base, **SPOKEN_OF}
    if "explain" in document:
        base = {**base, "models": [EMBEDDED]}
    if "load" in document:
        engine = any(axis.startswith("model.") for axis in document.get("sweep", ()))
        base = {**base, "models": [EMBEDDED if engine else SERVED]}
    (tmp_path / "suites" / "suite.yaml").write_text(
        block.text if set(document) >= WHOLE else yaml.safe_dump({**base, **document})
    )
    here = [
        f"--data={each['id']}={tmp_path / 'path/to/test.jsonl'}"
        for each in document.get("datasets", [])
        if "hub" in each
    ]
    result = CliRunner().invoke(cli, ["plan", str(tmp_path / "suites" / "suite.yaml"), *here])
    assert result.exit_code == 0, result.exception


@pytest.mark.parametrize(
    ("place", "command"), COMMANDS, ids=[f"{place} {command.text}" for place, command in COMMANDS]
)
def test_a_command_is_one_that_evalrun_understands(place: str, command: Command) -> None:
    words = list(command.words[1:])
    if words and words[0].startswith("-"):
        assert words[0] in ("--help", "--version")
        return
    context = click.Context(cli, info_name="evalrun")
    name, found, rest = cli.resolve_command(context, words)
    assert found is not None, f"there is no command {name}"
    found.make_context(name, list(rest), parent=context)


@pytest.mark.parametrize("block", SHELL, ids=_id)
def test_the_commands_of_a_block_work_one_after_the_other(block: Block, world: World, tmp_path: Path) -> None:
    world.follow(block.commands, tmp_path / "here", ELSEWHERE)


@pytest.mark.parametrize("block", PYTHON, ids=_id)
def test_a_python_block_runs(
    block: Block, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.follow([], tmp_path / "here", ())
    monkeypatch.chdir(tmp_path / "here")
    # As a script: what the block defines is found again in the main module.
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec(compile(block.text, block.place, "exec"), main.__dict__)


def test_own_provider_parser_and_scorer_work_by_their_entry_points(
    world: World, modules: Path, tmp_path: Path
) -> None:
    suite = {
        **BASE,
        "models": [{"id": "echo", "provider": "echo", "prefix": "so: "}],
        "prompts": [{"id": "boxed", "text": r"\boxed{ {{ label }} }"}],
        "parse": ["boxed"],
        "scorers": ["exact_match", "length_ratio", {"python": "my_scores:short"}],
    }
    write_files(tmp_path)
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    done = subprocess.run(
        [sys.executable, "-m", "evalrun", "suite.yaml", "--json", "--no-report"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": str(modules)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    values = {each["name"]: each["value"] for each in run["metrics"] if not each["slice"]}
    assert (values["exact_match"], values["length_ratio"], values["short"]) == (1, 1, 1)


def test_the_application_that_the_docs_show_answers_as_a_model(modules: Path, project: Path) -> None:
    """Also that it may take everything that the page says it is given, and give back all it may."""
    (models,) = (block.text for block in YAML if "my_app:answer" in block.text)
    page = next(block for block in BLOCKS if "def answer(sample)" in block.text)
    said = (ROOT / "docs" / "extending.md").read_text().partition(page.text)[2].partition("## A parser")[0]
    given = {field.name for field in fields(FunctionInput)} | {"text"}
    assert [name for name in given | RESULT_FIELDS if f"`{name}`" not in said] == []
    suite = {
        **BASE,
        **yaml.safe_load(models),
        "prompts": [{"id": "p", "text": "Say {{ label }}"}],
        "datasets": [{"id": "d", "rows": [{"label": "no", "right": "NO"}], "target": "right"}],
    }
    (project / "suite.yaml").write_text(yaml.safe_dump(suite))
    done = evalrun("suite.yaml", "--json", "--no-report")
    assert done.returncode == 0, done.stderr
    rights = {run["model"]: run["metrics"][0]["value"] for run in json.loads(done.stdout)["runs"]}
    assert rights == {"app": 1, "long": 0}


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert [name for name in sorted(pages) if f"({name})" not in index] == []
    assert "docs/README.md" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", sorted({block.place.rpartition(":")[0] for block in BLOCKS}))
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", text):
        assert not target or (ROOT / page).parent.joinpath(target).exists(), target


def test_the_examples_are_found() -> None:
    assert len(YAML) > 20
    assert len(COMMANDS) > 50
    assert len(PYTHON) >= 2
