"""Production records become rows; what is wrong with them is counted and never scored."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.errors import UserError
from evalrun.traffic import calls, parts
from evalrun.traffic.main import Taken, Wanted, read_rows, take
from evalrun.traffic.otlp import kept_share

from . import otlp_lines as otlp

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def taken(tmp_path: Path, lines: list[str] | str, **wanted: Any) -> tuple[list[dict[str, Any]], Taken]:
    path = tmp_path / wanted.pop("name", "traces.jsonl")
    path.write_text(lines if isinstance(lines, str) else "".join(f"{each}\n" for each in lines))
    done = take(Wanted(**{"path": [path], "redact": "none", "now": NOW, **wanted}), tmp_path / "rows.parquet")
    return list(read_rows(done.path)), done


def test_five_generations_of_names_are_one_sample(tmp_path: Path) -> None:
    by_log, log = otlp.details()
    lines = [
        otlp.line(otlp.newest()),
        otlp.line(by_log),
        log,
        otlp.line(otlp.span_events(), otlp.openllmetry()),
        otlp.line(otlp.openinference()),
    ]
    rows, done = taken(tmp_path, lines)
    names = ("model", "provider", "text", "messages", "output", "prompt_tokens", "completion_tokens", "e2e_s")
    assert len(rows) == 5
    assert all({n: row[n] for n in names} == {n: rows[0][n] for n in names} for row in rows)
    assert rows[0]["output"] == otlp.ANSWER and rows[0]["messages"] == otlp.SENT
    assert rows[0]["prompt_tokens"] == 12 and rows[0]["e2e_s"] == 0.5 and rows[0]["service"] == "triage"
    assert [row["finish_reason"] for row in rows] == ["stop"] * 5
    assert not done.left_out and not done.unknown_attributes


def test_a_span_without_content_is_counted_and_not_scored(tmp_path: Path) -> None:
    bare = otlp.span(7, {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-x"})
    rows, done = taken(tmp_path, [otlp.line(otlp.newest(), bare)])
    assert len(rows) == 1 and done.left_out == {calls.NO_CONTENT: 1}


def test_a_failed_call_is_a_row_without_output(tmp_path: Path) -> None:
    own = {"gen_ai.operation.name": "chat", "error.type": "timeout"}
    failed = otlp.span(8, own, status={"code": 2, "message": "no answer"})
    rows, _ = taken(tmp_path, [otlp.line(failed)])
    assert rows[0]["output"] is None and rows[0]["error"] == "timeout: no answer"


def test_what_is_wrong_is_counted_and_named(tmp_path: Path) -> None:
    cut = otlp.newest(3, own={"gen_ai.output.messages": '[{"role":"assistant","parts":[{"type":"te'})
    late = otlp.newest(4, startTimeUnixNano=str(2 * 10**18))
    strange = otlp.newest(5, own={"gen_ai.made_up": 1}, startTimeUnixNano="soon")
    lines = [
        otlp.line(otlp.newest(9)),
        otlp.line(otlp.newest(2)),
        otlp.line(otlp.newest(2)),
        otlp.line(cut, late, strange),
        json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [{"spanId": 5}, {"attributes": [7]}]}]}]}),
        otlp.line(otlp.newest(6))[:-40],
    ]
    rows, done = taken(tmp_path, lines)
    assert sorted(row["span_id"][-1] for row in rows) == ["2", "4", "5", "9"]
    assert done.left_out == {calls.TORN: 1, calls.SHAPE: 2, calls.CUT_OFF: 1, calls.TWICE: 1}
    assert done.noticed == {calls.UNSORTED: 3, calls.FUTURE: 1, calls.NO_TIME: 1}
    assert done.first[calls.TORN].endswith("traces.jsonl:6")
    assert done.unknown_attributes == {"gen_ai.made_up": 1}


@pytest.mark.parametrize(
    ("state", "share"), [("ot=th:8", 0.5), ("ot=th:c", 0.25), ("ot=th:0", 1.0), ("x=1", None)]
)
def test_tracestate_says_what_share_was_kept(state: str, share: float | None) -> None:
    assert kept_share(state) == share
    assert kept_share(f"vendor=a, {state};rv:0123") == share


@pytest.mark.parametrize("state", ["ot=th:", "ot=th:xyz", "ot=th:" + "1" * 15])
def test_a_threshold_that_cannot_be_read_is_noted(tmp_path: Path, state: str) -> None:
    rows, done = taken(tmp_path, [otlp.line(otlp.newest(1, traceState=state))])
    assert rows[0]["weight"] == 1 and done.noticed == {calls.THRESHOLD: 1}


def test_weights_are_those_of_both_samplings(tmp_path: Path) -> None:
    lines = [otlp.line(otlp.newest(n, traceState="ot=th:8")) for n in range(1, 41)]
    rows, done = taken(tmp_path, lines, n=10)
    assert [row["weight"] for row in rows] == [8.0] * 10  # 2 of head sampling, 40/10 of ours
    assert done.effective == pytest.approx(10)


def test_the_last_generation_of_a_trace_is_its_row(tmp_path: Path) -> None:
    trace = otlp.ids(1)[0]
    second = otlp.newest(2, traceId=trace, parentSpanId=otlp.ids(1)[1])
    third = otlp.newest(3, traceId=trace, own={"gen_ai.operation.name": "embeddings"})
    rows, _ = taken(tmp_path, [otlp.line(second, otlp.newest(1), third)])
    assert [row["span_id"] for row in rows] == [otlp.ids(2)[1]]
    rows, _ = taken(tmp_path, [otlp.line(second, otlp.newest(1))], unit="each_generation")
    assert len(rows) == 2
    rows, _ = taken(tmp_path, [otlp.line(second, otlp.newest(1))], unit="root")
    assert [row["span_id"] for row in rows] == [otlp.ids(1)[1]]


def test_strata_share_alike_and_always_stands_for_itself(tmp_path: Path) -> None:
    plain = [{"id": n, "output": "x", "arm": "a" if n < 90 else "b", "feedback": n == 0} for n in range(100)]
    rows, done = taken(
        tmp_path, [json.dumps(row) for row in plain], n=20, strata=["arm"], always='feedback == "true"'
    )
    assert {s.name: (s.of, s.n) for s in done.strata} == {"a": (89, 10), "always": (1, 1), "b": (10, 10)}
    assert sum(row["weight"] for row in rows) == pytest.approx(100)
    assert next(row["weight"] for row in rows if row["request_id"] == "0") == 1


def test_a_higher_rate_keeps_what_a_lower_one_took(tmp_path: Path) -> None:
    lines = [json.dumps({"id": n, "output": "x"}) for n in range(2_000)]
    some, _ = taken(tmp_path, lines, rate=0.1)
    more, _ = taken(tmp_path, lines[::-1], rate=0.2)
    assert {row["request_id"] for row in some} < {row["request_id"] for row in more}
    assert len(more) == pytest.approx(400, abs=80) and more[0]["weight"] == 5


def test_texts_are_redacted_before_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clean_it.py").write_text("def clean(text):\n    return text.replace('card', '<>')\n")
    rows, done = taken(
        tmp_path, [otlp.line(otlp.newest(1, own={"user.id": "ann@example.org", "note": "a card"}))],
        redact="clean_it:clean", base_dir=tmp_path, columns=["note"],
    )  # fmt: skip
    assert rows[0]["text"] == "My <> was charged twice" and rows[0]["note"] == "a <>"
    assert "card" not in json.dumps(rows) and "ann@" not in done.path.read_bytes().decode("latin1")


def test_redaction_that_fails_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "breaks_it.py").write_text("def clean(text):\n    raise ValueError(text)\n")
    with pytest.raises(UserError, match="could not be redacted"):
        taken(tmp_path, [otlp.line(otlp.newest())], redact="breaks_it:clean", base_dir=tmp_path)
    assert not (tmp_path / "rows.parquet").exists()
    with pytest.raises(UserError):
        taken(tmp_path, [otlp.line(otlp.newest())], redact="no_such_level")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"where": "servce == 'x'"}, "Did you mean 'service'"),
        ({"unit": "third"}, "is no unit"),
        ({"since": "soon"}, "is no time"),
        ({"where": "model == 'other'"}, "no record is left of 1"),
        ({"path": ["/no/such"]}, "no such file"),
    ],
)
def test_bad_settings_are_one_message(tmp_path: Path, wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        taken(tmp_path, [otlp.line(otlp.newest())], **wanted)


def test_a_file_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no record"):
        taken(tmp_path, "\x00\x01\nnothing\n")


def test_window_and_condition(tmp_path: Path) -> None:
    lines = [otlp.line(otlp.newest(n, own={"x": n})) for n in (1, 5, 9)]
    rows, _ = taken(
        tmp_path, lines, where='attributes["x"] > 4 and error == null', until="2025-10-09T08:53:29"
    )
    assert [row["ts"] for row in rows] == ["2025-10-09T08:53:25+00:00"]


LANGFUSE = {
    "id": "t1",
    "timestamp": "2025-10-09T08:53:21.000Z",
    "userId": "u",
    "input": {"q": 1},
    "output": "done",
    "scores": [{"name": "thumb", "value": 0}],
    "observations": [
        {
            "id": "o1", "type": "GENERATION", "startTime": "2025-10-09T08:53:21.000Z",
            "endTime": "2025-10-09T08:53:22.500Z",
            "completionStartTime": "2025-10-09T08:53:21.250Z", "model": "gpt-x", "input": otlp.SENT,
            "output": {"role": "assistant", "content": otlp.ANSWER},
            "usageDetails": {"input": 12, "output": 3},
            "promptName": "triage", "promptVersion": 4,
        },
        {"id": "o2", "type": "SPAN", "input": "x", "output": "y"},
    ],
}  # fmt: skip
OPENAI = {
    "request": {"model": "gpt-x", "messages": otlp.SENT},
    "response": {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1760000001, "model": "gpt-x",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": otlp.ANSWER},
                     "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3},
    },
}  # fmt: skip
BATCH = {"custom_id": "r1", "response": {"status_code": 200, "body": OPENAI["response"]}, "error": None}
RESPONSES = {
    "object": "response", "id": "resp_1", "created_at": 1760000001, "model": "gpt-x",
    "input": otlp.SENT[0]["content"],
    "output": [{"type": "reasoning", "summary": []},
               {"type": "message", "content": [{"type": "output_text", "text": otlp.ANSWER}]}],
    "usage": {"input_tokens": 12, "output_tokens": 3},
}  # fmt: skip
PHOENIX = {
    "context.trace_id": "a" * 32, "context.span_id": "b" * 16, "name": "ChatCompletion", "span_kind": "LLM",
    "start_time": "2025-10-09T08:53:21+00:00", "end_time": "2025-10-09T08:53:22+00:00", "parent_id": None,
    "attributes.llm.model_name": "gpt-x", "attributes.llm.token_count.prompt": 12,
    "attributes.llm.token_count.completion": 3,
    "attributes.llm.input_messages": [{"message.role": "user", "message.content": otlp.SENT[0]["content"]}],
    "attributes.llm.output_messages": [{"message.role": "assistant", "message.content": otlp.ANSWER}],
}  # fmt: skip
PLAIN = {
    "request_id": 7, "ts": 1760000001.5, "question": otlp.SENT[0]["content"], "answer": otlp.ANSWER,
    "model": "gpt-x", "prompt_tokens": 12, "completion_tokens": 3,
}  # fmt: skip
SDK = {
    "name": "chat", "context": {"trace_id": "0x" + "a" * 32, "span_id": "0x" + "b" * 16, "trace_state": "[]"},
    "parent_id": None, "start_time": "2025-10-09T08:53:21.000000Z", "end_time": "2025-10-09T08:53:22.000000Z",
    "status": {"status_code": "UNSET"}, "events": [], "resource": {"attributes": {"service.name": "x"}},
    "attributes": {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-x", "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3, "gen_ai.input.messages": json.dumps(otlp.SENT),
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "content": otlp.ANSWER}]),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "row", [OPENAI, RESPONSES, PHOENIX, PLAIN, SDK], ids=["openai", "responses", "phoenix", "plain", "sdk"]
)
def test_other_forms_are_known_by_their_content(tmp_path: Path, row: dict[str, Any]) -> None:
    rows, _ = taken(tmp_path, [json.dumps(row)])
    assert rows[0]["text"] == otlp.SENT[0]["content"] and rows[0]["output"] == otlp.ANSWER
    assert (rows[0]["model"], rows[0]["prompt_tokens"], rows[0]["completion_tokens"]) == ("gpt-x", 12, 3)
    assert rows[0]["ts"].startswith("2025-10-09T08:53:21")


def test_langfuse_traces_with_observations(tmp_path: Path) -> None:
    rows, _ = taken(tmp_path, json.dumps([LANGFUSE]), name="export.json")
    (row,) = rows
    assert (row["output"], row["messages"], row["ttft_s"], row["e2e_s"]) == (
        otlp.ANSWER,
        otlp.SENT,
        0.25,
        1.5,
    )
    assert (row["prompt_version"], row["feedback"], row["prompt_tokens"]) == ("triage@4", "0", 12)
    rows, _ = taken(tmp_path, json.dumps(LANGFUSE), unit="root")
    assert [row["output"] for row in rows] == ["done", otlp.ANSWER, "y"] or rows[0]["output"] == "done"


def test_a_batch_line_has_an_answer_and_no_question(tmp_path: Path) -> None:
    rows, _ = taken(tmp_path, [json.dumps(BATCH)])
    assert rows[0]["output"] == otlp.ANSWER and rows[0]["messages"] is None
    bad = {"custom_id": "r2", "response": {"status_code": 500, "body": {}}, "error": None}
    rows, _ = taken(tmp_path, [json.dumps(bad)])
    assert rows[0]["error"] == "HTTP 500" and rows[0]["output"] is None


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["resourceSpans", "scopeSpans", "spans", "attributes", "key", "value", "stringValue",
             "traceId", "spanId", "events", "status", "observations", "type", "id", "request", "response",
             "choices", "message", "output", "context", "input", "usage", "object", "custom_id", "error",
             "messages", "role", "content", "traceState"]
        ) | st.text(max_size=5),
        inner, max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(JSON_VALUES)
def test_no_json_breaks_a_reader(tmp_path_factory: pytest.TempPathFactory, row: Any) -> None:
    """Whatever a line holds, every record is taken, counted, or not of the unit."""
    path = tmp_path_factory.mktemp("fuzz") / "x.jsonl"
    path.write_text(otlp.line(otlp.newest()) + "\n" + json.dumps(row) + "\n")
    done = take(Wanted([path], redact="none", now=NOW, unit="each_generation"), path.with_suffix(".parquet"))
    wrong = sum(done.left_out.values())
    assert done.rows == done.read["matching"] and done.rows + wrong <= done.read["records"] + wrong
    assert any(each["output"] == otlp.ANSWER for each in read_rows(done.path))


def test_two_processes_take_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has traces of its own: counts, weights and rows are the same."""
    monkeypatch.setenv("EVALRUN_PSEUDONYM_KEY", "k")
    by_log, log = otlp.details()
    lines = [otlp.line(otlp.newest(at), otlp.newest(at + 1)) for at in range(3, 60, 2)]
    lines += [lines[0], lines[1][:-20], otlp.line(by_log), log, log.replace("0002", "0999"), '{"no": 1}']
    made = []
    for large in (1 << 40, 1):
        monkeypatch.setattr(parts, "LARGE", large)
        monkeypatch.setattr(parts.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
        made.append(taken(tmp_path, lines, n=20, always='request_id == "x"', unit="each_generation"))
    assert made[0] == made[1] and len(made[0][0]) == 20 and made[0][1].left_out[calls.TORN] == 1
    with pytest.raises(UserError, match="no record is left"):
        taken(tmp_path, lines, n=20, where='model == "none"')


@pytest.mark.parametrize(
    "odd",
    [
        {"resourceSpans": [{"resource": "triage", "scopeSpans": []}]},
        {"resourceSpans": [{"resource": {"attributes": [7]}, "scopeSpans": [{"spans": [{"traceId": 1}]}]}]},
        {
            "resourceLogs": [
                {"scopeLogs": [{"logRecords": [{"attributes": [7]}, {"body": {"kvlistValue": 3}}]}]}
            ]
        },
        {"context": 1, "attributes": {}, "resourceSpans": None},
        {"context": {"trace_id": "0x1"}, "attributes": {}, "status": 3, "events": 4, "resource": 5},
    ],
)
def test_odd_shapes_are_counted_and_end_nothing(tmp_path: Path, odd: Any) -> None:
    rows, _ = taken(tmp_path, [json.dumps(odd), otlp.line(otlp.newest())])
    assert len(rows) == 1


def test_columns_are_found_where_map_says(tmp_path: Path) -> None:
    mapped = {"text": "messages[-1].content", "e2e_s": "took", "gold": 'attributes["a.b"]'}
    own = otlp.newest(own={"a.b": "to ann@example.org", "took": "0.25"})
    (row,), _ = taken(tmp_path, [otlp.line(own)], map=mapped, redact="standard", store=tmp_path / "st")
    assert row["text"] == otlp.SENT[0]["content"] and row["e2e_s"] == 0.25
    assert row["gold"].startswith("to <EMAIL")
