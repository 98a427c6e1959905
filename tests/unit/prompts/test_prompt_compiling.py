"""What a prompt may read, which variables it uses, and what is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalrun.datasets import Item
from evalrun.errors import UserError
from evalrun.prompts import Prompt, compile_prompt
from evalrun.suite.prompt import PromptSpec


def compiled(folder: Path, api: Any = "chat", **settings: Any) -> Prompt:
    return compile_prompt(PromptSpec(id="p", **settings), folder, api)


def problem(folder: Path, api: Any = "chat", **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        compiled(folder, api, **settings)
    return str(caught.value)


def text_of(prompt: Prompt, **row: Any) -> str:
    return str(prompt.bind(None, 1).render(Item("s", 0, row)).messages[-1].content)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite's folder, with prompts in a folder beside it."""
    (tmp_path / "suites").mkdir()
    (tmp_path / "prompts" / "parts").mkdir(parents=True)
    (tmp_path / "prompts" / "main.j2").write_text("{% include 'parts/rules.j2' %}Q: {{ question }}\n")
    (tmp_path / "prompts" / "parts" / "rules.j2").write_text("Be brief, {{ name }}.\n\n")
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "suites"


def test_includes_are_followed(suite: Path) -> None:
    prompt = compiled(suite, file="../prompts/main.j2")
    assert prompt.variables == {"question", "name"}
    assert text_of(prompt, question="why?", name="Ada") == "Be brief, Ada.\nQ: why?"
    assert sorted(prompt.source) == ["main.j2", "parts/rules.j2"]


def test_files_are_read_once(suite: Path) -> None:
    prompt = compiled(suite, file="../prompts/main.j2")
    (suite.parent / "prompts" / "parts" / "rules.j2").write_text("changed")
    assert "Be brief" in text_of(prompt, question="x", name="y")


def test_the_digest_is_of_texts_and_not_of_paths(suite: Path, tmp_path: Path) -> None:
    before = compiled(suite, file="../prompts/main.j2").digest
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "prompts").rename(tmp_path / "elsewhere" / "prompts")
    moved = compiled(suite, file="../elsewhere/prompts/main.j2")
    assert moved.digest == before
    included = tmp_path / "elsewhere" / "prompts" / "parts" / "rules.j2"
    included.write_text(included.read_text().replace("brief", "short"))
    assert compiled(suite, file="../elsewhere/prompts/main.j2").digest != before
    assert compiled(suite, text="{{ a }}").digest != compiled(suite, text="{{ a }}", system="s").digest
    shots = {"count": 1, "split": "train"}
    assert compiled(suite, text="{{ a }}").digest != compiled(suite, text="{{ a }}", few_shot=shots).digest


@pytest.mark.parametrize(
    "reference",
    ["{% include '../secret.txt' %}", "{% include 'parts/../../secret.txt' %}", "{% include 'link.txt' %}",
     "{% import '../secret.txt' as x %}", "{% extends '../secret.txt' %}", "{% include 'out/secret.txt' %}",
     "{% from '../secret.txt' import x %}", "{% include ['../secret.txt'] %}"],
)  # fmt: skip
def test_nothing_outside_the_prompts_folder_is_read(suite: Path, reference: str) -> None:
    prompts = suite.parent / "prompts"
    (prompts / "link.txt").symlink_to(suite.parent / "secret.txt")
    (prompts / "out").symlink_to(suite.parent)
    (prompts / "bad.j2").write_text("one\n" + reference)
    message = problem(suite, file="../prompts/bad.j2")
    assert "outside the prompt's folder" in message
    assert "prompts/bad.j2:2" in message


def test_absolute_paths_and_links_are_refused(suite: Path) -> None:
    secret = suite.parent / "secret.txt"
    assert "outside" in problem(suite, text=f"{{% include '{secret}' %}}")
    assert "absolute path outside" in problem(suite, file=secret)
    (suite / "link.j2").symlink_to(secret)
    assert "outside the prompt's folder" in problem(suite, file="link.j2")


def test_missing_and_unreadable_files(suite: Path) -> None:
    assert "Did you mean 'main.j2'?" in problem(suite, file="../prompts/mian.j2")
    (suite / "latin.j2").write_bytes(b"a\nb\xe9")
    assert "latin.j2:2: the prompt file is not UTF-8" in problem(suite, file="latin.j2")
    assert "must be a fixed text" in problem(suite, text="{% include question %}")
    (suite / "big.j2").write_bytes(b"x" * 4_000_001)
    assert "larger than" in problem(suite, file="big.j2")


def test_optional_includes_may_be_missing(suite: Path) -> None:
    (suite / "b.j2").write_text("B")
    assert text_of(compiled(suite, text="{% include 'a.j2' ignore missing %}x")) == "x"
    assert text_of(compiled(suite, text="{% include ['a.j2', 'b.j2'] %}x")) == "Bx"


def test_macros_and_inheritance(suite: Path) -> None:
    (suite / "macros.j2").write_text("{% macro ask(text) %}Q: {{ text }}{% endmacro %}")
    (suite / "base.j2").write_text("{{ greeting }} {% block body %}{% endblock %}")
    imported = compiled(suite, text="{% from 'macros.j2' import ask %}{{ ask(question) }}")
    assert imported.variables == {"question"}
    assert text_of(imported, question="x") == "Q: x"
    child = "{% extends 'base.j2' %}{% set greeting = 'Hi' %}{% block body %}{{ question }}{% endblock %}"
    prompt = compiled(suite, text=child)
    assert prompt.check(["question"]) == []
    assert text_of(prompt, question="x") == "Hi x"
    (suite / "reads.j2").write_text("{% macro ask() %}Q: {{ question }}{% endmacro %}")
    reading = compiled(suite, text="{% import 'reads.j2' as m %}{{ m.ask() }}")
    assert reading.variables == {"question"}
    assert text_of(reading, question="x") == "Q: x"


def test_imported_macros_are_bounded_too(suite: Path) -> None:
    macro = "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}"
    (suite / "m.j2").write_text(macro)
    for head in ("{% import 'm.j2' as m %}", "{% import 'm.j2' as m without context %}"):
        with pytest.raises(UserError, match="too many loop rounds"):
            text_of(compiled(suite, text=head + "{{ m.f(40) }}"))


def test_all_syntax_errors_are_reported_with_their_lines(suite: Path) -> None:
    (suite / "bad.j2").write_text("fine\n{% if x %}\n")
    assert "bad.j2:2: the template cannot be read" in problem(suite, file="bad.j2")
    messages = [{"role": "system", "content": "{{ a"}, {"role": "user", "content": "x\n{{ b }"}]
    message = problem(suite, messages=messages)
    assert "messages.0, line 1" in message
    assert "messages.1, line 2" in message
    assert "nested too deeply" in problem(suite, text="{{ " + "(" * 5000 + " }}")
    assert "No filter named 'nosuch'" in problem(suite, text="{{ a|nosuch }}")


def test_unknown_variables_are_found_with_place_and_nearest_column(suite: Path) -> None:
    prompt = compiled(suite, file="../prompts/main.j2")
    first, second = prompt.check(["questions", "names"])
    assert {first.remedy, second.remedy} == {"Did you mean 'questions'?", "Did you mean 'names'?"}
    assert {first.where.split("prompts/")[1], second.where.split("prompts/")[1]} == {
        "main.j2:1",
        "parts/rules.j2:1",
    }
    inline = compiled(suite, text="a\n{{ row.txt }} {{ row['lable'] }}")
    found = inline.check(["text", "label"], "suite.yaml:9")
    assert [(item.where, item.remedy) for item in found] == [
        ("suite.yaml:9, prompt p, text, line 2", "Did you mean 'text'?"),
        ("suite.yaml:9, prompt p, text, line 2", "Did you mean 'label'?"),
    ]


def test_names_that_the_template_sets_itself_are_no_columns(suite: Path) -> None:
    text = (
        "{% set n = 2 %}{% for o in options %}{{ loop.index }} {{ o }} {{ n }}{% endfor %}{{ range(2)|list }}"
    )
    assert compiled(suite, text=text).check(["options"]) == []
    (suite / "inner.j2").write_text("{{ o }}")
    looped = compiled(suite, text="{% for o in options %}{% include 'inner.j2' %}{% endfor %}")
    assert looped.check(["options"]) == []
    assert text_of(looped, options=["a", "b"]) == "ab"


def test_a_variable_that_is_asked_for_may_be_absent(suite: Path) -> None:
    prompt = compiled(suite, text="{% if hint is defined %}{{ hint }} {% endif %}{{ q }}")
    assert prompt.check(["q"]) == []
    assert (text_of(prompt, q="x"), text_of(prompt, q="x", hint="y")) == ("x", "y x")
    partial = compiled(suite, text="{{ hint }}").check(["q"], "s", {"hint": "a.jsonl:7"})
    assert "some rows lack (first: a.jsonl:7)" in partial[0].what


def test_the_target_is_no_variable(suite: Path) -> None:
    prompt = compiled(suite, text="{{ q }} {{ target }}")
    assert ["'target'" in item.what for item in prompt.check(["q", "label"])] == [True]
    with pytest.raises(UserError, match="'target' is undefined"):
        prompt.bind(None, 1).render(Item("s", 0, {"q": "x"}, target="leak"))
    for text in ("{{ row.target }}", "{{ row['target'] }}"):
        assert compiled(suite, text=text).check(["q"])


def test_render_errors_name_prompt_sample_and_line(suite: Path) -> None:
    prompt = compiled(suite, text="one\n{{ n + 'x' }}")
    with pytest.raises(UserError) as caught:
        prompt.bind(None, 1).render(Item("s7", 0, {"n": 1}))
    assert str(caught.value).startswith(
        "prompt p, text, line 2: prompt 'p' cannot be rendered for sample 's7'"
    )
    (suite / "part.j2").write_text("a\n\n{{ n.nothing }}")
    with pytest.raises(UserError, match=r"part\.j2:3: .*no attribute 'nothing'"):
        compiled(suite, text="{% include 'part.j2' %}").bind(None, 1).render(Item("s", 0, {"n": 1}))


@pytest.mark.parametrize(
    "text",
    [
        "{{ q.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ q|attr('__class__') }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ self.__init__ }}",
        "{{ '{0.__class__}'.format(q) }}",
        "{{ xs.append(1) }}",
        "{{ range(10**9)|list }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ 'a'.ljust(10**9) }}",
        "{{ 'a'|center(10**9) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ 9 ** 9 ** 9 ** 9 ** 9 }}",
        "{% set n = namespace(x='ab') %}{% for i in range(90) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='ab') %}{% for i in range(90) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(1) }}",
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    ],
)
def test_escapes_and_runaway_templates_are_refused(suite: Path, text: str) -> None:
    with pytest.raises(UserError):
        compiled(suite, text=text).bind(None, 1).render(Item("s", 0, {"q": "x", "xs": [1]}))


@pytest.mark.parametrize("text", ["{{ [1, 2]|random }}", "{{ lipsum() }}"])
def test_nothing_random_is_to_be_had(suite: Path, text: str) -> None:
    with pytest.raises(UserError):
        compiled(suite, text=text).bind(None, 1).render(Item("s", 0, {}))


def test_text_is_not_escaped(suite: Path) -> None:
    prompt = compiled(suite, text="{{ q }} {{ {'b': q, 'a': 'ü'}|tojson }} {{ q|tojson ~ '<' }}")
    assert text_of(prompt, q="<&>") == '<&> {"a":"ü","b":"<&>"} "<&>"<'


def test_text_and_messages_become_what_the_endpoint_takes(suite: Path) -> None:
    item = Item("s", 0, {"q": "x"})
    chat = compiled(suite, text="Q {{ q }}\n", system="S {{ q }}").bind(None, 1).render(item)
    assert [(m.role, m.content) for m in chat.messages] == [("system", "S x"), ("user", "Q x")]
    assert chat.prompt is None
    raw = compiled(suite, "completions", text="Q {{ q }}", system="S").bind(None, 1).render(item)
    assert (raw.messages, raw.prompt) == ((), "S\n\nQ x")
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "{{ q }}"}]
    assert "completions endpoint" in problem(suite, "completions", messages=messages)
    both = compiled(suite, messages=messages).bind(None, 1).render(item)
    assert [(m.role, m.content) for m in both.messages] == [("user", "a"), ("assistant", "x")]


def test_methods_of_text_work_inside_loops_and_blocks(suite: Path) -> None:
    text = "{% for i in [1, 2] %}{{ q.split('-')[0] }}{{ q.replace('-', ' ') }}{% endfor %}"
    rendered = compiled(suite, text=text).bind(None, 1).render(Item("s", 0, {"q": "a-b"}))
    assert rendered.messages[0].content == "aa baa b"


WAYS_OUT = [
    "{{ a.__class__ }}",
    "{{ a|attr('__class__') }}",
    "{{ a['__class__'] }}",
    "{{ '{0.__class__}'.format(a) }}",
    "{{ '{0[__class__]}'.format(a) }}",
    "{% if a == 'never' %}{{ a.__init__.__globals__ }}{% endif %}",
    "{{ [a]|map(attribute='__class__')|list }}",
    "{{ cycler.__init__ }}",
    "{{ a.__class__ is defined }}",
]


@pytest.mark.parametrize("template", WAYS_OUT)
def test_a_way_out_of_the_sandbox_is_found_wherever_it_stands(suite: Path, template: str) -> None:
    message = problem(suite, text="one\n" + template)
    assert "leads out of the sandbox" in message and "line 2" in message
    (suite.parent / "prompts" / "parts" / "out.j2").write_text(template)
    (suite.parent / "prompts" / "holds.j2").write_text("{% include 'parts/out.j2' %}")
    assert "prompts/parts/out.j2:1" in problem(suite, file="../prompts/holds.j2")


def test_columns_with_underscores_and_texts_about_python_are_no_way_out(suite: Path) -> None:
    row = {"row": {"__key__": 1, "_id": 2}, "__key__": 3}
    text = "{{ row.__key__ }} {{ row['__key__'] }} {{ row._id }} {{ __key__ }} {{ 'call __init__' }} __init__"
    assert text_of(compiled(suite, text=text), **row) == "1 1 2 3 call __init__ __init__"


def outside(folder: Path, file: str, **settings: Any) -> bool:
    try:
        compiled(folder, file=file, **settings)
    except UserError as error:
        assert "lies outside the suite's project" in str(error) and "allow_outside" in str(error)
        return True
    return False


@pytest.mark.parametrize("mark", [".git", ".hg", "pyproject.toml"])
def test_a_prompt_file_outside_the_project_is_refused(tmp_path: Path, mark: str, monkeypatch: Any) -> None:
    project = tmp_path / "project"
    suite = project / "deep" / "suites"
    suite.mkdir(parents=True)
    (tmp_path / "theirs.j2").write_text("{{ a }}")
    (project / "ours.j2").write_text("{{ a }}")
    (suite / "link.j2").symlink_to(tmp_path / "theirs.j2")
    monkeypatch.chdir(suite)
    assert outside(suite, "../../ours.j2"), "nothing says how far the project reaches"
    (project / mark).mkdir() if mark != "pyproject.toml" else (project / mark).write_text("")
    assert not outside(suite, "../../ours.j2")
    for file in ("../../../theirs.j2", "link.j2"):
        assert outside(suite, file)
    assert not outside(suite, "../../../theirs.j2", allow_outside=True)


def test_a_project_without_a_mark_is_where_one_works_or_what_stands_beside_suites(
    suite: Path, monkeypatch: Any, tmp_path_factory: Any
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert not outside(suite, "../prompts/main.j2")
    assert outside(suite.parent / "prompts", "../secret.txt")
    monkeypatch.chdir(suite.parent)
    assert not outside(suite.parent / "prompts", "../secret.txt")
