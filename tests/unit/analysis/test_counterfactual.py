"""Versions of samples: flips and differences counted by hand, noise taken off, false alarms by simulation."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tables import sample_table

from evalrun import registry
from evalrun.analysis.counterfactual import VersionPlan, version_metrics
from evalrun.analysis.definitions import definition
from evalrun.analysis.run import analyse_run
from evalrun.analysis.samples import SampleTable
from evalrun.datasets import open_dataset
from evalrun.runner.journal import Journal
from evalrun.scoring.base import Scorer
from evalrun.suite.dataset import DatasetSpec
from evalrun.suite.load import parse_suite
from evalrun.suite.plan import cells
from evalrun.tracking.parquet import journal_to_parquet
from evalrun.types import MetricValue, SampleRecord, Status

PLAN = VersionPlan(reference={}, draws=False)


def scorer() -> Scorer:
    kind = registry.load("scorer", "exact_match")
    made: Scorer = kind(kind.Options())
    return made


def spec(rows: int = 20, **more: Any) -> DatasetSpec:
    data = [{"k": n, "text": "Emily was here", "label": "yes"} for n in range(rows)]
    return DatasetSpec.model_validate({"id": "d", "rows": data, "key": "k", "target": "label", **more})


def records(data: DatasetSpec, answer: Any, repeats: int = 1) -> list[SampleRecord]:
    """`answer(base, labels, repeat)` gives the answer; None is a refusal, an exception a failure."""
    made = []
    for item in open_dataset(data, Path(), 0):
        for repeat in range(repeats):
            given = answer(int(item.base or 0), item.sensitive, repeat)
            status = Status.REFUSED if given is None else Status.SCORED
            made.append(
                SampleRecord(
                    sample_id=item.sample_id,
                    repeat=repeat,
                    position=item.position,
                    vars=item.row,
                    target=item.target,
                    status=status,
                    answer=given,
                    completion_tokens=None if given is None else len(given),
                    scores={"exact_match": float(given == "yes")},
                    sensitive=item.sensitive,
                    cluster=item.cluster,
                )
            )
    return made


Found = dict[tuple[str, str], MetricValue]


def analysed(
    data: DatasetSpec, rows: list[SampleRecord], plan: VersionPlan = PLAN
) -> tuple[Found, dict[str, Any]]:
    found, details = version_metrics(sample_table(rows), [scorer()], data, plan)
    return {(each.name, next(iter(each.slice.values()), "")): each for each in found}, {
        axis: asdict(versions) for axis, versions in details.items()
    }


NAMES = {"name": ["Emily", "Lakisha", "Mei"]}


def test_flips_and_differences_are_those_counted_by_hand() -> None:
    def answer(base: int, labels: Any, _: int) -> str | None:
        if labels["name"] == "Lakisha" and base < 5:
            return "no"
        return None if labels["name"] == "Mei" and base < 2 else "yes"

    data = spec(counterfactual=NAMES)
    found, details = analysed(data, records(data, answer))
    # Rows 0 and 1: all three differ (3 of 3 pairs). Rows 2 to 4: Lakisha against both (2 of 3).
    flips = found["counterfactual.name.flip_rate", ""]
    assert flips.value == pytest.approx((2 * 1 + 3 * 2 / 3) / 20)
    assert (flips.n, flips.method) == (20, "wilson")  # most rows have no flip: t would be too narrow
    assert found["counterfactual.name.flip_rate", "Lakisha"].value == 0.25
    assert found["counterfactual.name.flip_rate", "Lakisha"].method == "wilson"
    lakisha = found["counterfactual.name.exact_match.difference", "Lakisha"]
    assert lakisha.value == -0.25
    assert lakisha.ci_low is not None
    assert lakisha.ci_low < -0.25 < (lakisha.ci_high or 0) < 0
    assert found["counterfactual.name.refused_rate.difference", "Mei"].value == pytest.approx(0.1)
    assert found["counterfactual.name.refused_rate.difference", "Lakisha"].value == 0
    length = found["counterfactual.name.performance.completion_tokens.mean.difference", "Lakisha"]
    assert length.value == -0.25
    axis = details["name"]
    assert (axis["reference"], axis["units"]) == ("Emily", 20)
    assert axis["examples"][0] == {
        "base": "0", "version": "Lakisha", "sample_id": "0~name=Lakisha", "answer": "no",
        "against": "Emily", "against_id": "0~name=Emily", "against_answer": "yes",
    }  # fmt: skip
    entries = axis["differences"]["exact_match"]
    assert [entry["discordant"] for entry in entries] == [(5, 0), (2, 0)]
    assert entries[0]["p_holm"] == pytest.approx(2 * entries[0]["p"])
    assert entries[0]["p"] == pytest.approx(2 / 2**5)  # McNemar's exact test


def test_another_reference_and_two_attributes_held_apart() -> None:
    data = spec(counterfactual={**NAMES, "pronoun": ["she", "they"]})
    rows = records(
        data, lambda base, labels, _: "no" if labels == {"name": "Mei", "pronoun": "they"} else "yes"
    )
    found, details = analysed(data, rows, VersionPlan(reference={"name": "Mei"}, draws=False))
    assert found["counterfactual.name.exact_match.difference", "Emily"].value == 0.5
    assert found["counterfactual.name.exact_match.difference", "Emily"].n == 40
    assert found["counterfactual.pronoun.exact_match.difference", "they"].value == pytest.approx(-1 / 3)
    assert details["pronoun"]["units"] == 60


def test_failed_samples_leave_the_pairs_and_are_no_flips() -> None:
    data = spec(counterfactual={"name": ["Emily", "Mei"]})
    rows = records(data, lambda *_: "yes")
    broken = [
        SampleRecord(
            row.sample_id,
            0,
            row.position,
            {},
            "yes",
            Status.FAILED,
            sensitive=row.sensitive,
            cluster=row.cluster,
        )
        if row.sample_id.startswith("1") and "Mei" in row.sample_id
        else row
        for row in rows
    ]
    found, _ = analysed(data, broken)
    assert (
        found["counterfactual.name.flip_rate", ""].value,
        found["counterfactual.name.flip_rate", ""].n,
    ) == (0, 9)


def test_the_flips_of_asking_the_same_again_are_taken_off() -> None:
    rng = np.random.default_rng(9)
    data = spec(rows=600, counterfactual={"name": ["Emily", "Mei"]})
    drawn = VersionPlan(reference={}, draws=True)
    noise = records(data, lambda *_: "yes" if rng.random() < 0.6 else "no", repeats=3)
    found, _ = analysed(data, noise, drawn)
    assert found["counterfactual.name.flip_rate", ""].value == pytest.approx(0.48, abs=0.03)
    assert found["counterfactual.name.resample_flip_rate", ""].value == pytest.approx(0.48, abs=0.04)
    beyond = found["counterfactual.name.flip_rate_beyond_resampling", ""]
    assert (beyond.ci_low or 0) <= 0 <= (beyond.ci_high or 0)
    real = records(
        data,
        lambda _, labels, __: "yes" if rng.random() < (0.6 if labels["name"] == "Mei" else 0.1) else "no",
        3,
    )
    shown, _ = analysed(data, real, drawn)
    # (p - q)^2 for two chances p and q: 0.6*0.9 + 0.4*0.1 - (0.6*0.4 + 0.1*0.9) = 0.25
    assert shown["counterfactual.name.flip_rate_beyond_resampling", ""].value == pytest.approx(0.25, abs=0.04)
    once, details = analysed(data, records(data, lambda *_: "yes"), drawn)
    assert ("counterfactual.name.resample_flip_rate", "") not in once
    assert "with `repeats: 2`" in details["name"]["note"]


def test_the_interval_beyond_resampling_covers_zero_where_nothing_is_different() -> None:
    rng = np.random.default_rng(1)
    data = spec(rows=60, counterfactual={"name": ["Emily", "Mei"]})
    template = records(data, lambda *_: "yes", repeats=2)
    hits = 0
    for _ in range(60):
        chance = rng.beta(2, 1, 60)
        rows = [
            SampleRecord(
                each.sample_id, each.repeat, each.position, {}, "yes", Status.SCORED,
                answer="yes" if rng.random() < chance[int(each.cluster or 0)] else "no",
                scores={"exact_match": 1.0}, sensitive=each.sensitive, cluster=each.cluster,
            )
            for each in template
        ]  # fmt: skip
        found = analysed(data, rows, VersionPlan({}, draws=True))[0]
        beyond = found["counterfactual.name.flip_rate_beyond_resampling", ""]
        hits += (beyond.ci_low or 0) <= 0 <= (beyond.ci_high or 0)
    assert hits >= 53


def test_robustness_is_the_original_the_changed_and_the_worst() -> None:
    data = spec(
        perturb=[
            {"case": "upper", "columns": ["text"]},
            {"id": "b", "words": {"was": "be"}, "columns": ["text"]},
        ]
    )

    def answer(base: int, labels: Any, _: int) -> str:
        wrong = {"original": base < 2, "case": base < 6, "b": 4 <= base < 8}[labels["perturb"]]
        return "no" if wrong else "yes"

    found, details = analysed(data, records(data, answer))
    assert found["robustness.exact_match.original", ""].value == 0.9
    assert found["robustness.exact_match.perturbed", ""].value == pytest.approx((14 / 20 + 16 / 20) / 2)
    assert found["robustness.exact_match.worst", ""].value == 0.6
    drop = found["robustness.exact_match.worst_drop", ""]
    assert drop.value == pytest.approx(-0.3)
    assert (drop.ci_high or 0) < 0
    assert found["counterfactual.perturb.exact_match.difference", "case"].value == pytest.approx(-0.2)
    # Only pairs with the original count: 4 of 20 with upper case; 2 + 4 of 20 with words.
    assert found["counterfactual.perturb.flip_rate", ""].value == pytest.approx((4 + 6) / 40)
    assert details["perturb"]["robustness"]["exact_match"]["worst"]["value"] == 0.6


def test_samples_without_a_paraphrase_are_not_part_of_robustness(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"sample_id": "3", "text": "x"}\n{"sample_id": "4", "text": "y"}')
    data = spec(perturb=[{"paraphrases": str(tmp_path / "p.jsonl")}])
    found, _ = analysed(data, records(data, lambda base, labels, _: "no" if base == 3 else "yes"))
    assert found["robustness.exact_match.original", ""].n == 2
    assert found["robustness.exact_match.original", ""].value == 0.5
    assert found["counterfactual.perturb.flip_rate", ""].n == 2


def test_rows_of_one_cluster_are_one_piece_of_evidence() -> None:
    data = spec(
        rows=40, counterfactual={"name": ["Emily", "Mei"]}, columns={"c": "{{ k // 10 }}"}, cluster="c"
    )
    found, _ = analysed(
        data, records(data, lambda base, labels, _: "no" if base < 10 and labels["name"] == "Mei" else "yes")
    )
    flips = found["counterfactual.name.flip_rate", ""]
    assert (flips.value, flips.method) == (0.25, "clustered-t")
    assert "4 clusters" in flips.note
    difference = found["counterfactual.name.exact_match.difference", "Mei"]
    assert difference.method == "clustered-t"
    assert "p = 1 " in difference.note  # one cluster of four differs


async def test_the_stored_samples_give_the_same_as_those_at_hand(tmp_path: Path) -> None:
    data = spec(counterfactual={**NAMES, "pronoun": ["she", "they"]})
    rows = records(data, lambda base, labels, _: "no" if (base + len(labels["name"])) % 3 else "yes")
    journal = Journal(tmp_path / "journal.jsonl")
    for row in rows[::-1]:
        journal.append(row)
    await journal.close()
    journal_to_parquet(tmp_path / "journal.jsonl", tmp_path / "samples.parquet")
    stored = version_metrics(SampleTable.from_parquet(tmp_path / "samples.parquet"), [scorer()], data, PLAN)
    assert stored == version_metrics(sample_table(rows), [scorer()], data, PLAN)


def test_every_metric_has_the_definition_that_its_name_leads_to() -> None:
    for versions in (
        {"counterfactual": NAMES},
        {"perturb": [{"case": "upper", "columns": ["text"]}]},
    ):
        data = spec(**versions)
        for (name, _), metric in analysed(data, records(data, lambda *_: "yes", repeats=2))[0].items():
            info = definition(name, {info.name: info for info in scorer().metrics()})
            assert (info.name, info.unit, info.direction) == (name, metric.unit, metric.direction)
            assert "Mean of the score" not in info.definition


@pytest.mark.parametrize("temperature", [0, 0.7])
@pytest.mark.parametrize("fairness", [None, {"by": ["name"], "reference": {"name": "Mei"}}])
def test_a_suite_with_versions_has_their_metrics(fairness: dict[str, Any] | None, temperature: float) -> None:
    suite = parse_suite(
        {
            "name": "t",
            "models": [
                {"id": "m", "provider": "recorded", "column": "x", "params": {"temperature": temperature}}
            ],
            "prompts": [{"id": "p", "text": "{{ text }}"}],
            "datasets": [spec(counterfactual=NAMES).model_dump(exclude_unset=True)],
            "scorers": ["exact_match"],
            **({} if fairness is None else {"fairness": fairness}),
        }
    )
    (run,) = cells(suite)
    rows = records(run.dataset, lambda base, labels, _: "no" if labels["name"] == "Mei" else "yes")
    found = analyse_run(sample_table(rows), suite, run)
    flips = {
        each.slice["name"]: each.value
        for each in found.metrics
        if each.name.endswith("name.flip_rate") and each.slice
    }
    others = {"Emily", "Lakisha"} if fairness else {"Lakisha", "Mei"}
    assert set(flips) == others, "each against the reference, by default the first"
    assert flips == {name: float(fairness is not None or name == "Mei") for name in others}
    said = "the model draws its answers" in str([found.metrics, found.details.versions])
    assert said is (temperature > 0), "some flips are chance then"
    plain = analyse_run(sample_table(rows), suite)
    assert not any(each.name.startswith("counterfactual.") for each in plain.metrics)
