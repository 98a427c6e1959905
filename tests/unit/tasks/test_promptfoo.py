"""Configurations of promptfoo as suites: what is taken over is exact, what is not is listed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from evalrun.errors import UserError
from evalrun.scoring.base import ScoringInput
from evalrun.suite.components import ScorerSpec
from evalrun.suite.load import load_suite
from evalrun.tasks.promptfoo import convert, written
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
