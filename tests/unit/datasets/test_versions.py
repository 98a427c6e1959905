"""Samples in several versions: ids that stay pairable, what differs and what does not, and the digest."""

import json
from pathlib import Path
from typing import Any

import pytest

from evalrun.datasets import Item, open_dataset
from evalrun.errors import UserError
from evalrun.prompts import compile_prompt, open_pool
from evalrun.suite.dataset import DatasetSpec
from evalrun.suite.prompt import FewShotSpec, PromptSpec

ROWS: list[dict[str, Any]] = [
    {"k": n, "text": f"Emily told number {n} that he was late.", "label": "yes" if n % 2 else "no"}
    for n in range(6)
]


def spec(**more: Any) -> DatasetSpec:
    base = {"id": "d", "rows": ROWS, "key": "k", "target": "label"}
    return DatasetSpec.model_validate({**base, **more})


def opened(folder: Path, seed: int = 7, **more: Any) -> list[Item]:
    return list(open_dataset(spec(**more), folder, seed))


def test_a_variable_takes_every_value_and_nothing_else_changes(tmp_path: Path) -> None:
    items = opened(tmp_path, counterfactual={"name": ["Emily", "Lakisha", "Mei"]})
    assert [item.sample_id for item in items[:4]] == [
        "0~name=Emily",
        "0~name=Lakisha",
        "0~name=Mei",
        "1~name=Emily",
    ]
    assert [item.position for item in items] == list(range(18))
    for item in items:
        assert item.row["name"] == item.sensitive["name"]
        assert (item.base, item.cluster) == (item.sample_id.partition("~")[0], item.base)
        assert {**item.row, "name": ""} == {**ROWS[int(item.base or 0)], "name": ""}
        assert item.target == ROWS[int(item.base or 0)]["label"]


def test_attributes_are_combined_and_derived_columns_and_targets_see_them(tmp_path: Path) -> None:
    items = opened(
        tmp_path,
        counterfactual={"name": ["Emily", "Mei"], "pronoun": ["she", "they"]},
        columns={"question": "Is {{ name }} late, and are {{ pronoun }} sorry?"},
        target="{{ name }}",
        cluster="label",
        limit=2,
    )
    assert [item.sample_id for item in items[:4]] == [
        f"0~name={name}~pronoun={pronoun}" for name in ("Emily", "Mei") for pronoun in ("she", "they")
    ]
    assert items[3].row["question"] == "Is Mei late, and are they sorry?"
    assert items[3].target == "Mei"
    assert (items[3].cluster, items[3].base) == ("no", "0")
    assert len(items) == 8


def test_words_in_the_data_are_replaced_and_rows_without_them_are_asked_once(tmp_path: Path) -> None:
    rows = [*ROWS, {"k": 99, "text": "Nobody was late.", "label": "no"}]
    dataset = open_dataset(
        spec(
            rows=rows,
            counterfactual={
                "name": {"values": ["Emily", "Lakisha"], "columns": ["text"]},
                "gender": {"values": ["male", "female"], "columns": ["text"], "words": [["he", "she"]]},
            },
        ),
        tmp_path,
        0,
    )
    items = list(dataset)
    assert len(items) == len(dataset) == 25
    assert items[3].row["text"] == "Lakisha told number 0 that she was late."
    assert items[3].sensitive == {"name": "Lakisha", "gender": "female"}
    assert (items[-1].sample_id, items[-1].sensitive) == ("99", {"name": None, "gender": None})
    assert dataset.warnings == ["1 of 7 row has one version only: nothing changes in it"]


def test_a_perturbed_dataset_has_the_samples_as_they_stand_under_their_own_ids(tmp_path: Path) -> None:
    plain = opened(tmp_path)
    items = opened(
        tmp_path,
        perturb=[
            {"typos": 0.5, "columns": ["text"]},
            {"case": "upper", "columns": ["text", "label"]},
            {"id": "dialect", "words": {"was": "be"}, "columns": ["text"]},
            {"gendered": "female", "columns": ["text"]},
            {"whitespace": 0.2, "columns": ["text"]},
        ],
        sensitive=["label"],
    )
    assert len(items) == 36
    originals = [item for item in items if item.sensitive["perturb"] == "original"]
    assert [(item.sample_id, item.row, item.target) for item in originals] == [
        (item.sample_id, item.row, item.target) for item in plain
    ]
    by_version = {item.sample_id: item for item in items if item.base == "3"}
    assert list(by_version) == [
        "3",
        *(f"3~perturb={each}" for each in ("typos", "case", "dialect", "gendered", "whitespace")),
    ]
    upper = by_version["3~perturb=case"]
    assert (upper.row["label"], upper.target, upper.sensitive["label"]) == ("YES", "yes", "yes")
    assert "he be late" in by_version["3~perturb=dialect"].row["text"]
    assert "she was late" in by_version["3~perturb=gendered"].row["text"]


def test_randomness_is_the_seeds_and_the_ids_alone(tmp_path: Path) -> None:
    typos = [{"typos": 0.5, "columns": ["text"]}]

    def texts(seed: int, **more: Any) -> dict[str, Any]:
        return {item.sample_id: item.row["text"] for item in opened(tmp_path, seed, perturb=typos, **more)}

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)
    whole = texts(1)
    assert all(whole[name] == text for name, text in texts(1, limit=2, shuffle=True).items())


def test_functions_and_paraphrase_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_changes.py").write_text(
        "def shout(text, seed): return f'{text}!{seed}'\ndef broken(text): return 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "p.jsonl"
    file.write_text("\n".join(json.dumps({"sample_id": str(n), "text": f"Said anew {n}"}) for n in (1, 2)))
    items = opened(
        tmp_path, perturb=[{"python": "my_changes:shout", "columns": ["text"]}, {"paraphrases": "p.jsonl"}]
    )
    ids = [item.sample_id for item in items]
    assert len(ids) == 14
    assert [each for each in ids if each.endswith("paraphrases")] == [
        "1~perturb=paraphrases",
        "2~perturb=paraphrases",
    ]
    assert {item.row["text"] for item in items if item.sample_id == "2~perturb=paraphrases"} == {
        "Said anew 2"
    }
    with pytest.raises(UserError, match="gave a int and no text"):
        opened(tmp_path, perturb=[{"python": "my_changes:broken", "columns": ["text"]}])
    file.write_text('{"text": "no id"}')
    with pytest.raises(UserError, match="sample_id"):
        opened(tmp_path, perturb=[{"paraphrases": "p.jsonl"}])
    with pytest.raises(UserError, match="no column 'texd'"):
        opened(tmp_path, perturb=[{"case": "upper", "columns": ["texd"]}])


def test_the_digest_speaks_of_the_versions_too(tmp_path: Path) -> None:
    def digest(**more: Any) -> str:
        return open_dataset(spec(**more), tmp_path, 0).digest

    names = {"name": ["Emily", "Mei"]}
    assert (
        len({digest(), digest(counterfactual=names), digest(counterfactual={"name": ["Emily", "Ann"]})}) == 3
    )
    assert digest(counterfactual=names) == digest(counterfactual=names)
    file = tmp_path / "p.jsonl"
    seen = set()
    for text in ("one", "two"):
        file.write_text(json.dumps({"sample_id": "1", "text": text}))
        seen.add(digest(perturb=[{"paraphrases": "p.jsonl"}]))
    assert len(seen) == 2


def test_every_version_is_shown_the_same_examples(tmp_path: Path) -> None:
    rows = [{"k": n, "text": f"t{n}", "label": "x"} for n in range(40)]
    data = spec(rows=rows, counterfactual={"name": ["Emily", "Mei"]}, splits={"train": "train.jsonl"})
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    few_shot = FewShotSpec(count=3, split="train")
    prompt = compile_prompt(PromptSpec(id="p", text="{{ text }} {{ name }}", few_shot=few_shot), tmp_path)
    renderer = prompt.bind(open_pool(data, few_shot, tmp_path, 1), 1)
    items = list(open_dataset(data, tmp_path, 1))
    for one, other in zip(items[::2], items[1::2], strict=True):
        first, second = (renderer.render(item).messages for item in (one, other))
        assert first[:-1] == second[:-1]
        assert first[-1].content == f"{one.row['text']} Emily"
        assert all(f"{one.row['text']} " not in message.content for message in first[:-1])


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"counterfactual": {"name": ["a", "a"]}}, "stands twice"),
        (
            {
                "counterfactual": {
                    "name": {"values": ["a", "b"], "columns": ["t"], "words": [["x", "y", "z"]]}
                }
            },
            "2 words",
        ),
        ({"counterfactual": {"name": [True, False]}}, "quote it"),
        ({"counterfactual": {n: list("abcdef") for n in ("p", "q", "r")}}, "216 versions"),
        ({"perturb": [{"typos": 0.1, "case": "upper", "columns": ["t"]}]}, "exclude each other"),
        ({"perturb": [{"typos": 0.1}]}, "columns to change are missing"),
        ({"perturb": [{"typos": 0.1, "columns": ["t"]}] * 2}, "two changes are called 'typos'"),
        ({"perturb": [{"typos": 0.1, "columns": ["t"]}], "counterfactual": {"n": ["a", "b"]}}, "exclude"),
    ],
)
def test_what_cannot_be_meant_is_refused(more: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        spec(**more)
