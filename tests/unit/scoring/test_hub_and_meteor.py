"""Metrics that need something from elsewhere: loaded on purpose, refused in clear words without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.tables import sample_table

from evalrun.analysis.performance import SystemSummary
from evalrun.analysis.run import analyse
from evalrun.scoring.base import Scorer, ScoringInput
from evalrun.scoring.pipeline import Pipeline
from evalrun.scoring.scorers.hub import HubMetric
from evalrun.scoring.scorers.labels import Calibration
from evalrun.scoring.scorers.words import Meteor
from evalrun.suite.components import ScorerSpec
from evalrun.types import SampleRecord, Status

SCRIPT = """
import datasets
import evaluate

class Overlap(evaluate.Metric):
    def _info(self):
        features = datasets.Features(
            {"predictions": datasets.Value("int32"), "references": datasets.Value("int32")}
        )
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references, weight=1.0):
        same = sum(a == b for a, b in zip(predictions, references))
        return {"n": len(predictions), "overlap": weight * same / len(predictions)}
"""


def hub(**options: Any) -> Scorer:
    return HubMetric(HubMetric.Options(**options))


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where evaluate copies scripts to; a process imports them from one folder only."""
    return tmp_path_factory.mktemp("modules")


@pytest.fixture
def script(tmp_path: Path, modules: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("evaluate.config.HF_MODULES_CACHE", str(modules), raising=False)
    path = tmp_path / "overlap.py"
    path.write_text(SCRIPT)
    return path


def test_a_metric_scores_samples_and_all_together(script: Path) -> None:
    scorer = hub(metric=str(script), args={"weight": 0.5})
    assert scorer.name == "hub_overlap"
    assert list(scorer.check((), "d")) == []
    pipeline = Pipeline([], [scorer])
    rows = []
    for at, (answer, target) in enumerate([("1", "1"), ("2", "3"), ("4", "4"), ("x", "4")]):
        scored = pipeline.evaluate(answer, target, {})
        rows.append(
            SampleRecord(
                f"s{at}", 0, at, {}, target, scored.status, answer=scored.answer, scores=scored.scores
            )
        )
    assert [row.scores["hub_overlap"] for row in rows] == [0.5, 0.0, 0.5, None]
    found = analyse(sample_table(rows[:3]), [scorer], SystemSummary())
    values = {each.name: each.value for each in found.metrics}
    assert values["hub_overlap"] == pytest.approx(1 / 3)
    assert values["hub_overlap.corpus"] == pytest.approx(1 / 3)


def test_without_the_network_it_is_said_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import evaluate

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
    [problem] = hub(metric="no_such_metric_anywhere", revision="abc").check((), "d")
    assert "cannot be loaded from the Hub" in problem.what
    assert "network" in problem.remedy


def test_a_folder_that_would_be_run_instead_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "accuracy").mkdir()
    [problem] = hub(metric="accuracy").check((), "d")
    assert "folder" in problem.what


@pytest.mark.parametrize("name", ["evaluate", "hub"])
def test_both_forms_of_writing_it(name: str) -> None:
    for written in (
        {name: "accuracy", "revision": "abc"},
        {name: {"metric": "accuracy", "revision": "abc"}},
    ):
        spec = ScorerSpec.model_validate(written)
        assert spec.resolved()[name]["metric"] == "accuracy"
        assert spec.resolved()[name]["revision"] == "abc"
        assert spec.build().name == f"{name}_accuracy"


LISTS = """
import datasets
import evaluate

class Longest(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": datasets.Sequence(text)})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references):
        shares = [len(a) / max(map(len, b)) for a, b in zip(predictions, references)]
        return {"note": "by characters", "share": shares}
"""


def test_a_metric_in_a_folder_of_this_machine_runs_without_the_network(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the form that says so; with lists of references, and a value for each answer."""
    import evaluate

    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "longest").mkdir()
    (tmp_path / "longest" / "longest.py").write_text(LISTS)
    [problem] = ScorerSpec.model_validate({"evaluate": "longest"}).build().check((), "d")
    assert "./longest" in problem.remedy
    scorer = ScorerSpec.model_validate({"evaluate": "./longest"}).build()
    assert list(scorer.check((), "d")) == []
    scored = Pipeline([], [scorer]).evaluate("abc", ["a", "abcdef"], {})
    assert scored.scores == {"evaluate_longest": 0.5}
    (tmp_path / "broken").mkdir()
    [problem] = ScorerSpec.model_validate({"evaluate": "./broken"}).build().check((), "d")
    assert "script" in problem.remedy


def test_meteor_without_its_data_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [])
    [problem] = Meteor(Meteor.Options()).check((), "d")
    assert "wordnet" in problem.what
    assert "nltk.downloader" in problem.remedy


def nltk_data(folder: Path) -> None:
    """NLTK data of one synset, {car, auto}, and a tokenizer that has learnt nothing."""
    wordnet = folder / "corpora" / "wordnet"
    wordnet.mkdir(parents=True)
    (wordnet / "lexnames").write_text("".join(f"{at:02d}\tnoun.x{at}\t1\n" for at in range(4)))
    header = "  1 made by a test\n"
    synset = f"{len(header):08d} 03 n 02 car 0 auto 0 000 | a motor vehicle  \n"
    words = "".join(f"{word} n 1 0 1 0 {len(header):08d}  \n" for word in ("auto", "car"))
    senses = "".join(f"{word}%1:03:00:: {len(header):08d} 1 0\n" for word in ("auto", "car"))
    (wordnet / "index.sense").write_text(senses)
    for name in ("noun", "verb", "adj", "adv"):
        (wordnet / f"data.{name}").write_text(header + synset * (name == "noun"))
        (wordnet / f"index.{name}").write_text(header + words * (name == "noun"))
        (wordnet / f"{name}.exc").write_text("")
    punkt = folder / "tokenizers" / "punkt_tab" / "english"
    punkt.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
        (punkt / name).write_text("")


COMPARED = """
import sys, threading
from nltk import word_tokenize
from nltk.translate.meteor_score import meteor_score
from evalrun.scoring.base import ScoringInput
from evalrun.scoring.scorers.words import Meteor, missing_data
from evalrun.types import Status

assert not missing_data(), missing_data()
scorer = Meteor(Meteor.Options())
texts = ["the car is red", "the auto is red", "red cars, running!", "",
    "猫 \u00e9 e\u0301 😀", "a " * 40]
pairs = [(answer, [target, "no cat"]) for answer in texts for target in texts]
mine = []
def score():
    found = [scorer.score(ScoringInput(a, a, t, Status.SCORED, {})).value for a, t in pairs]
    mine.append(found)
threads = [threading.Thread(target=score) for _ in range(3)]
[each.start() for each in threads]
[each.join() for each in threads]
theirs = [meteor_score([word_tokenize(t) for t in targets], word_tokenize(a)) for a, targets in pairs]
assert len(mine) == 3
for found in mine:
    assert all(abs(one - other) < 1e-9 for one, other in zip(found, theirs, strict=True)), (found, theirs)
assert mine[0][1] > 0.9, mine[0][1]  # the synonym counts
"""


def test_meteor_equals_nltk_with_data_that_are_here(tmp_path: Path) -> None:
    """In a process of its own: NLTK keeps the data that it first finds. Several threads read one corpus."""
    pytest.importorskip("nltk")
    nltk_data(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", COMPARED],
        env={**os.environ, "NLTK_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_calibration_of_a_confidence_in_a_column() -> None:
    scorer = Calibration(Calibration.Options(column="sure", scale=100))
    [problem] = scorer.check(("other",), "dataset d")
    assert "'sure'" in problem.what
    assert list(scorer.check(("sure",), "dataset d")) == []

    def scored(answer: Any, row: dict[str, Any]) -> float | None:
        return scorer.score(ScoringInput(answer, str(answer), "yes", Status.SCORED, row)).value

    assert scored("yes", {"sure": 80}) == pytest.approx(0.04)
    assert scored("no", {"sure": "80"}) == pytest.approx(0.64)
    assert scored({"answer": "yes", "confidence": 10}, {"sure": 90}) == pytest.approx(0.01)
    assert scored("yes", {"sure": 101}) is None
    assert scored("yes", {}) is None
