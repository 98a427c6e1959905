"""What the tests of reports share: a cache folder that holds the charts' JavaScript once per session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def report_cache(charts_cache: Path) -> Iterator[Path]:
    """A cache folder of the tests' own, named by EVALRUN_CACHE while the session lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVALRUN_CACHE", str(charts_cache))
        yield charts_cache
