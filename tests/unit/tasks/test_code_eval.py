"""pass@k as `code_eval` gives it, against the counting that it stands for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.tasks.lm_eval_child.code import _pass_at


@given(st.integers(1, 30), st.data())
def test_it_is_the_chance_that_one_of_k_drawn_answers_is_right(n: int, data: st.DataObject) -> None:
    right, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert _pass_at(n, right, k) == pytest.approx(1 - math.comb(n - right, k) / math.comb(n, k))
