"""What a person is told: every problem at once, by line, with what was expected and the nearest key."""

from __future__ import annotations

import pytest

EVERYTHING_WRONG = """\
name: my suite
sed: 7
seed: "7"
models:
  - {id: a, provider: ecko, base_url: u}
  - {id: b, provider: echo, basurl: u, concurrency: 0}
  - {id: b, provider: echo, base_url: u, mode: fasst, params: [1]}
  - {provider: echo, base_url: 5}
  - just-text
prompts:
  - {id: p, text: hi, file: none.j2}
  - {id: q}
  - id: r
    messages: [{role: user, contents: "x"}]
    few_shot: {split: train}
datasets:
  - {id: d, rows: [{a: 1}], split: test}
  - {id: e, rows: [], sensitive: dialect}
sweep: {temperature: [], top_p: [1, 1.0]}
parse: [patern, {pattern: 5}, {labels: {label: [a]}}, {pattern: a, group: 1}, {trim: 4}]
scorers: [{python: "no_such_module_here:f"}, 5]
fairness: {by: [dialekt], min_group: x}
performance: {streem: yes, retries: 1.5, warmup: true}
errors: {tolerate: 5%5}
unparsed: excluded
tags: {build: 12}
exclude: [{model: smol*}, {}]
gates: "exact_match > 0.5"
"""

EXPECTED = [
    ("1", "the text 'my suite' cannot be used as a name", "letters, digits"),
    ("2", "unknown key 'sed'", "Did you mean 'seed'?"),
    ("3", "seed: expected a whole number, found the text '7'", ""),
    ("5", "unknown provider 'ecko'", "Did you mean 'echo'?"),
    ("6", "unknown key 'basurl'", "Did you mean 'base_url', which is missing?"),
    ("6", "concurrency: must be at least 1, found the number 0", ""),
    ("7", "mode: expected 'fast' or 'slow', found the text 'fasst'", "Did you mean 'fast'?"),
    ("7", "params: expected a mapping, found a list", ""),
    ("7", "the id 'b' is used twice among the models", "choose another"),
    ("8", "base_url: expected text, found the number 5", "quotes"),
    ("8", "'id' is missing", "id: Name of the model"),
    ("9", "models[4]: expected a mapping, found the text 'just-text'", ""),
    ("11", "file and text exclude each other", "exactly one of file, text or messages"),
    ("11", "there is no file 'none.j2'", "relative paths start at"),
    ("12", "one of file, text or messages is missing", ""),
    ("14", "unknown key 'contents'", "Did you mean 'content', which is missing?"),
    ("15", "expected count, first or ids", "few_shot: {count: 4, split: train}"),
    ("17", "'split' belongs to a dataset from the Hub", ""),
    ("18", "rows: needs at least 1 entry", ""),
    ("18", "sensitive: expected a list, found the text 'dialect'", "list"),
    ("19", "temperature: needs at least 1 entry", ""),
    ("19", "this value of 'top_p' appears twice", ""),
    ("20", "unknown parser 'patern'", "Did you mean 'pattern'?"),
    ("20", "pattern: expected text, found the number 5", ""),
    ("20", "unknown key 'label'", "Did you mean 'labels', which is missing?"),
    (
        "20",
        "a parser is one name with its options, found a mapping with 2 keys",
        "{pattern: {option: value}}",
    ),
    ("20", "parser 'trim' takes a mapping of options, found the number 4", "write trim"),
    ("21", "cannot import 'no_such_module_here:f'", "Install the package"),
    ("21", "expected the name of a scorer, found the number 5", ""),
    ("22", "min_group: expected a whole number, found the text 'x'", ""),
    ("22", "no dataset lists 'dialekt' as sensitive", "Add it"),
    ("23", "retries: expected a whole number, found the number 1.5", ""),
    ("23", "unknown key 'streem'", "Did you mean 'stream'?"),
    ("23", "warmup: expected a whole number, found true", ""),
    ("24", "expected a fraction or a percentage, found the text '5%5'", ""),
    ("25", "unparsed: expected 'count' or 'exclude', found the text 'excluded'", "Did you mean 'exclude'?"),
    ("26", "build: expected text, found the number 12", "quotes"),
    ("27", "an empty filter matches every cell", ""),
    ("27", "no model matches 'smol*'", ""),
    ("28", "gates: expected a list, found the text 'exact_match > 0.5'", "list"),
]


def test_every_problem_at_once_in_order_of_lines(problems) -> None:
    found = [(line, problem.what, problem.remedy) for line, problem in problems(EVERYTHING_WRONG)]
    assert [line for line, _, _ in found] == sorted((line for line, _, _ in found), key=int)
    for line, what, remedy in EXPECTED:
        assert any(at == line and what in w and remedy in r for at, w, r in found), (line, what, remedy)
    assert len(found) == len(EXPECTED)


@pytest.mark.parametrize("key", ["models", "prompts", "datasets", "scorers"])
def test_a_mistyped_section_is_one_problem(problems, minimal, key) -> None:
    [(_, problem)] = problems(minimal.replace(f"{key}:", f"{key[:-1]}z:"))
    assert problem.what == f"unknown key '{key[:-1]}z'"
    assert problem.remedy == f"Did you mean '{key}', which is missing?"


def test_the_line_is_that_of_the_key_or_value_in_block_style(problems, minimal) -> None:
    text = minimal.replace(
        "scorers: [same]", "scorers:\n  - same:\n      lower: true\n      uper: true\nseed:\n  7.5"
    )
    assert [(line, problem.what) for line, problem in problems(text)] == [
        ("13", "unknown key 'uper'"),
        ("15", "seed: expected a whole number, found the number 7.5"),
    ]


def test_a_generation_parameter_in_the_wrong_place_is_explained(problems, minimal) -> None:
    [(line, problem)] = problems(minimal.replace("params: {temperature: 0}", "temperature: 0"))
    assert line == "3"
    assert "params: {temperature: ...}" in problem.remedy


def test_an_option_of_several_types_gives_one_problem(problems, minimal) -> None:
    [(_, problem)] = problems(minimal.replace("params: {temperature: 0}", "stop: 5"))
    assert problem.what == "stop: expected text or a list, found the number 5"
    [(_, problem)] = problems(minimal.replace("params: {temperature: 0}", "stop: [a, 5]"))
    assert problem.what == "stop[1]: expected text, found the number 5"


def test_a_provider_whose_package_is_missing_is_named(problems, minimal) -> None:
    text = minimal.replace(
        '{id: b, provider: echo, base_url: "http://127.0.0.1:2/v1"}',
        "{id: b, provider: missing_package, x: 1}",
    )
    [(line, problem)] = problems(text)
    assert line == "4"
    assert "no_such_package_anywhere" in problem.what


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("scorers: [same]", "scorers: []", "scorers: needs at least 1 entry"),
        ("scorers: [same]", "", "'scorers' is missing"),
        ("scorers: [same]", "scorers: [same, same]", "two scorers are called 'same'"),
        ("id: b", "id: A", "differ only in case"),
        ("id: b", "id: ../b", "cannot be used as a name"),
        ("id: b", "id: -b", "cannot be used as a name"),
        ("id: b", f"id: {'b' * 101}", "cannot be used as a name"),
        ("id: b", "id: bö", "cannot be used as a name"),
        ('text: "{{ q }}"', "messages: [{role: user, content: x}], system: y", "system and messages exclude"),
        (
            'text: "{{ q }}"',
            "text: x, few_shot: {count: 1, split: a, path: suite.yaml}",
            "split and path exclude",
        ),
        ("target: a", "target: a, format: csv", "'format' belongs to a dataset with a path"),
        ("target: a", "target: a, hub: x/y", "hub and rows exclude each other"),
        ("target: a", "target: a, limit: 0", "limit: must be at least 1"),
        ("name: small", "name: small\nrepeats: 0", "repeats: must be at least 1"),
        ("name: small", "name: small\nseed: -1", "seed: must be at least 0"),
        ("name: small", "name: small\nerrors: {tolerate: 200%}", "tolerate: must be at most 1"),
        ("name: small", "name: small\nexclude: [{params: {temprature: 0}}]", "has a parameter 'temprature'"),
        ('text: "{{ q }}"', f"file: {'long ' * 100}", "there is no file 'long long"),
        ("name: small", "name: small\nexclude: [{model: '*'}]", "include and exclude leave no run"),
    ],
)
def test_one_thing_wrong_gives_one_problem(problems, minimal, old, new, what) -> None:
    [(_, problem)] = problems(minimal.replace(old, new))
    assert what in problem.what


def test_the_place_of_an_empty_matrix_is_the_filter(problems, minimal) -> None:
    [(line, _)] = problems(minimal + "exclude:\n  - {model: '*'}\n")
    assert line == "11"
