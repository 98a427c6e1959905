"""Writes what a sweep was made from back into a folder: suite, prompts and rows, to be run again.

The suite is the one that was run, options of the command line included, with paths that stay in the folder.
Where a dataset came from the Hub, from another format or from outside the suite's folder, its rows become
`data/<id>.jsonl`. What was written is read again, and its digests compared with those of the sweep.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from evalrun.atomic import disk_errors, private_folder, write_private
from evalrun.canonical import exact_json
from evalrun.errors import UserError
from evalrun.sweep.inputs import examples_path, rows_path
from evalrun.tracking.folder import SweepFolder
from evalrun.types import JSON

_HUB = ("hub", "traffic", "config", "revision", "split")
_OF_A_FILE = ("config", "revision", "split", "hub", "traffic", "format")


@dataclass(slots=True)
class CheckedOut:
    """What was written, what could not be, and whether each part reads as it did: "dataset tickets" to
    whether its digest is that of the sweep."""

    suite: Path
    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    same: dict[str, bool] = field(default_factory=dict)


def checkout(folder: SweepFolder, target: Path) -> CheckedOut:
    """Write a sweep's suite, prompts and rows into `target`, a new or empty folder.

    Raises UserError where the folder is not empty, or where a path of the manifest leads out of it.
    """
    manifest = folder.read_manifest()
    if not isinstance(manifest["suite"].get("resolved"), dict):
        raise UserError("the sweep's manifest holds no suite", where=folder.path.name)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(
            "is not an empty folder", where=str(target), remedy="Name one that does not exist yet."
        )
    with disk_errors(target):
        return _Checkout(folder, manifest, target).run()


class _Checkout:
    def __init__(self, folder: SweepFolder, manifest: dict[str, Any], target: Path) -> None:
        self._folder, self._manifest, self._target = folder, manifest, target
        self._suite: dict[str, Any] = orjson.loads(orjson.dumps(manifest["suite"]["resolved"]))
        self._origin = Path(manifest["suite"].get("path") or ".").absolute().parent
        self._done = CheckedOut(target / "suite.yaml")

    def run(self) -> CheckedOut:
        import yaml

        private_folder(self._target)
        for prompt in self._suite["prompts"]:
            self._prompt(prompt)
        for dataset in self._suite["datasets"]:
            self._dataset(dataset)
        for section in ("models", "parse", "scorers"):
            self._suite[section] = [self._absolute(each, section) for each in self._suite[section]]
        text = yaml.safe_dump(_compact(self._suite), sort_keys=False, allow_unicode=True, width=110)
        head = (
            f"# Sweep {self._manifest['sweep']} as it was run; the file that it was run from: original.yaml\n"
        )
        self._write("suite.yaml", (head + text).encode())
        self._write("original.yaml", str(self._manifest["suite"].get("text", "")).encode())
        self._compare()
        return self._done

    # Prompts

    def _prompt(self, prompt: dict[str, Any]) -> None:
        known = self._manifest["prompts"].get(prompt["id"])
        if prompt.get("file") is None:
            return
        if known is None:
            self._done.notes.append(f"prompt {prompt['id']}: no run used it, and its file was not kept")
            return
        file = str(prompt["file"])
        name = PurePosixPath(file).name
        if not is_inside(file):
            file = prompt["file"] = f"prompts/{_plain_name(prompt['id'])}/{name}"
        root = PurePosixPath(file).parent
        for part, text in known["source"].items():
            if part == "system" and prompt.get("system") is not None and part != name:
                continue
            self._write(str(root / part), text.encode())

    # Rows

    def _dataset(self, spec: dict[str, Any]) -> None:
        name = spec["id"]
        self._examples(spec)
        for column in spec.get("withheld") or []:
            self._done.notes.append(f"dataset {name}: column '{column}' was not stored, and is left out")
        spec["sensitive"] = [each for each in spec["sensitive"] if each not in spec["withheld"]]
        spec["withheld"] = []
        if spec.get("rows") is not None:
            return
        rows = self._rows(spec)
        if rows is None:
            self._done.notes.append(f"dataset {name}: no finished run has its rows")
            return
        shared = [
            dataset["id"] for dataset in self._suite["datasets"] if dataset.get("path") == spec.get("path")
        ]
        keeps = _is_jsonl(spec.get("path"), spec.get("format")) and len(shared) == 1
        path = str(spec["path"]) if keeps else f"data/{_plain_name(name)}.jsonl"
        for key in _OF_A_FILE if not keeps else _HUB:
            spec[key] = None
        spec["path"] = path
        self._write_rows(spec, path, rows)

    def _rows(self, spec: Mapping[str, Any]) -> list[dict[str, JSON]] | None:
        kept = rows_path(self._folder, spec["id"])
        if kept.exists():
            return _read_kept(kept)
        found: dict[str, tuple[int, dict[str, JSON]]] = {}
        seen = False
        for run_id in self._folder.run_ids():
            path = self._folder.samples_path(run_id)
            if self._folder.run(run_id).dataset == spec["id"] and path.exists():
                seen = True
                for sample_id, position, row in _sample_rows(path):
                    found.setdefault(sample_id, (position, row))
        derived = frozenset(spec.get("columns") or ())
        in_order = sorted(found.values(), key=lambda each: each[0])
        rows = [{key: value for key, value in row.items() if key not in derived} for _, row in in_order]
        return rows if seen else None

    def _write_rows(self, spec: Mapping[str, Any], path: str, rows: Sequence[dict[str, JSON]]) -> None:
        """Parquet tells neither a missing value from null nor 1 from 1.0 where a column has both: of the few
        ways to read the rows back, the one with the sweep's digest is written, else the plainest."""
        wanted = self._manifest["datasets"].get(spec["id"], {}).get("digest")
        for drop_nulls, integers in product((False, True), (False, True)):
            shaped = [_shaped(row, drop_nulls, integers) for row in rows]
            where = self._write(path, _lines(shaped))
            if wanted is None or _digest_of(spec, self._target, self._suite["seed"]) == wanted:
                break
        else:
            self._write(path, _lines(rows))
        self._done.files = [*dict.fromkeys([*self._done.files, where])]

    def _examples(self, spec: dict[str, Any]) -> None:
        """Files of few-shot examples: those of splits belong to the dataset, those of paths to the prompt."""
        splits: dict[str, str] = {}
        for prompt in self._suite["prompts"]:
            few_shot = prompt.get("few_shot")
            kept = examples_path(self._folder, prompt["id"], spec["id"])
            if not few_shot or not kept.exists():
                continue
            rows = _read_kept(kept)
            split = few_shot.get("split")
            given = (spec.get("splits") or {}).get(split) if split else few_shot.get("path")
            if _is_jsonl(given, None):
                path = str(given)
            else:
                owner, what = (spec["id"], split) if split else (prompt["id"], "examples")
                path = f"data/{_plain_name(owner)}-{_plain_name(what)}.jsonl"
            self._write(path, _lines(rows))
            if split:
                splits[split] = path
            else:
                few_shot["path"] = path
        spec["splits"] = splits

    # What lies elsewhere

    def _absolute(self, value: Any, where: str) -> Any:
        """Names of files beside the original suite, made absolute: weights and the like are not copied."""
        if isinstance(value, Mapping):
            return {key: self._absolute(each, f"{where}.{key}") for key, each in value.items()}
        if isinstance(value, list):
            return [self._absolute(each, where) for each in value]
        if isinstance(value, str) and 0 < len(value) < 1000 and "\n" not in value and "." in value:
            there = self._origin / value
            if not Path(value).is_absolute() and there.exists():
                self._done.notes.append(f"{where}: '{value}' is not copied; it is read where it lies")
                return str(there.resolve())
        if isinstance(value, str) and where.endswith(".function") and ":" in value:
            self._done.notes.append(f"{where}: the code of '{value}' is not kept")
        return value

    # Files

    def _write(self, name: str, data: bytes) -> Path:
        path = self._target / inside(name, self._folder.path.name)
        if not path.resolve().is_relative_to(self._target.resolve()):
            raise UserError(f"the path '{name}' leads out of the folder", where=self._folder.path.name)
        private_folder(path.parent)
        write_private(path, data)
        if path not in self._done.files:
            self._done.files.append(path)
        return path

    def _compare(self) -> None:
        """Read what was written as a run would, and compare the digests."""
        from evalrun.datasets import open_dataset
        from evalrun.prompts import compile_prompt, open_pool
        from evalrun.suite.load import load_suite

        same, manifest = self._done.same, self._manifest
        try:
            suite = load_suite(self._done.suite).suite
        except UserError as error:
            self._done.notes.append(f"the suite cannot be read here as it stands: {error}")
            return
        for dataset in suite.datasets:
            wanted = manifest["datasets"].get(dataset.id, {}).get("digest")
            if wanted is not None:
                same[f"dataset {dataset.id}"] = (
                    _digest(lambda dataset=dataset: open_dataset(dataset, self._target.resolve(), suite.seed))
                    == wanted
                )
        for prompt in suite.prompts:
            known = manifest["prompts"].get(prompt.id)
            if known is not None:
                same[f"prompt {prompt.id}"] = (
                    _digest(
                        lambda prompt=prompt, known=known: compile_prompt(
                            prompt, self._target.resolve(), known.get("api", "chat")
                        )
                    )
                    == known["digest"]
                )
            for dataset in suite.datasets:
                key = f"{prompt.id}/{dataset.id}"
                wanted = (manifest.get("examples") or {}).get(key)
                if wanted is not None and prompt.few_shot is not None:
                    few_shot = prompt.few_shot
                    same[f"examples {key}"] = (
                        _digest(
                            lambda dataset=dataset, few_shot=few_shot: open_pool(
                                dataset, few_shot, self._target.resolve(), suite.seed
                            )
                        )
                        == wanted
                    )


def inside(name: str, where: str) -> str:
    """The path, if it stays in a folder that it is put into. Raises UserError."""
    if not is_inside(name):
        raise UserError(f"the path '{name[:200]}' in the manifest leads out of the folder", where=where)
    return name


def is_inside(name: str) -> bool:
    """Whether a path is relative and climbs nowhere."""
    parts = PurePosixPath(name).parts
    return (
        bool(parts)
        and not name.startswith("/")
        and ".." not in parts
        and "\\" not in name
        and "\0" not in name
    )


def _is_jsonl(path: Any, format_: Any) -> bool:
    return (
        isinstance(path, str)
        and is_inside(path)
        and path.endswith((".jsonl", ".ndjson"))
        and format_ in (None, "jsonl")
    )


def _plain_name(name: str) -> str:
    return "".join(each if each.isalnum() or each in "._-" else "_" for each in name).strip(".") or "x"


def _read_kept(path: Path) -> list[dict[str, JSON]]:
    with gzip.open(path, "rb") as file:
        return [exact_json(line) for line in file]


def _sample_rows(path: Path) -> Iterator[tuple[str, int, dict[str, JSON]]]:
    from evalrun.tracking.parquet import column_names, iter_samples

    names = [column_name for column_name in column_names(path) if column_name.startswith("vars.")]
    for row in iter_samples(path, columns=["sample_id", "position", *names], decode=True):
        yield str(row["sample_id"]), int(row["position"]), {name[5:]: row[name] for name in names}


def _shaped(row: Mapping[str, JSON], drop_nulls: bool, integers: bool) -> dict[str, JSON]:
    return {
        key: int(value) if integers and isinstance(value, float) and value.is_integer() else value
        for key, value in row.items()
        if not (drop_nulls and value is None)
    }


def _lines(rows: Iterable[Mapping[str, JSON]]) -> bytes:
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def _digest_of(spec: Mapping[str, Any], target: Path, seed: int) -> str | None:
    from evalrun.datasets import open_dataset
    from evalrun.suite.dataset import DatasetSpec

    plain = {key: value for key, value in spec.items() if value is not None}
    return _digest(lambda: open_dataset(DatasetSpec.model_validate(plain), target.resolve(), seed))


def _digest(open_: Any) -> str | None:
    try:
        found: str = open_().digest
    except UserError:
        return None
    return found


def _compact(suite: Mapping[str, Any]) -> dict[str, Any]:
    """Without the keys of the suite and its entries that say nothing. What is deeper (rows, parameters) is
    the user's, and stays as it is."""

    def says(value: Any) -> bool:
        return value is not None and value not in ([], {}, "")

    short: dict[str, Any] = {key: value for key, value in suite.items() if says(value)}
    for section in ("models", "prompts", "datasets"):
        short[section] = [
            {key: value for key, value in each.items() if says(value)} for each in suite[section]
        ]
    return short
