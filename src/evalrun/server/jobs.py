"""Work that reads samples or draws reports, in processes of their own: what it takes of memory goes with it,
what a crafted file does to a library ends there, and it can be ended when it takes too long.

`python -m evalrun.server.jobs` reads one job from its input and prints what came of it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from evalrun._version import __version__
from evalrun.atomic import private_folder
from evalrun.errors import UserError
from evalrun.server.memory import Memory
from evalrun.tracking.folder import SweepFolder, stamp
from evalrun.tracking.store import Store

AT_ONCE, TIMEOUT_S, MEMORY = 2, 180, 6 << 30
FOLDER, KEPT, MOST_KEPT = "server-pages", 300, 64


def page_stamp(folder: SweepFolder) -> str:
    """Changes whenever the sweep's documents or what people say of it do."""
    last = folder.last_event()
    return f"{stamp(folder)} {last['hash'] if last else ''}"


@dataclass
class Jobs:
    """Runs jobs, at most two at once, and keeps the pages that they draw."""

    store: Store
    _turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(AT_ONCE))
    _locks: dict[str, threading.Lock] = field(default_factory=dict)
    _answers: Memory[Any] = field(default_factory=lambda: Memory(MOST_KEPT))

    def run(self, job: str, **values: Any) -> Any:
        """What a job gives back. Raises UserError with what was wrong."""
        said = orjson.dumps({"job": job, "store": str(self.store.root), "values": values}, default=str)
        with self._turn:
            try:
                done = subprocess.run(
                    [sys.executable, "-m", "evalrun.server.jobs"],
                    input=said, capture_output=True, timeout=TIMEOUT_S, check=False, start_new_session=True,
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise UserError(f"it took more than {TIMEOUT_S} s and was ended") from error
        try:
            answer = orjson.loads(done.stdout.splitlines()[-1])
        except (ValueError, IndexError) as error:
            what = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
            raise UserError(
                f"the samples cannot be read: {what or f'exit code {done.returncode}'}"
            ) from error
        if "error" in answer:
            raise UserError(str(answer["error"]))
        return answer["result"]

    def sample_ids(self, folder: SweepFolder, run: str) -> frozenset[str]:
        """The ids of a run's samples; those of the runs asked for last are kept."""
        return self._answers.keep(
            (folder.ulid, run, stamp(folder)), lambda: frozenset(self.run("ids", sweep=folder.ulid, run=run))
        )

    def kept(self, job: str, stamps: Sequence[str], **values: Any) -> Any:
        """What a job gives back; with the same stamps what it gave back before."""
        key = repr((job, stamps, sorted(values.items(), key=str)))
        return self._answers.keep(key, lambda: self.run(job, **values))

    def page(self, job: str, stamps: Sequence[str], **values: Any) -> Path:
        """The page of a job, drawn unless it is kept from before with the same stamps."""
        key = hashlib.sha256(repr((job, __version__, stamps, sorted(values.items()))).encode()).hexdigest()
        folder = private_folder(self.store.root / FOLDER)
        out = folder / f"{key}.html"
        with self._locks.setdefault(key, threading.Lock()):
            if not out.exists():
                self.run(job, out=str(out), **values)
                self._prune(folder)
            else:
                os.utime(out)
        self._locks.pop(key, None)
        return out

    def _prune(self, folder: Path) -> None:
        pages = sorted(folder.glob("*.html"), key=lambda page: page.stat().st_mtime)
        for page in pages[:-KEPT]:
            page.unlink(missing_ok=True)


# In the child


def _report(store: Store, *, out: str, sweep: str) -> None:
    from evalrun.reports.report import write_report

    write_report(store.resolve(sweep), Path(out), home=f"/s/{sweep}")


def _compare(store: Store, *, out: str, sweeps: Sequence[str]) -> None:
    from evalrun.analysis.beside import compare_beside
    from evalrun.analysis.compare import CompareOptions, compare
    from evalrun.analysis.pairing import choose
    from evalrun.reports.comparison import write_comparison

    options = CompareOptions()
    chosen = [choose(store, sweep) for sweep in sweeps]
    comparison = compare(chosen, options)
    scores = list(dict.fromkeys(each.metric for each in comparison.compared))
    beside = compare_beside(chosen, options, scores)
    write_comparison(comparison, [each.folder for each in chosen], Path(out), beside)


def _trend(store: Store, *, out: str, project: str, metric: str) -> None:
    from evalrun.reports.trend import trend_of, write_trend

    write_trend(trend_of(store, project, metric or None), Path(out))


def _check(_: Store, *, files: Sequence[str]) -> None:
    """Whether Parquet files that came from elsewhere can be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in files:
        try:
            with pq.ParquetFile(file) as opened:
                for batch in opened.iter_batches(1 << 14):
                    batch.validate(full=True)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{Path(file).name} is no whole Parquet file: {error}") from error


def _items(store: Store, **values: Any) -> Any:
    from evalrun.server.picking import pick_items

    return pick_items(store, **values)


def _label(store: Store, *, actor: str, sweep: str, run: str, file: str, column: str) -> Any:
    from dataclasses import asdict

    from evalrun.analysis.feedback import label
    from evalrun.tracking.events import acting_as
    from evalrun.tracking.people import LabelColumns
    from evalrun.tracking.targets import Target

    with acting_as(actor):
        return asdict(label(store, Target(store.resolve(sweep), run), Path(file), LabelColumns(column)))


def _agreement(_: Store, *, level: str, values: Sequence[Any], answers: Mapping[str, Any]) -> Any:
    from evalrun.analysis.annotators import agreement

    return agreement(answers, level, values)  # type: ignore[arg-type]


def _ids(store: Store, *, sweep: str, run: str) -> list[str]:
    """The ids of a run's samples."""
    import pyarrow.parquet as pq

    path = store.resolve(sweep).samples_path(run)
    return [str(each) for each in pq.read_table(path, columns=["sample_id"]).column(0).unique().to_pylist()]


def _feedback(store: Store, *, sweep: str) -> Any:
    from evalrun.server.picking import feedback_agreement

    return feedback_agreement(store, sweep)


JOBS: Mapping[str, Callable[..., Any]] = {
    "report": _report, "compare": _compare, "trend": _trend, "check": _check, "items": _items,
    "label": _label, "agreement": _agreement, "feedback": _feedback, "ids": _ids,
}  # fmt: skip


def main() -> None:
    """Do the job that stands on the input."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    out, sys.stdout = sys.stdout, sys.stderr  # nothing else may be printed there
    said = orjson.loads(sys.stdin.buffer.read())
    try:
        answer = {"result": JOBS[said["job"]](Store(Path(said["store"])), **said["values"])}
    except UserError as error:
        answer = {"error": "; ".join(str(problem) for problem in error.problems)}
    except MemoryError:
        answer = {"error": "there is too little memory for it"}
    out.write(orjson.dumps(answer, default=str, option=orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")


if __name__ == "__main__":
    main()
