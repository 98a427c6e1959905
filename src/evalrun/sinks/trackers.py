"""What Weights & Biases and trackio have in common: one run of theirs for each run, its figures logged once.

Their clients are driven in the process that sends, never in a sweep's. What they would add by themselves
(console, git state, packages, machine) is switched off.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import sqlite3
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from evalrun.errors import UserError
from evalrun.results import RunResults
from evalrun.secrets import scrub, scrub_json
from evalrun.sinks.base import WORDS, Item, Refused, Sink, Unreachable
from evalrun.sinks.mlflow import failing, metric_rows
from evalrun.sinks.otlp import read_rows
from evalrun.suite.findings import complaint
from evalrun.suite.values import Spec
from evalrun.tracking.folder import SweepFolder

MOST_ROWS = 200


def _project(name: str) -> str:
    """A name that both take: it becomes a part of addresses and of file names."""
    if (
        not name.strip()
        or len(name) > 128
        or any(char in "/\\#?%:" or not char.isprintable() for char in name)
    ):
        raise complaint(
            f"'{name[:60]}' cannot name a project there",
            "At most 128 characters, without / \\ # ? % and :.",
        )
    return name


class TrackerOptions(Spec):
    """Options of both."""

    project: Annotated[str, AfterValidator(_project)] = Field(description="Name of the project there.")
    content: bool = Field(
        default=False, description="A table of failing samples with prompts, answers and targets."
    )


class Tracker(Sink):
    """A sink that is a Python client. `package` is what has to be installed."""

    shorthand = "project"
    package: ClassVar[str]
    places: ClassVar[tuple[str, ...]]
    """Variables of the environment that say where it is sent or kept."""

    def __init__(self, options: Any) -> None:
        if importlib.util.find_spec(self.package) is None:
            remedy = f"pip install 'evalrun-llm[{self.package}]'"
            raise UserError(f"the package {self.package} is not installed", where="sinks", remedy=remedy)
        self._options = options
        # What was sent to one place is not there in another.
        own = [getattr(options, "entity", None), options.project, getattr(options, "mode", None)]
        said = [*own, *(f"{name}={os.environ[name]}" for name in self.places if os.environ.get(name))]
        self.address = scrub(" ".join(filter(None, said)))

    def items(self, folder: SweepFolder) -> Iterator[Item]:
        """One for each finished run."""
        manifest = folder.read_manifest()
        for run_id in folder.run_ids():
            if folder.is_finished(run_id):
                path = folder.run_dir(run_id) / "run.json"
                digest = hashlib.sha256(path.read_bytes() + str(self._options.content).encode()).hexdigest()
                yield Item(f"run/{run_id}", digest, partial(tuple, (folder, manifest, run_id)))

    def send(self, item: Item) -> str:
        """Log one run, with what their client prints kept from ours."""
        folder, manifest, run_id = item.body()
        results = folder.run(run_id)
        figures = {row["key"]: row["value"] for row in metric_rows(results, 0)[0]}
        figures = {name: value for name, value in figures.items() if not isinstance(value, str)}
        table = list(self._table(folder, results)) if self._options.content else []
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                return self.log(folder.ulid, results, _config(manifest, results), figures, table)
            except (OSError, sqlite3.OperationalError) as error:  # no room, no permission, locked, no answer
                raise Unreachable(scrub(f"{type(error).__name__}: {error}")[:WORDS]) from error
            except (ValueError, RuntimeError) as error:
                raise Refused(scrub(f"{type(error).__name__}: {error}")[:WORDS]) from error

    def _table(self, folder: SweepFolder, results: RunResults) -> Iterator[dict[str, str]]:
        """Failing samples, all as text: a column of mixed types is refused."""
        rows = (row for row in read_rows(folder, results.run, True) if failing(row, results))
        columns = ("sample_id", "status", "prompt", "messages", "output", "target")
        for row in islice(rows, MOST_ROWS):
            yield {name: scrub(str(row.get(name) or "")) for name in columns}

    @abstractmethod
    def log(
        self,
        sweep: str,
        results: RunResults,
        config: Mapping[str, Any],
        figures: Mapping[str, float],
        table: list[dict[str, str]],
    ) -> str:
        """Log a run by their client; returns its id there."""


def _config(manifest: Mapping[str, Any], results: RunResults) -> dict[str, Any]:
    data = manifest["datasets"].get(results.dataset) or {}
    config: dict[str, Any] = scrub_json(
        {
            "model": results.model, "prompt": results.prompt, "dataset": results.dataset,
            "dataset_digest": data.get("digest"), "evalrun_sweep": manifest["sweep"],
            "evalrun_run": results.run,
            **{f"params.{name}": value for name, value in results.params.items()},
        }
    )  # fmt: skip
    return config
