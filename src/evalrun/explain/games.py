"""Games over the parts of a prompt: what each part adds to a value, by leaving out (occlusion), by Shapley's
value, and by Owen's, which keeps the parts of a part together.

A game is a function from coalitions (the players that are in, each a frozenset of numbers) to values; it is
asked for many coalitions at once, so that they can go to the model in batches.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial, isclose, sqrt
from statistics import fmean, stdev
from typing import TypeAlias

Coalition: TypeAlias = frozenset[int]
Game: TypeAlias = Callable[[Sequence[Coalition]], Sequence[float]]

MOST_EXACT = 256
"""So many coalitions are asked about one by one; beyond that permutations are drawn."""
_PRECISE = 0.05
_FIRST_PAIRS = 4


@dataclass(frozen=True, slots=True)
class Node:
    """A group of players: leaves have none below them."""

    players: Coalition
    children: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Values:
    """What each node of a tree adds, by its players. `se` is empty where the values are exact; `pairs` of
    permutations were drawn."""

    values: Mapping[Coalition, float]
    se: Mapping[Coalition, float]
    pairs: int = 0

    @property
    def exact(self) -> bool:
        """Whether nothing was drawn."""
        return not self.pairs


def flat(players: Sequence[int]) -> Node:
    """A tree in which nobody is grouped."""
    return Node(frozenset(players), tuple(Node(frozenset({player})) for player in players))


def leave_one_out(game: Game, everyone: Coalition, groups: Sequence[Coalition]) -> list[float]:
    """v(N) - v(N without the group), for each group."""
    whole, *rest = game([everyone, *(everyone - group for group in groups)])
    return [whole - without for without in rest]


def shared(game: Game, tree: Node, *, most: int, seed: int) -> Values:
    """Owen's value of every node, Shapley's where the tree is flat (Owen 1977; with several levels Winter
    1989): the mean of what a player adds over all orders in which groups stay together.

    Exact where at most `MOST_EXACT` coalitions must be asked about. Otherwise from antithetic pairs of
    permutations (each with its reverse) until the standard error of every value is below 5 % of
    |v(N) - v(nobody)|, or `most` coalitions were asked about.
    """
    if _exact_cost(tree) <= min(MOST_EXACT, max(most, 2)):
        return _exact(game, tree)
    return _sampled(game, tree, most, random.Random(seed))


def _exact_cost(tree: Node, outer: int = 1) -> float:
    """How many coalitions the exact value of a tree asks about, at most."""
    if len(tree.children) > 20:
        return float("inf")
    own: float = outer * 2 ** len(tree.children)
    below = outer * 2 ** max(0, len(tree.children) - 1)
    return own + sum(_exact_cost(child, below) for child in tree.children if child.children)


def _exact(game: Game, tree: Node) -> Values:
    terms: dict[Coalition, list[tuple[float, Coalition, Coalition]]] = {}
    _walk(tree, [(frozenset(), 1.0)], terms)
    asked = list(dict.fromkeys(each for found in terms.values() for _, *pair in found for each in pair))
    known = dict(zip(asked, game(asked), strict=True))
    values = {
        players: sum(weight * (known[with_] - known[without]) for weight, with_, without in found)
        for players, found in terms.items()
    }
    return Values(values, {})


def _walk(
    node: Node,
    contexts: Sequence[tuple[Coalition, float]],
    terms: dict[Coalition, list[tuple[float, Coalition, Coalition]]],
) -> None:
    """For each node below: weights and the two coalitions whose values differ by what it adds."""
    count = len(node.children)
    for child in node.children:
        others = [each for each in node.children if each is not child]
        inner: list[tuple[Coalition, float]] = []
        for size in range(count):
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            for chosen in combinations(others, size):
                inside = frozenset().union(*(each.players for each in chosen))
                inner += [(outside | inside, share * weight) for outside, share in contexts]
        terms[child.players] = [(weight, before | child.players, before) for before, weight in inner]
        _walk(child, inner, terms)


def _sampled(game: Game, tree: Node, most: int, rng: random.Random) -> Values:
    nodes = list(_below(tree))
    everyone = tree.players
    full, empty = game([everyone, frozenset()])
    known: dict[Coalition, float] = {everyone: full, frozenset(): empty}
    draws: dict[Coalition, list[float]] = {node.players: [] for node in nodes}
    pairs = 0
    while len(known) < most or pairs < 2:
        orders: list[list[int]] = []
        for _ in range(_FIRST_PAIRS if not pairs else 1):
            order = _order(tree, rng)
            orders += [order, order[::-1]]
        chains = [[frozenset(order[:at]) for at in range(len(order) + 1)] for order in orders]
        new = list(dict.fromkeys(each for chain in chains for each in chain if each not in known))
        known |= zip(new, game(new), strict=True)
        added = [_added(order, chain, known) for order, chain in zip(orders, chains, strict=True)]
        for one, other in zip(added[::2], added[1::2], strict=True):
            pairs += 1
            for node in nodes:
                draws[node.players].append(sum(one[player] + other[player] for player in node.players) / 2)
        if pairs >= 2 and max(map(_error, draws.values())) < _PRECISE * abs(full - empty):
            break
        if not new and pairs > 64:  # so few players that there is nothing left to ask
            break
    values = {players: fmean(drawn) for players, drawn in draws.items()}
    return Values(values, {players: _error(drawn) for players, drawn in draws.items()}, pairs)


def _error(drawn: Sequence[float]) -> float:
    return stdev(drawn) / sqrt(len(drawn)) if len(drawn) > 1 else float("inf")


def _added(
    order: Sequence[int], chain: Sequence[Coalition], known: Mapping[Coalition, float]
) -> dict[int, float]:
    return {player: known[chain[at + 1]] - known[chain[at]] for at, player in enumerate(order)}


def _order(node: Node, rng: random.Random) -> list[int]:
    """An order of the players in which groups stay together."""
    if not node.children:
        return sorted(node.players)
    children = list(node.children)
    rng.shuffle(children)
    return [player for child in children for player in _order(child, rng)]


def _below(node: Node) -> Iterator[Node]:
    for child in node.children:
        yield child
        yield from _below(child)


def efficiency_gap(full: float, empty: float, values: Sequence[float]) -> float:
    """v(N) - v(nobody) less the sum of values: 0 for Shapley and Owen values."""
    gap = full - empty - sum(values)
    return 0.0 if isclose(gap, 0.0, abs_tol=1e-9) else gap
