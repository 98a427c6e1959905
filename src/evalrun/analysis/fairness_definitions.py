"""What the metrics of fairness mean: rates of decisions, figures between groups, versions of a sample."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import replace

from evalrun.scoring.info import MetricInfo, fraction
from evalrun.types import PERTURB

_STAY = (
    " Unparsed and refused answers stay in as answers that do not name it (unless the suite says `unparsed: "
    "exclude`); failed samples are left out."
)

SELECTION, TPR, FPR = "selection_rate", "true_positive_rate", "false_positive_rate"

DECISIONS: Mapping[str, MetricInfo] = {
    info.name: info
    for info in (
        fraction(
            SELECTION,
            "Share of samples whose answer is the positive label of the suite (`fairness.positive`), or the "
            "label in the metric's name (`one_vs_rest`)." + _STAY,
            "none",
        ),
        fraction(
            TPR,
            "Share of the samples whose target is the positive label that are answered with it, TP / (TP + "
            "FN). Without such a sample it has no value, never 0." + _STAY,
        ),
        fraction(
            FPR,
            "Share of the samples whose target is another label that are answered with the positive one, FP "
            "/ (FP + TN). Without such a sample it has no value, never 0." + _STAY,
            "lower",
        ),
    )
}
"""Rates of decisions by their names; with `one_vs_rest` the label follows after a dot."""

_CHANCE = (
    " Its note has the 95th percentile of the figure under shuffled group labels and p: without any "
    "difference between the groups it is above zero all the same."
)

_CRITERIA: Mapping[str, str] = {
    "demographic_parity.difference": "greatest minus least selection rate among the groups of {column}",
    "demographic_parity.ratio": "least divided by greatest selection rate among the groups of {column}; "
    "without a value where no group was ever given the label",
    "equal_opportunity.difference": "greatest minus least true positive rate among the groups of {column}",
    "equal_opportunity.ratio": "least divided by greatest true positive rate among the groups of {column}",
    "equalized_odds.difference": "the larger of two gaps among the groups of {column}: that of the true "
    "positive rate and that of the false positive rate",
    "equalized_odds.ratio": "the smaller of two ratios (least divided by greatest) among the groups of "
    "{column}: that of the true positive rate and that of the false positive rate",
}

CRITERIA = tuple(_CRITERIA)


def criterion_info(column: str, criterion: str, suffix: str = "") -> MetricInfo:
    """What a criterion of decisions means: `fairness.<column>.<criterion>[.<label>].<difference|ratio>`."""
    kind, _, form = criterion.partition(".")
    definition = (
        f"{kind.replace('_', ' ').capitalize()} ({form}), as fairlearn defines it: "
        f"{_CRITERIA[criterion].format(column=column)}. Only groups that are large enough "
        "(fairness.min_group) take part, for equalized odds those that are so for both rates."
    )
    name = f"fairness.{column}.{kind}{suffix}.{form}"
    if form == "difference":
        return fraction(name, definition + _CHANCE, "lower")
    return fraction(name, definition, "higher")


def contrast_info(column: str, of: MetricInfo) -> MetricInfo:
    """What the signed contrast of one group means."""
    return MetricInfo(
        f"fairness.{column}.{of.name}.contrast",
        of.unit,
        "none",
        f"{of.name} of the group in the slice minus that of the reference group of {column}, or of all other "
        "large enough groups together where the suite names no reference. The interval is Newcombe's for "
        "independent shares, else by t with clustered standard errors; the note has p (Fisher's exact test "
        "or t) adjusted by Holm over the groups of the column.",
    )


def fairness_definition(
    name: str, known: Container[str], lookup: Callable[[str], MetricInfo]
) -> MetricInfo | None:
    """The definition of a metric named `fairness.…` that is no gap, or None.

    A column may hold dots: the metric after it is one of `known`, else all after the first word. `lookup`
    defines the metric.
    """
    words = name.removeprefix("fairness.").split(".")
    if words[-1] == "contrast" and len(words) > 2:
        metrics = {at: ".".join(words[at:-1]) for at in range(1, len(words) - 1)}
        at = next((at for at, metric in metrics.items() if metric in known), 1)
        return contrast_info(".".join(words[:at]), lookup(metrics[at]))
    kinds = {criterion.partition(".")[0] for criterion in CRITERIA}
    for at, word in enumerate(words[1:-1], start=1):
        if word in kinds and f"{word}.{words[-1]}" in _CRITERIA:
            info = criterion_info(".".join(words[:at]), f"{word}.{words[-1]}")
            return replace(info, name=name)
    return None


_FLIPS: Mapping[str, tuple[str, tuple[float, float]]] = {
    "flip_rate": (
        "Share of pairs of versions of one sample, alike but for {axis}, whose outcomes differ: another "
        "answer, or a refusal or an unreadable answer on one side only. The mean over the pairs of a sample, "
        "then over samples; pairs with a failed sample are left out. With a slice, that version against the "
        "reference. Free text differs almost always: parse it first.",
        (0.0, 1.0),
    ),
    "resample_flip_rate": (
        "Share of pairs of repeats of the very same prompt whose outcomes differ: what the flip rate is "
        "where {axis} makes no difference at all. It needs repeats.",
        (0.0, 1.0),
    ),
    "flip_rate_beyond_resampling": (
        "The flip rate of {axis} minus that of asking the same again (mean of the two versions), sample by "
        "sample. Zero on average where {axis} makes no difference; single values may lie below.",
        (-1.0, 1.0),
    ),
}

_SCORES: Mapping[str, str] = {
    "original": "{of} over the samples as they stand in the data, of those that were changed at all.",
    "perturbed": "{of} over the changed versions: the mean over a sample's versions, then over samples.",
    "worst": "{of} of each sample's worst version, the original among them, averaged over samples.",
    "worst_drop": "{of} of each sample's worst version minus that of the original, sample by sample. With "
    "more versions it can only get worse, so compare runs with the same versions.",
}


FLIPS, OF_SCORES = tuple(_FLIPS), tuple(_SCORES)


def version_info(axis: str, figure: str, of: MetricInfo | None = None) -> MetricInfo:
    """What a figure of an axis of versions means; `of` is the metric that it is made from."""
    shown = "the changes" if axis == PERTURB else axis
    if figure in _FLIPS:
        text, bounds = _FLIPS[figure]
        info = fraction(f"counterfactual.{axis}.{figure}", text.format(axis=shown), "lower")
        return MetricInfo(info.name, info.unit, info.direction, info.definition, bounds)
    if of is None:
        raise ValueError(f"'{figure}' is made from a metric")
    if figure == "difference":
        return MetricInfo(
            f"counterfactual.{axis}.{of.name}.difference",
            of.unit,
            "none",
            f"{of.name} of the version in the slice minus that of the reference version, sample by sample, "
            "with all else alike. Interval and p are those of a paired comparison; p is adjusted by Holm "
            "over the versions.",
        )
    limits = (None, None) if figure == "worst_drop" else of.bounds
    text = _SCORES[figure].format(of=of.name)
    return MetricInfo(f"robustness.{of.name}.{figure}", of.unit, of.direction, text, limits)


def version_definition(name: str, lookup: Callable[[str], MetricInfo]) -> MetricInfo | None:
    """The definition of a metric named `counterfactual.…` or `robustness.…`, or None for other names."""
    head, _, rest = name.partition(".")
    words = rest.split(".")
    if head == "robustness" and len(words) > 1 and words[-1] in _SCORES:
        return version_info(PERTURB, words[-1], lookup(".".join(words[:-1])))
    if head == "counterfactual" and len(words) > 1:
        if words[-1] in _FLIPS:
            return version_info(".".join(words[:-1]), words[-1])
        if words[-1] == "difference" and len(words) > 2:
            return version_info(words[0], "difference", lookup(".".join(words[1:-1])))
    return None
