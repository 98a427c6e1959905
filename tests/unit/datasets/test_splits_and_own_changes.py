"""Splits in files whose names say nothing, and perturbations by a function of the user's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalrun.datasets import open_dataset
from evalrun.errors import UserError
from evalrun.suite.dataset import DatasetSpec

ROWS = [{"id": f"r{at}", "q": f"question {at}", "t": "x"} for at in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Rows in a file of a telling and of another name; what it adds to the path is taken off."""
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    for name in ("rows.jsonl", "rows.txt"):
        (tmp_path / name).write_text(text)
    (tmp_path / "rows.csv").write_text("id,q,t\nc1,from a table,x\n")
    before, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = before
    for name in set(sys.modules) - modules:
        if name.startswith("own_change"):
            del sys.modules[name]


def test_a_split_whose_name_says_nothing_has_the_format_of_the_dataset(folder: Path) -> None:
    spec = DatasetSpec(
        id="d", path=Path("rows.txt"), format="jsonl", splits={"train": Path("rows.txt")}, key="id"
    )
    assert [item.sample_id for item in open_dataset(spec, folder, 1, "train")] == ["r0", "r1", "r2"]
    table = spec.model_copy(update={"splits": {"train": Path("rows.csv")}})
    assert [item.sample_id for item in open_dataset(table, folder, 1, "train")] == ["c1"]
    unsaid = spec.model_copy(update={"path": Path("rows.jsonl"), "format": None})
    with pytest.raises(UserError, match="the suffix does not tell the format"):
        open_dataset(unsaid, folder, 1, "train")


def _perturbed(folder: Path, module: str, code: str) -> list[str]:
    (folder / f"{module}.py").write_text(code)
    spec = DatasetSpec.model_validate(
        {
            "id": "d",
            "path": "rows.jsonl",
            "key": "id",
            "perturb": [{"id": "mine", "python": f"{module}:change", "columns": ["q"]}],
        },
        strict=False,
    )
    return [str(item.row["q"]) for item in open_dataset(spec, folder, 1)]


def test_a_function_beside_the_suite_is_found(folder: Path) -> None:
    asked = _perturbed(folder, "own_change_a", "def change(text):\n    return text + '!'\n")
    assert sorted(asked) == sorted(text for at in range(3) for text in (f"question {at}", f"question {at}!"))


@pytest.mark.parametrize(
    ("module", "code", "said"),
    [
        ("own_change_b", "def change(text:\n", "importing 'own_change_b:change' failed: SyntaxError"),
        (
            "own_change_c",
            "def change(text):\n    return text[99]\n",
            "'own_change_c:change' failed: IndexError",
        ),
        ("own_change_d", "def change(text):\n    return None\n", "gave a NoneType and no text"),
        ("own_change_e", "", "module 'own_change_e' has no 'change'"),
    ],
)
def test_what_is_wrong_with_the_function_is_said_without_a_traceback(
    folder: Path, module: str, code: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        _perturbed(folder, module, code)
