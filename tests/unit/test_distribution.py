"""How the project is installed. `evalrun` on PyPI is somebody else's package: to name it in an instruction
hands a stranger the reader's API keys."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (".py", ".md", ".yaml", ".yml", ".toml", ".j2", ".html", ".txt", ".json", ".sh", "run")
FOLDERS = ("src", "docs", "suites", "prompts", "benchmarks", ".ci", ".github")
STRANGERS = re.compile(
    r"""(pip3?|uv|pipx|poetry|conda)\s+(pip\s+)?(install|add|run)\s+[^\n|]*?(?<![\w./-])evalrun(?![\w./-])"""
    r"""|(?<![\w.-])evalrun\[(local|litellm|vllm|gpu|sql|postgres|text|dev)"""
)


def files() -> list[Path]:
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "pyproject.toml"]
    for folder in FOLDERS:
        found += [each for each in (ROOT / folder).rglob("*") if each.is_file() and each.name.endswith(TEXT)]
    return found


@pytest.mark.parametrize(
    ("text", "forbidden"),
    [
        ("- run: pip install evalrun", True),
        ("Run: pip install 'evalrun[vllm]'", True),
        ('pip install -q "evalrun[sql]>=0.1"', True),
        ("uv pip install evalrun==0.1", True),
        ("`evalrun[gpu]`", True),
        ("pip install evalrun-llm", False),
        ("pip install 'evalrun-llm[local]'", False),
        ('pip install -e ".[dev]"', False),
        ("pip install 'vllm>=0.16'", False),
    ],
)
def test_what_is_forbidden(text: str, forbidden: bool) -> None:
    assert bool(STRANGERS.search(text)) is forbidden


def test_nobody_is_told_to_install_a_strangers_package() -> None:
    seen = []
    for path in files():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            alone = re.split(r"&&|;", line)
            seen += [f"{path.relative_to(ROOT)}:{number}" for part in alone if STRANGERS.search(part)]
    assert seen == []


def test_the_distribution_has_a_name_of_its_own_and_the_command_stays() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == "evalrun-llm"
    assert project["scripts"] == {"evalrun": "evalrun.cli.main:main"}


def test_messages_name_what_the_extras_hold() -> None:
    """The version that a message asks for is the one that the package declares."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name in ("local", "litellm", "vllm", "gpu", "sql", "postgres", "text"):
        wanted = extras[name][0].partition(";")[0].strip()
        told = [
            path for path in (ROOT / "src").rglob("*.py") if f"pip install '{wanted}'" in path.read_text()
        ]
        assert told, wanted
