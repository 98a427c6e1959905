"""ULIDs: 26 characters that sort by the time they were made, and never collide in practice.

Format: https://github.com/ulid/spec (48 bits of milliseconds, 80 random bits, Crockford base 32). Made here
because the library costs a tenth of a second to import.
"""

from __future__ import annotations

import os
import re
import time

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PATTERN = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def new_ulid() -> str:
    """A new ULID for this moment."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join(_DIGITS[number >> shift & 31] for shift in range(125, -1, -5))
