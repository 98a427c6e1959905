"""Gates and alerts that speak of what a suite cannot have: a metric, groups or a model that nothing names.

Such a gate could only fail at the end of a sweep, when everything has been paid for. What depends on answers
(which labels occur, whether a figure has a value) is left to the end.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from evalrun import registry
from evalrun.analysis.catalogue import performance_catalogue
from evalrun.analysis.counterfactual_definitions import FLIPS
from evalrun.analysis.counterfactual_definitions import OF_SCORES as OF_VERSIONS
from evalrun.analysis.fairness_definitions import CRITERIA, DECISIONS
from evalrun.analysis.rates import RATES
from evalrun.analysis.repeat_definitions import OF_SCORES as OF_REPEATS
from evalrun.errors import Problem
from evalrun.gates.conditions import Gate
from evalrun.scoring.base import Scorer
from evalrun.suite.findings import did_you_mean
from evalrun.suite.schema import Suite
from evalrun.suite.versions import PERTURB

_LABEL = "<label>"
_OF_K = re.compile(r"pass_(at|hat)_[1-9][0-9]*")


@dataclass(frozen=True, slots=True)
class Speakable:
    """What a condition of a suite may speak of.

    `names` are whole names of metrics and `heads` beginnings that may be followed by anything (a class, or
    what a scorer of the user's own adds). `columns` hold groups, `attributes` set versions of samples apart;
    `scopes` are the ids that `for` may name (without `run`: those depend on what is selected).
    """

    names: frozenset[str]
    heads: tuple[str, ...]
    columns: frozenset[str]
    attributes: frozenset[str]
    repeated: bool
    scopes: Mapping[str, Collection[str]]

    def metric(self, name: str) -> bool:
        """Whether runs of the suite can have a metric of that name."""
        if name in self.names or name.startswith(self.heads):
            return True
        head, _, rest = name.partition(".")
        if head == "fairness":
            return any(self._between(rest.removeprefix(f"{each}.")) for each in self._columns_of(rest))
        if head == "counterfactual":
            return any(self._of_versions(rest.removeprefix(f"{each}.")) for each in self._attributes_of(rest))
        inner, _, figure = rest.rpartition(".")
        if head == "robustness":
            return PERTURB in self.attributes and figure in OF_VERSIONS and self.metric(inner)
        if head == "repeats" and self.repeated:
            known = figure in OF_REPEATS or _OF_K.fullmatch(figure) is not None
            return rest == "consistency" or (known and self.metric(inner))
        return False

    def _columns_of(self, rest: str) -> list[str]:
        return [each for each in self.columns if rest.startswith(f"{each}.")]

    def _attributes_of(self, rest: str) -> list[str]:
        return [each for each in self.attributes if rest.startswith(f"{each}.")]

    def _between(self, figure: str) -> bool:
        """Whether groups of a column have a figure: `<metric>.gap`, `equal_opportunity.<label>.ratio`."""
        inner, _, last = figure.rpartition(".")
        if last in ("gap", "contrast"):
            return self.metric(inner)
        kinds = (each.rpartition(".") for each in CRITERIA)
        return any(
            last == form and (inner == kind or inner.startswith(f"{kind}.")) for kind, _, form in kinds
        )

    def _of_versions(self, figure: str) -> bool:
        inner, _, last = figure.rpartition(".")
        return figure in FLIPS or (last == "difference" and self.metric(inner))


def speakable(suite: Suite, scorers: Sequence[Scorer], declared: Mapping[str, Collection[str]]) -> Speakable:
    """What the conditions of a suite may speak of; `declared` gives the ids of models, prompts, datasets."""
    patterns = {rate.info.name for rate in RATES} | set(performance_catalogue())
    attributes: set[str] = set()
    for dataset in suite.datasets:
        attributes |= {*dataset.counterfactual, *((PERTURB,) if dataset.perturb else ())}
    columns = set(attributes)
    if suite.fairness is not None:
        columns |= {*suite.fairness.by, *suite.fairness.control}
        columns |= {name for names in suite.fairness.intersections for name in names}
        columns |= {"-".join(names) for names in suite.fairness.intersections}
        patterns |= {*DECISIONS, *(f"{name}.{_LABEL}" for name in DECISIONS)}
    heads = []
    for scorer in scorers:
        patterns |= {info.name for info in scorer.metrics()}
        if scorer.registered not in registry.SCORERS:
            patterns.add(scorer.name)
            heads.append(f"{scorer.name}.")
    return Speakable(
        names=frozenset(each for each in patterns if _LABEL not in each),
        heads=(*heads, *(each.partition(_LABEL)[0] for each in patterns if _LABEL in each)),
        columns=frozenset(columns),
        attributes=frozenset(attributes),
        repeated=suite.repeats > 1,
        scopes=declared,
    )


def unknown(gate: Gate, about: Speakable, kind: str = "gate") -> Iterator[Problem]:
    """What a condition speaks of and its suite does not have. The problems have no place."""
    if not about.metric(gate.metric):
        what = (
            f"no run of this suite has the metric '{gate.metric}', of which the {kind} '{gate.text}' speaks"
        )
        yield Problem(what, "", _remedy(gate.metric, about))
    for column in gate.slice:
        if column not in about.columns:
            what = f"the {kind} '{gate.text}' speaks of groups of '{column}', which fairness does not compare"
            yield Problem(
                what, "", did_you_mean(column, about.columns) or "Name it under fairness: {by: […]}."
            )
    for axis, value in gate.scope.items():
        if axis in about.scopes and value not in about.scopes[axis]:
            what = f"the {kind} '{gate.text}' speaks of the {axis} '{value}', which the suite does not have"
            yield Problem(what, "", did_you_mean(value, about.scopes[axis]))


def _remedy(name: str, about: Speakable) -> str:
    near = registry.nearest(name, about.names)
    if near:
        return f"Did you mean '{near}'?"
    if name.startswith("fairness."):
        return f"Columns that fairness compares: {', '.join(sorted(about.columns)) or 'none'}."
    if name.startswith("repeats.") and not about.repeated:
        return "With repeats: 2 or more there is."
    own = sorted({each for each in about.names if each.partition(".")[0] not in _FAMILIES})
    return f"Scores of this suite: {', '.join(own)}."


_FAMILIES = frozenset(name.partition(".")[0] for name in performance_catalogue())
