"""The references in docs/ are made from the code; they must be made again when it changes."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from evalrun.cli.main import cli
from evalrun.cli.start import PAGES
from evalrun.errors import UserError

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("page", PAGES)
def test_the_file_is_what_the_command_prints(page: str) -> None:
    printed = CliRunner().invoke(cli, ["docs", page], catch_exceptions=False).output
    assert (ROOT / "docs" / PAGES[page][0]).read_text() == printed, "run: evalrun docs --out docs"


def test_the_schema_has_a_command_of_its_own() -> None:
    printed = CliRunner().invoke(cli, ["schema"], catch_exceptions=False).output
    assert (ROOT / "docs" / "suite.schema.json").read_text() == printed


def test_all_are_made_by_one_command_that_also_says_what_is_stale(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    whole = ["docs", "--out", str(folder)]
    CliRunner().invoke(cli, whole, catch_exceptions=False)
    assert {path.name for path in folder.iterdir()} == {file for file, _ in PAGES.values()}
    assert CliRunner().invoke(cli, [*whole, "--check"], catch_exceptions=False).exit_code == 0
    (folder / "metrics.md").write_text("old")
    done = CliRunner().invoke(cli, [*whole, "--check"])
    assert isinstance(done.exception, UserError)
    assert [problem.what for problem in done.exception.problems] == [
        f"not as the code has it: {folder / 'metrics.md'}"
    ]
    assert (folder / "metrics.md").read_text() == "old"


def test_all_need_a_folder() -> None:
    assert isinstance(CliRunner().invoke(cli, ["docs"]).exception, UserError)
