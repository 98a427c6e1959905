"""Loading a suite from a file: defaults, files, places, and how fast."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evalrun.errors import UserError
from evalrun.suite.load import load_suite, parse_suite

FULL = """\
name: support-triage
seed: 7
models:
  - {id: one, provider: echo, base_url: "http://h", params: {temperature: 0, max_tokens: 48}, timeout_s: 5,
     price: {input_per_million_usd: 0.5, output_per_million_usd: 1}}
prompts:
  - {id: direct, file: ../prompts/direct.j2, system: "Be brief."}
  - id: few_shot
    messages: [{role: system, content: "Answer with one label."}, {role: user, content: "{{ text }}"}]
    few_shot: {count: 4, split: train}
datasets:
  - {id: tickets, path: data/tickets.jsonl, limit: 500, key: ticket_id, target: "{{ label }}",
     sensitive: [dialect], cluster: template, splits: {train: data/train.jsonl}}
  - {id: gsm8k, hub: openai/gsm8k, config: main, revision: main, split: test,
     target: "{{ answer.split('####')[1] }}"}
sweep: {temperature: [0, 0.7]}
repeats: 2
parse: [{pattern: "Label: (\\\\w+)"}, {labels: [yes, no]}]
scorers: [same, {same: {name: other, lower: true}}]
fairness: {by: [dialect]}
performance: {stream: true, warmup: 4, concurrency: 16}
gates: ["same >= 0.75", "performance.ttft_s.p95 <= 1.5"]
errors: {tolerate: 2%}
include: [{model: one}]
exclude: [{prompt: few*, dataset: [gsm8k], params: {temperature: 0.7}}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    suites = tmp_path / "suites"
    (suites / "data").mkdir(parents=True)
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "direct.j2").write_text("{{ text }}")
    (suites / "data" / "tickets.jsonl").write_text("{}\n")
    (suites / "data" / "train.jsonl").write_text("{}\n")
    (suites / "suite.yaml").write_text(FULL)
    return suites


def test_everything_that_a_suite_can_say(folder: Path) -> None:
    loaded = load_suite(folder / "suite.yaml")
    suite = loaded.suite
    assert suite.project == suite.name == "support-triage"
    assert suite.models[0].options.base_url == "http://h"
    assert suite.models[0].price is not None
    assert suite.prompts[0].file == Path("../prompts/direct.j2")
    assert suite.prompts[1].messages is not None
    assert suite.datasets[0].splits == {"train": Path("data/train.jsonl")}
    assert suite.parse[0].options.pattern == r"Label: (\w+)"
    assert suite.parse[1].options.labels == ["yes", "no"]
    assert [scorer.id for scorer in suite.scorers] == ["same", "other"]
    assert suite.errors.tolerate == 0.02
    assert suite.performance.timeout_s == 120
    assert suite.performance.retries == 4
    assert suite.exclude[0].prompt == ["few*"]
    assert suite.fairness is not None
    assert suite.fairness.min_group == 30
    assert loaded.base_dir == folder.resolve()
    assert loaded.text == FULL


def test_places(folder: Path) -> None:
    path = folder / "suite.yaml"
    loaded = load_suite(path)
    assert loaded.locate("gates", 1) == f"{path}:22"
    assert loaded.locate("datasets", 0, "sensitive") == f"{path}:13"
    assert loaded.locate("fairness", "min_group") == f"{path}:20"


def test_a_suite_without_the_optional_parts_has_the_defaults(load, minimal) -> None:
    suite = load(minimal).suite
    assert (suite.seed, suite.repeats, suite.unparsed, suite.errors.tolerate) == (0, 1, "count", None)
    assert (suite.parse, suite.gates, suite.fairness, suite.deterministic) == ([], [], None, False)


def test_a_byte_order_mark_and_windows_line_ends_are_read(load, minimal) -> None:
    assert load("\ufeff" + minimal.replace("\n", "\r\n")).suite.name == "small"


def test_a_missing_suite_names_the_nearest_file(folder: Path) -> None:
    with pytest.raises(UserError, match=r"Did you mean '.*suites/suite.yaml'"):
        load_suite(folder / "suit.yaml")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the suite is empty"),
        (b"# only a comment\n", "the suite is empty"),
        (b"- a\n- b\n", "a suite is a mapping"),
        (b"name: x\nseed: \xff\n", "is not UTF-8"),
    ],
)
def test_files_that_are_no_suite(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_suite(path)
    [problem] = caught.value.problems
    assert what in problem.what
    assert "suite.yaml" in problem.where


def test_bad_bytes_have_a_line(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_bytes(b"name: x\nseed: \xff\n")
    with pytest.raises(UserError, match=r"suite\.yaml:2"):
        load_suite(path)


def test_a_folder_is_not_a_suite(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        load_suite(tmp_path)


def test_missing_files_are_all_named_with_the_nearest(folder: Path) -> None:
    text = (
        FULL.replace("tickets.jsonl", "ticket.jsonl")
        .replace("direct.j2", "nothing-like-it")
        .replace("data/train.jsonl", "data")
    )
    (folder / "suite.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_suite(folder / "suite.yaml")
    prompt, data, split = caught.value.problems
    assert prompt.where.endswith(":7")
    assert "relative paths start at" in prompt.remedy
    assert "Did you mean 'tickets.jsonl'" in data.remedy
    assert "is a folder" in split.what


def test_python_data_is_validated_alike(tmp_path: Path) -> None:
    data = {
        "name": "x",
        "models": [{"id": "a", "provider": "echo", "base_url": "u"}],
        "prompts": [{"id": "p", "file": "none.j2"}],
        "datasets": [{"id": "d", "rows": [{"q": 1}]}],
        "scorers": ["same"],
    }
    assert parse_suite(data).models[0].options.base_url == "u"
    with pytest.raises(UserError, match=r"prompts\.0\.file: there is no file"):
        parse_suite(data, tmp_path)
    with pytest.raises(UserError, match="unknown key 'sed'"):
        parse_suite({**data, "sed": 1})


def test_importing_is_light() -> None:
    heavy = ["numpy", "pandas", "jinja2", "aiohttp", "datasets", "sklearn", "rich", "sqlalchemy", "xllamacpp"]
    code = f"import sys, evalrun.suite.load; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
