"""One figure over several datasets: weights, errors, and what they cover."""

import math

import numpy as np
import pytest

from evalrun.analysis.intervals import mean, wilson
from evalrun.analysis.pooled import pooled_estimates
from evalrun.results import Estimate, RunResults
from evalrun.types import MetricValue


def run(dataset: str, estimate: Estimate, model: str = "m") -> RunResults:
    metric = MetricValue(
        "exact_match", estimate.value, estimate.n, "fraction", "higher", se=estimate.se,
        ci_low=estimate.low, ci_high=estimate.high, method=estimate.method,
    )  # fmt: skip
    return RunResults(f"{model}-{dataset}", model, "p", dataset, metrics=(metric,))


def test_each_dataset_counts_alike_or_each_sample() -> None:
    first, second = Estimate(0.8, 400, 0.02, 0.76, 0.84, "t"), Estimate(0.5, 100, 0.05, 0.40, 0.60, "t")
    (pooled,) = pooled_estimates([run("a", first), run("b", second)], "exact_match")
    assert pooled.macro.value == pytest.approx(0.65)
    assert pooled.macro.se == pytest.approx(math.hypot(0.02, 0.05) / 2)
    assert pooled.micro.value == pytest.approx((400 * 0.8 + 100 * 0.5) / 500)
    assert pooled.micro.se == pytest.approx(math.hypot(0.8 * 0.02, 0.2 * 0.05))
    assert (pooled.micro.n, pooled.datasets) == (500, ("a", "b"))
    assert "over 2 datasets that count alike" in pooled.sentence
    assert "500 samples" in pooled.sentence


def test_what_has_no_value_or_one_dataset_alone() -> None:
    one, none = Estimate(0.8, 400, 0.02, 0.76, 0.84, "t"), Estimate(None, 0)
    assert pooled_estimates([run("a", one)], "exact_match") == []
    (pooled,) = pooled_estimates([run("a", one), run("b", none)], "exact_match")
    assert (pooled.macro.value, pooled.datasets) == (0.8, ("a",))
    assert pooled.note == "without b, which has no value"
    (nothing,) = pooled_estimates([run("a", none), run("b", none)], "exact_match")
    assert (nothing.macro.value, nothing.sentence) == (None, "")
    without = Estimate(0.8, 400)
    (bare,) = pooled_estimates([run("a", one), run("b", without)], "exact_match")
    assert (bare.macro.low, "no standard error" in bare.macro.note) == (None, True)
    both = [run("a", one), run("b", one), run("a", one, "other"), run("b", one, "other")]
    assert [each.model for each in pooled_estimates(both, "exact_match")] == ["m", "other"]


@pytest.mark.parametrize("kind", ["shares", "scores"])
def test_the_intervals_cover(kind: str) -> None:
    rng, sizes, truth = np.random.default_rng(0), (30, 100, 300), (0.95, 0.6, 0.3)
    covered = []
    for _ in range(600):
        runs = []
        for at, (n, share) in enumerate(zip(sizes, truth, strict=True)):
            if kind == "shares":
                estimate = wilson(float(rng.binomial(n, share)), n)
            else:
                estimate = mean(rng.normal(share, 0.1 * (at + 1), n))
            runs.append(run(str(at), estimate))
        (pooled,) = pooled_estimates(runs, "exact_match")
        whole = (sum(truth) / 3, sum(n * share for n, share in zip(sizes, truth, strict=True)) / sum(sizes))
        covered.append(
            [
                (part.low or 0) <= value <= (part.high or 0)
                for part, value in zip((pooled.macro, pooled.micro), whole, strict=True)
            ]
        )
    rates = np.mean(covered, axis=0)
    assert (rates >= 0.93).all()
    assert (rates <= 0.98).all()
