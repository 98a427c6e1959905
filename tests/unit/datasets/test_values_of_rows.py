"""Rows are read exactly; what cannot be told is said: numbers, repeated keys, separators, nulls, bytes."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.canonical import exact_json
from evalrun.datasets import Dataset, open_dataset
from evalrun.datasets.formats import repeated_key, separator_of
from evalrun.errors import UserError
from evalrun.prompts import Prompt, compile_prompt
from evalrun.suite.dataset import DatasetSpec
from evalrun.suite.prompt import PromptSpec

KEYS = st.text(alphabet='ab":\\ \u00e9', max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.text(alphabet='":{}, a\\', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def opened(folder: Path, name: str, content: str | bytes, **settings: Any) -> Dataset:
    data = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(data)
    return open_dataset(DatasetSpec(id="d", path=Path(name), **settings), folder, 0)


def rows(dataset: Dataset) -> list[dict[str, Any]]:
    return [dict(item.row) for item in dataset]


def refused(folder: Path, name: str, content: str | bytes, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        opened(folder, name, content, **settings)
    return str(caught.value)


@given(VALUES)
def test_numbers_are_read_exactly(value: Any) -> None:
    assert exact_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize("name", ["r.jsonl", "r.json"])
def test_whole_numbers_beyond_64_bits_stay_whole(tmp_path: Path, name: str) -> None:
    big = 123456789012345678901234567890
    row = {"n": big, "deep": {"ids": [-big, 1]}, "q": "x"}
    text = json.dumps(row) if name == "r.jsonl" else json.dumps([row])
    dataset = opened(tmp_path, name, text, target="n")
    assert rows(dataset) == [row]
    assert next(iter(dataset)).target == big
    assert "cannot be read" in refused(tmp_path, name, text.replace(str(big), "9" * 5000))


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_an_object_without_repeated_keys_has_none(value: dict[str, Any]) -> None:
    for text in (
        json.dumps(value),
        json.dumps(value, indent=1),
        json.dumps(value, separators=(" , ", " : ")),
    ):
        assert repeated_key(text.encode(), json.loads(text)) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"q": 1, "q": 2}',
        '{"a": {"q": 1, "b": 2, "q": 3}}',
        '{"a": [{"q": 1, "q": 1}]}',
        '{"q" : 1, "\\u0071": "x\\":"}',
    ],
)
def test_a_repeated_key_is_an_error_with_its_line(tmp_path: Path, text: str) -> None:
    said = refused(tmp_path, "r.jsonl", '{"ok": 1}\n' + text + "\n")
    assert "r.jsonl:2: the key 'q' stands twice in one object" in said
    whole = refused(tmp_path, "r.json", "[\n" + text.replace(",", ",\n") + "\n]")
    assert "the key 'q' stands twice in one object" in whole


def test_the_line_of_a_repeated_key_in_a_json_file(tmp_path: Path) -> None:
    text = '[\n {"q": "a", "x": 1},\n {"q": "b",\n  "x": 2,\n  "q": "c"}\n]'
    assert "r.json:5: the key 'q'" in refused(tmp_path, "r.json", text)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found_in_the_header_and_said(tmp_path: Path, separator: str) -> None:
    text = f"q{separator}target\nhow much?{separator}'x'\n"
    dataset = opened(tmp_path, "r.csv", text)
    assert rows(dataset) == [{"q": "how much?", "target": "'x'"}]
    assert bool(dataset.warnings) == (separator != ",")
    assert dataset.source.get("separator", ",") == separator
    named = opened(tmp_path, "r.csv", text, separator=separator)
    assert not named.warnings


def test_a_decimal_comma_stands_in_a_file_with_semicolons(tmp_path: Path) -> None:
    assert rows(opened(tmp_path, "r.csv", "q;target\nwhat;1,5\n")) == [{"q": "what", "target": "1,5"}]
    assert rows(opened(tmp_path, "r.tsv", "q\ttarget\na, b\t1\n")) == [{"q": "a, b", "target": "1"}]
    said = refused(tmp_path, "r.csv", "q;target\na;b;c\n")
    assert "A cell that holds a semicolon" in said
    assert separator_of('"a;b;c",d') == separator_of("a,b;c") == separator_of("alone") == ","


def test_cells_may_be_long(tmp_path: Path) -> None:
    (row,) = rows(opened(tmp_path, "r.csv", f"q,target\n{'x' * 500_000},1\n"))
    assert len(row["q"]) == 500_000


def prompt(text: str) -> Prompt:
    return compile_prompt(PromptSpec(id="p", text=text), Path())


def rendered(text: str, **row: Any) -> str:
    from evalrun.datasets import Item

    return str(prompt(text).bind(None, 1).render(Item("s", 0, row)).messages[-1].content)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("q={{ q }}!", "q=!"),
        ("{{ q | trim }}.", "."),
        ("{{ q | upper }}{{ q | title }}{{ q | replace('a', 'b') }}.", "."),
        ("{{ 'x' ~ q ~ 'y' }}", "xy"),
        ("{{ row.q }}.", "."),
        ("{{ deep.a }}{% for one in list %}[{{ one }}]{% endfor %}", "[1][]"),
        ("{{ list | join('-') }}", "1-"),
        ("{{ q or 'none given' }}", "none given"),
        ("{% if q is none %}empty{% endif %}", "empty"),
        ("{{ q | tojson }}", "null"),
        ("{{ q | default('d', true) }}", "d"),
    ],
)
def test_null_is_printed_as_nothing(text: str, made: str) -> None:
    assert rendered(text, q=None, deep={"a": None}, list=[1, None]) == made


def test_columns_that_are_null_are_said_where_the_prompt_prints_them(tmp_path: Path) -> None:
    dataset = opened(
        tmp_path, "r.jsonl", '{"q": "a", "h": null}\n{"q": null, "h": "x"}\n{"q": "b", "h": null}\n'
    )
    assert {column: count for column, (count, _) in dataset.nulls.items()} == {"h": 2, "q": 1}
    (said,) = prompt("{{ q or '?' }} {{ h }}").left_empty(dataset.nulls)
    assert "column 'h', which is null in 2 rows" in said
    assert "r.jsonl:1" in said
    assert prompt("{% if h %}{{ h }}{% endif %}").left_empty(dataset.nulls) == []


def test_a_prompt_that_would_print_bytes_is_refused_and_one_that_does_not_is_fine(tmp_path: Path) -> None:
    table = pa.table(
        {
            "q": ["a"],
            "image": [{"bytes": b"\x89PNG", "path": "a.png"}],
            "raw": [b"\x00"],
            "many": [[b"x"]],
            "target": ["1"],
        }
    )
    pq.write_table(table, tmp_path / "r.parquet")
    dataset = open_dataset(DatasetSpec(id="d", path=Path("r.parquet")), tmp_path, 0)
    assert dataset.binary == {"image": {"bytes"}, "raw": {""}, "many": {""}}

    def problems(text: str) -> list[str]:
        return [problem.what for problem in prompt(text).check(dataset.columns, "", {}, dataset.binary)]

    assert problems("{{ q }} {{ image.path }}") == []
    for text, name in (
        ("{{ image.bytes }}", "image.bytes"),
        ("{{ image }}", "image.bytes"),
        ("{{ raw }}", "raw"),
        ("{{ many }}", "many"),
    ):
        assert problems(text) == [
            f"prompt p uses '{name}', which holds bytes (an image, a sound): a prompt is text"
        ]
