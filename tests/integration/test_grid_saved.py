"""What a reader does with a report beside looking: saving the rows in sight, and reading it on a phone."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.browser import Opened, browser, needs_browser, opened, until  # noqa: F401
from tests.recorded import recorded_suite, yes_no

pytestmark = needs_browser
FORMULA = '=HYPERLINK("http://x.example","a")'


@pytest.fixture
def report(project: Path) -> Path:
    """Two runs of twelve rows: `m` is wrong in three, and says a formula in one of these."""
    rows = yes_no([at % 4 > 0 for at in range(12)], other=["yes"] * 12)
    rows[0]["m"] = FORMULA
    suite = recorded_suite(project, rows, ["m", "other"])
    command = [sys.executable, "-m", "evalrun", str(suite), "--quiet", "--report", "r.html"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return project / "r.html"


def saved(page: Opened, kind: str, button: str, to: Path) -> str:
    page.page.click(f"#chips [data-kind={kind}]")
    with page.page.expect_download() as download:
        page.page.click(button)
    download.value.save_as(to)
    return to.read_text("utf-8-sig")


def test_the_rows_in_sight_are_saved_and_of_a_filter_only_what_it_means(
    report: Path,
    opened: Opened,  # noqa: F811
    tmp_path: Path,
) -> None:
    page = opened.open(report, charts=False)
    everything = [
        json.loads(line) for line in saved(opened, "all", "#save-jsonl", tmp_path / "a").splitlines()
    ]
    assert len(everything) == 24 and {line["run"] for line in everything} == {"m-p-d", "other-p-d"}
    [first] = [line for line in everything if (line["run"], line["sample_id"]) == ("m-p-d", "s0000")]
    assert first["output"] == FORMULA and first["score.exact_match"] == 0
    wrong = [*csv.DictReader(saved(opened, "wrong", "#save-csv", tmp_path / "b").splitlines())]
    assert [(line["run"], line["sample_id"]) for line in wrong] == [
        ("m-p-d", f"s{at:04d}") for at in (0, 4, 8)
    ]
    assert wrong[0]["output"] == f"'{FORMULA}", "no spreadsheet takes it for a formula"
    page.fill("#search", "s0004")
    until(page, "document.querySelector('#found').textContent.startsWith('1 of')")
    assert len(saved(opened, "wrong", "#save-jsonl", tmp_path / "c").splitlines()) == 1
    opened.assert_quiet()


def test_on_a_phone_sections_are_folded_and_links_unfold_them(report: Path, opened: Opened) -> None:  # noqa: F811
    opened.page.set_viewport_size({"width": 360, "height": 740})
    page = opened.open(report, charts=False, samples=False)
    height = page.evaluate("document.documentElement.scrollHeight")
    assert height < 3000 and not page.is_visible("#leaderboard table")
    page.click("nav a[href='#leaderboard']")
    assert page.is_visible("#leaderboard table")
    assert page.get_attribute("#leaderboard h2 button", "aria-expanded") == "true"
    page.click("#samples h2 button")
    page.wait_for_selector("#grid .grid-row")
    page.evaluate("for (const each of document.querySelectorAll('section.folded h2 button')) each.click()")
    assert page.evaluate("document.documentElement.scrollWidth") == 360, "nothing is wider than the screen"
    page.set_viewport_size({"width": 1440, "height": 900})
    assert page.evaluate("document.querySelectorAll('h2 button, section.folded').length") == 0
    opened.assert_quiet()
