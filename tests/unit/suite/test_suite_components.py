"""Parsers and scorers as a suite writes them, and code of one's own."""

from __future__ import annotations

import sys

import pytest
from pydantic import ValidationError
from suite_parts import Labels, Pattern, Same, shout

from evalrun.suite.components import ModelSpec, ParserSpec, ScorerSpec


@pytest.mark.parametrize(
    ("entry", "name", "args"),
    [
        ("trim", "trim", {}),
        ({"trim": None}, "trim", {}),
        ({"trim": {}}, "trim", {}),
        ({"pattern": "x"}, "pattern", {"pattern": "x"}),
        ({"pattern": {"pattern": "x", "group": 0}}, "pattern", {"pattern": "x", "group": 0}),
        ({"labels": ["a", "b"]}, "labels", {"labels": ["a", "b"]}),
        ({"name": "pattern", "args": {"pattern": "x"}}, "pattern", {"pattern": "x"}),
    ],
)
def test_written_forms(entry, name, args) -> None:
    spec = ParserSpec.model_validate(entry)
    assert (spec.name, spec.args) == (name, args)


def test_build_makes_the_component_from_its_options() -> None:
    built = ParserSpec.model_validate({"pattern": "x"}).build()
    assert isinstance(built, Pattern)
    assert (built.options.pattern, built.options.group) == ("x", 1)
    assert isinstance(ParserSpec.model_validate({"labels": ["a"]}).build(), Labels)
    assert isinstance(ScorerSpec.model_validate("same").build(), Same)


def test_the_id_is_the_given_name_else_the_registered_one() -> None:
    assert ScorerSpec.model_validate("same").id == "same"
    assert ScorerSpec.model_validate({"same": {"name": "mine"}}).id == "mine"
    assert ParserSpec.model_validate({"python": "suite_parts:shout"}).id == "shout"


def test_own_component_class() -> None:
    spec = ParserSpec.model_validate({"python": "suite_parts:Pattern", "args": {"pattern": "x"}})
    assert isinstance(spec.build(), Pattern)
    assert (spec.name, spec.target) == ("python", "suite_parts:Pattern")
    with pytest.raises(ValidationError, match="'pattern' is missing"):
        ParserSpec.model_validate({"python": "suite_parts:Pattern"})


def test_own_function_with_and_without_arguments() -> None:
    assert ParserSpec.model_validate({"python": "suite_parts:shout"}).build() is shout
    spec = ParserSpec.model_validate({"python": "suite_parts:shout", "args": {"marks": 2}})
    assert spec.build()("a") == "A!!"
    with pytest.raises(ValidationError, match=r"no argument 'mark'.*Did you mean 'marks'"):
        ParserSpec.model_validate({"python": "suite_parts:shout", "args": {"mark": 2}})


@pytest.mark.parametrize(
    "target", ["suite_parts:NOT_CALLABLE", "suite_parts:nope", "suite_parts", "nope:x", 5]
)
def test_what_is_no_component_is_refused(target) -> None:
    with pytest.raises(ValidationError):
        ParserSpec.model_validate({"python": target})


def test_code_beside_the_suite_is_found_and_the_path_left_alone(load, minimal, tmp_path) -> None:
    (tmp_path / "code_beside_suite.py").write_text("def first(value):\n    return value[:1]\n")
    before = list(sys.path)
    suite = load(minimal + 'parse: [{python: "code_beside_suite:first"}]\n').suite
    assert suite.parse[0].build()("abc") == "a"
    assert sys.path == before


def test_code_that_fails_on_import_is_a_problem_not_a_traceback(problems, minimal, tmp_path) -> None:
    (tmp_path / "code_that_breaks.py").write_text("raise RuntimeError('boom')\n")
    [(line, problem)] = problems(minimal + 'parse:\n  - python: "code_that_breaks:first"\n')
    assert line == "12"
    assert "RuntimeError: boom" in problem.what


def test_model_specs_are_made_in_python_too() -> None:
    spec = ModelSpec.model_validate({"id": "a", "provider": "echo", "base_url": "u"})
    assert spec.options.base_url == "u"
    assert ModelSpec(id="a", provider="echo", options=spec.options) == spec
    assert spec.resolved()["base_url"] == "u"


def test_specs_are_frozen() -> None:
    spec = ModelSpec.model_validate({"id": "a", "provider": "echo", "base_url": "u"})
    with pytest.raises(ValidationError):
        spec.id = "b"  # type: ignore[misc]
