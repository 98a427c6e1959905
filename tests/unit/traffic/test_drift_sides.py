"""What `evalrun drift` compares, what it prints, and its exit codes."""

import json
from pathlib import Path

import pytest

from evalrun.analysis.drift import Asked
from evalrun.errors import UserError
from evalrun.reports.drift import drift_lines, render_drift
from evalrun.tracking.store import Store
from evalrun.traffic.drift import compare, document


def rows(path: Path, shift: int, n: int = 120) -> str:
    made = [
        {
            "request_id": f"{path.name}{at}",
            "text": f"ticket {at * 7919 % 97} about {'vpn' if shift and at % 3 else 'card'} <b>{at}</b>",
            "topic": "ab"[at % 2] if not shift else "a",
            "tokens": at * 31 % 60 + 4 * shift,
            "score.right": float(at % (4 if shift else 10) > 0),
            "only" + str(shift): 1,
        }
        for at in range(n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return str(path)


def test_two_files_are_compared_and_shown(tmp_path: Path) -> None:
    before, after = rows(tmp_path / "a.jsonl", 0), rows(tmp_path / "b.jsonl", 9)
    found = compare(Store(tmp_path / "st"), after, before, Asked(by="topic"))
    told = document(found)
    by_name = {each["column"]: each for each in told["columns"]}
    assert by_name["topic"]["drift"] and by_name["tokens"]["drift"] and "request_id" not in by_name
    assert told["text"]["drift"] and told["text"]["words"][0]["word"] in ("vpn", "card")
    assert told["mix"] + told["quality"] == pytest.approx(found.scores[0].difference, abs=1e-12)
    assert found.only_reference == ("only0",) and found.only_live == ("only9",)
    printed = "\n".join(drift_lines(found))
    assert "Inputs changed in" in printed and "least seen" in printed and "mix" in printed
    page = render_drift(found)
    assert (
        "Inputs changed in" in page
        and "<b>" not in page.split("Words that separate")[-1].split("</table>")[0][:50]
    )
    assert "Words that separate" in page and "Segments" in page


def test_a_file_against_itself_is_no_drift(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", 0)
    found = compare(Store(tmp_path / "st"), path, path, Asked())
    assert not found.drifted and found.inputs_changed is False and found.answers_worse is False


@pytest.mark.parametrize(
    ("live", "against", "asked", "message"),
    [
        ("a.jsonl", "none.jsonl", Asked(), "no such file"),
        ("a.jsonl", "production", Asked(), "production"),
        ("a.jsonl", "a.jsonl", Asked(by="topc"), "no column 'topc'"),
        ("a.jsonl", "other.jsonl", Asked(), "no column in common"),
        ("broken.parquet", "a.jsonl", Asked(), "cannot be read"),
        ("empty.jsonl", "a.jsonl", Asked(), "holds no row"),
    ],
)
def test_bad_input_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: str, against: str, asked: Asked, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    rows(tmp_path / "a.jsonl", 0)
    (tmp_path / "other.jsonl").write_text('{"z": 1}\n')
    (tmp_path / "broken.parquet").write_text("PAR1")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match=message):
        compare(Store(tmp_path / "st"), live, against, asked)
