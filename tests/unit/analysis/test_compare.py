"""Comparing sweeps on disk: which runs and samples are paired, what is refused, what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from scipy import stats

import evalrun
from evalrun.analysis.compare import CompareOptions, compare
from evalrun.analysis.measures import runs_of
from evalrun.analysis.pairing import Chosen, choose
from evalrun.analysis.pilot import planned_power
from evalrun.analysis.where import concentrations, concentrations_of
from evalrun.errors import UserError
from evalrun.reports.compared import comparison_markdown, print_comparison
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.parquet import journal_to_parquet
from evalrun.tracking.store import Store

Row = dict[str, Any]
Cell = dict[str, Any]


def rows_of(scores: Any, ids: Any = None, **columns: Any) -> list[Row]:
    """Journal records with these scores; None is a failed sample."""
    ids = [f"q{at:04d}" for at in range(len(scores))] if ids is None else ids
    return [
        {
            "sample_id": sample_id,
            "repeat": 0,
            "position": at,
            "status": "failed" if score is None else "scored",
            "target": "t",
            "vars": {},
            "attempts": 1,
            "cached": False,
            "warmup": False,
            "scores": {} if score is None else {"exact_match": float(score)},
            **{
                name: value[at] if isinstance(value, (list, np.ndarray)) else value
                for name, value in columns.items()
            },
        }
        for at, (sample_id, score) in enumerate(zip(ids, scores, strict=True))
    ]


def cell(rows: list[Row], model: str = "m", prompt: str = "p", dataset: str = "d", **params: Any) -> Cell:
    name = "-".join([model, prompt, dataset, *(f"{key}={value}" for key, value in params.items())])
    return {"run": name, "model": model, "prompt": prompt, "dataset": dataset, "params": params, "rows": rows}


MakeSweep = Callable[..., SweepFolder]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def sweep(store: Store) -> MakeSweep:
    def make(
        *cells: Cell, name: str = "s", digest: str = "d1", swept: Any = None, **manifest: Any
    ) -> SweepFolder:
        folder = store.create_sweep(name)
        plan = [{key: value for key, value in each.items() if key != "rows"} for each in cells]
        folder.write_manifest(
            {
                "sweep": folder.ulid,
                "name": name,
                "project": name,
                "status": "complete",
                "plan": plan,
                "datasets": {each["dataset"]: {"digest": digest} for each in cells},
                "prompts": {each["prompt"]: {"digest": f"digest of {each['prompt']}"} for each in cells},
                "suite": {"resolved": {"sweep": swept or {}}},
                **manifest,
            }
        )
        for each, planned in zip(cells, plan, strict=True):
            run_dir = folder.run_dir(each["run"])
            journal = run_dir / "journal.jsonl"
            journal.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in each["rows"]))
            journal_to_parquet(journal, run_dir / "samples.parquet")
            metric = {"name": "exact_match", "value": None, "n": 0, "unit": "fraction", "direction": "higher"}
            folder.finish_run(each["run"], {**planned, "metrics": [metric]})
        return folder

    return make


def compared(*folders: SweepFolder, **options: Any) -> Any:
    return compare([Chosen(folder) for folder in folders], CompareOptions(**options))


A = np.array([1] * 60 + [0] * 40)
B = np.array([1] * 45 + [0] * 15 + [1] * 30 + [0] * 10)


def test_two_sweeps_are_paired_by_sample_id_and_not_by_row(sweep: MakeSweep) -> None:
    ids = [f"q{at:04d}" for at in range(100)]
    order = np.random.default_rng(0).permutation(100)
    first = sweep(cell(rows_of(A)))
    second = sweep(cell(rows_of(B[order], [ids[at] for at in order])))
    [found] = compared(first, second).compared
    assert found.result.n == 100
    assert found.result.discordant == (15, 30)
    assert found.result.p == pytest.approx(stats.binomtest(15, 45).pvalue)
    assert found.result.difference == pytest.approx(0.15)
    assert found.flips.lost == tuple(ids[45:60])
    assert found.flips.won == tuple(ids[60:90])
    assert found.notes == ()


def test_a_row_in_only_one_run_and_a_failed_one_are_left_out_and_said(sweep: MakeSweep) -> None:
    first = sweep(cell(rows_of([1, 1, 0, None, 0, 1, 1])))
    second = sweep(cell(rows_of([1, 0, 1, 1, 0, 1], [f"q{at:04d}" for at in (0, 1, 2, 3, 4, 9)])))
    [found] = compared(first, second).compared
    assert (found.result.n, found.result.dropped) == (4, 1)
    assert (found.only_a, found.only_b) == (2, 1)
    assert found.result.mean_a == 0.5
    assert found.notes[0] == "in one run only, left out: 2 of the first, 1 of the second"
    assert found.notes[1].startswith("left out: 1 samples without a value")


def test_repeats_are_not_samples(sweep: MakeSweep) -> None:
    # Ten samples, thirty answers each, of which five samples got better: 10 pairs, never 300.
    a, b = np.array([1, 1, 0, 0, 0, 0, 0, 1, 0, 1]), np.array([1, 1, 1, 1, 1, 1, 1, 1, 0, 1])

    def repeated(scores: np.ndarray) -> list[Row]:
        return [{**row, "repeat": repeat} for repeat in range(30) for row in rows_of(scores)]

    [found] = compared(sweep(cell(repeated(a))), sweep(cell(repeated(b)))).compared
    assert found.result.n == 10
    assert found.result.p == pytest.approx(0.0625)
    assert found.verdict.word == "inconclusive"


def test_repeats_are_averaged_even_where_their_number_differs(sweep: MakeSweep) -> None:
    three = [{**row, "repeat": k} for k, right in enumerate([1, 0, 1]) for row in rows_of([right] * 20)]
    [found] = compared(sweep(cell(three)), sweep(cell(rows_of([1] * 20)))).compared
    assert found.result.mean_a == pytest.approx(2 / 3)
    assert found.result.n == 20
    assert found.flips is None


def test_clusters_of_the_dataset_are_used(sweep: MakeSweep) -> None:
    clusters = [f"t{at // 10}" for at in range(100)]
    first, second = (sweep(cell(rows_of(scores, cluster=clusters))) for scores in (A, B))
    [found] = compared(first, second).compared
    assert found.result.test == "clustered-permutation"
    assert found.result.n_clusters == 10
    assert found.result.p > stats.binomtest(15, 45).pvalue


def test_other_data_are_refused(sweep: MakeSweep) -> None:
    first, second = sweep(cell(rows_of(A))), sweep(cell(rows_of(B)), digest="d2")
    with pytest.raises(UserError) as caught:
        compared(first, second)
    assert "differ (digests d1 and d2)" in str(caught.value)
    assert "--common" in str(caught.value)


def test_other_data_are_compared_on_the_common_samples_when_asked(sweep: MakeSweep) -> None:
    first = sweep(cell(rows_of(A)))
    second = sweep(cell(rows_of(B[50:], [f"q{at:04d}" for at in range(50, 100)])), digest="d2")
    [found] = compared(first, second, common=True).compared
    assert found.result.n == 50
    assert any(
        "only the 50 samples that both have are compared, of 100 and 50" in note for note in found.notes
    )


def test_the_same_id_with_other_content_is_another_sample(sweep: MakeSweep) -> None:
    texts = [[{"role": "user", "content": f"question {at}"}] for at in range(100)]
    changed = [*texts[:99], [{"role": "user", "content": "question 99!"}]]
    first = sweep(cell(rows_of(A, messages=texts)))
    second = sweep(cell(rows_of(B, messages=changed, target=["u", *["t"] * 99])), digest="d2")
    [found] = compared(first, second, common=True).compared
    assert found.result.n == 98
    assert found.changed == 2
    assert "left out: 2 samples with the same id and other content" in found.notes


def test_runs_are_matched_by_their_place_in_the_matrix(sweep: MakeSweep) -> None:
    first = sweep(cell(rows_of(A), prompt="x"), cell(rows_of(B), prompt="y"), cell(rows_of(A), prompt="old"))
    second = sweep(cell(rows_of(A), prompt="y"), cell(rows_of(A), prompt="x"), cell(rows_of(A), prompt="new"))
    found = compared(first, second)
    assert [(each.a.prompt, each.b.prompt) for each in found.compared] == [("x", "x"), ("y", "y")]
    assert {run.prompt for run in found.unmatched} == {"old", "new"}
    assert "without a partner: m-old-d, m-new-d" in found.notes[0]


def test_a_changed_parameter_is_still_the_same_place_and_is_named(sweep: MakeSweep) -> None:
    first, second = sweep(cell(rows_of(A), temperature=0)), sweep(cell(rows_of(B), temperature=0.7))
    [found] = compared(first, second).compared
    assert found.differs == ("temperature 0 / 0.7",)


def test_another_text_of_the_same_prompt_is_named(sweep: MakeSweep) -> None:
    first, second = sweep(cell(rows_of(A))), sweep(cell(rows_of(B)), prompts={"p": {"digest": "new"}})
    [found] = compared(first, second).compared
    assert found.differs == ("text of prompt p",)
    other = sweep(cell(rows_of(B)), prompts={"p": {"digest": "new"}}, digest="d2")
    [found] = compared(first, other, common=True).compared
    assert "the prompts differ, so only ids and targets show that samples are the same" in found.notes


@pytest.mark.parametrize("first", [True, False])
def test_rows_that_only_one_run_has_are_said_whichever_it_is(sweep: MakeSweep, first: bool) -> None:
    whole, half = sweep(cell(rows_of(A))), sweep(cell(rows_of(A[:50])))
    [found] = compared(*((whole, half) if first else (half, whole))).compared
    counts = (50, 0) if first else (0, 50)
    assert (found.only_a, found.only_b) == counts
    assert "in one run only, left out: {} of the first, {} of the second".format(*counts) in found.notes


def test_runs_without_a_sample_in_common_say_so(sweep: MakeSweep) -> None:
    first, second = sweep(cell(rows_of(A))), sweep(cell(rows_of(B, [f"r{at}" for at in range(100)])))
    [found] = compared(first, second).compared
    assert found.result.n == 0
    assert found.verdict.word == "inconclusive"
    assert "no sample id is in both runs" in found.notes


def test_single_runs_of_two_models_are_compared(sweep: MakeSweep) -> None:
    [found] = compared(sweep(cell(rows_of(A), model="one")), sweep(cell(rows_of(B), model="two"))).compared
    assert found.differs == ("model one / two",)


def test_two_runs_of_one_sweep(sweep: MakeSweep, store: Store) -> None:
    folder = sweep(cell(rows_of(A), model="one"), cell(rows_of(B), model="two"))
    chosen = [choose(store, f"s/{run}") for run in ("one-p-d", "two-p-d")]
    [found] = compare(chosen).compared
    assert found.result.discordant == (15, 30)
    with pytest.raises(UserError, match="Did you mean 'one-p-d'"):
        choose(store, "s/one-p-e")
    with pytest.raises(UserError, match="no sweep"):
        choose(store, "nothing/one-p-d")
    by_path = choose(store, str(folder.path))
    assert by_path.run is None


def test_p_values_are_corrected_over_everything_compared(sweep: MakeSweep) -> None:
    first = sweep(*(cell(rows_of(A), prompt=f"p{at}") for at in range(4)))
    second = sweep(*(cell(rows_of(B), prompt=f"p{at}") for at in range(4)))
    p = stats.binomtest(15, 45).pvalue
    by_holm, by_bh, plain = (compared(first, second, correction=how) for how in ("holm", "bh", "none"))
    assert [each.p_corrected for each in by_holm.compared] == pytest.approx([4 * p] * 4)
    assert [each.p_corrected for each in by_bh.compared] == pytest.approx([p] * 4)
    assert by_holm.tests == 4
    assert {each.verdict.word for each in by_holm.compared} == {"inconclusive"}
    assert {each.verdict.word for each in plain.compared} == {"better"}


def test_latency_leaves_out_what_was_not_sent_now(sweep: MakeSweep) -> None:
    rng = np.random.default_rng(1)
    times = rng.exponential(size=100) + 0.2
    cached = [at < 10 for at in range(100)]
    warmup = [10 <= at < 14 for at in range(100)]
    first = sweep(cell(rows_of(A, e2e_s=times.tolist(), completion_tokens=[5] * 100)))
    second = sweep(
        cell(
            rows_of(
                A, e2e_s=(times + 0.1).tolist(), cached=cached, warmup=warmup, completion_tokens=[7] * 100
            )
        )
    )
    found = compared(first, second, metrics=("performance.e2e_s.mean", "completion_tokens"))
    latency, tokens = found.compared
    assert (latency.result.n, latency.result.dropped) == (86, 14)
    assert latency.result.difference == pytest.approx(0.1)
    assert latency.verdict.word == "worse"
    assert any("too narrow" in note for note in latency.notes)
    assert tokens.result.n == 100
    assert tokens.verdict.word == "higher"


def test_failures_can_be_compared_too(sweep: MakeSweep) -> None:
    first, second = sweep(cell(rows_of([1] * 50))), sweep(cell(rows_of([1] * 40 + [None] * 10)))
    [found] = compared(first, second, metrics=("error_rate",)).compared
    assert found.result.difference == pytest.approx(0.2)
    assert found.verdict.word == "worse"


def test_an_unknown_metric_names_the_nearest(sweep: MakeSweep) -> None:
    first, second = sweep(cell(rows_of(A))), sweep(cell(rows_of(B)))
    with pytest.raises(UserError, match="Did you mean 'exact_match'"):
        compared(first, second, metrics=("exact_mach",))


def test_unparsed_answers_leave_where_the_suite_says_so(sweep: MakeSweep) -> None:
    status = ["unparsed"] * 30 + ["scored"] * 70
    first, second = (sweep(cell(rows_of(scores, status=status))) for scores in (A, B))
    assert compared(first, second).compared[0].result.n == 100
    unlike = "one suite counts unparsed answers as wrong, the other leaves them out"
    for folder, noted in ((first, True), (second, False)):
        folder.finish_run("m-p-d", {**folder.read_run("m-p-d"), "details": {"unparsed": "exclude"}})
        [found] = compared(first, second).compared
        assert found.result.n == 70
        assert (unlike in found.notes) is noted


def test_the_margin_reaches_the_verdict(sweep: MakeSweep) -> None:
    scores = np.random.default_rng(3).integers(0, 2, 2000)
    again = scores.copy()
    again[:6] = 1 - again[:6]
    [found] = compared(sweep(cell(rows_of(scores))), sweep(cell(rows_of(again))), margin=0.02).compared
    assert found.verdict.word == "equivalent"
    with pytest.raises(UserError, match="above 0"):
        compared(sweep(cell(rows_of(A))), margin=-1.0)


def test_more_than_two_are_compared_with_the_first(sweep: MakeSweep) -> None:
    folders = [sweep(cell(rows_of(scores))) for scores in (A, B, 1 - A)]
    found = compared(*folders)
    assert [each.b.sweep for each in found.compared] == [folders[1].ulid, folders[2].ulid]
    assert {each.a.sweep for each in found.compared} == {folders[0].ulid}


# Figures of a whole run


LABELS = ["bug", "account", "other"]


def labelled(rng: np.random.Generator, accuracy: float) -> list[Row]:
    targets = [LABELS[at % 3] for at in range(200)]
    answers = [each if rng.random() < accuracy else str(rng.choice(LABELS)) for each in targets]
    scores = [answer == target for answer, target in zip(answers, targets, strict=True)]
    made = rows_of(scores, answer=answers, target=targets)
    return [{**row, "scores": {"classification": row["scores"]["exact_match"]}} for row in made]


def test_a_corpus_figure_is_compared_by_a_paired_bootstrap(sweep: MakeSweep) -> None:
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(7)
    rows = [labelled(rng, 0.5), labelled(rng, 0.8)]
    suite = {"resolved": {"scorers": [{"classification": {"labels": LABELS}}]}}
    metric = {
        "name": "classification.f1_macro",
        "value": 0.5,
        "n": 200,
        "unit": "fraction",
        "direction": "higher",
    }
    folders = []
    for each in rows:
        folder = sweep(cell(each), suite=suite)
        folder.finish_run("m-p-d", {**folder.read_run("m-p-d"), "metrics": [metric]})
        folders.append(folder)
    figure, accuracy = compared(
        *folders, metrics=("classification.f1_macro", "classification.accuracy")
    ).compared
    expected = [
        f1_score([r["target"] for r in each], [r["answer"] for r in each], average="macro") for each in rows
    ]
    assert (figure.result.mean_a, figure.result.mean_b) == pytest.approx(tuple(expected))
    assert figure.result.test == "paired-bootstrap"
    assert figure.result.ci_low < expected[1] - expected[0] < figure.result.ci_high
    assert figure.verdict.word == "better"
    assert accuracy.metric == "classification.accuracy"
    assert accuracy.result.test == "mcnemar-exact"
    # Macro F1 of balanced classes is near accuracy, and so must be their intervals.
    assert figure.result.ci_low == pytest.approx(accuracy.result.ci_low, abs=0.03)


def test_rank_correlations_are_compared_and_not_by_pearsons(sweep: MakeSweep) -> None:
    rng = np.random.default_rng(9)
    target = rng.lognormal(size=150)
    answers = [target * rng.lognormal(0, spread, 150) for spread in (1.5, 0.4)]
    suite = {"resolved": {"scorers": [{"correlation": {}}]}}
    name = "correlation.spearman"
    metric = {"name": name, "value": 0.5, "n": 150, "unit": "correlation", "direction": "higher"}
    folders = []
    for answer in answers:
        scores = [
            {
                "correlation": abs(float(a - t)),
                "correlation.answer": float(a),
                "correlation.target": float(t),
            }
            for a, t in zip(answer, target, strict=True)
        ]
        rows = [{**row, "scores": own} for row, own in zip(rows_of([1] * 150), scores, strict=True)]
        folder = sweep(cell(rows), suite=suite)
        folder.finish_run("m-p-d", {**folder.read_run("m-p-d"), "metrics": [metric]})
        folders.append(folder)
    [found] = compared(*folders, metrics=(name,)).compared
    expected = [stats.spearmanr(answer, target).statistic for answer in answers]
    assert (found.result.mean_a, found.result.mean_b) == pytest.approx(tuple(expected))
    assert found.result.ci_low < expected[1] - expected[0] < found.result.ci_high
    assert found.verdict.word == "better"
    drawn = []
    for _ in range(300):
        rows = rng.integers(150, size=150)
        one, other = (stats.spearmanr(answer[rows], target[rows]).statistic for answer in answers)
        drawn.append(other - one)
    assert found.result.se == pytest.approx(np.std(drawn), rel=0.15)


def test_repeats_do_not_narrow_a_corpus_figure(sweep: MakeSweep) -> None:
    suite = {"resolved": {"scorers": [{"classification": {"labels": LABELS}}]}}
    metric = {
        "name": "classification.f1_macro",
        "value": 0.5,
        "n": 200,
        "unit": "fraction",
        "direction": "higher",
    }

    def once_and_copied(copies: int) -> Any:
        folders = []
        for seed, accuracy in ((1, 0.5), (2, 0.6)):
            rows = labelled(np.random.default_rng(seed), accuracy)
            folder = sweep(cell([{**row, "repeat": k} for k in range(copies) for row in rows]), suite=suite)
            folder.finish_run("m-p-d", {**folder.read_run("m-p-d"), "metrics": [metric]})
            folders.append(folder)
        return compared(*folders, metrics=("classification.f1_macro",)).compared[0].result

    assert once_and_copied(8) == once_and_copied(1)


def test_percentiles_and_single_figures(sweep: MakeSweep) -> None:
    rng = np.random.default_rng(9)
    times = rng.exponential(size=400) + 0.2
    speed = {
        "name": "performance.requests_per_s",
        "value": 4.0,
        "n": 1,
        "unit": "requests/s",
        "direction": "higher",
    }
    folders = []
    for factor in (1.0, 1.5):
        folder = sweep(cell(rows_of([1] * 400, e2e_s=(times * factor).tolist())))
        folder.finish_run(
            "m-p-d", {**folder.read_run("m-p-d"), "metrics": [{**speed, "value": 4.0 / factor}]}
        )
        folders.append(folder)
    p95, rate = compared(*folders, metrics=("performance.e2e_s.p95", "performance.requests_per_s")).compared
    assert p95.result.mean_a == pytest.approx(np.quantile(times, 0.95))
    assert p95.result.ci_low < 0.5 * np.quantile(times, 0.95) < p95.result.ci_high
    assert p95.verdict.word == "worse"
    assert rate.result.difference == pytest.approx(4 / 1.5 - 4)
    assert rate.result.p is None
    assert rate.verdict.word == "inconclusive"
    assert "one figure a run" in rate.verdict.sentence


# One sweep within itself


def grid(effect_of_prompt: float, effect_of_temperature: float, n: int = 150) -> list[Cell]:
    """Two models, three prompts, two temperatures; samples of different difficulty."""
    rng = np.random.default_rng(5)
    ease = rng.random(n)
    cells = []
    for model in ("one", "two"):
        for at, prompt in enumerate(("plain", "polite", "long")):
            for temperature in (0, 0.7):
                chance = ease * 0.5 + 0.2 + effect_of_prompt * at + effect_of_temperature * (temperature > 0)
                scores = (rng.random(n) < chance).astype(int)
                cells.append(
                    cell(rows_of(scores), model=model, prompt=prompt, temperature=temperature, top_p=1)
                )
    return cells


def test_axes_that_moved_the_metric_are_found_and_others_are_not(sweep: MakeSweep) -> None:
    found = compared(sweep(*grid(0.12, 0.0), swept={"temperature": [0, 0.7]}))
    effects = {each.axis: each for each in found.effects}
    assert set(effects) == {"model", "prompt", "temperature"}
    assert effects["prompt"].cells == 4
    assert effects["prompt"].n == 150  # samples, not samples times cells
    assert effects["prompt"].levels[2].verdict.word == "better"
    assert effects["prompt"].levels[2].against_first.difference == pytest.approx(0.24, abs=0.07)
    means = [level.mean.value for level in effects["prompt"].levels]
    assert (
        effects["prompt"].spread == pytest.approx(max(means) - min(means)) and effects["prompt"].spread > 0.15
    )
    assert effects["model"].levels[1].verdict.word == "inconclusive"
    assert effects["temperature"].levels[1].verdict.word == "inconclusive"
    assert found.tests == 4


def test_an_axis_is_paired_over_cells_that_all_its_values_have(sweep: MakeSweep) -> None:
    cells = grid(0.0, 0.0)[:-1]  # the last combination of temperature 0.7 is missing
    effects = {each.axis: each for each in compared(sweep(*cells, swept={"temperature": [0, 0.7]})).effects}
    assert effects["temperature"].cells == 5
    assert "1 combination that" in effects["temperature"].note
    assert effects["model"].cells == 5


def test_a_sweep_in_which_nothing_can_be_told_apart(sweep: MakeSweep) -> None:
    found = compared(sweep(*grid(0.0, 0.0), swept={"temperature": [0, 0.7]}))
    [standing] = found.standings
    assert all(place.tied for place in standing.places)
    assert standing.sentence == "the 12 runs are tied on 150 samples"
    for each in found.sensitivity:
        assert each.p > 0.05
        assert each.gap_low < 0 < each.gap_high
        assert each.sd_beyond_chance < 0.04


def test_prompt_sensitivity_names_best_and_worst(sweep: MakeSweep) -> None:
    found = compared(sweep(*grid(0.15, 0.0), swept={"temperature": [0, 0.7]}))
    assert [each.model for each in found.sensitivity] == ["one", "two"]
    for each in found.sensitivity:
        assert [name for name, _ in each.prompts] == ["long", "polite", "plain"]
        assert each.p < 0.01
        assert each.gap_low > 0
        assert each.mean.value == pytest.approx(np.mean([estimate.value for _, estimate in each.prompts]))
        assert 0.1 < each.sd_beyond_chance <= each.sd < 0.2


def test_a_standing_uses_the_samples_that_all_runs_have(sweep: MakeSweep) -> None:
    few = [None if at < 20 else 1 for at in range(100)]
    folder = sweep(cell(rows_of(A), model="one"), cell(rows_of(few), model="two"))
    [standing] = compared(folder).standings
    assert standing.n == 80
    assert "20 that not all runs have" in standing.sentence
    assert standing.places[0].run.model == "two"
    assert standing.places[0].behind == 0


def clustered_rows(rng: np.random.Generator, clusters: bool = True) -> list[Row]:
    """200 samples in 20 clusters of which all samples have the same score."""
    names = [f"t{at // 10}" for at in range(200)]
    return rows_of(np.repeat(rng.integers(0, 2, 20), 10), **({"cluster": names} if clusters else {}))


def test_within_one_sweep_clusters_are_the_units_too(sweep: MakeSweep) -> None:
    def cells(clusters: bool) -> list[Cell]:
        rng = np.random.default_rng(4)
        return [cell(clustered_rows(rng, clusters), model=model, prompt=p) for model in "xy" for p in "pq"]

    plain, clustered = compared(sweep(*cells(False))), compared(sweep(*cells(True)))
    for one, other in zip(plain.standings[0].places, clustered.standings[0].places, strict=True):
        assert other.mean.value == pytest.approx(one.mean.value)
        assert other.mean.se > 2.5 * one.mean.se, "ten times as many samples as there are clusters"
    for effects, units in ((plain.effects, None), (clustered.effects, 20)):
        assert {each.axis for each in effects} == {"model", "prompt"}
        assert [each.levels[1].against_first.n_clusters for each in effects] == [units] * 2
    for before, after in zip(plain.sensitivity, clustered.sensitivity, strict=True):
        assert after.gap_high - after.gap_low > 2 * (before.gap_high - before.gap_low)


def test_an_axis_over_two_datasets_keeps_their_clusters_apart(sweep: MakeSweep) -> None:
    rng = np.random.default_rng(6)
    cells = []
    for model in ("one", "two"):
        cells.append(cell(clustered_rows(rng), model=model, dataset="grouped"))
        cells.append(cell(clustered_rows(rng), model=model, dataset="again"))
        cells.append(cell(rows_of(rng.integers(0, 2, 50)), model=model, dataset="single"))
    [effect] = compared(sweep(*cells)).effects
    assert effect.axis == "model"
    assert (effect.n, effect.levels[1].against_first.n_clusters) == (450, 20 + 20 + 50)


def test_one_run_alone_cannot_be_compared(sweep: MakeSweep) -> None:
    with pytest.raises(UserError, match="cannot be compared with itself"):
        compared(sweep(cell(rows_of(A))))


# What is made of it


def test_the_document_is_json_and_names_everything(sweep: MakeSweep) -> None:
    found = compared(sweep(cell(rows_of(A), t=0)), sweep(cell(rows_of(B), t=0)))
    document = orjson.loads(orjson.dumps(found.document()))
    [entry] = document["comparisons"]
    assert entry["metric"] == "exact_match"
    assert entry["discordant"] == [15, 30]
    assert entry["b"]["params"] == {"t": 0}
    assert len(entry["flips"]["won"]) == 30
    within = compared(sweep(*grid(0.1, 0.0), swept={"temperature": [0, 0.7]})).document()
    within = orjson.loads(orjson.dumps(within))
    assert len(within["standings"][0]["places"]) == 12
    assert within["sensitivity"][0]["best"] == "long"
    assert within["effects"][0]["levels"][0]["against_first"] is None


def test_table_and_markdown_fit_and_escape(
    sweep: MakeSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ids = [f"id|{at:03d}*" for at in range(100)]
    model = "a-model-with-a-rather-long-name-of-sixty-characters-and-more-x"
    first, second = (sweep(cell(rows_of(scores, ids), model=model)) for scores in (A, B))
    found = compared(first, second)
    print_comparison(found)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown
    assert "better" in shown
    markdown = comparison_markdown(found)
    assert "id\\|045\\*" in markdown
    [row] = [line for line in markdown.splitlines() if line.startswith(f"| {model}")]
    assert row.count(" | ") == 5


def test_from_python(sweep: MakeSweep, store: Store) -> None:
    first, second = sweep(cell(rows_of(A)), name="first"), sweep(cell(rows_of(B)), name="second")
    found = evalrun.compare("first", "second", store=store.root, metrics=["exact_match"], correction="none")
    assert found.compared[0].verdict.word == "better"
    assert f" of {second.ulid} against {first.ulid}: better, " in str(found), "both are the same run"
    opened = [evalrun.open_store(store.root).sweep(folder.ulid) for folder in (first, second)]
    assert evalrun.compare(*opened).compared[0].result == found.compared[0].result
    runs = [each.runs[0] for each in opened]
    assert evalrun.compare(*runs).compared[0].result == found.compared[0].result


def test_a_pilot_says_what_a_plan_will_see(sweep: MakeSweep) -> None:
    """Ten in a hundred disagree, evenly: 500 samples see what simulation finds four times in five."""
    a = np.array([1] * 60 + [0] * 40)
    b = np.array([1] * 55 + [0] * 5 + [1] * 5 + [0] * 35)
    pilot = runs_of(sweep(cell(rows_of(a), "a"), cell(rows_of(b), "b")))
    (power,) = planned_power(pilot, {"d": (500, 2), "other": (10, 2)})
    seen = power.detectable or 0
    drawn = np.random.default_rng(1).multinomial(500, [0.05, 0.05 + seen, 0.9 - seen], size=400)
    found = [stats.binomtest(int(x), int(x + y)).pvalue <= 0.05 for x, y, _ in drawn.tolist()]
    assert 0.75 <= np.mean(found) <= 0.88
    assert (power.independent or 0) > seen
    assert (power.needed, power.tests) == (508, 1)
    assert "500 samples see a difference in exact_match" in power.sentence
    (of_many,) = planned_power(pilot, {"d": (500, 8)})
    assert of_many.tests == 28
    assert (of_many.detectable or 0) > seen
    (alone,) = planned_power(pilot[:1], {"d": (500, 2)})
    assert (alone.detectable, alone.independent) == (None, pytest.approx(power.independent, abs=0.02))


def test_bounds_of_several_metrics_hold_together(sweep: MakeSweep) -> None:
    """Sixteen against five of a hundred is p = 0.027: one test alone sees it, two together do not."""
    first, second = np.ones(100), np.ones(100)
    first[:5], second[5:21] = 0, 0
    noise = np.tile([1.0, 0.0], 50)
    rows = [rows_of(values) for values in (first, second)]
    for mine in rows:
        for row, other in zip(mine, noise if mine is rows[0] else noise[::-1], strict=True):
            row["scores"]["other"] = float(other)
    a, b = (sweep(cell(mine)) for mine in rows)
    alone = compared(a, b, metrics=("exact_match",)).compared[0]
    together = compared(a, b, metrics=("exact_match", "other")).compared[0]
    assert alone.verdict.word == "worse"
    assert (alone.result.ci_high or 0) < 0
    assert together.verdict.word == "inconclusive"
    assert together.result.ci_high is not None
    assert together.result.ci_high >= 0
    assert (together.result.mde or 0) > (alone.result.mde or 1)
    assert "2 tests at once" in together.verdict.sentence


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("repeated", [False, True])
def test_where_it_broke_is_the_same_of_samples_that_were_read_and_of_their_file(
    sweep: MakeSweep, clustered: bool, repeated: bool
) -> None:
    rng = np.random.default_rng(5)
    n = 160
    ids = [f"q{at:04d}" for at in rng.permutation(n)]
    team = [("a", "b", "c", None)[at % 4] for at in range(n)]
    row = {
        "vars": [
            {"team": each, "text": f"{at} " + "x" * (at % 70), "level": at % 3}
            for at, each in enumerate(team)
        ],
        "cluster": [f"c{at // 8}" if at < 80 else None for at in range(n)] if clustered else None,
    }
    rows = rows_of([1.0] * n, ids, **row)
    again = [{**each, "repeat": 1, "position": n + at} for at, each in enumerate(rows)] if repeated else []
    (run,) = runs_of(sweep(cell([*rows, *again]), name="s"))
    path = run.folder.samples_path(run.run.run)
    samples = np.sort(rng.permutation(n)[: n - 20])
    worse = {name for name, each in zip(ids, team, strict=True) if each == "b"}
    affected = np.array([name in worse for name in run.ids[samples]])
    told = concentrations_of(run, samples, affected)
    assert told == concentrations(path, worse & {*run.ids[samples]}, {*run.ids[samples]})
    assert ("team", "b") in [(each.column, each.value) for each in told]
