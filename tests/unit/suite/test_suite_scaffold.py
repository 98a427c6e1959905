"""What `evalrun init` writes loads with the package's own providers, parsers and scorers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import orjson
import pytest
from mini_json_schema import fits

from evalrun import registry
from evalrun.errors import UserError
from evalrun.suite.load import load_suite
from evalrun.suite.plan import cells
from evalrun.suite.scaffold import write_scaffold


@pytest.fixture(autouse=True)
def built_in(monkeypatch: pytest.MonkeyPatch, parts: None) -> None:
    """The package's registry again, in place of the tests' own."""
    monkeypatch.setattr(registry, "BUILT_IN", {})


def test_it_loads_and_plans(tmp_path: Path) -> None:
    written = write_scaffold(tmp_path / "new" / "folder")
    loaded = load_suite(written[0])
    assert [cell.run_id for cell in cells(loaded.suite)] == [
        "smollm2-plain-reviews",
        "smollm2-examples-reviews",
    ]
    assert loaded.suite.models[0].provider == "llamacpp"


def test_the_suite_fits_the_schema_beside_it(tmp_path: Path) -> None:
    write_scaffold(tmp_path)
    first = (tmp_path / "suite.yaml").read_text().splitlines()[0]
    name = first.removeprefix("# yaml-language-server: $schema=")
    schema = orjson.loads((tmp_path / name).read_bytes())
    document = load_suite(tmp_path / "suite.yaml").tree.plain()
    assert fits(document, schema, schema)


def test_the_rows_are_balanced_and_have_what_the_suite_names(tmp_path: Path) -> None:
    write_scaffold(tmp_path)
    rows = [orjson.loads(line) for line in (tmp_path / "data" / "reviews.jsonl").read_bytes().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows) == 20
    assert set(Counter(row["label"] for row in rows).values()) == {10}
    assert set(Counter(row["channel"] for row in rows).values()) == {10}
    assert {"id", "text", "channel", "label"} == set(rows[0])


def test_existing_files_are_kept_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "plain.j2").write_text("mine")
    with pytest.raises(UserError, match=r"plain\.j2: the file exists already"):
        write_scaffold(tmp_path)
    assert (tmp_path / "prompts" / "plain.j2").read_text() == "mine"
    assert not (tmp_path / "suite.yaml").exists()


def test_a_folder_that_cannot_be_made_is_an_error_without_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_scaffold(tmp_path / "file" / "below")
