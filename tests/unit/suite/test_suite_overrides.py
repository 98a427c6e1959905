"""What --limit, --models, --data and --set do to a suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalrun.suite.overrides import Overrides

HUB = """\
name: hub
models:
  - {id: qwen2.5-7b, provider: echo, base_url: u}
prompts: [{id: p, text: x, few_shot: {count: 2, split: train}}]
datasets:
  - {id: gsm8k, hub: openai/gsm8k, config: main, revision: main, split: test,
     target: "{{ a }}", key: k, limit: 9}
parse: [{pattern: x}, trim]
scorers: [same]
"""


def test_limit_replaces_every_limit(load, minimal) -> None:
    suite = load(HUB, Overrides(limit=5)).suite
    assert suite.datasets[0].limit == 5
    assert load(minimal, Overrides(limit=5)).suite.datasets[0].limit == 5


def test_selection_keeps_declared_order(load, minimal) -> None:
    suite = load(minimal, Overrides(models=("b", "a"), prompts=("q",), datasets=("d",))).suite
    assert [model.id for model in suite.models] == ["a", "b"]
    assert [prompt.id for prompt in suite.prompts] == ["q"]


def test_unknown_ids_name_the_option_and_the_nearest_id(problems) -> None:
    found = problems(HUB, Overrides(models=("qwen2.5-7B",), datasets=("gsm9k", "gsm8k")))
    assert [(where, problem.what) for where, problem in found] == [
        ("--models qwen2.5-7B", "the suite has no model 'qwen2.5-7B'"),
        ("--datasets gsm9k,gsm8k", "the suite has no dataset 'gsm9k'"),
    ]
    assert all("Did you mean" in problem.remedy for _, problem in found)


def test_data_points_at_a_file_of_the_current_folder(load, tmp_path, monkeypatch) -> None:
    here = tmp_path / "elsewhere"
    here.mkdir()
    (here / "test.jsonl").write_text("{}\n")
    monkeypatch.chdir(here)
    dataset = load(HUB, Overrides(data={"gsm8k": Path("test.jsonl")})).suite.datasets[0]
    assert dataset.path == here / "test.jsonl"
    assert (dataset.hub, dataset.config, dataset.revision, dataset.split) == (None, None, None, None)
    assert (dataset.target, dataset.key, dataset.limit) == ("{{ a }}", "k", 9)


def test_data_replaces_inline_rows_and_a_format_of_another_kind(load, minimal, tmp_path) -> None:
    (tmp_path / "x.csv").write_text("q\n1\n")
    (tmp_path / "old.jsonl").write_text("{}\n")
    at = Overrides(data={"d": tmp_path / "x.csv"})
    assert load(minimal, at).suite.datasets[0].rows is None
    text = minimal.replace('rows: [{q: "1+1", a: "2"}]', "path: old.jsonl, format: jsonl")
    assert load(text, at).suite.datasets[0].format is None


def test_data_errors_name_the_option(problems, tmp_path) -> None:
    path = tmp_path / "none.jsonl"
    [(where, problem)] = problems(HUB, Overrides(data={"gsm8k": path}))
    assert where == f"--data gsm8k={path}"
    assert "no file" in problem.what
    [(where, problem)] = problems(HUB, Overrides(data={"gsm9k": path}))
    assert "Did you mean 'gsm8k'?" in problem.remedy


@pytest.mark.parametrize(
    ("assignment", "read", "value"),
    [
        ("seed=3", lambda s: s.seed, 3),
        ("models.0.params.temperature=0.7", lambda s: s.models[0].params, {"temperature": 0.7}),
        ("models.qwen2.5-7b.params.top_p=1", lambda s: s.models[0].params, {"top_p": 1}),
        ("models.qwen2.5-7b.level=4", lambda s: s.models[0].options.level, 4),
        ("performance.stream=true", lambda s: s.performance.stream, True),
        ("prompts.p.few_shot.count=0", lambda s: s.prompts[0].few_shot.count, 0),
        ("datasets.gsm8k.limit=null", lambda s: s.datasets[0].limit, None),
        ("datasets.gsm8k.limit=", lambda s: s.datasets[0].limit, None),
        ("sweep.temperature=[0, 1]", lambda s: s.sweep, {"temperature": [0, 1]}),
        ("scorers.same.lower=true", lambda s: s.scorers[0].options.lower, True),
        ("scorers.same={lower: true}", lambda s: s.scorers[0].options.lower, True),
        ("parse.pattern=y=z", lambda s: s.parse[0].options.pattern, "y=z"),
        ("parse.0.pattern={pattern: w, group: 0}", lambda s: s.parse[0].options.group, 0),
        ("parse.0=trim", lambda s: s.parse[0].name, "trim"),
        ("parse=[{labels: [a, b]}]", lambda s: s.parse[0].options.labels, ["a", "b"]),
        ("datasets.gsm8k.sensitive=[x]", lambda s: s.datasets[0].sensitive, ["x"]),
        ("description='1'", lambda s: s.description, "1"),
    ],
)
def test_set(load, assignment, read, value) -> None:
    assert read(load(HUB, Overrides(sets=(assignment,))).suite) == value


def test_later_sets_win_and_limit_wins_over_set(load) -> None:
    sets = ("seed=1", "seed=2", "datasets.gsm8k.limit=3")
    suite = load(HUB, Overrides(limit=4, sets=sets)).suite
    assert (suite.seed, suite.datasets[0].limit) == (2, 4)


@pytest.mark.parametrize(
    ("assignment", "where", "part"),
    [
        ("modles.0.params.x=1", "--set modles.0.params.x", "Did you mean 'models'?"),
        ("models.qwen2.5-7.params.x=1", "--set models.qwen2.5-7.params.x", "Did you mean 'qwen2.5-7b'?"),
        ("models.3.params.x=1", "--set models.3.params.x", "It has 1, counted from 0."),
        ("models.0.parms.x=1", "--set models.0.parms.x", "Did you mean 'params'?"),
        ("name.x=1", "--set name.x", "nothing below it"),
        ("performance.warmup=-1", "--set performance.warmup", "at least 0"),
        ("seed={a", "--set seed", "not valid YAML"),
        ("seed", "--set", "path=value"),
        ("a..b=1", "--set", "path=value"),
        ("models.0.base_url={x: 1, x: 2}", "--set models.0.base_url", "appears twice"),
    ],
)
def test_wrong_sets_name_the_option(problems, assignment, where, part) -> None:
    [(found, problem)] = problems(HUB, Overrides(sets=(assignment,)))
    assert found == where
    assert part in str(problem)


def test_an_entry_of_a_list_of_texts_is_replaced_as_a_whole(load) -> None:
    text = HUB.replace("{pattern: x}", "{labels: [a, b]}")
    suite = load(text, Overrides(sets=("parse.labels=[a, b, c]", "parse.labels.b=z"))).suite
    assert suite.parse[0].args == {"labels": ["a", "z", "c"]}


def test_messages_about_options_show_no_value_of_a_variable(problems, minimal) -> None:
    text = minimal.replace("id: b", 'id: "${NAME_OF_MODEL}"')
    [(_, problem)] = problems(text, Overrides(models=("zzz",)), env={"NAME_OF_MODEL": "hush-hush"})
    assert "hush" not in str(problem)
    assert "${NAME_OF_MODEL}" in problem.remedy


def test_problems_of_options_come_before_those_of_lines(problems) -> None:
    found = problems(HUB + "seeds: 1\n", Overrides(sets=("repeats=0",)))
    assert [where for where, _ in found] == ["--set repeats", "10"]


def test_lines_stay_right_when_entries_are_left_out(problems, minimal) -> None:
    text = minimal.replace('"http://127.0.0.1:2/v1"}', '"http://127.0.0.1:2/v1", lvl: 1}')
    [(line, _)] = problems(text, Overrides(models=("b",)))
    assert line == "4"
