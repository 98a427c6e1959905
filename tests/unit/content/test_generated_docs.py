"""The references in docs/ are made from the code; they must be made again when it changes."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from evalrun.cli.main import cli

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (["schema"], "docs/suite.schema.json"),
        (["docs", "suite"], "docs/suite-reference.md"),
        (["docs", "metrics"], "docs/metrics.md"),
    ],
)
def test_the_file_is_what_the_command_prints(command: list[str], file: str) -> None:
    printed = CliRunner().invoke(cli, command, catch_exceptions=False).output
    assert (ROOT / file).read_text() == printed, f"run: evalrun {' '.join(command)} --out {file}"
