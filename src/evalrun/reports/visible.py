"""Makes text from models and data harmless to read: control and direction marks become visible symbols.

Escaping for HTML is the template's business (autoescape); this is about characters that would reorder
a line, hide text, ring a bell or move the cursor.
"""

from __future__ import annotations

import re

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")


_CONTROLS = (
    "NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "TAB", "LF", "VT", "FF", "CR", "SO", "SI",
    "DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC", "FS", "GS", "RS", "US",
)  # fmt: skip
"""Names rather than the Unicode pictures of controls, which few fonts have."""


def _symbol(match: re.Match[str]) -> str:
    code = ord(match.group())
    name = _CONTROLS[code] if code < 0x20 else "DEL" if code == 0x7F else f"U+{code:04X}"
    return f"\u27e8{name}\u27e9"


def visible(text: str) -> str:
    """The text with every control and direction mark as its name in brackets; tab and newline stay."""
    return _INVISIBLE.sub(_symbol, text)


def terminal(text: str, limit: int = 400) -> str:
    """One line that is safe in a terminal: no escape sequences, no line breaks, no marks; cut at `limit`."""
    flat = " ".join(visible(_ANSI.sub("", text[: limit * 4])).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
