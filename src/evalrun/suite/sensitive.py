"""Sensitive columns as a suite writes them: a name, or a name and whether it is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evalrun.suite.findings import complaint

if TYPE_CHECKING:
    from evalrun.suite.schema import DatasetSpec

SENSITIVE: dict[str, Any] = {
    "type": "array",
    "items": {
        "anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {
                    "column": {"type": "string", "description": "The column's name."},
                    "store": {
                        "enum": ["keep", "drop"],
                        "description": "drop: used for aggregates, and stored nowhere.",
                    },
                },
                "required": ["column"],
                "additionalProperties": False,
            },
        ]
    },
}
"""The JSON Schema of the list."""


def split_sensitive(data: Any) -> Any:
    """The dataset entry with plain names under `sensitive`, and those of `store: drop` under `withheld`."""
    listed = data.get("sensitive") if isinstance(data, dict) else None
    if not isinstance(listed, list) or not any(isinstance(each, dict) for each in listed):
        return data
    names: list[Any] = []
    withheld = list(data.get("withheld") or [])
    for index, each in enumerate(listed):
        if not isinstance(each, dict):
            names.append(each)
            continue
        path = ("sensitive", index)
        if not isinstance(each.get("column"), str) or set(each) - {"column", "store"}:
            raise complaint("expected a column's name, or {column: NAME, store: drop}", path=path)
        if each.get("store", "keep") not in ("keep", "drop"):
            raise complaint("'store' is keep or drop", path=(*path, "store"))
        names.append(each["column"])
        if each.get("store") == "drop":
            withheld.append(each["column"])
    return {**data, "sensitive": names, "withheld": withheld}


def column_name(entry: Any) -> str | None:
    """The column that an entry of the list names, or None where it names none."""
    name = entry.get("column") if isinstance(entry, dict) else entry
    return name if isinstance(name, str) else None


def check_withheld(dataset: DatasetSpec) -> None:
    """Refuses what would store a dropped column all the same."""
    for index, column in enumerate(dataset.withheld):
        if column not in dataset.sensitive:
            raise complaint(f"'{column}' is not among the sensitive columns", path=("withheld", index))
    if not dataset.withheld:
        return
    if dataset.rows is not None:
        raise complaint(
            "rows written in the suite are stored with it, so none of their columns can be dropped",
            "Put them into a file.",
            ("rows",),
        )
    if dataset.key is None:
        raise complaint(
            "a row's name is made from its content where there is no key, so what is dropped could be "
            "guessed from it",
            "Name a column of ids: key: id.",
        )
