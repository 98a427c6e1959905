"""How figures are written."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.reports import numbers


@pytest.mark.parametrize(
    ("low", "high", "decimals"),
    [
        (0.5, 0.62, 2),
        (0.5, 0.512, 3),
        (0.1, 0.5, 2),
        (0.5, 0.50002, 4),
        (0.5, 0.5, 2),
        (None, 0.5, 2),
        (1, 7, 2),
    ],
)  # fmt: skip
def test_decimals_follow_the_interval(low: float | None, high: float | None, decimals: int) -> None:
    assert numbers.decimals(low, high) == decimals


def test_a_value_and_its_interval_have_the_same_decimals_and_unit() -> None:
    assert numbers.measured(0.61, 0.55, 0.67) == "0.61 [0.55, 0.67]"
    assert numbers.measured(0.611, 0.605, 0.617) == "0.611 [0.605, 0.617]"
    assert numbers.measured(0.09, -0.01, 0.18, sign=True) == f"+0.09 [{numbers.MINUS}0.01, +0.18]"
    assert numbers.measured(-0.42, -0.6, 0.1, "s", sign=True) == (
        f"{numbers.MINUS}420 ms [{numbers.MINUS}600, +100]"
    )
    assert numbers.measured(0.61, None, None) == "0.61"
    assert numbers.measured(None, None, None) == numbers.NONE


def test_p_values() -> None:
    assert [numbers.p_value(p) for p in (0.1234, 0.0004, None)] == ["0.123", "< 0.001", numbers.NONE]
    assert [numbers.tested(p) for p in (0.1234, 0.0004)] == ["p = 0.123", "p < 0.001"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, numbers.NONE),
        (0.0005, "0.500 ms"),
        (0.42, "420 ms"),
        (1.239, "1.24 s"),
        (119.4, "119 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_seconds(value: float | None, text: str) -> None:
    assert numbers.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(412e6, "412 MB"), (1.268e9, "1.27 GB"), (12, "12 B"), (999_990, "1.00 MB")]
)
def test_bytes(value: float, text: str) -> None:
    assert numbers.size(value) == text


def test_signs() -> None:
    assert numbers.fixed(-0.125, 2, sign=True) == f"{numbers.MINUS}0.12"
    assert numbers.fixed(0.031, 2, sign=True) == "+0.03"
    assert numbers.fixed(-0.001, 2) == "0.00", "nothing is written as minus nought"
    assert numbers.interval(-0.1, 0.2, sign=True) == f"[{numbers.MINUS}0.10, +0.20]"
    assert numbers.interval(None, 0.2) == ""


def test_units_are_always_there() -> None:
    assert numbers.quantity(0.5, "fraction") == "0.50"
    assert numbers.quantity(94.23, "tokens/s") == "94.2 tokens/s"
    assert numbers.quantity(0.0004, "usd") == "$0.00040"
    assert numbers.quantity(3.0, "furlongs") == "3.00 furlongs"


@given(st.floats(min_value=-1e15, max_value=1e15, allow_nan=False))
def test_three_digits_are_kept(value: float) -> None:
    text = numbers.significant(value).replace(",", "").replace(numbers.MINUS, "-")
    assert math.isclose(float(text), value, rel_tol=0.006, abs_tol=1e-8)


def test_words() -> None:
    assert numbers.listing(["a", "b", "c"]) == "a, b and c"
    assert numbers.plural(1, "run") == "1 run"
    assert numbers.plural(2, "matrix", "matrices") == "2 matrices"
    assert numbers.ratio(2.3, 1.0) == f"2.3{numbers.TIMES}"
    assert numbers.moment("2026-11-23T08:01:00+01:00") == "23 Nov 2026, 07:01 UTC"
    assert numbers.moment("yesterday") == "yesterday"
