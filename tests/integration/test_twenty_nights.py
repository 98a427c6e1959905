"""Twenty unchanged nights pass and are not told of; a true drop of five points fails and is told of."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.nights import PLAN, night

from evalrun.gates.alerts import Alert, check_alerts, parse_alert
from evalrun.gates.check import blocks, check_sweep
from evalrun.gates.conditions import Gate, parse_gate
from evalrun.tracking.store import Store

ROWS, WRONG, DROP, CHURN = 1000, 200, 50, 20


class Job:
    """A model that answers `WRONG` rows wrongly, not quite the same ones every night."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store, self.random = store, random.Random(seed)
        self.hard = set(self.random.sample(range(ROWS), WRONG))
        gate = parse_gate("exact_match no worse than baseline by 0.03")
        alerts = [parse_alert("exact_match worse than last 5"), parse_alert("exact_match better than ever")]
        assert isinstance(gate, Gate)
        self.gate, self.alerts = gate, [each for each in alerts if isinstance(each, Alert)]
        self.baseline = night(store, self.scores(self.unchanged()))

    def unchanged(self) -> set[int]:
        """Some of the hard rows come out right, about as many of the others wrong, by chance."""
        count = [CHURN + self.random.randint(-6, 6) for _ in range(2)]
        right = set(self.random.sample(sorted(self.hard), count[0]))
        return (self.hard - right) | set(self.random.sample(sorted(set(range(ROWS)) - self.hard), count[1]))

    @staticmethod
    def scores(wrong: set[int]) -> list[float]:
        """1 for every row but these."""
        return [float(each not in wrong) for each in range(ROWS)]

    def check(self, wrong: set[int]) -> tuple[bool, str, list[str]]:
        """Whether the night is red, the gate's reason and the alerts that fired."""
        folder = night(self.store, self.scores(wrong))
        results = check_sweep([self.gate], folder, PLAN, self.baseline)
        told = check_alerts(self.alerts, folder, PLAN, self.store)
        assert all(each.checked for each in told)
        return blocks(results), results[0].reason, [each.alert for each in told if each.fired]


@pytest.mark.parametrize("seed", [1])
def test_unchanged_nights_pass_and_a_true_drop_fails(tmp_path: Path, seed: int) -> None:
    job = Job(Store(tmp_path / "store"), seed)
    nights = [job.check(job.unchanged()) for _ in range(20)]
    assert [red for red, _, _ in nights] == [False] * 20
    assert [told for _, _, told in nights] == [[]] * 20

    wrong = job.unchanged()
    dropped = job.random.sample(sorted(set(range(ROWS)) - wrong), DROP)
    red, reason, told = job.check(wrong | set(dropped))
    assert red and "n = 1,000 sees" in reason and "4 times in 5" in reason
    assert told == ["exact_match worse than last 5"]

    red, _, told = job.check(set(job.random.sample(sorted(job.hard), WRONG - 80)))
    assert (red, told) == (False, ["exact_match better than ever"])
