"""The tables of coverage that the docs quote: where they stand, and what a cell says."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_tables", ROOT / "benchmarks" / "coverage.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["coverage_tables"] = module
    spec.loader.exec_module(module)
    return module


def test_a_table_is_written_between_its_marks(coverage: ModuleType) -> None:
    page = f"before\n{coverage.MORE}\nafter\n"
    once = coverage.with_table(page, "means", "| a |\n")
    assert once.startswith("before\n<!-- coverage.py: means -->\n\n| a |")
    again = coverage.with_table(once, "means", "| b |\n")
    assert "| a |" not in again and again.count("coverage.py: means") == 2
    assert again.endswith(f"{coverage.MORE}\nafter\n")
    with pytest.raises(SystemExit):
        coverage.with_table("no mark", "means", "| a |\n")


def test_a_cell_says_how_often_the_truth_was_held_and_whether_a_note_stood_there(
    coverage: ModuleType,
) -> None:
    tally = coverage.Tally()
    for low, note in ((0.0, ""), (0.0, "beware"), (0.6, "beware"), (None, "beware")):
        tally.add(low, None if low is None else 1.0, 0.5, note)
    assert tally.cell() == "67\\*"
    silent = coverage.Tally(held=3, had=4, noted=1, all=4)
    assert silent.cell() == "75"
    assert coverage.Tally(held=1, had=1, noted=0, all=4).cell() == ""


def test_the_page_quotes_every_table(coverage: ModuleType) -> None:
    page = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    for name in coverage.TABLES:
        assert page.count(coverage.MARK.format(name=name)) == 2, (
            f"benchmarks/coverage.py --only {name} --docs"
        )


def test_a_table_is_the_same_for_the_same_seed(coverage: ModuleType) -> None:
    first, second = (coverage.TABLES["paired"](np.random.default_rng(3), 3).markdown() for _ in range(2))
    assert first == second and "| data | n = 10 |" in first
