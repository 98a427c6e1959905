"""One thread for products of matrices.

The products of resampling are small. On a machine whose cores are busy (with models that answer, say) the
threads of the linear algebra library wait for one another ten times longer than they compute.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np  # noqa: F401  (its linear algebra library must be loaded before it is looked for)


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Within it, numpy multiplies matrices with one thread."""
    controller = _controller()
    if controller is None:
        yield
        return
    with controller.limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> Any:
    """What sets the number of threads; finding the libraries takes 2 ms, so it is done once."""
    try:
        from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped, unused-ignore]
    except ImportError:  # it comes with scikit-learn; without it the results are the same, and later
        return None
    return ThreadpoolController()
