"""Which rows are selected, what they are called, and what is made of their columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalrun.datasets import Dataset, open_dataset, open_examples
from evalrun.errors import UserError
from evalrun.suite.dataset import DatasetSpec

HERE = Path()
ROWS = [{"id": f"r{at}", "text": f"text {at}", "label": "ab"[at % 2], "n": at} for at in range(30)]


def opened(rows: list[dict[str, Any]], seed: int = 7, **options: Any) -> Dataset:
    return open_dataset(DatasetSpec(id="d", rows=rows, **options), HERE, seed)


def problem(rows: list[dict[str, Any]], **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        opened(rows, **options)
    return str(caught.value)


def ids(dataset: Dataset) -> list[str]:
    return [item.sample_id for item in dataset]


json_rows = st.lists(
    st.fixed_dictionaries({"a": st.text(max_size=5), "b": st.integers(-5, 5)}), min_size=1, max_size=12
)


@given(json_rows, st.randoms())
def test_ids_depend_on_content_and_not_on_order(rows: list[dict[str, Any]], random: Any) -> None:
    def by_id(dataset: Dataset) -> dict[str, Any]:
        return {item.sample_id: item.row for item in dataset}

    before = by_id(opened(rows))
    random.shuffle(rows)
    assert by_id(opened(rows)) == before
    assert len(before) == len(rows)


@given(json_rows, st.data())
def test_one_character_changes_the_digest(rows: list[dict[str, Any]], data: Any) -> None:
    before = opened(rows, target="{{ b }}").digest
    at = data.draw(st.integers(0, len(rows) - 1))
    changed = [dict(row) for row in rows]
    changed[at]["a"] += "x"
    assert opened(changed, target="{{ b }}").digest != before
    assert opened(rows, target="{{ b }}").digest == before
    assert opened(rows, target="{{ b }}!").digest != before


@given(json_rows, st.integers(0, 3), st.integers(1, 12))
def test_a_limit_takes_a_prefix_of_the_same_shuffle(
    rows: list[dict[str, Any]], seed: int, limit: int
) -> None:
    whole = opened(rows, seed, shuffle=True)
    part = opened(rows, seed, shuffle=True, limit=limit)
    assert list(part) == list(whole)[:limit]
    assert len(part) == min(limit, len(rows))
    assert sorted(ids(whole)) == sorted(ids(opened(rows, seed)))


def test_a_shuffle_depends_on_the_seed_and_not_on_the_order_of_the_file() -> None:
    order = ids(opened(ROWS, 1, shuffle=True, key="id"))
    assert order == ids(opened(ROWS[::-1], 1, shuffle=True, key="id"))
    assert order != ids(opened(ROWS, 2, shuffle=True, key="id"))
    assert order != ids(opened(ROWS, 1, key="id"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(json_rows, st.booleans(), st.integers(1, 12) | st.none())
def test_a_file_is_read_as_the_same_rows_in_memory(
    tmp_path: Path, rows: list[dict[str, Any]], shuffle: bool, limit: int | None
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = DatasetSpec(id="d", path=path, shuffle=shuffle, limit=limit)
    assert list(open_dataset(spec, HERE, 3)) == list(opened(rows, 3, shuffle=shuffle, limit=limit))


def test_identical_rows_are_told_apart_and_mentioned() -> None:
    dataset = opened([{"a": 1}, {"a": 2}, {"a": 1}, {"a": 1}])
    first, other, second, third = ids(dataset)
    assert (second, third) == (f"{first}-2", f"{first}-3")
    assert other != first
    assert "2 rows repeat an earlier one (the first at dataset d, row 3)" in dataset.warnings[0]
    assert not opened([{"a": 1}, {"a": 2}]).warnings


def test_the_key_names_samples_and_must_be_unique() -> None:
    assert ids(opened(ROWS[:2], key="id")) == ["r0", "r1"]
    assert ids(opened(ROWS[:2], key="n")) == ["0", "1"]
    assert ids(opened(ROWS[:2], key="{{ label }}-{{ n }}")) == ["a-0", "b-1"]
    message = problem([*ROWS[:3], ROWS[1]], key="id")
    assert message.startswith("dataset d, row 4: the key 'r1' stands twice, first at dataset d, row 2")
    assert "the key is null" in problem([{"id": None}], key="id")
    assert "the key is 1.5" in problem([{"id": 1.5}], key="id")


def test_a_filter_that_compares_text_with_a_number_says_what_to_write(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("score\n5\n10\n")
    spec = DatasetSpec(id="d", path=tmp_path / "n.csv", where="score > 8")
    with pytest.raises(UserError, match=r"text is compared with a number: write `NAME \| float`"):
        open_dataset(spec, tmp_path, 7)
    assert len(open_dataset(spec.model_copy(update={"where": "score | float > 8"}), tmp_path, 7)) == 1
    rows = [{"score": None}, {"score": 9}]
    assert "a value is null: write `NAME is not none and …` before it" in problem(rows, where="score > 8")
    assert len(opened(rows, where="score is not none and score > 8")) == 1


def test_both_lines_of_a_duplicate_key_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"k": "x"}\n{"k": "y"}\n\n{"k": "x"}\n')
    with pytest.raises(UserError) as caught:
        open_dataset(DatasetSpec(id="d", path=path, key="k"), HERE, 1)
    assert str(caught.value).startswith(f"{path}:4: the key 'x' stands twice, first at {path}:1")


def test_columns_targets_groups_and_clusters() -> None:
    rows = [{"label": 1, "options": ["no", "yes"], "who": {"g": "old"}, "c": 4, "target": "kept"}]
    columns = {
        "group": "{{ who.g }}",
        "text": "{{ label }}/{{ group }}",
        "list": "{{ options|map('upper') }}",
    }
    dataset = opened(
        rows, columns=columns, target="{{ options[label] }}", sensitive=["group", "label"], cluster="c"
    )
    (item,) = dataset
    assert (item.target, item.row["target"]) == ("yes", "kept")
    assert item.row["list"] == ["NO", "YES"]
    assert item.row["text"] == "1/old"
    assert item.sensitive == {"group": "old", "label": "1"}
    assert item.cluster == "4"
    assert dataset.columns == ("label", "options", "who", "c", "target", "group", "text", "list")
    (plain,) = opened(rows)
    assert plain.sample_id == item.sample_id, "derived columns are no part of a sample's identity"


def test_native_values_stay_what_they_are() -> None:
    assert [item.target for item in opened([{"n": 3}], target="n")] == [3]
    assert [item.target for item in opened([{"n": 3}], target="{{ n + 1 }}")] == [4]
    assert [item.target for item in opened([{"n": 3}], target="{{ n }} ")] == [3]
    assert [item.target for item in opened([{"n": 3}], target="={{ n }}")] == ["=3"]


def test_groups_are_text_or_nothing() -> None:
    rows = [{"g": group, "at": at} for at, group in enumerate([None, "", "x"])]
    assert [item.sensitive["g"] for item in opened(rows, sensitive=["g"])] == [None, None, "x"]
    assert [item.sensitive["g"] for item in opened([{"g": True}], sensitive=["g"])] == ["true"]
    assert "a group is text" in problem([{"g": ["x"]}], sensitive=["g"])


def test_where_filters_before_the_limit() -> None:
    dataset = opened(ROWS, where="label == 'b' and n > 3", limit=2, key="id")
    assert ids(dataset) == ["r5", "r7"]
    assert [item.position for item in dataset] == [0, 1]
    assert "the filter keeps none of the 30 rows" in problem(ROWS, where="n > 99")
    assert "braces" in problem(ROWS, where="{{ n > 3 }}")
    assert "cannot be read" in problem(ROWS, where="n >")


def test_settings_that_name_no_column_suggest_the_nearest() -> None:
    message = problem(
        ROWS, target="lable", key="idd", sensitive=["labl"], where="nn > 1", cluster="{{ txt }}"
    )
    for wrong, near in [("lable", "label"), ("idd", "id"), ("labl", "label"), ("nn", "n"), ("txt", "text")]:
        assert f"'{wrong}'" in message
        assert f"Did you mean '{near}'?" in message
    assert "'lable', which target of dataset d needs" in message


def test_a_column_that_some_rows_lack_is_no_column_of_the_dataset() -> None:
    dataset = opened([{"a": 1}, {"a": 2, "b": 3}])
    assert dataset.columns == ("a",)
    assert dataset.partial == {"b": "dataset d, row 1"}
    assert "row 1: there is no column 'b'" in problem([{"a": 1}, {"a": 2, "b": 3}], target="b")
    assert "row 2: the row has no column 'b'" in problem([{"a": 2, "b": 3}, {"a": 1}], target="b")
    tested = opened([{"a": 1}, {"a": 2, "b": 3}], target="{{ b if b is defined else 'none' }}")
    assert [item.target for item in tested] == ["none", 3]


def test_a_template_that_fails_on_a_row_names_the_row() -> None:
    message = problem([{"a": "x#1"}, {"a": "x"}], target="{{ a.split('#')[1] }}")
    assert message.startswith("dataset d, row 2: target cannot be made: ")


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ a.__class__.__mro__ }}",
        "{{ range(10**9)|list }}",
        "{{ 'x' * 10**9 }}",
        "{{ (a|attr('__class__')) }}",
    ],
)
def test_templates_are_sandboxed_and_bounded(template: str) -> None:
    message = problem([{"a": "x"}], target=template)
    assert "target cannot be made" in message or "leads out of the sandbox" in message


def test_further_splits_share_the_settings_but_no_selection(tmp_path: Path) -> None:
    for name, count in (("test", 5), ("train", 9)):
        rows = [{"q": f"{name} {at}", "n": at, "key": f"{name}{at}"} for at in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = DatasetSpec(
        id="d", path=Path("test.jsonl"), splits={"train": Path("train.jsonl")}, limit=2, target="{{ n * 2 }}",
        where="n > 0", key="key", sensitive=["q"], shuffle=True,
    )  # fmt: skip
    train = list(open_dataset(spec, tmp_path, 1, split="train"))
    assert [item.target for item in train] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert train[0].sample_id == "train1"
    assert list(open_examples(spec, Path("train.jsonl"), tmp_path)) == train
    with pytest.raises(UserError, match="Did you mean 'train'"):
        open_dataset(spec, tmp_path, 1, split="trian")


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "many.jsonl"
    with path.open("w") as file:
        for at in range(5_000):
            file.write(json.dumps({"id": f"row {at}", "text": "x" * 2000}) + "\n")
    spec = DatasetSpec(id="d", path=path, key="id", shuffle=True)
    open_dataset(spec, HERE, 1)  # imports and caches
    tracemalloc.start()
    dataset = open_dataset(spec, HERE, 1)
    count = sum(1 for _ in dataset)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 5_000
    assert peak < 5_000 * 400, "ids, ranks and digests, and no rows (which are 2,000 bytes each)"
