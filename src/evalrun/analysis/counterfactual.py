"""What versions of a sample change in its answer: flips, and differences of scores, length and endings.

A unit is a row of the dataset with the values of the other attributes held fixed; it has a value in each
version along one axis. Units are paired; clusters (rows, or what the dataset names) are what was drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.catalogue import performance_info
from evalrun.analysis.correction import holm
from evalrun.analysis.fairness_definitions import version_info
from evalrun.analysis.fairness_groups import score_and_rate_columns
from evalrun.analysis.intervals import few_clusters, mean
from evalrun.analysis.paired import paired_difference
from evalrun.analysis.quality import metric, score_infos
from evalrun.analysis.samples import STATUS_CODES, SampleTable
from evalrun.results import (
    AxisVersions,
    Estimate,
    Flips,
    Robustness,
    VersionDifference,
    VersionExample,
    VersionFlips,
)
from evalrun.scoring.base import MetricInfo, Scorer
from evalrun.suite.dataset import ORIGINAL, PERTURB
from evalrun.sweep_results import PairedResult
from evalrun.types import MetricValue, Status

if TYPE_CHECKING:
    from evalrun.suite.dataset import DatasetSpec


Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def axes_of(spec: DatasetSpec) -> dict[str, tuple[str, ...]]:
    """The axes along which a dataset's samples have versions: name to the versions in order."""
    if spec.perturb:
        return {PERTURB: (ORIGINAL, *(change.id for change in spec.perturb))}
    return {name: tuple(attribute.values) for name, attribute in spec.counterfactual.items()}


@dataclass(frozen=True)
class Versioned:
    """One axis of a run. `unit` and `version` have one code a sample, -1 where it has no version."""

    axis: str
    versions: tuple[str, ...]
    unit: Ints
    version: Ints
    bases: tuple[str, ...]
    table: SampleTable

    @classmethod
    def of(cls, table: SampleTable, axes: Mapping[str, Sequence[str]], axis: str) -> Versioned:
        """The units along one of the axes of a dataset."""
        size = len(table)
        labels: dict[str, Sequence[str | None]] = {}
        for name in axes:
            column = table.sensitive.get(name)
            labels[name] = (
                [None] * size
                if column is None
                else [None if code < 0 else column.labels[code] for code in column.codes.tolist()]
            )
        keys: dict[tuple[str | None, ...], int] = {}
        unit, bases = np.full(size, -1, np.int64), []
        version = np.full(size, -1, np.int64)
        order = {name: at for at, name in enumerate(axes[axis])}
        for row, sample_id in enumerate(table.sample_ids()):
            mine = labels[axis][row]
            if mine is None or mine not in order:
                continue
            values = {name: labels[name][row] for name in axes}
            base = sample_id.removesuffix(_suffix(values))
            key = (base, *(value for name, value in values.items() if name != axis))
            if key not in keys:
                keys[key] = len(keys)
                bases.append(base)
            unit[row], version[row] = keys[key], order[mine]
        return cls(axis, tuple(axes[axis]), unit, version, tuple(bases), table)

    @property
    def size(self) -> int:
        """The number of units."""
        return len(self.bases)

    @cached_property
    def clusters(self) -> Ints | None:
        """The cluster of each unit, or None where every unit is one of its own."""
        if self.table.clusters is None:
            return None
        codes = np.zeros(self.size, np.int64)
        rows = np.flatnonzero(self.unit >= 0)
        codes[self.unit[rows]] = self.table.clusters[rows]
        return codes if len(np.unique(codes)) < self.size else None

    def matrix(self, values: Floats, keep: Mask) -> Floats:
        """Mean over repeats for each unit and version, shape (units, versions); NaN where there is none."""
        keep = keep & (self.unit >= 0) & ~np.isnan(values)
        width = len(self.versions)
        cell = self.unit[keep] * width + self.version[keep]
        count = np.bincount(cell, minlength=self.size * width)
        sums = np.bincount(cell, weights=values[keep], minlength=self.size * width)
        means: Floats = np.divide(sums, count, out=np.full(len(sums), np.nan), where=count > 0)
        return means.reshape(self.size, width)

    @cached_property
    def outcomes(self) -> Ints:
        """What each sample came to: the code of its answer, one code for unparsed, one for refused; -1
        where it failed."""
        answers, _ = self.table.texts()
        codes = answers.codes.astype(np.int64)
        size = len(answers.labels)
        codes[codes < 0] = size
        codes[self.table.is_status(Status.UNPARSED)] = size + 1
        codes[self.table.is_status(Status.REFUSED)] = size + 2
        codes[np.equal(self.table.status, STATUS_CODES[Status.FAILED])] = -1
        return codes

    def outcome_name(self, code: int) -> str:
        """An outcome in words."""
        labels = self.table.texts()[0].labels
        extra = ("(no answer)", "(unparsed)", "(refused)")
        return labels[code] if code < len(labels) else extra[code - len(labels)]

    @cached_property
    def shares(self) -> list[tuple[Ints, Floats, Ints]]:
        """For each version: keys (unit x outcomes + outcome), their share of the repeats, and of each unit
        the number of repeats."""
        width = int(self.outcomes.max(initial=0)) + 1
        shares = []
        for version in range(len(self.versions)):
            keep = (self.version == version) & (self.outcomes >= 0)
            keys, counts = np.unique(self.unit[keep] * width + self.outcomes[keep], return_counts=True)
            repeats = np.bincount(self.unit[keep], minlength=self.size)
            shares.append((keys, counts / repeats[keys // width], repeats))
        return shares

    def flips(self, one: int, other: int) -> Floats:
        """For each unit the share of pairs of repeats whose outcomes differ; NaN where one is missing."""
        width = int(self.outcomes.max(initial=0)) + 1
        (keys_a, share_a, n_a), (keys_b, share_b, n_b) = self.shares[one], self.shares[other]
        common, at_a, at_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
        agree = np.bincount(common // width, weights=share_a[at_a] * share_b[at_b], minlength=self.size)
        return np.where((n_a > 0) & (n_b > 0), np.clip(1 - agree, 0, 1), np.nan)

    def resampled(self, version: int) -> Floats:
        """For each unit the share of pairs of its repeats in one version whose outcomes differ; NaN where
        there are no two."""
        width = int(self.outcomes.max(initial=0)) + 1
        keys, share, n = self.shares[version]
        repeats = n[keys // width]
        counts = share * repeats
        with np.errstate(invalid="ignore", divide="ignore"):
            same = np.bincount(
                keys // width, weights=counts * (counts - 1) / (repeats * (repeats - 1)), minlength=self.size
            )
        return np.where(n > 1, 1 - same, np.nan)


def _suffix(values: Mapping[str, str | None]) -> str:
    """What the id of a version ends in: as `datasets.versions` makes it."""
    return "".join(
        f"~{name}={value}"
        for name, value in values.items()
        if value is not None and not (name == PERTURB and value == ORIGINAL)
    )


EXAMPLES = 20
"""Flips that are listed for the report."""


@dataclass(frozen=True, slots=True)
class VersionPlan:
    """How versions are compared: `reference` names for an axis the version that the others are compared
    with (else the first, or the original); `draws` says that the model samples its answers."""

    reference: Mapping[str, str]
    draws: bool
    exclude_unparsed: bool = False
    seed: int = 0


def version_metrics(
    table: SampleTable, scorers: Sequence[Scorer], spec: DatasetSpec, plan: VersionPlan
) -> tuple[list[MetricValue], dict[str, AxisVersions]]:
    """All metrics of a dataset's versions; and by axis the same typed."""
    axes = axes_of(spec)
    metrics: list[MetricValue] = []
    details: dict[str, AxisVersions] = {}
    for axis in axes:
        made, details[axis] = _axis(Versioned.of(table, axes, axis), scorers, plan)
        metrics += made
    return metrics, details


def _axis(
    versioned: Versioned, scorers: Sequence[Scorer], plan: VersionPlan
) -> tuple[list[MetricValue], AxisVersions]:
    reference = _reference(versioned, plan)
    metrics, flips = _flips(versioned, reference, plan)
    differences: dict[str, tuple[VersionDifference, ...]] = {}
    robustness: dict[str, Robustness] = {}
    table = versioned.table
    columns = score_and_rate_columns(table, scorers, plan.exclude_unparsed)
    scores = {info.name for scorer in scorers for _, info in score_infos(scorer)}
    tokens = table.number("completion_tokens")
    if not np.isnan(tokens).all():
        columns.append((performance_info("performance.completion_tokens.mean"), tokens, table.answered))
    for info, column, keep in columns:
        values = versioned.matrix(column, keep)
        made, differences[info.name] = _differences(versioned, info, values, reference, plan)
        metrics += made
        if info.name in scores and versioned.axis == PERTURB:
            made, robustness[info.name] = _robustness(versioned, info, values, plan)
            metrics += made
    return metrics, AxisVersions(
        versions=versioned.versions,
        reference=versioned.versions[reference],
        units=versioned.size,
        note=_note(versioned, plan),
        flips=flips,
        differences=differences,
        robustness=robustness,
        examples=tuple(_examples(versioned, reference)),
    )


def _reference(versioned: Versioned, plan: VersionPlan) -> int:
    wanted = plan.reference.get(versioned.axis)
    return versioned.versions.index(wanted) if wanted in versioned.versions else 0


def _note(versioned: Versioned, plan: VersionPlan) -> str:
    if versioned.size == 0:
        return "no sample has versions"
    if plan.draws and not any((n > 1).any() for _, _, n in versioned.shares):
        return (
            "the model draws its answers (temperature above 0), so some flips are chance: with `repeats: 2` "
            "or more the flips of asking the same again are taken off"
        )
    return ""


def _estimate(versioned: Versioned, values: Floats, info: MetricInfo) -> Estimate:
    """The mean over units, with the interval of clusters that were drawn."""
    known = ~np.isnan(values)
    clusters = None if versioned.clusters is None else versioned.clusters[known]
    estimate = mean(values[known], clusters, bounds=info.bounds)
    few = few_clusters(clusters)
    return replace(estimate, note=few) if few and not estimate.note else estimate


def _flips(versioned: Versioned, reference: int, plan: VersionPlan) -> tuple[list[MetricValue], Flips]:
    """How often another version has another answer: overall, by version, and beyond asking the same again."""
    width = len(versioned.versions)
    others = [version for version in range(width) if version != reference]
    pairs = list(combinations(range(width), 2))
    if versioned.axis == PERTURB:
        pairs = [(reference, other) for other in others]
    flipped = np.array([versioned.flips(one, other) for one, other in pairs])
    info = version_info(versioned.axis, "flip_rate")
    overall = _estimate(versioned, _mean_of_known(flipped), info)
    metrics = [metric(info, overall, _note(versioned, plan))]
    by_version = []
    for other in others:
        flip = _estimate(versioned, versioned.flips(reference, other), info)
        label = versioned.versions[other]
        against = f"against {versioned.versions[reference]}"
        metrics.append(metric(info, flip, against, {versioned.axis: label}))
        by_version.append(VersionFlips(**asdict(flip), version=label))
    resampled = np.array([versioned.resampled(version) for version in range(width)])
    more: dict[str, Estimate] = {}
    if not np.isnan(resampled).all():
        base = np.array([(resampled[one] + resampled[other]) / 2 for one, other in pairs])
        for name, values in (
            ("resample_flip_rate", _mean_of_known(base)),
            ("flip_rate_beyond_resampling", _mean_of_known(flipped - base)),
        ):
            info = version_info(versioned.axis, name)
            more[name] = _estimate(versioned, values, info)
            metrics.append(metric(info, more[name]))
    return metrics, Flips(overall, tuple(by_version), **more)


def _mean_of_known(values: Floats) -> Floats:
    """Mean over the first axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    sums = np.where(known, values, 0.0).sum(axis=0)
    means: Floats = np.divide(sums, count, out=np.full(values.shape[1], np.nan), where=count > 0)
    return means


def _differences(
    versioned: Versioned, of: MetricInfo, values: Floats, reference: int, plan: VersionPlan
) -> tuple[list[MetricValue], tuple[VersionDifference, ...]]:
    """Each version minus the reference, unit by unit (`values` have shape (units, versions)); p adjusted by
    Holm over the versions."""
    info = version_info(versioned.axis, "difference", of)
    others = [version for version in range(len(versioned.versions)) if version != reference]
    pairs = [
        paired_difference(values[:, reference], values[:, other], versioned.clusters, seed=plan.seed)
        for other in others
    ]
    metrics, entries = [], []
    against = versioned.versions[reference]
    for other, pair, p in zip(others, pairs, holm([pair.p for pair in pairs]), strict=True):
        note = f"against {against}" + ("" if p is None else f": p = {p:.2g} ({pair.test}, Holm)")
        estimate, label = _of_pairs(pair), versioned.versions[other]
        metrics.append(metric(info, estimate, note, {versioned.axis: label}))
        entries.append(
            VersionDifference(
                **asdict(estimate),
                version=label,
                against=against,
                mean=pair.mean_b,
                mean_against=pair.mean_a,
                p=pair.p,
                p_holm=p,
                test=pair.test,
                discordant=pair.discordant,
            )
        )
    return metrics, tuple(entries)


def _of_pairs(pair: PairedResult) -> Estimate:
    return Estimate(pair.difference, pair.n, pair.se, pair.ci_low, pair.ci_high, pair.method, pair.note)


def _robustness(
    versioned: Versioned, of: MetricInfo, values: Floats, plan: VersionPlan
) -> tuple[list[MetricValue], Robustness]:
    """A score as the data stand, on average over the changes, and at each sample's worst version."""
    at = versioned.versions.index(ORIGINAL)
    known = ~np.isnan(values)
    # A paraphrase file need not have every sample.
    kept = known[:, at] & np.delete(known, at, axis=1).any(axis=1)
    original = np.where(kept, values[:, at], np.nan)
    perturbed = np.where(kept, _mean_of_known(np.delete(values, at, axis=1).T), np.nan)
    worst = np.full(versioned.size, np.nan)
    if kept.any():
        extreme = np.nanmax if of.direction == "lower" else np.nanmin
        worst[kept] = extreme(values[kept], axis=1)
    metrics, estimates = [], {}
    for name, column in (("original", original), ("perturbed", perturbed), ("worst", worst)):
        info = version_info(versioned.axis, name, of)
        estimates[name] = _estimate(versioned, column, info)
        metrics.append(metric(info, estimates[name]))
    drop = _of_pairs(paired_difference(original, worst, versioned.clusters, seed=plan.seed))
    note = "the worst of several versions is never better than the original, whatever the changes"
    if plan.draws:
        note = "answers are drawn: the worst of several is worse than one even where a change does nothing"
    metrics.append(metric(version_info(versioned.axis, "worst_drop", of), drop, note))
    return metrics, Robustness(**estimates, worst_drop=replace(drop, note=note))


def _examples(versioned: Versioned, reference: int) -> list[VersionExample]:
    """Some pairs of versions whose first answers differ, one of each unit, by sample id."""
    first = np.full((versioned.size, len(versioned.versions)), -1, np.int64)
    rows = np.flatnonzero((versioned.unit >= 0) & (versioned.outcomes >= 0))[::-1]
    first[versioned.unit[rows], versioned.version[rows]] = rows
    outcome = np.where(first >= 0, versioned.outcomes[first], -1)
    differs = (outcome >= 0) & (outcome[:, [reference]] >= 0) & (outcome != outcome[:, [reference]])
    ids = versioned.table.sample_ids()
    units = np.flatnonzero(differs.any(axis=1)).tolist()
    examples = []
    for unit in sorted(units, key=versioned.bases.__getitem__)[:EXAMPLES]:
        version = int(differs[unit].argmax())
        examples.append(
            VersionExample(
                base=versioned.bases[unit],
                version=versioned.versions[version],
                sample_id=ids[first[unit, version]],
                answer=versioned.outcome_name(int(outcome[unit, version])),
                against=versioned.versions[reference],
                against_id=ids[first[unit, reference]],
                against_answer=versioned.outcome_name(int(outcome[unit, reference])),
            )
        )
    return examples
