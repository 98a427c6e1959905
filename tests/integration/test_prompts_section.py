"""Prompts beside their scores: text, system message and differences from the best, in a real browser."""

from __future__ import annotations

from pathlib import Path

from tests.browser import Opened, needs_browser
from tests.program import evalrun
from tests.recorded import recorded_suite

pytestmark = needs_browser

PROMPTS = [
    {"id": "good", "system": "You sort mail.", "text": "Answer with one word: {{ id }}"},
    {"id": "near", "system": "You sort mail.", "text": "Answer with a sentence: {{ id }}"},
    {"id": "other", "text": "Completely different instructions <b>that share nothing</b>: {{ want }}?"},
]


def _suite(folder: Path) -> Path:
    rows = [{"id": f"s{at}", "want": "yes", "m": "yes"} for at in range(20)]
    return recorded_suite(folder, rows, ["m"], prompts=PROMPTS)


def test_differences_from_the_best_are_marked(opened: Opened, project: Path) -> None:
    done = evalrun(str(_suite(project)), "--report", "r.html", "--quiet")
    assert done.returncode == 0, done.stderr
    page = opened.open(project / "r.html", charts=False)
    names = page.locator("#prompts summary b").all_inner_texts()
    assert sorted(names) == ["good", "near", "other"]
    assert "1.00" in page.locator("#prompts summary").first.inner_text()
    texts = [page.locator(f"#prompt-{at}").text_content() or "" for at in range(3)]
    by_name = dict(zip(names, texts, strict=True))
    assert "[system]\nYou sort mail." in by_name["good"]
    assert "<b>that share nothing</b>" in by_name["other"]
    if names[0] == "good":
        near = page.locator(f"#prompt-{names.index('near')}")
        assert near.locator("ins").all_inner_texts() == ["a sentence"]
        assert near.locator("del").all_inner_texts() == ["one word"]
    other = page.locator(f"#prompt-{names.index('other')}")
    assert other.locator("ins, del").count() == 0
    assert opened.complaints == []
