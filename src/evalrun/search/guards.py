"""Guards: what a winner must not worsen, whatever it wins by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evalrun.analysis.measures import RunSamples, runs_of
from evalrun.analysis.pairing import RunPair
from evalrun.errors import Problem, UserError
from evalrun.floats import COMPARISONS
from evalrun.gates.check import check_paired
from evalrun.gates.conditions import Gate, find_metric, parse_gate, speakable, unknown
from evalrun.scoring.base import Scorer
from evalrun.search_results import SearchResults
from evalrun.suite.load import LoadedSuite
from evalrun.suite.schema import Suite
from evalrun.tracking.folder import SweepFolder


def read_guards(loaded: LoadedSuite, suite: Suite, scorers: Sequence[Scorer]) -> tuple[Gate, ...]:
    """The guards of a search. Raises UserError for one that cannot be read or speaks of an unknown metric."""
    spec = loaded.suite.search
    texts = () if spec is None else spec.guards
    scopes = {
        "model": {model.id for model in suite.models},
        "prompt": {prompt.id for prompt in suite.prompts},
        "dataset": {dataset.id for dataset in suite.datasets},
        "load": set[str](),
    }
    about, found, problems = speakable(suite, scorers, scopes), [], []
    for at, text in enumerate(texts):
        where = loaded.locate("search", "guards", at)
        guard = parse_gate(text)
        if isinstance(guard, Problem):
            what = guard.what.replace("the gate", "the guard")
            problems.append(Problem(what, where, guard.remedy))
        elif guard.kind == "served" or guard.pool or guard.against or guard.steps or guard.scope:
            remedy = "Write METRIC no worse than baseline by MARGIN, or METRIC <= NUMBER."
            problems.append(Problem(f"'{text}' is no guard: it compares with no candidate", where, remedy))
        else:
            problems += [replace(each, where=where) for each in unknown(guard, about, "guard")]
            found.append(guard)
    if problems:
        raise UserError(problems)
    return tuple(found)


def guarded(results: SearchResults, guards: Sequence[Gate], folder: SweepFolder) -> SearchResults:
    """The results with the best candidate that holds every guard as the winner: of those left, then of those
    dropped last; the baseline where none better than it does.

    A candidate holds a paired guard where it is, on the rows that both were asked, not worse by more than the
    margin.
    """
    if not guards:
        return results
    runs = {each.run.run: each for each in runs_of(folder)}
    base = runs.get(results.baseline)
    faults: dict[str, tuple[str, ...]] = {}
    known = [each for each in results.race.candidates if each.mean is not None and each.name in runs]
    known.sort(key=lambda each: (each.out is None, each.out or 0, each.mean or 0.0), reverse=True)
    for name in (each.name for each in known):
        said = []
        if name != results.baseline:
            said = [fault for guard in guards if (fault := _fault(guard, runs[name], base))]
        if not said:
            return replace(results, winner=name, unguarded=faults)
        faults[name] = tuple(said)
    return replace(results, winner=results.baseline, unguarded=faults)


def _fault(guard: Gate, run: RunSamples, base: RunSamples | None) -> str:
    """How a candidate breaks a guard; empty where it holds it."""
    metrics = [each.document() for each in run.run.metrics]
    before = [] if base is None else [each.document() for each in base.run.metrics]
    value, held = _value(guard, metrics), _value(guard, before)
    if guard.kind == "no_worse" and base is not None:
        result = check_paired(guard, RunPair(base, run, ()))
        worse = result.difference
        if worse is None:  # no score of single samples: by the values
            worse = None if value is None or held is None else value - held
        metric = find_metric(metrics, guard.metric, guard.slice)
        if worse is None or metric is None:
            return f"{guard.text}: it has no value"
        by = worse if metric["direction"] == "lower" else -worse
        return f"{guard.text}: {worse:+.4g}" if COMPARISONS[">"](by, guard.bound) else ""
    if value is None or (guard.kind == "relative" and held is None):
        return f"{guard.text}: it has no value"
    return "" if guard.holds(value, held) else f"{guard.text}: {value:.4g}"


def _value(guard: Gate, metrics: Sequence[Mapping[str, object]]) -> float | None:
    found = find_metric(metrics, guard.metric, guard.slice)
    value = None if found is None else found["value"]
    return value if isinstance(value, int | float) else None
