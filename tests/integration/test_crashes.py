"""`kill -9` at random moments: nothing answered is lost, nothing is sent twice, the figures are the same."""

import os

import pytest
from tests.integration.crashes import crash


@pytest.mark.parametrize("workers", [0, 2])
def test_kill_9_at_random_moments_changes_nothing(workers: int) -> None:
    """EVALRUN_KILLS=50 kills oftener; `python -m tests.integration.crashes` does it by hand."""
    kills = int(os.environ.get("EVALRUN_KILLS", "4"))
    outcome = crash(kills, samples=40 * kills, seed=1, workers=workers)
    assert outcome.kills >= kills // 2
