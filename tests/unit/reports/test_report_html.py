"""The page as a file: whole, self-contained, harmless."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sweep_data import QUICKSTART, Cell, make_sweep

from evalrun.errors import UserError
from evalrun.reports import page
from evalrun.reports import page as page_frame
from evalrun.reports.report import write_report
from evalrun.tracking.folder import SweepFolder

pytestmark = pytest.mark.usefixtures("report_cache")

BAD = '"><script>window.hurt=1</script><img src=x onerror=alert(1)>\u202e\x1b[31m'


class Page(HTMLParser):
    """The parts of a page that matter here."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data

    def ids(self) -> set[str]:
        return {attributes["id"] or "" for _, attributes in self.tags if "id" in attributes}


def report(tmp_path: Path, *args: Any, **options: Any) -> Page:
    out = tmp_path / "report.html"
    write_report(make_sweep(tmp_path / "store", *args, **options), out)
    return Page(out)


def test_the_sections_are_there_in_their_order(tmp_path: Path) -> None:
    gate = {"gate": "exact_match >= 0.5", "run": QUICKSTART[0].run, "verdict": "pass", "value": 0.58}
    page = report(tmp_path, gates=[gate])
    names = "answer gates leaderboard speed fairness mistakes resources samples method provenance"
    places = [page.source.index(f'id="{name}"') for name in names.split()]
    assert places == sorted(places)
    text = " ".join(page.text.split())
    assert "few_shot scores highest: 0.58 [0.48, 0.68] exact_match (n = 96)" in text
    assert "36deb78a" in text and "b179c9523d0e" in text, "commit and weights"
    assert "Share of samples" in text, "definitions"
    assert "regex(pattern=Label: (\\w+))" in text, "the parser chain"


def test_sections_without_data_are_left_out_or_say_why(tmp_path: Path) -> None:
    page = report(tmp_path, [Cell("m", "p", e2e_s=None)], by=(), scorers=[{"exact_match": {}}])
    assert not {"gates", "resources", "mistakes"} & page.ids()
    text = " ".join(page.text.split())
    assert "nothing was timed in this sweep" in text
    assert "The suite names no column to compare groups by" in text


def test_nothing_is_fetched_and_the_policy_names_the_scripts(tmp_path: Path) -> None:
    page = report(tmp_path)
    assert not [tag for tag, attributes in page.tags if "src" in attributes]
    links = [attributes.get("href") or "" for tag, attributes in page.tags if tag in ("a", "link")]
    assert all(link.startswith(("#", "data:,")) for link in links)
    (policy,) = (
        a["content"] or "" for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy and "http" not in policy
    running = [
        script
        for script, (_, attributes) in zip(
            page.scripts, [each for each in page.tags if each[0] == "script"], strict=True
        )
        if "type" not in attributes
    ]
    assert len(running) == 2
    for script in running:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert not re.search(r'\s(on\w+|style)="', page.source.split("<script", 1)[0]), (
        "no inline handlers or styles"
    )


def test_hostile_text_in_every_field_stays_text(tmp_path: Path) -> None:
    def change(record: dict[str, Any], _: Any) -> dict[str, Any]:
        record = {**record, "output": BAD, "answer": BAD, "sensitive": {"dialect": BAD}, "cluster": BAD}
        if record["position"] % 3 == 0:
            record |= {"status": "failed", "error": BAD, "scores": {}, "reasons": {}}
        return record

    gate = {"gate": BAD, "run": BAD, "verdict": "fail", "value": None, "reason": BAD}
    cells = [Cell("m<script>", "p<i>"), Cell("n<script>", "p<i>")]
    page = report(tmp_path, cells, n=60, change=change, gates=[gate], description=BAD, text=BAD)
    assert sum(tag == "script" for tag, _ in page.tags) == len(page.scripts)
    assert not any("window.hurt=1</script>" in script for script in page.scripts)
    assert not [tag for tag, _ in page.tags if tag in ("img", "i", "iframe")]
    for character in ("\u202e", "\x1b", "\x00"):
        assert character not in page.source
    assert "window.hurt=1" in page.text, "it is shown, not hidden"


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "store")
    write_report(folder, tmp_path / "a.html")
    write_report(SweepFolder(folder.path), tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert stat.S_IMODE((tmp_path / "a.html").stat().st_mode) == 0o644


def test_every_process_draws_the_same_resamples_of_clusters(tmp_path: Path) -> None:
    cells = [Cell("m", "p", accuracy=0.7), Cell("m", "q", accuracy=0.5), Cell("m", "r", accuracy=0.6)]
    folder = make_sweep(tmp_path / "store", cells, cluster=True)
    code = (
        "import sys, pathlib\n"
        "from evalrun.tracking.folder import SweepFolder\n"
        "from evalrun.reports.report import write_report\n"
        "write_report(SweepFolder(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2]))\n"
    )
    made = []
    for seed in ("1", "2"):  # hashes of texts differ from process to process by it
        out = tmp_path / f"{seed}.html"
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, folder.path, out], env=environment, check=True)
        made.append(out.read_bytes())
    assert made[0] == made[1]


def test_without_the_charts_javascript_the_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> str:
        raise UserError("the charts' JavaScript cannot be made: no room")

    monkeypatch.setattr(page_frame, "read_bundle", broken)
    page = report(tmp_path)
    assert "the charts' JavaScript cannot be made: no room" in page.text
    assert "few_shot" in page.text


def test_a_folder_without_any_result(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "store", status="interrupted")
    for run in folder.run_ids():
        (folder.path / "runs" / run / "run.json").unlink()
    write_report(folder, tmp_path / "out.html")
    page = Page(tmp_path / "out.html")
    assert "No run has results yet." in page.text
    assert "3 of 3 runs have no results" in page.text


def test_samples_that_are_gone_cost_only_the_samples(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "store")
    (folder.path / "runs" / QUICKSTART[0].run / "samples.parquet").unlink()
    write_report(folder, tmp_path / "out.html")
    assert "few_shot" in Page(tmp_path / "out.html").text


def test_repeated_samples_and_named_scorers(tmp_path: Path) -> None:
    page = report(tmp_path, scorers=[{"exact_match": {"name": "label_match"}}], cluster=True)
    assert "label_match (n = " in " ".join(page.text.split())
    assert "def-label_match" in page.ids()


def test_writing_imports_neither_pandas_nor_rich(tmp_path: Path) -> None:
    folder, out = make_sweep(tmp_path / "store"), tmp_path / "out.html"
    code = (
        "import sys, pathlib\n"
        "from evalrun.tracking.folder import SweepFolder\n"
        "from evalrun.reports.report import write_report\n"
        f"write_report(SweepFolder(pathlib.Path({str(folder.path)!r})), pathlib.Path({str(out)!r}))\n"
        "heavy = ('pandas', 'rich', 'vl_convert', 'fairlearn', 'scipy')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_bundle_is_made_once_and_is_safe_inside_a_page(report_cache: Path) -> None:
    first = page.read_bundle()
    path = page.bundle_path()
    assert path.is_relative_to(report_cache)
    made = path.stat().st_mtime_ns
    page.begin_bundle()()
    assert page.read_bundle() == first
    assert path.stat().st_mtime_ns == made
    assert "</script" not in first and "<!--" not in first
    assert first.startswith("(function(){") and "vegaEmbed" in first


def test_two_makers_at_once_leave_one_whole_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALRUN_CACHE", str(tmp_path))
    waits = [page.begin_bundle(), page.begin_bundle()]
    for wait in waits:
        wait()
    made = [each for each in (tmp_path / "reports").iterdir() if each.is_file()]
    assert made == [page.bundle_path()]
    assert made[0].read_text().endswith("})();")
    assert list((tmp_path / "reports" / "templates").iterdir()), "templates are compiled with it"
