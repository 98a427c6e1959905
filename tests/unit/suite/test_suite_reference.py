"""The Markdown reference says every key, in tables that hold together."""

from __future__ import annotations

import re

from evalrun.suite.components import ModelSpec
from evalrun.suite.dataset import DatasetSpec
from evalrun.suite.prompt import PromptSpec
from evalrun.suite.reference import suite_json_schema, suite_reference, type_text
from evalrun.suite.schema import PerformanceSpec, Suite


def test_every_key_of_every_section_is_there() -> None:
    text = suite_reference()
    for model in (Suite, ModelSpec, PromptSpec, DatasetSpec, PerformanceSpec):
        for name in model.model_fields:
            if name != "options":
                assert f"| `{name}` |" in text, name
    for heading in ("### provider: echo", "### parser: pattern", "### scorer: same"):
        assert heading in text
    assert "| `base_url` | text | required | Where it is. |" in text


def test_every_mapping_of_the_schema_has_a_table_with_all_its_keys() -> None:
    tables = [set(re.findall(r"^\| `(.+?)` \|", part, re.M)) for part in suite_reference().split("\n#")]
    definitions = suite_json_schema()["$defs"]
    own = {name: schema for name, schema in definitions.items() if "." not in name}
    assert {"AlertsSpec", "AttributeSpec", "PerturbationSpec", "CellFilter"} <= own.keys()
    lacking = [name for name, schema in own.items() if set(schema["properties"]) not in tables]
    assert lacking == []


def test_every_table_row_has_four_cells() -> None:
    rows = [line for line in suite_reference().splitlines() if line.startswith("| `") and "--" not in line]
    assert len(rows) > 60
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {6}


def test_types_in_words() -> None:
    assert type_text({"type": ["integer", "null"], "minimum": 1}) == "whole number ≥ 1"
    assert type_text({"type": "array", "items": {"type": "string"}}) == "list of text"
    assert type_text({"anyOf": [{"type": "string"}, {"type": "array", "items": {}}]}) == "text or list"
    assert type_text({"enum": ["a", "b"]}) == "`a` or `b`"
    assert type_text({"type": "integer", "minimum": 1, "maximum": 9}) == "whole number from 1 to 9"
