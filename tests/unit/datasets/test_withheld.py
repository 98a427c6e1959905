"""Sensitive columns that are used for aggregates and stored nowhere."""

import json
from pathlib import Path
from typing import Any

import pytest

from evalrun.datasets import open_dataset
from evalrun.errors import UserError
from evalrun.prompts import compile_prompt
from evalrun.suite.dataset import DatasetSpec
from evalrun.suite.prompt import PromptSpec

DROPPED = [{"column": "gender", "store": "drop"}, "dialect"]


def spec(folder: Path, **more: Any) -> DatasetSpec:
    rows = [
        {
            "k": f"r{n}",
            "text": f"t{n}",
            "label": "x",
            "gender": "secret-f" if n % 2 else "secret-m",
            "dialect": "d",
        }
        for n in range(4)
    ]
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    base = {"id": "d", "path": Path("rows.jsonl"), "key": "k", "target": "label", "sensitive": DROPPED}
    return DatasetSpec.model_validate({**base, **more})


@pytest.mark.parametrize(
    "versions",
    [
        {},
        {"counterfactual": {"name": ["Emily", "Mei"]}},
        {"perturb": [{"case": "upper", "columns": ["text"]}]},
    ],
)
def test_items_never_show_it_and_the_groups_come_by_sample_id(
    tmp_path: Path, versions: dict[str, Any]
) -> None:
    dataset = open_dataset(spec(tmp_path, where="gender != 'other'", **versions), tmp_path, 0)
    items = list(dataset)
    assert "secret" not in str(items)
    assert "gender" not in dataset.columns
    assert all("gender" not in item.row and "gender" not in item.sensitive for item in items)
    assert items[0].sensitive["dialect"] == "d"
    groups = dataset.withheld_groups()["gender"]
    assert set(groups) == {item.sample_id for item in items}
    assert groups[items[0].sample_id] == "secret-m"
    assert "secret" not in str(dataset.source)


def test_a_prompt_cannot_use_it(tmp_path: Path) -> None:
    dataset = open_dataset(spec(tmp_path), tmp_path, 0)
    prompt = compile_prompt(PromptSpec(id="p", text="{{ text }} {{ gender }}"), tmp_path)
    assert "no column of the data" in prompt.check(dataset.columns)[0].what


@pytest.mark.parametrize(
    "more",
    [
        {"target": "gender"},
        {"cluster": "{{ gender }}"},
        {"key": "gender"},
        {"columns": {"who": "{{ row.gender }}"}},
        {"columns": {"all": "{{ row }}"}},
    ],
)
def test_nothing_that_is_stored_may_be_made_from_it(tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="made from 'gender', which is not to be"):
        open_dataset(spec(tmp_path, **more), tmp_path, 0)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"key": None}, "could be guessed"),
        ({"path": None, "rows": [{"k": "1", "gender": "f"}]}, "written in the suite"),
        ({"sensitive": [{"column": "gender", "store": "hide"}]}, "keep or drop"),
        ({"sensitive": [{"store": "drop"}]}, "expected a column's name"),
        ({"withheld": ["age"]}, "not among the sensitive"),
    ],
)
def test_what_would_store_it_all_the_same_is_refused(
    tmp_path: Path, more: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        spec(tmp_path, **more)


def test_written_out_it_means_the_same(tmp_path: Path) -> None:
    written = spec(tmp_path)
    assert (written.sensitive, written.withheld) == (["gender", "dialect"], ["gender"])
    assert DatasetSpec.model_validate_json(written.model_dump_json()) == written
