"""Choices and perplexities by likelihood: what is decided, scored and counted, on numbers made by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tests.tables import sample_table

from evalrun import registry
from evalrun.analysis.definitions import definition
from evalrun.analysis.quality import score_metrics
from evalrun.scoring.likelihood import decided, probabilities
from evalrun.scoring.pipeline import Pipeline
from evalrun.types import Ask, MetricValue, ProviderError, SampleRecord, Status


def made(name: str, **options: Any) -> Any:
    kind = registry.load("scorer", name)
    return kind(kind.Options(**options))


def choice(*logprobs: float | None, options: tuple[str, ...] = (), by: Any = "sum", tokens: int = 1) -> Any:
    names = options or tuple("ABCDE"[: len(logprobs)])
    ask = Ask("choose", by=by, options=names, answers=names)
    return decided(ask, {"options": [{"logprob": each, "tokens": tokens} for each in logprobs]})


def analysed(
    scorer: Any, samples: list[tuple[Any, dict[str, Any], Any]], clusters: list[str] | None = None
) -> dict[str, MetricValue]:
    """Metrics of (likelihood, row, target) samples."""
    pipeline, rows = Pipeline([], [scorer]), []
    for number, (likelihood, row, target) in enumerate(samples):
        scored = pipeline.evaluate("", target, row, likelihood=likelihood)
        rows.append(
            SampleRecord(
                f"s{number:04}",
                0,
                number,
                row,
                target,
                scored.status,
                scores=scored.scores,
                reasons=scored.reasons,
                cluster=None if clusters is None else clusters[number],
            )
        )
    found, _ = score_metrics(sample_table(rows), [scorer], exclude_unparsed=False, seed=0)
    for each in found:
        assert definition(each.name), each.name
    return {each.name: each for each in found}


def test_each_measure_can_choose_another_option() -> None:
    options = ("no", "certainly not so", "ja, ja")
    found = {"options": [{"logprob": -2.0, "tokens": 1}, {"logprob": -4.0, "tokens": 4}]}
    found["options"].append({"logprob": -2.2, "tokens": 2})
    chosen = {}
    for by in ("sum", "per_token", "per_byte"):
        document = decided(Ask("choose", by=by, options=options, answers=("N", "C", "J")), found)
        chosen[by] = document["chosen"]
        assert [each["per_token"] for each in document["options"]] == [-2.0, -1.0, -1.1]
        assert document["options"][1]["per_byte"] == -4.0 / 16
    assert chosen == {"sum": "N", "per_token": "C", "per_byte": "C"}
    assert decided(Ask("choose", options=options, answers=options), found)["margin"] == pytest.approx(0.2)


def test_the_first_of_equals_is_chosen_and_bytes_are_those_of_utf8() -> None:
    found = choice(-3.0, -3.0, options=("ä", "b"))
    assert (found["chosen"], found["margin"]) == ("ä", 0.0)
    assert [each["per_byte"] for each in found["options"]] == [-1.5, -3.0]


@pytest.mark.parametrize(
    "broken", [None, {}, {"options": []}, {"options": [{"logprob": "x"}] * 2}, {"options": [{}, {}]}]
)
def test_what_is_no_likelihood_is_said(broken: Any) -> None:
    with pytest.raises(ProviderError, match="cannot be read"):
        decided(Ask("choose", options=("A", "B"), answers=("A", "B")), broken)


def test_the_chosen_option_is_the_answer_and_no_parser_reads_it() -> None:
    def never(value: str) -> str:
        raise AssertionError("a parser was asked")

    pipeline = Pipeline([never], [made("exact_match"), made("classification", labels=["A", "B"])])
    scored = pipeline.evaluate("", "B", {}, likelihood=choice(-2.0, -1.0))
    assert (scored.status, scored.answer, scored.scores["exact_match"]) == (Status.SCORED, "B", 1.0)


def test_an_answer_outside_the_options_is_unparsed() -> None:
    scored = Pipeline([], [made("exact_match")]).evaluate("Hm", "A", {}, likelihood=choice(None, None))
    assert (scored.status, scored.scores["exact_match"]) == (Status.UNPARSED, 0.0)
    assert "first tokens" in str(scored.error)


def test_a_perplexity_has_no_answer_to_be_right() -> None:
    found = decided(Ask("perplexity"), {"logprob": -6.0, "tokens": 3, "bytes": 12, "words": 2})
    scored = Pipeline([], [made("exact_match"), made("perplexity")]).evaluate("", "x", {}, likelihood=found)
    assert scored.scores["exact_match"] is None and scored.scores["perplexity"] == 2.0
    words = Pipeline([], [made("perplexity")]).evaluate("words", "x", {})
    assert words.scores["perplexity"] is None


def test_perplexities_come_from_sums_not_from_means() -> None:
    samples: list[tuple[Any, dict[str, Any], Any]] = [
        (decided(Ask("perplexity"), {"logprob": -value, "tokens": t, "bytes": b, "words": w}), {}, None)
        for value, t, b, w in [(30.0, 10, 40, 8), (2.0, 2, 4, 1), (50.0, 20, 90, 15)]
    ]
    found = analysed(made("perplexity"), samples)
    assert found["perplexity.nll_per_token"].value == pytest.approx((3 + 1 + 2.5) / 3)
    for part, total in (("per_token", 32), ("per_byte", 134), ("per_word", 24)):
        assert found[f"perplexity.{part}"].value == pytest.approx(math.exp(82 / total))
    assert found["perplexity.bits_per_byte"].value == pytest.approx(82 / 134 / math.log(2))
    interval = found["perplexity.per_token"]
    assert interval.ci_low is not None and interval.ci_low < interval.value < interval.ci_high  # type: ignore[operator]


def test_option_probabilities_and_their_calibration() -> None:
    assert probabilities(choice(math.log(0.1), math.log(0.3), None)) == pytest.approx([0.25, 0.75, 0.0])
    samples: list[tuple[Any, dict[str, Any], Any]] = [
        (choice(math.log(0.6), math.log(0.2)), {}, "A"),  # p = 0.75, right
        (choice(math.log(0.6), math.log(0.2)), {}, "B"),  # p = 0.25, wrong
        (choice(-1.0, -1.0), {}, "B"),  # even; the first is chosen
        (choice(-1.0, -2.0), {}, "Z"),  # no such option: left out
    ]
    found = analysed(made("option_likelihood"), samples)
    assert found["option_likelihood"].value == pytest.approx((0.75 + 0.25 + 0.5) / 3)
    assert found["option_likelihood"].n == 3
    assert found["option_likelihood.accuracy_sum"].value == pytest.approx(1 / 3)
    brier = (2 * 0.25**2 + 2 * 0.75**2 + 2 * 0.5**2) / 3
    assert found["option_likelihood.brier"].value == pytest.approx(brier)
    ece = (2 * abs(0.75 - 0.5) + abs(0.5 - 0.0)) / 3
    assert found["option_likelihood.ece"].value == pytest.approx(ece)


def pairs(differences: list[float], kinds: list[str]) -> list[tuple[Any, dict[str, Any], Any]]:
    return [
        (choice(-5.0 + difference, -5.0), {"bias_type": kind}, None)
        for difference, kind in zip(differences, kinds, strict=True)
    ]


def test_crows_pairs_is_the_preference_of_the_pairs() -> None:
    rng = np.random.default_rng(3)
    differences = [0.0, 0.0, *rng.normal(0.4, 1.0, 98).tolist()]
    kinds = [("age", "gender", "something else")[n % 3] for n in range(100)]
    found = analysed(made("crows_pairs"), pairs(differences, kinds))
    preferred = sum(each > 0 for each in differences)
    wanted = stats.binomtest(preferred, 98)
    interval = wanted.proportion_ci(method="wilson")
    share = found["crows_pairs.without_ties"]
    assert (share.value, share.ci_low, share.ci_high) == pytest.approx(
        (preferred / 98, interval.low, interval.high)
    )
    assert (share.n, share.method) == (98, "wilson")
    assert found["crows_pairs"].value == pytest.approx(preferred / 100)
    assert f"p = {wanted.pvalue:.2g}" in share.note and f"{preferred} of 98" in share.note
    assert {name for name in found if name.count(".") == 2} == {
        f"crows_pairs.without_ties.{kind}" for kind in ("age", "gender", "other")
    }


def test_repeats_of_a_pair_give_no_binomial_p() -> None:
    samples = pairs([1.0, -1.0, 1.0, 1.0], ["age"] * 4)
    found = analysed(made("crows_pairs"), samples, clusters=["x", "x", "y", "y"])
    assert "no binomial test" in found["crows_pairs.without_ties"].note


def test_crows_pairs_needs_two_options_that_are_known() -> None:
    scorer = made("crows_pairs")
    for likelihood in (choice(-1.0, -2.0, -3.0), choice(-1.0, None), None):
        scored = Pipeline([], [scorer]).evaluate("x", None, {"bias_type": "age"}, likelihood=likelihood)
        assert scored.scores["crows_pairs"] is None


def test_stereoset_is_averaged_over_terms() -> None:
    rng = np.random.default_rng(5)
    terms = [f"t{n}" for n in rng.integers(0, 12, 90)]
    values = rng.normal(-20, 2, (90, 3))
    samples = [
        (choice(*row), {"target": term}, None) for row, term in zip(values.tolist(), terms, strict=True)
    ]
    found = analysed(made("stereoset"), samples, clusters=terms)
    stereotype, anti, unrelated = values.T
    of_term = {term: np.array(terms) == term for term in terms}
    lms = np.array(
        [100 * np.mean([stereotype[at] > unrelated[at], anti[at] > unrelated[at]]) for at in of_term.values()]
    )
    ss = np.array([100 * np.mean(stereotype[at] > anti[at]) for at in of_term.values()])
    drawn = rng.integers(len(of_term), size=(4_000, len(of_term)))

    def published(lms: np.ndarray, ss: np.ndarray) -> dict[str, np.ndarray]:
        """Means over the target terms (last axis), as Nadeem et al. (2021) define them."""
        lms, ss = lms.mean(axis=-1), ss.mean(axis=-1)
        return {"lms": lms, "ss": ss, "icat": lms * np.minimum(ss, 100 - ss) / 50}

    draws = published(lms[drawn], ss[drawn])
    sides = draws["lms"] * draws["ss"] / 50, draws["lms"] * (100 - draws["ss"]) / 50
    for name, value in published(lms, ss).items():
        mine = found[f"stereoset.{name}"]
        assert mine.value == pytest.approx(value)
        # icat is the lesser of two figures, and its bounds are the lesser ones of theirs
        of = sides if name == "icat" else (draws[name],)
        bounds = np.min([np.quantile(each, [0.025, 0.975]) for each in of], axis=0)
        assert (mine.ci_low, mine.ci_high) == pytest.approx(bounds, abs=2.5)
    always = [(choice(-1.0, -2.0, -3.0), {"target": "t"}, None)] * 4
    extreme = analysed(made("stereoset"), always)
    assert [extreme[f"stereoset.{name}"].value for name in ("lms", "ss", "icat")] == [100.0, 100.0, 0.0]


def test_winobias_is_the_gap_of_paired_sentences() -> None:
    rng = np.random.default_rng(7)
    rows, answers = [], []
    for number in range(60):
        for condition, rate in (("pro", 0.8), ("anti", 0.5)):
            rows.append({"condition": condition, "sentence": f"s{number}"})
            answers.append("right" if rng.random() < rate else "wrong")
    scorer = made("winobias")
    pipeline = Pipeline([], [scorer])
    records = [
        SampleRecord(
            f"{row['sentence']}{row['condition']}",
            0,
            0,
            row,
            "right",
            Status.SCORED,
            scores=pipeline.evaluate(answer, "right", row).scores,
            cluster=row["sentence"],
        )
        for row, answer in zip(rows, answers, strict=True)
    ]
    metrics, _ = score_metrics(sample_table(records), [scorer], exclude_unparsed=False, seed=0)
    found = {each.name: each for each in metrics}
    right = np.array([float(each == "right") for each in answers])
    wanted = stats.ttest_rel(right[0::2], right[1::2]).confidence_interval()
    gap = found["winobias.gap"]
    assert gap.value == pytest.approx(right[0::2].mean() - right[1::2].mean())
    assert (gap.ci_low, gap.ci_high) == pytest.approx((wanted.low, wanted.high), abs=0.04)
    accuracy = found["winobias.accuracy_pro"].value
    assert accuracy == pytest.approx(np.mean([a == "right" for a in answers[0::2]]))
