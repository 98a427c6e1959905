"""What an error means where there is too little memory: it may end anything, anywhere."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from evalrun.errors import ExitCode, UserError

_SIGNS = re.compile(
    r"can't (start|allocate) new thread|cannot allocate memory|failed to map segment|out of memory"
    r"|memory allocation (still )?failed|unable to allocate|malloc of size",
    re.IGNORECASE,
)


def memory_fault(error: BaseException) -> UserError | None:
    """The one message for an error that too little memory is the cause of; None for any other."""
    if not any(_is_of_memory(each) for each in _all(error)):
        return None
    return UserError(
        "there is too little memory",
        remedy="Give it more (ulimit -v, the container's limit), or ask for less at a time: "
        "performance: {concurrency: …}, --limit. Run the same command again: what was done is kept.",
        exit_code=ExitCode.INCOMPLETE,
    )


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    # CPython's words where there was not even memory for the error: of nothing else where memory is limited.
    if isinstance(error, SystemError) and _limited():
        return bool(re.search(r"without (an )?exception set|without setting an exception", str(error)))
    return isinstance(error, RuntimeError | ImportError | OSError) and bool(_SIGNS.search(str(error)))


def _limited() -> bool:
    """Whether this process may take no more than so much memory."""
    try:
        import resource
    except ModuleNotFoundError:  # a system without such limits
        return False
    except (ImportError, MemoryError):  # there is no memory to load it
        return True
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def _all(error: BaseException) -> Iterator[BaseException]:
    """The error, what it holds, and what it came of."""
    todo, seen = [error], set[int]()
    while todo:
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        todo += [below for below in (each.__cause__, each.__context__) if below is not None]
        if isinstance(each, BaseExceptionGroup):
            todo += each.exceptions
