"""Whoever asks a command for help is shown a line that can be typed."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from evalrun.cli.main import COMMANDS, cli

ELSEWHERE = {"run", "site", "completion"}
"""`run` has its examples in the help of the program; the others need none."""


def commands() -> Iterator[tuple[str, ...]]:
    context = click.Context(cli)
    for name in COMMANDS:
        yield (name,)
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            yield from ((name, each) for each in command.list_commands(context))


@pytest.mark.parametrize("path", [each for each in commands() if each[0] not in ELSEWHERE], ids=" ".join)
def test_the_help_of_a_command_shows_how_it_is_used(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, [*path, "--help"], terminal_width=80)
    assert done.exit_code == 0
    assert "evalrun " in done.output.partition("Options:")[0].partition("\n\n")[2]
    assert max(map(len, done.output.splitlines())) <= 100
