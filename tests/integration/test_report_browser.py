"""The report in a real browser: opens from disk, works, fetches nothing, comes to no harm."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "reports"))

from sweep_data import QUICKSTART, Cell, make_sweep

from evalrun.reports.html import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]

BAD = (
    '</script><script>window.hurt=1</script><img src=x onerror="window.hurt=1"><svg onload="window.hurt=1">'
    "\u202eevil\u202c \x1b[31mred \x00nul"
)


def until(page: Page, expression: str) -> None:
    """Wait for an expression to hold. (Playwright's own way uses eval, which the page forbids.)"""
    deadline = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        time.sleep(0.02)


class Opened:
    """A page with what it said on the console and what it asked of the network."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: Path, fragment: str = "") -> Page:
        self.page.goto(path.as_uri() + fragment)
        until(self.page, "document.documentElement.dataset.charts === 'drawn'")
        self.page.wait_for_selector("#browser[data-ready]")
        return self.page

    def assert_quiet(self) -> None:
        assert self.complaints == []
        outside = [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]
        assert outside == []


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVALRUN_CACHE", str(tmp_path_factory.mktemp("cache")))
        with playwright.sync_playwright() as driver:
            launched = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            yield launched
            launched.close()


@pytest.fixture(scope="module")
def quickstart(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    gate = {"gate": "exact_match >= 0.5", "run": QUICKSTART[0].run, "verdict": "pass", "value": 0.58}
    write_report(make_sweep(root / "store", n=120, gates=[gate]), root / "report.html")
    return root / "report.html"


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    yield Opened(context.new_page())
    context.close()


def shown(page: Page) -> int:
    """How many samples the filters leave."""
    return int(page.inner_text("#found").split(" of ")[0].replace(",", ""))


def test_opens_from_disk_with_its_charts_and_no_complaint(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    charts = page.locator("[data-chart]")
    assert charts.count() >= 5
    assert page.locator("[data-chart] svg").count() == charts.count()
    assert page.locator("[data-chart]").first.get_attribute("aria-label")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.assert_quiet()


def test_filters_and_search(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    assert shown(page) == 360
    page.click("#chips [data-kind=wrong]")
    wrong = shown(page)
    assert 0 < wrong < 360
    assert set(page.locator("#list .ending").all_inner_texts()) == {"wrong"}
    page.select_option("#filter-run", label="direct")
    assert 0 < shown(page) < wrong
    page.select_option("#filter-run", label="all 3 runs")
    page.click("#chips [data-kind=all]")
    page.keyboard.press("/")
    page.keyboard.type("TICKET 17)")
    until(page, "document.getElementById('found').textContent.startsWith('3 of')")
    assert "T-00017" in page.inner_text("#sample h3")
    assert page.locator("#sample mark").count() >= 1
    page.keyboard.press("Escape")
    until(page, "document.getElementById('found').textContent.startsWith('360 of')")
    page.select_option("#filter-groups select", label="learner")
    assert shown(page) == 120
    opened.assert_quiet()


def test_keyboard_and_the_link_to_a_sample(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    page.locator("#samples").scroll_into_view_if_needed()
    page.evaluate("document.getElementById('browser').scrollIntoView()")
    for key in "jjk":
        page.keyboard.press(key)
    until(page, "document.querySelector('#sample h3').textContent === 'T-00001'")
    run = QUICKSTART[0].run
    until(page, f"location.hash === '#sample={run}/T-00001/0'")
    page.keyboard.press("ArrowRight")
    assert "page 2 of" in page.inner_text("#page")
    other = QUICKSTART[2].run
    page = opened.open(quickstart, f"#sample={other}/T-00077/0")
    until(page, "document.querySelector('#sample h3').textContent === 'T-00077'")
    assert "direct" in page.inner_text("#sample .head")
    text = page.inner_text("#sample")
    for part in (
        "Prompt as sent",
        "(ticket 77)",
        "Output",
        "Parsed answer",
        "Target",
        "exact_match",
        "end to end",
    ):
        assert part in text
    opened.assert_quiet()


def test_sorting_marks_its_column(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    header = page.locator(".board th", has_text="whole answer")
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    names = page.locator(".board tbody .run").all_inner_texts()
    assert names == ["direct", "few_shot", "reasoned"]


def test_definitions_are_one_click_away(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    page.locator(".board thead a.def").first.click()
    until(page, "document.getElementById('def-exact_match').closest('details').open")
    assert page.locator("#def-exact_match").is_visible()


def test_download_of_a_charts_data(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    page.locator("details.data summary").first.click()
    with page.expect_download() as download:
        page.locator("details.data button.csv").first.click()
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    assert text.splitlines()[0].startswith("run,exact_match,95 % interval")
    assert text.splitlines()[1].startswith("few_shot,0.")


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_dark_follows_the_system_and_the_toggle(browser: Browser, quickstart: Path) -> None:
    context = browser.new_context(color_scheme="dark")
    opened = Opened(context.new_page())
    page = opened.open(quickstart)
    dark = background(page)
    tick = "getComputedStyle(document.querySelector('[data-chart] svg text')).fill"
    in_dark = page.evaluate(tick)
    page.click("#theme")
    assert page.inner_text("#theme") == "Light"
    assert background(page) == "rgb(255, 255, 255)" != dark
    assert page.evaluate(tick) != in_dark, "charts follow"
    page.click("#theme")
    assert (page.inner_text("#theme"), background(page)) == ("Dark", dark)
    opened.assert_quiet()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(browser: Browser, quickstart: Path, scheme: Any) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = Opened(context.new_page()).open(quickstart)
    names = ["--ink", "--soft", "--accent", "--bad"]
    colours = page.evaluate(
        """(names) => { const probe = document.createElement('i'); document.body.append(probe);
        const read = (name) => { probe.style.color = `var(${name})`;
          return getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(Number); };
        return Object.fromEntries(names.map((name) => [name, read(name)])); }""",
        [*names, "--paper", "--wash", "--tint"] + [f"--run-{at}" for at in range(8)],
    )
    context.close()
    for surface in ("--paper", "--wash", "--tint"):
        for name in names:
            assert contrast(colours[name], colours[surface]) >= 4.5, (name, surface)
    for at in range(8):
        assert contrast(colours[f"--run-{at}"], colours["--paper"]) >= 3, at


def contrast(one: list[float], other: list[float]) -> float:
    """Contrast ratio of WCAG 2.1 between two sRGB colours (0 to 255)."""

    def luminance(colour: list[float]) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_fits_a_phone(browser: Browser, quickstart: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    opened = Opened(context.new_page())
    page = opened.open(quickstart)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    opened.assert_quiet()
    context.close()


def test_prints(opened: Opened, quickstart: Path, tmp_path: Path) -> None:
    page = opened.open(quickstart)
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert not page.locator("#browser").is_visible()
    assert page.locator("[data-chart] svg").first.is_visible()
    opened.assert_quiet()


def test_hostile_text_in_every_field_does_nothing(opened: Opened, tmp_path: Path) -> None:
    def change(record: dict[str, Any], _: Any) -> dict[str, Any]:
        at = record["position"]
        for name in ("output", "answer", "target", "finish_reason", "model", "fingerprint", "reasoning"):
            record[name] = BAD
        record["sample_id"] = f"{BAD}{at}"
        record["vars"] = {**dict.fromkeys(record["vars"], BAD), "<b>": BAD}
        record["messages"] = [{"role": BAD, "content": BAD}, {"role": "user", "content": [{"type": BAD}]}]
        record["reasons"] = dict.fromkeys(record["reasons"], BAD)
        record["sensitive"], record["cluster"] = {"dialect": BAD}, BAD
        if at == 1:
            record["output"] = "A" * 1_000_000
        if at % 5 == 0:
            record |= {"status": "failed", "error": BAD, "scores": {}, "reasons": {}, "attempts": 2}
        return record

    gate = {"gate": BAD, "run": BAD, "verdict": "fail", "value": None, "reason": BAD}
    cells = [Cell("m<img src=x onerror=hurt()>", "p"), Cell("n<script>", "p")]
    folder = make_sweep(
        tmp_path / "store",
        cells,
        n=40,
        change=change,
        gates=[gate],
        description=BAD,
        text=BAD,
        status="incomplete",
    )
    write_report(folder, tmp_path / "report.html")
    page = opened.open(tmp_path / "report.html")
    for item in range(4):
        page.locator("#list li").nth(item).click()
    for fold in page.locator("summary").all():
        if fold.is_visible():
            fold.click()
    page.keyboard.press("/")
    page.keyboard.type("onerror")
    page.wait_for_selector("#sample mark")
    assert page.evaluate("window.hurt") is None
    assert page.locator("main img, main iframe, main script[src]").count() == 0
    text = page.inner_text("body")
    assert not {"\u202e", "\x1b", "\x00"} & set(text)
    assert "U+202E" in page.inner_text("#sample") and "ESC" in page.inner_text("#sample")
    opened.assert_quiet()


def test_long_text_is_folded(opened: Opened, tmp_path: Path) -> None:
    def change(record: dict[str, Any], _: Any) -> dict[str, Any]:
        return {**record, "output": "word " * 40_000 if record["position"] == 0 else "short"}

    write_report(
        make_sweep(tmp_path / "s", [Cell("m", "p")], n=20, by=(), change=change), tmp_path / "r.html"
    )
    page = opened.open(tmp_path / "r.html")
    button = page.locator("#sample button", has_text="Show all")
    assert len(page.inner_text("#sample")) < 6000
    button.click()
    assert len(page.inner_text("#sample")) > 190_000


def test_a_report_of_twenty_thousand_samples_opens_and_filters_at_once(
    opened: Opened, tmp_path: Path
) -> None:
    cells = [Cell("m", "p", accuracy=0.7)]
    folder = make_sweep(tmp_path / "s", cells, n=20_000, by=(), scorers=[{"exact_match": {}}])
    write_report(folder, tmp_path / "r.html")
    page = opened.open(tmp_path / "r.html")
    assert page.evaluate("performance.now()") < 5000
    took = page.evaluate(
        """async () => { const begun = performance.now();
        document.querySelector('#chips [data-kind=wrong]').click();
        await new Promise((done) => requestAnimationFrame(done)); return performance.now() - begun; }"""
    )
    assert took < 500
    assert 0 < shown(page) < 20_000
    opened.assert_quiet()
