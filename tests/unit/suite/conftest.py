"""Suites to test with: a minimal one that is valid, and a registry that holds the test's own parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from suite_parts import PARTS

from evalrun import registry
from evalrun.errors import Problem, UserError
from evalrun.suite.load import LoadedSuite, load_suite
from evalrun.suite.overrides import Overrides

MINIMAL = """\
name: small
models:
  - {id: a, provider: echo, base_url: "http://127.0.0.1:1/v1", params: {temperature: 0}}
  - {id: b, provider: echo, base_url: "http://127.0.0.1:2/v1"}
prompts:
  - {id: p, text: "{{ q }}"}
  - {id: q, text: "Q: {{ q }}"}
datasets:
  - {id: d, rows: [{q: "1+1", a: "2"}], target: a}
scorers: [same]
"""

Load = Callable[..., LoadedSuite]


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry with only the parts of `suite_parts`."""
    monkeypatch.setattr(registry, "BUILT_IN", PARTS)


@pytest.fixture
def minimal() -> str:
    return MINIMAL


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write a suite's text into a folder and load it."""

    def do(
        text: str, overrides: Overrides | None = None, env: Mapping[str, str] | None = None
    ) -> LoadedSuite:
        path = tmp_path / "suite.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_suite(path, overrides, {} if env is None else env)

    return do


@pytest.fixture
def problems(load: Load) -> Callable[..., list[tuple[str, Problem]]]:
    """Load a suite that is wrong; gives (line or option, problem) in the order reported."""

    def do(*args: object, **options: object) -> list[tuple[str, Problem]]:
        with pytest.raises(UserError) as caught:
            load(*args, **options)
        assert caught.value.exit_code == 2
        return [(problem.where.rpartition("suite.yaml:")[2], problem) for problem in caught.value.problems]

    return do
