"""What is reached without reading the input: the commonest target always, or one of k labels at random.

A run whose score is no better than that has shown nothing, however it compares with other runs. The labels
come from the suite: those of the scorer `classification`, those that a parser `choice` looks for, or the
options of a choice by likelihood. Answers in free words have no such level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.distributions import normal_quantile
from evalrun.analysis.intervals import mean, wilson
from evalrun.analysis.measures import Measure, RunSamples, bounds_of, by_dataset
from evalrun.analysis.paired import decided_difference
from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.sweep_results import Chance, Primary

Floats = NDArray[np.float64]

RIGHT_OR_WRONG = ("exact_match", "classification")
"""Scorers of whole answers: who names the target is right."""
CHOSEN = "option_likelihood"


@frozen
class Labels:
    """How many labels an answer can be; None where that differs from row to row. `fold`: in either case."""

    number: int | None
    fold: bool = False


def chance_levels(
    runs: Sequence[RunSamples], primary: Primary, measure: Measure, *, alpha: float, seed: int
) -> tuple[Chance, ...]:
    """Each run's first score beside the level of chance on its dataset; empty where there is none.

    Runs of a dataset are tested together (Bonferroni): which of them leads was chosen by the data.
    """
    found = []
    for group in by_dataset([run for run in runs if run.has_samples]).values():
        for run in group:
            labels = labels_of(run, primary)
            level = None if labels is None else _level(run, measure, labels, alpha, seed, len(group))
            if level is not None:
                found.append(level)
    return tuple(found)


def labels_of(run: RunSamples, primary: Primary) -> Labels | None:
    """The labels among which a run's answers are; None where its answers may be anything."""
    suite = run.sweep.suite.resolved
    kind, options = _scorer(suite, primary.score)
    if kind not in (*RIGHT_OR_WRONG, CHOSEN):
        return None
    chosen = _chosen(suite, run.run.prompt)
    if chosen is not None or kind == CHOSEN:
        return chosen
    fold = bool(options.get("ignore_case"))
    if options.get("labels"):
        return Labels(len(options["labels"]), fold)
    prompts = {each.get("id"): each.get("parse") for each in suite.get("prompts") or ()}
    parsers = prompts.get(run.run.prompt)
    parsers = suite.get("parse") if parsers is None else parsers
    for parser in (*(parsers or ()), *(options.get("parse") or ())):
        if isinstance(parser, Mapping) and isinstance(choice := parser.get("choice"), Mapping):
            return Labels(_choices(choice), fold)
    return Labels(None, fold) if kind == "classification" else None


def _scorer(suite: Mapping[str, Any], name: str | None) -> tuple[str, Mapping[str, Any]]:
    """The kind and the options of the suite's scorer of that name."""
    for entry in suite.get("scorers") or ():
        kind, options = next(iter(entry.items())) if isinstance(entry, Mapping) else (entry, None)
        options = options if isinstance(options, Mapping) else {}
        own = str(options.get("name") or kind)
        if name is not None and (name == own or name.startswith(f"{own}.")):
            return str(kind), options
    return "", {}


def _chosen(suite: Mapping[str, Any], prompt: str) -> Labels | None:
    """The options of a prompt that asks for the likeliest of some."""
    asks = [each.get("ask") for each in suite.get("prompts") or () if each.get("id") == prompt]
    choose = asks[0].get("choose") if asks and isinstance(asks[0], Mapping) else None
    if not isinstance(choose, Mapping):
        return None
    options = choose.get("options")
    return Labels(len(options) if isinstance(options, list) else None)


def _choices(choice: Mapping[str, Any]) -> int | None:
    fixed = choice.get("labels") or choice.get("options")
    columns = choice.get("option_columns") or ()
    if fixed:
        return len(fixed)
    return len(columns) if len(columns) > 1 else None


def _level(
    run: RunSamples, measure: Measure, labels: Labels, alpha: float, seed: int, tests: int
) -> Chance | None:
    """The run beside the better of the two ways to know nothing."""
    values = measure.values(run)
    target, names = _targets(run, labels.fold)
    known = ~np.isnan(values) & (target >= 0)
    if measure.direction != "higher" or measure.unit != "fraction" or not known.any():
        return None
    counts = np.bincount(target[known], minlength=len(names))
    kinds = int((counts > 0).sum())
    number = labels.number or kinds
    guessed = 1 / number if number > 1 else 0.0
    always = float(counts.max()) / int(known.sum()) if kinds > 1 else 0.0
    clusters = None if run.clusters is None else run.clusters[known]
    values = values[known]
    place = run.run.run, run.run.dataset, measure.name
    if always >= guessed > 0 or (always and not guessed):
        most = int(counts.argmax())
        blind = (target[known] == most).astype(np.float64)
        apart = decided_difference(blind, values, clusters, seed=seed, alpha=alpha, tests=tests)
        p, difference = (1.0 if apart.p is None else apart.p), apart.difference or 0.0
        by, above = f"always \u201c{names[most]}\u201d", p <= alpha and difference > 0
        low, high = apart.ci_low, apart.ci_high
        return Chance(*place, always, by, p, len(values), above, difference, low, high, tests)
    if not guessed:
        return None
    p, low, high = _against_level(values, clusters, guessed, bounds_of(measure), alpha / tests)
    p, difference = min(1.0, tests * p), float(values.mean()) - guessed
    above, by = p <= alpha and difference > 0, f"one of {number} at random"
    return Chance(*place, guessed, by, p, len(values), above, difference, low, high, tests)


def _against_level(
    values: Floats,
    clusters: NDArray[Any] | None,
    level: float,
    bounds: tuple[float | None, float | None],
    alpha: float,
) -> tuple[float, float | None, float | None]:
    """Two-sided p of the mean being `level`, and the bounds of mean - level at 1 - alpha.

    Of 0/1 samples by the score test and Wilson's interval, which inverts it, else by the standard error,
    which is that of clusters where there are any.
    """
    binary = clusters is None and bool(np.isin(values, (0.0, 1.0)).all())
    apart = float(values.mean()) - level
    if binary:
        se = math.sqrt(level * (1 - level) / len(values))
        found = wilson(float(values.sum()), len(values), 1 - alpha)
        ends = tuple(None if end is None else end - level for end in (found.low, found.high))
    else:
        se = mean(values, clusters, bounds=bounds).se or 0.0
        half = normal_quantile(1 - alpha / 2) * se
        ends = (apart - half, apart + half) if se else (None, None)
    p = math.erfc(abs(apart) / se / math.sqrt(2)) if se else 0.0 if apart else 1.0
    return p, ends[0], ends[1]


def _targets(run: RunSamples, fold: bool) -> tuple[NDArray[np.int64], list[str]]:
    """The code of each sample id's target, -1 without one, and the texts behind the codes."""
    try:
        _, targets = run.table.texts()
    except (UserError, OSError):
        return np.full(run.table.distinct, -1, np.int64), []
    plain = [label.strip() for label in targets.labels]
    known: dict[str, int] = {}
    codes = [known.setdefault(label.casefold() if fold else label, len(known)) for label in plain]
    names: list[str] = [""] * len(known)
    for code, label in zip(codes, plain, strict=True):
        names[code] = names[code] or label
    by_code = np.array([*codes, -1], np.int64)
    first = np.full(run.table.distinct, -1, np.int64)
    first[run.table.ids[::-1]] = by_code[targets.codes[::-1]]
    return first, names
