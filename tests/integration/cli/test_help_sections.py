"""The help names every command once, under a section, within 80 columns."""

from __future__ import annotations

from click.testing import CliRunner

from evalrun.cli.main import COMMANDS, SECTIONS, cli


def test_every_command_stands_in_the_help_once() -> None:
    assert {section for _, section, _ in COMMANDS.values()} == set(SECTIONS)
    text = CliRunner().invoke(cli, ["--help"], terminal_width=80).output
    listed = [line.split()[0] for line in text.splitlines() if line.startswith("  ") and line.strip()]
    assert [name for name in COMMANDS if listed.count(name) != 1] == []
    assert max(map(len, text.splitlines())) <= 80


def test_the_sections_come_in_their_order() -> None:
    lines = CliRunner().invoke(cli, ["--help"]).output.splitlines()
    assert [line for line in lines if line.rstrip(":") in SECTIONS] == [f"{name}:" for name in SECTIONS]
