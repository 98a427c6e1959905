"""Asks the runs of a sweep on a Ray cluster, and gathers the answers into its ordinary folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.cluster.asking import Asking, OnOptions
from evalrun.cluster.connect import connect
from evalrun.cluster.place import Place, normal
from evalrun.errors import UserError
from evalrun.providers.batch_api import BatchOptions
from evalrun.suite.load import LoadedSuite
from evalrun.suite.overrides import Overrides

if TYPE_CHECKING:
    from evalrun.analysis.run import RunAnalysis
    from evalrun.gates.conditions import GateResult
    from evalrun.suite.plan import RunSpec
    from evalrun.sweep.matrix_job import MatrixJob
    from evalrun.sweep.phase import Phase


def open_conduct(loaded: LoadedSuite, overrides: Overrides, options: OnOptions) -> OnRay:
    """Join the cluster and look at the place, before anything else. Raises UserError."""
    suite = loaded.suite
    for name, there in (
        ("load", suite.load),
        ("stop_early", suite.stop_early),
    ):
        if there:
            raise UserError(
                f"a suite with {name} is asked on one machine",
                where=loaded.locate(name),
                remedy="Leave --on out.",
            )
    for at, model in enumerate(suite.models):
        batch = getattr(model.options, "batch", False)
        if batch is True or isinstance(batch, BatchOptions):
            raise UserError(
                f"model '{model.id}' is asked in batches, which needs no cluster",
                where=loaded.locate("models", at),
                remedy="Leave --on out, or `batch`.",
            )
    url = normal(options.at)
    ray, joined_before = connect(options.on)
    return OnRay(ray, joined_before, Place(url, make=True), loaded.path.resolve(), overrides, options)


class OnRay:
    """How the runs of a sweep are asked (`evalrun.sweep.phase.Conduct`)."""

    whole = True

    def __init__(
        self,
        ray: Any,
        joined_before: bool,
        place: Place,
        suite: Path,
        overrides: Overrides,
        options: OnOptions,
    ) -> None:
        self._ray, self._joined_before = ray, joined_before
        self._place, self._suite = place, suite
        self._overrides, self._options = overrides, options
        self._said: dict[str, Any] = {}
        self.refused: UserError | None = None
        """Why nothing was asked: the plan, the place or a node is not what it must be."""

    def enter(self, spec: RunSpec, analysis: RunAnalysis) -> RunAnalysis:
        """As they are."""
        return analysis

    def gates(self, results: Sequence[GateResult]) -> list[GateResult]:
        """As they are."""
        return list(results)

    def document(self) -> Mapping[str, Any]:
        """Where the sweep was asked."""
        return {"cluster": self._said} if self._said else {}

    async def ask(self, phase: Phase, jobs: Sequence[MatrixJob]) -> None:
        """Ask, gather and finish the runs. `jobs` are all, the finished ones too."""
        todo = [
            job
            for job in jobs
            if not job.folder.is_finished(job.name) and not job.finish.is_waiting(job.name)
        ]
        if not todo:
            return
        place, suite = self._place, self._suite
        try:
            asking = Asking(self._ray, place, suite, self._overrides, self._options, phase, todo)
            await asking.run(self._said)
        except UserError as fault:
            phase.execution.faults.append(fault)
            self.refused = fault

    def close(self) -> None:
        """Leave the cluster; one that was started for the sweep ends."""
        if not self._joined_before:
            self._ray.shutdown()
