"""evalrun: LLM evaluation and prompt experiments: quality, fairness, speed and cost of the same samples."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from evalrun._version import __version__

if TYPE_CHECKING:
    from evalrun.api import Run, Sweep, compare, open_store, run
    from evalrun.scoring.base import Example, MetricInfo, Unparsed, fraction
    from evalrun.scoring.functions import parser, scorer
    from evalrun.types import Score

_PLACES = {
    "evalrun.api": ("Run", "Sweep", "compare", "open_store", "run"),
    "evalrun.scoring.base": ("Example", "MetricInfo", "Unparsed", "fraction"),
    "evalrun.scoring.functions": ("parser", "scorer"),
    "evalrun.types": ("Score",),
}

__all__ = [
    "Example",
    "MetricInfo",
    "Run",
    "Score",
    "Sweep",
    "Unparsed",
    "__version__",
    "compare",
    "fraction",
    "open_store",
    "parser",
    "run",
    "scorer",
]


def __getattr__(name: str) -> Any:
    # The command line imports this module for every command; the API is imported when it is used.
    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'evalrun' has no attribute '{name}'")
