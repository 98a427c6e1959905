"""The stages of a run add up to what it took."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evalrun.analysis.samples import STATUS_CODES, SampleTable
from evalrun.analysis.stages import STAGES, stage_times
from evalrun.types import Status


def table(e2e: list[float], ttft: list[float], queued: list[float], cached: int = 0) -> SampleTable:
    """Scored samples with these times; the first `cached` from the cache."""
    n = len(e2e)
    return SampleTable(
        source=Path("none"), order=np.arange(n), ids=np.arange(n, dtype=np.int32),
        keys=np.arange(n, dtype=np.uint64), status=np.full(n, STATUS_CODES[Status.SCORED], np.int8),
        cached=np.arange(n) < cached, warmup=np.zeros(n, np.bool_), attempts=np.ones(n, np.int32),
        numbers={name: np.array(values, np.float64) for name, values in
                 {"e2e_s": e2e, "ttft_s": ttft, "client_queue_s": queued}.items()}, scores={},
    )  # fmt: skip


def test_requests_side_by_side_share_the_time_that_was_waited() -> None:
    # Two at once for 5 s, less half a second of rendering and half of scoring: 4 s for 8 s of requests.
    found = stage_times(
        table([3.0, 4.0], [1.0, 1.0], [0.0, 1.0]),
        {"load": 2.0, "render": 0.5, "score": 0.5, "score_after": 1.0, "write": 0.25},
        5.0,
    )
    seconds = {str(each["stage"]): each["seconds"] for each in found}
    assert list(seconds) == list(STAGES)
    assert seconds == pytest.approx(
        {"load": 2.0, "render": 0.5, "queue": 0.5, "prefill": 1.0, "decode": 2.5, "score": 1.5, "write": 0.25}
    )
    own = {str(each["stage"]): each["requests_s"] for each in found}
    assert (own["queue"], own["prefill"], own["decode"], own["load"]) == (1.0, 2.0, 5.0, None)


def test_an_answer_that_was_not_streamed_is_one_stage_and_cached_ones_none() -> None:
    nan = float("nan")
    found = stage_times(table([9.0, 2.0], [nan, nan], [nan, 0.0], cached=1), {"load": 0.0}, 2.0)
    assert found == [{"stage": "decode", "seconds": 2.0, "requests_s": 2.0}]


def test_where_nothing_was_asked_only_our_own_stages_are_known() -> None:
    nan = float("nan")
    assert stage_times(table([nan], [nan], [nan]), {"write": 0.5}, None) == [
        {"stage": "write", "seconds": 0.5, "requests_s": None}
    ]
