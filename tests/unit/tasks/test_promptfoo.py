"""Configurations of promptfoo as suites: what is taken over is exact, what is not is listed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from evalrun.errors import UserError
from evalrun.scoring.base import ScoringInput
from evalrun.suite.components import ScorerSpec
from evalrun.suite.load import load_suite
from evalrun.tasks.promptfoo.main import Converted, convert, written
from evalrun.types import Status

CONFIG = """
description: Support
prompts: ["Answer {{question}} in {{language}} {{unset}}", file://chat.json, file://made.py]
providers:
  - {id: openai:chat:m, config: {apiBaseUrl: "http://127.0.0.1:1/v1", temperature: 0.5, tools: []}}
  - python:own.py
defaultTest: {assert: [{type: latency, threshold: 5}]}
tests:
  - vars: {question: [a, b], language: [x, y]}
    assert:
      - {type: contains, value: "{{language}}", weight: 2, metric: Tone}
      - {type: javascript, value: "1"}
    threshold: 0.5
  - file://more.csv
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "chat.json").write_text('[{"role": "user", "content": "{{question}}"}]')
    (tmp_path / "more.csv").write_text('question,__expected,__expected2\nc,"contains-any: p,q",plain text\n')
    path = tmp_path / "promptfooconfig.yaml"
    path.write_text(CONFIG)
    return path


def test_the_suite_loads_and_has_every_test(config: Path) -> None:
    converted = convert(config)
    files = written(converted, config.with_name("suite.yaml"))
    suite = load_suite(files[0]).suite
    assert [model.id for model in suite.models] == ["openai-chat-m"]
    assert [prompt.id for prompt in suite.prompts] == ["prompt1", "chat"]
    assert len(converted.rows) == 5  # 2 questions x 2 languages, and the row of the CSV file
    assert converted.rows[1]["assertions"][0] == {
        "type": "contains",
        "value": "y",
        "weight": 2,
        "metric": "Tone",
    }
    assert converted.rows[4]["assertions"] == [
        {"type": "contains-any", "value": ["p", "q"]},
        {"type": "equals", "value": "plain text"},
    ]
    assert all(row["unset"] == "" for row in converted.rows)


def test_what_is_not_taken_over_is_listed_once_each(config: Path) -> None:
    left = [each["what"] for each in convert(config).left_out]
    for part in ("file://made.py", "tools", "python:own.py", "assertion latency", "assertion javascript"):
        assert sum(part in each for each in left) == 1, part


def converted_from(folder: Path, text: str) -> Converted:
    path = folder / "c.yaml"
    path.write_text("prompts: ['{{ q }}']\nproviders: [openai:m]\n" + text)
    converted = convert(path)
    load_suite(written(converted, folder / "suite.yaml")[0])
    return converted


def test_lists_of_texts_are_several_tests_and_other_lists_one(tmp_path: Path) -> None:
    made = converted_from(tmp_path, "tests: [{vars: {q: [a, b], n: [1, 2], none: [], day: 2024-01-01}}]")
    assert [(row["q"], row["n"], row["none"], row["day"]) for row in made.rows] == [
        ("a", [1, 2], [], "2024-01-01"), ("b", [1, 2], [], "2024-01-01"),
    ]  # fmt: skip


def test_variables_may_have_the_names_of_our_columns(tmp_path: Path) -> None:
    made = converted_from(
        tmp_path,
        "tests: [{vars: {q: x, test: t, threshold: 3, assertions: a, rubric: r}, description: d,"
        " threshold: 0.5, assert: [{type: equals, value: y},"
        " {type: llm-rubric, value: 'Good {{ test }}?', weight: 2}]}]",
    )
    [row] = made.rows
    assert (row["test"], row["threshold"], row["rubric"], row["rubric_"]) == ("t", 3, "r", "Good t?")
    assert made.suite["datasets"][0]["key"] == "test_" and row["test_"] == "0000"
    assert made.suite["scorers"][0] == {
        "assertions": {"column": "assertions_", "threshold_column": "threshold_"}
    }
    assert any(each["what"] == "assertion llm-rubric: weight" for each in made.left_out)


def test_each_row_has_its_own_rubric(tmp_path: Path) -> None:
    text = "tests: [{vars: {q: [a, b]}, assert: [{type: llm-rubric, value: 'About {{ q }}'}]}]"
    assert [row["rubric"] for row in converted_from(tmp_path, text).rows] == ["About a", "About b"]


def test_files_of_variables(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("first\n")
    (tmp_path / "two.txt").write_text("second\n")
    (tmp_path / "v.yaml").write_text("a: 2024-01-01")
    made = converted_from(tmp_path, "tests: [{vars: {q: 'file://*.txt', v: 'file://v.yaml'}}]")
    assert [(row["q"], row["v"]) for row in made.rows] == [
        ("first", '{"a": "2024-01-01"}'), ("second", '{"a": "2024-01-01"}'),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("tests: [{metadata: {a: 1}}]", "tests[0].metadata"),
        ("tests: [{assert: [{type: equals, value: x, provider: openai:n}]}]", "assertion equals: provider"),
        ("tests: [{assert: [{type: assert-set, assert: [{type: cost}, {type: is-json}]}]}]", "assert-set"),
        ("tests: [{assert: [{type: equals, value: '{{ a | nonesuch }}'}]}]", "filter nonesuch"),
        ("tests: [{assert: [{type: equals, value: '{{ a '}]}]", "variables in '{{ a '"),
        ("evaluateOptions: {cache: false}", "evaluateOptions.cache"),
        ("tests: [plain]", "tests plain"),
        ("tests: [1]", "test 1"),
    ],
)  # fmt: skip
def test_nothing_is_dropped_without_a_line(tmp_path: Path, text: str, what: str) -> None:
    left = [each["what"] for each in converted_from(tmp_path, text).left_out]
    assert any(what in each for each in left), left


def test_a_cell_that_names_a_check_we_lack_is_no_text_to_equal(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "q,__expected\na,moderation: hate\nb,context-recall(0.5): x\nc,note: this\n"
    )
    made = converted_from(tmp_path, "tests: file://t.csv")
    assert [row["assertions"] for row in made.rows] == [[], [], [{"type": "equals", "value": "note: this"}]]
    assert {"assertion moderation", "assertion context-recall"} <= {each["what"] for each in made.left_out}


@pytest.mark.parametrize("source", ["openai:embedding:e", "openai:image:dall-e-3", "azure:embedding:e"])
def test_what_is_no_chat_model_is_listed(tmp_path: Path, source: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"prompts: [p]\nproviders: [openai:m, '{source}']")
    converted = convert(path)
    assert [model["model"] for model in converted.suite["models"]] == ["m"]
    assert any(source in each["what"] for each in converted.left_out)


def test_the_variable_of_a_key_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    config = "config: {apiKeyEnvar: MINE}"
    path.write_text(f"prompts: [p]\nproviders: [{{id: 'groq:m', {config}}}, {{id: 'anthropic:m', {config}}}]")
    assert [model["api_key_env"] for model in convert(path).suite["models"]] == ["MINE", "MINE"]


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("defaultTest: file://none.yaml", None),
        ("tests: [{vars: file://none.yaml}]", None),
        ("tests: file://t.jsonl", b'{"vars": {"q": 1}}\n{"va'),
        ("tests: file://t.jsonl", b"[1]\n"),
        ("tests: file://t.yaml", b"a: ["),
        ("tests: file://t.csv", "q\n\u00e4\n".encode("utf-16")),
        ("tests: file://t.csv", b"q,__threshold\na,much\n"),
        ("tests: [{vars: [1]}]", None),
        ("tests: [{options: 3}]", None),
        ("tests: [{assert: {type: equals}}]", None),
        ("tests: 3", None),
        ("targets: 3\nproviders: 3", None),
        ("providers: [{id: 'openai:m', config: 3}]", None),
        ("providers: [{'openai:m': [1]}]", None),
        ("prompts: [{label: none}]", None),
        ("prompts: 3", None),
        ("evaluateOptions: {repeat: often}", None),
        ("evaluateOptions: 3", None),
        ("evaluateOptions: {maxConcurrency: 1.5}", None),
        ("tests: [{assert: [{type: is-json, value: 'a: ['}]}]", None),
    ],
)
def test_what_cannot_be_read_is_one_error(tmp_path: Path, text: str, file: bytes | None) -> None:
    if file is not None:
        (tmp_path / text.rpartition("//")[2]).write_bytes(file)
    with pytest.raises(UserError):
        converted_from(tmp_path, text)


def test_no_configuration_is_an_error(tmp_path: Path) -> None:
    for text in ("a: [", "name: x", "prompts: [p]\nproviders: [python:x.py]"):
        path = tmp_path / "c.yaml"
        path.write_text(text)
        with pytest.raises(UserError):
            convert(path)


def _score(row: dict[str, object], output: str = "hello world") -> tuple[float | None, float | None]:
    scorer = ScorerSpec.model_validate("assertions").build()
    score = scorer.score(ScoringInput(output, output, None, Status.SCORED, row))
    return score.value, score.parts.get("passed")


FAILS = {"type": "contains", "value": "zzz", "weight": 2}
HOLDS = {"type": "contains", "value": "hello"}


@pytest.mark.parametrize(("threshold", "passed"), [(None, 0.0), (0.5, 0.0), (0.2, 1.0), (0, 1.0)])
def test_weights_and_thresholds_are_promptfoos(threshold: float | None, passed: float) -> None:
    """Weights 2 and 1, the first fails: 1/3; a threshold of 0 never fails."""
    value, ok = _score({"assertions": [FAILS, HOLDS], "threshold": threshold})
    assert value == pytest.approx(1 / 3)
    assert ok == passed


@pytest.mark.parametrize(
    ("check", "holds"),
    [
        ({"type": "equals", "value": "hello world"}, True),
        ({"type": "not-equals", "value": "hello world"}, False),
        ({"type": "icontains", "value": "WORLD"}, True),
        ({"type": "contains-all", "value": ["hello", "world"]}, True),
        ({"type": "contains-all", "value": "hello, moon"}, False),
        ({"type": "starts-with", "value": "hell"}, True),
        ({"type": "regex", "value": "w.r"}, True),
        ({"type": "is-json"}, False),
        ({"type": "levenshtein", "value": "hello worl", "threshold": 1}, True),
        ({"type": "levenshtein", "value": "hello", "threshold": 5}, False),
        ({"type": "word-count", "value": {"min": 1, "max": 2}}, True),
        ({"type": "assert-set", "assert": [FAILS, HOLDS], "threshold": 0.3}, True),
        ({"type": "assert-set", "assert": [FAILS, HOLDS]}, False),
    ],
)
def test_checks(check: dict[str, object], holds: bool) -> None:
    assert _score({"assertions": [check], "threshold": None})[1] == float(holds)


def test_json_is_found_within_a_text() -> None:
    schema = yaml.safe_load("{type: object, required: [a]}")
    assert (
        _score({"assertions": [{"type": "contains-json", "value": schema}]}, 'x {"b": 1} y {"a": 2}')[1] == 1
    )
    assert _score({"assertions": [{"type": "contains-json", "value": schema}]}, 'x {"b": 1}')[1] == 0


def test_references_scenarios_and_files_of_providers_are_followed(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("[{id: 'openai:a', label: one}, 'openai:b']")
    (tmp_path / "c.yaml").write_text(
        "prompts: ['{{ q }} {{ lang }}']\n"
        "providers: [file://p.yaml, file://none.yaml]\n"
        "assertionTemplates: {short: {type: word-count, value: {max: 9}}}\n"
        "scenarios:\n"
        "  - config: [{vars: {lang: de}}, {vars: {lang: fr}}]\n"
        "    tests:\n"
        "      - {vars: {q: a}, assert: [{$ref: '#/assertionTemplates/short', weight: 2}]}\n"
        "      - {vars: {q: b}}\n"
        "tests: [{vars: {q: c, lang: en}, assert: [{$ref: '#/assertionTemplates/none'}]}]\n"
    )
    made = convert(tmp_path / "c.yaml")
    assert [model["model"] for model in made.suite["models"]] == ["a", "b"]
    assert [(row["q"], row["lang"]) for row in made.rows] == [
        ("c", "en"), ("a", "de"), ("b", "de"), ("a", "fr"), ("b", "fr"),
    ]  # fmt: skip
    assert made.rows[1]["assertions"] == [{"type": "word-count", "value": {"max": 9}, "weight": 2}]
    assert {"$ref #/assertionTemplates/none", "provider file://none.yaml"} <= {
        each["what"] for each in made.left_out
    }


def test_a_reference_within_itself_leads_nowhere(tmp_path: Path) -> None:
    made = converted_from(
        tmp_path, "$defs: {a: {$ref: '#/$defs/a'}}\ntests: [{assert: [{$ref: '#/$defs/a'}]}]"
    )
    assert any(each["what"] == "$ref #/$defs/a" for each in made.left_out)


def test_yaml_that_is_none_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("prompts: [p]\ntests: [{vars: {q: who are you?}}]\n")
    with pytest.raises(UserError, match=r"c\.yaml:2 is no YAML"):
        convert(tmp_path / "c.yaml")
