"""What looking at a store may import: a command that only shows what was concluded takes half a second."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from evalrun.cli.main import cli

SUITE = """
name: {column}
models: [{{id: m, provider: recorded, column: {column}}}]
prompts: [{{id: short, text: "{{{{ q }}}}"}}, {{id: long, text: "Please: {{{{ q }}}}"}}]
datasets: [{{id: d, path: rows.jsonl, key: id, target: target, sensitive: [team]}}]
fairness: {{by: [team]}}
scorers: [exact_match]
gates: ["exact_match >= 0.1"]
"""

ALWAYS = {
    "pandas", "scipy", "sklearn", "fairlearn", "pydantic", "jinja2", "sqlalchemy", "yaml", "aiohttp",
    "duckdb", "evalrun.reports.report", "evalrun.reports.page", "evalrun.suite.schema",
}  # fmt: skip
"""What none of them needs."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sweeps of two runs."""
    folder = tmp_path_factory.mktemp("looked-at")
    rows = [
        {"id": f"r{at}", "q": f"Is it {at}?", "target": "yes", "team": "ab"[at % 2],
         "old": "yes" if at < 40 else "no", "new": "yes" if at < 70 else "no"}
        for at in range(80)
    ]  # fmt: skip
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for column in ("old", "new"):
        suite = folder / f"{column}.yaml"
        suite.write_text(SUITE.format(column=column))
        words = [str(suite), "--store", str(folder / "store"), "--no-report", "--quiet"]
        assert CliRunner().invoke(cli, words, catch_exceptions=False).exit_code == 0
    return folder / "store"


@pytest.mark.parametrize(
    ("words", "also"),
    [
        (["show", "latest"], {"numpy", "pyarrow"}),
        (["list"], {"numpy", "pyarrow"}),
        (["compare", "old", "new"], {"pyarrow.compute"}),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",
)
def test_what_is_shown_needs_little(store: Path, words: list[str], also: set[str]) -> None:
    code = (
        "import sys\n"
        "from evalrun.cli.main import cli\n"
        f"cli.main([*{words!r}, '--store', {str(store)!r}], standalone_mode=False)\n"
        f"print(sorted({ALWAYS | also!r} & {{*sys.modules}}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "exact_match" in done.stdout
    assert done.stderr.splitlines()[-1] == "[]"
