"""The folder of an unfinished run: what is taken up again, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from evalrun.lines import read_record, with_checksum
from evalrun.runner.journal import Earlier, RunFolder
from evalrun.runner.monitor import SystemSample

MODEL = {"provider": "openai_compatible", "model": "m"}


def line(sample_id: str, status: str = "scored", repeat: int = 0, done_s: float | None = None) -> bytes:
    record = {"sample_id": sample_id, "repeat": repeat, "status": status, "done_s": done_s}
    return orjson.dumps(record) + b"\n"


def opened(path: Path, identity: Any = MODEL) -> Earlier:
    folder = RunFolder(path)
    found = folder.open(identity)
    folder.close()
    return found


def test_what_was_answered_is_done_and_what_failed_is_asked_again(tmp_path: Path) -> None:
    assert opened(tmp_path) == Earlier(frozenset(), 0.0)
    (tmp_path / "journal.jsonl").write_bytes(
        line("a", done_s=3.5)
        + line("b", "failed", done_s=7.25)
        + line("c", "unparsed")
        + line("d", "failed")
        + line("d", "refused", done_s=6.0)
        + line("a", "failed", repeat=1)
        + line("e")
        + line("e", "failed")
        + b'{"sample_id": "torn'
    )
    found = opened(tmp_path)
    assert set(found.done) == {("a", 0), ("c", 0), ("d", 0)}
    assert found.clock_s == 7.25, "the clock goes on from the last record, whatever became of it"
    assert not (tmp_path / "journal.jsonl").read_bytes().endswith(b"torn")


def test_answers_of_another_model_are_set_aside(tmp_path: Path) -> None:
    opened(tmp_path)
    journal = line("a") + line("b")
    (tmp_path / "journal.jsonl").write_bytes(journal)
    assert len(opened(tmp_path).done) == 2, "the same model goes on"
    assert opened(tmp_path, {**MODEL, "model": "n"}).done == set()
    assert not (tmp_path / "journal.jsonl").exists()
    assert (tmp_path / "journal.jsonl.other-model").read_bytes() == journal


def test_readings_of_the_machine_are_appended_until_it_is_closed(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for at in range(2):
        folder = RunFolder(tmp_path)
        folder.open(MODEL)
        folder.write_system(SystemSample(float(at), "run", None, None, None, 0.0))
        folder.close()
        folder.write_system(SystemSample(9.0, "run", None, None, None, 0.0))
        folder.close()
    rows = [orjson.loads(each) for each in (tmp_path / "system.jsonl").read_bytes().splitlines()]
    assert [row["t_s"] for row in rows] == [0.0, 1.0]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_damaged_line_is_not_done_and_counted(tmp_path: Path) -> None:
    """Whatever bit falls over: the line is passed over, or what it says is what was written."""
    record = {"sample_id": "a", "repeat": 0, "status": "scored", "done_s": 1.5}
    text = with_checksum(orjson.dumps(record))
    assert orjson.loads(text)["sample_id"] == "a", "a line is JSON, whoever reads it"
    for at in range(len(text) - 1):
        for bit in range(8):
            spoilt = bytearray(text)
            spoilt[at] ^= 1 << bit
            read = [each for each in map(read_record, bytes(spoilt).splitlines(keepends=True)) if each]
            assert all({key: each.get(key) for key in record} == record for each in read), bytes(spoilt)
    (tmp_path / "journal.jsonl").write_bytes(
        text.replace(b'"a"', b'"b"') + line("old", done_s=2.0) + b'{"sample_id": "x", "status": 5}\n' + text
    )
    found = opened(tmp_path)
    assert set(found.done) == {("old", 0), ("a", 0)} and found.damaged == 2
