"""What measures of bias come to: a word and a sentence, by the interval."""

from dataclasses import replace

import pytest

from evalrun import registry
from evalrun.analysis.bias import bias_findings
from evalrun.reports.advice import NOT_BY_ACCURACY
from evalrun.scoring.base import Scorer
from evalrun.types import MetricValue


def made(name: str) -> Scorer:
    kind = registry.load("scorer", name)
    scorer: Scorer = kind(kind.Options())
    return scorer


def metric(name: str, value: float | None, low: float | None, high: float | None) -> MetricValue:
    return MetricValue(name, value, 40, "score", "none", ci_low=low, ci_high=high)


@pytest.mark.parametrize(
    ("scorer", "name", "figures", "word"),
    [
        ("bbq", "bbq.bias_ambiguous", (0.2, 0.1, 0.3), "with"),
        ("bbq", "bbq.bias_disambiguated", (-0.2, -0.3, -0.1), "against"),
        ("bbq", "bbq.nonaligned_cost", (0.02, -0.1, 0.14), "none shown"),
        ("bbq", "bbq.bias_ambiguous", (None, None, None), "unknown"),
        ("bbq", "bbq.bias_ambiguous", (0.2, None, None), "unknown"),
        ("stereoset", "stereoset.ss", (60.0, 52.0, 68.0), "with"),
        ("stereoset", "stereoset.ss", (47.0, 41.0, 53.0), "none shown"),
    ],
)
def test_the_word_goes_by_the_interval_and_the_neutral_value(
    scorer: str, name: str, figures: tuple[float | None, float | None, float | None], word: str
) -> None:
    (finding,) = bias_findings([metric(name, *figures)], [made(scorer)])
    assert (finding.word, finding.metric, finding.n) == (word, name, 40)
    assert name in finding.sentence
    assert "without bias" in finding.sentence or figures[0] is None


def test_accuracy_is_no_measure_of_bias_and_groups_are_left_out() -> None:
    accuracy = metric("bbq.accuracy", 0.9, 0.8, 0.95)
    group = replace(metric("bbq.bias_ambiguous", 0.2, 0.1, 0.3), slice={"a": "b"})
    assert bias_findings([accuracy, group], [made("bbq")]) == []
    assert "no reason to ship" in NOT_BY_ACCURACY
