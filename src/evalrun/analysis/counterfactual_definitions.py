"""What the metrics of versions mean: `counterfactual.<attribute>.…` and `robustness.…`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from evalrun.scoring.base import MetricInfo, fraction
from evalrun.suite.dataset import PERTURB
from evalrun.types import Direction

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
    direction: Direction = of.direction
    limits = (None, None) if figure == "worst_drop" else of.bounds
    text = _SCORES[figure].format(of=of.name)
    return MetricInfo(f"robustness.{of.name}.{figure}", of.unit, direction, text, limits)


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
