"""TPE: parameters from ranges, proposed by Optuna, each trial ended by an e-process against the best so far.

Optuna's study lives in memory. It is seeded and told in the order of the trials, and the scores are in the
journals: a search that was killed asks for the same trials again, and sends nothing that was answered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from evalrun.analysis.race import level_effects
from evalrun.analysis.sequential import EProcess
from evalrun.search.conduct import Searching
from evalrun.search.pool import Halted, Pool, needs
from evalrun.search.space import asked_order
from evalrun.search_results import Candidate, RaceResult, SearchResults, Step
from evalrun.suite.plan import RunSpec, cells
from evalrun.sweep.matrix_job import MatrixJob
from evalrun.sweep.phase import Phase
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.search.space import Space

WHOLE = ("max_tokens", "max_completion_tokens", "top_k")
"""Parameters that are whole numbers."""
_DIGITS = 4
_FEWEST_TRIALS = 10
"""With fewer of them nothing is said of how much each range matters."""


def check_optuna() -> None:
    """Raises UserError where Optuna is missing."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise needs("optuna", "search: {by: tpe}") from None


def _distributions(space: Space) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for axis, values in space.spec.over.items():
        name = axis.removeprefix("params.")
        if not isinstance(values, Mapping):
            found[name] = CategoricalDistribution(list(values))
            continue
        low, high, step = values["from"], values["to"], values.get("step")
        if name in WHOLE:
            found[name] = IntDistribution(int(low), int(high), step=int(step or 1))
        else:
            found[name] = FloatDistribution(low, high, step=step)
    return found


class AskedTrials(Searching):
    """Asks the baseline whole, then trial after trial as far as it can still win."""

    def __init__(self, space: Space) -> None:
        check_optuna()
        super().__init__(space)
        self._steps: list[Step] = []
        self._candidates: dict[str, Candidate] = {}
        self._made: dict[str, dict[str, JSON]] = {}
        self._scores: dict[str, Any] = {}
        self._study: Any = None

    async def ask(self, phase: Phase, jobs: Sequence[MatrixJob]) -> None:
        """Make the trials, or as many as there is time for."""
        base = next(job for job in jobs if job.name == self._space.baseline.run_id)
        units = asked_order(base)
        kept = replace(phase, needed_later=frozenset({base.model.id}))
        pool = Pool(kept, units, self._space.by)
        try:
            await self._search(pool, base, phase)
        except Halted:
            pass
        finally:
            await phase.providers[base.model.id].close()

    async def _search(self, pool: Pool, base: MatrixJob, phase: Phase) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        spec, every = self._space.spec, range(len(pool.units))
        sampler = optuna.samplers.TPESampler(seed=phase.suite.seed)
        self._study = study = optuna.create_study(direction="maximize", sampler=sampler)
        best = pool.add(base)
        shares = self._scores = {best: (await pool.ask([best], every))[best]}
        self._candidates[best] = Candidate(best, len(every), float(np.nanmean(shares[best])), 0.0)
        for number in range(1, spec.trials + 1):
            trial = study.ask(_distributions(self._space))
            params = {name: _short(value) for name, value in trial.params.items()}
            known = next((name for name, made in self._made.items() if made["params"] == params), None)
            name = known or pool.add(replace(base, spec=trial_spec(self._space, number, params)))
            self._made.setdefault(name, {"params": params, "number": number})
            value, scores = await self._trial(pool, name, best, shares[best], number)
            study.tell(trial, value)
            shares[name] = scores
            if self._candidates[name].out is None and value > float(np.nanmean(shares[best])):
                best = name
            said = f"trial {number} of {spec.trials}: {params}, {value:.4g}"
            phase.progress.message(f"{said}{'' if best != name else ', the best so far'}")
            ended = f"all {spec.trials} trials were made"
            self.results = self._so_far(pool, best, ended, last=number == spec.trials)
        await pool.finish(self._space.baseline.run_id)
        self.results = await pool.guarded(self.results, self._space.guards)

    async def _trial(self, pool: Pool, name: str, best: str, against: Any, number: int) -> tuple[float, Any]:
        """Ask a trial until it is shown to be worse than the best so far, or has been asked everything.

        Its value is its mean plus what the best has on all rows more than on those that both were asked.
        """
        worse, block, scores = EProcess(), self._space.spec.block, np.empty(0)
        limit, out = -math.log(self._space.spec.alpha), None
        for start in range(0, len(pool.units), block):
            at = range(start, min(start + block, len(pool.units)))
            scores = np.concatenate([scores, (await pool.ask([name], at))[name]])
            known = against[start : len(scores)] - scores[start:]
            worse.update(known[~np.isnan(known)])
            if worse.log_value >= limit:
                out = number
                break
        both = ~np.isnan(scores) & ~np.isnan(against[: len(scores)])
        shared = float(scores[both].mean() - against[: len(scores)][both].mean()) if both.any() else -1.0
        value = shared + float(np.nanmean(against))
        evidence = worse.log_value / math.log(10)
        mean = float(np.nanmean(scores)) if both.any() else None
        self._candidates[name] = Candidate(name, len(scores), mean, evidence, out)
        self._steps.append(Step(number, pool.calls, {name: evidence}))
        return value, scores

    def _so_far(self, pool: Pool, best: str, ended: str, *, last: bool) -> SearchResults:
        space, spec = self._space, self._space.spec
        left = tuple(name for name, each in self._candidates.items() if each.out is None)
        labels = {name: _label(made["params"]) for name, made in self._made.items()}
        base, params = space.baseline, {name: made["params"] for name, made in self._made.items()}
        names = [axis.removeprefix("params.") for axis in spec.over]
        axes: dict[str, Any] = {base.run_id: {n: base.params[n] for n in names if n in base.params}, **params}
        listed = {name for name in names if isinstance(spec.over[f"params.{name}"], list)}
        of_lists = {run: {n: v for n, v in of.items() if n in listed} for run, of in params.items()}
        race = RaceResult(
            spec.alpha, 0.0, tuple(self._candidates.values()), tuple(self._steps), left, best, pool.calls,
            len(pool.units) * (spec.trials + 1), ended,
        )  # fmt: skip
        return SearchResults(
            metric=space.by.metric, baseline=space.baseline.run_id, winner=best, race=race, rows=space.rows,
            data=space.data_digest, labels={base.run_id: base.run_id, **labels}, made=self._made,
            axes=axes, effects=level_effects({run: self._scores[run] for run in of_lists}, of_lists),
            importance=importance(self._study, {n for n in names if n not in listed}) if last else {},
        )  # fmt: skip


def importance(study: Any, ranges: set[str]) -> dict[str, float]:
    """The share of each range in what the trials of an Optuna study differ by (fANOVA: Hutter, Hoos and
    Leyton-Brown 2014); nothing as long as they are too few or alike.

    Optuna's default, PED-ANOVA, names the wrong one of two ranges in a third of studies of 20 trials.
    """
    import optuna

    alike = len({trial.value for trial in study.trials}) < 2
    if len(study.trials) < _FEWEST_TRIALS or len(ranges) < 2 or alike:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (RuntimeError, ValueError):
        return {}
    return {name: float(share) for name, share in found.items() if name in ranges and share == share}


def trial_spec(space: Space, number: int, params: Mapping[str, JSON]) -> RunSpec:
    """The cell of a trial: the baseline's with other parameters, and a name of its own."""
    named = cells(space.suite.model_copy(update={"models": [tuned(space, number, params)], "include": []}))
    spec = next(each for each in named if each.prompt.id == space.baseline.prompt.id)
    swept = {**space.baseline.params, **params}
    return replace(space.baseline, run_id=spec.run_id, params=swept, swept=dict(params))


def tuned(space: Space, number: int, params: Mapping[str, JSON]) -> Any:
    """The baseline's model with a trial's parameters."""
    model = space.baseline.model
    update = {"id": f"{model.id}-trial{number}", "params": {**space.baseline.params, **params}}
    return model.model_copy(update=update)


def _label(params: Any) -> str:
    return " \u00b7 ".join(f"{name}={value}" for name, value in params.items())


def _short(value: Any) -> JSON:
    """A number with a few digits, which people can read and write."""
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
