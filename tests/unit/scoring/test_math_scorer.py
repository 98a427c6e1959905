r"""Mathematics: the same however it is written, and not the same where it is not; nothing that runs long."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun import registry
from evalrun.scoring.base import Scorer, ScoringInput
from evalrun.types import Score, Status


def scorer(name: str, /, **options: object) -> Scorer:
    kind = registry.load("scorer", name)
    made: Scorer = kind(kind.Options(**options))
    return made


def score(answer: object, target: object, made: Scorer | None = None) -> Score:
    return (made or scorer("math")).score(ScoringInput(answer, str(answer), target, Status.SCORED, {}))


HALF = ["1/2", "0.5", ".5", "50%", "50 %", r"50\%", r"\frac{1}{2}", r"\dfrac12", r"\frac{2}{4}", r"$\frac12$"]
HALF += [r"\boxed{\frac{1}{2}}", r"x = \frac{1}{2}", "0.5.", r"\left(\frac{1}{2}\right)", r"2^{-1}", "1÷2"]


@pytest.mark.parametrize("one", HALF)
@pytest.mark.parametrize("other", ["1/2", r"\frac{1}{2}", 0.5])
def test_one_half_is_one_half(one: str, other: object) -> None:
    assert score(one, other).value == 1
    assert score(f"{one}", "1/3").value == 0


@pytest.mark.parametrize(
    ("answer", "target", "value"),
    [
        ("1,234", "1234", 1),
        (r"3\sqrt{2}", r"\sqrt{18}", 1),
        (r"\sqrt[3]{8}", "2", 1),
        (r"2\pi", "6.283185307179586", 1),
        (r"2\frac{1}{2}", "2.5", 1),
        ("2 1/2", "5/2", 1),
        ("-2 1/2", "-2.5", 1),
        ("1/3", "0.3333", 0),
        ("2^3^2", "512", 1),
        ("-2^2", "-4", 1),
        ("(-2)^2", "4", 1),
        ("5!", "120", 1),
        (r"90^\circ", "90", 1),
        (r"90^{\circ}", "90", 1),
        (r"5 \text{ cm}", "5", 1),
        (r"1.5\times 10^{3}", "1500", 1),
        ("x+1", "x + 1", 1),
        ("x+1", "1+x", 1),
        (r"\text{(A)}", "(A)", 1),
        ("(1, 2)", "(1,2)", 1),
        ("", "1", 0),
        ("Paris", "paris", 1),
        ("3", ["2", "3"], 1),
        ("1/0", "0", 0),
    ],
)
def test_values_and_texts(answer: str, target: object, value: int) -> None:
    assert score(answer, target).value == value


def test_without_a_target_there_is_no_score_and_the_tolerance_is_relative() -> None:
    assert score("1", None).value is None
    assert score("1/3", "0.3333", scorer("math", rel_tolerance=1e-3)).value == 1


@pytest.mark.parametrize(
    "text",
    ["9^9^9^9", "(" * 400, "-" * 400 + "1", "9" * 400, "2^" * 200 + "2", "{" * 100 + "1", "1e999", "50!!!!",
     "__import__('os').system('true')", r"\frac" * 80, r"\boxed{" * 70, "9^512^512", "1" + "/3" * 240],
)  # fmt: skip
def test_hostile_texts_end_quickly(text: str) -> None:
    started = time.process_time()
    assert score(text, "1").value in (0, 1)
    assert time.process_time() - started < 0.5


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="0123456789+-*/^%(){}.,!\\ fracsqrtpi$", max_size=60))
def test_any_text_is_read_or_not(text: str) -> None:
    assert score(text, text).value in ((0, 1) if text.strip() else (None,))


@settings(max_examples=60, deadline=None)
@given(st.fractions(max_denominator=10_000))
def test_fractions_in_all_spellings(number: object) -> None:
    n, d = number.numerator, number.denominator  # type: ignore[attr-defined]
    for text in (f"{n}/{d}", rf"\frac{{{n}}}{{{d}}}", rf"\boxed{{{n}/{d}}}"):
        assert score(text, f"{n}/{d}").value == 1


def test_numeric_with_units() -> None:
    made = scorer("numeric", units={"km": 1000, "m": 1, "cm": 0.01})
    assert score("It is 3 km away", "3000 m", made).value == 1
    assert score("1,500 m", "1.5 km", made).value == 1
    assert score("150cm", "1.5 m", made).value == 1
    assert score("3 km", "3 m", made).value == 0
    assert score("3", "3 m", made).value == 1
    assert score("-2 km", "-2000", made).value == 1
    started = time.process_time()
    assert score("1" * 90_000, "1 m", made).value == 0
    assert time.process_time() - started < 1


PAIRS = [
    ("1/2", "0.5", 1),
    (r"\frac{1}{2}", "50%", 1),
    ("1/3", "0.3333333333", 0),
    ("1/3", "0.3333", 0),
    ("1/3", r"\frac{2}{6}", 1),
    ("2147483648", "2147483647", 0),
    ("123456789012345678901", "123456789012345678902", 0),
    ("10^{40}+1", "10^{40}", 0),
    ("1,234", "1234", 1),
    ("1{,}234", "1234", 1),
    (r"1\,234", "1234", 1),
    (r"3\sqrt{2}", r"\sqrt{18}", 1),
    (r"3\sqrt2", r"\sqrt{18}", 1),
    (r"\sqrt[3]{8}", "2", 1),
    (r"2\pi", "6.283185307179586", 1),
    (r"2\pi", "6.28", 0),
    (r"2\frac{1}{2}", "2.5", 1),
    ("2 1/2", "5/2", 1),
    ("-2 1/2", "-2.5", 1),
    ("2^3^2", "512", 1),
    ("-2^2", "-4", 1),
    ("(-2)^2", "4", 1),
    ("5!", "120", 1),
    (r"90^\circ", "90", 1),
    (r"90^{\circ}", "90", 1),
    (r"5 \text{ cm}", "5", 1),
    ("5 cm", "5", 1),
    ("5 cm", "5 m", 0),
    (r"5\,\mathrm{cm}", "5 cm", 1),
    (r"1.5\times 10^{3}", "1500", 1),
    ("1.5e3", "1500", 1),
    ("x+1", "x + 1", 1),
    ("x+1", "1+x", 1),
    ("x+1", "x+2", 0),
    (r"\text{(A)}", "(A)", 1),
    ("A", "B", 0),
    ("(1, 2)", "(1,2)", 1),
    ("(1,2)", "(2,1)", 0),
    ("(1,2)", "[1,2]", 0),
    ("[1,2]", "[1,2]", 1),
    ("[1,2)", "[1,2]", 0),
    ("(1,2]", r"\left(1,2\right]", 1),
    ("{1,2}", "{2,1}", 1),
    (r"\{1,2\}", r"\{2,1\}", 1),
    (r"\{1,2\}", r"\{1,3\}", 0),
    ("1,2", "2,1", 1),
    ("1, 2", "1, 3", 0),
    ("", "1", 0),
    ("Paris", "paris", 1),
    ("Paris", "London", 0),
    ("Paris", "sirap", 0),
    ("1/0", "0", 0),
    ("x=5, y=2", "x=1, y=2", 0),
    ("x=7, y=2", "x=1, y=2", 0),
    ("x=5, y=2", "y=2, x=5", 1),
    ("x=5", "5", 1),
    ("5", "x=5", 1),
    ("x=5", "x=4", 0),
    ("x=5", "y=5", 0),
    ("x<=3", "x>=3", 0),
    ("x<=3", r"x \le 3", 1),
    ("x<=3", r"x \leq 3", 1),
    (r"x \geq 3", r"3 \leq x", 1),
    ("x<3", "x<=3", 0),
    ("x!=3", "x=3", 0),
    (r"x\neq 3", "x!=3", 1),
    ("f(9)=5", "f(2)=5", 0),
    ("f(2)=5", "f(2)=5", 1),
    ("f(x)=x+1", "f(x)=1+x", 1),
    ("y=2x+1", "y=1+2x", 1),
    ("y=2x+1", "y=2x-1", 0),
    ("2x+y=3", "y=3-2x", 1),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", 1),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}", 0),
    (r"(-\infty, 3)", r"(-\infty,3)", 1),
    (r"(-\infty, 3)", r"(-\infty,3]", 0),
    (r"(-\infty,1)\cup(2,\infty)", r"(2,\infty)\cup(-\infty,1)", 1),
    (r"(-\infty,1)\cup(2,\infty)", r"(-\infty,1)\cup(3,\infty)", 0),
    ("x^2+2x+1", "(x+1)^2", 1),
    ("x^2+2x+1", "(x-1)^2", 0),
    (r"\sin^2 x+\cos^2 x", "1", 1),
    (r"\frac{x+1}{2}", "(x+1)/2", 1),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}", 1),
    (r"\pm 3", "3", 0),
    (r"\pm 3", "3, -3", 1),
    (r"\pm 3", r"\pm 3", 1),
    ("50%", "50", 0),
    (r"50\%", "0.5", 1),
    ("½", "0.5", 1),
    ("–5", "-5", 1),
    ("−5", "-5", 1),
    ("0,125", "125", 0),
    ("0,125", "0.125", 1),
    ("1.487,50", "1487.5", 1),
    ("15,00", "15", 1),
    (r"\boxed{5}", "5", 1),
    (r"The answer is \boxed{\frac{3}{4}}.", "0.75", 1),
    (r"\boxed{x=3}", "3", 1),
    (r"$\frac{3}{4}$", "3/4", 1),
    ("$5", "5", 1),
    ("5.0", "5", 1),
    ("5.00", "5", 1),
    ("05", "5", 1),
    ("3:4", "3:4", 1),
    (r"\log_2 8", "3", 1),
    (r"\ln e", "1", 1),
    ("3+4i", "4i+3", 1),
    ("3+4i", "3-4i", 0),
    ("2/4", "1/2", 1),
    ("0.1+0.2", "0.3", 1),
    ("x>2 and x<5", "2<x<5", 1),
    ("2<x<5", "5>x>2", 1),
    ("2<x<5", "2<x<=5", 0),
    ("x=1 or x=2", "x=2 or x=1", 1),
    ("x=1 or x=2", "1, 2", 1),
    ("x=1 or x=2", "x=1 or x=3", 0),
    ("10", "10.0", 1),
    ("1e9", "1000000000", 1),
    ("1000000001", "1e9", 0),
    ("0.30000000000000004", "0.3", 1),
    ("0.3333333333333333", "1/3", 1),
    (r"\frac12", ".5", 1),
    ("x", "y", 0),
    ("2x", "2y", 0),
    ("a+b", "b+a", 1),
    ("ab", "ba", 1),
    (r"\sqrt{2}", "1.41421356237", 1),
    (r"\sqrt{2}", "1.414", 0),
    ("12345678.91", "12345678.92", 0),
    ("7 apples", "7", 1),
    ("7 apples", "7 oranges", 0),
    (r"\text{no solution}", "no solution", 1),
    ("no solution", r"\emptyset", 0),
    (r"\emptyset", r"\varnothing", 1),
    ("True", "true", 1),
    (r"\frac{1}{2} + \frac{1}{3}", "5/6", 1),
    ("2^{100}", "1267650600228229401496703205376", 1),
    ("2^{100}", "1267650600228229401496703205377", 0),
    (r"\infty", r"-\infty", 0),
    (r"(3, \frac{\pi}{2})", r"(3, \pi/2)", 1),
    ("(0.5, 1)", "(1/2, 1)", 1),
    (r"1 \le x \le 2", "[1,2]", 1),
    (r"x \in [1,2]", "[1,2]", 1),
    (r"x\in\{1,2\}", r"\{1,2\}", 1),
    ("-1/2", r"-\frac{1}{2}", 1),
    (r"\frac{-1}{2}", r"-\frac12", 1),
    ("3x^2", "3 x ^ 2", 1),
    ("3x^2", "3x^3", 0),
    ("x_1=2, x_2=3", "x_1=2, x_2=4", 0),
    ("x_1=2, x_2=3", "x_1=2, x_2=3", 1),
    (r"100\text{ dollars}", "100", 1),
    (r"\$100", "100", 1),
    ("100 km/h", "100", 1),
    (r"3\text{ m}^2", "3", 1),
    ("5^2", "25", 1),
    ("2*3", "6", 1),
    ("2×3", "6", 1),
    ("6÷3", "2", 1),
    ("sqrt(2)", r"\sqrt{2}", 1),
    ("pi", r"\pi", 1),
    ("2pi", r"2\pi", 1),
    ("√2", r"\sqrt2", 1),
    ("x²", "x^2", 1),
    ("x≤3", "x<=3", 1),
    ("|x|", "x", 0),
    ("|-3|", "3", 1),
    (r"\binom{5}{2}", "10", 1),
    (r"\lfloor 3.7 \rfloor", "3", 1),
    ("120°", "120", 1),
    ("5:30", "5:30", 1),
    ("5:30", "6:30", 0),
    ("1.487,50 EUR", "1487.5", 1),
    ("1.487,50 EUR", "1487.51", 0),
    ("2147483648 km", "2147483647", 0),
    ("12.5 %", "0.125", 1),
    (r"\frac{3}{4}", "0,75", 1),
    (r"6.02\times10^{23}", "6.02e23", 1),
    ("x^2=4", "x^2=9", 0),
    ("10 kg", "10 g", 0),
    (r"\pm2", r"\{-2,2\}", 1),
    ("x>1, x<3", "1<x<3", 1),
    ("2^0.5", r"\sqrt{2}", 1),
    ("x^{0.5}", r"\sqrt{x}", 1),
    ("3.5x", "7x/2", 1),
    ("0.5x+1.5", r"\frac{x+3}{2}", 1),
    ("1.20", "1.2", 1),
    ("1.25", r"\frac54", 1),
    ("(1.5, 2)", "(3/2, 2)", 1),
    ("(0.333, 1)", "(1/3,1)", 0),
    ("x = 1.5", "3/2", 1),
    ("a=1,b=2,c=3", "c=3,b=2,a=1", 1),
    ("a=1,b=2,c=3", "a=1,b=2,c=4", 0),
    ("x=3, y=4", "(3,4)", 1),
    ("y = 3, x = 4", "x = 3, y = 4", 0),
    ("x>=3", r"x \ge 3", 1),
    ("x>=3", r"x \geqslant 3", 1),
    ("3<=x", "x>=3", 1),
    ("x < -2", "x<2", 0),
    ("x ≥ 3", "x>=3", 1),
    ("-3 < x <= 5", "(-3,5]", 1),
    ("-3 < x <= 5", "[-3,5]", 0),
    ("x<1 or x>3", r"(-\infty,1)\cup(3,\infty)", 1),
    (r"\{1, 2, 3\}", "{3,2,1}", 1),
    (r"\left\{1, 2\right\}", r"\{1,2,2\}", 1),
    ("{1,2,3}", "{1,2}", 0),
    ("(1,2,3)", "(1,2,4)", 0),
    ("(1,2,3)", "(1, 2, 3)", 1),
    ("(1,2,3)", "{1,2,3}", 0),
    (r"\begin{bmatrix} 1 & 0 \\ 0 & 1 \end{bmatrix}", r"\begin{bmatrix} 0 & 1 \\ 1 & 0 \end{bmatrix}", 0),
    (r"\begin{pmatrix} 1/2 \\ 3 \end{pmatrix}", r"\begin{pmatrix} 0.5 \\ 3 \end{pmatrix}", 1),
    ("12 cm", "12 cm^2", 0),
    (r"12\text{ cm}^2", "12", 1),
    ("12 square units", "12", 1),
    ("5 meters", "5 meter", 1),
    ("$12.50", "12.5", 1),
    ("12.50 dollars", "12.5", 1),
    ("9,999,999", "9999999", 1),
    ("9,999,999", "9999998", 0),
    (r"\text{Monday}", "Monday", 1),
    (r"\text{even}", "odd", 0),
    (r"\text{B}", "B", 1),
    ("C", "c", 1),
    ("-x+1", "1-x", 1),
    ("(x-1)(x+1)", "x^2-1", 1),
    ("x(x+1)", "x^2+x", 1),
    (r"\frac{a}{b}", "a/b", 1),
    (r"\frac{a}{b}", "b/a", 0),
    (r"\sqrt{x^2}", "x", 0),
    (r"\ln(x^2)", r"2\ln x", 0),
    ("e^{x+1}", r"e\cdot e^x", 1),
    (r"\tan x", r"\frac{\sin x}{\cos x}", 1),
    ("2n+1", "2n-1", 0),
    ("n(n+1)/2", r"\frac{n^2+n}{2}", 1),
    ("x=2", "x=-2", 0),
    ("x = 2 or x = -2", r"x=\pm 2", 1),
    (r"1+\sqrt{2}, 1-\sqrt{2}", r"1\pm\sqrt{2}", 1),
    (r"1\pm\sqrt{2}", r"1+\sqrt{2}", 0),
    ("10%", "0.1", 1),
    (r"10\%", "10", 0),
    ("33.3%", r"33\frac13\%", 0),
    ("0.5%", "0.005", 1),
    ("99.9", "99.90", 1),
    ("7/2", "3.5", 1),
    ("7/2", r"3\frac{1}{2}", 1),
    ("-7/2", r"-3\frac12", 1),
    ("1e-3", "0.001", 1),
    ("1.0e3", "1000", 1),
    ("999999999999999999999", "1000000000000000000000", 0),
    ("0.1", "0.10000000001", 0),
    ("1000000.1", "1000000.2", 0),
    ("123456789.123", "123456789.124", 0),
    (r"\frac{1000000007}{3}", r"\frac{1000000008}{3}", 0),
    ("2^{64}", "18446744073709551616", 1),
    ("2^{64}", "18446744073709551615", 0),
    (r"A = \pi r^2", r"\pi r^2", 1),
    ("V=27", "27", 1),
    ("x=3", "y=3", 0),
    ("x+y=5", "x+y=6", 0),
    ("x+y=5", "y+x=5", 1),
    ("x=y", "y=x", 1),
    ("x=2y", "y=x/2", 1),
    ("g(1)=2", "f(1)=2", 0),
    ("f(1)=2, f(2)=3", "f(1)=2, f(2)=4", 0),
    ("f(x)=2x", "f(x)=3x", 0),
    ("P(A)=0.5", "P(B)=0.5", 0),
    ("P(A)=0.5", "1/2", 1),
    ("4:00", "4:00", 1),
    ("1,000,000", "1000000", 1),
    ("1.000.000", "1000000", 1),
    ("3,14", "3.14", 1),
    ("2,5", "5,2", 1),
    ("2,5", "2.5", 1),
    ("٣", "3", 1),
    ("１２", "12", 1),
    ("{1,2}", "1, 2", 1),
    (r"\{1,2\}", "1, 2", 1),
    ("1, 2", r"\{2,1\}", 1),
    (r"x\in\{1,2\}", "1,2", 1),
    (r"\{x | x>1\}", r"(1,\infty)", 0),
    (r"\{1,2\}", "(1,2)", 0),
]
"""Pairs and whether they are the same, written by hand."""


@pytest.mark.parametrize(("one", "other", "value"), PAIRS)
def test_pairs_are_the_same_mathematics_or_not_whichever_is_the_target(
    one: str, other: str, value: int
) -> None:
    made = scorer("math")
    assert score(one, other, made).value == (value if other else None)
    assert score(other, one, made).value == (value if one else None)


@pytest.mark.parametrize(
    ("answer", "target", "tolerance", "value"),
    [
        ("2147483648", "2147483647", 1e-6, 1),
        ("0.33", "1/3", 0.02, 1),
        ("0.33", "1/3", 0.001, 0),
        (r"1.41", r"\sqrt{2}", 0.01, 1),
    ],
)
def test_a_tolerance_holds_where_it_is_asked_for(
    answer: str, target: str, tolerance: float, value: int
) -> None:
    assert score(answer, target, scorer("math", rel_tolerance=tolerance)).value == value


def test_mathematics_is_compared_in_threads_too() -> None:
    from concurrent.futures import ThreadPoolExecutor

    made = scorer("math")
    with ThreadPoolExecutor(2) as pool:
        values = [
            pool.submit(score, one, other, made).result().value
            for one, other in (("x+1", "1+x"), ("x+1", "x"))
        ]
    assert values == [1, 0]


def test_what_takes_too_long_ends_and_is_not_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    from evalrun.scoring import mathematics

    monkeypatch.setattr(mathematics, "LIMIT_S", 0.2)
    monkeypatch.setattr(mathematics, "_is_too_much", lambda text: False)
    assert score("9^{9^{9^9}}", "9^{9^{9^8}}").value == 0
