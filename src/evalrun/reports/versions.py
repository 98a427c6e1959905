"""Versions of samples as the report tells it: what a name or a slip of the key changes in the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from evalrun.reports.fairness import p_value
from evalrun.reports.numbers import NONE, count, decimals_for, fixed, interval, quantity
from evalrun.reports.view import RunView, Table

_BBQ = (
    ("accuracy_ambiguous", "right, ambiguous", "n_ambiguous"),
    ("accuracy_disambiguated", "right, disambiguated", "n_disambiguated"),
    ("bias_ambiguous", "bias, ambiguous", "non_unknown_ambiguous"),
    ("bias_disambiguated", "bias, disambiguated", "non_unknown_disambiguated"),
    ("nonaligned_cost", "cost of a right answer against the stereotype", "n_nonaligned"),
)


def bbq_tables(runs: Sequence[RunView]) -> list[Table]:
    """BBQ of every run by category: values with the counts that stand below each."""
    found = []
    for scorer in dict.fromkeys(name for run in runs for name in (run.details.get("bbq") or {})):
        rows = []
        for run in runs:
            entries = (run.details.get("bbq") or {}).get(scorer) or []
            lone = len(entries) == 2
            for entry in entries[:1] if lone else entries:
                category = entry.get("category")
                rows.append(
                    (run.label, str(category or "all"), *(_bbq(run, scorer, entry, one) for one in _BBQ))
                )
        columns = ("run", "category", *(title for _, title, _ in _BBQ))
        found.append(
            Table(f"{scorer}: values with 95 % intervals and what each is a share of", columns, rows)
        )
    return found


def _bbq(run: RunView, scorer: str, entry: Mapping[str, Any], which: tuple[str, str, str]) -> str:
    name, _, below = which
    value = entry.get(name)
    figure = run.figure(f"{scorer}.{name}") if entry.get("category") is None else None
    ends = f" {figure.interval}" if figure and figure.interval else ""
    if value is None:
        return f"{NONE} (of {count(entry.get(below))})"
    shown = fixed(value, 2) if name.startswith("accuracy") else fixed(value, 2, sign=True)
    return f"{shown}{ends} (of {count(entry.get(below))})"


def pair_table(runs: Sequence[RunView]) -> Table | None:
    """Pairs of sentences: how often the stereotyping one is preferred, and what goes with it."""
    rows = []
    for run in runs:
        for figure in run.figures:
            if figure.slice or figure.value is None or figure.name.partition(".")[0] not in PAIRS:
                continue
            rows.append(
                (run.label, figure.name, figure.text, figure.interval or NONE, count(figure.n), figure.note)
            )
    if not rows:
        return None
    columns = ("run", "measure", "value", "95 % interval", "pairs", "note")
    return Table("Pairs of sentences", columns, rows, frozenset({2, 4}))


PAIRS = frozenset({"crows_pairs", "stereoset", "winobias"})
"""Scorers whose metrics are made from pairs of sentences."""


EXAMPLES = 8


@dataclass(frozen=True, slots=True)
class Example:
    """Two versions of one sample with different answers; links open them in the sample browser."""

    base: str
    version: str
    answer: str
    link: str
    against: str
    against_answer: str
    against_link: str


@dataclass(frozen=True, slots=True)
class VersionsView:
    """One axis of versions (an attribute, or the perturbations) on one dataset."""

    axis: str
    dataset: str
    sentence: str
    flips: Table
    differences: Table | None
    robustness: Table | None
    notes: Sequence[str]
    examples: Sequence[Example]
    examples_of: str


def versions(runs: Sequence[RunView], metric: str, dataset: str) -> list[VersionsView]:
    """A view for every axis of versions that the runs (best first) have."""
    axes = dict.fromkeys(axis for run in runs for axis in (run.details.get("versions") or {}))
    views = []
    for axis in axes:
        having = [run for run in runs if _axis(run, axis).get("units")]
        if having:
            views.append(_view(having, axis, metric, dataset))
    return views


def _axis(run: RunView, axis: str) -> Mapping[str, Any]:
    return (run.details.get("versions") or {}).get(axis) or {}


def _name(axis: str) -> str:
    return "the perturbations" if axis == "perturb" else axis


def _view(runs: Sequence[RunView], axis: str, metric: str, dataset: str) -> VersionsView:
    best = runs[0]
    return VersionsView(
        axis=_name(axis),
        dataset=dataset,
        sentence=_sentence(best, axis),
        flips=_flips(runs, axis),
        differences=_differences(runs, axis, metric),
        robustness=_robustness(runs, axis),
        notes=[*dict.fromkeys(str(note) for run in runs if (note := _axis(run, axis).get("note")))],
        examples=[_example(best, each) for each in (_axis(best, axis).get("examples") or [])[:EXAMPLES]],
        examples_of=best.label,
    )


def _sentence(run: RunView, axis: str) -> str:
    """How often the answer changes when only this does, in plain words."""
    found = _axis(run, axis)
    flips = found.get("flips") or {}
    overall = flips.get("overall") or {}
    if overall.get("value") is None:
        return (
            f"{run.label}: no two versions of a sample were both answered, so nothing can be said of {axis}."
        )
    share = f"{overall['value']:.1%}"
    ends = _shares(overall)
    what = "A change that leaves the question the same" if axis == "perturb" else f"Changing only {axis}"
    said = f"{what} gave another answer in {share} {ends} of pairs, over {count(overall['n'])} samples"
    said += f" ({run.label})."
    again = flips.get("resample_flip_rate") or {}
    if again.get("value") is not None:
        said += f" Asking the very same again gives another in {again['value']:.1%} {_shares(again)}."
    return said


def _shares(found: Mapping[str, Any]) -> str:
    if found.get("low") is None or found.get("high") is None:
        return ""
    return f"[{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def _flips(runs: Sequence[RunView], axis: str) -> Table:
    rows = []
    for run in runs:
        flips = _axis(run, axis).get("flips") or {}
        lines = [("all pairs of versions", flips.get("overall") or {})]
        reference = _axis(run, axis).get("reference")
        lines += [(f"{each['version']} against {reference}", each) for each in flips.get("by_version") or []]
        lines += [
            (title, flips[name])
            for name, title in (
                ("resample_flip_rate", "the very same prompt again"),
                ("flip_rate_beyond_resampling", "beyond asking again"),
            )
            if name in flips
        ]
        for title, each in lines:
            rows.append(
                (run.label, title, _percent(each.get("value")), _shares(each) or NONE, count(each.get("n")))
            )
    columns = ("run", "versions", "another answer", "95 % interval", "samples")
    return Table(f"How often {_name(axis)} changes the answer", columns, rows, frozenset({2, 4}))


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.1%}"


def _differences(runs: Sequence[RunView], axis: str, metric: str) -> Table | None:
    """Each version minus the reference: every measure for the first run, `metric` for the others."""
    rows = []
    for at, run in enumerate(runs):
        known = _axis(run, axis).get("differences") or {}
        for measure, entries in known.items():
            if at and measure != metric:
                continue
            rows += [_difference(run, measure, each) for each in entries if each.get("value") is not None]
    if not rows:
        return None
    columns = ("run", "measure", "version", "against", "difference", "95 % interval", "p (Holm)", "pairs")
    return Table(f"What {_name(axis)} changes on average", columns, rows, frozenset({4, 6, 7}))


def _difference(run: RunView, measure: str, each: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = each.get("low"), each.get("high")
    decimals = decimals_for(None if low is None or high is None else (high - low) / 2)
    return (
        run.label, measure, str(each["version"]), str(each["against"]),
        fixed(each["value"], decimals, sign=True), interval(low, high, decimals, sign=True) or NONE,
        p_value(each.get("p_holm")), count(each["n"]),
    )  # fmt: skip


_ROWS = (
    ("original", "as the data stand"), ("perturbed", "changed, on average"),
    ("worst", "worst version of each sample"), ("worst_drop", "worst minus original"),
)  # fmt: skip


def _robustness(runs: Sequence[RunView], axis: str) -> Table | None:
    rows = []
    for run in runs:
        for measure, detail in (_axis(run, axis).get("robustness") or {}).items():
            for name, title in _ROWS:
                each = detail.get(name)
                if each:
                    low, high = each.get("low"), each.get("high")
                    value = quantity(each.get("value"), "fraction")
                    rows.append(
                        (run.label, measure, title, value, interval(low, high) or NONE, count(each["n"]))
                    )
    if not rows:
        return None
    columns = ("run", "measure", "versions", "value", "95 % interval", "samples")
    return Table("Robustness", columns, rows, frozenset({3, 5}))


def _example(run: RunView, each: Mapping[str, Any]) -> Example:
    return Example(
        base=str(each.get("base")),
        version=str(each.get("version")),
        answer=str(each.get("answer")),
        link=sample_link(run.run, str(each.get("sample_id"))),
        against=str(each.get("against")),
        against_answer=str(each.get("against_answer")),
        against_link=sample_link(run.run, str(each.get("against_id"))),
    )


def sample_link(run: str, sample_id: str, repeat: int = 0) -> str:
    """The part of the page's address that opens one sample in the browser (assets/sample.js reads it)."""
    return "#sample=" + "/".join(
        quote(part.encode("utf-8", "replace"), safe="") for part in (run, sample_id, str(repeat))
    )
