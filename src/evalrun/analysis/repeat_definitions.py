"""What the metrics of repeats mean: `repeats.…`, which a run has where every row is asked several times."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from evalrun.scoring.base import MetricInfo, fraction

_OF_K: Mapping[str, str] = {
    "pass_at": "The chance that at least one of {k} answers to a sample is right: mean over samples of "
    "1 - C(a - c, {k}) / C(a, {k}), for a answers of which c have {of} = 1 (Chen et al. 2021, arXiv "
    "2107.03374); unbiased. pass@1 is {of} itself. Samples with fewer than {k} answers are left out.",
    "pass_hat": "The chance that {k} answers to a sample are all right: mean over samples of C(c, {k}) / "
    "C(a, {k}), for a answers of which c have {of} = 1 (Yao et al. 2024, arXiv 2406.12045); unbiased. "
    "Samples with fewer than {k} answers are left out.",
}

_OF_SCORES: Mapping[str, str] = {
    "majority": "{of} of the most frequent answer to each sample, averaged over samples. Of answers that are "
    "equally frequent the mean is taken, which is what a fair draw among them would score. An answer that "
    "could not be read is no vote; a sample without any has the mean of its scores.",
    "variance_within": "Variance of {of} over the answers to one and the same sample, pooled over samples: "
    "what is chance. More repeats reduce its part of the standard error.",
    "variance_between": "Variance of {of} between the samples' true means (one-way analysis of variance): "
    "what makes samples differ. Only more samples reduce its part of the standard error.",
}

_CONSISTENCY = (
    "The chance that two answers to the same sample are equal, as the parsers left them: mean over samples "
    "of the share of pairs that are. An answer that could not be read equals none. Free text differs almost "
    "always: parse it first."
)

_FIGURE = re.compile(r"(pass_at|pass_hat)_([1-9][0-9]*)")

OF_SCORES = (*_OF_SCORES,)
OF_K = (*_OF_K,)


def consistency_info() -> MetricInfo:
    """How often answers to one sample agree."""
    return fraction("repeats.consistency", _CONSISTENCY)


def repeat_info(figure: str, of: MetricInfo) -> MetricInfo:
    """What a figure ("pass_at_5", "majority", …) of the repeats of a metric means."""
    name = f"repeats.{of.name}.{figure}"
    found = _FIGURE.fullmatch(figure)
    if found is not None or figure.endswith("_k"):
        kind, k = found.groups() if found is not None else (figure.removesuffix("_k"), "k")
        return fraction(name, _OF_K[kind].format(k=k, of=of.name))
    text = _OF_SCORES[figure].format(of=of.name)
    if figure == "majority":
        return MetricInfo(name, of.unit, of.direction, text, of.bounds)
    return MetricInfo(name, "squared", "none", text, (0.0, None))


def repeat_definition(name: str, lookup: Callable[[str], MetricInfo]) -> MetricInfo | None:
    """The definition of a metric named `repeats.…`, or None for other names."""
    head, _, rest = name.partition(".")
    if head != "repeats":
        return None
    if rest == "consistency":
        return consistency_info()
    of, _, figure = rest.rpartition(".")
    if of and (figure in _OF_SCORES or _FIGURE.fullmatch(figure)):
        return repeat_info(figure, lookup(of))
    return None
