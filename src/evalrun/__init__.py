"""evalrun: LLM evaluation and prompt experiments: quality, fairness, speed and cost of the same samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evalrun._version import __version__

if TYPE_CHECKING:
    from evalrun.api import Run, Sweep, compare, open_store, run

__all__ = ["Run", "Sweep", "__version__", "compare", "open_store", "run"]


def __getattr__(name: str) -> Any:
    # The command line imports this module for every command; the API is imported when it is used.
    if name in __all__:
        from evalrun import api

        return getattr(api, name)
    raise AttributeError(f"module 'evalrun' has no attribute '{name}'")
