"""Versions of samples as the report tells it: what a name or a slip of the key changes in the answers."""

from __future__ import annotations

from collections.abc import Sequence

from evalrun.analysis.conclude import scorer_kinds
from evalrun.frozen import frozen
from evalrun.reports import numbers
from evalrun.reports.numbers import NONE, count, figure, fixed, interval, metric_interval, p_value
from evalrun.reports.source import Suite
from evalrun.reports.view import RunView, Table, sample_path
from evalrun.results import AxisVersions, BiasCategory, Estimate, VersionExample

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
    for scorer in dict.fromkeys(name for run in runs for name in run.details.bbq):
        rows = []
        for run in runs:
            entries = run.details.bbq.get(scorer, ())
            lone = len(entries) == 2
            for entry in entries[:1] if lone else entries:
                cells = (_bbq(run, scorer, entry, one) for one in _BBQ)
                rows.append((run.label, entry.category or "all", *cells))
        columns = ("run", "category", *(title for _, title, _ in _BBQ))
        found.append(
            Table(f"{scorer}: values with 95 % intervals and what each is a share of", columns, rows)
        )
    return found


def _bbq(run: RunView, scorer: str, entry: BiasCategory, which: tuple[str, str, str]) -> str:
    name, _, below = which
    value: float | None = getattr(entry, name)
    of = count(getattr(entry, below))
    metric = run.metric(f"{scorer}.{name}") if entry.category is None else None
    ends = f" {metric_interval(metric)}" if metric and metric_interval(metric) else ""
    if value is None:
        return f"{NONE} (of {of})"
    shown = fixed(value, 2) if name.startswith("accuracy") else fixed(value, 2, sign=True)
    return f"{shown}{ends} (of {of})"


def pair_table(runs: Sequence[RunView], suite: Suite) -> list[Table]:
    """Pairs of sentences: how often the stereotyping one is preferred, and what goes with it."""
    scorers = {name for name, kind in scorer_kinds({"scorers": suite.scorers}).items() if kind in PAIRS}
    rows = []
    for run in runs:
        for metric in run.results.metrics:
            if metric.slice or metric.value is None or metric.scorer not in scorers:
                continue
            ends = metric_interval(metric) or NONE
            rows.append((run.label, metric.name, numbers.metric(metric), ends, count(metric.n), metric.note))
    columns = ("run", "measure", "value", "95 % interval", "pairs", "note")
    return [Table("Pairs of sentences", columns, rows, frozenset({2, 4}))] if rows else []


PAIRS = frozenset({"crows_pairs", "stereoset", "winobias"})
"""Kinds of scorers whose metrics are made from pairs of sentences."""


EXAMPLES = 8


@frozen
class VersionsView:
    """One axis of versions (an attribute, or the perturbations) on one dataset.

    `examples` are of the run `examples_of`, each with the links that open its two samples below.
    """

    axis: str
    dataset: str
    sentence: str
    flips: Table
    differences: Table | None
    robustness: Table | None
    notes: Sequence[str]
    examples: Sequence[tuple[VersionExample, str, str]]
    examples_of: str


def versions(runs: Sequence[RunView], metric: str, dataset: str) -> list[VersionsView]:
    """A view for every axis of versions that the runs (best first) have."""
    axes = dict.fromkeys(axis for run in runs for axis in run.details.versions)
    views = []
    for axis in axes:
        having = [run for run in runs if _axis(run, axis).units]
        if having:
            views.append(_view(having, axis, metric, dataset))
    return views


def _axis(run: RunView, axis: str) -> AxisVersions:
    return run.details.versions.get(axis) or AxisVersions()


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
        notes=[*dict.fromkeys(note for run in runs if (note := _axis(run, axis).note))],
        examples=[
            (example, sample_link(best.id, example.sample_id), sample_link(best.id, example.against_id))
            for example in _axis(best, axis).examples[:EXAMPLES]
        ],
        examples_of=best.label,
    )


def _sentence(run: RunView, axis: str) -> str:
    """How often the answer changes when only this does, in plain words."""
    flips = _axis(run, axis).flips
    if flips.overall.value is None:
        return (
            f"{run.label}: no two versions of a sample were both answered, so nothing can be said of {axis}."
        )
    what = "A change that leaves the question the same" if axis == "perturb" else f"Changing only {axis}"
    said = f"{what} gave another answer in {flips.overall.value:.1%} {_shares(flips.overall)} of pairs, "
    said += f"over {count(flips.overall.n)} samples ({run.label})."
    again = flips.resample_flip_rate
    if again is not None and again.value is not None:
        said += f" Asking the very same again gives another in {again.value:.1%} {_shares(again)}."
    return said


def _shares(found: Estimate) -> str:
    if found.low is None or found.high is None:
        return ""
    return f"[{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _flips(runs: Sequence[RunView], axis: str) -> Table:
    rows = []
    for run in runs:
        found = _axis(run, axis)
        flips = found.flips
        lines: list[tuple[str, Estimate | None]] = [("all pairs of versions", flips.overall)]
        lines += [(f"{each.version} against {found.reference}", each) for each in flips.by_version]
        lines.append(("the very same prompt again", flips.resample_flip_rate))
        lines.append(("beyond asking again", flips.flip_rate_beyond_resampling))
        rows += [
            (run.label, title, NONE if each.value is None else f"{each.value:.1%}", _shares(each) or NONE,
             count(each.n))
            for title, each in lines
            if each is not None
        ]  # fmt: skip
    columns = ("run", "versions", "another answer", "95 % interval", "samples")
    return Table(f"How often {_name(axis)} changes the answer", columns, rows, frozenset({2, 4}))


def _differences(runs: Sequence[RunView], axis: str, metric: str) -> Table | None:
    """Each version minus the reference: every measure for the first run, `metric` for the others."""
    rows = [
        (run.label, measure, entry.version, entry.against,
         figure(entry.value, entry.low, entry.high, sign=True),
         interval(entry.low, entry.high, sign=True) or NONE, p_value(entry.p_holm), count(entry.n))
        for at, run in enumerate(runs)
        for measure, entries in _axis(run, axis).differences.items()
        if not at or measure == metric
        for entry in entries
        if entry.value is not None
    ]  # fmt: skip
    if not rows:
        return None
    columns = ("run", "measure", "version", "against", "difference", "95 % interval", "p (Holm)", "pairs")
    return Table(f"What {_name(axis)} changes on average", columns, rows, frozenset({4, 6, 7}))


def _robustness(runs: Sequence[RunView], axis: str) -> Table | None:
    rows = []
    for run in runs:
        for measure, found in _axis(run, axis).robustness.items():
            lines = (
                ("as the data stand", found.original), ("changed, on average", found.perturbed),
                ("worst version of each sample", found.worst), ("worst minus original", found.worst_drop),
            )  # fmt: skip
            rows += [
                (run.label, measure, title, figure(each.value, each.low, each.high),
                 interval(each.low, each.high) or NONE,
                 count(each.n))
                for title, each in lines
            ]  # fmt: skip
    if not rows:
        return None
    columns = ("run", "measure", "versions", "value", "95 % interval", "samples")
    return Table("Robustness", columns, rows, frozenset({3, 5}))


def sample_link(run: str, sample_id: str, repeat: int = 0) -> str:
    """The part of the page's address that opens one sample in the browser (assets/sample.js reads it)."""
    return f"#sample={sample_path(run, sample_id, repeat)}"
