"""How figures, intervals, differences and p values are written for people: one place, so that HTML, Markdown
and terminal agree.

Every function takes a plain number (or None, written as an en dash) and gives text with its unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evalrun.sweep_results import Concentration
    from evalrun.types import MetricValue

NONE = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"


def fixed(value: float | None, decimals: int = 2, *, sign: bool = False) -> str:
    """A number with a fixed count of decimals and a true minus sign; `sign` writes the plus as well."""
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{abs(value):,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        return text
    return f"{MINUS}{text}" if value < 0 else f"+{text}" if sign else text


def count(value: int | float | None) -> str:
    """A whole number with thousands set apart."""
    return NONE if value is None else f"{value:,.0f}"


def significant(value: float | None, digits: int = 3) -> str:
    """Three significant digits, never in exponent form: 1234 → 1,234; 0.01234 → 0.0123."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    value = float(f"{value:.{digits - 1}e}")  # 999.9 has become 1000 before its digits are counted
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return fixed(value, min(9, max(0, decimals)))


def seconds(value: float | None) -> str:
    """A duration: `420 ms`, `1.24 s`, `3 min 05 s`, `2 h 10 min`."""
    if value is None or not math.isfinite(value):
        return NONE
    if abs(value) < 0.9995:
        return f"{significant(value * 1000)} ms"
    if abs(value) < 120:
        return f"{significant(value)} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def size(value: float | None) -> str:
    """Bytes in decimal units: `412 MB`, `1.27 GB`."""
    if value is None or not math.isfinite(value):
        return NONE
    for factor, unit in _BYTES:
        if abs(value) >= factor * 0.9995:
            return f"{significant(value / factor)} {unit}"
    return f"{value:.0f} B"


def usd(value: float | None) -> str:
    """Dollars: cents from one dollar on, more decimals below."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"${value:,.2f}" if abs(value) >= 1 or value == 0 else f"${significant(value, 2)}"


_WRITERS = {
    "s": seconds,
    "seconds": seconds,
    "bytes": size,
    "usd": usd,
}

SHARES = ("fraction", "score", "", "1")
"""Units of fractions and plain scores, which are written without one."""


def quantity(value: float | None, unit: str, decimals: int | None = None) -> str:
    """A value with its unit, in the form that suits the unit. `decimals` holds for fractions and scores."""
    writer = _WRITERS.get(unit.lower())
    if writer is not None:
        return writer(value)
    if value is None or not math.isfinite(value):
        return NONE
    if unit in SHARES:
        return fixed(value, 2 if decimals is None else decimals)
    if unit in ("count", "samples", "tokens", "requests"):
        return f"{significant(value)}{'' if unit == 'count' else ' ' + unit}"
    return f"{significant(value)} {unit}"


def decimals(low: float | None, high: float | None) -> int:
    """Decimals that an interval supports: half a width of 0.06 gives 2, of 0.006 gives 3; 2 to 4."""
    if low is None or high is None or not 0 < (half := abs(high - low) / 2) < math.inf:
        return 2
    return min(4, max(2, math.ceil(-math.log10(half))))


def figure(
    value: float | None, low: float | None = None, high: float | None = None, unit: str = "",
    *, sign: bool = False,
) -> str:  # fmt: skip
    """A value with its unit, with the decimals that its interval supports; `sign` writes the plus as well."""
    if unit in SHARES or value is None:
        return fixed(value, decimals(low, high), sign=sign)
    text = quantity(abs(value), unit)
    return f"{MINUS}{text}" if value < 0 else f"+{text}" if sign and value else text


def interval(low: float | None, high: float | None, unit: str = "", *, sign: bool = False) -> str:
    """`[0.55, 0.67]`, `[380 ms, 1.2 s]`; empty where there is no interval."""
    if low is None or high is None:
        return ""
    return f"[{figure(low, low, high, unit, sign=sign)}, {figure(high, low, high, unit, sign=sign)}]"


def measured(
    value: float | None, low: float | None, high: float | None, unit: str = "", *, sign: bool = False
) -> str:
    """A value with its interval: `0.61 [0.55, 0.67]`; with `sign` a difference: `+0.09 [+0.01, +0.18]`, of
    times and sizes `+1.6 ms [+0.6, +3.9]`: one unit for all, with the digits that the interval supports."""
    if sign and value is not None and low is not None and high is not None and low < high:
        scale = _scale(max(abs(value), abs(low), abs(high)), unit)
        if scale is not None:
            factor, name = scale
            places = min(4, max(0, 1 - math.floor(math.log10((high - low) / 2 / factor))))
            texts = [fixed(each / factor, places, sign=True) for each in (value, low, high)]
            return f"{texts[0]} {name} [{texts[1]}, {texts[2]}]"
    return f"{figure(value, low, high, unit, sign=sign)} {interval(low, high, unit, sign=sign)}".strip()


def _scale(most: float, unit: str) -> tuple[float, str] | None:
    """The factor and the name of the unit in which figures up to `most` are written; None where each is
    better written by itself."""
    if unit in ("s", "seconds"):
        return (1e-3, "ms") if most < 0.9995 else (1.0, "s") if most < 120 else None
    if unit == "bytes":
        return next(((factor, name) for factor, name in _BYTES if most >= factor), (1.0, "B"))
    return None if unit in SHARES or unit in ("usd", "count") else (1.0, unit)


def metric(value: MetricValue) -> str:
    """A metric's value with its unit."""
    return figure(value.value, value.ci_low, value.ci_high, value.unit)


def metric_interval(value: MetricValue) -> str:
    """A metric's interval in its unit; empty where there is none. Of an incomplete one its bounds, in
    words."""
    if value.incomplete:
        return f"[incomplete: {between(value)}]"
    return interval(value.ci_low, value.ci_high, value.unit)


def between(value: MetricValue) -> str:
    """The bounds of an incomplete metric, in words."""
    return span(value.bound_low, value.bound_high, value.unit)


def span(least: float | None, most: float | None, unit: str) -> str:
    """Between what a value lies: `0.10 to 1.00`, `at least 0.10`, `no bounds`."""
    low, high = (None if end is None else figure(end, least, most, unit) for end in (least, most))
    if low is None or high is None:
        return f"at least {low}" if low else f"at most {high}" if high else "no bounds"
    return f"{low} to {high}"


def p_value(p: float | None) -> str:
    """Three decimals, "< 0.001" below."""
    return NONE if p is None else "< 0.001" if p < 0.001 else fixed(p, 3)


def tested(p: float) -> str:
    """`p = 0.113`, `p < 0.001`."""
    return f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"


def ratio(slow: float, fast: float) -> str:
    """How many times slower, with the sign of multiplication; whole numbers from ten on."""
    value = slow / fast
    return f"{value:.0f}{TIMES}" if value >= 10 else f"{value:.1f}{TIMES}"


def share(of: float | None, change: float | None) -> str:
    """A change as a share of what it was: `+4 %`, `+0.5 %`, `0 %`; empty where that cannot be said."""
    if not of or change is None or not math.isfinite(change / of):
        return ""
    percent = 100 * change / abs(of)
    places = 1 if 0.05 <= abs(percent) < 1 else 0
    return f"{fixed(percent, places, sign=True)} %"


def moment(text: str | None) -> str:
    """An ISO time as `23 Nov 2025, 07:01 UTC`; what cannot be read stays as it is."""
    if not text:
        return NONE
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    if when.tzinfo is not None:
        when = when.astimezone(UTC)
    return f"{when.day} {when:%b %Y, %H:%M} UTC"


def where(slices: Sequence[Concentration]) -> str:
    """Where samples lie thicker than elsewhere: `30 of 35 in target=shipping (of 101 such samples)`."""
    told = [
        f"{each.inside} of {each.affected} in {each.column}={_short(each.value)}"
        + (f" (all {each.size} of them)" if each.inside == each.size else f" (of {each.size:,} there)")
        for each in slices
    ]
    return listing(told)


_LONGEST = 60


def _short(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}\u2026"


def listing(words: Iterable[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    items = list(words)
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def plural(number: int, noun: str, nouns: str | None = None) -> str:
    """`1 run`, `3 runs`."""
    return f"{count(number)} {noun if number == 1 else nouns or noun + 's'}"
