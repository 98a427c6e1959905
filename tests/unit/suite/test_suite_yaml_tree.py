"""Reading YAML: values, lines, and everything a person can get wrong in it."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evalrun.suite import tree
from evalrun.suite.tree import Place, core_value, parse_yaml


def parsed(text: str):
    node, problems = parse_yaml(text, "f.yaml")
    assert problems == []
    assert node is not None
    return node


def only_problem(text: str):
    _, problems = parse_yaml(text, "f.yaml")
    assert len(problems) == 1, problems
    return problems[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("1", 1),
        ("-7", -7),
        ("0o17", 15),
        ("0x1F", 31),
        ("010", 10),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("1.", 1.0),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("+", "+"),
        ("e3", "e3"),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert core_value(text) == value
    assert type(core_value(text)) is type(value)


def test_quoted_scalars_are_text() -> None:
    assert parsed("['1', \"true\", !!str 5]").plain() == ["1", "true", "5"]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_json_is_read_as_json(value: object) -> None:
    node, problems = parse_yaml(json.dumps(value, ensure_ascii=False), "f")
    assert problems == []
    assert node is not None
    assert node.plain() == value


@given(st.text(max_size=200))
def test_any_text_gives_a_tree_or_problems_and_never_raises(text: str) -> None:
    node, problems = parse_yaml(text, "f")
    assert node is not None or problems or not text.strip() or yaml.safe_load(text) is None


def test_lines_of_values_and_keys() -> None:
    root = parsed("a: 1\nb:\n  - x\n  - k: |\n      text\n      more\n")
    assert root.deepest(("a",)).place == Place("f.yaml", 1)
    assert root.deepest(("b", 0)).place == Place("f.yaml", 3)
    assert root.deepest(("b",)).shown_place() == Place("f.yaml", 2)
    assert root.deepest(("b", 1, "k")).key_place == Place("f.yaml", 4)
    assert root.deepest(("b", 1, "nothing", 3)).place == Place("f.yaml", 4)


def test_repeated_key_names_both_lines() -> None:
    problem = only_problem("a: 1\nb: 2\na: 3\n")
    assert problem.where == "f.yaml:3"
    assert "'a' appears twice" in problem.what
    assert "f.yaml:1" in problem.what


def test_all_repeated_keys_are_reported_at_once() -> None:
    _, problems = parse_yaml("a: 1\na: 2\nb: {c: 1, c: 2}\n", "f.yaml")
    assert [problem.where for problem in problems] == ["f.yaml:2", "f.yaml:3"]


@pytest.mark.parametrize(
    ("text", "line", "remedy"),
    [
        ("a: b: c\n", 1, "quotes"),
        ("a:\n\t- b\n", 2, "spaces"),
        ("a: [1, 2\nb: 3\n", 2, "brackets"),
        ("a: 1\n---\nb: 2\n", 2, "one document"),
        ("a: @b\n", 1, "quotes"),
        ("{a: ${X}, b: 1}\n", 1, '"${NAME}"'),
    ],
)
def test_syntax_errors_have_a_line_and_a_remedy(text: str, line: int, remedy: str) -> None:
    problem = only_problem(text)
    assert problem.where == f"f.yaml:{line}"
    assert problem.what.startswith("not valid YAML")
    assert remedy in problem.remedy


def test_unquoted_template_is_explained() -> None:
    assert "quotes" in only_problem("a: {{ text }}\n").remedy


def test_control_characters_are_a_problem_with_a_line() -> None:
    assert only_problem("a: 1\nb: \x01\n").where == "f.yaml:2"


@pytest.mark.parametrize("text", ["a: .inf", "a: -.INF", "a: .nan", "a: 1e999", "a: !!float .nan"])
def test_numbers_that_are_not_finite_are_refused(text: str) -> None:
    assert "not a finite number" in only_problem(text).what


@pytest.mark.parametrize("text", ["a: !!python/object:os.system x", "a: !mine {b: 1}", "a: !!int x"])
def test_other_tags_are_refused(text: str) -> None:
    assert "tag" in only_problem(text).what


def test_anchors_and_merged_mappings() -> None:
    root = parsed("base: &b {x: 1, y: 2}\nother:\n  <<: *b\n  y: 3\n")
    assert root.plain()["other"] == {"y": 3, "x": 1}
    assert root.deepest(("other", "x")).place.line == 1


def test_an_alias_within_its_own_anchor_is_a_problem() -> None:
    assert "nested too deeply" in only_problem("a: &a [1, *a]\n").what
    assert "nested too deeply" in only_problem("a: &a {<<: *a}\n").what


def test_aliases_that_multiply_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_VALUES", 10_000)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    assert "more than 10,000 values" in only_problem("\n".join(lines)).what


def test_keys_become_text() -> None:
    assert parsed("{1: a, true: b, null: c}").plain() == {"1": "a", "true": "b", "null": "c"}
