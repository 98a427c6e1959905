"""Windows of token ids, as lm_eval cuts them: by hand, and no token scored twice or left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.providers.token_ids import rolling, window
from evalrun.suite.tasks import metric_name
from evalrun.types import ProviderError


def test_a_window_is_cut_on_the_left() -> None:
    cut = window([1, 2, 3], [4, 5], 4)
    assert (list(cut.ids), cut.start) == ([2, 3, 4, 5], 2)


def test_a_context_that_is_cut_away_is_an_error() -> None:
    with pytest.raises(ProviderError):
        window([1], [2, 3, 4], 3)


def test_rolling_by_hand() -> None:
    """Seven tokens, four at most in a request: the first three after the prefix, then three, then one with
    three before it (get_rolling_token_windows with one token of context, make_disjoint_window)."""
    windows = rolling([1, 2, 3, 4, 5, 6, 7], 0, 4)
    assert [(list(each.ids), each.start) for each in windows] == [
        ([0, 1, 2, 3], 1),
        ([3, 4, 5, 6], 1),
        ([4, 5, 6, 7], 3),
    ]


@given(st.lists(st.integers(1, 9), max_size=60), st.integers(2, 12))
def test_every_token_is_scored_once(ids: list[int], most: int) -> None:
    scored = [token for each in rolling(ids, 0, most) for token in each.ids[each.start :]]
    assert scored == ids
    assert all(len(each.ids) <= most and each.start >= 1 for each in rolling(ids, 0, most))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("acc,none", "acc"),
        ("exact_match,strict-match", "exact_match.strict_match"),
        ("chrf++,none", "chrf__"),
    ],
)
def test_names_of_metrics(key: str, name: str) -> None:
    assert metric_name(key) == name
