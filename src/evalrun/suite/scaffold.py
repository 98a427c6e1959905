"""What `evalrun init` writes: a commented suite, its prompt and its data, ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import orjson

from evalrun.errors import Problem, UserError
from evalrun.suite.reference import suite_json_schema

_FILES = ("suite.yaml", "prompts/plain.j2", "data/reviews.jsonl")
_SCHEMA = "suite.schema.json"


def write_scaffold(folder: Path) -> list[Path]:
    """Write the suite and what it needs into a folder, which is made where it does not exist.

    Returns the files written, the suite first. Raises UserError, and writes nothing, when one of them
    exists or the folder cannot be written.
    """
    return write_files(folder, _contents())


def write_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files into a folder, made where it does not exist; returns their paths in the same order.

    Raises UserError, and writes nothing, when one of them exists or the folder cannot be written.
    """
    taken = [folder / name for name in contents if (folder / name).exists()]
    if taken:
        remedy = "Choose another folder, or move it away; nothing was written."
        raise UserError([Problem("the file exists already", str(path), remedy) for path in taken])
    written = []
    for name, content in contents.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(content)
        except OSError as error:
            raise UserError(f"cannot be written: {error.strerror}", where=str(path)) from error
        written.append(path)
    return written


def _contents() -> dict[str, bytes]:
    template = files("evalrun.suite") / "template"
    contents = {name: (template / name).read_bytes() for name in _FILES}
    contents[_SCHEMA] = schema_bytes()
    return contents


def schema_bytes() -> bytes:
    """The JSON Schema that a suite's first line names, for editors."""
    return orjson.dumps(suite_json_schema(), option=orjson.OPT_INDENT_2) + b"\n"
