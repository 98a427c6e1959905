"""Values of games that are known by hand, and by definition."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import permutations
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.explain.games import Coalition, Game, Node, efficiency_gap, flat, leave_one_out, shared


def asked(value: object) -> Game:
    def game(coalitions: Sequence[Coalition]) -> list[float]:
        return [float(value(each)) for each in coalitions]  # type: ignore[operator]

    return game


def shapley(value: object, n: int) -> list[float]:
    found = shared(asked(value), flat(range(n)), most=10_000, seed=0)
    assert found.exact
    return [found.values[frozenset({player})] for player in range(n)]


def glove(who: Coalition) -> float:
    """One left glove (player 0), two right ones: a pair is worth 1."""
    return float(0 in who and len(who) > 1)


def test_games_with_known_values() -> None:
    assert shapley(glove, 3) == pytest.approx([2 / 3, 1 / 6, 1 / 6], abs=1e-15)
    assert shapley(lambda who: float(bool(who)), 2) == [0.5, 0.5]  # max(x1, x2)
    assert shapley(lambda who: float({0, 1} <= who), 3) == [0.5, 0.5, 0.0]  # unanimity
    weights = [1.5, -2.0, 0.25, 4.0]
    assert shapley(lambda who: sum(weights[player] for player in who), 4) == pytest.approx(weights)


def test_leaving_one_out_misses_what_two_do_alike() -> None:
    both = asked(lambda who: float(bool(who)))
    assert leave_one_out(both, frozenset({0, 1}), [frozenset({0}), frozenset({1})]) == [0.0, 0.0]
    assert efficiency_gap(1.0, 0.0, [0.0, 0.0]) == 1.0


def grouped(*groups: Sequence[int]) -> Node:
    children = [flat(group) if len(group) > 1 else Node(frozenset(group)) for group in groups]
    return Node(frozenset().union(*(child.players for child in children)), tuple(children))


def test_owen_keeps_groups_together() -> None:
    found = shared(asked(glove), grouped([0, 1], [2]), most=1000, seed=0)
    assert [found.values[frozenset({player})] for player in range(3)] == [0.75, 0.25, 0.0]
    assert found.values[frozenset({0, 1})] == 1.0
    alone = shared(asked(glove), grouped([0], [1], [2]), most=1000, seed=0)
    assert [alone.values[frozenset({player})] for player in range(3)] == pytest.approx([2 / 3, 1 / 6, 1 / 6])


def orders(node: Node) -> list[list[int]]:
    if not node.children:
        return [sorted(node.players)]
    made = []
    for chosen in permutations(node.children):
        heads: list[list[int]] = [[]]
        for child in chosen:
            heads = [head + tail for head in heads for tail in orders(child)]
        made += heads
    return made


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=32, max_size=32))
def test_owen_is_the_mean_over_all_orders_in_which_groups_stay_together(table: list[float]) -> None:
    def value(who: Coalition) -> float:
        return table[sum(1 << player for player in who)]

    tree = Node(frozenset(range(5)), (grouped([0, 1], [2]), flat([3, 4])))
    found = shared(asked(value), tree, most=10_000, seed=0)
    every = orders(tree)
    for player in range(5):
        marginal = [
            value(frozenset(order[: order.index(player) + 1]))
            - value(frozenset(order[: order.index(player)]))
            for order in every
        ]
        assert found.values[frozenset({player})] == pytest.approx(fmean(marginal), abs=1e-9)
    total = sum(found.values[frozenset({player})] for player in range(5))
    assert efficiency_gap(value(frozenset(range(5))), value(frozenset()), [total]) == pytest.approx(
        0, abs=1e-9
    )


def test_drawn_permutations_are_near_with_the_error_that_they_state() -> None:
    rng = random.Random(3)
    weights = [rng.uniform(-1, 3) for _ in range(12)]

    def value(who: Coalition) -> float:
        return sum(weights[player] for player in who) + 2 * (0 in who) * (1 in who)

    found = shared(asked(value), flat(range(12)), most=900, seed=1)
    assert not found.exact and found.pairs >= 2
    exact = [weight + (player < 2) for player, weight in enumerate(weights)]
    for player, right in enumerate(exact):
        own = frozenset({player})
        assert abs(found.values[own] - right) <= 4 * found.se[own] + 1e-9
    assert sum(found.values.values()) == pytest.approx(value(frozenset(range(12))))
    again = shared(asked(value), flat(range(12)), most=900, seed=1)
    assert again.values == found.values


def test_no_coalition_is_asked_about_twice() -> None:
    seen: list[Coalition] = []

    def game(coalitions: Sequence[Coalition]) -> list[float]:
        seen.extend(coalitions)
        return [float(len(each)) for each in coalitions]

    shared(game, flat(range(4)), most=1000, seed=0)
    assert len(seen) == 16 == len(set(seen))


def test_owen_is_shaps_partition_explainer_with_the_same_tree() -> None:
    shap = pytest.importorskip("shap", reason="needs the package shap")
    import numpy as np

    table = np.random.default_rng(0).normal(size=64)

    class Masker:
        """Six players in pairs, the first two pairs together."""

        clustering = np.array([[0, 1, 1, 2], [2, 3, 1, 2], [4, 5, 1, 2], [6, 7, 2, 4], [9, 8, 3, 6]], float)
        shape = (1, 6)

        def __call__(self, mask: np.ndarray, _: object) -> tuple[np.ndarray]:
            return (np.asarray(mask, dtype=float)[None],)

    def model(rows: np.ndarray) -> np.ndarray:
        return np.array([table[sum(1 << at for at, inside in enumerate(row) if inside)] for row in rows])

    theirs = shap.explainers.Partition(model, Masker())(np.ones((1, 6)), max_evals=10_000, silent=True)
    left = Node(frozenset(range(4)), (flat([0, 1]), flat([2, 3])))
    tree = Node(frozenset(range(6)), (left, flat([4, 5])))
    own = shared(asked(lambda who: table[sum(1 << player for player in who)]), tree, most=10_000, seed=0)
    assert [own.values[frozenset({player})] for player in range(6)] == pytest.approx(
        theirs.values[0], abs=1e-9
    )
