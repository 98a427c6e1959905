"""Labels of people: read, kept, compared with scores; and the worst rows as a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.nights import PLAN, RUN, night

from evalrun.analysis.feedback import Worst, kappa, label, rank_correlation, worst_rows
from evalrun.errors import UserError
from evalrun.tracking import changes
from evalrun.tracking.audit import verify
from evalrun.tracking.people import LabelColumns
from evalrun.tracking.store import Store
from evalrun.tracking.targets import Target


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=60))
def test_kappa_is_that_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    from sklearn.metrics import cohen_kappa_score

    first, second = ([pair[at] for pair in pairs] for at in (0, 1))
    found = kappa(first, second)
    if len({*first, *second}) == 1:
        assert found.value is None and found.note
    else:
        assert found.value == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
        assert found.ci_low is None or found.ci_low <= found.value <= found.ci_high  # type: ignore[operator]


def test_the_interval_of_kappa_is_that_of_the_published_formula_for_many() -> None:
    # Fleiss, Cohen and Everitt (1969): 200 cases, three categories; kappa 0.429, its variance 0.002885.
    table = np.array([[106, 10, 4], [22, 28, 10], [2, 12, 6]])
    for times, tolerance in ((1, 0.15), (100, 0.002)):
        pairs = [
            (one, other)
            for one, row in zip("abc", (table * times).tolist(), strict=True)
            for other, count in zip("abc", row, strict=True)
            for _ in range(count)
        ]
        found = kappa([one for one, _ in pairs], [other for _, other in pairs])
        assert found.value == pytest.approx(0.429, abs=5e-4)
        assert found.ci_low is not None and found.ci_high is not None
        variance = ((found.ci_high - found.ci_low) / 2 / 1.959964) ** 2
        assert variance * times == pytest.approx(0.002885, rel=tolerance)


def test_full_agreement_of_a_few_is_not_certain() -> None:
    found = kappa(["a", "b"] * 5, ["a", "b"] * 5)
    assert (found.value, found.ci_high) == (1.0, 1.0)
    assert found.ci_low is not None and 0 < found.ci_low < 0.9


def test_rank_correlation_is_that_of_scipy() -> None:
    from scipy.stats import spearmanr

    random = np.random.default_rng(4)
    x = random.integers(0, 5, 80).astype(float)
    y = x + random.normal(0, 2, 80)
    found = rank_correlation(x, y)
    assert found.value == pytest.approx(spearmanr(x, y).statistic)
    assert found.ci_low < found.value < found.ci_high  # type: ignore[operator]
    assert rank_correlation(x, np.ones(80)).value is None


def _file(tmp_path: Path, text: str, name: str = "feedback.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_ratings_are_kept_verified_and_compared_with_scores(store: Store, tmp_path: Path) -> None:
    folder = night(store, [1, 1, 0, 0] * 5)
    rows = [f"s{at:05},{'good' if at % 4 < 2 else 'bad'}" for at in range(19)] + ["unknown,good", "s00019,"]
    file = _file(tmp_path, "sample_id,verdict\n" + "\n".join(rows))
    done = label(store, Target(folder, RUN), file, LabelColumns("verdict"))
    assert (done.kind, done.n, done.unknown) == ("binary", 19, ("unknown",))
    (agreement,) = done.agreement
    assert (agreement["measure"], agreement["value"], agreement["share"]) == ("kappa", 1.0, 1.0)

    store.reindex()
    (kept,) = changes.said(folder).labels
    assert (kept.column, kept.n, kept.target) == ("verdict", 19, RUN)
    assert verify(store).broken == []
    path = folder.path / kept.file
    path.write_bytes(path.read_bytes().replace(b"bad", b"good", 1))
    assert [each.what for each in verify(store).broken] == ["was altered after it was kept"]


def test_names_of_classes_are_compared_with_answers_and_ratings_by_rank(store: Store, tmp_path: Path) -> None:
    folder = night(store, [1, 1, 0, 0] * 5)  # answers yes, yes, no, no, …
    rows = [
        {"sample_id": f"s{at:05}", "right": "maybe" if at == 0 else "yes", "stars": 5 - at % 4}
        for at in range(8)
    ]
    file = _file(tmp_path, "\n".join(map(json.dumps, rows)), "feedback.jsonl")
    classes = label(store, Target(folder), file, LabelColumns("right"))
    assert (classes.kind, classes.agreement[0]["score"], classes.agreement[0]["share"]) == (
        "class",
        "answer",
        3 / 8,
    )
    stars = label(store, Target(folder), file, LabelColumns("stars"))
    assert (stars.kind, stars.agreement[0]["measure"]) == ("number", "spearman")
    assert stars.agreement[0]["value"] > 0.8


def test_a_rating_of_several_runs_must_say_which(store: Store, tmp_path: Path) -> None:
    folder = night(store, [1, 0], plan=[*PLAN, {**PLAN[0], "run": "n-p-d", "model": "n"}])
    import shutil

    shutil.copytree(folder.path / "runs" / RUN, folder.path / "runs" / "n-p-d")
    document = json.loads((folder.path / "runs" / "n-p-d" / "run.json").read_text())
    (folder.path / "runs" / "n-p-d" / "run.json").write_text(json.dumps({**document, "run": "n-p-d"}))
    with pytest.raises(UserError, match="2 runs have an answer to 's00000'"):
        label(store, Target(folder), _file(tmp_path, "sample_id,rating\ns00000,1\n"), LabelColumns("rating"))
    named = _file(tmp_path, f"sample_id,rating,run\ns00000,1,{RUN}\n")
    assert label(store, Target(folder), named, LabelColumns("rating")).n == 1
    strange = _file(tmp_path, "sample_id,rating,run\ns00000,1,other\n")
    with pytest.raises(UserError, match="no run 'other'"):
        label(store, Target(folder), strange, LabelColumns("rating"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,rating\ns00000,1\n", "no 'sample_id'"),
        ("sample_id,stars\ns00000,1\n", "no row has a 'rating'"),
        ("sample_id,rating\nzzz,1\n", "none of the 1 labels has the id"),
        ("sample_id,rating\ns00000,1,7\n", "3 cells"),
    ],
)
def test_files_that_do_not_fit_are_said_to(store: Store, tmp_path: Path, text: str, said: str) -> None:
    folder = night(store, [1, 0])
    with pytest.raises(UserError, match=said):
        label(store, Target(folder), _file(tmp_path, text), LabelColumns("rating"))
    assert changes.said(folder).labels == () and not (folder.path / "labels").exists()


def test_the_worst_rows_are_a_dataset(store: Store, tmp_path: Path) -> None:
    folder = night(store, [1, 1, 0, 0] * 5)
    rows = "".join(f"s{at:05},{5 - at}\n" for at in range(5)) + "s00004,3\n"
    label(store, Target(folder), _file(tmp_path, "sample_id,rating\n" + rows), LabelColumns("rating"))
    done = worst_rows(store, Target(folder), Worst(2), tmp_path / "out" / "worst.jsonl")
    assert (done.rows, done.rated, done.by) == (2, 5, "rating")
    found = [json.loads(line) for line in (tmp_path / "out" / "worst.jsonl").read_text().splitlines()]
    assert [(row["sample_id"], row["rating"]) for row in found] == [("s00003", 2.0), ("s00004", 2.0)]
    assert found[0] == {
        "sample_id": "s00003", "rating": 2.0, "q": "question 3", "target": "yes", "group": "y",
    }  # fmt: skip
    assert folder.last_event()["action"] == "export"  # type: ignore[index]
    by_score = worst_rows(store, Target(folder), Worst(3, score="exact_match"), tmp_path / "w.jsonl")
    assert (by_score.rows, by_score.rated) == (3, 20)
    with pytest.raises(UserError, match="no ratings called 'x'"):
        worst_rows(store, Target(folder), Worst(3, column="x"), tmp_path / "w.jsonl")
    with pytest.raises(UserError, match="no score 'bleu'"):
        worst_rows(store, Target(folder), Worst(3, score="bleu"), tmp_path / "w.jsonl")
