"""The section about judges of a sweep as it is run, and a leaderboard on a phone, in Chromium."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.browser import Opened, needs_browser, until
from tests.integration.test_judge import N, answering, number_in, suite_of
from tests.servers import ChatServer

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "reports"))

from sweep_data import QUICKSTART, make_sweep

from evalrun.reports.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = needs_browser

BAD = "<img src=x onerror='window.hurt=1'> \u202e"


def judge(body: dict[str, Any]) -> str:
    """j says what a person says but for every sixth sample; k says 3 of all, and nothing of sample 7."""
    n = number_in(body)
    person = 1 + n % 5
    if body["model"] == "judge-k":
        return "I cannot say." if n == 7 else '{"grade": 3}'
    return json.dumps({"reason": f"{BAD} {n}", "grade": 6 - person if n % 6 == 0 else person})


def evalrun(*words: str | Path) -> None:
    """The program in a process of its own: Playwright's event loop runs in this one."""
    done = subprocess.run(
        [sys.executable, "-m", "evalrun", *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def judged(folder: Path, server: ChatServer, scorers: list[Any]) -> Path:
    """The report of a sweep with these judges."""
    server.answer = answering(judge)
    evalrun(suite_of(folder, server, scorers), "--report", "report.html")
    return folder / "report.html"


def cells(page: Page, caption: str) -> list[list[str]]:
    """The rows of the table of the section with that caption, as texts."""
    rows = page.locator("#judges table", has=page.locator("caption", has_text=caption)).locator("tbody tr")
    return [row.locator("th, td").all_inner_texts() for row in rows.all()]


def test_two_judges_and_a_person(project: Path, chat_server: ChatServer, opened: Opened) -> None:
    scorers = [{"judge": {"model": ["j", "k"], "scale": [1, 5], "human": "grade"}}]
    page = opened.open(judged(project, chat_server, scorers))
    assert page.locator("nav a", has_text="Judges").is_visible()
    shares = cells(page, "Share of each grade")
    assert [(row[1], row[-1]) for row in shares] == [("j", "24"), ("k", "24"), ("together", "24")]
    given = [6 - (1 + n % 5) if n % 6 == 0 else 1 + n % 5 for n in range(N)]
    counts = [str(given.count(grade)) for grade in range(1, 6)]
    assert [cell.rpartition("(")[2].rstrip(")") for cell in shares[0][2:7]] == counts
    assert shares[1][4].startswith("0.96") and shares[1][4].endswith("(23)")
    assert shares[1][7].startswith("0.04") and shares[1][7].endswith("(1)"), "no grade, asked twice"
    from sklearn.metrics import cohen_kappa_score

    person = [1 + n % 5 for n in range(N)]
    found = {row[1]: row for row in cells(page, "How far these grades")}
    expected = cohen_kappa_score(person, given, weights="quadratic")
    assert found["j with people: kappa"][2] == f"{expected:.2f}"
    assert found["k with people: kappa"][2] == "0.00"
    assert "no better than chance; do not rely on these grades" in found["k with people: kappa"][5]
    page.locator("#judges td a.def", has_text="among the judges").click()
    until(page, "document.getElementById('def-judge.alpha').closest('details').open")
    link = page.locator("#judges th a").first
    sample = link.inner_text()
    link.click()
    until(page, f"document.querySelector('#sample h3')?.textContent === '{sample}'")
    page.click("#close")
    assert page.evaluate("window.hurt") is None
    assert page.locator("#judges img").count() == 0
    assert "onerror" in page.inner_text("#judges") and "\u202e" not in page.inner_text("#judges")
    asked = page.locator("#judges details", has_text="What was asked").last
    asked.locator("summary").click()
    rows = asked.locator("tbody tr").all()
    assert rows[1].locator("td").all_inner_texts()[:5] == [str(N + 1), "0", "0", "2", "1"]
    assert rows[1].locator("th").inner_text() == "k (judge-k)"
    opened.assert_quiet()


def test_a_rescoring_and_a_sweep_without_a_judge(
    project: Path, chat_server: ChatServer, opened: Opened
) -> None:
    path = judged(project, chat_server, ["exact_match"])
    page = opened.open(path)
    assert page.locator("#judges, nav a[href='#judges']").count() == 0
    common = {"provider": "openai_compatible", "base_url": chat_server.base_url}
    late = {
        "judges": [{**common, "id": "late", "model": "judge-late"}],
        "scorers": [
            "exact_match",
            {"judge": {"name": "g", "model": "late", "scale": [1, 5], "human": "grade"}},
        ],
    }
    (project / "scorers.yaml").write_text(json.dumps(late))
    evalrun("rescore", "latest", "--scorers", "scorers.yaml", "--report", "late.html")
    page = opened.open(project / "late.html")
    assert "late (judge-late) grades the raw output on a scale from 1 to 5" in page.inner_text("#judges")
    assert cells(page, "Share of each grade")[0][-1] == str(N)


def test_the_leaderboard_on_a_phone_is_cards_that_need_no_scrolling(browser: Browser, tmp_path: Path) -> None:
    write_report(make_sweep(tmp_path / "store", n=60), tmp_path / "report.html")
    context = browser.new_context(viewport={"width": 390, "height": 844})
    opened = Opened(context.new_page())
    page = opened.open(tmp_path / "report.html")
    page.evaluate("for (const each of document.querySelectorAll('section.folded h2 button')) each.click()")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    wide = "[...document.querySelectorAll('#leaderboard .scroll')].filter((e) => e.querySelector('.board'))"
    assert page.evaluate(f"{wide}.every((e) => e.scrollWidth <= e.clientWidth)")
    outside = page.evaluate(
        "[...document.querySelectorAll('.board tbody th, .board tbody td')]"
        ".map((e) => e.getBoundingClientRect())"
        ".filter((box) => box.left < 0 || box.right > 390 || box.width === 0).length"
    )
    assert outside == 0
    assert page.locator(".board tbody tr").first.locator("th .run").is_visible()
    titles = page.evaluate(
        "[...document.querySelectorAll('.board tbody tr:first-child td[data-label]')]"
        ".map((e) => getComputedStyle(e, '::before').content)"
    )
    assert '"exact_match"' in titles and '"whole answer, median"' in titles
    assert page.get_by_role("row").count() > len(QUICKSTART), "it is a table to a screen reader still"
    page.locator(".board thead button", has_text="whole answer").click()
    names = page.locator(".board tbody .run").all_inner_texts()
    assert names[-1] == "direct", "the fastest is last: it can be sorted"
    opened.assert_quiet()
    context.close()
