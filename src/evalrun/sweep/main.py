"""One sweep from beginning to end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.analysis.conclude import RESULTS, conclude_sweep
from evalrun.atomic import place_for
from evalrun.errors import ExitCode, UserError
from evalrun.frozen import frozen
from evalrun.gates.check import check_sweep
from evalrun.reports.progress import Progress
from evalrun.results import Lost
from evalrun.runner.cache import ResponseCache
from evalrun.runner.cell import Stop, asked_price
from evalrun.runner.neighbours import Neighbours
from evalrun.suite.load import LoadedSuite, load_suite
from evalrun.sweep.alerts import check, tell
from evalrun.sweep.cards import model_cards
from evalrun.sweep.ending import exit_code_of, nothing_scored, status_of
from evalrun.sweep.estimate import Spending, running_s, spent_earlier
from evalrun.sweep.inputs import keep_inputs
from evalrun.sweep.lock import cell_digests, check_lock
from evalrun.sweep.loop import run_sweep_loop
from evalrun.sweep.manifest import first_manifest, order_made
from evalrun.sweep.options import SweepOptions
from evalrun.sweep.phase import Conduct, Execution, Services
from evalrun.sweep.prepare import PreparedSweep, prepare
from evalrun.sweep.progress import ProgressAdapter
from evalrun.sweep.resume import Unfinished, find_unfinished
from evalrun.tracking.changes import DEFAULT_BASELINE, choose_baseline, set_baseline
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.reuse import find_earlier, note_cells, take_over
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.sinks.prometheus import Metrics

REPORTS = Path("reports")
"""Where reports go that the user names no place for."""
_POINTED_OUT = 5
"""Runs done before that are named one by one."""


@frozen
class Outcome:
    """A sweep that ended, one way or another. Manifest and runs are as on disk."""

    folder: SweepFolder
    manifest: dict[str, Any]
    runs: list[dict[str, Any]]
    report: Path | None
    exit_code: ExitCode
    faults: tuple[UserError, ...] = ()
    warnings: tuple[str, ...] = ()
    resumed: bool = False


def run_sweep(
    suite: Path | LoadedSuite, options: SweepOptions, display: Progress, conduct: Conduct | None = None
) -> Outcome:
    """Run a suite, from its file or loaded already: validate, resume or begin, ask, score, store, report.

    `conduct` asks the runs in another way than each one whole.

    Raises UserError before anything is sent when the suite is invalid; afterwards faults are in the
    outcome, with what was done kept.
    """
    begun = time.monotonic()
    loaded = suite if isinstance(suite, LoadedSuite) else load_suite(suite, options.overrides)
    with ThreadPoolExecutor(1, "evalrun-background") as background:
        provenance = background.submit(_provenance, options, loaded.base_dir)
        store = Store(options.store)
        prepared = prepare(loaded, options.store / "engines", options.store)
        if options.write_report:
            place_for(options.report or REPORTS / "report.html")
        metrics = None
        try:
            metrics = _metrics(options, loaded, display)
            sweep = _Sweep(prepared, options, store, display, provenance, conduct, metrics)
            outcome = sweep.run()
        finally:
            prepared.close()
            if metrics is not None:
                metrics.close()
    if loaded.suite.sinks:
        from evalrun.sinks.main import after_sweep

        said = after_sweep(outcome.folder, time.monotonic() - begun)
        outcome = replace(outcome, warnings=(*outcome.warnings, *filter(None, [said])))
    return outcome


def _metrics(options: SweepOptions, loaded: LoadedSuite, display: Progress) -> Metrics | None:
    """What Prometheus is to see of the sweep, where that was asked for."""
    if options.metrics is None and options.metrics_file is None:
        return None
    from evalrun.sinks.prometheus import Metrics

    metrics = Metrics(loaded.suite.project, options.metrics, options.metrics_file)
    if metrics.address:
        display.message(f"metrics: http://{metrics.address}/metrics")
    return metrics


def _provenance(options: SweepOptions, suite_folder: Path) -> dict[str, Any]:
    from evalrun.runner import calibration
    from evalrun.tracking.provenance import collect

    known = calibration.load()
    client = {"calibration": asdict(known) if known else None}
    return {**collect(list(options.argv), suite_folder), "client": client}


class _Sweep:
    """The steps of one sweep, in order."""

    def __init__(
        self,
        prepared: PreparedSweep,
        options: SweepOptions,
        store: Store,
        display: Progress,
        provenance: Future[dict[str, Any]],
        conduct: Conduct | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics
        self._prepared = prepared
        self._options = options
        self._store = store
        self._display = display
        self._provenance = provenance
        self._conduct = conduct
        self._suite = prepared.loaded.suite
        self._lock = check_lock(prepared, options.overrides) if options.use_lock else None
        self._cells = cell_digests(prepared)
        self._taken_up = ""
        self._done_before = 0
        # Before anything is sent: a baseline that does not exist is an error then.
        # The first sweep of all may have none, where the suite says so.
        first = self._suite.baseline == "first"
        named = _before_this(store, options.baseline, self._suite.project)
        self._baseline = choose_baseline(store, named, self._suite.project, first=first)
        if conduct is None and self._suite.stop_early is not None:
            from evalrun.sweep.early import EarlyStop

            self._conduct = EarlyStop(prepared, self._suite.stop_early, self._baseline)

    def run(self) -> Outcome:
        earlier_sweep = Unfinished()
        if not self._options.fresh:
            within = self._options.resume_within
            earlier_sweep = find_unfinished(self._store, self._prepared.work_digest, within)
        folder, self._taken_up = earlier_sweep.folder, earlier_sweep.said
        if self._options.into is not None:
            folder = SweepFolder(self._options.into)
        resumed = folder is not None and folder.has_manifest()
        if folder is None:
            folder = self._store.create_sweep(self._suite.name)
        if self._prepared.redactor is not None:
            folder.redact = self._prepared.redactor.document
        bundle = _begin_bundle() if self._options.write_report else None
        with folder.lock():
            manifest = first_manifest(self._prepared, folder, self._cells, self._lock, resumed=resumed)
            self._cells = {planned["run"]: planned["cell_digest"] for planned in manifest["plan"]}
            folder.write_manifest(manifest)
            earlier = {"earlier_s": running_s(folder)} if resumed else {}
            started = {"argv": list(self._options.argv), **earlier}
            keep_inputs(folder, self._prepared)
            if resumed:
                folder.complete_trail()
            folder.append_event("resume" if resumed else "start", started)
            self._store.record(folder)
            if self._taken_up:
                self._display.message(self._taken_up)
            self._done_before = sum(run["counts"]["samples"] for run in folder.runs()) if resumed else 0
            self._look_back(folder, manifest)
            execution, interrupted = self._execute(folder)
            return self._finish(folder, manifest, execution, interrupted, resumed, bundle)

    def _look_back(self, folder: SweepFolder, manifest: dict[str, Any]) -> None:
        """Point out the runs that were done before with the same digests; take them over if asked."""
        unfinished = {run_id: cell for run_id, cell in self._cells.items() if not folder.is_finished(run_id)}
        found = find_earlier(self._store, unfinished)
        if self._options.reuse:
            found = {run_id: earlier for run_id, earlier in found.items() if earlier.is_whole()}
        if found and self._options.reuse:
            manifest["reused"] |= take_over(folder, found)
            for spec in self._prepared.specs:
                if spec.run_id in found and spec.model.id not in manifest["models"]:
                    earlier = found[spec.run_id]
                    manifest["models"][spec.model.id] = earlier.folder.identity(earlier.document["model"])
            folder.write_manifest(manifest)
        for run_id, earlier in list(found.items())[:_POINTED_OUT]:
            done = "taken over:" if self._options.reuse else "the same was"
            self._display.message(f"{run_id}: {done} {earlier.sentence()}")
        if len(found) > _POINTED_OUT:
            self._display.message(f"and {len(found) - _POINTED_OUT} more runs")
        if found and not self._options.reuse:
            self._display.message("--reuse takes such runs over instead of asking again.")

    def _execute(self, folder: SweepFolder) -> tuple[Execution, bool]:
        cache = None
        if self._options.use_cache and (self._prepared.redactor is None or self._prepared.seal is not None):
            cache = ResponseCache(self._options.store / "cache" / "responses.db", self._prepared.seal)
            if cache.warning:
                self._display.message(f"warning: {cache.warning}")
        stop = Stop()
        score = self._suite.scorers[0].id if self._suite.scorers else ""
        progress = ProgressAdapter(self._display, score, self._metrics, self._prepared.redact_record)
        spending = None
        if (budget := self._suite.budget) is not None:
            asked = self._prepared.providers
            prices = {
                spec.run_id: asked_price(spec.model, asked[spec.model.id]) for spec in self._prepared.specs
            }
            spending = Spending(budget, spent_earlier(folder, prices), prices, stop, progress)
        providers = self._prepared.providers.values()
        neighbours = Neighbours(each.endpoint for each in providers if each.measured)
        services = Services(
            self._prepared, folder, cache, progress, stop, spending, neighbours, self._conduct
        )
        self._display.start(
            [
                (spec.run_id, spec.requests(self._suite, len(self._prepared.datasets[spec.dataset.id])))
                for spec in self._prepared.specs
                if not folder.is_finished(spec.run_id)
            ]
            + self._planned_judging()
        )
        try:
            with neighbours:
                return run_sweep_loop(services, self._display)
        finally:
            self._display.stop()

    def _planned_judging(self) -> list[tuple[str, int]]:
        if self._prepared.judging is None:
            return []
        from evalrun.sweep.judging import planned_requests

        return planned_requests(self._prepared)

    def _finish(
        self,
        folder: SweepFolder,
        manifest: dict[str, Any],
        execution: Execution,
        interrupted: bool,
        resumed: bool,
        bundle: Callable[[], None] | None,
    ) -> Outcome:
        folder.check_there()
        runs = folder.runs()
        # A search may finish runs that it made itself, beside those of the plan.
        there = {spec.run_id for spec in self._prepared.specs} <= {run["run"] for run in runs}
        complete = not interrupted and not execution.faults and there
        alerts = [] if interrupted else check(self._prepared, folder, manifest["plan"], self._store)
        if self._prepared.tasks is not None:
            from evalrun.sweep.tasks import group_results

            manifest["groups"] = group_results(self._prepared.tasks, folder, self._prepared.specs)
        manifest |= self._ending(folder, manifest, execution, interrupted, complete)
        manifest["alerts"] = [asdict(alert) for alert in alerts]
        folder.write_manifest(manifest)
        exit_code = ExitCode(manifest["exit_code"])
        folder.append_event("finish", {"status": manifest["status"], "exit_code": int(exit_code)})
        if self._conduct is None or getattr(self._conduct, "whole", False):  # else of a part of their rows
            note_cells(self._store, folder, self._cells, runs)
        warnings = [*self._prepared.loaded.notes]
        warnings += [text for dataset in self._prepared.datasets.values() for text in dataset.warnings]
        warnings += [*self._told_of_earlier(execution, resumed=resumed), *execution.warnings]
        warnings += _of_runs(runs)
        warnings += tell(self._suite, folder, alerts, self._store)
        reported = bool(runs) and self._options.write_report
        if exit_code is ExitCode.OK and self._suite.baseline == "first" and self._baseline is None:
            warnings += self._first_baseline(folder, manifest)
        if self._metrics is not None:
            self._metrics.finish(folder, manifest)
            warnings += filter(None, [self._metrics.trouble])
        if self._suite.explain is not None and complete:
            from evalrun.sweep.explaining import explain_sweep_runs

            warnings += explain_sweep_runs(
                folder,
                self._suite,
                self._options.store,
                use_cache=self._options.use_cache,
                say=self._display.message,
            )
        report, faults = None, list(execution.faults)
        try:
            report = self._report(folder, bundle) if reported else None
        except UserError as fault:  # the sweep is stored: say how it ended, and that there is no report
            faults.append(fault)
            exit_code = ExitCode.INCOMPLETE
        try:
            self._store.index(folder)
        except UserError as fault:  # the folder is complete without the catalog: a failure is a warning
            warnings.append(f"not in the catalog yet: {fault}")
        return Outcome(folder, manifest, runs, report, exit_code, tuple(faults), tuple(warnings), resumed)

    def _first_baseline(self, folder: SweepFolder, manifest: Mapping[str, Any]) -> list[str]:
        """Let the sweep be the baseline that there was none of; says so. One that lost rows is no measure."""
        name = self._options.baseline or DEFAULT_BASELINE
        if any(lost["incomplete"] for lost in manifest[RESULTS]["lost"]):
            return [f"there is no baseline {name} yet, and this sweep lost too many rows to become it"]
        set_baseline(self._store, name, folder)
        return [f"there was no baseline {name} yet: it is this sweep from now on"]

    def _told_of_earlier(self, execution: Execution, *, resumed: bool) -> list[str]:
        """What is said of an unfinished sweep of the same work, and of what was taken over from it."""
        if not self._taken_up:
            return []
        if not resumed:
            return [self._taken_up]
        datasets = self._prepared.datasets
        of = sum(spec.requests(self._suite, len(datasets[spec.dataset.id])) for spec in self._prepared.specs)
        taken = self._done_before + execution.taken_over
        return [f"{self._taken_up}: {taken:,} of {of:,} samples are from then"]

    def _ending(
        self,
        folder: SweepFolder,
        manifest: dict[str, Any],
        execution: Execution,
        interrupted: bool,
        complete: bool,
    ) -> dict[str, Any]:
        """What the manifest says at the end: how it ended, what the gates said."""
        from evalrun.analysis.previous import previous_document

        first = self._suite.baseline == "first"
        gates = check_sweep(self._prepared.gates, folder, manifest["plan"], self._baseline, first=first)
        if self._conduct is not None:
            gates = self._conduct.gates(gates)
        inconclusive = self._options.inconclusive or self._suite.inconclusive
        said = [asdict(gate) for gate in gates]
        together = conclude_sweep(folder, said)
        lost = [Lost(**each) for each in together[RESULTS]["lost"]]
        execution.faults += nothing_scored(lost)
        planned, ended = len(manifest["plan"]), {"interrupted": interrupted, "complete": complete}
        return {
            "status": status_of(lost, planned, **ended),
            "finished_at": datetime.now(UTC).isoformat(),
            "models": (models := {**manifest["models"], **execution.identities}),
            "cards": model_cards(self._suite.models, self._prepared.loaded.base_dir),
            "provenance": self._provenance.result(),
            "gates": said,
            **together,
            **previous_document(self._store, folder, together, models),
            "inconclusive": inconclusive,
            "baseline": self._baseline.ulid if self._baseline else None,
            "order": order_made(folder),
            "oldest_cached": _oldest(manifest["oldest_cached"], execution.oldest_cached),
            "faults": [str(fault) for fault in execution.faults],
            "stopped_while_looking": interrupted and self._conduct is None and self._display.shows,
            **(self._conduct.document() if self._conduct is not None else {}),
            "exit_code": int(exit_code_of(lost, gates, inconclusive, **ended)),
        }

    def _report(self, folder: SweepFolder, bundle: Callable[[], None] | None) -> Path:
        from evalrun.reports.report import write_report

        if bundle is not None:
            bundle()
        out = self._options.report or REPORTS / f"{folder.path.name.lower()}.html"
        write_report(folder, out)
        return out


def _of_runs(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The warnings of the runs; one that several have is said once."""
    by_text: dict[str, list[str]] = {}
    for run in runs:
        for warning in run.get("warnings") or ():
            by_text.setdefault(warning, []).append(run["run"])
    return [
        f"{of[0]}{f' and {len(of) - 1} more' if len(of) > 1 else ''}: {warning}"
        for warning, of in by_text.items()
    ]


def _oldest(earlier: str | None, now: float | None) -> str | None:
    """When the oldest answer from the cache was stored, in this part of the sweep or an earlier one."""
    if now is None:
        return earlier
    stored = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    return stored if earlier is None else min(stored, earlier)


def _before_this(store: Store, baseline: str | None, project: str) -> str | None:
    """`previous` said of a sweep that is about to begin: the newest complete one of its project."""
    if baseline != "previous":
        return baseline
    complete = (row.sweep for row in store.list(20, project) if row.status == "complete")
    return next(complete, baseline)


def _begin_bundle() -> Callable[[], None]:
    """Begin to make the charts' JavaScript in a process of its own; the result waits for it."""
    from evalrun.reports.page import begin_bundle

    return begin_bundle()
