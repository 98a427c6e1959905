"""What crosses from a worker process to evalrun's own is all of it."""

from __future__ import annotations

from dataclasses import fields

from evalrun.runner.spread_wire import error_of, error_parts, response_of, response_parts
from evalrun.types import ErrorKind, ProviderError, Response, Timing


def test_every_field_of_an_answer_crosses() -> None:
    values = {field.name: f"{field.name}-value" for field in fields(Response)}
    answer = Response(**{**values, "timing": Timing(1, 2, 3, 4, 5, [6, 7])})  # type: ignore[arg-type]
    assert response_of(response_parts(answer)) == answer


def test_a_failure_keeps_what_the_end_of_a_run_is_decided_by() -> None:
    error = error_of(error_parts(ProviderError(ErrorKind.BILLING, "no", http_status=402, retry_after_s=3)))
    assert (error.kind, error.message, error.http_status, error.retry_after_s) == (
        ErrorKind.BILLING,
        "no",
        402,
        3,
    )
