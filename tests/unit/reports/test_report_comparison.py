"""The page of a comparison: of two sweeps, and of one sweep within itself."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest
from click.testing import CliRunner

from evalrun.cli.main import cli

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
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", page.read_text(), flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_two_sweeps_are_told_in_words_and_figures(sweeps: list[str], tmp_path: Path) -> None:
    evalrun("compare", *sweeps, "--metric", "exact_match", "--html", "page.html")
    text = text_of(tmp_path / "page.html")
    assert "By exact_match: better in 2 of 2 comparisons." in text
    assert "0.50 \N{RIGHTWARDS ARROW} 0.88, +0.38 [+0.2" in text and "], p < 0.001" in text


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
