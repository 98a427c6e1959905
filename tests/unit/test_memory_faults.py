"""Too little memory is one message, wherever it shows; any other error stays what it is."""

from __future__ import annotations

import errno

import pytest

from evalrun.cli.memory import memory_fault


def raised(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        ImportError("libarrow.so.2600: failed to map segment from shared object"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ExceptionGroup("unhandled errors", [ValueError("x"), ExceptionGroup("y", [MemoryError()])]),
        raised(
            ImportError("a bad install of NumPy"), ImportError("x.so: cannot allocate memory in static TLS")
        ),
    ],
)
def test_too_little_memory_is_said(error: BaseException) -> None:
    fault = memory_fault(error)
    assert fault is not None and int(fault.exit_code) == 3
    assert "too little memory" in str(fault) and "ulimit -v" in str(fault)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory, said the model"),
        KeyError("x"),
        ImportError("no module"),
        OSError(errno.ENOSPC, ""),
    ],
)
def test_what_is_something_else_stays_that(error: BaseException) -> None:
    assert memory_fault(error) is None
