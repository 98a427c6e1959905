"""What is reached without reading the input, and that nothing is advised that is no better."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from evalrun.analysis.chance import _against_level, labels_of
from evalrun.sweep_results import Primary

CHOICE = {"choice": {"labels": ["a", "b", "c"], "options": None, "option_columns": None}}


def _labels(prompt: dict[str, Any] | None = None, **suite: Any) -> Any:
    run = SimpleNamespace(
        sweep=SimpleNamespace(
            suite=SimpleNamespace(resolved={"prompts": [{"id": "p", **(prompt or {})}], **suite})
        ),
        run=SimpleNamespace(prompt="p"),
    )
    score = next(iter(suite["scorers"][0]))
    return labels_of(run, Primary("m", score))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("suite", "number"),
    [
        ({"scorers": [{"classification": {"labels": ["a", "b", "c", "d"]}}]}, 4),
        ({"scorers": [{"exact_match": {}}], "parse": [{"first_line": {}}, CHOICE]}, 3),
        ({"scorers": [{"exact_match": {"parse": [CHOICE]}}], "parse": []}, 3),
        (
            {
                "scorers": [{"exact_match": {}}],
                "parse": [{"choice": {"letters": True, "option_columns": ["A", "B", "C", "D", "E"]}}],
            },
            5,
        ),
        (
            {
                "scorers": [{"exact_match": {}}],
                "prompt": {"ask": {"choose": {"options": ["yes", "no"]}}},
            },
            2,
        ),
    ],
)
def test_the_suite_says_how_many_labels_there_are(suite: dict[str, Any], number: int) -> None:
    assert _labels(**suite).number == number


def test_answers_in_free_words_have_no_level() -> None:
    assert _labels(scorers=[{"exact_match": {}}], parse=[{"last_number": {}}]) is None
    assert _labels(scorers=[{"judge": {}}], parse=[CHOICE]) is None


@pytest.mark.parametrize(("right", "n", "level"), [(40, 100, 0.25), (30, 100, 0.25), (133, 400, 1 / 3)])
def test_a_guess_is_tested_as_a_binomial(right: int, n: int, level: float) -> None:
    values = np.repeat([1.0, 0.0], [right, n - right])
    exact = binomtest(right, n, level).pvalue
    for alpha in (0.05, 0.0125):
        p, low, high = _against_level(values, None, level, (0.0, 1.0), alpha)
        assert p == pytest.approx(exact, abs=0.06) and (p <= 0.05) == (exact <= 0.05)
        assert low is not None and high is not None and low < right / n - level < high
        assert (p <= alpha) == (low > 0 or high < 0), "test and interval agree"


def test_rows_of_one_cluster_count_as_one() -> None:
    values = np.repeat([1.0, 0.0], [40, 60])
    alone, *ends = _against_level(values, None, 0.25, (0.0, 1.0), 0.05)
    together, low, high = _against_level(values, np.arange(100) // 10, 0.25, (0.0, 1.0), 0.05)
    assert alone < 0.01 < together
    assert low is not None and high is not None and ends[0] is not None and ends[1] is not None
    assert low < 0 < ends[0] and high - low > ends[1] - ends[0]
