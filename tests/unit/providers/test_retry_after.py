"""Retry-After as a date is meant by the clock of the server that names it."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from evalrun.providers.faults import retry_after_s


@pytest.mark.parametrize("off_s", [-86_400, 0, 3_600])
def test_a_date_is_taken_by_the_servers_clock(off_s: int) -> None:
    now = time.time() + off_s
    headers = {"Date": formatdate(now, usegmt=True), "Retry-After": formatdate(now + 30, usegmt=True)}
    assert retry_after_s(headers) == 30.0


def test_a_date_without_the_servers_time_is_taken_by_ours() -> None:
    wait = retry_after_s({"Retry-After": formatdate(time.time() + 30, usegmt=True)})
    assert wait is not None and 25 < wait <= 30
    assert retry_after_s({"Retry-After": formatdate(0), "Date": "no date"}) == 0.0
