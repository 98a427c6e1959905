r"""Whether two answers are the same mathematics: 1/2 and 0.5, x+1 and 1+x, {1, 2} and {2, 1}.

Equal texts and plain numbers are settled here, exactly. Everything else is put into one spelling of LaTeX and
given to `math-verify`, which reads it into sympy and compares there; decimals are given to it as fractions,
so that it compares exactly too. Nothing is ever executed. What neither can read is compared as text.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

from evalrun.scoring.guard import OutOfTime, time_limit
from evalrun.scoring.numerals import Number, near, whole_number
from evalrun.scoring.text import composed

MAX_CHARACTERS = 400
"""Longer texts are compared as texts."""
LIMIT_S = 3.0
"""So long may one comparison take, where time can be limited."""

_REMOVED = re.compile(
    r"\\left(?![a-z])|\\right(?![a-z])|\\displaystyle|\\limits|(?<!\\)\\[;:!> ]|"
    r"\\quad|\\qquad|\\\(|\\\)|\\\[|\\\]|\\\$|\$|~|[€£¥]"
)
_WORDS_IN = re.compile(r"\\(?:text|mathrm|mbox|textbf|mathbf|operatorname|textrm|rm)\s*\{([^{}]*)\}")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|\\,|,\\!)(?=\d{3}(?!\d))")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-z]))|\\degree(?![a-z])|°")
_SIGNS: Mapping[str, str] = {
    **dict.fromkeys("−–‐‑－", "-"), **dict.fromkeys("·⋅∙", r"\cdot "), **dict.fromkeys("÷∕⁄", "/"),
    **dict.fromkeys("≤⩽", r"\le "), **dict.fromkeys("≥⩾", r"\ge "),
    "×": r"\times ", "π": r"\pi ", "∞": r"\infty ",
    "≠": r"\ne ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ", "<=": r"\le ",
    ">=": r"\ge ", "!=": r"\ne ", "=<": r"\le ", "**": "^",
    "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ",
}  # fmt: skip
_NAMES: Mapping[str, str] = {
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\leqslant": r"\le", r"\geqslant": r"\ge",
    r"\leq": r"\le", r"\geq": r"\ge", r"\neq": r"\ne", r"\lt": "<", r"\gt": ">", r"\varnothing": r"\emptyset",
    r"\div": "/", r"\percent": "%", r"\%": "%", r"\lbrace": r"\{", r"\rbrace": r"\}", r"\arcsin": r"\arcsin",
    r"\bmatrix": r"\pmatrix", r"\,": " ",
}  # fmt: skip
_SUPERSCRIPT = re.compile(r"[⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_VULGAR = re.compile(r"[¼½¾⅐-⅞]")
_ROOT_SIGN = re.compile(r"√\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[a-zA-Z]))")
_ROOT_CALL = re.compile(r"(?<![\\a-zA-Z])sqrt\s*\(([^()]*)\)")
_BARE = re.compile(
    r"(?<![\\a-zA-Z])(pi|infinity|inf|oo|emptyset|sin|cos|tan|log|ln|exp|theta|alpha|beta)(?![a-zA-Z])"
)
_BARE_NAMES = {"inf": r"\infty", "oo": r"\infty", "infinity": r"\infty"}
_JOINED = re.compile(r"\s*(?:,\s*)?(?<![a-zA-Z\\])(and|or)(?![a-zA-Z])\s*")
_MIXED = re.compile(r"(?<![\d.)}^_a-zA-Z])(\d+)\s+(\d+)\s*/\s*(\d+)(?!\d)")
_TOWER = re.compile(r"([\da-z]+)\^([\da-z])\^([\da-z])(?!\w)")
_DECIMAL = re.compile(r"(?<![\d.,])(\d*)\.(\d+)(?![\d.])")
_RATIO_OF_WORDS = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}(?![a-zA-Z])")
_VARIABLES = re.compile(r"[abcdkmnpqrstuvwxyz]{2,3}|[A-Z]{2}")
_CHAIN = re.compile(r"([^<>=\\]+?)(>|\\ge)([^<>=\\]+?)(>|\\ge)([^<>=\\]+)")
_BOTH = re.compile(r"([a-z])\s*(<|>|\\le|\\ge)\s*([^<>,\\a-z]+?)\s*,\s*\1\s*(<|>|\\le|\\ge)\s*([^<>,\\a-z]+)")
_FUNCTION = re.compile(r"\s*([a-zA-Z])\s*\(([^()=]*)\)\s*=(?!=)\s*(.+)")
_UNIT = re.compile(
    r"(.*[\d}!)])\s*((?:[a-zA-Z]{2,}|(?<= )[mgshLlKNJWVAFC](?![a-zA-Z]))(?:\s*/\s*[a-zA-Z]+)?"
    r"(?:[ -][a-zA-Z]{2,}){0,3}(?:\s*\^\s*\{?[23]\}?)?)\.?"
)
_NAME = re.compile(r"\\[a-zA-Z]+")


def boxed(text: str) -> str:
    r"""The contents of the last \boxed{…}, else the text itself."""
    start = None
    for match in _BOXED.finditer(text):
        start = match.end()
    if start is None:
        return text
    depth = 1
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start:at]
    return text[start:]


def plain(text: str) -> str:
    """The text in one spelling, without what only shapes how mathematics looks; units in words stay."""
    text = _SUPERSCRIPT.sub(lambda m: f"^{{{unicodedata.normalize('NFKC', m[0]).replace('−', '-')}}}", text)
    text = _VULGAR.sub(
        lambda m: r" \frac{{{}}}{{{}}} ".format(*unicodedata.normalize("NFKC", m[0]).split("⁄")), text
    )
    text = _ROOT_SIGN.sub(lambda m: rf"\sqrt{{{m[1] or m[2] or m[3]}}}", text)
    for sign, instead in _SIGNS.items():
        text = text.replace(sign, instead)
    text = _DEGREES.sub("", _THOUSANDS.sub("", text))
    text = _WORDS_IN.sub(r" \1 ", _REMOVED.sub(" ", text))
    for name, instead in _NAMES.items():
        ends = r"(?![a-zA-Z])" if name[-1].isalpha() else ""
        text = re.sub(re.escape(name) + ends, instead.replace("\\", r"\\"), text)
    return " ".join(text.split()).rstrip(". ")


def comparable(text: str) -> str:
    """Text made comparable where it is no mathematics: without spaces and case, braces around one character
    left out."""
    return re.sub(r"\{(\w)\}", r"\1", re.sub(r"\s+", "", plain(text))).casefold()


def same(answer: str, target: str, rel_tolerance: float | None = None) -> str:
    """How two texts are the same mathematics, as a verb ("equals", "reads like"); empty where they are not.

    A relative tolerance is for numbers alone. Without one they must be equal exactly; only a decimal of 15
    digits or more, and one beside an irrational number, are taken for rounded.
    """
    answer, target = composed(answer).strip(), composed(target).strip()
    text = comparable(answer)
    if not text:
        return ""
    if text == comparable(target) and (_has_words(plain(answer)) or plain(answer) == plain(target)):
        return "reads like"
    numbers = _number(answer), _number(target)
    if numbers[0] is not None and numbers[1] is not None:
        if _near(numbers[0], numbers[1], rel_tolerance):
            return "equals"
        if "," not in answer or "," not in target:  # 1,2 may be the list of 1 and 2
            return ""
    if max(len(answer), len(target)) > MAX_CHARACTERS:
        return ""
    return _worked_out(plain(answer), plain(target), rel_tolerance)


def _number(text: str) -> Number | None:
    """The plain number that a text is, a percentage as a hundredth, a unit in words left out; else None."""
    text = plain(text)
    percent = text.endswith("%")
    number = whole_number(text.removesuffix("%"))
    return number.times(Fraction(1, 100)) if number is not None and percent else number


def _near(answer: Number, target: Number, rel_tolerance: float | None) -> bool:
    if rel_tolerance is not None:
        return abs(answer.value - target.value) <= Fraction(rel_tolerance) * abs(target.value)
    if answer.value == target.value:
        return True
    # Two decimals differ in what was written; only binary rounding (0.30000000000000004) is forgiven.
    return (answer.is_float or target.is_float) and near(answer, target, 1e-14)


def _worked_out(answer: str, target: str, rel_tolerance: float | None) -> str:
    """The same for what is no plain number, by math-verify."""
    pair = _without_units(answer, target)
    if pair is None:
        return ""
    if pair != (answer, target):
        numbers = _number(pair[0]), _number(pair[1])
        if numbers[0] is not None and numbers[1] is not None:
            return "equals" if _near(numbers[0], numbers[1], rel_tolerance) else ""
    functions = _functions(pair[0]), _functions(pair[1])
    if functions[0] and functions[1]:
        # f(9) = 5 says nothing of f(2): the same values of the same places must be told.
        if functions[0].keys() != functions[1].keys():
            return ""
        pairs = [(functions[0][head], functions[1][head]) for head in functions[0]]
        return "equals" if all(same(*each, rel_tolerance) for each in pairs) else ""
    if {_brackets(pair[0]), _brackets(pair[1])} == {"{", "("}:  # order counts in one and not in the other
        return ""
    spelled = _latex(_pointed(*pair)), _latex(_pointed(*reversed(pair)))
    if any(_has_words(each) or _is_too_much(each) for each in spelled):
        return "reads like" if comparable(pair[0]) == comparable(pair[1]) else ""
    try:
        with time_limit(LIMIT_S):
            return _verified(*spelled, _number(pair[0]), _number(pair[1]), rel_tolerance)
    except (OutOfTime, RecursionError):
        return ""


_OTHERWISE = re.compile(r"[,'’\s]|\d[eE]")


def _pointed(text: str, other: str) -> str:
    """A number with a decimal comma or an exponent as LaTeX has it, unless both may be lists."""
    if "," in other or not _OTHERWISE.search(text):
        return text
    number = _number(text)
    if number is None:
        return text
    above, below = number.value.numerator, number.value.denominator
    return str(above) if below == 1 else rf"\frac{{{above}}}{{{below}}}"


def _functions(text: str) -> dict[str, str]:
    """The parts of f(1) = 2, f(2) = 3 as {"f(1)": "2", "f(2)": "3"}; empty where it is no such list."""
    parts = [_FUNCTION.fullmatch(part) for part in re.split(r",(?=\s*[a-zA-Z]\s*\()", text)]
    if not all(parts):
        return {}
    return {f"{part[1]}({part[2].replace(' ', '')})": part[3] for part in parts if part}


def _brackets(text: str) -> str:
    """The bracket of a list: "{" of a set, "(" of a tuple; empty where it is neither."""
    inner = text.strip().removeprefix("\\")
    return inner[:1] if inner[:1] in ("{", "(") and "," in inner and inner[-1:] in ("}", ")") else ""


def _without_units(answer: str, target: str) -> tuple[str, str] | None:
    """Both without the unit at their end; None where they name different units."""
    units = _UNIT.fullmatch(answer), _UNIT.fullmatch(target)
    texts = [answer, target]
    names = ["", ""]
    for at, unit in enumerate(units):
        if unit is None or _BARE.fullmatch(unit[2]) or _JOINED.fullmatch(unit[2]):
            continue
        other = texts[1 - at]
        variable = len(unit[2]) == 1 and unit[2] in other and units[1 - at] is None
        if (not variable and not _VARIABLES.fullmatch(unit[2].strip())) or units[1 - at] is not None:
            names[at] = re.sub(r"[\s{}.]", "", unit[2]).casefold().removesuffix("s")
    if all(names) and names[0] != names[1]:
        return None
    first, second = (
        unit[1] if unit and name else text for unit, name, text in zip(units, names, texts, strict=True)
    )
    return first, second


def _latex(text: str) -> str:
    """A text of `plain` as LaTeX that math-verify reads as it was meant."""
    text = _union(text) or _JOINED.sub(", ", text)
    text = _ROOT_CALL.sub(r"\\sqrt{\1}", text)
    text = _BARE.sub(lambda match: _BARE_NAMES.get(match[1], "\\" + match[1]) + " ", text)
    text = _MIXED.sub(r"(\1+\\frac{\2}{\3})", text)
    text = re.sub(
        r"(?<![\w.])(\d+)\s*/\s*(\d+)(?![\d.])(?=\s*(?:[a-zA-Z]|$|[+\-,)\]}]))", r"\\frac{\1}{\2}", text
    )
    text = _TOWER.sub(r"\1^{\2^{\3}}", text)
    if not re.search(r"\d,\d{3}(?!\d)", text) or re.search(r"[(\[{]", text) is None:
        text = re.sub(r"(?<![\d,])(\d{1,3}(?:,\d{3})+)(?![\d,])", lambda m: m[1].replace(",", ""), text)
    text = _DECIMAL.sub(_as_fraction, text)
    text = text.replace("%", r"\cdot\frac{1}{100} ")
    if both := _BOTH.fullmatch(text):
        text = _chained(*both.groups()) or text
    if chain := _CHAIN.fullmatch(text):
        turned = {">": "<", r"\ge": r"\le"}
        text = f"{chain[5]}{turned[chain[4]]} {chain[3]}{turned[chain[2]]} {chain[1]}"
    return text.strip()


_HALF_LINE = re.compile(r"[a-z]\s*(<|>|\\le|\\ge)(?![a-z])\s*([^<>,=]+)")


def _union(text: str) -> str:
    """x < 1 or x > 3 as a union of intervals; empty where it is none."""
    parts = [_HALF_LINE.fullmatch(part.strip()) for part in re.split(r"(?<![a-zA-Z\\])or(?![a-zA-Z])", text)]
    if len(parts) < 2 or not all(parts):
        return ""
    ends = {"<": r"(-\infty, %s)", r"\le": r"(-\infty, %s]", ">": r"(%s, \infty)", r"\ge": r"[%s, \infty)"}
    return r" \cup ".join(ends[part[1]] % part[2].strip() for part in parts if part)


def _as_fraction(decimal: re.Match[str]) -> str:
    fraction = rf"\frac{{{int(decimal[1] + decimal[2])}}}{{{10 ** len(decimal[2])}}}"
    return f"{{{fraction}}}" if decimal.string[: decimal.start()].rstrip().endswith(("^", "_")) else fraction


_AT_MOST = r"\le"


def _chained(name: str, first: str, one: str, second: str, other: str) -> str:
    """x > 2, x < 5 as 2 < x < 5; empty where both bound it from the same side."""
    up = {"<": "<", r"\le": r"\le "}
    if first in up and second not in up:
        first, one, second, other = second, other, first, one
    if first in up or second not in up:
        return ""
    return f"{one} {'<' if first == '>' else _AT_MOST} {name} {second} {other}"


def _has_words(text: str) -> bool:
    """Whether words stand in it that are no names of mathematics: those are compared as text."""
    bare = _BARE.sub(" ", _JOINED.sub(" ", re.sub(r"\\(?:begin|end)\{\w+\}", " ", text)))
    return any(not _VARIABLES.fullmatch(word[0]) for word in _RATIO_OF_WORDS.finditer(_NAME.sub(" ", bare)))


_GREAT = re.compile(
    r"\^\s*\{?\s*[-+(]*\d{5,}|[a-zA-Z)}]\s*\^\s*\{?\s*\d{3,}|\d{3,}\s*!|!\s*!|\d{100,}"
    r"|\^[\d{}()]*\^[\d{}()]*\^|\^[\d{}()]*\d\d[\d{}()]*\^|\^[\d{}()]*\^[\d{}()]*\d\d|\)\s*\^[^+]*\)\s*\^"
    r"|\\(?:int|sum|prod|lim)(?![a-z])|(?:\\frac\s*){4}|[-+]{6}"
)
_POWER_OF_POWER = re.compile(r"\^[{(]*(\d)\^[{(]*(\d)")


def _is_too_much(text: str) -> bool:
    """Whether working it out could take long: powers of powers, great factorials, deep nesting, integrals."""
    depth = most = 0
    for character in text:
        depth += (character in "({[") - (character in ")}]")
        most = max(most, depth)
    great = any(int(tower[1]) ** int(tower[2]) > 1000 for tower in _POWER_OF_POWER.finditer(text))
    return most > 14 or len(text) > 800 or text.count("^") > 12 or great or bool(_GREAT.search(text))


@lru_cache(maxsize=1)
def engine() -> Any:
    """math-verify, which takes a second or more to import."""
    import math_verify

    # Time is limited here, not by its own signals, which work in the main thread alone.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return math_verify


@lru_cache(maxsize=256)
def _parsed(latex: str) -> tuple[Any, ...]:
    verify = engine()
    parsed = verify.parse(
        f"${latex}$",
        [verify.LatexExtractionConfig()],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    return tuple(parsed)


def _verified(
    answer: str, target: str, given: Number | None, wanted: Number | None, rel_tolerance: float | None
) -> str:
    one, other = _parsed(answer), _parsed(target)
    if not one or not other:
        return ""
    decimals = next((n for n in (given, wanted) if n is not None and n.place), None)
    if decimals is not None or rel_tolerance is not None:
        near_enough = _nearly(one[0], other[0], decimals, rel_tolerance)
        if near_enough is not None:
            return "equals" if near_enough else ""
    same = engine().verify(
        list(other), list(one), timeout_seconds=None, strict=True, allow_set_relation_comp=True
    )
    return "equals" if same else ""


def _nearly(one: Any, other: Any, decimals: Number | None, rel_tolerance: float | None) -> bool | None:
    """Whether two values are the same but for rounding; None where they are no numbers, or exact ones."""
    values = []
    for expression in (one, other):
        value = expression.doit() if hasattr(expression, "doit") else expression
        if not getattr(value, "is_number", False) or value.is_real is not True:
            return None
        values.append(value)
    exact = all(value.is_rational for value in values)
    difference, size = abs((values[0] - values[1]).evalf(30)), abs(values[1].evalf(30))
    if rel_tolerance is not None:
        return bool(difference <= rel_tolerance * size)
    if decimals is None or (exact and not decimals.is_float):
        return None
    return bool(difference <= 1e-9 * size and difference <= float(decimals.place))
