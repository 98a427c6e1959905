"""What each range of a search by TPE has to do with its score, beside functions of which it is known."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from evalrun.search.trials import importance

optuna = pytest.importorskip("optuna", reason="needs optuna (extra: search)")

RANGES = {"temperature", "top_p"}


def study_of(value: Callable[[float, float], float], trials: int = 20, seed: int = 1) -> object:
    """A study of so many trials of a function of the two, and of noise."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    unit, noise = optuna.distributions.FloatDistribution(0.0, 1.0), random.Random(seed)
    for _ in range(trials):
        trial = study.ask(dict.fromkeys(sorted(RANGES), unit))
        said = value(trial.params["temperature"], trial.params["top_p"])
        study.tell(trial, said + noise.gauss(0, 0.02))
    return study


@pytest.mark.parametrize("seed", [1, 2])
def test_a_range_that_decides_has_nearly_all_and_one_that_does_nothing_nearly_none(seed: int) -> None:
    def warmth(temperature: float, top_p: float) -> float:
        return 0.8 - 0.3 * (temperature - 0.3) ** 2

    shares = importance(study_of(warmth, seed=seed), RANGES)
    assert sum(shares.values()) == pytest.approx(1) and shares["temperature"] > 0.75
    turned = importance(study_of(lambda one, other: warmth(other, one), seed=seed), RANGES)
    assert turned["top_p"] > 0.75


def test_two_ranges_that_matter_alike_share_it() -> None:
    both = importance(study_of(lambda one, other: -((one - 0.3) ** 2) - (other - 0.3) ** 2, 40), RANGES)
    assert 0.25 < both["temperature"] < 0.75


def test_of_few_trials_and_of_ones_that_are_all_alike_nothing_is_said() -> None:
    study = optuna.create_study()
    unit = optuna.distributions.FloatDistribution(0.0, 1.0)
    for at in range(20):
        trial = study.ask(dict.fromkeys(sorted(RANGES), unit))
        study.tell(trial, 0.5)
        assert importance(study, RANGES) == {}, at
    assert not importance(study_of(lambda temperature, top_p: temperature, 5), RANGES)
