"""Judges in the report: figures of known grades, what is said of them, and hostile text of a judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from sweep_data import Cell, make_sweep

from evalrun.reports.advice import CHECK_THE_JUDGE
from evalrun.reports.cautions import ALL_WORST, ALL_WRONG
from evalrun.reports.judges import JudgesView, alpha_words, kappa_words, order_words
from evalrun.reports.report import Report, build_report, write_report
from evalrun.reports.source import Source
from evalrun.reports.view import words
from evalrun.tracking.folder import SweepFolder

N = 40
ONE = [Cell("m", "p", e2e_s=None)]
BAD = "</td><script>window.hurt=1</script>\u202e \x00"


def graded(parts: Any, name: str = "judge", value: Any = None, reason: Any = None) -> Any:
    """A change of sample_data's records: the parts of a judge's score by position; None leaves them out."""

    def change(record: dict[str, Any], _: Any) -> dict[str, Any]:
        at = record["position"]
        found = {"unscored": 0.0, "reasked": 0.0, **parts(at)}
        score = found["grade"] if value is None else value(at)
        scores = {name: score, **{f"{name}.{part}": each for part, each in found.items()}}
        said = {name: "why" if reason is None else reason(at)}
        return {**record, "status": "scored", "output": "x", "error": None, "scores": scores, "reasons": said}

    return change


def sweep(root: Path, options: dict[str, Any], change: Any, cells: Any = ONE, n: int = N) -> SweepFolder:
    return make_sweep(root, cells, n=n, by=(), scorers=[{"judge": options}], change=change)


def report(*args: Any, **options: Any) -> Report:
    return build_report(Source.of(sweep(*args, **options)))


def only(found: Report) -> JudgesView:
    (view,) = found.judges
    return view


def right(at: int) -> dict[str, Any]:
    """correct, correct, incorrect, correct, …; a person says otherwise of every fourth; 39 has none."""
    grade = float(at % 3 == 2)
    person = 1 - grade if at % 4 == 0 else grade
    if at == N - 1:
        return {"grade": None, "human": person, "unscored": 1.0, "reasked": 1.0}
    return {"grade": grade, "human": person}


def test_shares_of_each_grade_and_of_none(tmp_path: Path) -> None:
    change = graded(right, value=lambda at: None if at == N - 1 else float(at % 3 != 2))
    view = only(report(tmp_path, {"model": ["j"], "human": "grade"}, change))
    assert view.grades == ["correct", "incorrect", "no grade"]
    (row,) = view.shares
    incorrect = sum(at % 3 == 2 for at in range(N - 1))
    assert [cell.count for cell in row.cells] == [str(N - 1 - incorrect), str(incorrect), "1"]
    assert [cell.text for cell in row.cells] == ["0.65", "0.33", "0.03"]
    assert row.cells[2].interval == "[0.00, 0.13]", "Wilson, 1 of 40"
    assert (row.judge, row.n) == ("j", "40")
    assert view.who == "j grades the raw output as one of: correct (1), incorrect (0)."


def test_agreement_with_people_is_that_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.metrics import cohen_kappa_score

    view = only(report(tmp_path, {"model": ["j"], "human": "grade"}, graded(right)))
    judged = [int(right(at)["grade"]) for at in range(N - 1)]
    person = [int(right(at)["human"]) for at in range(N - 1)]
    kappa = next(row for row in view.figures if row.metric == "judge.human.kappa")
    assert kappa.value == f"{cohen_kappa_score(judged, person):.2f}"
    assert kappa.n == "39"
    assert kappa.interval.startswith("[")
    assert kappa.value in view.findings[0] and "moderate agreement" in view.findings[0]
    (table,) = view.crossed
    both = list(zip(person, judged, strict=True))
    counts = [[both.count((a, b)) for b in (0, 1)] for a in (0, 1)]
    assert [list(map(int, row[1:3])) for row in table.rows] == counts
    assert [row[0] for row in table.rows] == ["correct", "incorrect"]


def three(at: int) -> dict[str, Any]:
    """j says what the person says, k is one grade too kind, l knows nothing."""
    person = at % 4
    return {
        "grade": float(person),
        "human": float(person),
        "by.j": float(person),
        "by.k": min(4.0, person + 1.0),
        "by.l": float((at * 7) % 5),
    }


def test_each_judge_alone_and_each_pair(tmp_path: Path) -> None:
    from sklearn.metrics import cohen_kappa_score

    options = {"model": ["j", "k", "l"], "scale": [1, 5], "human": "grade"}
    view = only(report(tmp_path, options, graded(three)))
    columns = {name: [int(three(at)[f"by.{name}"]) for at in range(N)] for name in "jkl"}
    person = [at % 4 for at in range(N)]
    found = {row.what: row for row in view.figures}

    def weighted(one: list[int], other: list[int]) -> str:
        return f"{cohen_kappa_score(one, other, weights='quadratic', labels=range(5)):.2f}"

    assert found["j with people: kappa"].reads == "as close as two people are"
    for name in "kl":
        shown = found[f"{name} with people: kappa"].value.replace("\u2212", "-")
        assert shown == weighted(person, columns[name])
    assert found["j with k: kappa"].value == weighted(columns["j"], columns["k"])
    assert found["l with people: kappa"].reads.startswith(("no", "hardly")), "it knows nothing"
    assert [(row.judge, row.n) for row in view.shares] == [
        (name, "40") for name in ("j", "k", "l", "together")
    ]
    assert [cell.count for cell in view.shares[1].cells] == ["0", "10", "10", "10", "10", "0"]
    assert "Together they give the mean" in view.who


def test_votes_for_two_grades_are_undecided_and_empty_answers_are_asked_of_nobody(tmp_path: Path) -> None:
    def parts(at: int) -> dict[str, Any]:
        if at == 0:  # an answer without text
            return {"grade": 1.0, "by.j": None, "by.k": None}
        if at < 4:
            return {"grade": None, "by.j": 0.0, "by.k": 1.0}
        return {"grade": 0.0, "by.j": 0.0, "by.k": 0.0 if at > 5 else None}

    change = graded(parts, value=lambda at: 0.0 if at == 0 else 0.5 if at < 4 else 1.0)
    view = only(report(tmp_path, {"model": ["j", "k"]}, change))
    assert view.grades == ["correct", "incorrect", "undecided", "no grade"]
    j, k, together = view.shares
    assert [cell.count for cell in together.cells] == ["36", "1", "3", "0"]
    assert together.n == "40"
    assert [cell.count for cell in j.cells] == ["39", "0", "", "0"] and j.n == "39"
    assert [cell.count for cell in k.cells] == ["34", "3", "", "2"] and k.n == "39"


def test_disagreements_are_the_widest_and_open_their_samples(tmp_path: Path) -> None:
    def parts(at: int) -> dict[str, Any]:
        person = {3: 2.0, 7: 4.0, 9: 1.0}.get(at, 0.0)
        return {"grade": 0.0, "human": person, "by.j": 0.0, "by.k": 3.0 if at == 20 else 0.0}

    options = {"model": ["j", "k"], "scale": [1, 5], "human": "grade"}
    view = only(report(tmp_path, options, graded(parts, reason=lambda at: f"because {at} " + "long " * 99)))
    assert [each.sample for each in view.examples] == ["T-00007", "T-00020", "T-00003", "T-00009"]
    first, second = view.examples[:2]
    assert (first.what, first.person, list(first.grades)) == ("person and judge", "5", ["1", "1"])
    assert (second.what, second.person, list(second.grades)) == ("the judges", "1", ["1", "4"])
    assert first.link == "#sample=m-p-tickets/T-00007/0"
    assert first.reason.startswith("because 7 long") and len(first.reason) < 200


def biased(at: int) -> dict[str, Any]:
    turned = at % 4 != 0
    return {"grade": 2.0 if turned else 0.0, "human": None, "first_position": 1.0 if turned else 0.5,
            "inconsistent": float(turned)}  # fmt: skip


def test_pairs_that_the_order_decides(tmp_path: Path) -> None:
    change = graded(biased, value=lambda at: 0.5 if at % 4 else 1.0)
    found = report(tmp_path, {"model": ["j"], "pairwise": {"column": "old"}}, change)
    view = only(found)
    assert view.grades == ["better", "worse", "tie", "no grade"]
    assert [cell.count for cell in view.shares[0].cells] == ["10", "0", "30", "0"]
    assert "compares the raw output with that of the column old, in both orders" in view.who
    said = " ".join(view.findings)
    assert "0.75 [0.60, 0.86] (n = 40): the order decides, not the answers" in said
    assert "prefers the answer that it reads first" in said
    assert {each.what for each in view.examples} == {"the two orders"}
    assert any("No person has graded" in note for note in view.cautions)


def chance(at: int) -> dict[str, Any]:
    return {"grade": float(at % 2), "human": float((at // 2) % 2)}


def test_a_ranking_by_grades_that_are_chance_is_no_advice(tmp_path: Path) -> None:
    cells = [Cell("a", "p", e2e_s=None), Cell("b", "p", e2e_s=None)]
    options = {"model": ["j"], "human": "grade"}
    found = report(tmp_path, options, graded(chance, value=lambda at: float(at % 2)), cells)
    (answer,) = found.answers
    assert words(answer.advice) == CHECK_THE_JUDGE
    assert "agreement with people's grades is no better than chance" in answer.cautions[0]
    view = only(found)
    assert "do not rely on these grades" in view.findings[0]
    assert any("holds one grade a row, and 2 runs" in note for note in view.cautions)


def test_a_judge_that_agrees_with_people_is_believed(tmp_path: Path) -> None:
    def parts(at: int) -> dict[str, Any]:
        return {"grade": float(at % 2), "human": float(at % 2 if at else 1)}

    cells = [Cell("a", "p", e2e_s=None), Cell("b", "p", e2e_s=None)]
    options = {"model": ["j"], "human": "grade"}
    found = report(tmp_path, options, graded(parts, value=lambda at: float(at % 2)), cells)
    assert words(found.answers[0].advice) != CHECK_THE_JUDGE
    assert not any("judge" in caution for caution in found.answers[0].cautions)


def test_the_lowest_grade_for_every_answer_is_said_of_a_judge(tmp_path: Path) -> None:
    def parts(_: int) -> dict[str, Any]:
        return {"grade": 1.0, "human": None}

    found = report(tmp_path / "judge", {"model": ["j"]}, graded(parts, value=lambda _: 0.0))
    assert ALL_WORST in found.answers[0].cautions
    assert ALL_WRONG not in found.answers[0].cautions
    note = "p: every graded answer got the same grade, incorrect. It tells nothing apart."
    assert note in only(found).cautions

    def wrong(record: dict[str, Any], _: Any) -> dict[str, Any]:
        return {**record, "scores": {"exact_match": 0.0}, "status": "scored"}

    plain = make_sweep(tmp_path / "plain", ONE, n=N, by=(), scorers=[{"exact_match": {}}], change=wrong)
    read = build_report(Source.of(plain))
    assert ALL_WRONG in read.answers[0].cautions
    assert not read.judges


def test_what_judges_were_asked_is_summed_over_runs(tmp_path: Path) -> None:
    cells = [Cell("a", "p", e2e_s=None), Cell("b", "p", e2e_s=None)]
    folder = sweep(tmp_path, {"model": ["j"]}, graded(right), cells)
    for at, cell in enumerate(cells):
        path = folder.path / "runs" / cell.run / "run.json"
        document = orjson.loads(path.read_bytes())
        bill = {"scorer": "judge", "model": "j", "requests": 41, "cached": 2 * at, "failed": 0, "unread": 1,
                "asked_again": 1, "prompt_tokens": 1000, "completion_tokens": 10, "usd": 0.25,
                "e2e_s_p50": 0.5 + at}  # fmt: skip
        other = {**bill, "scorer": "embedding", "requests": 7}
        document["details"]["judges"] = [bill, other]
        path.write_bytes(orjson.dumps(document))
    asked = only(build_report(Source.of(folder))).asked
    assert asked is not None
    assert asked.rows == [("j", "82", "2", "0", "2", "2", "2,000", "20", "$0.50", "500 ms to 1.50 s")]


def test_repeats_count_as_one_unit_of_the_interval(tmp_path: Path) -> None:
    """The same samples four times tell no more than once: the interval of a share stays as wide."""

    def repeated(record: dict[str, Any], rng: Any) -> dict[str, Any]:
        at = record["position"]
        made = graded(lambda at: {"grade": float((at // 4) % 2), "human": None})(record, rng)
        return {**made, "sample_id": f"T-{at // 4}", "repeat": at % 4}

    once = graded(lambda at: {"grade": float(at % 2), "human": None})
    wide = only(report(tmp_path / "r", {"model": ["j"]}, repeated, n=80)).shares[0].cells[0]
    plain = only(report(tmp_path / "o", {"model": ["j"]}, once, n=80)).shares[0].cells[0]
    assert (wide.text, plain.text) == ("0.50", "0.50")
    low, high = map(float, wide.interval.strip("[]").split(", "))
    assert high - low > 0.4
    low, high = map(float, plain.interval.strip("[]").split(", "))
    assert high - low < 0.25


def test_kappas_of_repeats_resample_whole_samples(tmp_path: Path) -> None:
    """Each sample four times with the same grades: the value is that of one round, the interval as wide."""

    def repeated(record: dict[str, Any], rng: Any) -> dict[str, Any]:
        at = record["position"]
        made = graded(lambda at: {**three(at // 4), "human": float((at // 8) % 4)})(record, rng)
        return {**made, "sample_id": f"T-{at // 4}", "repeat": at % 4}

    def once(at: int) -> dict[str, Any]:
        return {**three(at), "human": float((at // 2) % 4)}

    options = {"model": ["j", "k", "l"], "scale": [1, 5], "human": "grade"}
    many = only(report(tmp_path / "r", options, repeated, n=160)).figures
    few = only(report(tmp_path / "o", options, graded(once), n=40)).figures
    (left,), (right,) = ([row for row in rows if row.what == "j with people: kappa"] for rows in (many, few))
    assert (left.value, left.n, right.n) == (right.value, "160", "40")
    ends = [[float(each.replace("\u2212", "-")) for each in row.interval.strip("[]").split(", ")]
            for row in (left, right)]  # fmt: skip
    assert ends[0] == pytest.approx(ends[1], abs=0.06)


def test_unparsed_answers_that_are_left_out_of_n_are_left_out_here(tmp_path: Path) -> None:
    def change(record: dict[str, Any], rng: Any) -> dict[str, Any]:
        made = graded(right)(record, rng)
        return {**made, "status": "unparsed" if record["position"] < 10 else "scored"}

    folder = sweep(tmp_path, {"model": ["j"], "human": "grade"}, change)
    assert only(build_report(Source.of(folder))).shares[0].n == "40"
    manifest = folder.read_manifest()
    manifest["suite"]["resolved"]["unparsed"] = "exclude"
    folder.write_manifest(manifest)
    assert only(build_report(Source.of(folder))).shares[0].n == "30"


def test_what_a_judge_writes_stays_text(tmp_path: Path, report_cache: Path) -> None:
    def change(record: dict[str, Any], rng: Any) -> dict[str, Any]:
        made = graded(chance, reason=lambda _: BAD)(record, rng)
        return {**made, "sample_id": f"{BAD}{record['position']}"}

    options = {"model": ["<i>j"], "choices": {"<b>": 1, "</table>": 0}, "human": "grade", "rubric": BAD}
    write_report(sweep(tmp_path / "s", options, change), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    section = page[page.index('<section id="judges">') : page.index('<section id="speed">')]
    assert "<script" not in section and "<b>:" not in section and "<i>" not in section
    assert "&lt;script&gt;window.hurt=1&lt;/script&gt;\u27e8U+202E\u27e9" in section
    assert section.count("</table>") == section.count("<table")
    assert "\u202e" not in section and "\x00" not in section


@pytest.mark.parametrize(
    ("value", "low", "n", "words"),
    [
        (0.05, -0.1, 100, "hardly better than chance; do not rely on these grades"),
        (-0.2, -0.4, 100, "no better than chance; do not rely on these grades"),
        (0.7, 0.6, 100, "good agreement"),
        (0.7, 0.6, 12, "good agreement; n = 12 is small, grade more answers by hand"),
        (0.5, -0.1, 40, "and perhaps chance: the interval reaches 0"),
        (None, None, 40, "no figure"),
    ],
)
def test_kappa_in_words(value: float | None, low: float | None, n: int, words: str) -> None:
    assert words in kappa_words(value, low, n)


def test_alpha_and_order_in_words() -> None:
    assert "too little" in alpha_words(0.6, 50)
    assert "tentative" in alpha_words(0.7, 50)
    assert "not to say that they are right" in alpha_words(0.9, 50)
    assert "do not rely" in order_words(0.5)
    assert order_words(0.1) == "seldom decided by the order"
