"""Rankings against random ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from evalrun.explain.faithful import faithfulness
from evalrun.explain.games import Coalition, Game


def looks_at(player: int) -> Game:
    return lambda coalitions: [float(player in each) * 5 for each in coalitions]


def test_a_model_that_looks_at_one_word_is_explained_by_it_alone() -> None:
    values = [0.0] * 20
    values[3] = 5.0
    judged = faithfulness(looks_at(3), "word", values, rankings=20, seed=1)
    assert judged.word == "faithful" and judged.comprehensiveness == 5.0 and judged.sufficiency == 0.0
    assert judged.beaten == 20 and judged.rankings == 20
    assert [curve.units for curve in judged.curve] == [2, 4, 10]


def test_a_wrong_ranking_is_no_better_than_chance() -> None:
    values = [float(20 - at) for at in range(20)]
    values[3] = -1.0
    judged = faithfulness(looks_at(3), "word", values, rankings=20, seed=1)
    assert judged.word == "no better than chance" and judged.comprehensiveness == 0


def test_a_constant_model_has_nothing_to_explain() -> None:
    def constant(coalitions: Sequence[Coalition]) -> list[float]:
        return [-2.0 for _ in coalitions]

    assert faithfulness(constant, "word", [0.0] * 9, rankings=20, seed=0).word == "nothing to explain"


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_few_units_have_few_other_rankings(n: int) -> None:
    judged = faithfulness(looks_at(0), "section", [5.0] + [0.0] * (n - 1), rankings=20, seed=0)
    assert judged.rankings < 20
    assert judged.word == ("faithful" if n > 1 else "no better than chance")


def test_a_random_ranking_seldom_counts_as_faithful() -> None:
    rng = np.random.default_rng(0)
    faithful = 0
    for trial in range(200):
        weights = rng.normal(size=12)

        def game(coalitions: Sequence[Coalition], weights: np.ndarray = weights) -> list[float]:
            return [float(sum(weights[player] for player in each)) for each in coalitions]

        ranked = list(rng.normal(size=12))
        faithful += faithfulness(game, "word", ranked, rankings=20, seed=trial).word == "faithful"
    assert faithful / 200 < 0.12  # 19 of 20 are beaten by 2 of 21
