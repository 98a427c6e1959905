"""Accuracy without labels: close where confidences are calibrated or can be, and silent where they cannot."""

import numpy as np

from evalrun.analysis.cbpe import confidences, estimated_accuracy
from evalrun.analysis.drift import Side, drift
from evalrun.reports.drift import drift_lines


def drawn(rng: np.random.Generator, n: int, low: float) -> tuple[np.ndarray, np.ndarray]:
    """How sure and whether right; of sure ones fewer are right than they say."""
    said = rng.uniform(low, 1.0, n)
    return said, (rng.random(n) < said**2).astype(float)


def test_it_finds_the_accuracy_of_another_mix() -> None:
    rng = np.random.default_rng(0)
    covered, naive = 0, []
    for seed in range(40):
        known, right = drawn(rng, 800, 0.2)
        live, _ = drawn(rng, 800, 0.6)  # easier rows
        found = estimated_accuracy(known, right, live, seed)
        assert found.value is not None and found.low is not None and found.high is not None
        expected = (1 - 0.6**3) / 3 / 0.4
        covered += found.low <= expected <= found.high
        naive.append(live.mean() - expected)
    assert covered >= 35 and np.mean(naive) > 0.1, "uncalibrated it would be far too high"


def test_it_says_nothing_where_it_cannot() -> None:
    rng = np.random.default_rng(1)
    known, right = drawn(rng, 200, 0.2)
    assert estimated_accuracy(known[:30], right[:30], known).value is None
    assert estimated_accuracy(known, np.ones(200), known).value is None


def test_drift_shows_it_where_live_has_no_score() -> None:
    rng = np.random.default_rng(2)
    known, right = drawn(rng, 500, 0.2)
    live, _ = drawn(rng, 500, 0.7)
    reference = Side("a", {"confidence": known, "score.exact_match": right}, 500)
    found = drift(reference, Side("b", {"confidence": live}, 500))
    (told,) = found.estimated
    assert told.score == "exact_match" and abs(told.reference - right.mean()) < 1e-9 and told.live > 0.65
    assert any("without labels" in line and "estimated" in line for line in drift_lines(found))
    own = {"score.l.confidence": known, "score.l.right": right, "score.exact_match": right}
    assert list(confidences(own, own)) == [("score.l.confidence", "score.l.right")]
    assert list(confidences({"p": known, "score.x": right}, {"p": live}, "p")) == [("p", "score.x")]
