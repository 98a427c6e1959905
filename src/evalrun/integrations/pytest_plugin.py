"""The pytest plugin: collects `*.suite.yaml`.

Every pytest session where evalrun is installed loads it, so it imports nothing of evalrun until it meets
such a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

SUFFIXES = (".suite.yaml", ".suite.yml")


def pytest_configure(config: pytest.Config) -> None:
    """Have evalrun's modules imported as they are, not rewritten as modules with tests are: they are imported
    in threads too, and in Python 3.11 two threads that parse at once raise a SystemError."""
    marked = getattr(getattr(config.pluginmanager, "rewrite_hook", None), "_must_rewrite", None)
    if isinstance(marked, set):
        marked.discard("evalrun")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, all of them named --evalrun-…"""
    group = parser.getgroup("evalrun", "evalrun: suites as tests")
    group.addoption("--evalrun-limit", type=int, metavar="N", help="Use only N samples a dataset.")
    group.addoption("--evalrun-store", metavar="DIR", help="Where sweeps are kept (EVALRUN_STORE, .evalrun).")
    group.addoption("--evalrun-baseline", metavar="NAME", help="What gates compare with (main).")
    group.addoption("--evalrun-no-cache", action="store_true", help="Ask again what was answered before.")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A suite for each `*.suite.yaml`."""
    if not file_path.name.endswith(SUFFIXES):
        return None
    from evalrun.integrations.pytest_items import SuiteFile

    made: pytest.Collector = SuiteFile.from_parent(parent, path=file_path)
    return made
