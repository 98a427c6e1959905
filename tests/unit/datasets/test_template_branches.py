"""Names that a template sets itself are no columns, also where it sets them in branches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalrun.datasets import open_dataset
from evalrun.suite.dataset import DatasetSpec
from evalrun.templates import TemplateFailure, compile_value

SETS_IN_BOTH = "{% if a %}{% set y = 1 %}{% else %}{% set y = 2 %}{% endif %}{{ y }}"


@pytest.mark.parametrize(
    ("template", "columns", "value"),
    [
        (SETS_IN_BOTH, {"a"}, 1),
        ("{% set y = 2 %}{% if a %}{% set y = 1 %}{% endif %}{{ y }}", {"a"}, 1),
        (
            "{% if b %}{% set y = 1 %}{% elif a %}{% set y = 3 %}{% else %}{% set y = 2 %}{% endif %}{{ y }}",
            {"a", "b"},
            3,
        ),
        (
            "{% if a %}{% if b %}{% set y = 1 %}{% else %}{% set y = 4 %}{% endif %}{% else %}{% set y = 2 %}"
            "{% endif %}{{ y }}",
            {"a", "b"},
            4,
        ),
        ("{% if a %}{% set y, z = 1, 2 %}{% else %}{% set y, z = 5, 6 %}{% endif %}{{ y + z }}",
         {"a"}, 3),
        ("{% for i in [a] %}{% if i %}{% set y = 7 %}{% else %}{% set y = 8 %}{% endif %}{{ y }}{% endfor %}",
         {"a"}, "7"),
    ],
)  # fmt: skip
def test_what_every_branch_sets_is_no_column(template: str, columns: set[str], value: Any) -> None:
    made = compile_value(template, "a column")
    assert set(made.variables.lines) == columns
    assert str(made.evaluate({"a": 1, "b": 0})) == str(value)


@pytest.mark.parametrize(
    "template",
    [
        "{% if a %}{% set y = 1 %}{% endif %}{{ y }}",
        "{{ y }}" + SETS_IN_BOTH,
        "{% if y %}{% set y = 1 %}{% else %}{% set y = 2 %}{% endif %}{{ y }}",
        "{% for i in [a] %}" + SETS_IN_BOTH + "{% endfor %}{{ y }}",
    ],
)
def test_what_may_be_unset_is_still_asked_of_the_row(template: str) -> None:
    made = compile_value(template, "a column")
    assert "y" in made.variables.lines
    with pytest.raises(TemplateFailure):
        made.evaluate({"a": 0})


def test_a_derived_column_may_set_names_in_branches(tmp_path: Path) -> None:
    spec = DatasetSpec.model_validate(
        {"id": "d", "rows": [{"a": 1}, {"a": 0}], "columns": {"made": SETS_IN_BOTH}, "target": "made"}
    )
    assert [item.target for item in open_dataset(spec, tmp_path, 0)] == ["1", "2"]
