"""The help names every command once, under a section, within 80 columns."""

from __future__ import annotations

from click.testing import CliRunner

from evalrun.cli.main import COMMANDS, DAILY, SECTIONS, cli


def test_every_command_stands_in_the_help_once() -> None:
    assert {section for _, section, _ in COMMANDS.values()} == set(SECTIONS)
    text = CliRunner().invoke(cli, ["help", "all"], terminal_width=80).output
    listed = [line.split()[0] for line in text.splitlines() if line.startswith("  ") and line.strip()]
    assert [name for name in COMMANDS if listed.count(name) != 1] == []
    assert max(map(len, text.splitlines())) <= 80


def test_the_sections_come_in_their_order() -> None:
    lines = CliRunner().invoke(cli, ["help", "all"]).output.splitlines()
    assert [line for line in lines if line.rstrip(":") in SECTIONS] == [f"{name}:" for name in SECTIONS]


def test_the_first_help_is_one_screen_and_leads_on() -> None:
    lines = CliRunner().invoke(cli, ["--help"], terminal_width=80).output.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in DAILY] == [*DAILY]
    assert "`evalrun help all`" in "\n".join(lines)
    # What is asked for all does not stay for the next one.
    assert CliRunner().invoke(cli, ["help"], terminal_width=80).output.splitlines() == lines


def test_help_of_a_command_is_its_own() -> None:
    said = CliRunner().invoke(cli, ["help", "models", "pull"], terminal_width=80).output
    assert said == CliRunner().invoke(cli, ["models", "pull", "--help"], terminal_width=80).output.replace(
        "cli ", "cli "
    )
