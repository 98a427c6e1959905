"""How figures are written for people: one place, so that HTML and terminal agree.

Every function takes a plain number (or None, written as an en dash) and gives text with its unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

NONE = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"


def decimals_for(half_width: float | None) -> int:
    """Decimals that an interval of this half width supports: 0.06 gives 2, 0.006 gives 3; 2 to 4."""
    if half_width is None or not math.isfinite(half_width) or half_width <= 0:
        return 2
    return min(4, max(2, math.ceil(-math.log10(half_width))))


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


def interval(low: float | None, high: float | None, decimals: int = 2, *, sign: bool = False) -> str:
    """`[0.55, 0.67]`, or nothing where there is no interval."""
    if low is None or high is None:
        return ""
    return f"[{fixed(low, decimals, sign=sign)}, {fixed(high, decimals, sign=sign)}]"


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

_SUFFIX = {
    "tokens/s": " tokens/s",
    "requests/s": " requests/s",
    "fraction": "",
    "score": "",
    "count": "",
    "1": "",
    "": "",
}


def quantity(value: float | None, unit: str, decimals: int | None = None) -> str:
    """A value with its unit, in the form that suits the unit. `decimals` holds for fractions and scores."""
    writer = _WRITERS.get(unit.lower())
    if writer is not None:
        return writer(value)
    if value is None or not math.isfinite(value):
        return NONE
    if unit in ("fraction", "score", "", "1"):
        return fixed(value, 2 if decimals is None else decimals)
    if unit in ("count", "samples", "tokens", "requests"):
        return f"{significant(value)}{'' if unit == 'count' else ' ' + unit}"
    return f"{significant(value)}{_SUFFIX.get(unit, ' ' + unit)}"


def ratio(slow: float, fast: float) -> str:
    """How many times slower, with the sign of multiplication; whole numbers from ten on."""
    value = slow / fast
    return f"{value:.0f}{TIMES}" if value >= 10 else f"{value:.1f}{TIMES}"


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


def listing(words: Iterable[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    items = list(words)
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def plural(number: int, noun: str, nouns: str | None = None) -> str:
    """`1 run`, `3 runs`."""
    return f"{count(number)} {noun if number == 1 else nouns or noun + 's'}"
