"""Why a sample's answer is, or is not, in the response cache: for a suite, or for a sweep on disk."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from evalrun.errors import UserError
from evalrun.runner.asked import sent_params
from evalrun.runner.cache import KeyMaker
from evalrun.runner.cache_look import Explanation, explain
from evalrun.runner.source import Prepared, Source, SourceOptions, sample_seed
from evalrun.suite.load import load_suite
from evalrun.suite.overrides import Overrides
from evalrun.suite.plan import RunSpec
from evalrun.sweep.prepare import PreparedSweep, prepare
from evalrun.tracking.folder import SweepFolder
from evalrun.types import Message, Request


@dataclass(frozen=True, slots=True)
class Explained:
    """One request of one run, and what the cache has for it."""

    run: str
    sample_id: str
    repeat: int
    explanation: Explanation


def explain_suite(
    suite: Path, overrides: Overrides, cache: Path, sample_id: str, run: str | None
) -> list[Explained]:
    """Explain what the suite would ask now. Starts the models (engines of ours too) to know what they are,
    and asks them nothing. Raises UserError where no run has the sample."""
    with tempfile.TemporaryDirectory(prefix="evalrun-") as folder:
        prepared = prepare(load_suite(suite, overrides), Path(folder))
        found = []
        for spec in prepared.specs:
            if run is None or spec.run_id.startswith(run):
                provider = prepared.providers[spec.model.id]
                items = [item for item in prepared.datasets[spec.dataset.id] if item.sample_id == sample_id]
                if items and provider.measured:
                    found += asyncio.run(_explain_run(prepared, spec, items, cache))
    if not found:
        raise _missing(sample_id, str(suite))
    return found


async def _explain_run(
    prepared: PreparedSweep, spec: RunSpec, items: list[Any], cache: Path
) -> list[Explained]:
    provider = prepared.providers[spec.model.id]
    try:
        await provider.start()
        keys = KeyMaker(provider.identity(), sent_params(spec))
    finally:
        await provider.close()
    source = Source(
        items,  # type: ignore[arg-type]  # a dataset is iterated, and nothing else
        prepared.renderer(spec),
        SourceOptions(sent_params(spec), spec.repeats, prepared.loaded.suite.seed, stream=False),
        skip=frozenset(),
        cache=None,
        keys=keys,
        on_hit=_no_hit,
    )
    found = []
    while (asked := await source.take()) is not None:
        assert asked.key is not None
        request = asked.request
        explanation = explain(cache, keys, asked.key, request)
        found.append(Explained(spec.run_id, request.sample_id, request.repeat, explanation))
    return found


def _no_hit(prepared: Prepared, response: object) -> None:
    raise AssertionError("there is no cache to hit")


def explain_sweep(folder: SweepFolder, cache: Path, sample_id: str, run: str | None) -> list[Explained]:
    """Explain what a sweep asked, by its folder alone. Raises UserError where no run has the sample."""
    manifest = folder.manifest()
    found = []
    for planned in manifest.plan:
        path = folder.samples_path(planned.run)
        if not path.exists() or (run is not None and not planned.run.startswith(run)):
            continue
        keys = KeyMaker(manifest.models.get(planned.model, {}), planned.params)
        for request in _requests(path, sample_id, planned.params, int(manifest.seeds.get("root") or 0)):
            seed = request.params.get("seed") if "seed" not in planned.params else None
            key = keys.key(request.messages, request.prompt, request.repeat, seed)
            explanation = explain(cache, keys, key, request)
            found.append(Explained(planned.run, sample_id, request.repeat, explanation))
    if not found:
        raise _missing(sample_id, str(folder.path))
    return found


def _requests(path: Path, sample_id: str, params: dict[str, Any], root: int) -> Iterator[Request]:
    import pyarrow.parquet as pq

    columns = ["sample_id", "repeat", "messages", "prompt"]
    rows = pq.read_table(path, columns=columns, filters=[("sample_id", "=", sample_id)]).to_pylist()
    for row in rows:
        options = SourceOptions(params, 1, root, stream=False)
        sent = params
        if options.samples_randomly:
            sent = {**params, "seed": sample_seed(root, sample_id, row["repeat"])}
        messages = orjson.loads(row["messages"]) if isinstance(row["messages"], str) else row["messages"]
        yield Request(
            sample_id=sample_id,
            repeat=row["repeat"],
            messages=tuple(Message(each["role"], each["content"]) for each in messages or ()),
            prompt=row["prompt"],
            params=sent,
            row={},
        )


def _missing(sample_id: str, where: str) -> UserError:
    return UserError(
        f"there is no sample '{sample_id}' in a run that asks a model",
        where=where,
        remedy="`evalrun samples RUN` lists the ids of a sweep's samples; without a key column, an id is a "
        "digest of the row.",
    )
