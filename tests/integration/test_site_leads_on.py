"""A site of several sweeps of one name: they are told apart, and every point and id leads to a report."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.browser import Opened, needs_browser, until
from tests.program import evalrun
from tests.recorded import recorded_suite, yes_no


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, charts_cache: Path) -> Path:
    """Three sweeps of one name; processes of their own, since this one's loop is the browser driver's."""
    folder = tmp_path_factory.mktemp("project")

    def evalrun(*words: str | Path) -> None:
        command = [sys.executable, "-m", "evalrun", *words]
        env = {**os.environ, "EVALRUN_CACHE": str(charts_cache)}
        subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)

    for share in (3, 4, 5):
        suite = recorded_suite(folder, yes_no([at % share > 0 for at in range(60)]), ["m"])
        evalrun(suite, "--no-report", "--quiet")
    evalrun("site", "site")
    return folder / "site"


def links(page: Path) -> list[Path]:
    text = page.read_text("utf-8")
    return [(page.parent / link).resolve() for link in re.findall(r'href="([^"#:]+\.html)"', text)]


def test_every_page_leads_on_and_sweeps_of_one_name_are_told_apart(site: Path) -> None:
    index = (site / "index.html").read_text("utf-8")
    assert [f'<span class="quiet">#{number}</span>' in index for number in (1, 2, 3)] == [True] * 3
    label = re.search(r'spark-label">(.*?)</span>', index)
    assert label is not None and "exact_match of p · m · d" in label[1] and "in 3 sweeps" in label[1]
    reports = {path.resolve() for path in (site / "sweeps").glob("*.html")}
    assert len(reports) == 3
    for page in (site / "index.html", *site.glob("projects/*.html"), *site.glob("trends/*.html")):
        assert all(link.exists() for link in links(page)), page
        assert reports <= set(links(page)), page


class TestInABrowser:
    pytestmark = needs_browser

    def test_a_point_of_a_trend_leads_to_its_report(self, site: Path, opened: Opened) -> None:
        [trend] = site.glob("trends/*.html")
        page = opened.open(trend, samples=False)
        page.locator(".plot svg a, .plot svg .mark-symbol path").last.click()
        until(page, "location.pathname.includes('/sweeps/')")
        opened.assert_quiet()


def test_pages_of_a_project_that_did_not_change_are_left_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "one", "two", "two"):
        suite = recorded_suite(tmp_path, yes_no([True, False] * 5), ["m"], name=name)
        assert evalrun(suite, "-q", "--no-report", "--fresh").returncode == 0
    assert evalrun("site", "out").returncode == 0

    def written() -> dict[str, int]:
        return {
            str(path.relative_to("out")): path.stat().st_ino
            for path in Path("out").rglob("*.html")
            if path.parent.name in ("projects", "trends")
        }

    before = written()
    assert len(before) == 4
    assert evalrun("tag", "latest", "kept=yes").returncode == 0
    assert evalrun("site", "out").returncode == 0
    changed = {name for name, inode in written().items() if inode != before[name]}
    assert changed == {"projects/two.html", "trends/two.html"}
    assert "kept=yes" in Path("out/projects/two.html").read_text()
