"""Changes of texts: what they change, what they leave, and that only the seed decides."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.datasets.versions import gendered, letter_case, typos, whitespace, word_replacer


@settings(deadline=None)
@given(st.text(max_size=200), st.integers(0, 1000))
def test_whitespace_changes_nothing_but_white_space(text: str, seed: int) -> None:
    changed = whitespace(text, 0.3, random.Random(seed))
    assert changed.split() == text.split()
    assert changed != text


@settings(deadline=None)
@given(st.from_regex(r"([A-Za-z]{4,9} ){1,10}[0-9]{1,4}\.", fullmatch=True), st.integers(0, 1000))
def test_typos_change_a_letter_of_some_words_and_never_the_first(text: str, seed: int) -> None:
    changed = typos(text, 0.2, random.Random(seed))
    assert changed == typos(text, 0.2, random.Random(seed))
    before, after = text.split(), changed.split()
    assert len(before) == len(after)
    assert before[-1] == after[-1]
    for one, other in zip(before, after, strict=True):
        assert one[0] == other[0]
        assert abs(len(one) - len(other)) <= 1
    assert text != changed or all(len(set(word.lower())) == 1 for word in before[:-1])


def test_the_rate_is_the_share_of_the_words() -> None:
    text = " ".join(["sample"] * 2000)
    changed = typos(text, 0.1, random.Random(1)).split()
    assert 150 <= sum(word != "sample" for word in changed) <= 250


def test_texts_without_long_words_stay() -> None:
    assert typos("a bc 12", 0.5, random.Random(0)) == "a bc 12"


@pytest.mark.parametrize(
    ("how", "expected"), [("upper", "DON'T GO"), ("lower", "don't go"), ("title", "Don't Go")]
)
def test_letter_case(how: str, expected: str) -> None:
    assert letter_case("Don't go", how, random.Random(0)) == expected
    assert letter_case("Don't go", "random", random.Random(0)).lower() == "don't go"


def test_whole_words_are_replaced_at_once_and_keep_their_case() -> None:
    replace = word_replacer({"cat": "dog", "dog": "cat", "going to": "finna"})
    assert replace("Cat, dog; CAT catalog") == "Dog, cat; DOG catalog"
    assert replace("I'm going to go") == "I'm finna go"
    assert word_replacer({"Emily": "Mei", "Mei": "Mei"})("Emily's and Mei's") == "Mei's and Mei's"


@pytest.mark.parametrize(
    ("text", "how", "expected"),
    [
        ("He gave her his book.", "swap", "She gave him her book."),
        ("Her father saw her yesterday.", "male", "His father saw him yesterday."),
        ("The policewoman asked him for his.", "female", "The policewoman asked her for hers."),
        ("MEN and Mr Smith", "swap", "WOMEN and Ms Smith"),
        ("Theremin and history", "swap", "Theremin and history"),
    ],
)
def test_gendered_words(text: str, how: str, expected: str) -> None:
    assert gendered(text, how) == expected
