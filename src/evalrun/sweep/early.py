"""An ordinary sweep that ends early: when its gates or comparisons are decided, or its intervals narrow.

Runs are asked block by block in drawn order. What decides holds however often one looks, and so do the
intervals that are reported: e-values and confidence sequences (`evalrun.analysis.sequential`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.sequential import ConfidenceSequence, EProcess
from evalrun.canonical import seeded_bytes
from evalrun.datasets import Item
from evalrun.errors import UserError
from evalrun.gates.conditions import Gate, GateResult, value_of
from evalrun.gates.early import LookedGate
from evalrun.results import RunResults
from evalrun.sweep.blocks import Followed, Judged, Rows, drawn, judged_by, units_of
from evalrun.sweep.endpoints import run_jobs
from evalrun.sweep.matrix_job import MatrixJob
from evalrun.sweep.phase import Phase
from evalrun.sweep_results import Standing, StandingVerdict, StoppedEarly
from evalrun.tracking.folder import SweepFolder
from evalrun.types import MetricValue

if TYPE_CHECKING:
    from evalrun.analysis.run import RunAnalysis
    from evalrun.suite.plan import RunSpec
    from evalrun.suite.search import EarlyRules
    from evalrun.sweep.prepare import PreparedSweep

Floats: TypeAlias = NDArray[np.float64]

NO_INTERVAL = (
    "no interval: its run ended when enough was known, and one for a fixed number of rows does not hold"
)


@dataclass(slots=True)
class _Look:
    """One run, as far as it is asked. `before` are the baseline's scores, where a gate compares with them."""

    job: MatrixJob
    units: Sequence[Sequence[Item]]
    followed: Followed
    gates: list[tuple[LookedGate, Judged]]
    before: Followed | None = None
    until: ConfidenceSequence | None = None
    compared: bool = False
    at: int = 0
    broken: bool = False
    shares: list[Floats] = field(default_factory=list)
    """The headline's, block by block."""

    @property
    def rows(self) -> Rows:
        """What has been asked."""
        return Rows(list(chain.from_iterable(self.units[: self.at])))

    def done(self, until: float | None) -> bool:
        """Whether nothing more has to be asked."""
        if self.broken or self.at >= len(self.units):
            return True
        narrow = self.until is None or (until is not None and self.until.half_width <= until)
        return narrow and not self.compared and all(gate.verdict for gate, _ in self.gates)

    def tell(self, block: Sequence[Sequence[Item]], by: Judged | None) -> None:
        """Look at a block that was answered."""
        if by is not None:
            shares = self.followed.means(block, by)
            self.shares.append(shares)
            if self.until is not None:
                self.until.update(shares[~np.isnan(shares)])
        for gate, judged in self.gates:
            before = self.before.means(block, judged) if gate.paired and self.before else None
            gate.tell(self.followed.means(block, judged), before)


class EarlyStop:
    """Asks the runs of a sweep block by block, until what the suite's `stop_early` names is reached."""

    def __init__(self, prepared: PreparedSweep, rules: EarlyRules, baseline: SweepFolder | None) -> None:
        """Raises UserError, before anything is sent, where nothing can be looked at."""
        self._prepared, self._rules, self._baseline = prepared, rules, baseline
        self._suite = prepared.loaded.suite
        self._where = prepared.loaded.locate("stop_early")
        self._refuse()
        self._by = self._bounded()
        self._head = next(iter(self._by.values()), None)
        if rules.until is not None:
            self._head, _ = judged_by(prepared.loaded, None, self._where)
            if not 0 < rules.until < self._head.width / 2:
                raise UserError(
                    f"±{rules.until:g} is no precision of {self._head.metric}, which lies between "
                    f"{self._head.low:g} and {self._head.high:g}",
                    where=self._where,
                    remedy=f"Write a number below {self._head.width / 2:g}, such as 0.03.",
                )
        self._units = {
            spec.dataset.id: drawn(units_of(prepared.dataset(spec)), self._suite.seed)
            for spec in prepared.specs
        }
        self._gated = {spec.run_id: self._gates_of(spec) for spec in prepared.specs}
        self._looks: dict[str, _Look] = {}
        self._compares = rules.decided and not any(self._gated.values())
        if self._compares and not self._comparable():
            raise UserError(
                "there is nothing to decide: no gate that speaks of the mean of a bounded score, and no two "
                "runs to compare by one",
                where=self._where,
                remedy="Write a gate such as `exact_match >= 0.5`, or --until 0.03.",
            )
        self._pairs: dict[tuple[str, str], EProcess] = {}

    def _refuse(self) -> None:
        suite, what = self._suite, ""
        if self._prepared.tasks is not None:
            what = "published tasks are asked whole"
        elif suite.load is not None:
            what = "levels of load are asked whole"
        elif any(dataset.counterfactual or dataset.perturb for dataset in suite.datasets):
            what = "versions of samples are asked whole"
        if what:
            remedy = "Leave out --stop-when-decided and --until (`stop_early`)."
            raise UserError(f"{what}, and cannot be ended early", where=self._where, remedy=remedy)

    def _bounded(self) -> dict[str, Judged]:
        """The metrics that can be looked at, by their names."""
        found: dict[str, Judged] = {}
        for scorer in self._prepared.pipeline.scorers:
            try:
                by, _ = judged_by(self._prepared.loaded, scorer.name, self._where)
            except UserError:
                continue
            found[by.metric] = by
        return found

    def _comparable(self) -> bool:
        datasets = [spec.dataset.id for spec in self._prepared.specs]
        return self._head is not None and len(set(datasets)) < len(datasets)

    def _gates_of(self, spec: RunSpec) -> list[tuple[LookedGate, Judged]]:
        if not self._rules.decided:
            return []
        found = []
        planned = {
            "run": spec.run_id, "model": spec.model.id, "prompt": spec.prompt.id, "dataset": spec.dataset.id,
            "params": spec.axes,
        }  # fmt: skip
        for gate in self._prepared.gates:
            by = self._by.get(gate.metric)
            if by is not None and not gate.slice and gate.covers(planned):
                looked = self._looked_gate(gate, spec, by)
                if looked is not None:
                    found.append((looked, by))
        return found

    def _looked_gate(self, gate: Gate, spec: RunSpec, by: Judged) -> LookedGate | None:
        """The gate as it is looked at; None where it is checked at the end alone."""
        if gate.kind == "no_worse" and not (gate.pool or gate.against or gate.steps):
            if self._before(spec) is None:
                return None
            return LookedGate(gate, spec.run_id, self._gate_alpha(), True, gate.bound / by.width)
        if gate.kind not in ("absolute", "relative"):
            return None
        held = None
        if gate.kind == "relative":
            before = self._before(spec)
            held = value_of(gate, [each.document() for each in before.metrics])[0] if before else None
            if held is None:
                return None
        above = (gate.op in (">", ">=")) == by.higher
        bound = by.share(gate.limit(held))
        return LookedGate(gate, spec.run_id, self._rules.alpha, False, bound, above)

    def _gate_alpha(self) -> float:
        from evalrun.gates.check import fail_alpha

        if self._suite.nightly is None:
            return self._rules.alpha
        checks = sum(gate.kind == "no_worse" for gate in self._prepared.gates) * len(self._prepared.specs)
        resolved = {"suite": {"resolved": self._suite.resolved()}}
        return min(self._rules.alpha, fail_alpha(resolved, checks))

    def _before(self, spec: RunSpec) -> RunResults | None:
        """The baseline's run of the same name."""
        if self._baseline is None or not self._baseline.is_finished(spec.run_id):
            return None
        return self._baseline.run(spec.run_id)

    async def ask(self, phase: Phase, jobs: Sequence[MatrixJob]) -> None:
        """Ask until enough is known or it is stopped, and finish the runs."""
        kept = replace(phase, needed_later=frozenset(job.model.id for job in jobs) | phase.needed_later)
        self._looks = {job.name: self._look(job) for job in jobs}
        self._pairs = {
            pair: EProcess()
            for of_dataset in self._by_dataset().values()
            for one, other in combinations(of_dataset, 2)
            for pair in ((one, other), (other, one))
        }
        places: dict[str, list[list[_Look]]] = {}
        for look in self._looks.values():
            # Engines of ours one after the other; what is compared, side by side.
            endpoint = "" if self._compares else phase.providers[look.job.model.id].endpoint
            place = "here" if endpoint.startswith("local:") else endpoint
            groups = places.setdefault(place, [])
            alike = [group for group in groups if place != "here" or group[0].job.model == look.job.model]
            if alike:
                alike[0].append(look)
            else:
                groups.append([look])
        async with asyncio.TaskGroup() as tasks:
            for of_place in places.values():
                tasks.create_task(self._ask_groups(kept, of_place, phase))

    def _by_dataset(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, look in self._looks.items():
            found.setdefault(look.job.spec.dataset.id, []).append(name)
        return found

    def _look(self, job: MatrixJob) -> _Look:
        spec, columns = job.spec, [by.column for by in self._by.values()]
        excluded = self._suite.unparsed == "exclude"
        gates, before = self._gated[spec.run_id], None
        if any(gate.paired for gate, _ in gates) and self._baseline is not None:
            before = Followed(self._baseline.run_dir(spec.run_id), columns, excluded)
            before.read()
        units, until = self._units[spec.dataset.id], None
        if self._rules.until is not None:
            rows = len(units) if self._rules.of == "dataset" else None
            until = ConfidenceSequence(self._rules.alpha, rows)
        followed = Followed(job.folder.run_dir(spec.run_id), columns, excluded)
        compared = self._compares and sum(
            each.dataset.id == spec.dataset.id for each in self._prepared.specs
        ) > 1  # fmt: skip
        return _Look(job, units, followed, gates, before, until, compared)

    async def _ask_groups(self, kept: Phase, groups: Sequence[Sequence[_Look]], phase: Phase) -> None:
        for group in groups:
            models = {look.job.model.id for look in group}
            try:
                await self._ask_group(kept, group)
            finally:
                for model in models - phase.needed_later:
                    await phase.providers[model].close()

    async def _ask_group(self, phase: Phase, looks: Sequence[_Look]) -> None:
        until = self._share(self._rules.until)
        while asked := [look for look in looks if not look.done(until)]:
            at = asked[0].at
            asked.sort(key=lambda look: seeded_bytes(self._suite.seed, "look", at, look.job.name))
            first = at == 0
            blocks = {look.job.name: look.units[look.at : look.at + self._rules.block] for look in asked}
            for look in asked:
                look.at += len(blocks[look.job.name])
            await run_jobs(phase, [
                replace(
                    look.job, samples=look.rows, finishes=False,
                    earlier=None if first else look.followed.earlier,
                )
                for look in asked if not look.job.folder.is_finished(look.job.name)
            ])  # fmt: skip
            if phase.stop.requested:
                return
            for look in asked:
                look.followed.read()
                rows = list(chain.from_iterable(blocks[look.job.name]))
                look.broken = not look.followed.has_all(rows, look.job.spec.repeats)
                if not look.broken:
                    look.tell(blocks[look.job.name], self._head)
            self._compare([look for look in asked if not look.broken])
        self._tell_end(phase, looks)
        whole = [look for look in looks if not look.broken]
        todo = [look for look in whole if not look.job.folder.is_finished(look.job.name)]
        await run_jobs(
            phase, [replace(look.job, samples=look.rows, earlier=look.followed.earlier) for look in todo]
        )

    def _tell_end(self, phase: Phase, looks: Sequence[_Look]) -> None:
        for look in looks:
            rows = sum(map(len, look.units[: look.at]))
            every = sum(map(len, look.units))
            if rows < every and not look.broken:
                phase.progress.message(f"{look.job.name}: enough is known after {rows:,} of {every:,} rows")

    def _share(self, until: float | None) -> float | None:
        return None if until is None or self._head is None else until / self._head.width

    def _compare(self, asked: Sequence[_Look]) -> None:
        """Take a block of the runs of each dataset into their pairs, and let those end that are decided."""
        told = {look.job.name: look.shares[-1] for look in asked if look.shares}
        for (one, other), process in self._pairs.items():
            if one in told and other in told and len(told[one]) == len(told[other]):
                known = told[one] - told[other]
                process.update(known[~np.isnan(known)])
        if not self._compares:
            return
        for names in self._by_dataset().values():
            left = [name for name in names if not self._behind(name, names)]
            for name in names:
                self._looks[name].compared = len(left) > 1 and name in left

    def _evidence(self, name: str, names: Sequence[str]) -> float:
        """The logarithm of the greatest e-value of another run being better."""
        return max(self._pairs[other, name].log_value for other in names if other != name)

    def _behind(self, name: str, names: Sequence[str]) -> bool:
        if len(names) < 2:
            return False
        return self._evidence(name, names) >= math.log(len(names) * (len(names) - 1) / self._rules.alpha)

    def enter(self, spec: RunSpec, analysis: RunAnalysis) -> RunAnalysis:
        """With always-valid intervals for means of bounded scores, and none where there is no such."""
        look = self._looks.get(spec.run_id)
        if look is None:
            return analysis
        look.followed.read()
        return replace(analysis, metrics=[self._always_valid(each, look) for each in analysis.metrics])

    def _always_valid(self, metric: MetricValue, look: _Look) -> MetricValue:
        by = self._by.get(metric.name)
        if not metric.scorer and not metric.slice:
            return metric
        if by is None or metric.slice:
            if metric.ci_low is None:
                return metric
            note = "; ".join(filter(None, [metric.note, NO_INTERVAL]))
            return replace(metric, se=None, ci_low=None, ci_high=None, method="", note=note)
        return always_valid(metric, by, look.followed, look.units, look.at, self._rules)

    def gates(self, results: Sequence[GateResult]) -> list[GateResult]:
        """The verdicts of the gates that were looked at in place of those for one look."""
        looked = {
            (gate.gate.text, name): (gate, by) for name, of_run in self._gated.items() for gate, by in of_run
        }
        found = []
        for result in results:
            gate, by = looked.get((result.gate, result.run), (None, None))
            look = self._looks.get(result.run)
            if gate is None or by is None or look is None or not gate.after:
                found.append(result)
            else:
                found.append(gate.result(result, by.low, by.width, by.higher, len(look.units)))
        return found

    def document(self) -> Mapping[str, Any]:
        """What the sweep came to: where each run ended, and standings that hold however often one looked."""
        looks = self._looks.values()
        stopped = StoppedEarly(
            decided=self._rules.decided,
            until=self._rules.until,
            of=self._rules.of,
            alpha=self._rules.alpha,
            asked={look.job.name: sum(map(len, look.units[: look.at])) for look in looks},
            rows={look.job.name: sum(map(len, look.units)) for look in looks},
        )
        return {"stopped_early": asdict(stopped), "standings": [asdict(each) for each in self._standings()]}

    def _standings(self) -> list[Standing]:
        if self._head is None:
            return []
        return [
            standing
            for dataset, names in self._by_dataset().items()
            for standing in self._of_dataset(dataset, [name for name in names if self._looks[name].shares])
        ]

    def _of_dataset(self, dataset: str, names: Sequence[str]) -> list[Standing]:
        if not names or self._head is None:
            return []
        by = self._head
        scores = {name: np.concatenate(self._looks[name].shares) for name in names}
        left = [name for name in names if not self._behind(name, names)]
        best = max(left or names, key=lambda name: float(np.nanmean(scores[name])))
        pairs = len(names) * (len(names) - 1) / 2
        found = [Standing(best, dataset, by.metric, "best", n=len(scores[best]), method="e-value")]
        for name in names:
            if name == best:
                continue
            common = min(len(scores[best]), len(scores[name]))
            known = scores[best][:common] - scores[name][:common]
            known = known[~np.isnan(known)]
            sequence = ConfidenceSequence(self._rules.alpha / pairs)
            ends = [2 * end - 1 for end in sequence.update((known + 1) / 2)]
            sign = by.width if by.higher else -by.width
            low, high = sorted(sign * end for end in ends)
            p = min(1.0, 2 * pairs * math.exp(-self._evidence(name, names)))
            verdict: StandingVerdict = "tied" if name in left else "behind"
            difference = sign * float(known.mean()) if len(known) else None
            found.append(
                Standing(name, dataset, by.metric, verdict, difference, low, high, p, len(known), "e-value")
            )
        order = {name: at for at, name in enumerate(sorted(names, key=lambda n: -np.nanmean(scores[n])))}
        return sorted(found, key=lambda each: order[each.run])


def always_valid(
    metric: MetricValue,
    by: Judged,
    followed: Followed,
    units: Sequence[Sequence[Item]],
    at: int,
    rules: EarlyRules,
) -> MetricValue:
    """A mean with the confidence sequence of the units that were asked, in their order."""
    shares = followed.means(units[:at], by)
    within = rules.until is not None and rules.of == "dataset"
    sequence = ConfidenceSequence(rules.alpha, len(units) if within else None)
    for start in range(0, at, rules.block):  # it looks where the sweep did
        block = shares[start : start + rules.block]
        sequence.update(block[~np.isnan(block)])
    if not sequence.n:
        return metric
    low, high = sorted((by.score(sequence.low), by.score(sequence.high)))
    what = "the population that the rows are drawn from"
    if within:
        what = f"all {len(units):,} rows of the data set (drawn without replacement)"
    note = f"always-valid {1 - rules.alpha:.0%} interval, of {what}: it holds however often one looked"
    joined = "; ".join(filter(None, [metric.note, note]))
    return replace(metric, se=None, ci_low=low, ci_high=high, method="betting", note=joined)
