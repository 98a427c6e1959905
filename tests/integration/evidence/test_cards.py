"""Documents of evidence: every line can be checked or is left to people, and other tools read them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.program import evalrun
from tests.recorded import document_of, output_of, recorded_suite

from evalrun.evidence.card import KINDS, SETTINGS, questions, read_answers
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store

FORBIDDEN = re.compile(r"complian|complies|conforms|certif", re.IGNORECASE)


def card(store: Store, kind: str, *words: str | Path) -> dict[str, Any]:
    return document_of("card", "latest", "--as", kind, *words, "--store", store.root)


def lines(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [line for section in document["sections"] for line in section["lines"]]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("cyclonedx", "ll144")])
def test_every_line_has_evidence_that_exists_or_is_left_to_people(
    store: Store, sweep: SweepFolder, kind: str
) -> None:
    document = card(store, kind)
    for line in lines(document):
        if line["state"] == "measured":
            assert (sweep.path / line["evidence"]["file"]).is_file(), line
        else:
            assert line["text"] == "to be completed by the provider" and line["key"] in questions()
        if line["value"] is not None and line["unit"] != "s":
            assert line["n"] is None or f"n = {line['n']:,}" in line["text"], line
    text = output_of("card", "latest", "--as", kind, "--store", store.root)
    assert not FORBIDDEN.search(text)
    assert sum(line["state"] == "to be completed" for line in lines(document)) == text.count(
        "| to be completed by the provider |"
    )


def test_the_numbers_are_those_of_the_run(store: Store, sweep: SweepFolder) -> None:
    line, of_instructions = (
        each for each in lines(card(store, "annex-iv")) if each["label"] == "exact_match" and each["n"]
    )
    assert line == of_instructions
    (run,) = sweep.runs()
    metric = next(m for m in run["metrics"] if m["name"] == "exact_match" and not m["slice"])
    assert (line["value"], line["n"], line["low"]) == (metric["value"], metric["n"], metric["ci_low"])
    assert line["evidence"]["file"] == f"runs/{run['run']}/run.json"


def test_how_much_is_left_to_people_is_stable(store: Store) -> None:
    """A line more or less is somebody's paperwork: it changes knowingly."""
    left = {
        kind: card(store, kind)["counts"]["to_be_completed"]
        for kind in ("annex-iv", "nist", "iso42001", "hf", "record")
    }
    assert left == {"annex-iv": 24, "nist": 25, "iso42001": 13, "hf": 8, "record": 4}


def test_answers_fill_the_open_lines(store: Store, tmp_path: Path) -> None:
    asked = output_of("card", "latest", "--as", "annex-iv", "--questions", "--store", store.root)
    answers = tmp_path / "card.yaml"
    answers.write_text(asked.replace('purpose: ""', "purpose: [sort letters, no more]"))
    document = card(store, "annex-iv", "--answers", answers)
    (line,) = (each for each in lines(document) if each["key"] == "purpose")
    assert (line["text"], line["state"]) == ("sort letters; no more", "answered")
    assert document["counts"]["to_be_completed"] == 23


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("purpos: x", "no document asks for 'purpos'"),
        ("purpose: {a: b}", "'purpose' is a text"),
        ("- a", "is no mapping"),
        ("a: [", "card.yaml:2"),
        ("ll144: 3", "'ll144' is a mapping"),
        ("ll144: {sexx: a}", "Did you mean 'sex'?"),
        ("a: &a [x]\nb: *a", "no document asks for"),
    ],
)
def test_answers_that_cannot_be_used_are_one_message(
    store: Store, tmp_path: Path, text: str, said: str
) -> None:
    answers = tmp_path / "card.yaml"
    answers.write_text(text)
    done = evalrun("card", "latest", "--as", "ll144", "--answers", answers, "--store", store.root)
    assert done.returncode == 2 and said in done.stderr and not done.stdout, done.stderr


def test_the_example_of_the_docs_is_read() -> None:
    example = read_answers(Path(__file__).parents[3] / "docs" / "card.yaml")
    example.check(questions(), SETTINGS)
    assert example.line("purpose", "").state == "answered"


def test_a_hostile_name_stays_text(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>|`x`[a](javascript:b)\u202e"
    rows = [{"id": f"r{at}", "want": "yes", "m": "yes", "who": bad if at % 2 else "b"} for at in range(4)]
    suite = recorded_suite(
        tmp_path, rows, ["m"], fairness={"by": ["who"], "min_group": 1},
        datasets=[{"id": "d", "path": "rows.jsonl", "key": "id", "target": "want", "sensitive": ["who"]}],
    )  # fmt: skip
    assert evalrun(suite, "--store", tmp_path / "s", "--no-report").returncode == 0
    page, text = tmp_path / "c.html", tmp_path / "c.md"
    for out in (page, text):
        assert (
            evalrun("card", "latest", "--as", "nist", "--out", out, "--store", tmp_path / "s").returncode == 0
        )
    assert "<script" not in page.read_text() and "&lt;script&gt;" in page.read_text()
    assert "<script" not in text.read_text() and "\u202e" not in page.read_text() + text.read_text()
    assert r"\|\`x\`\[a\](javascript:b)" in text.read_text()


def test_the_model_card_is_read_by_the_hub_library(store: Store, sweep: SweepFolder, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    answers = tmp_path / "card.yaml"
    answers.write_text("licence: apache-2.0\nlanguage: [en]\n")
    out = tmp_path / "README.md"
    output_of("card", "latest", "--as", "hf", "--answers", answers, "--out", out, "--store", store.root)
    data = ModelCard(out.read_text(), ignore_metadata_errors=False).data
    assert (data.license, data.language, data.model_name) == ("apache-2.0", ["en"], "m")
    results = {each.metric_type: each for each in data.eval_results}
    (run,) = sweep.runs()
    values = {m["name"]: m["value"] for m in run["metrics"] if not m["slice"]}
    assert results["exact_match"].metric_value == values["exact_match"]
    assert results["exact_match"].dataset_name == "d"


def test_the_bill_of_materials_is_valid(store: Store, sweep: SweepFolder, tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx", reason="needs cyclonedx-python-lib[json-validation] (extra: dev)")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    answers = tmp_path / "card.yaml"
    answers.write_text("licence: MIT\nprovider: Us\npurpose: sort\nunintended_outcomes: wrong\n")
    bom = card(store, "cyclonedx", "--answers", answers)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom)) is None
    model = bom["metadata"]["component"]
    figures = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    (run,) = sweep.runs()
    metric = next(m for m in run["metrics"] if m["name"] == "exact_match" and not m["slice"])
    (figure,) = (f for f in figures if f["type"] == "exact_match" and f["slice"] == "dataset=d, n=6")
    assert figure["value"] == str(metric["value"])
    assert figure["confidenceInterval"]["upperBound"] == str(metric["ci_high"])
    assert card(store, "cyclonedx", "--answers", answers) == bom


def hiring(folder: Path, **parts: Any) -> Path:
    """Decisions about people, with the counts of the rule's example by sex, and race by turns."""
    rows = []
    for sex, (selected, n) in {"male": (667, 1390), "female": (555, 1181)}.items():
        rows += [
            {"id": f"{sex}{at}", "want": "yes", "m": "yes" if at < selected else "no", "sex": sex,
             "race": ("A", "B", "")[at % 3]}
            for at in range(n)
        ]  # fmt: skip
    data = {"id": "d", "path": "rows.jsonl", "key": "id", "target": "want", "sensitive": ["sex", "race"]}
    return recorded_suite(folder, rows, ["m"], datasets=[data], **parts)


def test_the_tables_of_a_bias_audit(tmp_path: Path) -> None:
    suite = hiring(tmp_path, fairness={"by": ["sex"], "positive": "yes"})
    assert evalrun(suite, "--store", tmp_path / "s", "--no-report").returncode == 0
    document = card(Store(tmp_path / "s"), "ll144")
    tables = {section["title"]: section["lines"] for section in document["sections"]}
    by_sex = {line["label"]: line for line in tables["By sex"]}
    assert round(by_sex["female"]["value"], 3) == 0.979 and by_sex["female"]["n"] == 1181
    assert by_sex["female"]["text"].startswith("555 of 1,181, rate 0.470, impact ratio 0.979 [")
    by_race = {line["label"]: line for line in tables["By race and ethnicity"]}
    assert by_race["Category unknown"]["text"] == "856 of 2,571" and by_race.keys() == {
        "A",
        "B",
        "Category unknown",
    }
    assert {"male, A", "female, B"} <= {line["label"] for line in tables["By sex and race and ethnicity"]}


def test_what_counts_as_selected_must_be_known(tmp_path: Path) -> None:
    suite = hiring(tmp_path)
    assert evalrun(suite, "--store", tmp_path / "s", "--no-report").returncode == 0
    words = ("card", "latest", "--as", "ll144", "--store", tmp_path / "s")
    done = evalrun(*words)
    assert done.returncode == 2 and "what counts as selected is not known" in done.stderr
    answers = tmp_path / "card.yaml"
    for text, said in (("hired", "nobody was selected"), ("[yes]", ""), ("yes", "")):
        answers.write_text(f"ll144: {{sex: sex, selected: {text}}}")
        done = evalrun(*words, "--answers", answers)
        assert (done.returncode == 2 and said in done.stderr) if said else done.returncode == 0, done.stderr
    answers.write_text("ll144: {score: exact_match}")
    document = card(Store(tmp_path / "s"), "ll144", "--answers", answers)
    notes = [section["note"] for section in document["sections"]]
    assert "scoring rate: score.exact_match above its median." in notes


def test_what_cannot_be_written_is_one_message(store: Store, tmp_path: Path) -> None:
    for words, said in (
        (("--out", tmp_path / "card.pdf"), ".md, .json or .html"),
        (("--run", "none"), "none"),
        (("--answers", tmp_path / "no.yaml"), "cannot be read"),
    ):
        done = evalrun("card", "latest", "--as", "record", *words, "--store", store.root)
        assert done.returncode == 2 and said in done.stderr
    done = evalrun("card", "latest", "--as", "ll144", "--store", store.root)
    assert done.returncode == 2 and "what counts as selected" in done.stderr
