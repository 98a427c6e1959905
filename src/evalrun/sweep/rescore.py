"""Scores a finished sweep again, as a child of it. No model is asked but those that scorers ask.

The file names what is new: a list of scorers, or a mapping with any of scorers, parse, derive, judges,
gates, unparsed and fairness. Everything else is the suite's of the sweep, which stays as it was but for one
event that names the child. What was measured about the answers (times, tokens, memory, cost) is carried over.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.atomic import make_private
from evalrun.canonical import canonical_json, digest
from evalrun.errors import ExitCode, Problem, UserError
from evalrun.privacy.scan import more_metrics
from evalrun.reports.progress import Silent
from evalrun.results import Lost
from evalrun.runner.cell import Stop
from evalrun.scoring.asking import AskingScorer
from evalrun.suite.load import parse_suite
from evalrun.sweep.code import scoring_code
from evalrun.sweep.finish import drop_judge_journals
from evalrun.sweep.phase import Execution, Phase
from evalrun.sweep.private import refuse_redacted
from evalrun.sweep.progress import ProgressAdapter
from evalrun.sweep.score import ScoreStage, Scoring
from evalrun.sweep.stored import VARS
from evalrun.tracking.events import utc_now
from evalrun.tracking.folder import SAMPLES, SYSTEM, SweepFolder
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.gates.conditions import Gate
    from evalrun.reports.progress import Progress
    from evalrun.scoring.pipeline import Pipeline
    from evalrun.suite.plan import RunSpec
    from evalrun.suite.schema import Suite
    from evalrun.suite.tree import Node
    from evalrun.sweep.judging import Judging
    from evalrun.sweep.main import Outcome
    from evalrun.sweep.questions import AnsweredRun
    from evalrun.sweep.verdicts import RunVerdicts


KEYS = ("scorers", "parse", "derive", "judges", "gates", "unparsed", "fairness", "allow")
"""What a file of scorers may say."""


@dataclass(frozen=True, slots=True)
class NewScoring:
    """A file of scorers as read, and the suite of the sweep with what it says put in."""

    path: Path
    text: str
    suite: Suite
    pipeline: Pipeline
    gates: tuple[Gate, ...]


def read_scoring(file: Path, manifest: Mapping[str, Any]) -> NewScoring:
    """Read and check a file of scorers against the suite in a sweep's manifest. Raises UserError by line."""
    from evalrun.gates.conditions import parse_gate
    from evalrun.scoring.pipeline import Pipeline, suite_scorers
    from evalrun.suite.tree import expand, parse_yaml

    text = _text(file)
    tree, problems = parse_yaml(text, str(file))
    if tree is not None:
        problems += expand(tree, os.environ).problems
    if tree is None or problems:
        raise UserError(problems or [Problem("the file is empty", str(file), "List scorers in it.")])
    given = _given(tree, file)
    data = {**manifest["suite"]["resolved"], "gates": [], **given}
    if "parse" in given:  # it reads all answers, whatever prompts had of their own
        data["prompts"] = [
            {key: value for key, value in prompt.items() if key != "parse"}
            for prompt in data.get("prompts") or ()
        ]
    if "scorers" in given and "derive" not in given:
        data["derive"] = {}  # formulas over scores that are gone would be errors
    with _located(tree), _modules_beside(file):
        suite = parse_suite(data)
        pipeline = Pipeline([each.build() for each in suite.parse], suite_scorers(suite))
        gates = [parse_gate(gate) for gate in suite.gates]
        wrong = [gate for gate in gates if isinstance(gate, Problem)]
        if not wrong and gates:
            wrong = _unknown(gates, suite, pipeline, manifest)
        if wrong:
            raise UserError(wrong)
    return NewScoring(
        file, text, suite, pipeline, tuple(gate for gate in gates if not isinstance(gate, Problem))
    )


def _unknown(
    gates: Sequence[Gate | Problem], suite: Suite, pipeline: Pipeline, manifest: Mapping[str, Any]
) -> list[Problem]:
    """Gates that speak of what the new scores do not have, or of no run of the sweep."""
    from evalrun.gates.conditions import speakable, unknown

    planned = manifest["plan"]
    scopes = {axis: {str(run[axis]) for run in planned} for axis in ("model", "prompt", "dataset")}
    about = speakable(suite, pipeline.scorers, scopes)
    return [
        replace(problem, where=f"gates.{at}")
        for at, gate in enumerate(gates)
        if not isinstance(gate, Problem)
        for problem in unknown(gate, about)
    ]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no file '{file}'") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{file}' cannot be read: {error}") from None


def _given(tree: Node, file: Path) -> dict[str, Any]:
    from evalrun.suite.findings import did_you_mean

    value = tree.plain()
    if isinstance(value, list):
        return {"scorers": value}
    if not isinstance(value, dict) or not value:
        remedy = f"Write a list of scorers, or a mapping with any of {', '.join(KEYS)}."
        raise UserError("the file names no scorers", where=str(file), remedy=remedy)
    unknown = [key for key in value if key not in KEYS]
    if unknown:
        raise UserError(
            [
                Problem(f"unknown key '{key}'", str(_key_place(tree, key)), did_you_mean(key, KEYS))
                for key in unknown
            ]
        )
    return dict(value)


def _key_place(tree: Node, key: str) -> object:
    node = tree.child(key)
    return (node.key_place or node.place) if node is not None else tree.place


@contextmanager
def _located(tree: Node) -> Iterator[None]:
    """Places such as scorers.0.includes become file:line."""
    try:
        yield
    except UserError as error:
        raise UserError(
            [
                Problem(problem.what, _place(tree, problem.where), problem.remedy)
                for problem in error.problems
            ],
            exit_code=error.exit_code,
        ) from error


def _place(tree: Node, where: str) -> str:
    path: tuple[str | int, ...] = tuple(int(each) if each.isdecimal() else each for each in where.split("."))
    if path[:1] == ("scorers",) and isinstance(tree.value, list):
        path = path[1:]
    elif tree.child(path[0]) is None:
        return where or tree.place.source
    return str(tree.deepest(path).shown_place())


@contextmanager
def _modules_beside(file: Path) -> Iterator[None]:
    """Let `python:` find modules beside the file and in the current folder, after all installed ones."""
    before = list(sys.path)
    sys.path += [str(file.resolve().parent), str(Path.cwd())]
    try:
        yield
    finally:
        sys.path[:] = before


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
    refuse_redacted(manifest, parent.path.name, "score it again")
    scoring = read_scoring(file, manifest)
    _check_columns(parent, scoring)
    baseline = choose_baseline(store, None, manifest["project"]) if scoring.gates else None
    judging = None
    if any(scorer.asks for scorer in scoring.pipeline.scorers):
        judging = _judging(scoring, parent, file, store)
    work = digest(
        {
            "parent": parent.ulid,
            "suite": scoring.suite.resolved(),
            "code": scoring_code(scoring.suite, scoring.pipeline, file.resolve().parent),
            "judging": judging.digest if judging is not None else None,
        }
    )
    child = store.find_incomplete(work) or store.create_sweep(manifest["name"])
    try:
        with child.lock():
            rescoring = _Rescoring(parent, child, scoring, manifest, argv, judging)
            outcome = rescoring.run(baseline, work, store, display or Silent())
    except BaseException:
        if judging is None:
            # Nothing in it cost anything: half a child is of no use to anyone.
            shutil.rmtree(child.path, ignore_errors=True)
        raise
    _tell(store, parent, child, scoring)
    store.index(child)
    return outcome


def _judging(scoring: NewScoring, parent: SweepFolder, file: Path, store: Store) -> Judging:
    """What the scorers ask of models. Raises UserError; sends nothing.

    Paths of the suite's own models start at the suite's folder, those of the file's judges at the file's.
    """
    from evalrun.providers.base import ProviderContext, create
    from evalrun.sweep.judging import prepare_judging
    from evalrun.tracking.parquet import column_names

    suite, scorers, manifest = scoring.suite, scoring.pipeline.scorers, parent.read_manifest()
    wanted = {name for scorer in scorers if isinstance(scorer, AskingScorer) for name in scorer.models}

    def context(folder: Path) -> ProviderContext:
        return ProviderContext(folder.resolve(), store.root / "engines", suite.deterministic, suite.seed)

    beside_suite = context(Path(manifest["suite"]["path"]).parent)
    providers = {model.id: create(model, beside_suite) for model in suite.models if model.id in wanted}
    columns: dict[str, list[str]] = {}
    for run in manifest["plan"]:
        names = column_names(parent.samples_path(run["run"]))
        columns[run["dataset"]] = [name.removeprefix(VARS) for name in names if name.startswith(VARS)]
    return prepare_judging(suite, scorers, context(file.parent), providers, columns)


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
    detail = {"child": child.ulid, "scorers": [scorer.name for scorer in scoring.pipeline.scorers]}
    if (
        parent.path.parent.resolve() != store.sweeps.resolve()
    ):  # a folder elsewhere, which this store's catalog does not hold
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
        judging: Judging | None,
    ) -> None:
        self._parent = parent
        self._child = child
        self._scoring = scoring
        self._old = manifest
        self._argv = argv
        self._judging = judging
        self._execution = Execution()

    def run(self, baseline: SweepFolder | None, work: str, store: Store, display: Progress) -> Outcome:
        from evalrun.analysis.conclude import RESULTS, conclude_sweep
        from evalrun.analysis.previous import previous_document
        from evalrun.gates.check import check_sweep
        from evalrun.sweep.ending import exit_code_of, nothing_scored
        from evalrun.sweep.main import Outcome

        manifest = self._manifest(work)
        self._child.write_manifest(manifest)
        self._child.complete_trail()
        detail = {"parent": self._parent.ulid, "argv": list(self._argv)}
        self._child.append_event("rescore", detail, target=self._parent.ulid)
        specs = _specs(self._scoring.suite, manifest["plan"])
        todo = [run_id for run_id in self._parent.run_ids() if not self._child.is_finished(run_id)]
        for run_id in todo:
            self._score(run_id, specs.get(run_id))
        runs = [self._answered(run) for run in manifest["plan"] if run["run"] in self._parent.run_ids()]
        waiting = [run for run in runs if run.run_id in todo]
        if self._judging is not None:
            self._ask(self._judging, waiting, runs, store, display)
            manifest["models"] = {**manifest["models"], **self._execution.identities}
        for run in waiting:
            verdicts = self._verdicts(run, runs)
            self._finish(run.run_id, specs.get(run.run_id), manifest["models"], verdicts)
        gates = check_sweep(
            self._scoring.gates,
            self._child,
            manifest["plan"],
            baseline,
            more=more_metrics([gate.metric for gate in self._scoring.gates], self._child),
        )
        inconclusive = self._scoring.suite.inconclusive
        said = [asdict(gate) for gate in gates]
        together = conclude_sweep(self._child, said)
        lost = [Lost(**each) for each in together[RESULTS]["lost"]]
        exit_code = exit_code_of(lost, gates, inconclusive)
        faults = nothing_scored(lost)
        manifest |= {
            "status": "complete",
            "finished_at": utc_now(),
            "inconclusive": inconclusive,
            "gates": said,
            **together,
            **previous_document(store, self._child, together, manifest["models"]),
            "faults": [str(fault) for fault in faults],
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
            faults=tuple(faults),
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

    def _score(self, run_id: str, spec: RunSpec | None) -> None:
        """The samples of a run parsed and scored anew, but by scorers that ask models."""
        folder = self._child.run_dir(run_id)
        source = self._parent.samples_path(run_id)
        pipeline = self._scoring.pipeline.for_prompt(None if spec is None else spec.prompt)
        ScoreStage(source, folder / SAMPLES, Scoring(pipeline, again=True)).run()
        if (source.parent / SYSTEM).exists():
            shutil.copyfile(source.parent / SYSTEM, folder / SYSTEM)
            make_private(folder / SYSTEM)

    def _answered(self, run: Mapping[str, Any]) -> AnsweredRun:
        from evalrun.sweep.questions import AnsweredRun

        folder = self._child.run_dir(run["run"])
        cell = (run["model"], run["prompt"], run["dataset"], run.get("params") or {})
        return AnsweredRun(run["run"], folder, folder / SAMPLES, *cell)

    def _ask(
        self,
        judging: Judging,
        runs: Sequence[AnsweredRun],
        everything: Sequence[AnsweredRun],
        store: Store,
        display: Progress,
    ) -> None:
        """Ask about the runs; `everything` are all of the sweep. Raises the first fault (exit 3)."""
        from evalrun.runner.cache import ResponseCache
        from evalrun.sweep.judging import judge_runs

        async def ask() -> list[AnsweredRun]:
            cache = ResponseCache(store.root / "cache" / "responses.db")
            progress = ProgressAdapter(display, judging.scorers[0].name)
            phase = Phase(
                self._scoring.suite, judging.providers, cache, progress, progress, Stop(), self._execution
            )
            try:
                return await judge_runs(phase, judging, runs, everything)
            finally:
                await judging.close()
                await cache.close()

        display.start([])
        try:
            done = asyncio.run(ask())
        finally:
            display.stop()
        if self._execution.faults:
            raise self._execution.faults[0]
        if len(done) < len(runs):
            raise UserError("the judging was interrupted", exit_code=ExitCode.INTERRUPTED)

    def _verdicts(self, run: AnsweredRun, everything: Sequence[AnsweredRun]) -> RunVerdicts | None:
        """What was said about a run, entered into its samples."""
        if self._judging is None:
            return None
        from evalrun.scoring.pipeline import Pipeline
        from evalrun.sweep.verdicts import RunVerdicts

        verdicts = RunVerdicts(self._judging, run, everything)
        verdicts.write()
        pipeline = Pipeline((), self._scoring.pipeline.scorers, "never")
        ScoreStage(run.samples, run.samples, Scoring(pipeline, verdicts=verdicts)).run()
        return verdicts

    def _finish(
        self,
        run_id: str,
        spec: RunSpec | None,
        identities: Mapping[str, Any],
        verdicts: RunVerdicts | None,
    ) -> None:
        from evalrun.analysis.run import SystemSummary, analyse_run
        from evalrun.analysis.samples import SampleTable

        folder, old = self._child.run_dir(run_id), self._parent.read_run(run_id)
        system = SystemSummary(load=(old.get("timings") or {}).get("load") or {})
        table = SampleTable.from_parquet(folder / SAMPLES)
        analysis = analyse_run(table, self._scoring.suite, spec, system)
        warnings = list(old.get("warnings") or ())
        warnings += [warning for warning in analysis.warnings if warning not in warnings]
        if verdicts is not None and self._judging is not None:
            from evalrun.sweep.judging import lineage_notes
            from evalrun.sweep.verdicts import enter_judgement

            judged = next(model for model in self._scoring.suite.models if model.id == old["model"])
            notes = lineage_notes(self._judging, judged, identities)
            analysis, said = enter_judgement(analysis, verdicts.bills(), notes)
            warnings += [each for each in said if each not in warnings]
        carried = [
            metric
            for metric in old["metrics"]
            if _first_word(metric["name"]) in _CARRIED and metric["name"] != JUDGE_COST
        ]
        made = [
            metric.document()
            for metric in analysis.metrics
            if _first_word(metric.name) not in _CARRIED or metric.name == JUDGE_COST
        ]
        kept = {name: old["details"][name] for name in _CARRIED_DETAILS if name in old["details"]}
        self._child.finish_run(
            run_id,
            {
                **old,
                "counts": asdict(analysis.counts),
                "metrics": [*made, *carried],
                "details": {**asdict(analysis.details), **kept},
                "warnings": warnings,
                "timings": {**old["timings"], "rescored_at": utc_now()},
                "digests": {},
            },
        )
        drop_judge_journals(folder)


def _specs(suite: Suite, plan: Sequence[Mapping[str, Any]]) -> dict[str, RunSpec]:
    """The cells of the matrix by run id; a run without a part of its prompt has the cell of the whole."""
    from evalrun.suite.plan import cells

    found = {spec.run_id: spec for spec in cells(suite)}
    places = {
        (spec.model.id, spec.prompt.id, spec.dataset.id, canonical_json(spec.axes)): spec
        for spec in found.values()
    }
    for run in plan:
        key = (run["model"], run.get("ablates"), run["dataset"], canonical_json(run["params"]))
        if key in places:
            found[run["run"]] = places[key]
    return found


def _first_word(name: str) -> str:
    return name.partition(".")[0]
