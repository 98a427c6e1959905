"""The search for capacity: what it may call at the border, and how few probes it takes."""

import random

import pytest

from evalrun.runner.load.betting import Betting, Bracket, RateBracket


@pytest.mark.parametrize("target", [0.5, 0.9, 0.95])
def test_at_the_target_itself_hardly_anything_is_called(target: float) -> None:
    called = []
    for seed in range(200):
        draws, test = random.Random(seed), Betting(target)
        for _ in range(150):
            test.add(sum(draws.random() < target for _ in range(8)) / 8)
        called.append(test.decision)
    assert called.count("pass") <= 14 and called.count("fail") <= 14  # 10 of 200 are 5 %


@pytest.mark.parametrize(("share", "word"), [(1.0, "pass"), (0.80, "fail"), (0.0, "fail")])
def test_what_is_clear_is_decided_soon(share: float, word: str) -> None:
    test = Betting(0.95)
    while test.decision == "undecided" and test.blocks < 500:
        test.add(share)
    assert test.decision == word and test.blocks <= (90 if word == "pass" else 5)


def test_what_was_decided_stays_so() -> None:
    test = Betting(0.5)
    for share in [1.0] * 20 + [0.0] * 100:
        test.add(share)
    assert test.decision == "pass"


@pytest.mark.parametrize("capacity", [*range(70), 100, 200, 255, 256, 300])
def test_the_capacity_is_found_within_a_tenth_in_few_probes(capacity: int) -> None:
    bracket, probes = Bracket(256), []
    while (level := bracket.next()) is not None:
        assert level not in probes and 1 <= level <= 256
        probes.append(level)
        bracket.add(level, kept=level <= capacity)
    assert bracket.passed <= capacity and len(probes) <= 12
    if 0 < capacity <= 256:
        assert bracket.passed * 1.1 >= capacity - 1e-9 or bracket.passed == capacity
    if capacity == 16:
        assert len(probes) <= 8 and bracket.passed == 16


@pytest.mark.parametrize("capacity", [0.5, 1.7, 3, 11, 40, 63, 99, 100, 500])
def test_a_rate_is_found_within_a_tenth_in_few_probes(capacity: float) -> None:
    bracket, probes = RateBracket(100), []
    while (level := bracket.next()) is not None:
        assert level not in probes and 0 < level <= 100
        probes.append(level)
        bracket.add(level, kept=level <= capacity)
    assert bracket.passed <= capacity and len(probes) <= 11
    if capacity >= 100 / 64:
        assert bracket.passed * 1.1 >= min(capacity, 100) * (1 - 1e-3)
