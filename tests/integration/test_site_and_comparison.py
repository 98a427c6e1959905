"""The pages beside the sweep's report, in a real browser: a comparison of two sweeps, and a whole store."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.browser import Opened, needs_browser, until

from evalrun.cli.main import cli

BAD = '</script><script>window.hurt=1</script><img src=x onerror="window.hurt=1">\u202eevil'


def evalrun(*args: str | Path) -> Result:
    done = CliRunner().invoke(cli, [str(each) for each in args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def run(path: Path, store: Path) -> str:
    """The id of a sweep that was run in a process of its own: this one's loop is the browser driver's."""
    command = [sys.executable, "-m", "evalrun", path, "--store", store, "--no-report", "--json"]
    done = subprocess.run(command, capture_output=True, check=True, cwd=path.parent)
    return str(json.loads(done.stdout)["sweep"])


def suite(folder: Path, name: str, text: str, column: str, project: str = "lucky") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(
        f"name: {name}\nproject: {project}\n"
        f"models: [{{id: m, provider: recorded, column: {column}}}]\n"
        f"prompts: [{{id: p, text: {json.dumps(text)}}}]\n"
        "datasets: [{id: d, path: rows.jsonl, key: id, target: target}]\n"
        "parse: [{choice: ['yes', 'no']}]\nscorers: [exact_match]\n"
        'gates: ["exact_match >= 0.5"]\n'
    )
    return path


@dataclass(frozen=True)
class Sweeps:
    """A store with two sweeps over the same 80 rows: the second is right in 8 rows more, wrong in 2 more."""

    root: Path
    store: Path
    ids: list[str]


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Sweeps:
    root = tmp_path_factory.mktemp("sweeps")
    chance = random.Random(5)
    rows = []
    for at in range(80):
        target = chance.choice(["yes", "no"])
        other = {"yes": "no", "no": "yes"}[target]
        old = target if at >= 20 else other
        new = target if at < 8 or (20 <= at < 78) else other
        rows.append(
            {
                "id": f"q{at}",
                "q": f"Is {at} lucky? {BAD}",
                "target": target,
                "old": f"{old} {BAD}",
                "new": new,
            }
        )
    (root / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ids = []
    for name, text, column in (("first", "Q: {{ q }}", "old"), ("second", "Question: {{ q }}", "new")):
        ids.append(run(suite(root, name, text, column), root / "store"))
    return Sweeps(root, root / "store", ids)


@pytest.mark.usefixtures("browser")
class TestPages:
    pytestmark = needs_browser

    def test_a_comparison_says_what_changed_and_links_to_flipped_samples(
        self, opened: Opened, sweeps: Sweeps
    ) -> None:
        out = sweeps.root / "comparison.html"
        evalrun("compare", *sweeps.ids, "--store", sweeps.store, "--html", out)
        page = opened.open(out)
        text = page.inner_text("main")
        assert "2 samples went from right to wrong: q78, q79" in text
        assert "8 samples went from wrong to right: q0, q1" in text
        assert page.locator("#changes del").inner_text() == "Q"
        assert page.locator("#changes ins").inner_text() == "Question"
        assert page.inner_text("h1") == "second against first"
        heads = page.locator(".figures thead th").all_inner_texts()
        assert heads[1:3] == ["first", "second"]
        page.get_by_role("link", name="q79", exact=True).click()
        until(page, "document.getElementById('sample').innerText.includes('Is 79 lucky')")
        assert page.locator("#sample .side-name").all_inner_texts() == [
            "p \N{MIDDLE DOT} first right", "p \N{MIDDLE DOT} second wrong",
        ]  # fmt: skip
        assert page.locator(".grid-head > div").all_inner_texts()[1:] == [
            "p \N{MIDDLE DOT} first", "p \N{MIDDLE DOT} second",
        ]  # fmt: skip
        assert page.inner_text("#found") == "2 of 80 samples in 2 runs"
        page.click("#close")
        page.get_by_role("link", name="8 samples went from wrong to right").click()
        until(page, "document.getElementById('found').textContent.startsWith('8 of 80')")
        assert page.evaluate("window.hurt") is None
        opened.assert_quiet()

    def test_the_site_finds_sweeps_and_leads_to_their_reports(
        self, opened: Opened, sweeps: Sweeps, tmp_path: Path
    ) -> None:
        evalrun("site", tmp_path / "site", "--store", sweeps.store)
        page = opened.open(tmp_path / "site" / "index.html", charts=False, samples=False)
        rows = page.locator("#sweeps tbody tr")
        assert rows.count() == 2
        page.fill("#search", "second")
        assert page.inner_text("#found") == "1 of 2"
        assert rows.locator("visible=true").count() == 1
        page.get_by_role("link", name="lucky").first.click()
        assert page.inner_text("h1") == "lucky"
        page.get_by_role("link", name="first", exact=True).click()
        until(page, "document.documentElement.dataset.charts === 'drawn'")
        page.get_by_role("link", name="evalrun").click()
        assert page.inner_text("h1") == "Evaluations"
        opened.assert_quiet()


def test_a_site_is_written_again_only_where_something_changed(sweeps: Sweeps, tmp_path: Path) -> None:
    out = tmp_path / "site"
    first = json.loads(evalrun("site", out, "--store", sweeps.store, "--json").stdout)
    assert (first["sweeps"], first["reports"]) == (2, 2)
    again = json.loads(evalrun("site", out, "--store", sweeps.store, "--json").stdout)
    assert (again["sweeps"], again["reports"]) == (2, 0)
    evalrun("note", sweeps.ids[0], "looked at", "--store", sweeps.store)
    noted = json.loads(evalrun("site", out, "--store", sweeps.store, "--json").stdout)
    assert noted["reports"] == 1
    assert "looked at" in (out / "index.html").read_text()


def test_a_sweep_that_was_deleted_leaves_the_site(sweeps: Sweeps, tmp_path: Path) -> None:
    out, store = tmp_path / "site", tmp_path / "store"
    path = suite(sweeps.root, "third", "{{ q }}", "new", project="other")
    id_ = run(path, store)
    evalrun("site", out, "--store", store)
    assert (out / "sweeps" / f"{id_}.html").exists()
    assert (out / "projects" / "other.html").exists()
    evalrun("delete", id_, "--store", store, "--yes")
    evalrun("site", out, "--store", store)
    assert not (out / "sweeps" / f"{id_}.html").exists()
    assert not (out / "projects" / "other.html").exists()
    assert "no sweep yet" in (out / "index.html").read_text()


def test_a_folder_with_other_things_in_it_is_not_written_into(sweeps: Sweeps, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    done = CliRunner().invoke(cli, ["site", str(tmp_path), "--store", str(sweeps.store)])
    assert "holds no site" in str(done.exception)
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_night_that_broke_says_where_and_leads_there(opened: Opened, tmp_path: Path) -> None:
    rows = []
    for at in range(80):
        target = ["billing", "bug", "account", "shipping"][at % 4]
        new = "bug" if target == "shipping" else target
        rows.append({"text": f"ticket {at} of a customer", "label": target, "old": target, "new": new})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    labels = "[billing, bug, account, shipping]"
    for name, column in (("night-2", "old"), ("night-3", "new")):
        (tmp_path / f"{name}.yaml").write_text(
            f"name: {name}\nproject: nights\nmodels: [{{id: m, provider: recorded, column: {column}}}]\n"
            'prompts: [{id: p, text: "{{ text }}"}]\n'
            'datasets: [{id: d, path: rows.jsonl, target: "{{ label }}"}]\n'
            f"scorers: [{{classification: {{labels: {labels}}}}}]\n"
        )
        run(tmp_path / f"{name}.yaml", tmp_path / "store")
    evalrun("compare", "night-2", "night-3", "--store", tmp_path / "store", "--html", tmp_path / "c.html")
    page = opened.open(tmp_path / "c.html", charts=False)
    answer = page.inner_text("#answer")
    assert "night-3 is worse than night-2 by classification.accuracy: 1.00 \u2192 0.75" in answer
    assert "Where it broke: 20 of 20 in " in answer and "=shipping" in answer
    assert "What changed: model m." in answer
    page.locator(".flips a.slice").first.click()
    until(page, "document.getElementById('found').textContent.startsWith('20 of 80')")
    assert page.locator(".sample-name").first.inner_text().startswith("ticket 3 of a customer")
    assert page.get_attribute("#chips [data-kind=lost]", "aria-pressed") == "true"
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    names = page.locator("a.one-sample").all_inner_texts()
    assert names and all(name.startswith("ticket ") for name in names), "words, not hashes"
    opened.assert_quiet()
