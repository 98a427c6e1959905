"""Where documents come from: local files in the place of the Hub, where there are any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .values import Fault, first_line

SUFFIXES = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".gz": "json"}
_SPLITS = ("test", "validation", "train", "dev")


class Data:
    """Sends `datasets.load_dataset` to local files: those of one task, else those in a folder for all."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.files: dict[str, dict[str, str]] = {}
        self.task = ""
        self.used: dict[str, str] = {}

    def install(self) -> None:
        """Stand in front of `load_dataset`, and note which task is being loaded."""
        import datasets
        from lm_eval.api.task import ConfigurableTask

        original, download = datasets.load_dataset, ConfigurableTask.download

        def load(path: str, name: str | None = None, *args: Any, **kwargs: Any) -> Any:
            return self.load(original, path, name, *args, **kwargs)

        def noting(task: Any, *args: Any, **kwargs: Any) -> Any:
            self.task = str(task.config.task)
            return download(task, *args, **kwargs)

        datasets.load_dataset = load
        ConfigurableTask.download = noting

    def load(self, original: Any, path: str, name: str | None, *args: Any, **kwargs: Any) -> Any:
        """The data set, from local files where there are any. Raises Fault that names it."""
        shown = f"{path}{f' ({name})' if name else ''}"
        try:
            if self.task in self.files:
                self.used[self.task] = f"files of {self.task}"
                return self._of_files(original, self.files[self.task])
            local = self._in_folder(path, name)
            if isinstance(local, dict):
                self.used[self.task] = f"{shown} from {self.folder}"
                return self._of_files(original, local)
            if local is not None:
                self.used[self.task] = f"{shown} from {local[0]}"
                kwargs.pop("revision", None)
                return original(local[0], local[1], *args, **kwargs)
            self.used[self.task] = shown
            return original(path, name, *args, **kwargs)
        except Fault:
            raise
        except Exception as error:
            files = {**(kwargs.get("data_files") or {})} if isinstance(kwargs.get("data_files"), dict) else {}
            of = f" ({', '.join(map(str, files.values()))})" if files else ""
            raise Fault(
                f"the data set {shown}{of} of task {self.task} cannot be read: {first_line(error)}",
                f"Give its files: --data {self.task}=test.jsonl,train=train.jsonl; or name a folder that has "
                f"{path}/ by task_data or EVALRUN_TASK_DATA.",
                "data",
            ) from error

    def _of_files(self, original: Any, files: dict[str, str]) -> Any:
        for split, file in files.items():
            if not Path(file).is_file():
                raise Fault(f"there is no file '{file}' (split {split} of task {self.task})", "", "data")
        kinds = {SUFFIXES.get(Path(file).suffix.lower(), "json") for file in files.values()}
        if len(kinds) > 1:
            raise Fault(f"the files of task {self.task} are of several formats", "Use one format.", "data")
        kind = kinds.pop()
        field = _rows_under(next(iter(files.values()))) if kind == "json" else None
        return original(kind, data_files=dict(files), **({"field": field} if field else {}))

    def _in_folder(self, path: str, name: str | None) -> tuple[str, str | None] | dict[str, str] | None:
        """A data set's folder with its configuration, or its files by split; None where there is none."""
        if not self.folder or path in ("json", "csv", "parquet", "text", "arrow"):
            return None
        for folder in (Path(self.folder, path), Path(self.folder, path.rpartition("/")[2])):
            if not folder.is_dir():
                continue
            if name and (folder / name).is_dir():
                return _split_files(folder / name) or (str(folder / name), None)
            if name and (
                one := next(
                    (folder / f"{name}{end}" for end in SUFFIXES if (folder / f"{name}{end}").is_file()), None
                )
            ):
                return {"test": str(one)}
            if _has_configs(folder):
                return str(folder), name
            if name and (named := _split_files(folder, name)):
                return named
            return _split_files(folder) or (str(folder), None)
        return None


def _rows_under(file: str) -> str | None:
    """The key of a JSON document that holds the rows, where it is an object with one list of objects."""
    if not file.endswith(".json"):
        return None
    try:
        document = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError:  # JSON lines; what is neither is told of when it is read
        return None
    rows = [
        key
        for key, value in (document.items() if isinstance(document, dict) else ())
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value)
    ]
    return rows[0] if len(rows) == 1 else None


def _has_configs(folder: Path) -> bool:
    readme = folder / "README.md"
    return readme.is_file() and "configs:" in readme.read_text(encoding="utf-8", errors="replace")[:20_000]


def _split_files(folder: Path, name: str = "") -> dict[str, str]:
    """Files that are named for a split: test.jsonl, train_head200.jsonl, main-test.parquet."""
    found: dict[str, str] = {}
    for file in sorted(folder.iterdir()):
        stem = file.name.removesuffix(".gz").rpartition(".")[0].lower()
        if file.suffix.lower() not in SUFFIXES or not stem.startswith(name.lower()):
            continue
        words = stem.removeprefix(name.lower()).replace("-", "_").strip("_").split("_")
        for split in _SPLITS:
            if split in words:
                found.setdefault(split, str(file))
    return found
