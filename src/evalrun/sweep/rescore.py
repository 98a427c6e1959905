"""Scores a finished sweep again, as a child of it. No model is asked but those that scorers ask.

The file names what is new: a list of scorers, or a mapping with any of scorers, parse, derive, judges,
gates, unparsed and fairness. Everything else is the suite's of the sweep, which stays as it was but for one
event that names the child. What was measured about the answers (times, tokens, memory, cost) is carried over.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.canonical import canonical_json, digest
from evalrun.errors import ExitCode, Problem, UserError
from evalrun.sweep.rescore_file import NewScoring, read_scoring
from evalrun.tracking.events import utc_now
from evalrun.tracking.folder import SAMPLES, SYSTEM, SweepFolder
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.reports.progress import Progress
    from evalrun.suite.plan import RunSpec
    from evalrun.suite.schema import Suite
    from evalrun.sweep.main import Outcome
    from evalrun.sweep.rescore_judging import Rejudging

_CARRIED = frozenset({"performance", "memory", "cpu", "cost"})
"""First words of the metrics that scoring has no part in."""
JUDGE_COST = "cost.judge_usd"
"""The one cost that belongs to scoring."""
_CARRIED_DETAILS = ("latency", "throughput_window", "over_time", "timed", "client_limited")


def rescore(
    store: Store,
    parent: SweepFolder,
    file: Path,
    argv: tuple[str, ...] = (),
    display: Progress | None = None,
) -> Outcome:
    """Score `parent` again by what `file` says; returns the child sweep, complete.

    Raises UserError, with nothing written, where the sweep is not complete or the file is wrong. Where a
    judge could not be asked to the end (exit 3), the same call goes on with what it has said.
    """
    from evalrun.tracking.changes import choose_baseline

    manifest = parent.read_manifest()
    if manifest["status"] != "complete":
        raise UserError(
            f"the sweep is {parent.status()}, not complete",
            where=parent.path.name,
            remedy="Run its suite again to finish it, then score it again.",
        )
    scoring = read_scoring(file, manifest)
    _check_columns(parent, scoring)
    baseline = choose_baseline(store, None, manifest["project"]) if scoring.gates else None
    work = digest({"parent": parent.ulid, "suite": scoring.suite.resolved()})
    judging = None
    if any(scorer.asks for scorer in scoring.pipeline.scorers):
        from evalrun.sweep.rescore_judging import judging_of

        judging = judging_of(scoring.suite, scoring.pipeline, parent, file, store)
        work = digest([work, judging.digest if judging is not None else ""])
    child = (store.find_incomplete(work) if judging else None) or store.create_sweep(manifest["name"])
    try:
        with child.lock():
            rescoring = _Rescoring(parent, child, scoring, manifest, argv)
            if judging is not None:
                from evalrun.sweep.rescore_judging import Rejudging

                rescoring.judging = Rejudging(judging, scoring.suite, scoring.pipeline, child)
            outcome = rescoring.run(baseline, work, store, display)
    except BaseException:
        if judging is None:
            # Nothing in it cost anything: half a child is of no use to anyone.
            shutil.rmtree(child.path, ignore_errors=True)
        raise
    _tell(store, parent, child, scoring)
    store.index(child)
    return outcome


def _check_columns(parent: SweepFolder, scoring: NewScoring) -> None:
    """Raise a UserError with what keeps the scorers from scoring the samples that there are."""
    from evalrun.tracking.parquet import column_names

    problems: dict[Problem, None] = {}
    for run_id in parent.run_ids():
        names = column_names(parent.samples_path(run_id))
        columns = [name.removeprefix("vars.") for name in names if name.startswith("vars.")]
        for scorer in scoring.pipeline.scorers:
            problems.update(dict.fromkeys(scorer.check(columns, str(scoring.path))))
    if problems:
        raise UserError(list(problems))


def _tell(store: Store, parent: SweepFolder, child: SweepFolder, scoring: NewScoring) -> None:
    detail = {"child": child.ulid, "scorers": [each.name for each in scoring.pipeline.scorers]}
    if parent.path.parent != store.sweeps:  # a folder elsewhere, which this store's catalog does not hold
        parent.append_event("rescore", detail)
        return
    with store.changing(parent):
        parent.append_event("rescore", detail)


class _Rescoring:
    """The making of one child sweep."""

    def __init__(
        self,
        parent: SweepFolder,
        child: SweepFolder,
        scoring: NewScoring,
        manifest: Mapping[str, Any],
        argv: tuple[str, ...],
    ) -> None:
        self._parent = parent
        self._child = child
        self._scoring = scoring
        self._old = manifest
        self._argv = argv
        self.judging: Rejudging | None = None

    def run(self, baseline: SweepFolder | None, work: str, store: Store, display: Progress | None) -> Outcome:
        from evalrun.analysis.conclude import conclude_sweep
        from evalrun.gates.check import blocks, check_sweep
        from evalrun.sweep.main import Outcome

        manifest = self._manifest(work)
        self._child.write_manifest(manifest)
        detail = {"parent": self._parent.ulid, "argv": list(self._argv)}
        self._child.append_event("rescore", detail, target=self._parent.ulid)
        specs = _specs(self._scoring.suite, manifest["plan"])
        todo = [run_id for run_id in self._parent.run_ids() if not self._child.is_finished(run_id)]
        for run_id in todo:
            self._score(run_id)
        if self.judging is not None:
            self.judging.ask(manifest["plan"], store, display)
            manifest["models"] = {**manifest["models"], **self.judging.identities}
        for run_id in todo:
            self._finish(run_id, specs.get(run_id), manifest["models"])
        gates = check_sweep(self._scoring.gates, self._child, manifest["plan"], baseline)
        inconclusive = self._scoring.suite.inconclusive
        exit_code = ExitCode.GATE_FAILED if blocks(gates, inconclusive) else ExitCode.OK
        manifest |= {
            "status": "complete",
            "finished_at": utc_now(),
            "inconclusive": inconclusive,
            "gates": (said := [asdict(gate) for gate in gates]),
            **conclude_sweep(self._child, said),
            "baseline": baseline.ulid if baseline else None,
            "exit_code": int(exit_code),
        }
        self._child.write_manifest(manifest)
        self._child.append_event("finish", {"status": "complete", "exit_code": int(exit_code)})
        return Outcome(
            folder=self._child,
            manifest=self._child.read_manifest(),
            runs=self._child.runs(),
            report=None,
            exit_code=exit_code,
        )

    def _manifest(self, work: str) -> dict[str, Any]:
        from evalrun.tracking.provenance import collect

        scoring, old = self._scoring, self._old
        resolved = scoring.suite.resolved()
        return {
            **old,
            "sweep": self._child.ulid,
            "parent": self._parent.ulid,
            "status": "running",
            "started_at": utc_now(),
            "resumed_at": [],
            "finished_at": None,
            "spec_digest": work,
            "suite": {**old["suite"], "resolved": resolved},
            "rescore": {"path": str(scoring.path), "text": scoring.text, "digest": digest(scoring.text)},
            "provenance": collect(list(self._argv), scoring.path.resolve().parent),
            "gates": [],
            "faults": [],
            "exit_code": None,
        }

    def _score(self, run_id: str) -> None:
        from evalrun.sweep.rescore_samples import rescore_samples

        folder = self._child.run_dir(run_id)
        source = self._parent.samples_path(run_id)
        rescore_samples(source, folder / SAMPLES, self._scoring.pipeline)
        if (source.parent / SYSTEM).exists():
            shutil.copyfile(source.parent / SYSTEM, folder / SYSTEM)
            (folder / SYSTEM).chmod(0o600)

    def _finish(self, run_id: str, spec: RunSpec | None, identities: Mapping[str, Any]) -> None:
        from evalrun.analysis.run import analyse_run
        from evalrun.analysis.table import SampleTable

        folder, old = self._child.run_dir(run_id), self._parent.read_run(run_id)
        judgement = self.judging.judgement(run_id, old["model"], identities) if self.judging else None
        analysis = analyse_run(SampleTable.from_parquet(folder / SAMPLES), self._scoring.suite, spec)
        warnings = list(old.get("warnings") or ())
        if judgement is not None:
            judgement.enter(analysis)
            warnings = [*warnings, *(each for each in judgement.warnings if each not in warnings)]
        carried = [
            each
            for each in old["metrics"]
            if _first_word(each["name"]) in _CARRIED and each["name"] != JUDGE_COST
        ]
        made = [
            asdict(each)
            for each in analysis.metrics
            if _first_word(each.name) not in _CARRIED or each.name == JUDGE_COST
        ]
        kept = {name: old["details"][name] for name in _CARRIED_DETAILS if name in old["details"]}
        self._child.finish_run(
            run_id,
            {
                **old,
                "counts": asdict(analysis.counts),
                "metrics": [*made, *carried],
                "details": {**analysis.details, **kept},
                "warnings": warnings,
                "timings": {**old["timings"], "rescored_at": utc_now()},
                "digests": {},
            },
        )
        if self.judging is not None:
            self.judging.finished(run_id)


def _specs(suite: Suite, plan: Sequence[Mapping[str, Any]]) -> dict[str, RunSpec]:
    """The cells of the matrix by run id; a run without a part of its prompt has the cell of the whole."""
    from evalrun.suite.plan import cells

    found = {spec.run_id: spec for spec in cells(suite)}
    places = {
        (spec.model.id, spec.prompt.id, spec.dataset.id, canonical_json(dict(spec.params))): spec
        for spec in found.values()
    }
    for run in plan:
        key = (run["model"], run.get("ablates"), run["dataset"], canonical_json(run["params"]))
        if key in places:
            found[run["run"]] = places[key]
    return found


def _first_word(name: str) -> str:
    return name.partition(".")[0]
