"""The quickstart's rows: every message in two versions, as many rows for each product and group."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from evalrun.suite.load import load_suite

SUITE = Path(__file__).parents[3] / "suites" / "quickstart.yaml"
PRODUCTS = ["kettle", "lamp", "chair", "backpack"]
GROUPS = ["standard", "second_language"]

Row = dict[str, str]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    text = (SUITE.parent / "data" / "shop_messages.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def named(text: str) -> set[str]:
    """The products that a message names."""
    return set(re.findall(r"\b(kettle|lamp|chair|backpack)\b", text.lower()))


def test_each_product_has_as_many_rows_in_each_group(rows: list[Row]) -> None:
    counts = Counter((row["product"], row["english"]) for row in rows)
    assert counts == {(product, group): 12 for product in PRODUCTS for group in GROUPS}


def test_every_message_has_both_versions_with_one_answer(rows: list[Row]) -> None:
    by_template: dict[str, list[Row]] = {}
    for row in rows:
        by_template.setdefault(row["template"], []).append(row)
    assert len(by_template) == 48
    for versions in by_template.values():
        assert sorted(row["english"] for row in versions) == sorted(GROUPS)
        assert len({row["product"] for row in versions}) == 1
        assert len({row["message"] for row in versions}) == 2


def test_both_versions_name_the_same_products(rows: list[Row]) -> None:
    products: dict[str, set[frozenset[str]]] = {}
    for row in rows:
        assert row["product"] in named(row["message"])
        products.setdefault(row["template"], set()).add(frozenset(named(row["message"])))
    assert [template for template, sets in products.items() if len(sets) != 1] == []


def test_most_messages_name_a_second_product(rows: list[Row]) -> None:
    """Otherwise the task would be to find a word, not to read."""
    shares = [
        sum(len(named(row["message"])) > 1 for row in rows if row["product"] == product) / 24
        for product in PRODUCTS
    ]
    assert min(shares) >= 0.5


def test_keys_and_messages_are_unique(rows: list[Row]) -> None:
    assert len({row["id"] for row in rows}) == len({row["message"] for row in rows}) == len(rows) == 96


def test_no_message_of_the_data_is_an_example_in_a_prompt(rows: list[Row]) -> None:
    messages = {row["message"] for row in rows}
    shown = {m.content for prompt in load_suite(SUITE).suite.prompts for m in prompt.messages or []}
    assert shown.isdisjoint(messages)
