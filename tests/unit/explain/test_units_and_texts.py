"""Prompts cut into parts, and prompts without some of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.errors import UserError
from evalrun.explain.texts import Prompt, Remover, locate, merged, token_counts, torn
from evalrun.explain.units import LEVELS, check_levels, make_units
from evalrun.explanations import Place, Unit

TEXT = "You sort mail.\n\nTeams: billing, delivery. Be quick!\nAnswer:"


def plain(text: str) -> Prompt:
    return Prompt(text, (text,), ("",), (0,), ((0, len(text)),))


def said(text: str, levels: tuple[str, ...] = LEVELS) -> list[tuple[str, str]]:
    units = make_units([text], [""], {}, levels)
    return [(unit.level, plain(text).text_of(unit)) for unit in units]


def test_paragraphs_sentences_and_words() -> None:
    found = said(TEXT)
    assert [text for level, text in found if level == "section"] == [
        "You sort mail.",
        "Teams: billing, delivery. Be quick!\nAnswer:",
    ]
    assert [text for level, text in found if level == "sentence"] == [
        "You sort mail.",
        "Teams: billing, delivery.",
        "Be quick!",
        "Answer:",
    ]
    assert [text for level, text in found if level == "word"][:3] == ["You", "sort", "mail."]


def test_each_unit_lies_in_its_parent() -> None:
    units = make_units([TEXT], [""], {}, LEVELS)
    for at, unit in enumerate(units):
        assert unit.parent < at
        if unit.parent >= 0:
            (own,), (outer,) = unit.places, units[unit.parent].places
            assert outer.start <= own.start < own.end <= outer.end
    assert {unit.level for unit in units if unit.parent == -1} == {"section"}


def test_marked_sections_and_what_stands_between_them() -> None:
    text = "Intro.\nRULES here\nend"
    units = make_units([text], ["user"], {0: [("rules", 7, 18)]}, ["section"])
    assert [(unit.name, plain(text).text_of(unit)) for unit in units] == [
        ("user 1", "Intro."),
        ("rules", "RULES here"),
        ("user 2", "end"),
    ]


def test_an_example_is_its_question_with_its_answer() -> None:
    contents = ["Sort.", "Q1", "A1", "Q2", "A2", "Q3"]
    roles = ["system", "user", "assistant", "user", "assistant", "user"]
    units = make_units(contents, roles, {}, ["section"])
    assert [unit.name for unit in units] == ["system", "example 1", "example 2", "user"]
    assert units[1].places == (Place(1, 0, 2), Place(2, 0, 2))


def test_chinese_is_cut_by_characters() -> None:
    assert [text for level, text in said("你好。再见 ok", ("word",))] == ["你", "好", "。", "再", "见", "ok"]
    assert [text for level, text in said("你好。再见。", ("sentence",))] == ["你好。", "再见。"]


def test_unknown_units_are_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown unit 'words'[\s\S]*Did you mean 'word'"):
        check_levels(["words"])
    with pytest.raises(UserError, match="no units"):
        check_levels([])
    assert check_levels(["word", "section"]) == ("section", "word")


def without(text: str, *gone: str, removal: str = "delete", level: str = "word") -> str:
    units = [u for u in make_units([text], [""], {}, [level]) if plain(text).text_of(u) in gone]
    assert len(units) == len(gone)
    return Remover(plain(text), removal, {}, {}).without(units)  # type: ignore[arg-type]


def test_deleting_leaves_lines_and_blanks_as_they_should_be() -> None:
    assert without("a b c\nd e", "b") == "a c\nd e"
    assert without("a b c\nd e", "c") == "a b\nd e"
    assert without("a b c\nd e", "d") == "a b c\ne"
    assert without("a b c\nd e", "e") == "a b c\nd"
    assert without("a b c\nd e", "a", "b", "c") == "d e"
    assert without("One. Two.\nThree.", "Two.", level="sentence") == "One.\nThree."
    assert without("One. Two.\nThree.", "Three.", level="sentence") == "One. Two.\n"


def test_a_mask_has_as_many_tokens_as_what_it_hides() -> None:
    assert without("a bb c", "bb", removal="mask") == "a . c"
    prompt = plain("a bbcc d")
    units = make_units([prompt.text], [""], {}, ["word"])
    counts = token_counts(units, prompt, [(0, 1), (1, 4), (4, 6), (6, 8)])
    assert list(counts.values()) == [1, 2, 1]
    assert Remover(prompt, "mask", counts, {}).without([units[1]]) == "a . . d"


def test_a_part_whose_border_lies_in_a_token_is_told() -> None:
    prompt = plain("ab cd")
    units = make_units([prompt.text], [""], {}, ["word"])
    assert torn(units, prompt, [(0, 2), (2, 5)]) == []
    assert torn(units, prompt, [(0, 4), (4, 5)]) == units


def test_messages_are_found_in_what_a_template_made_of_them() -> None:
    frame = "<s>system\n{}</s><s>user\n{}</s>assistant\n"
    contents = [" user ", "hello"]
    template = frame.format("evalrunpart0x", "evalrunpart1x")
    for made in (frame.format(*contents), frame.format("user", "hello")):
        prompt = locate(made, template, contents, ["system", "user"])
        (unit,) = [
            u for u in make_units(contents, ["system", "user"], {}, ["word"]) if u.places[0].message == 0
        ]
        ((start, end),) = prompt.spans(unit)
        assert made[start:end] == "user" and start == made.index("\n") + 1 + made.startswith("<s>system\n ")
    with pytest.raises(UserError, match="changes what messages say"):
        locate(frame.format("USER", "hello"), template, contents, ["system", "user"])


def test_marks_are_read_back() -> None:
    from pathlib import Path

    from evalrun.prompts import compile_prompt
    from evalrun.prompts.sections import unmarked
    from evalrun.suite.prompt import PromptSpec

    spec = PromptSpec(
        id="p", text="A {% section s %}{{ q }}{% section t %}!{% endsection %}{% endsection %} B"
    )
    prompt = compile_prompt(spec, Path(), marked=True)
    text, sections = unmarked(prompt.parts[0].render({"q": "why"}))
    assert text == "A why! B"
    assert [(name, text[start:end]) for name, start, end in sections] == [("s", "why!"), ("t", "!")]
    assert compile_prompt(spec, Path()).digest == prompt.digest


@given(st.text(alphabet="ab .\n", max_size=30), st.data())
def test_whatever_is_removed_the_rest_stays_in_its_order(text: str, data: st.DataObject) -> None:
    units = make_units([text], [""], {}, ["word"])
    gone = data.draw(st.lists(st.sampled_from(units), unique=True)) if units else []
    left = Remover(plain(text), "delete", {}, {}).without(gone)
    rest = [plain(text).text_of(unit) for unit in units if unit not in gone]
    assert "".join(left.split()) == "".join(rest)
    assert merged([(3, 4), (0, 2), (1, 3)]) == [(0, 4)]


def test_a_unit_in_two_messages_is_taken_out_of_both() -> None:
    prompt = Prompt("xAyB", ("A", "B"), ("user", "assistant"), (1, 3), ((1, 2), (3, 4)))
    unit = Unit("section", "example 1", (Place(0, 0, 1), Place(1, 0, 1)))
    assert Remover(prompt, "delete", {}, {}).without([unit]) == "xy"
