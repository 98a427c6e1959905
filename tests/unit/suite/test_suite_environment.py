"""`${NAME}` in a suite."""

from __future__ import annotations

import orjson
import pytest

from evalrun.suite.overrides import Overrides


def with_url(minimal: str, url: str) -> str:
    return minimal.replace('"http://127.0.0.1:1/v1"', url)


def test_variables_are_expanded_in_text(load, minimal) -> None:
    loaded = load(with_url(minimal, '"http://${HOST}:${PORT}/v1"'), env={"HOST": "h", "PORT": "80"})
    assert loaded.suite.models[0].options.base_url == "http://h:80/v1"


def test_an_unset_variable_is_an_error_at_its_line_with_the_nearest_name(problems, minimal) -> None:
    [(line, problem)] = problems(with_url(minimal, '"${MY_URL}"'), env={"MY_URI": "sesame-open"})
    assert line == "3"
    assert "MY_URL is not set" in problem.what
    assert "MY_URI" in problem.what
    assert "sesame-open" not in str(problem)


def test_escaped_references_and_templates_stay(load, minimal) -> None:
    text = minimal.replace('"Q: {{ q }}"', "\"$${HOME} {{ q }} $x ${ } {{ '${' }}\"")
    assert load(text).suite.prompts[1].text == "${HOME} {{ q }} $x ${ } {{ '${' }}"


def test_unquoted_results_may_be_numbers_and_quoted_ones_are_text(load, minimal) -> None:
    text = minimal + "repeats: ${N}\ndescription: '${N}'\n"
    suite = load(text, env={"N": "3"}).suite
    assert suite.repeats == 3
    assert suite.description == "3"


def test_a_secret_is_not_rendered_into_what_is_stored_with_every_sample(load, problems, minimal) -> None:
    env = {"MY_API_TOKEN": "sesame-open", "KEYWORD": "sesame-open", "MY_KEY": "short"}
    text = minimal.replace('"Q: {{ q }}"', '"${MY_API_TOKEN} {{ q }}"')
    [(_, problem)] = problems(text, env=env)
    assert "MY_API_TOKEN would be stored with every sample" in problem.what
    assert "sesame-open" not in str(problem)
    [(_, problem)] = problems(text.replace("MY_API_TOKEN", "PLAIN"), env={"PLAIN": "sk-" + "a1" * 20})
    assert "PLAIN would be stored" in problem.what
    for name in ("KEYWORD", "MY_KEY"):
        load(text.replace("MY_API_TOKEN", name), env=env)
    load(minimal + "description: '${MY_API_TOKEN}'\n", env=env)


def test_default_values_are_refused_rather_than_ignored(problems, minimal) -> None:
    [(_, problem)] = problems(minimal + 'description: "${NAME:-x}"\n', env={"NAME": "y"})
    assert "not supported" in problem.what


def test_every_unset_variable_is_reported_and_causes_no_second_error(problems, minimal) -> None:
    found = problems(minimal + "repeats: ${ONE}\nseed: ${TWO}\n")
    assert [line for line, _ in found] == ["11", "12"]


@pytest.mark.parametrize(
    "addition",
    [
        "repeats: ${SECRET_THING}\n",
        "unparsed: ${SECRET_THING}\n",
        "project: '${SECRET_THING}'\n",
        "errors: {tolerate: '${SECRET_THING}'}\n",
        "gates: ${SECRET_THING}\n",
        "performance: ${SECRET_THING}\n",
        "exclude: [{model: '${SECRET_THING}'}]\n",
        "fairness: {by: ['${SECRET_THING}']}\n",
        "parse: ['${SECRET_THING}']\n",
    ],
)
@pytest.mark.parametrize(
    "value", ["hush hush/hush, quite a long value that goes on and on and on and on", "4@4"]
)
def test_no_message_shows_a_value(problems, minimal, addition: str, value: str) -> None:
    found = problems(minimal + addition, env={"SECRET_THING": value})
    text = "\n".join(str(problem) for _, problem in found)
    assert value[:12] not in text
    assert "${SECRET_THING}" in text


def test_a_number_from_the_environment_is_not_shown_either(problems, minimal) -> None:
    [(_, problem)] = problems(
        minimal + "name2: 1\n".replace("name2: 1", "description: ${PIN}"), env={"PIN": "4711"}
    )
    assert "4711" not in str(problem)
    assert "the value of ${PIN}" in problem.what


def test_variables_of_models_that_are_left_out_need_not_be_set(load, minimal) -> None:
    text = with_url(minimal, '"${UNSET}"')
    assert [model.id for model in load(text, Overrides(models=("b",))).suite.models] == ["b"]


def test_a_set_value_replaces_an_unset_variable(load, minimal) -> None:
    loaded = load(with_url(minimal, '"${UNSET}"'), Overrides(sets=("models.a.base_url=http://h",)))
    assert loaded.suite.models[0].options.base_url == "http://h"


def test_resolved_hides_values_of_secret_variables_and_shows_others(load, minimal) -> None:
    env = {"HOST": "host.example", "API_TOKEN": "tok-12345"}
    suite = load(with_url(minimal, '"http://u:${API_TOKEN}@${HOST}"'), env=env).suite
    stored = orjson.dumps(suite.resolved()).decode()
    assert "tok-12345" not in stored
    assert "http://u:${API_TOKEN}@host.example" in stored
