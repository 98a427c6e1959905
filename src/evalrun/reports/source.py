"""Reads a sweep folder, typed: what `sweep.json` says, the runs' results, and where their Parquet files are.

Only the documented files are read, so that a folder copied from another machine gives the same report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from evalrun.analysis.conclude import read_sweep
from evalrun.documents import read
from evalrun.frozen import frozen
from evalrun.reports.numbers import moment, plural
from evalrun.results import ERASED_SINCE, RunResults
from evalrun.search_results import SearchResults
from evalrun.sweep_results import GateVerdict, Previous, StoppedEarly, SweepResults, TaskGroup
from evalrun.tracking.folder import SAMPLES, SYSTEM, SweepFolder
from evalrun.tracking.parquet import changed, damage
from evalrun.types import JSON

MANY_UNREADABLE = 5
"""Runs whose samples cannot be read that are named one by one."""


@frozen
class Planned:
    """One cell of the matrix. `ablates` names the prompt of which it leaves a part out."""

    run: str
    model: str
    prompt: str
    dataset: str
    params: Mapping[str, JSON] = field(default_factory=dict)
    ablates: JSON = None


@frozen
class AlertVerdict:
    """An alert on one run: whether it could be `checked`, and whether it `fired`."""

    alert: str
    run: str | None = None
    fired: bool = False
    checked: bool = True
    value: float | None = None
    reason: str = ""


@frozen
class Performance:
    """How answers were asked for."""

    stream: bool = True
    warmup: int | None = None
    timeout_s: float | None = None


@frozen
class FairnessColumns:
    """The columns whose groups are compared, and those taken together."""

    by: tuple[JSON, ...] = ()
    intersections: tuple[tuple[str, ...], ...] = ()


@frozen
class NamedModel:
    """A model of the suite, or one that judges only: its id, and what it is called where it is served."""

    id: str = ""
    model: str | None = None


@frozen
class ReportColumns:
    """The columns by whose values scores are told."""

    by: tuple[str, ...] = ()


@frozen
class Examples:
    """Which worked examples a prompt shows before the question."""

    count: int | None = None
    first: int | None = None
    ids: tuple[JSON, ...] | None = None
    same: bool | None = None
    of_own: str | None = None
    split: str | None = None
    path: str | None = None

    @property
    def sentence(self) -> str:
        """`the first 3 rows of few.jsonl (the same for every sample)`; empty for none."""
        number = len(self.ids or ()) or self.first or self.count or 0
        if not number:
            return ""
        rows = "row" if number == 1 else "rows"
        which = f"{number} chosen {rows}" if self.ids else f"the first {number} {rows}" if self.first else ""
        lead = which or f"{number} {rows} drawn by the seed"
        of = self.path or (f"the split {self.split}" if self.split else "the dataset")
        own = f" with the sample's own {self.of_own}" if self.of_own else ""
        same = " (the same for every sample)" if self.same or ((self.ids or self.first) and not own) else ""
        return f"{lead} of {of}{own}{same}"


@frozen
class AskedBy:
    """A prompt as the suite has it, as far as its text does not say it."""

    id: str = ""
    messages: JSON = None
    few_shot: Examples | None = None
    parse: tuple[JSON, ...] | None = None

    @property
    def roles(self) -> list[str]:
        """Who speaks, message by message; empty where the messages stand in the data."""
        listed = self.messages if isinstance(self.messages, list) else []
        return [str(each["role"]) for each in listed if isinstance(each, Mapping) and "role" in each]


@frozen
class Suite:
    """The suite as it was understood, as far as a report speaks of it."""

    description: str | None = None
    seed: int | None = None
    repeats: int | None = None
    parse: tuple[JSON, ...] | None = ()
    scorers: tuple[JSON, ...] | None = ()
    models: tuple[NamedModel, ...] | None = ()
    prompts: tuple[AskedBy, ...] | None = ()
    report: ReportColumns | None = None
    judges: tuple[NamedModel, ...] | None = ()
    unparsed: str | None = None
    performance: Performance | None = Performance()
    load: Mapping[str, JSON] | None = None
    fairness: FairnessColumns | None = None


@frozen
class SuiteText:
    """The suite as it was read (`text`) and as it was understood (`resolved`)."""

    path: str | None = None
    text: str | None = None
    digest: str | None = None
    resolved: Suite | None = None


@frozen
class Manifest:
    """What `sweep.json` says: what was asked for, of whom, with what, and how it ended.

    Provenance, models, datasets and prompts are shown as they are, whatever they hold.
    """

    sweep: str
    name: str
    project: str = ""
    status: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    inconclusive: str = "pass"
    suite: SuiteText = SuiteText()
    plan: tuple[Planned, ...] = ()
    gates: tuple[GateVerdict, ...] = ()
    groups: tuple[TaskGroup, ...] = ()
    baseline: str | None = None
    alerts: tuple[AlertVerdict, ...] = ()
    faults: tuple[str, ...] = ()
    provenance: Mapping[str, JSON] = field(default_factory=dict)
    models: Mapping[str, JSON] = field(default_factory=dict)
    cards: Mapping[str, JSON] = field(default_factory=dict)
    datasets: Mapping[str, JSON] = field(default_factory=dict)
    prompts: Mapping[str, JSON] = field(default_factory=dict)
    seeds: Mapping[str, JSON] = field(default_factory=dict)
    tags: Mapping[str, JSON] = field(default_factory=dict)
    oldest_cached: str | None = None
    previous: Previous | None = None
    search: SearchResults | None = None
    stopped_early: StoppedEarly | None = None
    stopped_while_looking: bool = False


@frozen
class Source:
    """A sweep as it lies on disk: its manifest, its finished runs in the order of the plan, and what they
    together came to."""

    path: Path
    manifest: Manifest
    runs: tuple[RunResults, ...]
    results: SweepResults

    @classmethod
    def of(cls, folder: SweepFolder) -> Source:
        """Read the documents of a sweep folder. Raises UserError where one cannot be read."""
        found = read_sweep(folder)
        manifest = read(Manifest, found.manifest, folder.path / "sweep.json")
        return cls(folder.path, manifest, found.runs, found.results)

    @property
    def suite(self) -> Suite:
        """The suite as it was understood."""
        return self.manifest.suite.resolved or Suite()

    @property
    def missing(self) -> int:
        """How many planned runs have no results."""
        present = {run.run for run in self.runs}
        return sum(cell.run not in present for cell in self.manifest.plan)

    def samples(self, run_id: str) -> Path | None:
        """The samples of a run, if they are there and whole."""
        return self._file(run_id, SAMPLES)

    def system(self, run_id: str) -> Path | None:
        """The resource readings of a run, if they are there."""
        return self._file(run_id, SYSTEM)

    @property
    def ended_early(self) -> list[str]:
        """What is to be known of a sweep whose runs ended, or that was stopped, by what was seen; nothing of
        others."""
        said, early = [], self.manifest.stopped_early
        if early is not None:
            asked, rows = sum(early.asked.values()), sum(early.rows.values())
            until = "" if early.until is None else f"until \u00b1{early.until:g} (of the {early.of})"
            when = " and ".join(filter(None, ["as soon as it was decided" if early.decided else "", until]))
            said.append(
                f"Sequential: runs were asked {when}, {asked:,} of {rows:,} rows in all. Intervals and p of "
                f"headline, gates and standings are always-valid: they hold at {early.alpha:g} however often "
                "one looked."
            )
        if self.manifest.stopped_while_looking:
            said.append(
                "Stopped while looking: it was interrupted while scores were shown. Whoever stops when a "
                "figure looks good gets one that is too good; intervals for a fixed number of rows hold for "
                "none that ended so. --until and --stop-when-decided end a sweep by what may be looked at."
            )
        return said

    @property
    def erased(self) -> list[str]:
        """One sentence for each run that samples were erased from."""
        return [
            f"{run.run}: {warning}."
            for run in self.runs
            for warning in run.warnings
            if warning.endswith(ERASED_SINCE)
        ]

    @property
    def from_cache(self) -> str:
        """How many answers were given another day, and when the oldest; nothing where none was."""
        cached = sum(run.counts.cached for run in self.runs)
        if not cached:
            return ""
        samples = sum(run.counts.samples for run in self.runs)
        oldest = (
            f", the oldest of {moment(self.manifest.oldest_cached)}" if self.manifest.oldest_cached else ""
        )
        return f"{cached:,} of {samples:,} answers came from the cache{oldest}."

    @property
    def unreadable(self) -> list[str]:
        """One sentence for each run whose samples are missing or damaged: what needs them is left out."""
        found = []
        for run in self.runs:
            path = self.path / "runs" / run.run / SAMPLES
            if (why := damage(path)) is not None:
                found.append(f"The samples of {run.run} cannot be shown or tested: {why} ({path}).")
            elif (why := changed(path, run.digests)) is not None:
                found.append(f"The samples of {run.run} are not those of its figures: {why} ({path}).")
        return found

    def _file(self, run_id: str, name: str) -> Path | None:
        path = self.path / "runs" / run_id / name
        return path if damage(path) is None else None


def column_titles(suite: Suite) -> dict[str, str]:
    """How columns taken together are called: `a-b` is a \N{MULTIPLICATION SIGN} b."""
    crossed = suite.fairness.intersections if suite.fairness else ()
    return {"-".join(names): " \N{MULTIPLICATION SIGN} ".join(names) for names in crossed}


def missing_runs(source: Source) -> str:
    """How many of the planned runs have no results."""
    have = "has" if source.missing == 1 else "have"
    return f"{source.missing} of {plural(source.missing + len(source.runs), 'run')} {have} no results."
