"""What the metrics of a judge mean."""

from __future__ import annotations

from collections.abc import Callable

from evalrun.scoring.base import MetricInfo

_AGREEMENT = " Interval: percentile bootstrap over samples."
_HUMAN = " Over the samples that have both a grade from the judges and a person's grade on the menu."


def judge_metrics(name: str, fraction: Callable[..., MetricInfo]) -> tuple[MetricInfo, ...]:
    """Every metric that a judge called `name` may have."""
    bounds = (-1.0, 1.0)
    return (
        MetricInfo(
            name,
            "grade",
            "higher",
            "Mean of the grades that the judges gave, each worth what the suite says. A grade that is not on "
            "the menu, or cannot be read after asking once more, leaves its sample out: it is counted in "
            f"`{name}.unscored`. An answer without any text gets the lowest grade. Of pairs: 1 for an answer "
            "that won in both orders, 0 for one that lost in both, 0.5 otherwise.",
        ),
        fraction(
            f"{name}.unscored",
            "Share of the answered samples to which no judge gave a grade on the menu, whether it answered "
            "something else or not at all.",
            "lower",
        ),
        fraction(
            f"{name}.reasked",
            "Share of the answered samples for which a judge had to be asked again, because its grade could "
            "not be read or was not on the menu.",
            "lower",
        ),
        fraction(
            f"{name}.first_position",
            "Share of a pair's decided verdicts (ties left out, both orders together) in which the answer "
            "shown first won; the mean over samples. A judge without position bias gives 0.5.",
            "none",
        ),
        fraction(
            f"{name}.inconsistent",
            "Share of the pairs of which a judge said different things in the two orders; they count as "
            "ties.",
            "lower",
        ),
        MetricInfo(
            f"{name}.alpha",
            "agreement",
            "higher",
            "Krippendorff's alpha among the judges: 1 - observed / expected disagreement, over the samples "
            "with two grades at least; nominal, ordinal or interval as the suite says. 1 is full agreement, "
            "0 what chance would give." + _AGREEMENT,
            (-1.0, 1.0),
        ),
        fraction(
            f"{name}.human.accuracy", "Share of samples where judge and person gave the same grade." + _HUMAN
        ),
        MetricInfo(
            f"{name}.human.kappa",
            "agreement",
            "higher",
            "Cohen's kappa of judge and person: 1 - observed / expected disagreement. On a scale the "
            "disagreement is weighted by the squared distance, and a mean of several judges is rounded."
            + _HUMAN
            + _AGREEMENT,
            bounds,
        ),
        MetricInfo(
            f"{name}.human.spearman",
            "correlation",
            "higher",
            "Spearman's rank correlation of the judge's grades with the person's, ties sharing their mean "
            "rank." + _HUMAN + _AGREEMENT,
            bounds,
        ),
        MetricInfo(
            f"{name}.human.kendall",
            "correlation",
            "higher",
            "Kendall's tau-b of the judge's grades with the person's." + _HUMAN + _AGREEMENT,
            bounds,
        ),
    )
