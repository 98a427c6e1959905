"""`explain:` of a suite: answers of a sweep that are explained when its runs are over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from evalrun.errors import Problem, UserError
from evalrun.registry import nearest

if TYPE_CHECKING:
    from evalrun.explain.options import Options
    from evalrun.providers.base import ProviderContext
    from evalrun.suite.explain import ExplainRules
    from evalrun.suite.schema import Suite
    from evalrun.tracking.folder import SweepFolder


def explain_problems(suite: Suite, context: ProviderContext) -> Iterator[Problem]:
    """What keeps answers from being explained: unknown models, models without likelihoods, a query that
    cannot be read."""
    rules = suite.explain
    if rules is None:
        return
    from evalrun.explain.asking import check_inside, checked
    from evalrun.tracking.query import parse

    if suite.privacy is not None and suite.privacy.active:
        what = "texts are redacted before they are stored, and explaining answers needs them as they were"
        yield Problem(what, "explain", "Take 'explain' or 'privacy' away.")
    known = [model.id for model in suite.models]
    for name in rules.models:
        if name not in known:
            near = nearest(name, known)
            yield Problem(
                f"there is no model '{name}'", "explain, models", f"Did you mean '{near}'?" if near else ""
            )
    for model in suite.models:
        if not rules.models or model.id in rules.models:
            try:
                provider = checked(model, context)
                check_inside(provider, rules.method, rules.attention)
            except UserError as error:
                yield from error.problems
    try:
        parse(rules.samples.where)
    except UserError as error:
        yield from error.problems


def explain_sweep_runs(
    folder: SweepFolder, suite: Suite, store: Path, *, use_cache: bool, say: Callable[[str], None]
) -> list[str]:
    """Explain the chosen samples of every finished run whose prompt is one of the suite's own. Gives what is
    to be said: runs without such samples, and those that could not be explained."""
    from evalrun.explain.main import explain_run

    rules = suite.explain
    assert rules is not None
    warnings = []
    for planned in folder.manifest().plan:
        wanted = not rules.models or planned.model in rules.models
        variant = planned.ablates is not None
        if not wanted or variant or not folder.is_finished(planned.run):
            continue
        say(f"{planned.run}: explaining {rules.samples.n} answers")
        try:
            explain_run(
                folder,
                planned.run,
                _options(rules),
                wanted=rules.samples.ids,
                where=rules.samples.where,
                count=rules.samples.n,
                seconds=rules.seconds,
                store=store,
                use_cache=use_cache,
            )
        except UserError as error:
            warnings.append(f"{planned.run} is not explained: {error.problems[0].what}")
    return warnings


def _options(rules: ExplainRules) -> Options:
    from evalrun.explain.options import Options

    return Options(
        method=rules.method,
        units=tuple(rules.units),
        target=rules.target,
        removal=rules.removal,
        most=rules.most,
        faithfulness=rules.faithfulness,
        attention=rules.attention,
    )
