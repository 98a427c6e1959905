"""Rows from the Hugging Face Hub, through the `datasets` library.

The library is imported only here, and only when rows are read. The revision is resolved to a commit first, so
that what was used is known even where a branch was named.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.datasets.source import Findings, Record, Source, json_row
from evalrun.errors import ExitCode, UserError
from evalrun.registry import nearest
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.suite.dataset import DatasetSpec

SMALL_LIMIT = 1000
"""Up to this many rows are streamed; for more, the dataset is downloaded once and kept by `datasets`."""

_TIMEOUT_S = 15


class Hub(Source):
    """A split of a dataset on the Hub, of which `limit` rows are wanted (None for all)."""

    def __init__(self, spec: DatasetSpec, split: str | None, limit: int | None) -> None:
        assert spec.hub is not None
        self._spec, self._split, self._name = spec, split, spec.hub
        self._streaming = limit is not None and limit <= SMALL_LIMIT and not spec.shuffle
        self.repeatable = not self._streaming
        self._commit: str | None = None
        self._rows: Any = None

    def place(self, number: int) -> str:
        return f"{self._name} ({self._split or 'no split'}): row {number}"

    def describe(self) -> dict[str, JSON]:
        return {
            "kind": "hub",
            "name": self._name,
            "config": self._spec.config,
            "split": self._split,
            "revision": self._spec.revision,
            "commit": self._commit,
            "streaming": self._streaming,
        }

    def records(self, findings: Findings) -> Iterator[Record]:
        if self._rows is None:
            self._rows = self._load()
        try:
            for number, row in enumerate(self._rows, 1):
                try:
                    yield number, -1, json_row(row)
                except ValueError as error:
                    findings.add(str(error), self.place(number))
        except Exception as error:  # a stream raises whatever its HTTP library does
            raise self._unreachable(error) from error

    def _load(self) -> Any:
        local = Path(self._name).is_dir()
        if not local:
            self._commit = self._resolve()
        if self._commit is None and not local and not self._in_cache():
            raise self._unreachable(None)
        import datasets

        quiet = datasets.utils.logging.get_verbosity()
        datasets.utils.logging.set_verbosity_error()
        try:
            return self._one_split(
                datasets.load_dataset(
                    self._name,
                    self._spec.config,
                    split=self._split,
                    revision=self._commit or self._spec.revision,
                    streaming=self._streaming,
                )
            )
        except UserError:
            raise
        except OSError as error:  # the library's ConnectionError and its missing-file errors
            raise self._missing(error) if self._commit else self._unreachable(error) from error
        except Exception as error:  # it raises a great many kinds
            raise self._missing(error) from error
        finally:
            datasets.utils.logging.set_verbosity(quiet)

    def _one_split(self, loaded: Any) -> Any:
        if self._split is not None:
            return loaded
        splits = list(loaded)
        if len(splits) == 1:
            self._split = splits[0]
            return loaded[splits[0]]
        raise UserError(
            f"the dataset has several splits: {', '.join(splits)}",
            where=f"dataset {self._spec.id}",
            remedy=f"Name one: split: {splits[0]}.",
        )

    def _resolve(self) -> str | None:
        """The commit that the revision means now, or None where the Hub cannot be reached.

        Raises UserError when the Hub answers that there is no such dataset or revision.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.errors import (
            GatedRepoError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        try:
            info = HfApi().dataset_info(self._name, revision=self._spec.revision, timeout=_TIMEOUT_S)
            return info.sha
        except (RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError, ValueError) as error:
            if isinstance(error, OfflineModeIsEnabled):
                return None
            raise self._missing(error) from error
        except Exception:  # whatever its HTTP library raises where nothing answers, or not as the Hub does
            return None

    def _in_cache(self) -> bool:
        """Whether an earlier download may still serve, so that `datasets` is worth asking."""
        from huggingface_hub import constants

        owner_and_name = self._name.replace("/", "--")
        prepared = Path(constants.HF_HOME) / "datasets" / self._name.replace("/", "___")
        return prepared.is_dir() or (Path(constants.HF_HUB_CACHE) / f"datasets--{owner_and_name}").is_dir()

    def _unreachable(self, error: Exception | None) -> UserError:
        reason = f": {_first_line(error)}" if error else ""
        return UserError(
            f"the Hugging Face Hub cannot be reached for '{self._name}'{reason}",
            where=f"dataset {self._spec.id}",
            remedy=f"Use a local copy: --data {self._spec.id}=PATH (JSONL, CSV, Parquet or JSON).",
            exit_code=ExitCode.INCOMPLETE,
        )

    def _missing(self, error: Exception) -> UserError:
        text = _first_line(error)
        near = nearest(self._split or "", [name for name in _quoted(text) if name != self._split])
        hint = f" Did you mean '{near}'?" if near else ""
        return UserError(
            f"'{self._name}' cannot be loaded from the Hub: {text}",
            where=f"dataset {self._spec.id}",
            remedy=f"Check hub, config, split and revision.{hint} "
            f"A local copy does as well: --data {self._spec.id}=PATH.",
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _quoted(text: str) -> list[str]:
    """The names in a message such as: Unknown split "tset". Should be one of ['train', 'test']."""
    return [part for part in text.replace('"', "'").split("'")[1::2] if part]
