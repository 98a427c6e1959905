"""The page of a comparison: of two sweeps, and of one sweep within itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from click.testing import CliRunner
from sweep_data import Cell, make_sweep

from evalrun.analysis import beside
from evalrun.analysis.beside import compare_beside
from evalrun.analysis.compare import CompareOptions, compare
from evalrun.analysis.pairing import Chosen
from evalrun.cli.main import cli
from evalrun.reports.comparison import view
from evalrun.reports.view import words
from evalrun.tracking.folder import SweepFolder

SUITE = """
name: pair
models: [{{id: m, provider: recorded, column: {column}}}]
prompts: [{{id: short, text: "{{{{ q }}}}"}}, {{id: long, text: "Please: {{{{ q }}}}"}}]
datasets: [{{id: d, path: rows.jsonl, key: id, target: target}}]
scorers: [exact_match, {{includes: {{ignore_case: true}}}}]
"""


def evalrun(*words: str) -> str:
    done = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two sweeps of two prompts: the second answers 30 more of 80 rows rightly."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"id": f"r{at}", "q": f"Is it {at}?", "target": "yes", "old": "yes" if at < 40 else "no",
         "new": "yes" if at < 70 else "no"}
        for at in range(80)
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = []
    for column in ("old", "new"):
        (tmp_path / "suite.yaml").write_text(SUITE.format(column=column))
        made.append(json.loads(evalrun("suite.yaml", "--fresh", "--no-report", "--json"))["sweep"])
    return made


def text_of(page: Path) -> str:
    """What is read on the page, without markup, scripts and styles."""
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", page.read_text(), flags=re.DOTALL).replace("<wbr>", "")
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_two_sweeps_are_told_in_words_and_figures(sweeps: list[str], tmp_path: Path) -> None:
    evalrun("compare", *sweeps, "--metric", "exact_match", "--html", "page.html")
    text = text_of(tmp_path / "page.html")
    assert "#2 against #1" in text
    assert "Both runs are better by exact_match: short +0.38 [+0.2" in text
    assert "short better 0.50 0.88 +0.38 [+0.2" in text and " < 0.001 30 0 " in text, "a line a run"
    assert "exact_match 0.50 0.88 +0.38 [+0.2" in text, "both sides and their difference in one table"
    assert "What changed: model m." in text and "60 samples became better, 0 worse." in text
    assert "30 samples went from wrong to right" in text


def test_one_pair_is_told_with_its_figures_and_names(sweeps: list[str], tmp_path: Path) -> None:
    suite = (tmp_path / "suite.yaml").read_text().replace("name: pair", "name: night-3")
    (tmp_path / "suite.yaml").write_text(suite)
    new = json.loads(evalrun("suite.yaml", "--fresh", "--no-report", "--json"))["sweep"]
    one, other = f"{sweeps[0]}/m-short-d", f"{new}/m-short-d"
    evalrun("compare", one, other, "--metric", "exact_match", "--html", "page.html")
    text = text_of(tmp_path / "page.html")
    assert "night-3 is better than pair by exact_match: 0.50 \N{RIGHTWARDS ARROW} 0.88, +0.38 [+0.2" in text
    assert "], p < 0.001 (n = 80)." in text
    assert "figure pair night-3 difference [95 % interval] p pairs verdict" in text, "names, not letters"
    shown = evalrun("compare", one, other, "--metric", "exact_match")
    head = next(line for line in shown.splitlines() if line.split()[:1] == ["run"])
    assert {"pair", "night-3"} <= {*head.split()}


def test_what_ties_says_what_the_samples_could_have_shown(sweeps: list[str], tmp_path: Path) -> None:
    one, other = f"{sweeps[0]}/m-short-d", f"{sweeps[0]}/m-long-d"
    evalrun("compare", one, other, "--metric", "exact_match", "--html", "page.html")
    text = text_of(tmp_path / "page.html")
    assert "long is tied with short by exact_match: 0.50 \N{RIGHTWARDS ARROW} 0.50, 0.00" in text


def called(folder: SweepFolder, name: str) -> SweepFolder:
    """The sweep with an id of its own."""
    ulid = f"01JDATA000000000000000000{name.upper()}"
    folder = SweepFolder(folder.path.rename(folder.path.with_name(f"{ulid}-sweep")))
    folder.write_manifest({**folder.read_manifest(), "sweep": ulid})
    return folder


def test_speed_memory_and_gaps_stand_beside_the_scores(tmp_path: Path) -> None:
    cells = [Cell("m", "p", e2e_s=0.4), Cell("m", "p", e2e_s=0.8, bias=0.5)]
    before, after = (
        make_sweep(tmp_path / name, [cell], n=90) for name, cell in zip("ab", cells, strict=True)
    )
    chosen = [Chosen(before), Chosen(after)]
    found = {each.metric: each for each in compare_beside(chosen, CompareOptions(), ["exact_match"])}
    assert found["performance.e2e_s.p50"].verdict.word == "worse"
    assert found["performance.e2e_s.p50"].result.difference == pytest.approx(0.4, abs=0.15)
    assert found["fairness.dialect.exact_match.gap"].result.difference is not None
    assert "memory.engine_peak_bytes" in found and "cost.usd" not in found
    assert "error_rate" not in found, "nothing failed on either side"


def test_of_many_samples_means_stand_for_percentiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "MANY", 50)
    folders = [make_sweep(tmp_path / name, [Cell("m", "p", e2e_s=0.4)], n=60, by=()) for name in "ab"]
    found = compare_beside([Chosen(each) for each in folders], CompareOptions(), ["exact_match"])
    names = [each.metric for each in found]
    assert "performance.e2e_s.mean" in names and "performance.e2e_s.p50" not in names


def test_writing_the_page_imports_nothing_that_it_can_do_without(tmp_path: Path) -> None:
    folders = [called(make_sweep(tmp_path / name, [Cell("m", "p")], n=90), name) for name in "ab"]
    paths = [str(folder.path) for folder in folders]
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from evalrun.analysis.compare import compare\n"
        "from evalrun.analysis.pairing import Chosen\n"
        "from evalrun.reports import comparison, samples\n"
        "from evalrun.tracking.folder import SweepFolder\n"
        "samples.MOST_SHOWN = 100\n"
        f"folders = [SweepFolder(Path(name)) for name in {paths!r}]\n"
        f"page = Path({str(tmp_path / 'page.html')!r})\n"
        "comparison.write_comparison(compare([Chosen(each) for each in folders]), folders, page)\n"
        "heavy = ('pandas', 'sqlalchemy', 'rich', 'scipy', 'fairlearn', 'vl_convert')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_speeds_under_unlike_loads_get_no_verdict(tmp_path: Path) -> None:
    folders = []
    for name, at_once in (("a", 4), ("b", 16)):
        folder = make_sweep(tmp_path / name, [Cell("m", "p", e2e_s=0.1 * at_once)], n=60, by=())
        (run,) = folder.runs()
        load = {"concurrency": {"adaptive": False, "final": at_once}}
        folder = called(folder, name)
        folder.finish_run(run["run"], {**run, "timings": load})
        folders.append(folder)
    found = compare_beside([Chosen(each) for each in folders], CompareOptions(), ["exact_match"])
    speed = next(each for each in found if each.metric == "performance.e2e_s.p50")
    assert speed.verdict.word == "inconclusive" and speed.p_corrected is None
    assert speed.verdict.sentence == "asked 4 at once and 16 at once: not compared"


def test_one_sweep_is_compared_within_itself(sweeps: list[str], tmp_path: Path) -> None:
    evalrun("compare", sweeps[0], "--metric", "exact_match", "--html", "page.html")
    text = text_of(tmp_path / "page.html")
    assert "Nothing could be compared" not in text
    assert "By exact_match: the 2 runs are tied on 80 samples." in text
    assert "exact_match on d (higher is better)" in text and "m-short-d" in text
    assert "How far from" not in text, "both runs say the same: there is nothing to draw"
    assert (tmp_path / "page.html").read_text().count("data-chunk=") == 2, (
        "the samples of both runs are inside"
    )


def test_runs_of_one_sweep_are_drawn_against_the_best(sweeps: list[str], tmp_path: Path) -> None:
    suite = SUITE.format(column="old")
    more = ", ".join(f"{{id: {name}, provider: recorded, column: {name}}}" for name in ("new", "target"))
    assert "old}]" in suite
    (tmp_path / "suite.yaml").write_text(suite.replace("old}]", f"old}}, {more}]"))
    sweep = json.loads(evalrun("suite.yaml", "--fresh", "--no-report", "--json", "--prompts", "short"))[
        "sweep"
    ]
    evalrun("compare", sweep, "--metric", "exact_match", "--html", "page.html")
    page = (tmp_path / "page.html").read_text()
    specs = page.partition('<script type="application/json" id="chart-specs">')[2].partition("</script>")[0]
    rows = {row["run"]: row for row in json.loads(specs)["standing-0"]["data"]["values"]}
    new, old = rows["new-short-d"], rows["m-short-d"]
    assert new["v"] == pytest.approx(-10 / 80) and old["v"] == pytest.approx(-40 / 80), "run minus best"
    assert old["low"] < old["v"] < old["high"] < 0 and old["verdict"] == "behind"
    text = text_of(tmp_path / "page.html")
    assert "How far from target-short-d, d" in text and "Run minus best: left of 0 is worse." in text
    assert f"\u22120.50 [{old['low']:.2f}, ".replace("[-", "[\u2212") in text, (
        "the figures stand in a table too"
    )


def test_samples_are_scored_by_the_scorer_behind_the_headline(sweeps: list[str], tmp_path: Path) -> None:
    suite = SUITE.format(column="new").replace(
        "[exact_match, ", "[{classification: {labels: ['yes', 'no']}}, "
    )
    (tmp_path / "suite.yaml").write_text(suite)
    sweep = json.loads(evalrun("suite.yaml", "--fresh", "--no-report", "--json"))["sweep"]
    evalrun("compare", sweep, sweep, "--metric", "classification.accuracy", "--html", "page.html")
    index = (tmp_path / "page.html").read_text().partition('id="samples-index">')[2].partition("</script>")[0]
    assert json.loads(index)["scores"][0]["name"] == "classification"


def test_one_run_of_several_that_moved_is_named_with_where_it_broke(tmp_path: Path) -> None:
    before = make_sweep(tmp_path / "a", [Cell("m", "p", accuracy=0.9), Cell("m", "q", accuracy=0.5)], n=160)
    after = make_sweep(tmp_path / "b", [Cell("m", "p", accuracy=0.4), Cell("m", "q", accuracy=0.52)], n=160)
    ulid = "01JDATA000000000000000000B"
    after = SweepFolder(after.path.rename(after.path.with_name(f"{ulid}-sweep")))
    after.write_manifest({**after.read_manifest(), "sweep": ulid})
    comparison = compare([Chosen(before), Chosen(after)], CompareOptions(("exact_match",)))
    shown = view(
        comparison, [before, after], compare_beside([Chosen(before), Chosen(after)], CompareOptions(), [])
    )
    said = words(shown.lead)
    assert said.startswith("1 of 2 runs is worse by exact_match (1 tied): p \N{MINUS SIGN}0."), said
    first, second = shown.overview
    assert (first.pair.word, second.pair.word) == ("worse", "tied")
    assert shown.samples[0][0].full.startswith("p"), "the grid begins with what became worse"


def test_ids_can_neither_colour_nor_clear_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    marks = ["\x00", "\x07", "\x1b[2J", "\x9b31m", "\u202e", "x" * 5000]
    rows = [
        {"id": f"{at}{marks[at % 6]}", "q": "?", "target": "yes", "old": "yes", "new": "no"}
        for at in range(12)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for column in ("old", "new"):
        (tmp_path / "suite.yaml").write_text(SUITE.format(column=column))
        evalrun("suite.yaml", "--fresh", "--no-report", "-q")
    for more in ((), ("--markdown",)):
        said = evalrun("compare", "latest~1", "latest", *more)
        assert "12 went from right to wrong: 0" in said
        assert re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", said) is None
        assert max(map(len, said.splitlines())) < 500
    assert "Intervals: 95 % for all of them together." in evalrun("compare", "latest~1", "latest")
