import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.runner.attempts import CircuitBreaker, RetryPolicy
from evalrun.types import RETRYABLE, ErrorKind, ProviderError


def _error(kind: ErrorKind, retry_after_s: float | None = None) -> ProviderError:
    return ProviderError(kind, "it failed", retry_after_s=retry_after_s)


@pytest.mark.parametrize("kind", [kind for kind in ErrorKind if kind not in RETRYABLE])
def test_what_cannot_mend_itself_is_never_asked_again(kind: ErrorKind) -> None:
    assert RetryPolicy().wait_s(_error(kind), 1, 1000.0, random.Random(0)) is None


def test_gives_up_after_the_allowed_retries() -> None:
    policy, rng = RetryPolicy(retries=2), random.Random(0)
    waits = [policy.wait_s(_error(ErrorKind.SERVER), failed, 1000.0, rng) for failed in (1, 2, 3)]
    assert waits[0] is not None and waits[1] is not None and waits[2] is None


def test_retry_after_is_honoured_and_not_shortened() -> None:
    wait = RetryPolicy().wait_s(_error(ErrorKind.RATE_LIMIT, 7.0), 1, 1000.0, random.Random(0))
    assert wait is not None and 7.0 <= wait <= 7.25


class _Drawn(random.Random):
    """Draws this number and no other."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def random(self) -> float:
        return self.value


def test_waits_double_up_to_the_cap_and_keep_their_lower_half() -> None:
    policy = RetryPolicy(retries=9)
    for drawn, first in ((0.0, 0.25), (1.0, 0.5)):
        waits = [policy.wait_s(_error(ErrorKind.SERVER), at, 1000.0, _Drawn(drawn)) for at in range(1, 10)]
        assert waits == [min(first * 2**at, 30.0 * first / 0.5) for at in range(9)]


def test_a_retry_after_of_nothing_is_honoured_too() -> None:
    assert RetryPolicy().wait_s(_error(ErrorKind.RATE_LIMIT, 0.0), 4, 1000.0, _Drawn(0.0)) == 0.0


def test_a_wait_as_long_as_what_is_left_is_not_begun() -> None:
    error = _error(ErrorKind.RATE_LIMIT, 7.0)
    assert RetryPolicy().wait_s(error, 1, 7.0, _Drawn(0.0)) is None
    assert RetryPolicy().wait_s(error, 1, 7.1, _Drawn(0.0)) == 7.0


def test_a_retry_after_beyond_the_deadline_is_not_waited_for() -> None:
    assert RetryPolicy().wait_s(_error(ErrorKind.RATE_LIMIT, 3600.0), 1, 60.0, random.Random(0)) is None


@given(st.integers(1, 5), st.floats(0.1, 1000), st.integers())
def test_a_wait_always_ends_before_the_deadline_and_under_the_cap(
    failed: int, left: float, seed: int
) -> None:
    policy = RetryPolicy(retries=5)
    wait = policy.wait_s(_error(ErrorKind.SERVER), failed, left, random.Random(seed))
    if wait is not None:
        assert 0 <= wait < left
        assert wait <= policy.cap_s


def test_breaker_trips_on_identical_failures_only() -> None:
    breaker = CircuitBreaker(threshold=3)
    failures = [_error(ErrorKind.SERVER), _error(ErrorKind.TIMEOUT), _error(ErrorKind.SERVER)]
    assert not any(breaker.failure(error) for error in failures)
    assert not breaker.failure(_error(ErrorKind.SERVER))
    assert breaker.failure(_error(ErrorKind.SERVER))


def test_breaker_forgets_after_a_success() -> None:
    breaker = CircuitBreaker(threshold=2)
    breaker.failure(_error(ErrorKind.SERVER))
    breaker.success()
    assert not breaker.failure(_error(ErrorKind.SERVER))


@pytest.mark.parametrize(
    ("kind", "count"), [(ErrorKind.AUTH, 5), (ErrorKind.NOT_FOUND, 5), (ErrorKind.SERVER, 20)]
)
def test_what_will_not_mend_itself_trips_sooner(kind: ErrorKind, count: int) -> None:
    breaker = CircuitBreaker()
    tripped = [breaker.failure(_error(kind)) for _ in range(count)]
    assert tripped == [False] * (count - 1) + [True]


def _http(status: int, kind: ErrorKind, number: int = 0) -> ProviderError:
    return ProviderError(kind, f"HTTP {status}: no (request {number})", http_status=status)


@pytest.mark.parametrize(
    ("status", "kind", "count"),
    [
        (401, ErrorKind.AUTH, 5),
        (403, ErrorKind.AUTH, 5),
        (404, ErrorKind.NOT_FOUND, 5),
        (400, ErrorKind.BAD_REQUEST, 20),
        (500, ErrorKind.SERVER, 20),
        (429, ErrorKind.RATE_LIMIT, 20),
    ],
)
def test_what_a_message_says_beside_the_status_makes_no_difference(
    status: int, kind: ErrorKind, count: int
) -> None:
    breaker = CircuitBreaker()
    tripped = [breaker.failure(_http(status, kind, number)) for number in range(count)]
    assert tripped == [False] * (count - 1) + [True]


def test_failures_of_different_status_are_not_alike() -> None:
    breaker = CircuitBreaker()
    kinds = [(500, ErrorKind.SERVER), (502, ErrorKind.SERVER)] * 30
    assert not any(breaker.failure(_http(status, kind)) for status, kind in kinds)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, ErrorKind.BAD_REQUEST), (422, ErrorKind.BAD_REQUEST), (500, ErrorKind.SERVER)],
)
def test_who_bears_all_failures_is_not_stopped_by_them(status: int, kind: ErrorKind) -> None:
    breaker = CircuitBreaker(patient=True)
    assert not any(breaker.failure(_http(status, kind)) for _ in range(100))


def test_rows_that_failed_before_may_fail_again() -> None:
    breaker = CircuitBreaker()
    assert not any(breaker.failure(_http(400, ErrorKind.BAD_REQUEST), again=True) for _ in range(100))


def test_a_wrong_key_stops_a_patient_run_too() -> None:
    breaker = CircuitBreaker(patient=True, answered=True)
    assert [breaker.failure(_http(401, ErrorKind.AUTH), again=True) for _ in range(5)] == [False] * 4 + [True]


def test_a_row_that_is_forbidden_says_nothing_of_a_key_that_was_good() -> None:
    breaker = CircuitBreaker(patient=True)
    breaker.success()
    assert not any(breaker.failure(_http(403, ErrorKind.AUTH)) for _ in range(100))


def test_an_account_without_money_trips_at_once() -> None:
    assert CircuitBreaker(patient=True, answered=True).failure(_http(429, ErrorKind.BILLING), again=True)


def test_an_engine_that_ended_trips_at_once() -> None:
    assert CircuitBreaker().failure(ProviderError(ErrorKind.ENGINE, "the engine ended (SIGKILL)"))
