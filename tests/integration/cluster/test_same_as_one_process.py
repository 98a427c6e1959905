"""A sweep on two nodes has the samples and numbers of one process, and says what each node's clock said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.integration.cluster.conftest import manifest_of, runs_of, write_suite
from tests.program import evalrun
from tests.servers import ChatServer

from evalrun.cluster.place import Place
from evalrun.cluster.segments import records_of

pytest.importorskip("ray", reason="needs ray (extra: ray)")
pytest.importorskip("obstore", reason="needs obstore (extra: ray)")

TIMINGS = {"e2e_s", "ttft_s", "tpot_s", "client_queue_s", "sent_s", "done_s", "attempt_log", "chunk_gaps"}
OF_THE_MACHINE = ("performance.", "memory.", "cpu.", "disk.", "energy.", "gpu.")


def metrics(run: Path) -> dict[tuple[str, str], Any]:
    """The metrics of a run that do not depend on time or machine."""
    document = json.loads((run / "run.json").read_text())
    return {
        (each["name"], json.dumps(each["slice"])): {**each, "note": ""}
        for each in document["metrics"]
        if not each["name"].startswith(OF_THE_MACHINE)
    }


def same(here: Path, there: Path) -> None:
    """All columns but timings are equal, and so are the metrics."""
    one, other = pq.read_table(here / "samples.parquet"), pq.read_table(there / "samples.parquet")
    assert one.schema.names == other.schema.names
    for name in one.schema.names:
        if name not in TIMINGS:
            assert one[name].equals(other[name]), name
    assert metrics(here) == metrics(there)


@pytest.mark.parametrize("shard", [100, 5000])
def test_two_nodes_and_one_process_have_equal_samples(
    on: str, tmp_path: Path, chat_server: ChatServer, shard: int
) -> None:
    """Drawn few-shot examples, seeds of drawn answers, repeats, a prompt's own parsers and groups are those
    of one process."""
    chat_server.answer = lambda body: f"{(body['seed'] + len(str(body['messages']))) % 3 * 21}"
    suite = write_suite(
        tmp_path,
        chat_server.base_url,
        240,
        prompts=[
            {"id": "shown", "text": "{{ q }}?", "few_shot": {"count": 2, "path": "rows.jsonl"}},
            {"id": "direct", "text": "{{ q }}?", "parse": [{"regex": "(4)2"}]},
        ],
        repeats=2,
        model={"params": {"temperature": 0.7, "max_tokens": 16}},
    )
    alone = evalrun(suite, "--store", tmp_path / "one", "--no-report", "--no-cache", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    asked = len(chat_server.bodies)
    there = evalrun(
        suite, "--on", on, "--at", tmp_path / "at", "--shard", str(shard), "--store", tmp_path / "two",
        "--report", tmp_path / "two.html", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert there.returncode == 0, there.stderr
    assert len(chat_server.bodies) - asked == asked == 960
    for here, other in zip(runs_of(tmp_path / "one"), runs_of(tmp_path / "two"), strict=True):
        same(here, other)
        timings = json.loads((other / "run.json").read_text())["timings"]
        assert sum(node["samples"] for node in timings["nodes"]) == 480
        assert pq.read_table(other / "samples.parquet")["sent_s"].null_count == 480
    answers = {
        run.name: set(pq.read_table(run / "samples.parquet")["answer"].to_pylist())
        for run in runs_of(tmp_path / "two")
    }
    assert any(each == {None, "4"} for each in answers.values()), answers
    assert manifest_of(tmp_path / "two")["cluster"]["asked_again"] == 0
    if shard == 100:
        assert "by its own clock" in (tmp_path / "two.html").read_text()


def test_segments_are_few_and_immutable(on: str, tmp_path: Path, chat_server: ChatServer) -> None:
    """Small shards share segments: no node writes more than one a second. Names tell digests."""
    suite = write_suite(tmp_path, chat_server.base_url, 400)
    done = evalrun(
        suite, "--on", on, "--at", tmp_path / "at", "--shard", "10", "--store", tmp_path / "s", "--no-report",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    segments = sorted((tmp_path / "at").rglob("*.zst"))
    by_moment: dict[int, int] = {}
    for path in segments:
        assert re.search(r"-[0-9a-f]{32}\.jsonl\.zst$", path.name)
        by_moment[int(path.stat().st_mtime)] = by_moment.get(int(path.stat().st_mtime), 0) + 1
    # Two nodes and the driver, each at most one in a second: two may fall into one second of the clock.
    assert max(by_moment.values()) <= 6
    assert len(segments) < 40


def test_data_lies_on_the_driver_alone_and_is_redacted_before_it_leaves_a_node(
    on: str, tmp_path: Path, chat_server: ChatServer
) -> None:
    """What is stored is what one process stores: equal pseudonyms, and no personal datum in any object."""
    chat_server.answer = lambda body: f"Write to ana{len(str(body['messages'])) % 3}@example.org: 42"
    folder = tmp_path / "nodes see this"
    suite = write_suite(
        folder, chat_server.base_url, 60, privacy={"redact": "standard", "columns": {"group": "hmac"}}
    )
    data = tmp_path / "driver alone" / "people.jsonl"
    data.parent.mkdir()
    (folder / "rows.jsonl").rename(data)
    lines = [{**json.loads(line), "q": f"Who is jo{number}@example.org?"} for number, line in
             enumerate(data.read_text().splitlines())]  # fmt: skip
    data.write_text("\n".join(map(json.dumps, lines)))
    words = (suite, "--data", f"rows={data}", "--store", tmp_path / "store", "--no-report", "--fresh")
    alone = evalrun(*words, "--no-cache", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    (here,) = runs_of(tmp_path / "store")
    there = evalrun(*words, "--on", on, "--at", tmp_path / "at", "--shard", "25", cwd=tmp_path)
    assert there.returncode == 0, there.stderr
    (other,) = runs_of(tmp_path / "store")
    assert here != other
    same(here, other)
    outputs = pq.read_table(other / "samples.parquet")["output"].to_pylist()
    assert set(outputs) == {"Write to <EMAIL_1>: 42"} or all("<EMAIL" in text for text in outputs)
    place = Place(str(tmp_path / "at"))
    segments = [name for name in place.names("") if name.endswith(".zst")]
    assert sum(1 for _ in records_of(place, segments)) == 60
    assert not any("@example.org" in json.dumps(record) for record in records_of(place, segments))
