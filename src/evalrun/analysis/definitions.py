"""What every metric means, by its name: the one source for tooltips and docs/metrics.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache

from evalrun import registry
from evalrun.analysis.catalogue import (
    FINDINGS,
    OF_K,
    RATES,
    consistency_info,
    gap_info,
    performance_catalogue,
    repeat_definition,
    repeat_info,
)
from evalrun.analysis.catalogue import OF_SCORES as OF_REPEATS
from evalrun.analysis.fairness_definitions import (
    CRITERIA,
    DECISIONS,
    FLIPS,
    OF_SCORES,
    contrast_info,
    criterion_info,
    fairness_definition,
    version_definition,
    version_info,
)
from evalrun.scoring.info import MetricInfo

_PLACEHOLDER = "<label>"


def definition(name: str, own: Mapping[str, MetricInfo] | None = None) -> MetricInfo:
    """What a metric means. `own` are the metrics of the suite's scorers, for those with names of their own.

    A name that nothing is known of is taken for the mean of a score.
    """
    own = own or {}
    known = {**_built_in(_scorers_in(name)), **own}
    if name in known:
        return known[name]
    for pattern, info in known.items():
        prefix, _, rest = pattern.partition(_PLACEHOLDER)
        if rest == "" and prefix != pattern and name.startswith(prefix):
            return MetricInfo(name, info.unit, info.direction, info.definition, info.bounds)
    if name.startswith("fairness.") and name.endswith(".gap"):
        return _gap_definition(name, known, own)
    if name.startswith("fairness."):
        found = fairness_definition(name, known, lambda each: definition(each, own))
        if found is not None:
            return found
    repeats = repeat_definition(name, lambda each: definition(each, own))
    if repeats is not None:
        return repeats
    versions = version_definition(name, lambda each: definition(each, own))
    if versions is not None:
        return versions
    text = f"Mean of the score {name} over the samples that were answered and have it."
    return MetricInfo(name, "score", "higher", text)


def _gap_definition(name: str, known: Mapping[str, MetricInfo], own: Mapping[str, MetricInfo]) -> MetricInfo:
    """`fairness.<column>.<metric>.gap`: the column may hold dots, the metric is a known one."""
    words = name.removeprefix("fairness.").removesuffix(".gap").split(".")
    for at in range(1, len(words)):
        metric = ".".join(words[at:])
        if metric in known:
            return gap_info(".".join(words[:at]), known[metric])
    return gap_info(words[0], definition(".".join(words[1:]), own))


def _scorers_in(name: str) -> frozenset[str]:
    """The built-in scorers that a metric's name mentions. Others need not be imported to know it."""
    return frozenset(registry.built_in("scorer")).intersection(name.split("."))


@cache
def _built_in(scorers: frozenset[str]) -> Mapping[str, MetricInfo]:
    infos: dict[str, MetricInfo] = {}
    for name in sorted(scorers):
        for info in registry.load("scorer", name).describe(name):
            infos[info.name] = info
    infos.update((rate.info.name, rate.info) for rate in RATES)
    infos.update(DECISIONS)
    infos[FINDINGS.name] = FINDINGS
    by_label = {f"{name}.{_PLACEHOLDER}": info for name, info in DECISIONS.items()}
    infos.update((name, replace(info, name=name)) for name, info in by_label.items())
    infos.update(performance_catalogue())
    return infos


def metric_reference() -> str:
    """The definitions of all metrics as Markdown, for docs/metrics.md."""
    known = _built_in(frozenset(registry.built_in("scorer")))
    scores = [name for name in known if name.split(".")[0] in registry.built_in("scorer")]
    rates = [rate.info.name for rate in RATES]
    rest = list(performance_catalogue())
    some = MetricInfo("<metric>", "that of the metric", "higher", "")
    between = [gap_info("<column>", some), contrast_info("<column>", some)]
    criteria = [criterion_info("<column>", each) for each in CRITERIA]
    flips = [version_info("<attribute>", each) for each in FLIPS]
    versions = [version_info("<attribute>", each, some) for each in ("difference", *OF_SCORES)]
    repeats = [repeat_info(each, some) for each in (*(f"{each}_k" for each in OF_K), *OF_REPEATS)]
    sections = (
        ("Scores", [known[name] for name in scores]),
        ("Endings that are not scores", [known[name] for name in rates]),
        ("Repeats", [*repeats, consistency_info()]),
        ("Fairness", [*DECISIONS.values(), *between, *criteria]),
        ("Versions of a sample", [*flips, *versions]),
        ("Personal data", [FINDINGS]),
        ("Speed, memory and cost", [known[name] for name in rest]),
    )
    return "\n".join(_section(title, infos) for title, infos in sections)


def _section(title: str, infos: Iterable[MetricInfo]) -> str:
    lines = [f"## {title}", ""]
    for info in infos:
        lines += [f"### `{info.name}`", "", f"{info.definition}", "", f"{_unit(info)}", ""]
    return "\n".join(lines)


def _unit(info: MetricInfo) -> str:
    better = {"higher": "higher is better", "lower": "lower is better", "none": "descriptive"}[info.direction]
    return f"Unit: {info.unit}; {better}."
