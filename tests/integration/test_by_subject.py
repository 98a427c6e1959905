"""What a researcher looks for: scores by subject with their macro mean, and which examples a prompt shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.recorded import output_of, recorded_suite

from evalrun.reports.prompts import prompts
from evalrun.reports.report import build_report
from evalrun.reports.source import AskedBy, Examples, Source
from evalrun.tracking.folder import SweepFolder


def _report(folder: Path) -> tuple[str, Source]:
    rows = [
        {"id": f"s{at}", "subject": "law" if at < 30 else "art" if at < 40 else "<b>",
         "want": "yes", "good": "yes" if at % 3 else "no", "bad": "yes" if at < 20 else "no"}
        for at in range(60)
    ]  # fmt: skip
    (folder / "few.jsonl").write_text(
        "".join(json.dumps({**row, "id": f"f{row['id']}"}) + "\n" for row in rows)
    )
    messages = [{"role": "system", "content": "Short."}, {"role": "user", "content": "{{ id }}"}]
    shots = {"first": 2, "path": "few.jsonl", "of_own": "subject", "contamination": "warn"}
    said = [{"id": "p", "messages": messages, "few_shot": shots}]
    suite = recorded_suite(folder, rows, ["good", "bad"], prompts=said, report={"by": ["subject"]})
    printed = output_of("run", suite, "-q", "--no-report")
    [path] = (Path(".evalrun") / "sweeps").iterdir()
    return printed, Source.of(SweepFolder(path))


def test_scores_by_subject_stand_beside_one_another(project: Path) -> None:
    printed, source = _report(project)
    [table] = build_report(source).by_column
    assert table.caption == "exact_match by subject" and list(table.columns) == [
        "subject",
        "n",
        "good",
        "bad",
    ]
    assert [row[:2] for row in table.rows] == [("<b>", "20"), ("art", "10"), ("law", "30"),
                                               ("mean, each counting alike", "3")]  # fmt: skip
    assert table.rows[2][3].startswith("0.67 [") and table.rows[0][3].startswith("0.00 [")
    assert table.rows[3][3].startswith("0.22 ["), "the mean of 0, 0 and 2/3; over all samples it is 0.33"
    assert table.links[2] == "#grid?run=good-p-d&by.subject=law" and table.links[3] == ""
    assert "exact_match by subject" in printed and "mean, each counting alike" in printed


def test_prompts_say_who_speaks_and_which_examples_are_shown(project: Path) -> None:
    _, source = _report(project)
    [view] = build_report(source).prompts
    examples = "the first 2 rows of few.jsonl with the sample's own subject"
    assert view.text == f"[system]\nShort.\n\n[few-shot]\n{examples}\n\n[user]\n{{{{ id }}}}"
    assert not prompts({}, {}, ())
    assert AskedBy("p", "{{ conversation }}").roles == [] == AskedBy("p").roles


@pytest.mark.parametrize(
    ("examples", "sentence"),
    [
        (Examples(), ""),
        (Examples(count=0), ""),
        (Examples(count=4, split="train"), "4 rows drawn by the seed of the split train"),
        (Examples(count=1, same=True), "1 row drawn by the seed of the dataset (the same for every sample)"),
        (Examples(ids=("a", "b")), "2 chosen rows of the dataset (the same for every sample)"),
    ],
)
def test_examples_in_words(examples: Examples, sentence: str) -> None:
    assert examples.sentence == sentence
