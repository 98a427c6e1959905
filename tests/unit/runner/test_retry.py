import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.runner.retry import CircuitBreaker, RetryPolicy
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


def test_a_wrong_key_trips_sooner() -> None:
    breaker = CircuitBreaker()
    tripped = [breaker.failure(_error(ErrorKind.AUTH)) for _ in range(5)]
    assert tripped == [False, False, False, False, True]


def test_an_engine_that_ended_trips_at_once() -> None:
    assert CircuitBreaker().failure(ProviderError(ErrorKind.ENGINE, "the engine ended (SIGKILL)"))
