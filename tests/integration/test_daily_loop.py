"""The daily loop: change a prompt, run again, look at what that did; by the names that output shows."""

from __future__ import annotations

import csv
import io
import webbrowser
from pathlib import Path

import pytest
from tests.program import evalrun
from tests.recorded import document_of, output_of, recorded_suite, yes_no
from tests.servers import ChatServer


@pytest.fixture
def twice(project: Path) -> Path:
    """A suite of two recorded models that ran twice with the same answers."""
    rows = yes_no([at % 3 > 0 for at in range(60)], other=["yes" if at % 2 else "no" for at in range(60)])
    suite = recorded_suite(project, rows, ["m", "other"])
    for _ in range(2):
        output_of("run", suite, "--quiet", "--no-report")
    return suite


def test_sweeps_and_runs_are_known_by_what_output_shows(twice: Path) -> None:
    latest, before = (document_of("show", name)["sweep"] for name in ("latest", "previous"))
    assert before == document_of("show", "1")["sweep"] == document_of("show", "latest~1")["sweep"] != latest
    for run in ("other", "other/d", f"{latest[-6:]}/other/d", "latest/other-p-d"):
        found = document_of("samples", run, "--limit", "1")
        assert (found["sweep"], found["run"]) == (latest, "other-p-d")
    assert document_of("samples", "previous/m")["sweep"] == before
    [compared] = document_of("compare", "m", "other")["comparisons"]
    assert (compared["a"]["run"], compared["b"]["run"]) == ("m-p-d", "other-p-d")
    done = evalrun("samples", "othr")
    assert done.returncode == 2 and "Did you mean 'other'?" in done.stderr
    done = evalrun("samples", "d")
    assert done.returncode == 2 and "'d' fits 2 runs: m-p-d, other-p-d" in done.stderr


def answers_of(folder: Path, name: str, hits: list[bool], **parts: object) -> Path:
    """A suite with the recorded models `kept`, whose answers never change, and `edited` with these."""
    rows = [
        {
            "id": f"s{at:03d}",
            "want": "yes",
            "kept": "yes" if at % 2 else "no",
            "edited": "yes" if hit else "no",
        }
        for at, hit in enumerate(hits)
    ]
    return recorded_suite(folder, rows, ["kept", "edited"], name=name, **parts)


def test_a_sweep_says_what_became_of_the_one_before(project: Path) -> None:
    first = [at >= 30 for at in range(60)]
    second = [10 <= at < 55 for at in range(60)]  # 20 won, 5 lost
    # What makes a sample is its id: other columns may change.
    prompts = [{"id": "p", "text": "{{ id }}"}]
    assert document_of("run", answers_of(project, "s", first), "--no-report", "-q")["previous"] is None
    output_of("run", answers_of(project, "another", second), "--no-report", "-q")
    suite = answers_of(project, "s", second, prompts=[{**prompts[0], "text": "New: {{ id }}"}])
    done = evalrun("run", suite, "--no-report", "-q")
    assert done.returncode == 0, done.stderr
    line = " ".join(done.stdout.split())
    assert "(1): edited +0.25 [+" in line and "] (better), 20 better, 5 worse;" in line
    assert "; 1 run with the same answers; changed: prompt p, data d" in line
    document = document_of("show", "latest")["previous"]
    compared = document_of("compare", "1", "latest", "--metric", "exact_match", "--common")["comparisons"]
    by_run = {each["run"]: each for each in document["runs"]}
    assert document["number"] == 1 and document["sweep"] == document_of("show", "1")["sweep"]
    for each in compared:
        mine = by_run[each["b"]["run"]]
        for key in ("difference", "ci_low", "ci_high", "verdict", "better", "worse", "n"):
            assert mine[key] == each[key], key
        assert mine["p"] == each["p_corrected"]
    assert (by_run["kept-p-d"]["verdict"], by_run["kept-p-d"]["p"]) == ("unchanged", None)


def test_the_same_answers_need_no_test(twice: Path, project: Path) -> None:
    document = document_of("compare", "previous", "latest")
    assert [each["verdict"] for each in document["comparisons"]] == ["unchanged", "unchanged"]
    assert document["tests"] == 0
    text = output_of("compare", "previous", "latest")
    assert "unchanged" in text and "nothing to test" in text and "cannot see" not in text
    # One changed answer of one run, which leaves its score as it was, makes it a test of one.
    rows = yes_no([at % 3 > 0 for at in range(60)], other=["yes" if at % 2 else "no" for at in range(60)])
    rows[0]["m"] = "never"
    recorded_suite(project, rows, ["m", "other"])
    output_of("run", twice, "--quiet", "--no-report")
    document = document_of("compare", "previous", "latest", "--common")
    verdicts = {each["b"]["model"]: each["verdict"] for each in document["comparisons"]}
    assert verdicts == {"m": "inconclusive", "other": "unchanged"} and document["tests"] == 1


def test_a_suite_made_for_a_file_runs_as_it_stands(project: Path, chat_server: ChatServer) -> None:
    kinds = ("billing", "Delivery ")
    rows = [f"T{at};Where is parcel ${{HOME}} {{{{ {at} }}}}?;{kinds[at % 2]}" for at in range(12)]
    text = "Ticket ID;Message text;Kind \n" + "\n".join([*rows, "T98;no label here;", "T99;another;BILLING"])
    (project / "my tickets.csv").write_text(text, "utf-16")
    chat_server.answer = lambda body: "It is BILLING."
    served = f"my-model@{chat_server.base_url}"
    said = output_of("init", "new", "--data", "my tickets.csv", "--target", "kind", "--model", served)
    assert "14 rows, UTF-16, semicolons between columns" in said and "1 without a target" in said
    document = document_of("new/suite.yaml", "--no-report", "-q")
    [run] = document["runs"]
    values = {metric["name"]: metric["value"] for metric in run["metrics"] if not metric["slice"]}
    assert run["counts"]["scored"] == 13 and values["exact_match"] == pytest.approx(7 / 13)
    assert any("Where is parcel ${HOME} {{ 3 }}?" in asked for asked in chat_server.questions)


def test_a_list_has_numbers_and_scores(twice: Path) -> None:
    first, second = document_of("list")
    assert (first["number"], second["number"]) == (2, 1)
    assert first["best"] == {"run": "m-p-d", "metric": "exact_match", "value": 40 / 60, "unit": "fraction"}
    text = evalrun("list", env={"COLUMNS": "80"}).stdout
    assert "  2  0.67  exact_match" in text and max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("columns", [80, 100])
def test_no_table_is_wider_than_the_terminal(project: Path, columns: int) -> None:
    long = "a-model-whose-name-nobody-would-want-to-type-and-that-goes-on"
    rows = [{"id": f"{long}-{at}", "want": "yes, " * 9, long: "yes, " * (8 + at % 2)} for at in range(9)]
    suite = recorded_suite(project, rows, [long], name=f"sweep-{long}")
    for _ in range(2):
        output_of("run", suite, "-q", "--no-report")
    for words in (
        ["list"], ["show", "latest"], ["find", "metric.exact_match >= 0"], ["samples", long], ["trend"],
        ["compare", "previous", "latest"], ["sql", "select * from runs"], ["audit", "latest"],
        ["plan", suite],
    ):  # fmt: skip
        done = evalrun(*words, env={"COLUMNS": str(columns)})
        assert done.returncode == 0, done.stderr
        assert max(map(len, done.stdout.splitlines())) <= columns, words


@pytest.mark.parametrize(
    ("words", "column", "first"),
    [
        (["list"], "best.value", "0.6666666666666666"),
        (["find", "metric.exact_match > 0.6"], "metrics.exact_match.value", "0.6666666666666666"),
        (["samples", "m", "--limit", "3"], "sample_id", "s0000"),
        (["sql", "select run, count(*) as n from samples group by run order by run"], "n", "120"),
        (["trend"], "value", "0.6666666666666666"),
        (["compare", "previous", "latest"], "verdict", "unchanged"),
        (["compare", "m", "other"], "difference", "-0.16666666666666666"),
        (["compare", "latest"], "run.run", "m-p-d"),
        (["gate", "latest", "--gate", "exact_match >= 0.1"], "verdict", "pass"),
        (["audit", "log", "latest"], "action", "start"),
        (["models", "list"], "name", "smollm2-135m-instruct"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_rows_as_csv(twice: Path, words: list[str], column: str, first: str) -> None:
    [row, *_] = csv.DictReader(io.StringIO(output_of(*words, "--csv")))
    assert row[column] == first
    done = evalrun(*words, "--csv", "--json")
    assert done.returncode == 2 and "exclude one another" in done.stderr


def test_what_changed_as_csv(twice: Path) -> None:
    output_of("baseline", "set", "main", "previous")
    [row] = csv.DictReader(io.StringIO(output_of("baseline", "list", "--csv")))
    assert (row["name"], row["present"]) == ("main", "true")
    twice.write_text(twice.read_text().replace("{{ id }}", "{{ id }} please"))
    data = twice.parent / "rows.jsonl"
    data.write_text(data.read_text().split("\n", 1)[1])
    output_of("run", twice, "-q", "--no-report")
    rows = {row["part"]: row for row in csv.DictReader(io.StringIO(output_of("diff", "main", "--csv")))}
    prompt = rows["prompts"]
    assert (prompt["name"], prompt["before"], prompt["after"]) == ("p.text", "{{ id }}", "{{ id }} please")
    assert (rows["data"]["name"], rows["data"]["after"]) == ("d/s0000", "")
    assert output_of("training", "list", "--csv") == ""


def test_the_report_opens_and_is_written_where_it_is_not(
    twice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: bool(asked.append(url)) or True)
    path = Path(output_of("open", "--print").strip())
    assert path.exists() and not asked
    written = path.stat().st_mtime_ns
    assert output_of("open").strip() == str(path) and asked == [path.resolve().as_uri()]
    assert path.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("prompt", "dataset", "said"),
    [
        ("{{ Message }}", {}, "Did you mean row['Message text']?"),
        ("{{ nothing_alike }}", {}, "Columns: id, row['Message text'], label."),
        ("{{ row['Mesage text'] }}", {}, "Did you mean row['Message text']?"),
        ("{{ Message text }}", {}, "{{ row['Column with blanks'] }}"),
        ("{{ id }}", {"target": "{{ row['Message txt'] }}"}, "In a template: row['Message text']."),
        ("{{ id }}", {"where": "Message text != ''"}, "{{ row['Column with blanks'] }}"),
    ],
)
def test_columns_with_blanks_are_proposed_as_they_must_be_written(
    project: Path, prompt: str, dataset: dict[str, str], said: str
) -> None:
    rows = [{"id": "a", "Message text": "some text", "label": "x"}]
    data = {"id": "d", "path": "rows.jsonl", "key": "id", "target": "label", **dataset}
    suite = recorded_suite(project, rows, ["label"], prompts=[{"id": "p", "text": prompt}], datasets=[data])
    done = evalrun("validate", suite)
    assert done.returncode == 2 and said in done.stderr, done.stderr


def test_a_query_proposes_names_with_blanks_as_it_takes_them(project: Path) -> None:
    rows = [{"id": "a", "Message text": "some text", "want": "x", "m": "x"}]
    prompts = [{"id": "p", "text": "{{ row['Message text'] }}"}]
    output_of("run", recorded_suite(project, rows, ["m"], prompts=prompts), "-q", "--no-report")
    done = evalrun("samples", "m", 'vars.Mesage == "x"')
    assert """'vars["Message text"]'""" in done.stderr
    assert document_of("samples", "m", 'vars["Message text"] == "some text"')["total"] == 1


def test_a_comparison_is_one_sentence_and_one_table(twice: Path, project: Path) -> None:
    rows = yes_no([at % 3 > 0 for at in range(60)], other=["no"] * 60)
    recorded_suite(project, rows, ["m", "other"], scorers=["exact_match", "includes"])
    output_of("run", twice, "--quiet", "--no-report")
    done = evalrun("compare", "previous", "latest", "--common", env={"COLUMNS": "80"})
    assert done.stdout.startswith("1 of 2 runs is worse by exact_match (1 unchanged): other ")
    lines = done.stdout.splitlines()
    heads = [line for line in lines if "before" in line and "verdict" in line]
    assert len(heads) == 1, "one table"
    assert sum(line.startswith(("m ", "other ")) and "exact_match" not in line for line in lines) == 2
    assert max(map(len, lines)) <= 80


def test_the_sweep_before_is_the_baseline_of_one_that_begins(project: Path) -> None:
    gates = ["exact_match no worse than baseline by 0.05"]
    for at, hits in enumerate(([True] * 50, [True] * 50, [False] * 25 + [True] * 25)):
        suite = recorded_suite(project, yes_no(hits), ["m"], gates=gates if at else [])
        words = ["run", suite, "-q", "--no-report"] + (["--baseline", "previous"] if at else [])
        document = document_of(*words, code=1 if at == 2 else 0)
    [gate] = document["gates"]
    assert gate["verdict"] == "fail" and document["previous"]["runs"][0]["verdict"] == "worse"


def chance_suite(folder: Path, columns: list[str], **parts: object) -> Path:
    """Seven in ten rows want yes. `always` says so, `guess` does not look, `reads` is mostly right."""
    rows = [
        {
            "id": f"s{at:03d}",
            "want": (want := "no" if at % 10 < 3 else "yes"),
            "always": "yes",
            "guess": "yes" if at % 3 else "no",
            "reads": want if at % 10 != 9 else "no",
        }
        for at in range(120)
    ]
    parts = {"parse": [{"choice": {"labels": ["yes", "no"]}}], **parts}
    return recorded_suite(folder, rows, columns, name="chance", **parts)


def test_nothing_is_shipped_that_is_no_better_than_chance(project: Path) -> None:
    run = ("run", "--no-report", "-q")
    said = " ".join(output_of(*run, chance_suite(project, ["always", "guess"])).split())
    assert (
        "Ship nothing: always is not shown to beat chance (always \u201cyes\u201d reaches 0.70; "
        "0.00 [\u22120.04, +0.04], p = 1.000 corrected for 2 runs)." in said
    )
    assert "Ship nothing" in " ".join(output_of(*run, chance_suite(project, ["guess"])).split()), "one alone"
    said = " ".join(output_of(*run, chance_suite(project, ["reads", "always"])).split())
    blind = "(always \u201cyes\u201d reaches 0.70): always (0.00 [\u22120.04, +0.04], p = 1.000 corrected"
    assert "Ship reads." in said and f"Not shown to beat chance {blind}" in said
    suite = chance_suite(project, ["always", "reads"], gates=["exact_match <= 0.8"])
    said = " ".join(output_of(*run, suite, code=1).split())
    assert "Ship nothing" in said and "Ship always" not in said, "it passes the gate, and knows nothing"
    levels = document_of("run", "--no-report", chance_suite(project, ["reads", "always"]))["chance"]
    assert [(each["run"], each["level"], each["above"]) for each in levels] == [
        ("reads-p-d", 0.7, True),
        ("always-p-d", 0.7, False),
    ]
    said = output_of(*run, chance_suite(project, ["always", "guess"], parse=[]))
    assert "beat chance" not in said, "answers in free words have no level of chance"


def test_the_metrics_of_a_sweep_are_rows_of_csv(twice: Path) -> None:
    rows = [*csv.DictReader(io.StringIO(output_of("show", "latest", "--csv")))]
    known = document_of("show", "latest")["runs"]
    assert len(rows) == sum(len(run["metrics"]) for run in known)
    [mine] = [row for row in rows if (row["run"], row["name"]) == ("m-p-d", "exact_match")]
    metric = next(each for each in known[0]["metrics"] if each["name"] == "exact_match")
    assert (float(mine["value"]), int(mine["n"]), mine["slice"]) == (metric["value"], metric["n"], "")
