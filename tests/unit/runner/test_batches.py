"""One run whose model takes whole batches: what is asked together, and what a batch that fails costs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from evalrun.datasets import open_dataset
from evalrun.errors import ExitCode, UserError
from evalrun.prompts import compile_prompt
from evalrun.providers.base import ProviderContext, create
from evalrun.runner.cell import Cell, CellContext, CellOptions, CellRun, Stop
from evalrun.runner.journal import Journal
from evalrun.runner.limits import FixedLimit, Throttle
from evalrun.scoring.pipeline import Pipeline
from evalrun.suite.load import parse_suite
from evalrun.suite.plan import cells
from evalrun.types import SampleRecord, Status

MODEL = """
import asyncio, json

async def answer(samples):
    rows = [sample.row["x"] for sample in samples]
    with open({log!r}, "a") as file:
        file.write(json.dumps(rows) + "\\n")
    {body}
    return [str(row) for row in rows]
"""


class Kept:
    """An observer that keeps the records, and asks for a stop after so many."""

    def __init__(self, stop_after: int = sys.maxsize) -> None:
        self.records: list[SampleRecord] = []
        self.stop = Stop()
        self._stop_after = stop_after

    def sample(self, run_id: str, record: SampleRecord) -> None:
        self.records.append(record)
        self.stop.requested = len(self.records) >= self._stop_after


class Batches:
    """Runs seven samples in batches of three on a function with this body; `asked` are the rows by batch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "asked.jsonl"
        self.kept = Kept()

    @property
    def asked(self) -> list[list[int]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    async def run(self, body: str = "pass", **options: Any) -> list[SampleRecord]:
        name = f"batch_model_{self.folder.name}".replace("-", "_")
        (self.folder / f"{name}.py").write_text(MODEL.format(log=str(self.log), body=body))
        suite = parse_suite(
            {
                "name": "t",
                "models": [{"id": "m", "provider": "python", "function": f"{name}:answer", "batch": 3}],
                "prompts": [{"id": "p", "text": "number {{ x }}"}],
                "datasets": [{"id": "d", "rows": [{"x": i} for i in range(7)], "target": "x"}],
                "parse": ["last_number"],
                "scorers": ["numeric"],
            }
        )
        (spec,) = cells(suite)
        made = {"stream": False, "warmup": 0, "timeout_s": 10.0, "retries": 1, "seed": 5, "tolerate": 1.0}
        provider = create(spec.model, ProviderContext(self.folder, self.folder))
        pipeline = Pipeline([each.build() for each in suite.parse], [each.build() for each in suite.scorers])
        dataset = open_dataset(spec.dataset, self.folder, suite.seed)
        renderer = compile_prompt(spec.prompt, self.folder).bind(None, suite.seed)
        journal = Journal(self.folder / "journal.jsonl")
        await provider.start()
        try:
            await CellRun(
                Cell.of(spec, dataset, renderer, provider, pipeline),
                CellOptions(**{**made, **options}),
                CellContext(journal, None, Throttle(FixedLimit(3)), self.kept, self.kept.stop),
            ).run()
        finally:
            await journal.close()
            await provider.close()
        return self.kept.records


@pytest.fixture
def batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Batches:
    monkeypatch.setattr(sys, "path", list(sys.path))
    return Batches(tmp_path)


async def test_every_sample_is_asked_once_and_the_last_batch_is_what_is_left(batches: Batches) -> None:
    records = await batches.run(warmup=2)
    assert [len(batch) for batch in batches.asked] == [3, 3, 1]
    assert sorted(x for batch in batches.asked for x in batch) == list(range(7))
    assert [(record.status, record.scores["numeric"]) for record in records] == [(Status.SCORED, 1.0)] * 7
    assert [record.warmup for record in records] == [True, True, *[False] * 5]
    assert len({record.sample_id for record in records}) == 7


async def test_the_samples_of_a_batch_share_their_deadlines(batches: Batches) -> None:
    records = await batches.run("await asyncio.sleep(1.2 if len(rows) == 3 else 60)", timeout_s=1.0)
    [late] = batches.asked[-1]
    ended = {record.target: (record.status, record.error) for record in records}
    message = "timeout: no answer to a batch of 1 within 1 s"
    assert ended.pop(late) == (Status.FAILED, message)
    assert list(ended.values()) == [(Status.SCORED, None)] * 6, "1.2 s of the 3 s that three samples have"


async def test_the_run_ends_where_too_many_fail(batches: Batches) -> None:
    with pytest.raises(UserError, match="3 of 7 samples failed") as caught:
        await batches.run("raise ValueError('odd')", tolerate=0.3)
    assert caught.value.exit_code is ExitCode.INCOMPLETE
    assert len(batches.asked) == 1, "no batch is begun after the fault"
    assert "odd" in str(caught.value)


async def test_a_stop_is_heard_between_batches(batches: Batches) -> None:
    batches.kept = Kept(stop_after=2)
    records = await batches.run()
    assert len(batches.asked) == 1
    assert len(records) == 3, "what was answered is kept"
