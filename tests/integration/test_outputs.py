"""Where a report, a summary or JUnit XML cannot go, that is said before anything is sent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from evalrun.cli.main import cli
from evalrun.errors import ExitCode, UserError


@pytest.fixture
def suite(project: Path) -> Path:
    """A suite of recorded answers; beside it a file where a folder should be."""
    document = {
        "name": "s",
        "models": [{"id": "m", "provider": "recorded", "column": "out"}],
        "prompts": [{"id": "p", "text": "{{ q }}"}],
        "datasets": [{"id": "d", "rows": [{"q": "a", "out": "b", "t": "b"}], "target": "t"}],
        "scorers": ["exact_match"],
    }
    (project / "suite.yaml").write_text(yaml.safe_dump(document))
    (project / "file").write_text("")
    return project / "suite.yaml"


def invoke(*words: str) -> Result:
    return CliRunner().invoke(cli, ["suite.yaml", "--quiet", *words])


@pytest.mark.parametrize("option", ["--report", "--junit", "--summary"])
def test_a_file_in_the_way_of_a_folder(suite: Path, option: str) -> None:
    result = invoke(option, "file/x.html")
    assert isinstance(result.exception, UserError) and result.exception.exit_code is ExitCode.USAGE
    assert "file/x.html" in str(result.exception) and "is a file" in str(result.exception)
    assert not list((suite.parent / ".evalrun").glob("sweeps/*")), "nothing was run"


def test_folders_are_made(suite: Path) -> None:
    assert invoke("--report", "new/deep/report.html", "--summary", "more/summary.md").exit_code == 0
    assert (suite.parent / "new/deep/report.html").stat().st_size > 10_000
    assert (suite.parent / "more/summary.md").read_text()


def test_a_wrong_suite_leaves_no_folder(suite: Path) -> None:
    suite.write_text("name: s\n")
    assert isinstance(invoke().exception, UserError)
    assert not (suite.parent / "reports").exists()


def test_a_report_that_cannot_be_written_is_told_after_the_results(suite: Path) -> None:
    result = invoke("--report", "/proc/report.html")
    assert result.exit_code == ExitCode.INCOMPLETE
    assert "exact_match" in result.stdout, "the results are shown"
    assert "error: /proc: cannot write here" in result.stderr


def test_a_plain_sweep_with_its_report_imports_no_slow_library(suite: Path) -> None:
    code = (
        "import sys\n"
        "from evalrun.cli.main import main\n"
        "sys.argv = ['evalrun', 'suite.yaml', '--quiet']\n"
        "try:\n    main()\n"
        "finally:\n"
        "    slow = ('pandas', 'pyarrow.compute', 'scipy.stats', 'sklearn', 'datasets', 'duckdb', 'openai',\n"
        "            'sqlalchemy')\n"
        "    print('imported:', [name for name in slow if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "imported: []" in done.stderr
