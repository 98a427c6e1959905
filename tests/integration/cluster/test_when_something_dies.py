"""Workers, nodes and drivers that die, pause or are told to go: all samples once, and little asked again."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from tests.integration.cluster.conftest import another_node, manifest_of, process, runs_of, write_suite
from tests.program import evalrun
from tests.servers import ChatServer

pytest.importorskip("ray", reason="needs ray (extra: ray)")
pytest.importorskip("obstore", reason="needs obstore (extra: ray)")

ROWS = 600
IN_FLIGHT = 4


def asking(of: int | None = None) -> list[psutil.Process]:
    """The workers of this test's cluster that ask a shard just now; those of one raylet."""
    above = psutil.Process(of) if of is not None else psutil.Process()
    found = []
    for each in above.children(recursive=True):
        try:
            if each.cmdline()[:1] == ["ray::run_shard"]:
                found.append(each)
        except psutil.Error:
            continue
    return found


def until(server: ChatServer, count: int) -> None:
    """Wait until the server was asked so often."""
    end = time.monotonic() + 60
    while len(server.bodies) < count and time.monotonic() < end:
        time.sleep(0.02)


def asked_twice(server: ChatServer) -> int:
    """How many requests came for samples that had been asked before."""
    return sum(count - 1 for count in Counter(server.questions).values())


def check_whole(store: Path, server: ChatServer) -> dict[str, Any]:
    """Every sample is there once, with the score it must have; what the manifest says of the cluster."""
    (run,) = runs_of(store)
    table = pq.read_table(run / "samples.parquet")
    assert sorted(table["sample_id"].to_pylist()) == sorted(f"r{number}" for number in range(ROWS))
    document = json.loads((run / "run.json").read_text())
    value = next(each["value"] for each in document["metrics"] if each["name"] == "exact_match")
    assert value == pytest.approx(400 / ROWS - 1 / ROWS + 1 / ROWS)
    assert set(server.questions) == {f"question {number}?" for number in range(ROWS)}
    said: dict[str, Any] = manifest_of(store)["cluster"]
    return said


def words(suite: Path, on: str, folder: Path, shard: int = 150) -> list[str | Path]:
    """The command."""
    return [
        suite, "--on", on, "--at", folder / "at", "--shard", str(shard), "--store", folder / "store",
        "--no-report",
    ]  # fmt: skip


def test_a_worker_and_a_node_are_killed(
    on: str, cluster: Any, tmp_path: Path, chat_server: ChatServer
) -> None:
    """What is asked again is what was in flight or in no segment, and the manifest says how much that was."""
    chat_server.delay_s = 0.2  # long enough that they die before all is answered, also on a busy machine
    suite = write_suite(tmp_path, chat_server.base_url, ROWS)
    killed = []

    def kill() -> None:
        until(chat_server, 60)
        (worker, *_) = asking()
        worker.kill()
        killed.append(len(chat_server.bodies))
        until(chat_server, 200)
        cluster.remove_node(node, allow_graceful=False)

    with another_node(cluster) as node:
        killer = threading.Thread(target=kill)
        killer.start()
        done = evalrun(*words(suite, on, tmp_path), cwd=tmp_path)
        killer.join()
    assert done.returncode == 0, done.stderr
    said = check_whole(tmp_path / "store", chat_server)
    again = asked_twice(chat_server)
    assert killed and killed[0] < ROWS
    assert again > 0
    assert said["lost_attempts"] >= 1
    # What the workers had reported, and at most what half a second more and the requests in flight bring.
    slack = said["lost_attempts"] * (IN_FLIGHT + 0.6 * IN_FLIGHT / 0.2)
    assert said["asked_again"] <= again <= said["asked_again"] + slack


def test_the_driver_is_killed(on: str, tmp_path: Path, chat_server: ChatServer) -> None:
    """The same command goes on from what was gathered and from segments, and says from how much."""
    chat_server.delay_s = 0.05
    suite = write_suite(tmp_path, chat_server.base_url, ROWS)
    driver = process(*words(suite, on, tmp_path, 60), cwd=tmp_path)
    end = time.monotonic() + 60
    while not list((tmp_path / "at").rglob("*.zst")) and time.monotonic() < end:
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    end = time.monotonic() + 30
    while asking() and time.monotonic() < end:  # Ray ends the tasks of a driver that is gone
        time.sleep(0.1)
    before = len(chat_server.bodies)
    done = evalrun(*words(suite, on, tmp_path, 100), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = re.search(r"(\d+) of 600 samples are from then", done.stderr)
    assert said is not None and 0 < int(said[1]) <= before < ROWS, done.stderr
    check_whole(tmp_path / "store", chat_server)
    assert len(chat_server.bodies) - before == ROWS - int(said[1])


def test_a_worker_is_told_to_go(on: str, tmp_path: Path, chat_server: ChatServer) -> None:
    """Nothing is asked again after a notice: what is in flight is answered and written, the rest moves on."""
    chat_server.delay_s = 0.03
    suite = write_suite(tmp_path, chat_server.base_url, ROWS)

    def tell() -> None:
        until(chat_server, 100)
        for worker in asking():
            worker.send_signal(signal.SIGTERM)

    teller = threading.Thread(target=tell)
    teller.start()
    done = evalrun(*words(suite, on, tmp_path), cwd=tmp_path)
    teller.join()
    assert done.returncode == 0, done.stderr
    check_whole(tmp_path / "store", chat_server)
    assert asked_twice(chat_server) == 0


def test_segments_that_are_damaged_or_gone(on: str, tmp_path: Path, chat_server: ChatServer) -> None:
    """Of a driver that was killed: a segment in which a byte changed is passed over, and said."""
    chat_server.delay_s = 0.01
    suite = write_suite(tmp_path, chat_server.base_url, ROWS)
    driver = process(*words(suite, on, tmp_path, 50), cwd=tmp_path)
    end = time.monotonic() + 60
    while len(list((tmp_path / "at").rglob("*.zst"))) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    segments = sorted((tmp_path / "at").rglob("*.zst"))
    data = bytearray(segments[0].read_bytes())
    data[len(data) // 2] ^= 1
    segments[0].write_bytes(bytes(data))
    for path in (tmp_path / "store").rglob("journal.jsonl"):
        path.unlink()
    done = evalrun(*words(suite, on, tmp_path, 300), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "were damaged" in done.stderr
    check_whole(tmp_path / "store", chat_server)


def keeper() -> psutil.Process:
    """The actor that keeps limits and budget."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for each in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if each.cmdline()[:1] == ["ray::Keeper"] or each.cmdline()[0].startswith("ray::Keeper."):
                    return each
        time.sleep(0.05)
    raise AssertionError("there is no keeper")


def test_a_budget_without_its_keeper_pays_for_nothing_more(
    on: str, tmp_path: Path, chat_server: ChatServer
) -> None:
    """The sweep ends with exit code 3, and the same command goes on with what is left of the budget."""
    chat_server.delay_s = 0.05
    price = {"input_per_million_usd": 1, "output_per_million_usd": 1}
    suite = write_suite(tmp_path, chat_server.base_url, ROWS, model={"price": price}, budget={"usd": 100})
    driver = process(*words(suite, on, tmp_path), cwd=tmp_path)
    until(chat_server, 100)
    keeper().kill()
    said = driver.communicate(timeout=90)[0]
    assert driver.returncode == 3, said
    assert "what keeps the budget over all nodes is gone, so nothing more is spent" in said
    assert "Traceback" not in said
    before = len(chat_server.bodies)
    assert before < ROWS
    done = evalrun(*words(suite, on, tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_whole(tmp_path / "store", chat_server)
    assert asked_twice(chat_server) <= 2 * IN_FLIGHT


def test_a_node_that_joins_is_used(on: str, cluster: Any, tmp_path: Path, chat_server: ChatServer) -> None:
    """More shards are asked at a time than the two nodes that were there at the beginning can."""
    chat_server.delay_s = 0.05
    suite = write_suite(tmp_path, chat_server.base_url, 3 * ROWS)
    driver = process(*words(suite, on, tmp_path, 60), cwd=tmp_path)
    until(chat_server, 60)
    with another_node(cluster):
        said = driver.communicate(timeout=120)[0]
        assert driver.returncode == 0, said
        (run,) = runs_of(tmp_path / "store")
        nodes = json.loads((run / "run.json").read_text())["timings"]["nodes"]
    assert len(nodes) == 3
    assert max(node["samples"] for node in nodes) > ROWS / 2
    assert asked_twice(chat_server) == 0
