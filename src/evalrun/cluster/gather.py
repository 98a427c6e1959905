"""The segments of a run gathered into its journal, and what each node's clock says of its part."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import orjson

from evalrun.cluster.place import Place
from evalrun.cluster.segments import PUT_INTERVAL_S, Segments, read_segment
from evalrun.cluster.shard import NodeInfo, Shard, ShardDone
from evalrun.lines import read_record, with_checksum
from evalrun.runner.journal import Earlier, Journal, RunFolder
from evalrun.types import JSON, Message, SampleRecord, Status

if TYPE_CHECKING:
    from evalrun.runner.cell import Observer
    from evalrun.sweep.finish import Measured
    from evalrun.sweep.matrix_job import MatrixJob

Key = tuple[str, int]


def _doubles() -> array[float]:
    return array("d")


@dataclass(slots=True)
class NodeFigures:
    """What one node's clock says of its part of a run. Moments are seconds of that clock alone."""

    host: str
    samples: int = 0
    tokens: int = 0
    first_s: float = float("inf")
    last_s: float = float("-inf")
    e2e_s: array[float] = field(default_factory=_doubles)
    ttft_s: array[float] = field(default_factory=_doubles)

    def add(self, record: Mapping[str, Any]) -> None:
        """One more sample that it answered."""
        if record.get("e2e_s") is None or record.get("warmup") or record.get("cached"):
            return
        self.samples += 1
        self.tokens += record.get("completion_tokens") or 0
        self.e2e_s.append(record["e2e_s"])
        if record.get("ttft_s") is not None:
            self.ttft_s.append(record["ttft_s"])
        self.first_s, self.last_s = min(self.first_s, record["sent_s"]), max(self.last_s, record["done_s"])

    @property
    def seconds(self) -> float:
        """From its first request to its last answer."""
        return max(0.0, self.last_s - self.first_s) if self.samples else 0.0

    def document(self, node: str) -> dict[str, JSON]:
        """For `run.json`."""
        import numpy as np

        def quantiles(values: array[float]) -> dict[str, JSON]:
            points = np.quantile(np.frombuffer(values), [0.5, 0.95, 0.99]).tolist() if len(values) else []
            return dict(zip(("p50", "p95", "p99"), points, strict=False))

        return {
            "node": node,
            "host": self.host,
            "samples": self.samples,
            "seconds": self.seconds,
            "requests_per_s": self.samples / self.seconds if self.seconds else None,
            "output_tokens_per_s": self.tokens / self.seconds if self.seconds and self.tokens else None,
            "e2e_s": quantiles(self.e2e_s),
            **({"ttft_s": quantiles(self.ttft_s)} if len(self.ttft_s) else {}),
        }


class Gathered:
    """What is there of one run: read from segments, written into its journal."""

    def __init__(self, place: Place, root: str, prefix: str, job: MatrixJob, observer: Observer) -> None:
        self._place, self._own_prefix = place, f"{root}/{prefix}/driver"
        self._job, self._observer = job, observer
        self.folder = RunFolder(job.folder.run_dir(job.name))
        self.done: set[Key] = set()
        """Samples that have an answer; `failed` those whose asking failed in this part of the sweep."""
        self.failed: set[Key] = set()
        self.twice = 0
        """Answers to samples that had one already."""
        self.damaged: list[str] = []
        """Segments that are not what was written."""
        self.by_attempt: Counter[str] = Counter()
        self.nodes: dict[str, NodeFigures] = {}
        self._journal: Journal | None = None
        self._kept: dict[str, Segments] = {}
        self._last_put_s = 0.0

    def open(self, identity: Mapping[str, JSON]) -> Earlier:
        """Take up the journal."""
        earlier = self.folder.open(identity)
        self.done = set(earlier.done)
        self._journal = Journal(self.folder.journal)
        return earlier

    async def take(self, path: str) -> None:
        """The answers in a segment."""
        segment = await asyncio.to_thread(read_segment, self._place, path)
        if segment is None:
            self.damaged.append(path)
            return
        header = segment.header
        self.by_attempt[str(header.get("attempt"))] += len(segment.records)
        node = NodeInfo(str(header.get("node")), str(header.get("host")))
        for count, record in enumerate(segment.records):
            self._add(record, node)
            if count % 500 == 499:
                await asyncio.sleep(0)

    async def take_result(self, done: ShardDone) -> None:
        """All that a shard wrote and gave back. What it gave back is written in segments here."""
        for path in done.segments:
            await self.take(path)
        if not done.lines:
            return
        node = done.node
        self.by_attempt[done.attempt] += len(done.lines)
        for line in done.lines:
            record = read_record(line)
            if record is not None:
                self._add(record, node)
        if node.id not in self._kept:
            header: dict[str, JSON] = {"run": self._job.name, "node": node.id, "host": node.host}
            self._kept[node.id] = Segments(self._place, self._own_prefix, header, self._turn)
        for line in done.lines:
            self._kept[node.id].append_line(line)

    def _turn(self) -> bool:
        now = time.monotonic()
        if now - self._last_put_s < PUT_INTERVAL_S:
            return False
        self._last_put_s = now
        return True

    def _add(self, record: dict[str, Any], node: NodeInfo) -> None:
        key = (str(record["sample_id"]), int(record.get("repeat", 0)))
        self.nodes.setdefault(node.id, NodeFigures(node.host)).add(record)
        if key in self.done:
            self.twice += 1
            return
        if record.get("status") == Status.FAILED:
            self.failed.add(key)
        else:
            self.done.add(key)
            self.failed.discard(key)
        # Moments of one node's clock mean nothing beside those of another's.
        record |= {"sent_s": None, "done_s": None, "scheduled_s": None}
        assert self._journal is not None
        self._journal.append_line(with_checksum(orjson.dumps(record)))
        self._observer.sample(self._job.name, _seen(record))

    def missing(self, shard: Shard) -> bool:
        """Whether samples of a shard have no record."""
        return any(
            (item.sample_id, repeat) not in self.done and (item.sample_id, repeat) not in self.failed
            for item in shard.items
            for repeat in range(self._job.spec.repeats)
        )

    def done_of(self, shard: Shard) -> frozenset[Key]:
        """The samples of a shard that have a record."""
        repeats = range(self._job.spec.repeats)
        keys = ((item.sample_id, repeat) for item in shard.items for repeat in repeats)
        return frozenset(key for key in keys if key in self.done or key in self.failed)

    async def close(self) -> None:
        """Make all durable, here and there. Raises UserError."""
        for kept in self._kept.values():
            await kept.close(inline=False)
        if self._journal is not None:
            await self._journal.close()
            self._journal = None
        self.folder.close()
        for kept in self._kept.values():
            if kept.error is not None:
                raise kept.error


def measured(
    gathered: Gathered, results: Iterable[ShardDone], started_at: datetime, wall_s: float
) -> Measured:
    """What was measured of a run, from what its shards say. Rates are sums over nodes of each one's own."""
    from evalrun.analysis.performance import SystemSummary
    from evalrun.sweep.finish import Measured

    every = list(results)
    nodes = [figures.document(node) for node, figures in sorted(gathered.nodes.items())]
    said = f"over {len(nodes)} nodes, each by its own clock"
    figures, notes = {}, {}
    for name in ("requests_per_s", "output_tokens_per_s"):
        rates = [cast("float", node[name]) for node in nodes if node[name] is not None]
        if rates:
            figures[f"performance.{name}"] = sum(rates)
            notes[f"performance.{name}"] = f"the sum {said}"
    stages: Counter[str] = Counter()
    for each in every:
        stages.update(each.stages)
    system = SystemSummary(
        engine_peak_bytes=_most(each.engine_peak_bytes for each in every),
        client_peak_bytes=_most(each.client_peak_bytes for each in every),
        client_cpu_s=sum(each.cpu_s or 0.0 for each in every) if every else None,
        wall_s=wall_s,
        loop_lag_p99_s=_most(each.lag_p99_s for each in every),
        figures=figures,
        notes=notes,
        stages=dict(stages),
        beside=f"latencies are {said}" if len(nodes) > 1 else "",
    )
    timings = {
        "started_at": started_at.isoformat(),
        "finished_at": datetime.now(UTC).isoformat(),
        "wall_s": wall_s,
        "concurrency": {
            "adaptive": False,
            "final": _most(each.concurrency for each in every) or 0,
            "changes": [],
        },
        "workers": 0,
        "limits": None,
        "nodes": nodes,
        "shards": len(every),
        "answered_twice": gathered.twice,
    }
    return Measured(system, timings)


def _most(values: Iterable[Any]) -> Any:
    return max((value for value in values if value is not None), default=None)


def _seen(record: Mapping[str, Any]) -> SampleRecord:
    """A record as observers look at it."""
    messages = tuple(Message(each["role"], each["content"]) for each in record.get("messages") or ())
    status = Status(record["status"])
    return cast("SampleRecord", SimpleNamespace(**{**record, "messages": messages, "status": status}))
