"""Impact ratios: the example that the rule itself gives, to the digit, and what is left out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.analysis.impact import above_median, impact_ratios

SEX = {"male": (667, 1390), "female": (555, 1181)}
RACE = {
    "Hispanic or Latino": (204, 408),
    "White": (412, 797),
    "Black or African American": (170, 390),
    "Native Hawaiian or Pacific Islander": (52, 119),
    "Asian": (302, 616),
    "Native American or Alaska Native": (18, 41),
    "Two or more races": (96, 213),
}


@pytest.mark.parametrize(
    ("counts", "rates", "ratios"),
    [
        (SEX, [0.480, 0.470], [1.0, 0.979]),
        (
            RACE,
            [0.500, 0.517, 0.436, 0.437, 0.490, 0.439, 0.451],
            [0.967, 1.0, 0.843, 0.845, 0.948, 0.849, 0.872],
        ),
    ],
)
def test_the_example_of_the_rule(
    counts: dict[str, tuple[int, int]], rates: list[float], ratios: list[float]
) -> None:
    rows = impact_ratios(counts)
    assert [round(row.rate or 0, 3) for row in rows] == rates
    assert [round(row.ratio or 0, 3) for row in rows] == ratios
    assert all(row.low is not None and row.low <= (row.ratio or 0) <= (row.high or 0) for row in rows)


def test_bounds_agree_with_the_log_ratio_where_the_highest_is_sure() -> None:
    """SE of the log ratio, squared: 1/x1 - 1/n1 + 1/x2 - 1/n2."""
    import math

    (_, low) = impact_ratios({"a": (8000, 10000), "b": (4000, 10000)})
    se = math.sqrt(1 / 8000 - 1 / 10000 + 1 / 4000 - 1 / 10000)
    assert low.low == pytest.approx(0.5 * math.exp(-1.96 * se), abs=0.002)
    assert low.high == pytest.approx(0.5 * math.exp(1.96 * se), abs=0.002)


def test_a_category_below_two_percent_may_be_left_out_and_never_decides() -> None:
    counts = {"many": (50, 100), "more": (40, 100), "one": (2, 2)}
    assert [row.ratio for row in impact_ratios(counts)] == [0.5, 0.4, 1.0]
    rows = impact_ratios(counts, leave_out_few=True)
    assert [row.ratio for row in rows] == [1.0, 0.8, None]
    assert (rows[2].left_out, rows[2].rate, rows[2].n) == (True, 1.0, 2)


def test_nobody_selected_and_nobody_there() -> None:
    assert [row.ratio for row in impact_ratios({"a": (0, 5), "b": (0, 5)})] == [None, None]
    assert [(row.rate, row.ratio) for row in impact_ratios({"a": (3, 5), "b": (0, 0)})] == [
        (0.6, 1.0),
        (None, None),
    ]


def test_scores_that_equal_the_median_are_not_above_it() -> None:
    assert above_median([1, 2, 2, 2, 9]) == [False, False, False, False, True]


@settings(max_examples=25)
@given(
    st.dictionaries(
        st.text(max_size=3), st.tuples(st.integers(0, 50), st.integers(0, 50)).map(sorted).map(tuple)
    )
)
def test_ratios_lie_between_nothing_and_one(counts: dict[str, tuple[int, int]]) -> None:
    rows = impact_ratios(counts)
    ratios = [row.ratio for row in rows if row.ratio is not None]
    assert all(0 <= ratio <= 1 for ratio in ratios)
    assert not ratios or max(ratios) == 1
