"""Numbers as people mean them: rounding is no difference, and every other difference is one."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from evalrun.floats import COMPARISONS, compared, tidy

TENTHS = st.integers(-10_000, 10_000)


@given(st.lists(TENTHS, min_size=1, max_size=200), TENTHS)
def test_sums_of_decimals_compare_as_their_fractions_do(parts: list[int], against: int) -> None:
    total, exact = sum(part / 10 for part in parts), Fraction(sum(parts), 10)
    bound, exact_bound = against / 10, Fraction(against, 10)
    for name, holds in (
        (">=", exact >= exact_bound),
        ("<=", exact <= exact_bound),
        (">", exact > exact_bound),
        ("<", exact < exact_bound),
        ("==", exact == exact_bound),
        ("!=", exact != exact_bound),
    ):
        assert COMPARISONS[name](total, bound) is holds


@given(st.lists(TENTHS, min_size=1, max_size=50))
def test_a_sum_of_decimals_is_tidied_to_the_decimal(parts: list[int]) -> None:
    total = sum(part / 10 for part in parts)
    assert tidy(total) == sum(parts) / 10 or abs(total) < 1e-9


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_tidying_changes_a_number_by_rounding_alone(value: float) -> None:
    assert abs(tidy(value) - value) <= 1e-11 * abs(value)
    assert tidy(tidy(value)) == tidy(value)


def test_what_is_no_short_decimal_stays_to_the_last_digit() -> None:
    for value in (1 / 3, 2 / 7, 2.0**53 + 2, 0.123456789012345, 1e300, 5e-324):
        assert tidy(value) == value
    assert tidy(0.6 + 0.3 + 0.1) == 1.0
    assert tidy(0.1 + 0.2) == 0.3


def test_whole_numbers_are_exact_and_chains_are_read_as_python_reads_them() -> None:
    assert not COMPARISONS["=="](2147483648.0, 2147483647.0)
    assert compared("<= <", 0.3, 0.1 + 0.2, 0.5)
    assert not compared("< <", 0.3, 0.1 + 0.2, 0.5)
