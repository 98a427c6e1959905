"""Numbers as they are written in several languages: what is read, and when two are the same."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun import registry
from evalrun.scoring.base import Scorer, ScoringInput
from evalrun.scoring.numerals import last_number, near, number_of, whole_number
from evalrun.types import Score, Status


def numeric(answer: object, target: object, **options: object) -> Score:
    kind = registry.load("scorer", "numeric")
    made: Scorer = kind(kind.Options(**options))
    return made.score(ScoringInput(answer, str(answer), target, Status.SCORED, {}))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0,125", "0.125"),
        ("15,00", "15"),
        ("3,14159", "3.14159"),
        ("-0,5", "-0.5"),
        ("12,5 %", "12.5"),
        ("1,234", "1234"),
        ("1.487,50 EUR", "1487.5"),
        ("1,487.50", "1487.5"),
        ("1'487.50", "1487.5"),
        ("1’487,50", "1487.5"),
        ("1.234.567", "1234567"),
        ("1 487,50", "1487.5"),
        ("1 234", "1234"),
        ("1\u202f234", "1234"),
        ("1\u00a0234,5", "1234.5"),
        ("1 234 km", "1234"),
        ("12 000 €", "12000"),
        ("so 1 487,50 in all", "1487.5"),
        ("in 2019 300 came", "300"),
        ("in 2019,300 came", "300"),
        ("Es kostet 1.250,00 €.", "1250"),
        ("–5", "-5"),
        ("−5", "-5"),
        ("－5", "-5"),
        ("‑5", "-5"),
        ("3–5", "5"),
        ("(–5)", "-5"),
        ("½", "1/2"),
        ("1½", "3/2"),
        ("1 ½ cups", "3/2"),
        ("-2¼", "-9/4"),
        ("⅓", "1/3"),
        ("2⁄3", "2/3"),
        ("１２", "12"),
        ("１，２３４．５", "1234.5"),
        ("٣٫٥", "3.5"),
        ("(3,4)", "4"),
        ("[0,1]", "1"),
        ("1,2,3", "3"),
        ("1/2", "2"),
        ("1.5e-3", "0.0015"),
        ("1e22", "10000000000000000000000"),
        ("$1,234.50!", "1234.5"),
        ("\ufeff42", "42"),
    ],
)
def test_a_number_is_read_as_it_is_meant(text: str, value: str) -> None:
    number = last_number(text)
    assert number is not None
    assert number.value == Fraction(value)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**12), st.integers(0, 99), st.booleans())
def test_separators_of_both_kinds_give_back_the_number(whole: int, cents: int, negative: bool) -> None:
    value = (Fraction(whole) + Fraction(cents, 100)) * (-1 if negative else 1)
    english = f"{whole:,}.{cents:02d}"
    swap = str.maketrans(",.", ".,")
    for written in (
        english,
        english.translate(swap),
        english.replace(",", "'"),
        english.replace(",", "\u202f").replace(".", ","),
    ):
        for text in (written, f"It is {'-' if negative else ''}{written} in all."):
            wanted = value if text != written else abs(value)
            assert last_number(text) is not None
            assert last_number(text).value == wanted  # type: ignore[union-attr]


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**45), 10**45), st.integers(1, 3))
def test_whole_numbers_are_exact_at_any_size(number: int, apart: int) -> None:
    assert numeric(str(number), number).value == 1
    assert numeric(str(number + apart), number).value == 0
    assert numeric(f"{number}.0", str(number)).value == 1


@pytest.mark.parametrize(
    ("answer", "target", "options", "value"),
    [
        ("2147483648", "2147483647", {}, 0),
        ("1234567891", 1234567890, {}, 0),
        ("123456789012345678901", "123456789012345678902", {}, 0),
        ("12345678.91", "12345678.92", {}, 0),
        ("2147483647.3", "2147483647", {}, 0),
        ("123456789012345678901.5", "123456789012345678902.5", {}, 0),
        ("0.30000000000000004", "0.3", {}, 1),
        ("0.3333333333", "0.333333333333333", {}, 1),
        ("0.333", "0.3333", {}, 0),
        ("16.00", "16", {}, 1),
        (0.1 + 0.2, 0.3, {}, 1),
        ("2147483648", "2147483647", {"rel_tolerance": 1e-9}, 1),
        ("0.3", "0.2", {"abs_tolerance": 0.1}, 1),
        ("0.31", "0.2", {"abs_tolerance": 0.1}, 0),
        ("1.5 km", "1.500,0 m", {"units": {"km": 1000, "m": 1}}, 1),
        ("0,125", "125", {}, 0),
        ("½", "0.5", {}, 1),
    ],
)
def test_tolerance_is_for_what_was_rounded_or_where_it_is_asked_for(
    answer: object, target: object, options: dict[str, object], value: int
) -> None:
    assert numeric(answer, target, **options).value == value


@pytest.mark.parametrize("text", ["1 234", " 50 % ", "$ 5", "-3.", "15,00 €"])
def test_a_whole_text_may_be_a_number_with_its_sign(text: str) -> None:
    assert whole_number(text) is not None


@pytest.mark.parametrize("text", ["5 apples", "1/2", "", "1,2,3", "5-3", "1e999", "9" * 500])
def test_a_whole_text_that_is_more_than_a_number_is_none(text: str) -> None:
    assert whole_number(text) is None


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_the_number_that_it_prints_as(value: float) -> None:
    number = number_of(value)
    if number is not None:
        assert float(number.value) == value
        assert near(number, number, 0)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789 .,'’½–-+$eE()\u202f\u00a0⁄", max_size=60))
def test_any_text_has_a_number_or_none(text: str) -> None:
    last_number(text)
    whole_number(text)
