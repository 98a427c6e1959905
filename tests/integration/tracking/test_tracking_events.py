"""The audit trail finds every change to what was written."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalrun.secrets import MASK
from evalrun.tracking.events import append_event, read_events, verify_events


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    for number in range(5):
        append_event(path, "note", {"number": number, "text": "tschüß"}, target="run", actor="ada")
    return path


def test_events_are_chained_and_readable(trail: Path) -> None:
    events = list(read_events(trail))
    assert [each["seq"] for each in events] == [1, 2, 3, 4, 5]
    assert events[0]["prev_hash"] == "0" * 64
    assert all(later["prev_hash"] == earlier["hash"] for earlier, later in itertools.pairwise(events))
    assert events[2] | {"ts": "", "hash": "", "prev_hash": ""} == {
        "seq": 3, "ts": "", "actor": "ada", "action": "note", "target": "run",
        "detail": {"number": 2, "text": "tschüß"}, "prev_hash": "", "hash": "",
    }  # fmt: skip
    assert verify_events(trail) is None


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
def test_any_changed_byte_is_found(trail: Path, data: st.DataObject) -> None:
    original = trail.read_bytes()
    # The end of the last line is left out: without it the line is one that a crash tore.
    place = data.draw(st.integers(0, len(original) - 2))
    value = data.draw(st.integers(0, 255).filter(lambda each: each != original[place]))
    changed = original[:place] + bytes([value]) + original[place + 1 :]
    trail.write_bytes(changed)
    broken = verify_events(trail)
    trail.write_bytes(original)
    line = original[:place].count(b"\n") + 1
    assert broken == line or json_equal(original, changed)


def json_equal(first: bytes, second: bytes) -> bool:
    """Whether two trails differ in the writing only (an escape, a blank), so that nothing was changed."""
    try:
        return [json.loads(x) for x in first.splitlines()] == [json.loads(x) for x in second.splitlines()]
    except ValueError:
        return False


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("edit", "broken"),
    [
        (lambda lines: lines[:2] + lines[3:], 3),
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2),
        (lambda lines: [*lines[:4], lines[3], lines[4]], 5),
        (lambda lines: [], 1),
    ],
    ids=["removed", "first removed", "reordered", "doubled", "emptied"],
)
def test_removed_and_reordered_lines_are_found(trail: Path, edit: Any, broken: int) -> None:
    trail.write_bytes(b"".join(edit(_lines(trail))))
    assert verify_events(trail) == broken


def test_a_missing_trail_is_broken(tmp_path: Path) -> None:
    assert verify_events(tmp_path / "events.jsonl") == 1


def test_a_torn_last_line_is_no_event_and_is_replaced(trail: Path) -> None:
    with trail.open("ab") as file:
        file.write(b'{"seq": 6, "ts"')
    assert verify_events(trail) is None
    assert len(list(read_events(trail))) == 5
    assert append_event(trail, "more")["seq"] == 6
    assert verify_events(trail) is None


def test_appending_to_a_damaged_trail_does_not_mend_it(trail: Path) -> None:
    trail.write_bytes(b"".join([*_lines(trail)[:4], b"garbage\n"]))
    append_event(trail, "more")
    assert verify_events(trail) == 5


def test_odd_values_are_kept_as_json_and_secrets_are_not(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    detail = {"big": 2**70, "nan": float("nan"), "lone": "a\ud800b", "api_key": "x" * 20, "path": tmp_path}
    event = append_event(path, "odd", detail)
    assert event["detail"]["big"] == 2**70
    assert event["detail"]["nan"] is None
    assert event["detail"]["lone"] == "a\ufffdb"
    assert event["detail"]["api_key"] == MASK
    assert verify_events(path) is None
    assert path.stat().st_mode & 0o777 == 0o600


def test_processes_that_append_at_once_do_not_fork_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    script = """
import sys
from pathlib import Path
from evalrun.tracking.events import append_event
for number in range(30):
    append_event(Path(sys.argv[1]), "tick", {"pad": "x" * number * 500})
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(path)], env=os.environ.copy()) for _ in range(3)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert verify_events(path) is None
    assert [each["seq"] for each in read_events(path)] == list(range(1, 91))
