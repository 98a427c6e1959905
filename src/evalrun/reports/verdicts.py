"""How the runs of a sweep stand, as its results have it, and what that says: read by page and terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from evalrun.frozen import frozen
from evalrun.reports.advice import EVERY_RUN
from evalrun.reports.answer import answer, overall
from evalrun.reports.checkpoints import advised
from evalrun.reports.source import Source
from evalrun.reports.view import Answer, RunView, Sentence, lead_of, make_runs
from evalrun.sweep_results import GateVerdict, Primary
from evalrun.types import Status


@frozen
class Verdicts:
    """The runs, ranked within each dataset, and what that says. `views` are in the order of the plan.

    `variants` are the runs of prompts with a part left out (`ablate: true`): nobody means to use these, so
    they are not ranked.
    """

    primary: Primary | None
    views: Sequence[RunView]
    by_dataset: Mapping[str, Sequence[RunView]]
    answers: Sequence[Answer]
    variants: Sequence[RunView] = ()

    @property
    def named(self) -> bool:
        """Whether datasets must be named, because there are several."""
        return len(self.by_dataset) > 1

    @property
    def overall(self) -> Sentence:
        """Which run leads over several datasets, if that can be said."""
        return overall(self.answers)


def judge(source: Source) -> Verdicts:
    """How the runs stand, as the sweep's results have it, and what that means in words."""
    primary, plan = source.results.primary, source.manifest.plan
    standings = source.results.standings
    order = {place.run: at for at, place in enumerate(standings)}
    chance = {each.run: each for each in source.results.chance}
    everything = [
        replace(
            view,
            place=standings[order[view.id]] if view.id in order else None,
            chance=chance.get(view.id),
        )
        for view in make_runs(plan, source.runs, primary)
    ]
    ablated = {cell.run for cell in plan if cell.ablates}
    by_dataset: dict[str, list[RunView]] = {}
    for view in everything:
        if view.id not in ablated:
            by_dataset.setdefault(view.dataset, []).append(view)
    for views in by_dataset.values():
        views.sort(key=lambda view: order.get(view.id, len(order)))
    failed: dict[str, list[GateVerdict]] = {}
    for gate in source.manifest.gates:
        if gate.verdict not in ("pass", "inconclusive"):
            failed.setdefault(gate.run or EVERY_RUN, []).append(gate)
    answers = [
        answer(
            name,
            runs,
            lead_of(runs, primary),
            named=len(by_dataset) > 1,
            failed_gates=failed,
            causes=_causes(runs),
        )
        for name, runs in by_dataset.items()
    ]
    if source.results.load:  # a level of load is nothing to ship
        answers = [replace(each, advice=[]) for each in answers]
    return Verdicts(
        primary,
        everything,
        by_dataset,
        [advised(each, source.results.checkpoints) for each in answers]
        or [answer("", [], primary, named=False)],
        [view for view in everything if view.id in ablated],
    )


def _causes(runs: Sequence[RunView]) -> list[str]:
    """The kinds of failures of some runs, the commonest first."""
    totals: Counter[str] = Counter()
    for run in runs:
        totals.update(run.details.errors.get(Status.FAILED, {}))
    return [kind for kind, _ in totals.most_common()]
