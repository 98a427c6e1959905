"""Generation parameters that nobody knows are refused where they stand, before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from evalrun.errors import UserError
from evalrun.suite.load import load_suite, parse_suite
from evalrun.suite.overrides import Overrides

SERVED = {"id": "m", "provider": "openai_compatible", "base_url": "http://127.0.0.1:1/v1", "model": "m"}


def suite(tmp_path: Path, *models: dict[str, Any], **more: Any) -> Path:
    data = {
        "name": "s",
        "models": [{**SERVED, **model, "id": f"m{at}"} for at, model in enumerate(models)],
        "prompts": [{"id": "p", "text": "{{ x }}"}],
        "datasets": [{"id": "d", "rows": [{"x": 1}], "target": "x"}],
        "scorers": ["exact_match"],
        **more,
    }
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def problems(path: Path, overrides: Overrides | None = None) -> list[Any]:
    try:
        load_suite(path, overrides)
    except UserError as error:
        return list(error.problems)
    return []


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("temprature", "temperature"),
        ("max_tokns", "max_tokens"),
        ("Temperature", "temperature"),
        ("max_token", "max_tokens"),
        ("topp", "top_p"),
        ("presence_penality", "presence_penalty"),
        ("stops", "stop"),
        ("repetition_penality", "repetition_penalty"),
    ],
)
def test_a_mistyped_parameter_is_named_with_its_line_and_what_was_meant(
    tmp_path: Path, wrong: str, right: str
) -> None:
    path = suite(tmp_path, {"params": {"seed": 1, wrong: 0}})
    [problem] = problems(path)
    line = 1 + [text.strip().startswith(wrong) for text in path.read_text().splitlines()].index(True)
    assert problem.where == f"{path}:{line}" and f"'{wrong}'" in problem.what
    assert f"Did you mean '{right}'?" in problem.remedy


def test_each_of_several_is_named_and_judges_too(tmp_path: Path) -> None:
    judge = {**SERVED, "id": "judge", "params": {"tempereture": 0}}
    found = problems(suite(tmp_path, {"params": {"temprature": 0, "max_tokns": 3}}, judges=[judge]))
    assert len(found) == 3


def test_an_axis_that_is_no_parameter_is_refused(tmp_path: Path) -> None:
    [problem] = problems(suite(tmp_path, {}, {}, sweep={"batch_size": [1, 2]}))
    assert "batch_size" in problem.what and "allow_unknown" in problem.remedy
    assert problems(suite(tmp_path, {}, sweep={"temperature": [0, 1], "top_k": [1, 2]})) == []


def test_what_is_put_there_by_the_command_line_is_looked_at_too(tmp_path: Path) -> None:
    [problem] = problems(suite(tmp_path, {}), Overrides(sets=("models.0.params.temprature=0",)))
    assert "--set" in problem.where


def test_engines_know_other_names_than_apis(tmp_path: Path) -> None:
    here = {"base_url": None, "model": None}

    def entry(**keys: Any) -> dict[str, Any]:
        return {
            key: value for key, value in {**SERVED, **here, **keys, "id": "m"}.items() if value is not None
        }

    def refused(provider: str, name: str, **keys: Any) -> bool:
        path = suite(tmp_path, {}, models=[entry(provider=provider, params={name: 1}, **keys)])
        return bool(problems(path))

    assert refused("openai", "top_k", model="x") and not refused("openai", "reasoning_effort", model="x")
    assert refused("llamacpp", "guided_json") and not refused("llamacpp", "mirostat")
    assert not refused("recorded", "anything", column="x"), "nothing is sent"


def test_who_says_so_sends_what_is_not_known(tmp_path: Path) -> None:
    path = suite(tmp_path, {"params": {"foo_bar": 1}, "allow_unknown": True}, sweep={"batch_size": [1]})
    assert problems(path) == []
    assert problems(suite(tmp_path, {"extra_body": {"foo_bar": 1, "temprature": 0}})) == []
    [problem] = problems(suite(tmp_path, {"allow_unknown": True}, {}, sweep={"batch_size": [1]}))
    assert "m1" in problem.what, "the other model does not"


def test_that_they_are_allowed_changes_no_digest(tmp_path: Path) -> None:
    plain = parse_suite(yaml.safe_load(suite(tmp_path, {}).read_text()))
    allowed = parse_suite(yaml.safe_load(suite(tmp_path, {"allow_unknown": True}).read_text()))
    assert plain.work_digest_payload() == allowed.work_digest_payload()
