"""The samples inside the report: what is written is what the browser will read."""

from __future__ import annotations

import base64
import io
import random
import re
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sweep_data import Cell, make_sweep

from evalrun.reports import sample_chunks
from evalrun.reports import samples as writing
from evalrun.reports.sample_chunks import Rows, cut
from evalrun.reports.samples import SampleWriter
from evalrun.reports.source import Source
from evalrun.reports.verdicts import judge
from evalrun.reports.view import ScoreColumn, score_columns

BLOCK = re.compile(rb'<script type="([^"]+)" ([\w-]+)="([^"]+)">(.*?)</script>', re.DOTALL)


class Written:
    """The blocks of a report, read back."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self.chunks: list[dict[str, Any]] = []
        for kind, attribute, value, body in BLOCK.findall(data):
            if attribute == b"data-chunk":
                assert int(value) == len(self.chunks)
                self.chunks.append(orjson.loads(zlib.decompress(base64.b64decode(body))))
            elif kind == b"application/json":
                self.index = orjson.loads(body)
            else:
                self.columns = zlib.decompress(base64.b64decode(body))

    def samples(self) -> list[dict[str, Any]]:
        """All samples as the browser makes them up again."""
        found = []
        for chunk in self.chunks:
            for row in chunk["rows"]:
                sample = {**chunk["const"], **dict(zip(chunk["fields"], row, strict=True))}
                for message in sample.get("messages") or []:
                    if isinstance(message[1], int):
                        message[1] = chunk["texts"][message[1]]
                found.append(sample)
        return found


def write(source: Source, score: str | None = "exact_match") -> Written:
    out = io.BytesIO()
    scores = [ScoreColumn(score)] if score else []
    writer = SampleWriter(out, scores, total=sum(run.counts.samples for run in source.runs))
    for run in judge(source).views:
        path = source.samples(run.id)
        assert path is not None
        writer.add_run(run, path)
    writer.finish()
    return Written(out.getvalue())


def test_every_sample_comes_back(tmp_path: Path) -> None:
    source = Source.of(make_sweep(tmp_path, [Cell("m", "p", unparsed=0.1, failed=0.1)], n=1201))
    written = write(source)
    path = source.samples(source.runs[0].run)
    assert path is not None
    rows = pq.read_table(path).to_pylist()
    assert [len(chunk["rows"]) for chunk in written.chunks] == [500, 500, 201]
    for sample, row in zip(written.samples(), rows, strict=True):
        assert sample["sample_id"] == row["sample_id"]
        assert sample.get("output") == row["output"]
        assert sample.get("target") == row["target"]
        expected = [[m["role"], m["content"]] for m in orjson.loads(row["messages"])]
        assert sample["messages"] == expected
        if row["score.exact_match"] is not None:
            assert sample["score.exact_match"] == row["score.exact_match"]
        if row["e2e_s"] is not None:
            assert sample["e2e_s"] == pytest.approx(row["e2e_s"], abs=6e-5)


def test_what_repeats_is_written_once(tmp_path: Path) -> None:
    written = write(Source.of(make_sweep(tmp_path, [Cell("m", "p")], n=300)))
    (chunk,) = written.chunks
    assert "You sort support tickets (p). Give one label." in chunk["texts"]
    assert chunk["const"]["finish_reason"] == "stop"
    assert "vars.channel" in chunk["fields"]
    assert written.index["runs"][0]["input"] == "vars.text", "the row is shown by its longest text"
    assert not any(name.startswith(("attempt_log", "cost_usd")) for name in chunk["fields"])
    assert written.size < 300 * 120


def test_the_index_holds_what_filters_need(tmp_path: Path) -> None:
    cells = [Cell("m", "p", unparsed=0.2, failed=0.2), Cell("m", "q", cached=True)]
    source = Source.of(make_sweep(tmp_path, cells, n=70))
    written = write(source)
    n = written.index["n"]
    assert n == 140
    assert [run["start"] for run in written.index["runs"]] == [0, 70]
    scores = struct.unpack_from(f"<{n}f", written.columns, 0)
    keys = struct.unpack_from(f"<{n}I", written.columns, 8 * n)
    mirrors = struct.unpack_from(f"<{n}I", written.columns, 12 * n)
    answers = struct.unpack_from(f"<{n}I", written.columns, 16 * n)
    columns = [group["column"] for group in written.index["groups"]]
    place = columns.index("dialect")
    groups = struct.unpack_from(f"<{n}H", written.columns, 20 * n + 2 * n * place)
    flags = written.columns[20 * n + 2 * n * len(columns) :]
    endings = ["scored", "unparsed", "refused", "failed"]
    group = written.index["groups"][place]
    assert group["sensitive"] and "channel" in columns and "target" in columns
    assert "ticket" not in columns and "text" not in columns, "what has too many values is searched"
    target = written.index["groups"][columns.index("target")]
    assert "label" not in columns and target["also"] == ["label"], "it has the values of the target"
    path = source.samples(source.runs[0].run)
    assert path is not None
    for at, row in enumerate(pq.read_table(path).to_pylist()):
        assert endings[flags[at] & 3] == row["status"]
        assert bool(flags[at] & writing.WARMUP) == row["warmup"]
        assert bool(flags[at] & writing.RETRIED) == (row["attempts"] > 1)
        assert group["labels"][groups[at] - 1] == row["sensitive.dialect"]
        key = f"{row['sample_id']}/0".encode()
        assert (keys[at], mirrors[at]) == (zlib.crc32(key), zlib.crc32(key[::-1]))
        given = row["output"] if row["answer"] is None else row["answer"]
        assert answers[at] == (0 if given is None else zlib.crc32(given.encode()))
        assert (scores[at] == row["score.exact_match"]) or row["status"] == "failed"
    assert all(flag & writing.CACHED for flag in flags[70:])


def test_hostile_text_cannot_leave_its_block(tmp_path: Path) -> None:
    bad = "</script><script>alert(1)</script>\u202e\x00"

    def change(record: dict[str, Any], _: Any) -> dict[str, Any]:
        return {
            **record,
            "output": bad,
            "sensitive": {"dialect": bad},
            "sample_id": bad + record["sample_id"],
        }

    folder = make_sweep(tmp_path, [Cell("m", "p")], n=20, change=change)
    written = write(Source.of(folder))
    assert all(sample["output"] == bad for sample in written.samples())
    assert next(group for group in written.index["groups"] if group["column"] == "dialect")["labels"] == [bad]


def test_huge_texts_are_cut_and_say_so(tmp_path: Path) -> None:
    def change(record: dict[str, Any], _: Any) -> dict[str, Any]:
        return {**record, "output": "x" * 3_000_000 if record["position"] == 3 else "short"}

    written = write(Source.of(make_sweep(tmp_path, [Cell("m", "p")], n=40, change=change)))
    longest = max((sample["output"] for sample in written.samples()), key=len)
    assert len(longest) < 210_000
    assert "2,800,000 characters are left out of the report" in longest
    assert cut("short") == "short"
    assert written.size < 100_000


def test_texts_are_cut_to_the_room_that_a_page_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "BUDGET", 300_000)

    def change(record: dict[str, Any], rng: random.Random) -> dict[str, Any]:
        record["output"] = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=4000))
        return {**record, "sample_id": f"{record['sample_id']}-{'x' * 400}"}

    source = Source.of(make_sweep(tmp_path, [Cell("m", "p"), Cell("m", "q")], n=600, change=change))
    written = write(source)
    assert 150_000 < written.size < 330_000
    assert writing.SHORTEST <= written.index["cut"] < 1000
    outputs = [sample["output"] for sample in written.samples()]
    assert all("characters are left out of the report" in output for output in outputs)
    assert all(sample["sample_id"].endswith("x" * 400) for sample in written.samples())
    assert write(Source.of(make_sweep(tmp_path / "few", [Cell("m", "p")], n=9))).index["cut"] is None


def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    peaks = []
    for n in (2_000, 10_000):
        source = Source.of(
            make_sweep(tmp_path / str(n), [Cell("m", "p")], n=n, by=(), scorers=[{"exact_match": {}}])
        )
        view = judge(source).views[0]
        path = source.samples(view.id)
        assert path is not None
        with (tmp_path / "out").open("wb") as out:
            tracemalloc.start()
            writer = SampleWriter(out, [ScoreColumn("exact_match")])
            writer.add_run(view, path)
            writer.finish()
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_every_scorer_has_its_scores_and_the_headline_comes_first(tmp_path: Path) -> None:
    source = Source.of(make_sweep(tmp_path, [Cell("m", "p")], n=40))
    views = judge(source).views
    of_metric = score_columns(views, "classification.f1_macro")
    assert [column.name for column in of_metric] == ["classification", "exact_match"], "by its scorer"
    assert [column.name for column in score_columns(views, None)] == ["exact_match", "classification"]
    path = source.samples(views[0].id)
    assert path is not None
    out = io.BytesIO()
    writer = SampleWriter(out, of_metric)
    writer.add_run(views[0], path)
    writer.finish()
    written = Written(out.getvalue())
    assert [score["name"] for score in written.index["scores"]] == ["classification", "exact_match"]
    first = struct.unpack_from("<40f", written.columns, 0)
    assert list(first) == pq.read_table(path)["score.classification"].to_pylist()


def test_of_too_many_samples_the_same_are_shown_of_every_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MOST_SHOWN", 200)
    written = write(Source.of(make_sweep(tmp_path, [Cell("m", "p"), Cell("m", "q")], n=300)))
    first, second = (run["start"] for run in written.index["runs"])
    ids = [sample["sample_id"] for sample in written.samples()]
    assert ids[first:second] == ids[second:] == [name for name in ids[:second] if _shown(name, 200 / 600)]
    assert 60 < second < 140 and written.index["of"] == 600


def _shown(name: str, share: float) -> bool:
    return zlib.crc32(name.encode()) < share * 2**32


def test_messages_that_are_no_json_are_shown_as_they_are() -> None:
    def table(*texts: str | None) -> Rows:
        ids, asked = pa.array([f"s{at}" for at in range(len(texts))]), pa.array(texts, pa.string())
        return Rows(pa.RecordBatch.from_arrays([ids, asked], names=["sample_id", "messages"]))

    sound = '[{"role":"user","content":"What is it?"}]'
    one, other = {"role": "user", "content": [{"type": "image"}]}, {"content": "Say it"}
    written = orjson.loads(
        sample_chunks.chunk(table(sound, orjson.dumps([one, other]).decode(), None, sound))
    )
    shared, image = [["user", 0]], [["user", one["content"]], ["", "Say it"]]
    assert [row[1] for row in written["rows"]] == [shared, image, None, shared]
    assert written["texts"] == ["What is it?"]
    for broken in ("no [ JSON", '"a", "b"', "1], [2"):
        written = orjson.loads(sample_chunks.chunk(table(sound, broken, sound)))
        assert [row[1] for row in written["rows"]] == [shared, [["", broken]], shared]
