"""The report in a real browser: opens from disk, works, fetches nothing, comes to no harm."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "reports"))

from sweep_data import QUICKSTART, Cell, make_sweep
from tests.browser import Opened, needs_browser, until

from evalrun.reports.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = needs_browser

BAD = (
    '</script><script>window.hurt=1</script><img src=x onerror="window.hurt=1"><svg onload="window.hurt=1">'
    "\u202eevil\u202c \x1b[31mred \x00nul"
)


@pytest.fixture(scope="module")
def quickstart(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    gate = {"gate": "exact_match >= 0.5", "run": QUICKSTART[0].run, "verdict": "pass", "value": 0.58}
    write_report(make_sweep(root / "store", n=120, gates=[gate]), root / "report.html")
    return root / "report.html"


def shown(page: Page) -> int:
    """How many samples the filters leave."""
    return int(page.inner_text("#found").split(" of ")[0].replace(",", ""))


def test_opens_from_disk_with_its_charts_and_no_complaint(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    charts, drawn = page.locator("[data-chart]"), page.locator("[data-chart] svg")
    assert 5 <= drawn.count() < charts.count(), "what is folded away is drawn when it is unfolded"
    page.evaluate("for (const fold of document.querySelectorAll('details.fold')) fold.open = true")
    until(page, f"document.querySelectorAll('[data-chart] svg').length === {charts.count()}")
    assert page.locator("[data-chart]").first.get_attribute("aria-label")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.assert_quiet()


def cell(page: Page, row: int = 0, column: int = 0) -> None:
    """Open the sample of a cell."""
    page.locator(f"#cell-{row}-{column}").click()
    until(page, "document.querySelector('#sample h3') !== null")


def endings(page: Page, column: int) -> set[str]:
    """How the samples ended that are in sight in a column."""
    return set(page.locator(f".cell[data-column='{column}'] .ending").all_inner_texts())


def test_filters_and_search(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    assert shown(page) == 120
    assert page.inner_text("#found") == "120 of 120 samples in 3 runs", "a row a sample, a column a run"
    assert page.locator(".grid-head > div").all_inner_texts() == ["Sample", "few_shot", "reasoned", "direct"]
    page.click("#chips [data-kind=wrong]")
    wrong = shown(page)
    assert 0 < wrong < 120
    page.select_option("#filter-run", label="direct")
    assert 0 < shown(page) < wrong, "of any run, then of one"
    assert endings(page, 2) == {"wrong"}
    page.select_option("#filter-run", label="any run shown")
    page.click("#chips [data-kind=all]")
    page.keyboard.press("/")
    page.keyboard.type("TICKET 17)")
    until(page, "document.getElementById('found').textContent.startsWith('1 of')")
    assert page.inner_text("#chips [data-kind=all] span") == "1", "chips count what is found"
    cell(page)
    assert "T-00017" in page.inner_text("#sample h3")
    assert page.locator("#sample mark").count() >= 1
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    until(page, "document.getElementById('found').textContent.startsWith('120 of')")
    page.select_option("#filter-groups select", label="learner")
    assert shown(page) == 40
    opened.assert_quiet()


def test_what_differs_by_any_column_and_by_regular_expression(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    page.click("#chips [data-kind=different]")
    different = shown(page)
    assert 0 < different < 120
    for row in range(3):
        assert len(set(page.locator(f".grid-row[data-row='{row}'] .ending").all_inner_texts())) > 1
    page.click("#chips [data-kind=answers]")
    assert shown(page) > different, "wrong answers differ among themselves"
    page.click("#chips [data-kind=all]")
    page.click("#more-filters summary")
    page.locator("#filter-columns label", has_text="channel").locator("select").select_option("mail")
    assert shown(page) == 60
    page.locator("#filter-columns label", has_text="channel").locator("select").select_option("")
    page.fill("#search", r"/ticket 1\d\)/")
    until(page, "document.getElementById('found').textContent.startsWith('10 of')")
    page.select_option("#filter-column", "output")
    until(page, "document.getElementById('found').textContent.startsWith('No sample')")
    page.fill("#search", "/(/")
    until(page, "document.getElementById('found').textContent.includes('no regular expression')")
    assert page.get_attribute("#search", "aria-invalid") == "true"
    opened.assert_quiet()


def test_the_address_holds_filters_order_and_the_open_sample(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    page.select_option("#filter-run", label="direct")
    page.select_option("#filter-other", label="few_shot")
    page.click("#chips [data-kind=lost]")
    page.select_option("#filter-groups select", label="standard")
    page.select_option("#filter-order", label="slowest first")
    page.select_option("#filter-score", label="classification")
    page.fill("#search", "label: <&#%")
    page.fill("#search", "label")
    until(page, "location.hash.includes('q=label')")
    cell(page, 0, 2)
    until(page, "location.hash.includes('open=')")
    read = ("#found", "#sample h3", "#sample .side-name >> nth=0")
    before = [page.inner_text(each) for each in read]
    again = opened.open(quickstart, page.evaluate("location.hash"))
    until(again, "document.querySelector('#sample h3') !== null")
    assert [again.inner_text(each) for each in read] == before
    for control, label in (
        ("run", "direct"), ("other", "few_shot"), ("score", "classification"), ("order", "slowest first"),
    ):  # fmt: skip
        assert again.locator(f"#filter-{control} option:checked").inner_text() == label
    assert again.locator("#filter-groups option:checked").inner_text() == "standard"
    assert again.get_attribute("#chips [data-kind=lost]", "aria-pressed") == "true"
    again.click("#close")
    until(again, "!location.hash.includes('open=') && location.hash.includes('kind=lost')")
    opened.assert_quiet()


def test_an_empty_value_is_a_value(opened: Opened, tmp_path: Path) -> None:
    def change(record: dict[str, Any], _: Any) -> dict[str, Any]:
        record["vars"]["note"] = "" if record["position"] % 3 == 0 else "some"
        return record

    write_report(
        make_sweep(tmp_path / "s", [Cell("m", "p")], n=30, by=(), change=change), tmp_path / "r.html"
    )
    page = opened.open(tmp_path / "r.html")
    assert shown(page) == 30
    page.click("#more-filters summary")
    note = page.locator("#filter-columns label", has_text="note").locator("select")
    note.select_option(label="(empty)")
    until(page, "document.getElementById('found').textContent.startsWith('10 of 30')")
    again = opened.open(tmp_path / "r.html", page.evaluate("location.hash"))
    assert shown(again) == 10
    opened.assert_quiet()


def test_columns_are_chosen(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    page.click("#columns summary")
    page.locator("#columns label", has_text="reasoned").locator("input").uncheck()
    assert page.locator(".grid-head > div").all_inner_texts() == ["Sample", "few_shot", "direct"]
    again = opened.open(quickstart, page.evaluate("location.hash"))
    assert again.locator(".grid-head > div").all_inner_texts() == ["Sample", "few_shot", "direct"]
    opened.assert_quiet()


def test_heads_and_names_stay_in_sight(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    page.evaluate("document.getElementById('grid').scrollTop = 5000")
    until(page, "document.querySelector('.grid-row[data-row=\"50\"]') !== null")
    assert page.locator(".grid-row").count() < 30, "only the rows in sight are in the page"
    inside = page.evaluate(
        "document.querySelector('.grid-head').getBoundingClientRect().top"
        " - document.getElementById('grid').getBoundingClientRect().top"
    )
    assert 0 <= inside < 3


def test_a_row_without_a_key_is_called_by_its_first_words(opened: Opened, tmp_path: Path) -> None:
    def change(record: dict[str, Any], _: Any) -> dict[str, Any]:
        return {**record, "sample_id": f"{record['position']:016x}"}

    folder = make_sweep(tmp_path / "s", [Cell("m", "p")], n=10, by=(), change=change)
    write_report(folder, tmp_path / "r.html")
    page = opened.open(tmp_path / "r.html")
    until(page, "document.querySelectorAll('.sample-name').length === 10")
    names = page.locator(".sample-name").all_inner_texts()
    assert names[0].startswith("I was charged twice for the same month and want my money")
    cell(page)
    assert page.inner_text("#sample h3").startswith("I was charged twice")
    assert page.inner_text("#sample .head code") == "0" * 16
    opened.assert_quiet()


def test_keyboard_and_the_link_to_a_sample(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    page.locator("#samples").scroll_into_view_if_needed()
    page.evaluate("document.getElementById('browser').scrollIntoView()")
    for key in "jjjk":
        page.keyboard.press(key)
    until(page, "document.querySelector('#sample h3').textContent === 'T-00001'")
    run = QUICKSTART[0].run
    until(page, f"decodeURIComponent(location.hash).includes('open={run}/T-00001/0')")
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('#sample .head').textContent.includes('reasoned')")
    page.keyboard.press("Escape")
    assert not page.locator("#drawer").is_visible()
    other = QUICKSTART[2].run
    page = opened.open(quickstart, f"#sample={other}/T-00077/0")
    until(page, "document.querySelector('#sample h3')?.textContent === 'T-00077'")
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


def test_back_closes_the_open_sample(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    cell(page, 0, 1)
    until(page, "location.hash.includes('open=')")
    page.go_back()
    until(page, "document.getElementById('drawer').hidden && !location.hash.includes('open=')")
    page.click("#chips [data-kind=wrong]")
    cell(page, 0, 1)
    until(page, "location.hash.includes('open=')")
    page.keyboard.press("j")
    page.go_back()
    until(page, "document.getElementById('drawer').hidden && location.hash.includes('kind=wrong')")
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


def test_targets_are_large_enough_to_hit(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    targets = ".board thead button, .board thead a, nav a, nav button, #samples button"
    small = page.evaluate(
        f"""[...document.querySelectorAll('{targets}')]
        .filter((each) => each.checkVisibility())
        .map((each) => [each.textContent, each.getBoundingClientRect()])
        .filter(([, box]) => box.width < 24 || box.height < 24).map(([text]) => text)"""
    )
    assert small == [], "WCAG 2.2: 24 pixels each way"


def test_definitions_are_one_click_away(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    page.locator(".board thead a.def").first.click()
    until(page, "document.getElementById('def-exact_match').closest('details').open")
    assert page.locator("#def-exact_match").is_visible()


def test_download_of_a_charts_data(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    chart = page.locator("figure", has_text="Quality against time")
    chart.locator("summary").click()
    with page.expect_download() as download:
        chart.locator("button.csv").click()
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
    assert page.inner_text("#theme") == "Theme: light"
    assert background(page) == "rgb(255, 255, 255)" != dark
    assert page.evaluate(tick) != in_dark, "charts follow"
    page.click("#theme")
    assert (page.inner_text("#theme"), background(page)) == ("Theme: dark", dark)
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
    context = browser.new_context(viewport={"width": 360, "height": 800})
    opened = Opened(context.new_page())
    page = opened.open(quickstart)
    page.evaluate("for (const each of document.querySelectorAll('section.folded h2 button')) each.click()")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    clipped = page.evaluate(
        """[...document.querySelectorAll('main *')].filter((each) => {
        const box = each.getBoundingClientRect();
        return box.width && each.checkVisibility() && box.right > 361
          && !each.closest('.scroll, #grid, svg, pre, .unseen');
        }).map((each) => `${each.tagName} ${each.className}`)"""
    )
    assert clipped == [], "what is wider than the screen scrolls in a box of its own"
    page.evaluate("document.getElementById('samples').scrollIntoView()")
    until(page, "document.querySelector('nav a[aria-current]').hash === '#samples'")
    here = page.locator("nav a[aria-current]").bounding_box()
    assert here is not None and here["x"] >= 0 and here["x"] + here["width"] <= 360, "the tab is in sight"
    cell(page)
    assert page.locator("#drawer").bounding_box()["width"] == 360  # type: ignore[index]
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


def test_paper_has_what_is_folded_away(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    for table in ("Widest gap of every run", "Signed differences between groups"):
        fold = page.locator("#fairness details", has_text=table).first
        assert fold.locator("table").first.is_visible(), table
    assert page.locator("#provenance pre").first.is_visible(), "prompts"
    assert not page.locator(".chart-data").first.is_visible(), "the chart shows these"
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not page.locator("#provenance pre").first.is_visible()


def test_a_point_of_a_chart_leads_to_its_samples(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    page.locator("[data-chart^=time-] svg .mark-symbol path, [data-chart] svg .mark-symbol path").first.click(
        force=True
    )
    until(page, "location.hash.startsWith('#grid?run=')")
    assert page.locator("#filter-run option:checked").inner_text() in ("few_shot", "reasoned", "direct")
    opened.assert_quiet()


def test_rows_groups_gates_and_matrices_lead_to_their_samples(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)

    def follow(selector: str, text: str) -> None:
        page.locator(selector, has_text=text).first.click()
        until(page, "location.hash.startsWith('#grid?')")

    follow(".board a.lead-on", "reasoned")
    assert page.locator("#filter-run option:checked").inner_text() == "reasoned"
    assert shown(page) == 120
    follow("#gates a", "few_shot")
    assert page.locator("#filter-run option:checked").inner_text() == "few_shot"
    until(page, "document.querySelector('#chips [data-kind=wrong]').getAttribute('aria-pressed') === 'true'")
    follow("#fairness a.lead-on", "learner")
    until(page, "document.getElementById('found').textContent.startsWith('40 of')")
    assert page.locator("#filter-groups option:checked").inner_text() == "learner"
    matrix = page.locator(".confusion a.lead-on").first
    count = int(matrix.inner_text())
    matrix.click()
    until(page, f"document.getElementById('found').textContent.startsWith('{count} of')")
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
        cell(page, item, item % 2)
        page.click("#close")
    for fold in page.locator("summary").all():
        if fold.is_visible():
            fold.click()
    page.keyboard.press("/")
    page.keyboard.type("onerror")
    until(page, "document.getElementById('found').textContent.startsWith('40 of')")
    cell(page)
    page.wait_for_selector("#sample mark")
    assert page.evaluate("window.hurt") is None
    assert page.locator("main img, main iframe, main script[src]").count() == 0
    text = page.inner_text("body")
    assert not {"\u202e", "\x1b", "\x00"} & set(text)
    assert "U+202E" in page.inner_text("#sample") and "ESC" in page.inner_text("#sample")
    opened.assert_quiet()


def choose(page: Page, name: str, label: str) -> None:
    page.select_option(f"#filter-{name}", label=label)


def test_flips_against_another_run_stand_side_by_side(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    choose(page, "run", "few_shot")
    assert page.locator("#chips [data-kind=lost]").is_hidden(), "there is nothing to be worse than"
    choose(page, "other", "direct")
    chips = {kind: int(page.inner_text(f"#chips [data-kind={kind}] span")) for kind in ("won", "lost")}
    assert chips["won"] > chips["lost"] > 0
    for kind, word, mark in (("won", "right", "better"), ("lost", "wrong", "worse")):
        page.click(f"#chips [data-kind={kind}]")
        until(page, f"document.getElementById('found').textContent.startsWith('{chips[kind]} of')")
        assert endings(page, 0) <= {word, "unparsed"}
        assert mark in page.inner_text("#cell-0-0")
    cell(page)
    sides = page.locator("#sample .side-name").all_inner_texts()
    assert sides[0].startswith("direct") and sides[1].startswith("few_shot")
    assert page.locator("#sample .diff del").count() == page.locator("#sample .diff ins").count() == 1
    assert "1 word only in direct (struck through), 1 only in few_shot" in page.inner_text("#sample")
    page.click("#close")
    choose(page, "order", "greatest change first")
    choose(page, "other", "nothing")
    cell(page)
    assert page.locator("#sample .diff").count() == 0
    opened.assert_quiet()


def test_the_difference_to_the_target_by_key(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    page.evaluate("document.getElementById('browser').scrollIntoView()")
    cell(page)
    page.keyboard.press("d")
    until(page, "document.querySelector('#sample .diff') !== null")
    assert page.locator("#sample h4", has_text="Output against the target").count() == 1
    assert page.locator("#sample .diff ins").first.inner_text().startswith("Label:")
    page.keyboard.press("d")
    until(page, "document.querySelector('#sample .diff') === null")
    opened.assert_quiet()


def test_sides_keep_their_white_space(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    one, other = "def f(x):\n    return x\n", "def f(y):\n\treturn  y\n"
    texts = page.evaluate(
        "([a, b]) => [...evalrun.diffBlock({text: a, name: 'a'}, {text: b, name: 'b'})"
        ".querySelectorAll('.diff')].map((side) => side.textContent)",
        [one, other],
    )
    assert texts == [one, other]


def test_word_differences_give_both_texts_back(opened: Opened, quickstart: Path) -> None:
    page = opened.open(quickstart)
    pairs = [
        ("the cat sat on the mat", "the dog sat upon the mat today"),
        ("", "a b c"),
        ("same", "same"),
        ("a b c d e f g", "g f e d c b a"),
        ("x " * 900, "y " * 900),
        ("Zoë naïve 猫 🎉", "Zoë naive 猫猫 🎉"),
    ]
    for one, other in pairs:
        pieces = page.evaluate("([a, b]) => evalrun.wordDiff(a, b)", [one, other])
        assert "".join(text for kind, text in pieces if kind <= 0) == one
        assert "".join(text for kind, text in pieces if kind >= 0) == other
    kept = page.evaluate("([a, b]) => evalrun.wordDiff(a, b)", list(pairs[0]))
    assert [text for kind, text in kept if kind == 0] == ["the ", " sat ", " the mat"]


def test_score_range_and_token_probabilities(opened: Opened, tmp_path: Path) -> None:
    logprobs = {
        "content": [
            {"token": "La", "logprob": -0.01, "top_logprobs": [{"token": "La", "logprob": -0.01}]},
            {"token": "bel\x1b", "logprob": -2.3,
             "top_logprobs": [{"token": "<b>", "logprob": -0.5}, {"token": "bel\x1b", "logprob": -2.3}]},
        ]
    }  # fmt: skip

    options = [
        {"option": "<b>yes</b>", "answer": "A", "logprob": -1.5, "tokens": 2},
        {"option": "no", "answer": "B", "logprob": None, "tokens": 1},
        None,
    ]

    def change(record: dict[str, Any], _: Any) -> dict[str, Any]:
        score = record["position"] % 10 / 10
        return {**record, "status": "scored", "scores": {"exact_match": score}, "logprobs": logprobs,
                "likelihood": {"options": options, "chosen": "A"}}  # fmt: skip

    folder = make_sweep(
        tmp_path / "s", [Cell("m", "p")], n=40, by=(), scorers=[{"exact_match": {}}], change=change
    )
    write_report(folder, tmp_path / "r.html")
    page = opened.open(tmp_path / "r.html")
    page.fill("#filter-low", "0.3")
    page.fill("#filter-high", "0.5")
    until(page, "document.getElementById('found').textContent.startsWith('12 of 40')")
    cell(page)
    text = page.inner_text("#sample")
    assert "Likelihood of the options" in text and "\u22121.5" in text.replace("-1.5", "\u22121.5")
    assert "<b>yes</b> (chosen)" in text and "no\tnone\t1" in text
    tokens = page.locator("#sample .tokens button")
    assert tokens.count() == 2
    tokens.nth(1).click()
    said = page.inner_text("#sample [role=status]")
    assert "10 %" in said and "also likely: \u201c<b>\u201d 60.7 %" in said
    assert page.locator("#sample b").count() == 0
    opened.assert_quiet()


def test_examples_before_the_question_are_folded_until_they_are_searched(
    opened: Opened, tmp_path: Path
) -> None:
    def change(record: dict[str, Any], _: Any) -> dict[str, Any]:
        shots = [{"role": role, "content": f"{role} of example {at}"} for at in range(3)
                 for role in ("user", "assistant")]  # fmt: skip
        return {**record, "messages": [record["messages"][0], *shots, record["messages"][1]]}

    write_report(make_sweep(tmp_path / "s", [Cell("m", "p")], n=6, by=(), change=change), tmp_path / "r.html")
    page = opened.open(tmp_path / "r.html")
    cell(page)
    text = page.inner_text("#sample")
    assert "6 messages before the question" in text and "of example" not in text
    assert "You sort support tickets" in text and "Ticket: " in text
    page.click("#close")
    page.fill("#search", "assistant of example 2")
    until(page, "location.hash.includes('q=')")
    cell(page)
    until(page, "document.getElementById('sample').innerText.includes('assistant of example 2')")
    opened.assert_quiet()


def crossed(root: Path) -> Path:
    cells = [
        Cell(m, p, d, accuracy=a) for m, a in (("a", 0.4), ("b", 0.8)) for p in ("p", "q") for d in ("x", "y")
    ]
    write_report(make_sweep(root / "s", cells, n=60), root / "r.html")
    return root / "r.html"


def test_the_new_parts_are_there_and_say_what_they_are(opened: Opened, tmp_path: Path) -> None:
    page = opened.open(crossed(tmp_path))
    heat = page.locator("table.heat")
    assert heat.locator("caption").inner_text().startswith("exact_match with its 95 % interval")
    assert heat.locator("thead th[scope=colgroup]").all_inner_texts() == ["x", "y"]
    assert heat.locator("tbody td b").count() == 8
    assert page.locator("#effects [data-chart=effects] svg").count() == 1
    for table in page.locator("main table").all():
        assert table.evaluate("(t) => Boolean(t.caption && t.caption.textContent.trim())")
        assert table.evaluate("(t) => !t.tHead || [...t.tHead.querySelectorAll('th')].every((c) => c.scope)")
    for chart in page.locator("[data-chart]").all():
        assert (chart.get_attribute("aria-label") or "").strip() and chart.get_attribute("role") == "img"
        figure = chart.locator("xpath=..")
        assert figure.locator("details.data table").count() == 1
        assert figure.locator("button.csv").count() == 1
    opened.assert_quiet()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_shaded_cells_have_the_contrast_of_wcag_aa(browser: Browser, tmp_path: Path, scheme: Any) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = Opened(context.new_page()).open(crossed(tmp_path))
    found = page.evaluate(
        """() => { const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
        const paper = numbers(getComputedStyle(document.body).backgroundColor);
        return [...document.querySelectorAll('.heat tbody td')].map((cell) => {
          const [r, g, b, a = 1] = numbers(getComputedStyle(cell).backgroundColor);
          const over = [r, g, b].map((value, at) => value * a + paper[at] * (1 - a));
          return [...cell.querySelectorAll('b, .ci')]
            .map((text) => [over, numbers(getComputedStyle(text).color)]);
        }).flat(); }"""
    )
    context.close()
    assert len(found) == 16
    assert all(contrast(behind, text) >= 4.5 for behind, text in found)


def test_a_flip_example_opens_its_sample(opened: Opened, tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "s", [Cell("m", "p")], n=40)
    path = folder.path / "runs" / Cell("m", "p").run / "run.json"
    document = orjson.loads(path.read_bytes())
    rate = {"value": 0.1, "low": 0.05, "high": 0.2, "n": 40}
    document["details"]["versions"] = {
        "name": {
            "versions": ["Emily", "Mei"], "reference": "Emily", "units": 40, "note": "",
            "flips": {"overall": rate, "by_version": []}, "differences": {}, "robustness": {},
            "examples": [{"base": "T", "version": "Mei", "sample_id": "T-00031", "answer": "bug",
                          "against": "Emily", "against_id": "T-00007", "against_answer": "billing"}],
        }
    }  # fmt: skip
    path.write_bytes(orjson.dumps(document))
    write_report(folder, tmp_path / "r.html")
    page = opened.open(tmp_path / "r.html")
    page.locator("#fairness a", has_text="Mei").click()
    until(page, "document.querySelector('#sample h3')?.textContent === 'T-00031'")
    page.click("#close")
    page.locator("#fairness a", has_text="Emily").click()
    until(page, "document.querySelector('#sample h3').textContent === 'T-00007'")
    opened.assert_quiet()


def test_the_new_parts_fit_a_phone_and_paper(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    opened = Opened(context.new_page())
    page = opened.open(crossed(tmp_path))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.emulate_media(media="print")
    assert page.locator("table.heat").is_visible()
    page.pdf(path=tmp_path / "r.pdf", format="A4")
    opened.assert_quiet()
    context.close()


def test_long_text_is_folded(opened: Opened, tmp_path: Path) -> None:
    def change(record: dict[str, Any], _: Any) -> dict[str, Any]:
        return {**record, "output": "word " * 40_000 if record["position"] == 0 else "short"}

    write_report(
        make_sweep(tmp_path / "s", [Cell("m", "p")], n=20, by=(), change=change), tmp_path / "r.html"
    )
    page = opened.open(tmp_path / "r.html")
    cell(page)
    button = page.locator("#sample button", has_text="Show all")
    assert len(page.inner_text("#sample")) < 6000
    button.click()
    assert len(page.inner_text("#sample")) > 190_000


def test_a_report_of_twenty_thousand_samples_is_filtered(opened: Opened, tmp_path: Path) -> None:
    cells = [Cell("m", "p", accuracy=0.7)]
    folder = make_sweep(tmp_path / "s", cells, n=20_000, by=(), scorers=[{"exact_match": {}}])
    write_report(folder, tmp_path / "r.html")
    page = opened.open(tmp_path / "r.html")
    page.locator("#chips [data-kind=wrong]").click()
    wrong = sum(score == 0 for run in folder.runs() for score in scores(folder.path, run["run"]))
    assert shown(page) == wrong
    opened.assert_quiet()


def scores(sweep: Path, run: str) -> list[float]:
    """The exact-match scores of a run, from its samples."""
    return pq.read_table(sweep / "runs" / run / "samples.parquet")["score.exact_match"].to_pylist()
