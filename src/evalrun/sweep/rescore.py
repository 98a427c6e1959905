"""Scores a finished sweep again, as a child of it, without asking any model.

The file names what is new: a list of scorers, or a mapping with any of scorers, parse, derive, gates,
unparsed and fairness. Everything else is the suite's of the sweep, which stays as it was but for one event
that names the child. What was measured about the answers (times, tokens, memory, cost) is carried over.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.canonical import digest
from evalrun.errors import ExitCode, Problem, UserError
from evalrun.suite.load import parse_suite
from evalrun.tracking.folder import SAMPLES, SYSTEM, SweepFolder
from evalrun.tracking.model import utc_now
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.gates.conditions import Gate
    from evalrun.scoring.pipeline import Pipeline
    from evalrun.suite.plan import RunSpec
    from evalrun.suite.schema import Suite
    from evalrun.suite.tree import Node
    from evalrun.sweep.main import Outcome

KEYS = ("scorers", "parse", "derive", "gates", "unparsed", "fairness")
"""What a file of scorers may say."""

_CARRIED = frozenset({"performance", "memory", "cpu", "cost"})
"""First words of the metrics that scoring has no part in."""
_CARRIED_DETAILS = ("latency", "throughput_window", "over_time", "timed", "client_limited")


@dataclass(frozen=True, slots=True)
class NewScoring:
    """A file of scorers as read, and the suite of the sweep with what it says put in."""

    path: Path
    text: str
    suite: Suite
    pipeline: Pipeline
    gates: tuple[Gate, ...]


def rescore(store: Store, parent: SweepFolder, file: Path, argv: tuple[str, ...] = ()) -> Outcome:
    """Score `parent` again by what `file` says; returns the child sweep, complete.

    Raises UserError, with nothing written, where the sweep is not complete or the file is wrong.
    """
    from evalrun.gates.baseline import choose_baseline

    manifest = parent.read_manifest()
    if manifest["status"] != "complete":
        raise UserError(
            f"the sweep is {parent.status()}, not complete",
            where=parent.path.name,
            remedy="Run its suite again to finish it, then score it again.",
        )
    scoring = read_scoring(file, manifest)
    baseline = choose_baseline(store, None, manifest["project"]) if scoring.gates else None
    child = store.create_sweep(manifest["name"])
    try:
        with child.lock():
            outcome = _Rescoring(parent, child, scoring, manifest, argv).run(baseline)
    except BaseException:
        # Nothing in it cost anything: half a child is of no use to anyone.
        shutil.rmtree(child.path, ignore_errors=True)
        raise
    _tell(store, parent, child, scoring)
    store.index(child)
    return outcome


def _tell(store: Store, parent: SweepFolder, child: SweepFolder, scoring: NewScoring) -> None:
    detail = {"child": child.ulid, "scorers": [each.name for each in scoring.pipeline.scorers]}
    if parent.path.parent != store.sweeps:  # a folder elsewhere, which this store's catalog does not hold
        parent.append_event("rescore", detail)
        return
    with store.changing(parent):
        parent.append_event("rescore", detail)


def read_scoring(file: Path, manifest: Mapping[str, Any]) -> NewScoring:
    """Read and check a file of scorers against the suite in a sweep's manifest. Raises UserError by line."""
    from evalrun.gates.conditions import parse_gate
    from evalrun.scoring.pipeline import Pipeline, suite_scorers
    from evalrun.suite.environment import expand
    from evalrun.suite.tree import parse_yaml

    text = _text(file)
    tree, problems = parse_yaml(text, str(file))
    if tree is not None:
        problems += expand(tree, os.environ).problems
    if tree is None or problems:
        raise UserError(problems or [Problem("the file is empty", str(file), "List scorers in it.")])
    given = _given(tree, file)
    data = {**manifest["suite"]["resolved"], "gates": [], **given}
    if "scorers" in given and "derive" not in given:
        data["derive"] = {}  # formulas over scores that are gone would be errors
    with _located(tree), _modules_beside(file):
        suite = parse_suite(data)
        pipeline = Pipeline([each.build() for each in suite.parse], suite_scorers(suite))
        gates = [parse_gate(each) for each in suite.gates]
        wrong = [each for each in gates if isinstance(each, Problem)]
        if wrong:
            raise UserError(wrong)
    return NewScoring(
        file, text, suite, pipeline, tuple(each for each in gates if not isinstance(each, Problem))
    )


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
            [Problem(each.what, _place(tree, each.where), each.remedy) for each in error.problems],
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

    def run(self, baseline: SweepFolder | None) -> Outcome:
        from evalrun.gates.check import blocks, check_sweep
        from evalrun.suite.plan import cells
        from evalrun.sweep.main import Outcome

        manifest = self._manifest()
        self._child.write_manifest(manifest)
        detail = {"parent": self._parent.ulid, "argv": list(self._argv)}
        self._child.append_event("rescore", detail, target=self._parent.ulid)
        specs = {spec.run_id: spec for spec in cells(self._scoring.suite)}
        for run_id in self._parent.run_ids():
            self._run(run_id, specs.get(run_id))
        gates = check_sweep(self._scoring.gates, self._child, manifest["plan"], baseline)
        exit_code = ExitCode.GATE_FAILED if blocks(gates, "warn") else ExitCode.OK
        manifest |= {
            "status": "complete",
            "finished_at": utc_now(),
            "gates": [asdict(gate) for gate in gates],
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

    def _manifest(self) -> dict[str, Any]:
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
            "spec_digest": digest({"parent": self._parent.ulid, "suite": resolved}),
            "suite": {**old["suite"], "resolved": resolved},
            "rescore": {"path": str(scoring.path), "text": scoring.text, "digest": digest(scoring.text)},
            "provenance": collect(list(self._argv), scoring.path.resolve().parent),
            "gates": [],
            "faults": [],
            "exit_code": None,
        }

    def _run(self, run_id: str, spec: RunSpec | None) -> None:
        from evalrun.analysis.run import analyse_run
        from evalrun.analysis.table import SampleTable
        from evalrun.sweep.rescore_samples import rescore_samples

        folder, old = self._child.run_dir(run_id), self._parent.read_run(run_id)
        source = self._parent.samples_path(run_id)
        rescore_samples(source, folder / SAMPLES, self._scoring.pipeline)
        if (source.parent / SYSTEM).exists():
            shutil.copyfile(source.parent / SYSTEM, folder / SYSTEM)
            (folder / SYSTEM).chmod(0o600)
        analysis = analyse_run(SampleTable.from_parquet(folder / SAMPLES), self._scoring.suite, spec)
        carried = [each for each in old["metrics"] if _first_word(each["name"]) in _CARRIED]
        made = [asdict(each) for each in analysis.metrics if _first_word(each.name) not in _CARRIED]
        kept = {name: old["details"][name] for name in _CARRIED_DETAILS if name in old["details"]}
        self._child.finish_run(
            run_id,
            {
                **old,
                "counts": asdict(analysis.counts),
                "metrics": [*made, *carried],
                "details": {**analysis.details, **kept},
                "timings": {**old["timings"], "rescored_at": utc_now()},
                "digests": {},
            },
        )


def _first_word(name: str) -> str:
    return name.partition(".")[0]
