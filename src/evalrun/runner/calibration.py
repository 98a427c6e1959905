"""What `evalrun calibrate` found on this machine: kept in the user's cache folder, read by every sweep.

A figure speaks of one machine and of the versions it was taken with; with others it is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson

from evalrun._version import __version__
from evalrun.atomic import write_private
from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.paths import cache_dir

FILE = "calibration.json"
_PACKAGES = ("aiohttp", "uvloop", "orjson")


@frozen
class Calibration:
    """The client's own cost on one machine, from whole runs of evalrun against a server that costs nothing.

    Costs are CPU time of the whole process, in microseconds: of an answer that is not streamed, of a
    streamed one without its chunks, and of one chunk. Rates are the highest reached, in requests a second.
    """

    us_per_request: float
    us_per_streamed_request: float
    us_per_chunk: float
    requests_per_s: float
    streamed_per_s: float
    chunks_per_streamed: int
    measured_at: str
    versions: Mapping[str, str]

    def highest_rate(self, stream: bool, chunks: float) -> float:
        """Requests a second that evalrun reaches here at most, for answers of so many chunks.

        What one core gives by the CPU that answers cost, or what was reached, where that is more: a machine
        that was busy during the measurement changes the second, hardly the first.
        """
        if not stream:
            return max(self.requests_per_s, 1e6 / self.us_per_request)
        us = self.us_per_streamed_request + chunks * self.us_per_chunk
        measured_us = self.us_per_streamed_request + self.chunks_per_streamed * self.us_per_chunk
        return max(self.streamed_per_s * measured_us, 1e6) / us

    @property
    def core_share(self) -> float:
        """Share of one core that evalrun had while it went as fast as it could: below 1, something else
        (other work on the machine, the null server) held it back."""
        return self.us_per_request * self.requests_per_s / 1e6


def versions() -> dict[str, str]:
    """The versions that the figures depend on."""
    found = {"evalrun": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        loaded = getattr(sys.modules.get(name), "__version__", None)  # a search of sys.path takes longer
        with contextlib.suppress(PackageNotFoundError):
            found[name] = loaded or version(name)
    return found


def machine_key() -> str:
    """Names this machine, as far as its speed goes, without saying its name."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{platform.node()}|{platform.machine()}|{cores}|{sys.platform}"
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def load() -> Calibration | None:
    """What was measured on this machine with these versions, or None. Never fails."""
    try:
        entry = _entries(cache_dir() / FILE).get(machine_key())
        return Calibration(**entry) if entry and entry["versions"] == versions() else None
    except (UserError, LookupError, TypeError):  # an unreadable figure is one that is not known
        return None


def save(calibration: Calibration) -> Path:
    """Keep the figures of this machine beside those of others. Returns the file."""
    path = cache_dir() / FILE
    entries = {**_entries(path), machine_key(): asdict(calibration)}
    write_private(path, orjson.dumps(entries, option=orjson.OPT_INDENT_2))
    return path


def _entries(path: Path) -> dict[str, Any]:
    try:
        value = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}
