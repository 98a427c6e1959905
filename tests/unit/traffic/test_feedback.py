"""Feedback is joined by request id; who answers is shown; what fits nothing is counted."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.program import evalrun

from evalrun.errors import UserError
from evalrun.tracking.changes import said
from evalrun.tracking.store import Store
from evalrun.tracking.targets import Target, find_run_target
from evalrun.traffic.feedback import Wanted, bring

from . import otlp_lines as otlp

SUITE = """name: live
models: [{id: live, provider: recorded, column: output}]
prompts: [{id: asked, messages: [{role: user, content: "{{ text }}"}]}]
datasets: [{id: traffic, path: rows.jsonl, key: request_id, target: "{{ right }}"}]
scorers: [exact_match]
"""


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    folder = tmp_path_factory.mktemp("feedback")
    rows = [
        {
            "request_id": f"r{at}",
            "trace_id": f"{at:032x}",
            "span_id": f"{at:016x}",
            "text": f"ticket {at}",
            "arm": "ab"[at % 2],
            "output": "billing",
            "right": "billing" if at % 3 else "bug",
        }
        for at in range(60)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "suite.yaml").write_text(SUITE)
    assert evalrun("suite.yaml", "--store", "st", cwd=folder).returncode == 0
    return Store(folder / "st"), folder


def target(store: Store) -> Target:
    return find_run_target(store, "latest")


def write(folder: Path, rows: list[Any], name: str = "f.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_joined_by_request_trace_and_event(scored: tuple[Store, Path]) -> None:
    store, folder = scored
    event = {
        "eventName": "gen_ai.evaluation.result",
        "traceId": f"{4:032x}",
        "spanId": f"{4:016x}",
        "attributes": otlp.attributes(
            {"gen_ai.evaluation.name": "user_feedback", "gen_ai.evaluation.score.value": 1.0}
        ),
    }
    lines: list[Any] = [
        {"request_id": f"r{at}", "feedback": "up" if at % 3 else "down"} for at in range(0, 40, 2) if at != 4
    ]
    lines += [{"trace_id": f"{1:032x}", "value": True}, {"request_id": "nobody", "feedback": "up"}]
    lines += [{"resourceLogs": [{"scopeLogs": [{"logRecords": [event]}]}]}, {"request_id": "r5"}, '{"torn']
    done = bring(store, target(store), write(folder, lines), Wanted(to=folder / "worst.jsonl", worst=3))
    assert (done.joined, done.unmatched, done.without_value, done.torn, done.records) == (21, 1, 1, 1, 24)
    assert (done.overall.samples, done.overall.answered) == (60, 21)
    assert {each.group: each.answered for each in done.by_arm} == {"a": 20, "b": 1}
    assert [each.group for each in done.by_score] == ["exact_match < 1", "exact_match >= 1"]
    assert done.agreement[0]["value"] == 1 and not done.flagged
    worst = [json.loads(line) for line in (folder / "worst.jsonl").read_text().splitlines()]
    assert len(worst) == 3 and all(row["feedback"] == 0 and row["request_id"] for row in worst)
    assert said(target(store).folder).figures[done.run]["feedback.response_rate"] == pytest.approx(21 / 60)


def test_a_scorer_that_users_contradict_is_flagged(scored: tuple[Store, Path]) -> None:
    store, folder = scored
    contrary = [{"request_id": f"r{at}", "thumb": "down" if at % 3 else "up"} for at in range(60)]
    assert bring(store, target(store), write(folder, contrary)).flagged == ("exact_match",)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"request_id": "x", "feedback": 1}], "none of 1 records fits"),
        ([{"request_id": "r1", "feedback": "meh"}], "neither good nor bad"),
        ([], "none of 0 records"),
    ],
)
def test_bad_files_are_one_message(scored: tuple[Store, Path], lines: list[Any], message: str) -> None:
    store, folder = scored
    with pytest.raises(UserError, match=message):
        bring(store, target(store), write(folder, lines))
    with pytest.raises(UserError, match="no such file"):
        bring(store, target(store), folder / "none.jsonl")
