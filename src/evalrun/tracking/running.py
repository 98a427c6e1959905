"""A sweep that is running, as its journals tell: what is done, how it stands, when the last sample came.

What is said here holds until the run is finished: means are of the samples so far, which are not drawn at
random from all (quick ones come first), so they have no interval.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.lines import read_record
from evalrun.results import RunResults, Timings
from evalrun.tracking.folder import SAMPLES, SweepFolder
from evalrun.tracking.model import PlannedRun
from evalrun.types import Counts, MetricValue

JOURNAL = "journal.jsonl"
RUNNING = "running"
_SO_FAR = "of the samples so far"


@frozen
class RunningRun:
    """A run that has answers and no results yet: `results` so far, how many samples it will have (None where
    that is not known), and when the last one was written (ISO 8601, UTC)."""

    results: RunResults
    of: int | None
    last_sample_at: str

    def sentence(self) -> str:
        """How it stands, in one line."""
        run, planned = self.results, f" of {self.of:,}" if self.of is not None else ""
        figures = [f"{m.name} {m.value:.4g} (n = {m.n:,})" for m in run.metrics if m.value is not None]
        counts = {"failed": run.counts.failed, "unparsed": run.counts.unparsed}
        lost = [f"{n:,} {name}" for name, n in counts.items() if n]
        last = datetime.fromisoformat(self.last_sample_at)
        ago = max(0.0, (datetime.now(UTC) - last).total_seconds())
        shown = "; ".join([f"{run.counts.samples:,}{planned} samples", *lost, *figures])
        return f"{run.run} is not finished: {shown}; the last sample {ago:,.0f} s ago ({last:%H:%M:%S} UTC)"


def running_runs(folder: SweepFolder) -> list[RunningRun]:
    """The runs of a sweep that have a journal and no results, in the order of the plan."""
    finished, manifest = set(folder.run_ids()), folder.manifest()
    found = []
    for planned in manifest.plan:
        journal = folder.path / "runs" / planned.run / JOURNAL
        if planned.run in finished or not journal.exists():
            continue
        n = manifest.datasets.get(planned.dataset, {}).get("n")
        of = n * (planned.repeats or 1) if isinstance(n, int) else None
        at = datetime.fromtimestamp(journal.stat().st_mtime, UTC).isoformat(timespec="seconds")
        found.append(RunningRun(_so_far(planned, journal), of, at))
    return found


def _so_far(planned: PlannedRun, journal: Path) -> RunResults:
    states: dict[tuple[object, object], str] = {}
    sums: dict[str, tuple[int, float, float]] = {}
    cached = 0
    with journal.open("rb") as file:
        for line in file:
            record = read_record(line)
            if record is None:
                continue
            states[record["sample_id"], record.get("repeat")] = str(record.get("status"))
            cached += bool(record.get("cached"))
            for name, value in (record.get("scores") or {}).items():
                if isinstance(value, int | float) and math.isfinite(value):
                    n, total, squares = sums.get(name, (0, 0.0, 0.0))
                    sums[name] = n + 1, total + value, squares + value * value
    kinds = list(states.values())
    counted = {name: kinds.count(name) for name in ("scored", "unparsed", "refused", "failed")}
    return RunResults(
        run=planned.run,
        model=planned.model,
        prompt=planned.prompt,
        dataset=planned.dataset,
        params=planned.params,
        repeats=planned.repeats or 1,
        status="running",
        counts=Counts(samples=len(kinds), cached=cached, **counted),
        metrics=tuple(_mean(name, *of) for name, of in sums.items()),
        timings=Timings(),
    )


def _mean(name: str, n: int, total: float, squares: float) -> MetricValue:
    variance = (squares - total * total / n) / (n - 1) if n > 1 else None
    se = math.sqrt(max(0.0, variance) / n) if variance is not None else None
    return MetricValue(name, total / n, n, "", "higher", se=se, note=_SO_FAR)


@contextlib.contextmanager
def samples_file(folder: SweepFolder, run_id: str) -> Iterator[Path]:
    """The samples of a run as a Parquet file: of one that is running a copy of its journal so far, which is
    there as long as the context."""
    path = folder.samples_path(run_id)
    journal = path.with_name(JOURNAL)
    if path.exists() or not journal.exists():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="evalrun-running-") as place:
        yield _copied(journal, Path(place) / SAMPLES)


@contextlib.contextmanager
def running_files(folders: Sequence[SweepFolder]) -> Iterator[list[Path]]:
    """A Parquet file for each run of these sweeps that is running, below folders of the sweeps' names."""
    with tempfile.TemporaryDirectory(prefix="evalrun-running-") as place:
        found = []
        for folder in folders:
            if folder.unfinished_digest() is None or not folder.is_locked():
                continue
            with contextlib.suppress(UserError, OSError):
                for run in running_runs(folder):
                    out = Path(place) / folder.path.name / "runs" / run.results.run / SAMPLES
                    out.parent.mkdir(parents=True)
                    found.append(_copied(folder.path / "runs" / run.results.run / JOURNAL, out))
        yield found


def _copied(journal: Path, out: Path) -> Path:
    from evalrun.tracking.parquet import journal_to_parquet

    journal_to_parquet(journal, out)
    return out
