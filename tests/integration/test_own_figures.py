"""Figures that people log are numbers, as a run's own metrics are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.program import evalrun
from tests.recorded import recorded_suite, yes_no


def test_a_logged_figure_is_found_sorted_kept_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suite = recorded_suite(tmp_path, yes_no([True, False] * 5, n=["yes"] * 10), ["m", "n"])
    assert evalrun(suite, "-q", "--no-report").returncode == 0
    assert evalrun("log", "latest/m-p-d", "energy.kwh=1.5", "helpful=9").returncode == 0
    assert evalrun("log", "latest/n-p-d", "energy.kwh=10").returncode == 0
    assert evalrun("log", "latest/m-p-d", "energy.kwh=2.5").returncode == 0, "the last one counts"
    for _ in range(2):
        found = json.loads(
            evalrun("find", "metric.energy.kwh > 2", "--sort", "-metric.energy.kwh", "--json").stdout
        )
        assert [row["model"] for row in found["runs"]] == ["n", "m"]
        assert found["runs"][1]["metrics"]["energy.kwh"]["value"] == 2.5
        assert evalrun("audit", "verify").returncode == 0
        assert evalrun("reindex").returncode == 0
    for wrong in ("kwh", "kwh=much", "kwh=nan", "1=2", "exact_match=1"):
        refused = evalrun("log", "latest/m-p-d", wrong)
        assert refused.returncode == 2 and "Traceback" not in refused.stderr, wrong


def one_run(folder: Path, **parts: object) -> Path:
    return recorded_suite(folder, yes_no([True, False] * 5), ["m"], **parts)


def test_numeric_tags_are_numbers_and_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for lr in ("0.5", "10", "9"):
        suite = one_run(tmp_path, tags={"lr": lr, "team": "nlp"})
        assert evalrun(suite, "-q", "--no-report", "--fresh").returncode == 0

    def found(query: str, *words: str) -> list[str]:
        done = evalrun("find", query, *words, "--json")
        assert done.returncode == 0, done.stderr
        return [row["tags"]["lr"] for row in json.loads(done.stdout)["runs"]]

    assert found("tag.lr > 0.7", "--sort", "tag.lr") == ["9", "10"]
    assert found("tag.lr == 9") == found('tag.lr == "9"') == ["9"]
    assert found("tag.lr in (0.5, 10)", "--sort", "-tag.lr") == ["10", "0.5"]
    assert found("tag.team > 1") == found("tag.team < 1") == []
    assert found('tag.team == "nlp" and metric.tag.lr >= 10') == ["10"]
    line = json.loads(evalrun("trend", "--metric", "tag.lr", "--json").stdout)["lines"][0]
    assert [point["value"] for point in line["points"]] == [0.5, 10, 9]
    assert evalrun("trend", "--metric", "tag.lr", "--html", "t.html").returncode == 0


def test_gates_take_metrics_of_the_suite_numeric_tags_and_what_was_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    gates = ["params.billions <= 7", "tag.budget < 3", "energy.kwh <= 2"]
    suite = one_run(
        tmp_path, gates=gates, tags={"budget": "2.5"}, metrics={"params.billions": 0.135, "energy.kwh": None}
    )
    first = evalrun(suite, "-q", "--no-report", "--json")
    verdicts = {gate["gate"]: gate["verdict"] for gate in json.loads(first.stdout)["gates"]}
    assert verdicts == {gates[0]: "pass", gates[1]: "pass", gates[2]: "fail"}, first.stderr
    assert evalrun("log", "latest/m-p-d", "energy.kwh=1.5").returncode == 0
    again = evalrun("gate", "latest", *(word for gate in gates for word in ("--gate", gate)))
    assert again.returncode == 0, again.stdout + again.stderr
    assert evalrun("log", "latest/m-p-d", "energy.kwh=2.5").returncode == 0
    assert evalrun("gate", "latest", "--gate", "energy.kwh <= 2").returncode == 1
    wrong = evalrun(one_run(tmp_path, gates=["energy.kw <= 2"], metrics={"energy.kwh": None}), "-q")
    assert wrong.returncode == 2 and "energy.kwh" in wrong.stderr
    refused = evalrun(one_run(tmp_path, metrics={"two words": 1}), "-q")
    assert refused.returncode == 2 and "metrics" in refused.stderr and "Traceback" not in refused.stderr


def test_what_people_say_stands_on_every_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert (
            evalrun(one_run(tmp_path, tags={"team": "nlp"}), "-q", "--no-report", "--fresh").returncode == 0
        )
    assert evalrun("site", "site").returncode == 0
    Path("labels.csv").write_text("sample_id,run,rating\ns0001,m-p-d,4\ns0002,m-p-d,2\n")
    for words in (
        ("tag", "latest", "lr=0.25"),
        ("annotate", "latest", "looks <b>odd</b> at night"),
        ("annotate", "latest/m-p-d/s0003", "this one is mislabelled"),
        ("label", "latest", "--from", "labels.csv"),
        ("log", "latest/m-p-d", "energy.kwh=1.5"),
    ):
        done = evalrun(*words)
        assert done.returncode == 0, (words, done.stderr)
    assert evalrun("report", "latest", "--out", "r.html").returncode == 0
    assert evalrun("compare", "previous", "latest", "--html", "c.html").returncode == 0
    assert evalrun("site", "site").returncode == 0
    newest = max(Path("site/sweeps").iterdir())
    for path in (Path("r.html"), Path("c.html"), newest):
        page = path.read_text()
        for text in ("team=nlp", "lr=0.25", "looks &lt;b&gt;odd&lt;/b&gt;", "this one is mislabelled",
                     "2 labels of &#39;rating&#39;", "energy.kwh"):  # fmt: skip
            assert text in page, (path, text)
        assert ("#sample=m-p-d/s0003/0" in page) is (path.name != "c.html")
    index = Path("site/index.html").read_text()
    assert "lr=0.25" in index and "looks &lt;b&gt;odd" in index


SEVERAL = """
import numpy as np

def several(answer, target):
    right = answer == target
    size = {"words": len(answer), "none": None}
    return {"Word F1": np.float32(0.25 + 0.5 * right), "size": size, "why": "seen"}

def scored(answer, target):
    return {"length": len(answer), "score": answer == target}, "by hand"
"""


def test_a_scorer_of_several_numbers_gives_a_metric_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own_figures.py").write_text(SEVERAL)
    suite = one_run(
        tmp_path,
        scorers=[{"python": "own_figures:several"}, {"python": "own_figures:scored"}],
        gates=["several.word_f1 >= 0.4", "scored.length <= 2.5"],
    )
    first = evalrun(suite, "-q", "--json", "--report", "r.html")
    assert first.returncode == 0, first.stderr
    metrics = {each["name"]: each for each in json.loads(first.stdout)["runs"][0]["metrics"]}
    assert (metrics["several"]["value"], metrics["several.word_f1"]["value"]) == (0.5, 0.5)
    assert metrics["several.size.words"]["value"] == metrics["scored.length"]["value"] == 2.5
    assert metrics["several.size.words"]["direction"] == "none", "nobody said what is better"
    assert metrics["several.word_f1"]["ci_low"] is not None
    assert metrics["scored"]["value"] == 0.5 and "scored.score" not in metrics
    assert metrics["several.size.none"]["value"] is None
    rows = json.loads(evalrun("find", "metric.several.word_f1 > 0.4", "--json").stdout)["runs"]
    assert len(rows) == 1
    sample = json.loads(evalrun("samples", "latest", "--json", "--limit", "1").stdout)["samples"][0]
    assert sample["reason.several"] == "why seen" and sample["reason.scored"] == "by hand"
    assert evalrun(suite, "-q", "--no-report", "--fresh").returncode == 0
    compared = evalrun("compare", "previous", "latest", "--metric", "several.word_f1", "--json")
    assert compared.returncode == 0 and "several.word_f1" in compared.stdout, compared.stderr
    assert "several.word_f1" in Path("r.html").read_text()
