"""JSON, tool calls, XML and SQL: what passes, what does not, and what must not be reached."""

import json
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from evalrun import registry
from evalrun.scoring.base import Scorer, ScoringInput
from evalrun.scoring.pipeline import Pipeline
from evalrun.scoring.scorers.structure import at_path, leaves, same_value
from evalrun.types import Score, Status


def scorer(name: str, /, **options: object) -> Scorer:
    kind = registry.load("scorer", name)
    made: Scorer = kind(kind.Options(**options))
    return made


def score(
    made: Scorer, answer: object, target: object = None, row: Any = None, calls: object = None
) -> Score:
    output = answer if isinstance(answer, str) else json.dumps(answer)
    return made.score(ScoringInput(answer, output, target, Status.SCORED, row or {}, calls))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ('{"a": 1}', 1),
        (" [1, 2]\n", 1),
        ("3", 1),
        ('{"a": 1,}', 0),
        ("{'a': 1}", 0),
        ("NaN", 0),
        ("", 0),
        ("Here: {}", 0),
        ('```json\n{"a": 1}\n```', 0),
        ("[" * 100_000, 0),
    ],
)
def test_json_valid_wants_json_and_nothing_else(output: str, value: int) -> None:
    assert score(scorer("json_valid"), output).value == value


def test_json_valid_options_and_unparsed_outputs() -> None:
    assert score(scorer("json_valid", fenced=True), '```json\n{"a": 1}\n```').value == 1
    assert score(scorer("json_valid", kind="object"), "[1]").value == 0
    field = registry.load("parser", "json")
    pipeline = Pipeline([field(field.Options(field="b"))], [scorer("json_valid")])
    assert pipeline.evaluate('{"a": 1}', None, {}).scores == {"json_valid": 1.0}
    assert pipeline.evaluate('{"a": 1}', None, {}, True).scores == {"json_valid": 0.0}


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
}


def test_json_schema_names_the_place_of_the_violation() -> None:
    made = scorer("json_schema", schema=SCHEMA)
    assert score(made, {"name": "x", "age": 3}).value == 1
    assert score(made, '{"name": "x"}').value == 1
    wrong = score(made, {"name": "x", "age": -1})
    assert (wrong.value, wrong.parts) == (0, {"errors": 1})
    assert "at age: -1 is less than the minimum of 0" in wrong.reason
    assert score(made, {"age": "old"}).parts == {"errors": 2}
    assert score(made, "no json").value == 0
    by_row = scorer("json_schema", column="schema")
    assert score(by_row, {"name": 1}, row={"schema": json.dumps(SCHEMA)}).value == 0
    assert score(by_row, {"name": "1"}, row={"schema": SCHEMA}).value == 1
    assert score(by_row, {}, row={}).value is None
    dated = scorer("json_schema", schema={"type": "string", "format": "date"}, formats=True)
    assert score(dated, '"2024-02-31"').value == 0


def test_json_schema_is_checked_before_any_model_is_asked() -> None:
    with pytest.raises(ValidationError, match="not a JSON Schema"):
        scorer("json_schema", schema={"type": "strnig"})
    with pytest.raises(ValidationError, match="exactly one of schema and column"):
        scorer("json_schema")


def test_json_schema_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the schema opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    made = scorer("json_schema", schema={"$ref": "http://127.0.0.1:9/other.json"})
    verdict = score(made, {"a": 1})
    assert verdict.value is None
    assert "refers to" in verdict.reason


def test_json_fields_counts_the_fields_of_the_target() -> None:
    target = {"name": "Ann", "address": {"city": "Ulm", "zip": 89073}, "tags": ["a", "b"]}
    made = scorer("json_fields")
    assert score(made, target, target).parts == {"all": 1}
    answer = {"name": "ann", "address": {"city": "Ulm", "zip": "89073"}, "tags": ["a", "b"], "more": 1}
    verdict = score(made, answer, json.dumps(target))
    assert verdict.value == pytest.approx(3 / 5)
    assert verdict.parts == {"all": 0}
    assert "name, address.zip" in verdict.reason
    assert score(scorer("json_fields", ignore_case=True), answer, target).value == pytest.approx(4 / 5)
    assert score(made, "not json", target).value == 0
    assert score(made, {}, "no json").value is None
    assert score(made, {"a": True}, {"a": 1}).value == 0
    assert score(scorer("json_fields", abs_tolerance=0.1), {"a": 1.05}, {"a": 1}).value == 1


def test_named_fields_are_metrics_of_their_own() -> None:
    made = scorer("json_fields", fields=["address.city", "name", "absent"])
    target = {"name": "Ann", "address": {"city": "Ulm"}}
    verdict = score(made, {"name": "Ann", "address": {"city": "Bonn"}}, target)
    assert verdict.value == 0.5
    assert verdict.parts == {"all": 0, "address_city": 0, "name": 1, "absent": None}
    names = [info.name for info in made.metrics()]
    assert names == ["json_fields.share", "json_fields.all", *(f"json_fields.{f}" for f in made.parts[1:])]


@settings(max_examples=200, deadline=None)
@given(JSON_VALUES)
def test_every_value_equals_itself_and_is_found_by_its_leaves(value: object) -> None:
    assert same_value(value, json.loads(json.dumps(value)))
    if isinstance(value, dict | list):
        for path, leaf in leaves(value):
            if path:
                assert at_path(value, path) == (True, leaf)


CALLS = [
    {"name": "search", "arguments": {"query": "weather", "limit": 3}},
    {"name": "read", "arguments": {"id": 1}},
]
CHAT = [
    {"id": "1", "type": "function", "function": {"name": "read", "arguments": '{"id": 1.0}'}},
    {
        "id": "2",
        "type": "function",
        "function": {"name": "search", "arguments": '{"limit": 3, "query": "weather"}'},
    },
]


def test_tool_calls_of_the_response_are_compared_in_any_order() -> None:
    made = scorer("tool_calls")
    assert score(made, "", CALLS, calls=CHAT) == Score(
        1.0, "2 of 2 calls are right, 2 were made: read, search", {"f1": 1.0, "name_f1": 1.0}
    )
    assert score(scorer("tool_calls", ordered=True), "", CALLS, calls=CHAT).value == 0
    assert score(made, "", json.dumps(CALLS), calls=CHAT[:1]).parts == {
        "f1": pytest.approx(2 / 3),
        "name_f1": pytest.approx(2 / 3),
    }
    wrong = [{"name": "search", "arguments": {"query": "sports"}}, {"name": "read", "arguments": {"id": 1}}]
    assert score(made, wrong, CALLS).parts == {"f1": 0.5, "name_f1": 1.0}
    twice = [CALLS[1], CALLS[1]]
    assert score(made, twice, [CALLS[1]]).value == 0
    assert score(made, "I need no tool.", []).value == 1
    assert score(made, CALLS, []).value == 0
    assert score(made, "", "not calls").value is None


def test_tool_calls_reach_the_scorer_through_the_pipeline_even_without_text() -> None:
    last = registry.load("parser", "last_line")
    pipeline = Pipeline([last(last.Options())], [scorer("tool_calls"), scorer("exact_match")])
    scored = pipeline.evaluate("", CALLS, {}, tool_calls=CHAT)
    assert scored.status is Status.UNPARSED
    assert scored.scores["tool_calls"] == 1
    assert scored.scores["exact_match"] == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<a><b>1</b></a>", 1),
        ("```xml\n<a/>\n```", 1),
        ("<a><b></a>", 0),
        ("", 0),
        ("plain", 0),
        ("<a/><b/>", 0),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', 0),
        ("<ж>мир</ж>", 1),
    ],
)
def test_xml_valid(text: str, value: int) -> None:
    assert score(scorer("xml_valid"), text).value == value


def test_xml_root() -> None:
    assert score(scorer("xml_valid", root="a"), "<a/>").value == 1
    assert "'b', not 'a'" in score(scorer("xml_valid", root="a"), "<b/>").reason


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("SELECT a FROM t WHERE b = 1", 1),
        ("```sql\nWITH x AS (SELECT 1) SELECT * FROM x;\n```", 1),
        ("INSERT INTO t VALUES (1)", 1),
        ("UPDATE t SET a = 1", 1),
        ("CREATE TABLE t (a INT)", 1),
        ("DROP TABLE t", 1),
        ("hello world", 0),
        ("The answer is 3", 0),
        ("SELECT FROM WHERE", 0),
        ("SELECT 1; SELECT 2", 0),
        ("", 0),
        ("(" * 5000, 0),
    ],
)
def test_sql_parse(text: str, value: int) -> None:
    assert score(scorer("sql_parse"), text).value == value


def test_sql_options() -> None:
    assert score(scorer("sql_parse", query_only=True), "DROP TABLE t").value == 0
    assert score(scorer("sql_parse", dialect="postgres"), "SELECT a::int FROM t").value == 1
    with pytest.raises(ValidationError, match="postgers"):
        scorer("sql_parse", dialect="postgers")
