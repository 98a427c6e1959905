"""The pages of explanations in a real browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests import program
from tests.browser import Opened, needs_browser
from tests.planted import Planted, suite

pytestmark = needs_browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page of one explained answer, one of two, and the report of their sweep."""
    folder = tmp_path_factory.mktemp("explained")
    with Planted() as server:
        (folder / "suite.yaml").write_text(json.dumps(suite(server)))
        for words in (
            ("suite.yaml", "--no-report"),
            ("explain", "latest/m-p-d/a", "--target", "answer", "--html", "why.html"),
            ("explain", "latest/m-p-d", "--target", "target", "--samples", "2", "--html", "two.html"),
            ("report", "latest", "--out", "r.html"),
        ):
            done = program.evalrun(*words, cwd=folder)
            assert done.returncode == 0, done.stderr
    return folder


def test_pages_show_the_same_values_without_a_network(pages: Path, opened: Opened) -> None:
    page = opened.open(pages / "why.html", charts=False, samples=False)
    assert page.locator("h3").inner_text() == "m-p-d: sample a"
    charged = page.locator(".why-text span.w.p8")
    assert (charged.text_content() or "").strip() == "charged (+4.000 nats)"
    style = "getComputedStyle(document.querySelector('.why-text .{}'), '::before').content"
    signs = [page.evaluate(style.format(shade)) for shade in ("p8", "m2")]
    assert signs == ['"+"', '"\N{MINUS SIGN}"']
    assert page.locator(".why-text span.w.m2").get_attribute("title") == "\N{MINUS SIGN}1.000 nats"
    coloured = page.locator(".why-text span[data-at][title]").all()
    assert len(coloured) == 2 and all("nats" in (word.text_content() or "") for word in coloured)
    page.locator("summary", has_text="Parts by weight").click()
    table = page.locator("details.data table").first.inner_text()
    assert "+4.000" in table and "charged" in table
    page.locator(".why-tokens button", has_text="billing").click()
    assert page.locator(".why-text span.w.p8").count() == 1
    page.locator(".why-tokens button", has_text="whole answer").click()
    assert page.locator(".why-text span.w.m2").count() == 1
    opened.assert_quiet()


def test_a_sample_takes_little_room_and_the_report_has_it(pages: Path, opened: Opened) -> None:
    one, two = ((pages / name).stat().st_size for name in ("why.html", "two.html"))
    assert two - one < 20_000
    page = opened.open(pages / "r.html")
    assert page.locator("#why h3").count() == 3  # two targets of one sample
    opened.assert_quiet()
