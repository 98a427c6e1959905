"""Metrics that need something from elsewhere: loaded on purpose, refused in clear words without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalrun.analysis.run import SystemSummary, analyse
from evalrun.analysis.table import SampleTable
from evalrun.scoring.base import Scorer, ScoringInput
from evalrun.scoring.pipeline import Pipeline
from evalrun.scoring.scorers.calibration import Calibration
from evalrun.scoring.scorers.hub import HubMetric
from evalrun.scoring.scorers.meteor import Meteor, missing_data
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


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("evaluate.config.HF_MODULES_CACHE", str(tmp_path / "modules"), raising=False)
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
    found = analyse(SampleTable.from_records(rows[:3]), [scorer], SystemSummary())
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


def test_both_forms_of_writing_it() -> None:
    for written in (
        {"hub": "accuracy", "revision": "abc"},
        {"hub": {"metric": "accuracy", "revision": "abc"}},
    ):
        spec = ScorerSpec.model_validate(written)
        assert spec.resolved()["hub"]["metric"] == "accuracy"
        assert spec.resolved()["hub"]["revision"] == "abc"


def test_meteor_without_its_data_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [])
    [problem] = Meteor(Meteor.Options()).check((), "d")
    assert "wordnet" in problem.what
    assert "nltk.downloader" in problem.remedy


@pytest.mark.skipif(bool(missing_data()), reason="NLTK's data are not on this machine")
def test_meteor_equals_nltk() -> None:
    from nltk import word_tokenize
    from nltk.translate.meteor_score import meteor_score

    answer, targets = "the cat sat on a mat", ["a cat was sitting on the mat", "no cat"]
    found = Meteor(Meteor.Options()).score(ScoringInput(answer, answer, targets, Status.SCORED, {}))
    assert found.value == pytest.approx(
        meteor_score([word_tokenize(each) for each in targets], word_tokenize(answer)), abs=1e-9
    )


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
