"""One sweep from beginning to end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from evalrun.canonical import digest
from evalrun.errors import ExitCode, UserError
from evalrun.gates.baseline import choose_baseline
from evalrun.gates.check import blocks, check_sweep
from evalrun.runner.cache import ResponseCache
from evalrun.runner.cell import Stop
from evalrun.suite.load import load_suite
from evalrun.sweep.alerts import check, stored_text, tell
from evalrun.sweep.estimate import judge_requests
from evalrun.sweep.execute import Execution, Services, execute
from evalrun.sweep.inputs import keep_inputs
from evalrun.sweep.lock import check_lock
from evalrun.sweep.options import SweepOptions
from evalrun.sweep.order import order_made
from evalrun.sweep.pins import cell_digests
from evalrun.sweep.prepare import PreparedSweep, prepare
from evalrun.sweep.progress import Display, ProgressAdapter
from evalrun.sweep.spending import Spending, running_s, spent_earlier
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.indexing import begin_index
from evalrun.tracking.reuse import find_earlier, note_cells, take_over
from evalrun.tracking.store import Store

_POINTED_OUT = 5
"""Runs done before that are named one by one."""


class ProgressDisplay(Display, Protocol):
    """A display that is told of the plan first and stopped at the end."""

    def start(self, cells: list[tuple[str, int]]) -> None: ...
    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
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


def run_sweep(suite_path: Path, options: SweepOptions, display: ProgressDisplay) -> Outcome:
    """Run a suite: validate, resume or begin, ask, score, store, report.

    Raises UserError before anything is sent when the suite is invalid; afterwards faults are in the
    outcome, with what was done kept.
    """
    loaded = load_suite(suite_path, options.overrides)
    with ThreadPoolExecutor(1, "evalrun-background") as background:
        provenance = background.submit(_provenance, options, suite_path)
        store = Store(options.store)
        prepared = prepare(loaded, options.store / "engines")
        return _Sweep(prepared, options, store, display, provenance).run()


def _provenance(options: SweepOptions, suite_path: Path) -> dict[str, Any]:
    from evalrun.runner import calibration
    from evalrun.tracking.provenance import collect

    known = calibration.load()
    client = {"calibration": asdict(known) if known else None}
    return {**collect(list(options.argv), suite_path.resolve().parent), "client": client}


class _Sweep:
    """The steps of one sweep, in order."""

    def __init__(
        self,
        prepared: PreparedSweep,
        options: SweepOptions,
        store: Store,
        display: ProgressDisplay,
        provenance: Future[dict[str, Any]],
    ) -> None:
        self._prepared = prepared
        self._options = options
        self._store = store
        self._display = display
        self._provenance = provenance
        self._suite = prepared.loaded.suite
        self._lock = check_lock(prepared, options.overrides) if options.use_lock else None
        self._cells = cell_digests(prepared)
        # Before anything is sent: a baseline that does not exist is an error then.
        self._baseline = choose_baseline(store, options.baseline, self._suite.project)

    def run(self) -> Outcome:
        folder = None if self._options.fresh else self._store.find_incomplete(self._prepared.work_digest)
        resumed = folder is not None
        if folder is None:
            folder = self._store.create_sweep(self._suite.name)
        bundle = _begin_bundle() if self._options.write_report else None
        with folder.lock():
            manifest = self._manifest(folder, resumed)
            folder.write_manifest(manifest)
            earlier = {"earlier_s": running_s(folder)} if resumed else {}
            started = {"argv": list(self._options.argv), **earlier}
            keep_inputs(folder, self._prepared)
            folder.append_event("resume" if resumed else "start", started)
            self._look_back(folder, manifest)
            execution, interrupted = self._execute(folder)
            return self._finish(folder, manifest, execution, interrupted, resumed, bundle)

    def _manifest(self, folder: SweepFolder, resumed: bool) -> dict[str, Any]:
        prepared, loaded = self._prepared, self._prepared.loaded
        now = datetime.now(UTC).isoformat()
        earlier = folder.read_manifest() if resumed else {}
        return {
            "schema_version": 1,
            "sweep": folder.ulid,
            "name": self._suite.name,
            "project": self._suite.project,
            "status": "running",
            "started_at": earlier.get("started_at", now),
            "resumed_at": [*earlier.get("resumed_at", []), now] if resumed else [],
            "finished_at": None,
            "spec_digest": prepared.work_digest,
            "suite": {
                "path": str(loaded.path),
                "text": stored_text(loaded),
                "digest": digest(loaded.text),
                "resolved": self._suite.resolved(),
            },
            "plan": [
                {
                    "run": spec.run_id,
                    "model": spec.model.id,
                    "prompt": spec.prompt.id,
                    "dataset": spec.dataset.id,
                    "params": dict(spec.params),
                    "repeats": spec.repeats,
                    "cell_digest": self._cells[spec.run_id],
                    **({"ablates": spec.prompt.ablates} if spec.prompt.ablates else {}),
                }
                for spec in prepared.specs
            ],
            "provenance": {},
            "datasets": {
                name: {
                    "digest": dataset.digest,
                    "n": len(dataset),
                    "source": dataset.source,
                    "warnings": dataset.warnings,
                }
                for name, dataset in prepared.datasets.items()
            },
            "prompts": {
                name: {
                    "digest": prompt.digest,
                    "source": prompt.source,
                    "api": api,
                    **({"ablates": prompt.ablates, "without": prompt.without} if prompt.without else {}),
                }
                for (name, api), prompt in prepared.prompts.items()
            },
            "examples": dict(prepared.examples),
            "lock": self._lock,
            "reused": earlier.get("reused", {}),
            "models": earlier.get("models", {}),
            "tags": self._suite.tags,
            "seeds": {"root": self._suite.seed},
            "gates": [],
            "exit_code": None,
        }

    def _look_back(self, folder: SweepFolder, manifest: dict[str, Any]) -> None:
        """Point out the runs that were done before with the same digests; take them over if asked."""
        unfinished = {run_id: cell for run_id, cell in self._cells.items() if not folder.is_finished(run_id)}
        found = find_earlier(self._store, unfinished)
        if self._options.reuse:
            found = {run_id: earlier for run_id, earlier in found.items() if earlier.is_whole()}
        if found and self._options.reuse:
            manifest["reused"] |= take_over(folder, found)
            for spec in self._prepared.specs:
                if spec.run_id in found:
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
        if self._options.use_cache:
            cache = ResponseCache(self._options.store / "cache" / "responses.db")
        stop = Stop()
        progress = ProgressAdapter(self._display, self._suite.scorers[0].id)
        spending = None
        if (budget := self._suite.budget) is not None:
            prices = {spec.run_id: spec.model.price for spec in self._prepared.specs}
            spending = Spending(budget, spent_earlier(folder, prices), prices, stop, progress)
        services = Services(self._prepared, folder, cache, progress, stop, spending)
        self._display.start(
            [
                (spec.run_id, len(self._prepared.datasets[spec.dataset.id]) * spec.repeats)
                for spec in self._prepared.specs
                if not folder.is_finished(spec.run_id)
            ]
            + judge_requests(self._prepared)
        )
        try:
            return _run_loop(_interruptible(services, self._display))
        finally:
            self._display.stop()

    def _finish(
        self,
        folder: SweepFolder,
        manifest: dict[str, Any],
        execution: Execution,
        interrupted: bool,
        resumed: bool,
        bundle: Callable[[], None] | None,
    ) -> Outcome:
        runs = folder.runs()
        planned = [spec.run_id for spec in self._prepared.specs]
        complete = not interrupted and not execution.faults and len(runs) == len(planned)
        gates = check_sweep(self._prepared.gates, folder, manifest["plan"], self._baseline)
        inconclusive = self._options.inconclusive or self._suite.inconclusive
        exit_code = _exit_code(interrupted, complete, blocks(gates, inconclusive))
        alerts = [] if interrupted else check(self._prepared, folder, manifest["plan"], self._store)
        manifest |= {
            "status": "interrupted" if interrupted else "complete" if complete else "incomplete",
            "finished_at": datetime.now(UTC).isoformat(),
            "models": {**manifest["models"], **execution.identities},
            "provenance": self._provenance.result(),
            "gates": [asdict(gate) for gate in gates],
            "inconclusive": inconclusive,
            "alerts": [asdict(alert) for alert in alerts],
            "baseline": self._baseline.ulid if self._baseline else None,
            "order": order_made(folder),
            "faults": [str(fault) for fault in execution.faults],
            "exit_code": int(exit_code),
        }
        folder.write_manifest(manifest)
        folder.append_event("finish", {"status": manifest["status"], "exit_code": int(exit_code)})
        note_cells(self._store, folder, self._cells, runs)
        told = tell(self._suite, folder, alerts)
        indexed = begin_index(self._store, folder)
        try:
            report = self._report(folder, bundle) if runs and self._options.write_report else None
        finally:
            # The folder is complete without the catalog: a failure is a warning.
            fault = indexed()
        of_runs = [f"{run['run']}: {each}" for run in runs for each in run.get("warnings") or ()]
        warnings = [
            *execution.warnings,
            *of_runs,
            *told,
            *([f"not in the catalog yet: {fault}"] if fault else []),
        ]
        return Outcome(
            folder=folder,
            manifest=manifest,
            runs=runs,
            report=report,
            exit_code=exit_code,
            faults=tuple(execution.faults),
            warnings=tuple(warnings),
            resumed=resumed,
        )

    def _report(self, folder: SweepFolder, bundle: Callable[[], None] | None) -> Path:
        from evalrun.reports.html import write_report

        if bundle is not None:
            bundle()
        out = self._options.report or Path("reports") / f"{folder.path.name.lower()}.html"
        out.parent.mkdir(parents=True, exist_ok=True)
        write_report(folder, out)
        return out


def _exit_code(interrupted: bool, complete: bool, gate_failed: bool) -> ExitCode:
    if interrupted:
        return ExitCode.INTERRUPTED
    if not complete:
        return ExitCode.INCOMPLETE
    return ExitCode.GATE_FAILED if gate_failed else ExitCode.OK


def _begin_bundle() -> Callable[[], None]:
    """Begin to make the charts' JavaScript in a process of its own; the result waits for it."""
    from evalrun.reports.bundle import begin_bundle

    return begin_bundle()


async def _interruptible(services: Services, display: ProgressDisplay) -> tuple[Execution, bool]:
    """Execute; the first Ctrl-C (or SIGTERM) lets what is in flight finish, the second ends at once."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(execute(services))

    def interrupt() -> None:
        if services.stop.requested:
            task.cancel()
            return
        services.stop.requested = True
        display.message("Stopping: waiting for the requests in flight. Ctrl-C again to end at once.")

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            loop.add_signal_handler(number, interrupt)
    try:
        execution = await task
    except asyncio.CancelledError:
        execution = Execution()
    return execution, services.stop.requested and services.stop.fault is None


def _run_loop(main: Any) -> tuple[Execution, bool]:
    """Run on uvloop where it is installed: about a quarter less CPU for each request."""
    make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop as make_loop
    with _rare_collection(), asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(main)  # type: ignore[no-any-return]


@contextlib.contextmanager
def _rare_collection() -> Iterator[None]:
    """Collect garbage rarely while requests are in flight, and never look at what was there before.

    Each collection stops the event loop, which is time that would be measured as the server's; hardly
    anything in the runner is part of a cycle, so there is little to find.
    """
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 3, 3)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
