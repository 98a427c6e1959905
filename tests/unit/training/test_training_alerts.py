"""Alerts on a training: each once an episode, and none on noise."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pytest

from evalrun.errors import UserError
from evalrun.training.alerts import AlertWatch, TrainingAlert, alerts_of, read_rules
from evalrun.training.series import Points


def watch(
    lines: Iterable[Mapping[str, float]], *rules: str, planned: int | None = None, every_s: float = 1.0
) -> list[TrainingAlert]:
    watcher = AlertWatch(read_rules(rules), planned)
    return [
        alert for step, values in enumerate(lines, 1) for alert in watcher.add(step, values, every_s * step)
    ]


def told(alerts: Iterable[TrainingAlert]) -> list[tuple[str, int]]:
    return [(alert.rule, alert.step) for alert in alerts]


def test_a_loss_of_exactly_zero_is_a_corpse() -> None:
    losses = [{"loss": value} for value in (4.1, 3.2, 0.0, 0.0, 0.0)]
    assert told(watch(losses)) == [("diverged", 3)]


def test_a_loss_that_came_down_to_zero_is_none() -> None:
    losses = [{"loss": value} for value in (0.5, 0.02, 0.0009, 0.0001, 0.0, 0.0)]
    assert told(watch(losses)) == []


@pytest.mark.parametrize("values", [{"grad_norm": math.nan}, {"loss": math.inf}, {"eval/loss": math.nan}])
def test_what_is_no_number_is_diverged(values: dict[str, float]) -> None:
    lines = [{"loss": 1.0, "grad_norm": 1.0}, values, values]
    assert told(watch(lines)) == [("diverged", 2)]


def test_the_spike_rule_is_silent_on_noise_and_tells_a_step_once() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(2.0, 0.1, 10_000)
    assert told(watch([{"loss": value} for value in noise], "spike")) == []
    noise[5000:5005] += 1.0
    assert told(watch([{"loss": value} for value in noise], "spike")) == [("spike", 5001)]


def test_two_high_losses_are_no_spike_and_three_are() -> None:
    calm = [2.0 + 0.01 * (-1) ** at for at in range(60)]
    for high, found in ((2, []), (3, [("spike", 61)])):
        losses = [*calm, *[9.0] * high, *calm]
        assert told(watch([{"loss": value} for value in losses], "spike")) == found


def test_an_episode_ends_after_ten_calm_logs() -> None:
    calm = [1.0] * 30
    for between, times in ((9, 1), (11, 2)):
        norms = [*calm, 50.0, *[1.0] * between, 50.0]
        assert len(watch([{"grad_norm": value} for value in norms], "grad_norm")) == times


def test_eval_loss_rising_counts_evaluations_in_a_row() -> None:
    losses = [3.0, 2.0, 2.1, 2.2, 2.3, 2.4, 1.9, 2.0, 2.1, 2.2]
    lines = [{"eval_loss": value} for value in losses]
    assert told(watch(lines, "eval_loss rising 3")) == [("eval_loss rising", 5), ("eval_loss rising", 10)]
    assert told(watch(lines, "eval_loss rising 5")) == []


def test_a_learning_rate_of_zero_is_told_unless_the_training_is_at_its_end() -> None:
    rates = [{"learning_rate": value} for value in (0.0, 1e-3, 1e-3, 0.0, 0.0, 0.0, 0.0)]
    assert told(watch(rates, "lr_zero")) == [("lr_zero", 6)]
    assert told(watch(rates, "lr_zero", planned=6)) == []


def test_throughput_that_fell_is_told_once() -> None:
    speeds = [{"tokens_per_s": value} for value in [*[1000.0] * 20, *[600.0] * 30]]
    assert told(watch(speeds, "throughput fell")) == [("throughput fell", 21)]


def test_a_gap_is_told_when_it_ends_and_while_it_lasts() -> None:
    watcher = AlertWatch(read_rules(["stalled"]))
    for step in range(20):
        assert watcher.add(step, {"loss": 1.0}, 5.0 * step) == []
    assert watcher.idle(95.0 + 20.0) == []
    assert told(watcher.idle(95.0 + 30.0)) == [("stalled", 19)]
    assert watcher.idle(95.0 + 40.0) == []
    assert watcher.add(20, {"loss": 1.0}, 140.0) == []


def test_an_unknown_alert_names_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'diverged'"):
        read_rules(["divergd"])
    with pytest.raises(UserError, match="no alert"):
        read_rules(["spike 3"])


def test_the_whole_series_gives_what_its_lines_gave() -> None:
    points = Points()
    for step, loss in enumerate((4.0, 3.0, 0.0, 0.0), 1):
        points.add(2 * step, "train/loss", loss)
        points.add(2 * step, "train/grad_norm", 1.0 if loss else math.nan)
    assert told(alerts_of(points.series())) == [("diverged", 6)]
