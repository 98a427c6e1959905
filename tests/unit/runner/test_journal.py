import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.errors import ExitCode, UserError
from evalrun.runner.journal import Journal, read_journal, repair_journal
from evalrun.types import SampleRecord, Status


def _record(sample_id: str, output: str = "an answer", target: object = "x") -> SampleRecord:
    return SampleRecord(
        sample_id=sample_id, repeat=0, position=0, vars={}, target=target, status=Status.SCORED, output=output
    )


async def test_writes_what_it_was_given_in_order(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    durable: list[int] = []
    journal = Journal(path, durable.append)
    for index in range(500):
        journal.append(_record(str(index)))
        if index % 50 == 0:
            await asyncio.sleep(0)
    await journal.close()
    assert [record["sample_id"] for record in read_journal(path)] == [str(index) for index in range(500)]
    assert sum(durable) == 500
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_line_is_in_the_file_after_the_turn_of_the_loop(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append(_record("a"))
    await asyncio.sleep(0)
    assert [record["sample_id"] for record in read_journal(path)] == ["a"]
    await journal.close()


async def test_lines_written_aside_never_hold_up_the_loop_and_all_get_there(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    durable: list[int] = []
    journal = Journal(path, durable.append, aside=True)
    for index in range(50):
        journal.append(_record(str(index)))
    await asyncio.sleep(0)
    assert not path.stat().st_size  # the thread that makes them durable writes them
    while not durable:  # noqa: ASYNC110  (a list, no event)
        await asyncio.sleep(0.01)
    assert len(list(read_journal(path))) == 50
    journal.append(_record("last"))
    await journal.close()
    assert [record["sample_id"] for record in read_journal(path)] == [*map(str, range(50)), "last"]


async def test_text_that_utf8_cannot_hold_is_replaced_and_huge_numbers_kept_as_text(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append(_record("a", output="broken \ud800 end", target=2**80))
    await journal.close()
    (record,) = read_journal(path)
    assert record["output"] == "broken ? end"
    assert record["target"] == str(2**80)


@settings(deadline=None)  # each example waits for the disk
@given(cut=st.integers(0, 400), text=st.text(max_size=40))
def test_torn_at_any_byte_only_the_torn_line_is_lost(
    tmp_path_factory: pytest.TempPathFactory, cut: int, text: str
) -> None:
    path = tmp_path_factory.mktemp("torn") / "journal.jsonl"

    async def write(name: str) -> None:
        journal = Journal(path)
        journal.append(dataclasses.replace(_record(name), prompt=text.encode("utf-8", "replace").decode()))
        await journal.close()

    asyncio.run(write("first"))
    asyncio.run(write("second"))
    size = path.stat().st_size
    os.truncate(path, max(0, size - cut))
    whole = path.read_bytes().count(b"\n")
    repair_journal(path)
    asyncio.run(write("third"))
    names = [record["sample_id"] for record in read_journal(path)]
    assert names == [*["first", "second"][:whole], "third"]


@pytest.mark.parametrize("torn", [1, 2, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("before", [b"", b"{}\n"])
def test_a_torn_line_of_any_length_is_cut_off(tmp_path: Path, before: bytes, torn: int) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(before + b"x" * torn)
    repair_journal(path)
    assert path.read_bytes() == before


async def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    journal = Journal(Path("/dev/full"))
    journal.append(_record("a"))
    await asyncio.sleep(0)
    with pytest.raises(UserError, match="cannot write the journal") as caught:
        journal.append(_record("b"))
    assert caught.value.exit_code is ExitCode.INCOMPLETE
    with pytest.raises(UserError):
        await journal.close()


def test_kill_9_loses_nothing_that_a_turn_of_the_loop_has_seen(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    code = f"""
import asyncio, os, signal
from pathlib import Path
from evalrun.runner.journal import Journal
from evalrun.types import SampleRecord, Status
async def main():
    journal = Journal(Path({str(path)!r}))
    for index in range(1000):
        journal.append(SampleRecord(sample_id=str(index), repeat=0, position=index, vars={{}}, target=None,
                                    status=Status.SCORED))
        await asyncio.sleep(0)
        if index == 700:
            os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    process = subprocess.run([sys.executable, "-c", code], check=False)
    assert process.returncode == -signal.SIGKILL
    assert [record["sample_id"] for record in read_journal(path)] == [str(index) for index in range(701)]
