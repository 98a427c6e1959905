"""Suites made of Python values: the YAML that is written says the same."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

import evalrun
from evalrun.errors import UserError
from evalrun.suite.build import suite_text
from evalrun.suite.load import load_text
from evalrun.suite.schema import Suite
from evalrun.suite.tree import parse_yaml


def model(request: Any) -> str:
    """A model of this module."""
    return "yes"


def scored(answer: str, target: str) -> float:
    """A scorer of this module."""
    return float(answer == target)


WHOLE: dict[str, Any] = {
    "models": {"m": {"provider": "recorded", "column": "a"}},
    "prompts": {"p": "Say {{ q }}"},
    "datasets": {"d": {"rows": [{"q": "x", "a": "1"}], "target": "a"}},
    "scorers": ["exact_match"],
}

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def _read(text: str) -> Any:
    tree, problems = parse_yaml(text, "suite.yaml")
    assert tree is not None, problems
    assert not problems
    return tree.plain()


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_texts_are_read_back_as_they_are(texts: list[str]) -> None:
    readable = [text for text in texts if all(c == "\n" or c == "\t" or c.isprintable() for c in text)]
    assert _read(suite_text({"tags": readable or ["x"]}))["tags"] == (readable or ["x"])


@pytest.mark.parametrize(
    "text",
    ["yes", "no", "on", "1e3", "0o7", "0x1f", "1_000", "~", "null", "1.0", ".5", "2024-01-01", "a: b", "# c"],
)
def test_what_looks_like_another_type_stays_a_text(text: str) -> None:
    assert _read(suite_text({"tags": {"t": text}}))["tags"] == {"t": text}


def test_shorter_forms_become_entries() -> None:
    written = _read(suite_text({**WHOLE, "models": {"m": model}, "scorers": ["exact_match", scored]}))
    target = f"{__name__}:model"
    assert written["models"] == [{"id": "m", "provider": "python", "function": target}]
    assert written["prompts"] == [{"id": "p", "text": "Say {{ q }}"}]
    assert written["scorers"] == ["exact_match", {"python": f"{__name__}:scored"}]


def test_a_frame_becomes_rows_and_missing_values_null() -> None:
    frame = pandas.DataFrame({"n": np.array([1, 2], np.int64), "x": [1.5, np.nan], "t": ["a", None]})
    written = _read(suite_text({**WHOLE, "datasets": {"d": frame}}))
    assert written["datasets"] == [
        {"id": "d", "rows": [{"n": 1, "x": 1.5, "t": "a"}, {"n": 2, "x": None, "t": None}]}
    ]


def test_a_function_without_a_name_of_its_own_is_refused() -> None:
    with pytest.raises(UserError, match="cannot be found again"):
        suite_text({**WHOLE, "scorers": [lambda answer, target: 1.0]})


def test_a_function_of_the_main_module_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    main = ModuleType("__main__")
    exec("def own(answer, target): return 1.0", main.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert _read(suite_text({**WHOLE, "scorers": [main.own]}))["scorers"] == [{"python": "__main__:own"}]


def test_the_suite_is_the_one_that_a_file_would_be(tmp_path: Path) -> None:
    made = evalrun.Suite("mine", **WHOLE, gates=["exact_match >= 0.5"], folder=tmp_path)
    path = made.save(tmp_path / "mine.yaml")
    loaded = load_text(path.read_text(), path).suite
    assert loaded == load_text(made.to_yaml(), path).suite
    assert loaded.gates == ["exact_match >= 0.5"]


def test_mistakes_are_told_when_it_is_made() -> None:
    with pytest.raises(UserError, match="Did you mean 'exact_match'"):
        evalrun.Suite("mine", **{**WHOLE, "scorers": ["exact_mach"]})


def test_it_takes_every_key_of_the_suite_language() -> None:
    assert {*inspect.signature(evalrun.Suite).parameters} - {"folder"} == {*Suite.model_fields}
