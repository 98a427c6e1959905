"""evalrun: LLM evaluation and prompt experiments: quality, fairness, speed and cost of the same samples."""

from __future__ import annotations

import importlib as _importlib
import typing as _typing

from evalrun._version import __version__

if _typing.TYPE_CHECKING:
    from evalrun.api import Comparison, Run, Store, Suite, Sweep, compare, find, open_store, run
    from evalrun.errors import UserError
    from evalrun.scoring.base import Example, MetricInfo, Unparsed, fraction
    from evalrun.scoring.functions import parser, scorer
    from evalrun.training.track import track
    from evalrun.types import Score

_PLACES = {
    "evalrun.api": (
        "Comparison", "Run", "Store", "Suite", "Sweep", "compare", "find", "open_store", "run",
    ),
    "evalrun.errors": ("UserError",),
    "evalrun.scoring.base": ("Example", "MetricInfo", "Unparsed", "fraction"),
    "evalrun.scoring.functions": ("parser", "scorer"),
    "evalrun.training.track": ("track",),
    "evalrun.types": ("Score",),
}  # fmt: skip

__all__ = [
    "Comparison",
    "Example",
    "MetricInfo",
    "Run",
    "Score",
    "Store",
    "Suite",
    "Sweep",
    "Unparsed",
    "UserError",
    "__version__",
    "compare",
    "find",
    "fraction",
    "open_store",
    "parser",
    "run",
    "scorer",
    "track",
]


def __getattr__(name: str) -> _typing.Any:
    # The command line imports this module for every command; the API is imported when it is used.
    for module, names in _PLACES.items():
        if name in names:
            return getattr(_importlib.import_module(module), name)
    raise AttributeError(f"module 'evalrun' has no attribute '{name}'")


def __dir__() -> list[str]:
    """The API, for completion: no modules that happen to be imported."""
    return __all__
