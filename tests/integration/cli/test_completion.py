"""Completion in real shells, and help that names what was meant."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evalrun.cli.main import COMMANDS

BASH = shutil.which("bash")


def evalrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "evalrun", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str) -> None:
    done = evalrun("completion", shell)
    assert done.returncode == 0 and f"{shell}_complete" in done.stdout


@pytest.mark.skipif(BASH is None, reason="there is no bash on this machine")
def test_bash_completes_commands_options_choices_and_suites(project: Path) -> None:
    (project / "nightly.yaml").write_text("name: x\n")
    (project / "bin").mkdir()
    program = project / "bin" / "evalrun"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m evalrun "$@"\n')
    program.chmod(0o755)
    (project / "completion").write_text(evalrun("completion", "bash").stdout)
    lines = ["evalrun prom", "evalrun ", "evalrun trend --met", "evalrun nightly.yaml --ba",
             "evalrun gate --inconclusive ", "evalrun nigh"]  # fmt: skip
    script = "\n".join(
        [
            "source ./completion",
            'ask() { COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=();'
            ' _evalrun_completion evalrun; echo "${COMPREPLY[*]}"; }',
            *("ask " + " ".join(f"'{word}'" for word in line.split(" ")) for line in lines),
        ]
    )
    path = f"{project / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    done = subprocess.run([BASH, "--norc", "-c", script], capture_output=True, text=True, env=environment)  # type: ignore[list-item]
    found = done.stdout.splitlines()
    assert found[0] == "promote", done.stderr
    assert set(COMMANDS) | {"nightly.yaml"} == set(found[1].split())
    assert found[2:] == ["--metric", "--baseline", "warn fail", "nightly.yaml"]


def test_what_was_mistyped_is_named() -> None:
    assert "Did you mean 'promote'?" in evalrun("promot").stderr
    said = evalrun("trend", "--metrc", "x")
    assert said.returncode == 2 and "--metric" in said.stderr


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_there_and_says_what_it_does(name: str) -> None:
    import click

    from evalrun.cli.main import cli

    command = cli.get_command(click.Context(cli), name)
    assert command is not None and command.help
