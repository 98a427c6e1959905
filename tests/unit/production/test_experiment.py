"""Experiments: assignment, sample ratio, delta method, looking at any time, CUPED, interactions."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from evalrun.errors import UserError
from evalrun.production.assignment import ExperimentSpec, load_experiment
from evalrun.production.experiment import (
    Analysis,
    analyse,
    anytime_p,
    check_promotable,
    half_width,
    interaction,
    linearised,
    rho,
    sample_ratio,
)


def spec(**changes: Any) -> ExperimentSpec:
    """An experiment on users with two arms."""
    values: dict[str, Any] = {
        "id": "v7",
        "arms": {"a": "s/a", "b": "s/b"},
        "primary": "score",
        "namespace": "triage",
    }
    return ExperimentSpec(**{**values, **changes})


def table(
    rng: np.random.Generator, users: int, a: float, b: float, each: int = 3, **columns: Any
) -> pd.DataFrame:
    """Requests of users, `each` a user, whose answers are right in these shares; a user's are alike."""
    unit = np.repeat(np.arange(users), each)
    arm = np.where(unit % 2 == 0, "a", "b")
    own = np.repeat(rng.normal(0, 0.2, users), each)
    right = rng.random(len(unit)) < np.where(arm == "a", a, b) + own
    return pd.DataFrame(
        {"user_key": [f"u{at}" for at in unit], "arm": arm, "score": right.astype(float), **columns}
    )


def test_an_arm_is_a_function_of_the_key_and_the_printed_one_is_the_same() -> None:
    one = spec(
        buckets=(2000, 9000), arms={"a": None, "b": None, "c": None}, split={"a": 0.5, "b": 0.2, "c": 0.3}
    )
    names: dict[str, Any] = {}
    exec("import hashlib\n" + one.code(), names)
    keys = [f"user-{at}" for at in range(4000)]
    arms = [one.assign(key) for key in keys]
    assert [names["arm"](key) for key in keys] == arms
    assert one.code().count("\n") == 4
    share = {arm: arms.count(arm) / len(arms) for arm in ("a", "b", "c", None)}
    expected = {"a": 0.35, "b": 0.14, "c": 0.21, None: 0.3}
    assert all(abs(share[arm] - expected[arm]) < 0.03 for arm in expected)


def test_experiments_of_other_buckets_share_no_unit_and_others_are_assigned_apart() -> None:
    low, high = spec(buckets=(0, 5000)), spec(id="v8", buckets=(5000, 10000))
    other = spec(id="v9", namespace="else")
    keys = [f"k{at}" for at in range(5000)]
    assert low.excludes(high)
    assert not low.excludes(other)
    assert not any(low.assign(key) and high.assign(key) for key in keys)
    both = [(low.assign(key), other.assign(key)) for key in keys if low.assign(key)]
    cells = [[both.count((i, j)) for j in "ab"] for i in "ab"]
    assert stats.chi2_contingency(cells).pvalue > 0.001


def test_the_sample_ratio_of_the_reference() -> None:
    small = sample_ratio({"a": 5100, "b": 4900}, {"a": 0.5, "b": 0.5})
    assert (small.chi2, small.p, small.ok) == (pytest.approx(4), pytest.approx(0.0455003, abs=1e-7), True)
    great = sample_ratio({"a": 51000, "b": 49000}, {"a": 0.5, "b": 0.5})
    assert great.p < 1e-9
    assert not great.ok
    uneven = sample_ratio({"a": 900, "b": 100}, {"a": 0.9, "b": 0.1})
    assert uneven.p == pytest.approx(1)


def test_a_ratio_that_is_off_lets_nothing_be_concluded() -> None:
    rows = table(np.random.default_rng(0), 4000, 0.5, 0.9)
    lost = rows[(rows["arm"] == "a") | (rows["score"] == 1) | (rows.index % 4 > 0)]
    lost = lost[~((lost["arm"] == "b") & lost["user_key"].isin([f"u{at}" for at in range(1, 800, 2)]))]
    analysis = analyse(spec(), lost)
    assert (analysis.verdict, analysis.effects) == ("no verdict", ())
    assert "sample ratio" in analysis.why
    with pytest.raises(UserError, match="sample ratio") as caught:
        check_promotable(spec(), analysis)
    assert caught.value.exit_code == 1


def test_units_in_two_arms_stop_the_verdict_above_one_per_cent() -> None:
    rows = table(np.random.default_rng(1), 2000, 0.5, 0.6)
    twice = (
        rows.drop_duplicates("user_key").head(15).assign(arm=lambda at: np.where(at["arm"] == "a", "b", "a"))
    )
    few = analyse(spec(), pd.concat([rows, twice]))
    assert (few.in_two_arms, few.verdict != "no verdict") == (15, True)
    many = (
        rows.drop_duplicates("user_key").head(60).assign(arm=lambda at: np.where(at["arm"] == "a", "b", "a"))
    )
    assert "several arms" in analyse(spec(), pd.concat([rows, many])).why


def test_the_delta_method_is_a_bootstrap_over_users() -> None:
    rng = np.random.default_rng(2)
    requests = rng.poisson(4, 800) + 1.0
    scores = rng.binomial(requests.astype(int), np.clip(rng.normal(0.6, 0.2, 800), 0, 1)).astype(float)
    units = linearised(scores, requests)
    assert units.ratio == pytest.approx(scores.sum() / requests.sum())
    assert units.values.mean() == pytest.approx(units.ratio)
    drawn = rng.integers(0, 800, (5000, 800))
    ratios = scores[drawn].sum(1) / requests[drawn].sum(1)
    assert units.variance**0.5 == pytest.approx(ratios.std(ddof=1), rel=0.05)


def test_the_width_of_the_reference() -> None:
    assert rho(0.05, 5000) == pytest.approx(0.0398401, abs=1e-7)
    assert half_width(0.25 / 1000 + 0.25 / 1000, 2000, 0.05, 5000) == pytest.approx(0.069850, abs=1e-6)
    # The level at which the interval just leaves zero out is the p value.
    edge = half_width(0.0005, 2000, 0.05, 5000)
    assert anytime_p(edge, 0.0005, 2000, 5000, 0.05) == pytest.approx(0.05, rel=1e-9)


@pytest.mark.parametrize("p", [0.5, 0.05])
def test_looking_at_every_hundred_finds_nothing_where_nothing_is(p: float) -> None:
    """A z test that is looked at is wrong in a quarter of experiments, the sequence in 5 % at most."""
    rng = np.random.default_rng(4)
    a, b = (rng.random((1500, 4000)) < p for _ in "ab")
    fixed, always = np.zeros(1500, bool), np.zeros(1500, bool)
    for n in range(100, 4001, 100):
        left, right = a[:, :n].mean(1), b[:, :n].mean(1)
        variance = (left * (1 - left) + right * (1 - right)) / (n - 1)
        fixed |= np.abs(right - left) > 1.96 * np.sqrt(variance)
        widths = np.sqrt(variance) * half_width(1.0, 2 * n, 0.05, 5000)
        always |= np.abs(right - left) > widths
    assert fixed.mean() > 0.25
    assert always.mean() <= 0.03


def test_a_better_arm_is_found_and_its_promotion_says_why() -> None:
    analysis = analyse(spec(), table(np.random.default_rng(5), 6000, 0.5, 0.62))
    (effect,) = analysis.effects
    assert (analysis.verdict, analysis.winner, effect.verdict) == ("better", "b", "better")
    assert effect.ci_low < 0.12 < effect.ci_high
    assert check_promotable(spec(), analysis) == "s/b"
    assert analysis.reason().startswith(f"experiment v7: score {effect.difference:+.3f} [")
    assert analysis.digest[:16] in analysis.reason()


def test_arms_that_are_alike_are_tied_and_a_lower_score_is_worse() -> None:
    rows = table(np.random.default_rng(6), 3000, 0.5, 0.5)
    assert analyse(spec(), rows).verdict == "tied"
    assert analyse(spec(), table(np.random.default_rng(6), 6000, 0.7, 0.5)).verdict == "worse"
    # Errors are better where they are fewer.
    errors = table(np.random.default_rng(6), 6000, 0.7, 0.5).rename(columns={"score": "error_rate"})
    assert analyse(spec(primary="error_rate"), errors).verdict == "better"


def test_a_fixed_experiment_is_read_at_its_end_only() -> None:
    rows = table(np.random.default_rng(7), 6000, 0.5, 0.62)
    fixed = spec(sequential=False, until="2026-12-10")
    early = analyse(fixed, rows, now=datetime(2026, 12, 9, tzinfo=UTC))
    assert (early.verdict, early.effects) == ("no verdict", ())
    late = analyse(fixed, rows, now=datetime(2026, 12, 10, tzinfo=UTC))
    assert late.effects[0].p is not None
    assert late.effects[0].p < 1e-6
    width = analyse(spec(), rows).effects[0]
    assert late.effects[0].ci_high - late.effects[0].ci_low < width.ci_high - width.ci_low


def test_no_claim_with_fewer_than_a_hundred_units_an_arm() -> None:
    assert "fewer than 100 units" in analyse(spec(), table(np.random.default_rng(8), 180, 0.1, 0.9)).why


def test_cuped_takes_out_what_the_past_explains_and_moves_no_mean() -> None:
    rng = np.random.default_rng(9)
    users = 4000
    past = rng.normal(0, 1, users)
    now = 0.8 * past + rng.normal(0, 0.6, users) + np.where(np.arange(users) % 2, 0.05, 0.0)
    rows = pd.DataFrame({
        "user_key": np.arange(users), "arm": np.where(np.arange(users) % 2, "b", "a"), "score": now,
        "before": past,
    })  # fmt: skip
    plain = analyse(spec(), rows).effects[0]
    effect = analyse(spec(covariate="before"), rows).effects[0]
    assert effect.variance_cut == pytest.approx(np.corrcoef(past, now)[0, 1] ** 2, abs=0.02)
    assert effect.ci_high - effect.ci_low < 0.7 * (plain.ci_high - plain.ci_low)
    assert effect.ci_low < 0.05 < effect.ci_high
    assert plain.variance_cut == 0


def test_a_ratio_metric_counts_the_user_once() -> None:
    rng = np.random.default_rng(10)
    rows = table(rng, 2000, 0.5, 0.5)
    rows["tokens"] = rng.poisson(100, len(rows)) + np.where(rows["arm"] == "b", 20, 0)
    rows["answers"] = 1
    ratio = analyse(spec(primary={"numerator": "tokens", "denominator": "answers"}), rows)
    assert ratio.effects[0].difference == pytest.approx(20, abs=2)
    assert ratio.verdict == "worse"  # more tokens


@pytest.mark.parametrize(
    ("guard", "verdict"),
    [
        ("e2e_s p95 <= 3", "violated"),
        ("e2e_s p95 <= 30", "holds"),
        ("e2e_s <= 30", "holds"),
        ("e2e_s >= 30", "violated"),
        ("refused no worse by 0.2", "holds"),
        ("refused no worse by 0.01", "violated"),
        ("refused no lower by 0.01", "holds"),
        ("score no worse by 0.1", "holds"),
        ("score no worse by 0.0001", "undecided"),
    ],
)
def test_guardrails(guard: str, verdict: str) -> None:
    rng = np.random.default_rng(11)
    rows = table(rng, 6000, 0.5, 0.5)
    rows["e2e_s"] = rng.exponential(2.0, len(rows))
    rows["refused"] = (rng.random(len(rows)) < np.where(rows["arm"] == "b", 0.15, 0.05)).astype(float)
    assert [each.verdict for each in analyse(spec(guardrails=[guard]), rows).guards] == [verdict]


def test_a_violated_guardrail_stands_against_the_promotion() -> None:
    rng = np.random.default_rng(12)
    rows = table(rng, 6000, 0.5, 0.65)
    rows["e2e_s"] = rng.exponential(2.0, len(rows)) + np.where(rows["arm"] == "b", 8, 0)
    analysis = analyse(spec(guardrails=["e2e_s p95 <= 8"]), rows)
    with pytest.raises(UserError, match="violated: e2e_s p95 <= 8"):
        check_promotable(spec(), analysis)


def cells(means: list[float], n: int = 1000) -> dict[tuple[int, int], Any]:
    """Cells 00, 01, 10, 11 of ones and zeros with these means."""
    keys = [(0, 0), (0, 1), (1, 0), (1, 1)]
    return {
        key: np.repeat([1.0, 0.0], [round(m * n), n - round(m * n)])
        for key, m in zip(keys, means, strict=True)
    }


def test_interactions_of_the_reference() -> None:
    strong = interaction(("x", "y"), cells([0.5, 0.6, 0.6, 0.9]))
    assert strong.d == pytest.approx(0.2)
    variance = sum(m * (1 - m) / 999 for m in (0.5, 0.6, 0.6, 0.9))
    assert strong.p == pytest.approx(2 * stats.norm.sf(0.2 / variance**0.5), rel=1e-9)
    none = interaction(("x", "y"), cells([0.5, 0.6, 0.6, 0.7]))
    assert none.d == pytest.approx(0, abs=1e-12)
    assert none.assigned_p == pytest.approx(1)


def test_planted_interactions_are_found_and_others_not() -> None:
    rng = np.random.default_rng(13)
    one, two, third = spec(), spec(id="rank", namespace="rank"), spec(id="tone", namespace="tone")
    keys = [f"u{at}" for at in range(8000)]
    arms = [one.assign(key) for key in keys]
    both = np.array([one.assign(key) == "b" and two.assign(key) == "b" for key in keys])
    right = rng.random(len(keys)) < 0.5 + 0.3 * both
    rows = pd.DataFrame({"user_key": keys, "arm": arms, "score": right.astype(float)})
    analysis = analyse(one, rows, [two, third, spec(id="apart", buckets=(0, 1))])
    assert [(each.experiments[1], each.found) for each in analysis.interactions][:2] == [
        ("rank", True),
        ("tone", False),
    ]
    assert analysis.interactions[0].d == pytest.approx(0.3, abs=0.08)
    exclusive = analyse(spec(buckets=(0, 5000)), rows, [spec(id="else", buckets=(5000, 10000))])
    assert exclusive.interactions == ()


def test_keys_that_are_pseudonyms_give_no_other_arm() -> None:
    rows = table(np.random.default_rng(17), 2000, 0.5, 0.5)
    rows["user_key"] = "k" + rows["user_key"].str[1:].str.zfill(4)
    (crossed,) = analyse(spec(), rows, [spec(id="rank", namespace="rank")]).interactions
    assert "nothing can be told of it" in crossed.note
    logged = rows.assign(ranking=np.where(rows["user_key"].str[-2] < "5", "a", "b"))
    (read,) = analyse(spec(), logged, [spec(id="rank", namespace="rank", arm="ranking")]).interactions
    assert read.note == ""
    assert read.units == 2000


def test_interactions_are_found_by_chance_in_five_per_cent_at_most() -> None:
    rng = np.random.default_rng(14)
    found = 0
    for _ in range(400):
        seen = {(i, j): rng.random(300) < 0.5 + 0.1 * i + 0.1 * j for i in (0, 1) for j in (0, 1)}
        found += interaction(("x", "y"), {key: each.astype(float) for key, each in seen.items()}).p < 0.05
    assert 0.025 <= found / 400 <= 0.085


def test_rows_without_unit_or_arm_are_counted_and_left_out() -> None:
    rows = table(np.random.default_rng(15), 2000, 0.5, 0.5)
    rows.loc[:9, "user_key"] = None
    rows.loc[10:14, "arm"] = None
    rows.loc[15:16, "arm"] = "c"
    analysis = analyse(spec(), rows)
    assert analysis.left_out == {"no unit": 10, "no arm": 5, "an arm of no such name": 2}
    assert isinstance(analysis, Analysis)


def test_a_column_that_is_not_there_is_named() -> None:
    rows = table(np.random.default_rng(16), 400, 0.5, 0.5)
    with pytest.raises(UserError, match="Did you mean 'score'"):
        analyse(spec(primary="scores"), rows)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id: v7\narms: {a: x}\nprimary: score", "arms"),
        ("id: v7\narms: {a: x, b: y}\nprimary: score\nsplit: {a: 0.5, b: 0.6}", "do not sum to 1"),
        ("id: v7\narms: {a: x, b: y}\nprimary: score\nsplitt: {a: 0.5}", "splitt"),
        ("id: v7\narms: {a: x, b: y}\nprimary: score\nguardrails: [faster]", "guardrail"),
        ("id: v7\narms: {a: x, b: y}\nprimary: score\nsequential: false", "until"),
        ("id: v7\narms: {a: x, b: y}\nprimary: score\nbuckets: [5, 20000]", "buckets"),
        ("id: v7\narms: {a: x, b: y}\nprimary: score\nuntil: soon", "soon"),
        ("- 1", "no experiment"),
        ("a: [", ""),
    ],
)
def test_a_wrong_file_is_one_message_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_experiment(path)
    assert caught.value.exit_code == 2
    assert said in str(caught.value)
    assert "e.yaml" in str(caught.value)


def test_the_form_of_the_reference_is_read(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(
        "experiment: {id: prompt-v7, arms: {control: s/a, treatment: s/b}, unit: user_key,\n"
        "  split: {control: .5, treatment: .5}, primary: score.resolved,\n"
        '  guardrails: ["e2e_s p95 <= 8", "score.refused no worse by 0.01"], sequential: true,\n'
        "  tuning_n: 5000, namespace: triage}\n"
    )
    assert load_experiment(path).control == "control"
