"""What a task does: some rows of one run, asked and scored as in one process, the answers put in segments.

A worker process of Ray keeps what it made of the suite, and the providers it started, for the shards that
come after. Engines live in an actor on each node, whose process is the same thing kept alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalrun.cluster.keeper import REPORT_S, Line, RemotePurse, SharedBudget
from evalrun.cluster.place import Place
from evalrun.cluster.plan import PLAN, compare, here, read_plan
from evalrun.cluster.segments import Segments, Turns, records_of
from evalrun.datasets import Item
from evalrun.errors import UserError
from evalrun.prompts import FewShotPool, Renderer
from evalrun.providers.base import Provider, ProviderContext, create
from evalrun.runner.cell import Cell, CellContext, CellOptions, CellRun, Stop
from evalrun.runner.journal import Earlier
from evalrun.runner.limits import Limit, Throttle
from evalrun.runner.watch import Watch
from evalrun.suite.components import ModelSpec
from evalrun.suite.overrides import Overrides
from evalrun.suite.plan import RunSpec
from evalrun.suite.values import LimitsSpec
from evalrun.sweep.private import Carried
from evalrun.types import JSON, SampleRecord, Status


@dataclass(frozen=True, slots=True)
class Shared:
    """What all tasks of a sweep are given: where the plan and the suite lie, and what is shared by all.

    `limits` are by endpoint, `share` is the part of them that is a task's when the keeper dies; `pools` are
    few-shot examples by prompt, dataset and api; `of_tasks` are runs of published tasks, whose items come
    rendered; `privacy` is what the redactor of the suite knows; `in_flight` is the one number of requests of
    runs that name none; `budget` says that a budget is kept.
    """

    url: str
    root: str
    digest: str
    suite: Path
    overrides: Overrides
    pools: Mapping[tuple[str, str, str], FewShotPool]
    of_tasks: Mapping[str, RunSpec]
    privacy: Carried | None
    in_flight: int | None
    limits: Mapping[str, LimitsSpec]
    share: float
    budget: bool
    keeper: Any


@dataclass(frozen=True, slots=True)
class Shard:
    """Some rows of a run. `done` are samples of them (id, repeat) that have answers; `total` is how many
    samples the whole run has; the first shard of a run has its warm-up."""

    run_id: str
    number: int
    prefix: str
    items: Sequence[Item]
    done: frozenset[tuple[str, int]]
    samples: int
    total: int
    first: bool

    @property
    def name(self) -> str:
        """What it is called to the keeper."""
        return self.prefix


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A machine of the cluster. Clocks of one `boot` can be compared, those of two cannot."""

    id: str
    host: str


@dataclass(slots=True)
class ShardDone:
    """What came of a shard. `lines` are records that are in no segment; `fault` why it ended early."""

    node: NodeInfo
    attempt: str = ""
    identity: dict[str, JSON] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)
    segments: list[str] = field(default_factory=list)
    fault: UserError | None = None
    stopped: bool = False
    stages: dict[str, float] = field(default_factory=dict)
    client_peak_bytes: int | None = None
    engine_peak_bytes: int | None = None
    cpu_s: float | None = None
    lag_p99_s: float | None = None
    concurrency: int = 0
    unredacted: tuple[int, str] = (0, "")
    """Texts that could not be redacted, and why."""


@dataclass(frozen=True, slots=True)
class _Rows:
    items: Sequence[Item]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)


def node_info() -> NodeInfo:
    """This machine, as Ray and the network know it."""
    import platform

    import ray

    return NodeInfo(str(ray.get_runtime_context().get_node_id()), platform.node())


class Host:
    """What a process made of a sweep. Raises UserError where it is not what the plan says."""

    def __init__(self, shared: Shared) -> None:
        from evalrun.prompts import with_variants
        from evalrun.scoring.pipeline import Pipeline, suite_scorers
        from evalrun.suite.load import load_suite
        from evalrun.suite.plan import cells, matrix
        from evalrun.sweep.code import scoring_code
        from evalrun.sweep.private import redactor_there

        self.shared, self.node = shared, node_info()
        where = f"node {self.node.host} ({self.node.id[:8]})"
        self.place = Place(shared.url)
        plan = read_plan(self.place, f"{shared.root}/{PLAN}", where)
        if plan.digest != shared.digest:
            raise UserError(
                "the plan is not that of this sweep", where=f"{self.place.url}/{shared.root}/{PLAN}"
            )
        if not shared.suite.exists():
            raise UserError(
                f"there is no {shared.suite} here",
                where=where,
                remedy="Put the suite's folder on every node at the same path, or on a shared one.",
            )
        loaded = load_suite(shared.suite, shared.overrides, look=False)  # rows come with the shards
        self.suite, self.base_dir = loaded.suite, loaded.base_dir
        specs = matrix(self.suite) if shared.of_tasks else cells(self.suite)
        if any(prompt.ablate for prompt in self.suite.prompts):
            specs = with_variants(specs, self.base_dir)
        self.specs = {**{spec.run_id: spec for spec in specs}, **shared.of_tasks}
        self.pipeline = Pipeline(
            [each.build() for each in self.suite.parse], suite_scorers(self.suite), "at once"
        )
        code = scoring_code(self.suite, self.pipeline, self.base_dir)
        mine = {**here(self.suite), **{f"code {name}": each for name, each in code.items()}}
        self._renderers: dict[tuple[str, str, str], Renderer] = {}
        for spec in specs:
            self._add_prompt(spec, mine)
        compare(plan.digests, mine, where)
        self._redactor = redactor_there(self.suite, self.base_dir, shared.privacy)
        self._providers: dict[str, Provider] = {}
        self._limits: dict[str, dict[int | None, Limit]] = {}
        self._line = Line(shared.keeper, shared.share)
        self._budgets: dict[str, SharedBudget] = {}
        self._runner = asyncio.Runner()
        self._work = Path(_session_folder()) / "evalrun"
        self._work.mkdir(parents=True, exist_ok=True)
        self._turns = Turns(self._work / f"turns-{self.node.id[:16]}")

    def _add_prompt(self, spec: RunSpec, digests: dict[str, str]) -> None:
        from evalrun.prompts import compile_prompt
        from evalrun.sweep.prompting import api_of

        api = api_of(spec.model)
        key = (spec.prompt.id, spec.dataset.id, api)
        if key not in self._renderers:
            prompt = compile_prompt(spec.prompt, self.base_dir, api)
            digests[f"prompt {spec.prompt.id}/{api}"] = prompt.digest
            self._renderers[key] = prompt.bind(self.shared.pools.get(key), self.suite.seed)

    def _renderer(self, spec: RunSpec) -> Renderer:
        from evalrun.sweep.prepare import task_renderer
        from evalrun.sweep.prompting import api_of

        if spec.run_id in self.shared.of_tasks:
            return task_renderer()
        return self._renderers[spec.prompt.id, spec.dataset.id, api_of(spec.model)]

    def identities(self, models: Sequence[str]) -> dict[str, dict[str, JSON]]:
        """Who would answer, by model. Starts the providers."""
        specs = {spec.model.id: spec.model for spec in self.specs.values()}
        return {name: self._runner.run(self._identity(specs[name])) for name in models}

    async def _identity(self, model: ModelSpec) -> dict[str, JSON]:
        return (await self._provider(model)).identity()

    async def _provider(self, model: ModelSpec) -> Provider:
        provider = self._providers.get(model.id)
        if provider is None:
            context = ProviderContext(self.base_dir, self._work, self.suite.deterministic, self.suite.seed)
            provider = create(model, context)
            await provider.start()
            self._providers[model.id] = provider
        return provider

    def close(self) -> None:
        """End the engines and connections."""
        for provider in self._providers.values():
            with contextlib.suppress(Exception):
                self._runner.run(provider.close())
        self._providers = {}

    def run(self, shard: Shard) -> ShardDone:
        """Ask a shard. A fault is in the result."""
        done = ShardDone(self.node)
        try:
            self._runner.run(self._run(shard, done))
        except UserError as error:
            done.fault = error
        return done

    async def _run(self, shard: Shard, done: ShardDone) -> None:
        from evalrun.scoring.pipeline import Pipeline
        from evalrun.sweep.endpoints import limit_of

        spec = self.specs[shard.run_id]
        stop = Stop()
        provider = await self._provider(spec.model)
        done.identity = provider.identity()
        prefix = f"{self.shared.root}/{shard.prefix}"
        before = self.place.names(prefix)
        earlier = {_key(each) for each in records_of(self.place, before)}
        segments = self._segments(shard, prefix)
        done.attempt = segments.attempt
        task = shard.run_id in self.shared.of_tasks
        pipeline = Pipeline((), (), "never") if task else self.pipeline.for_prompt(spec.prompt)
        cell = Cell.of(spec, _Rows(shard.items), self._renderer(spec), provider, pipeline)
        limit = limit_of(
            self.suite, spec.model, provider, self._limits.setdefault(provider.endpoint, {}),
            self.shared.in_flight,
        )  # fmt: skip
        throttle = Throttle(limit, self._budget(provider.endpoint))
        purse = RemotePurse(self._line, segments.attempt) if self.shared.budget else None
        observer = _Observer(purse, spec)
        context = CellContext(segments, None, throttle, observer, stop, purse)  # type: ignore[arg-type]
        run = CellRun(
            cell,
            self._options(spec, provider, shard),
            context,
            # A clock that all processes of this machine have, so that windows of its shards can be joined.
            Earlier(shard.done | earlier, time.perf_counter()),
        )
        watch = Watch(provider, lambda _: None)
        try:
            with _notice(stop, segments):
                reporting = asyncio.get_running_loop().create_task(
                    self._report(shard, segments, observer, stop)
                )
                try:
                    async with watch:
                        await run.run()
                finally:
                    reporting.cancel()
                    await asyncio.gather(reporting, return_exceptions=True)
                    await segments.close(inline=True)
        finally:
            done.lines, done.segments = segments.left, [*before, *segments.written]
            self._note(done, run, limit, watch)
            await self._line.call(
                "report", shard.name, segments.attempt, self.node.host, observer.counts, True
            )
        if segments.error is not None and done.fault is None:
            done.fault = segments.error

    def _segments(self, shard: Shard, prefix: str) -> Segments:
        header: dict[str, JSON] = {
            "run": shard.run_id,
            "shard": shard.number,
            "plan": self.shared.digest,
            "node": self.node.id,
            "host": self.node.host,
        }
        redact = None if self._redactor is None else self._redactor.record
        return Segments(self.place, prefix, header, self._turns.take, redact)

    def _note(self, done: ShardDone, run: CellRun, limit: Limit, watch: Watch) -> None:
        """What was measured of a shard, and what could not be redacted."""
        done.stopped, done.stages, done.concurrency = not run.complete, run.stages, limit.current
        if self._redactor is not None:
            done.unredacted = self._redactor.failed, self._redactor.failure
            self._redactor.failed = 0
        figures = watch.monitor.figures
        done.client_peak_bytes = figures.client_peak_bytes
        done.engine_peak_bytes = figures.engine_peak_bytes
        done.cpu_s, done.lag_p99_s = figures.client_cpu_s, watch.lag_s(0.99)

    def _options(self, spec: RunSpec, provider: Provider, shard: Shard) -> CellOptions:
        performance, errors = self.suite.performance, self.suite.errors
        return CellOptions(
            stream=performance.stream and "stream" in provider.supports,
            warmup=performance.warmup if shard.first else 0,
            timeout_s=spec.model.timeout_s or performance.timeout_s,
            retries=performance.retries,
            seed=self.suite.seed,
            # The share is of the run: a shard alone may have all that it bears.
            tolerate=min(1.0, errors.stop_above * shard.total / max(1, shard.samples)),
            patient=errors.bears_all,
        )

    def _budget(self, endpoint: str) -> SharedBudget | None:
        limits = self.shared.limits.get(endpoint)
        if limits is None:
            return None
        if endpoint not in self._budgets:
            self._budgets[endpoint] = SharedBudget.joined(self._line, endpoint, limits)
        self._budgets[endpoint].begin_shard()
        return self._budgets[endpoint]

    async def _report(self, shard: Shard, segments: Segments, observer: _Observer, stop: Stop) -> None:
        while True:
            said = await self._line.call(
                "report", shard.name, segments.attempt, self.node.host, observer.counts, False
            )
            if said is not None:
                stop.requested = stop.requested or said[0]
                self._line.share = said[1] or self._line.share
            await asyncio.sleep(REPORT_S)


@dataclass(slots=True)
class _Observer:
    purse: RemotePurse | None
    spec: RunSpec
    counts: tuple[int, int] = (0, 0)

    def sample(self, run_id: str, record: SampleRecord) -> None:
        done, failed = self.counts
        self.counts = (done + 1, failed + (record.status is Status.FAILED))
        if self.purse is not None:
            self.purse.sample(record, self.spec.model.price)


@contextlib.contextmanager
def _notice(stop: Stop, segments: Segments) -> Iterator[None]:
    """A notice that the machine goes (SIGTERM): nothing new is asked, and what is answered is written."""

    def told() -> None:
        stop.requested = True
        segments.flush_now()

    loop = asyncio.get_running_loop()
    ours = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if ours else None
    if ours:
        loop.add_signal_handler(signal.SIGTERM, told)
    try:
        yield
    finally:
        if ours:
            loop.remove_signal_handler(signal.SIGTERM)
            signal.signal(signal.SIGTERM, before)


def _key(record: Mapping[str, Any]) -> tuple[str, int]:
    return str(record["sample_id"]), int(record.get("repeat", 0))


def _session_folder() -> str:
    import ray

    context = ray.get_runtime_context()
    return f"{context.get_temp_dir()}/{context.get_session_name()}"


_HOST: Host | None = None


def host_of(shared: Shared) -> Host:
    """What this process made of the sweep, made once."""
    global _HOST
    if _HOST is None or _HOST.shared.digest != shared.digest:
        if _HOST is not None:
            _HOST.close()
        _HOST = None
        _HOST = Host(shared)
    return _HOST


def check(shared: Shared, models: Sequence[str]) -> tuple[NodeInfo, dict[str, Any] | UserError]:
    """Whether this node has what the plan says, and who would answer for some models."""
    try:
        return node_info(), host_of(shared).identities(models)
    except UserError as error:
        return node_info(), error


def run_shard(shared: Shared, shard: Shard) -> ShardDone:
    """Ask a shard."""
    try:
        host = host_of(shared)
    except UserError as error:
        return ShardDone(node_info(), fault=error)
    return host.run(shard)


class EngineHost:
    """The actor of an engine: it starts once, and shards are brought to it."""

    def check(self, shared: Shared, models: Sequence[str]) -> tuple[NodeInfo, dict[str, Any] | UserError]:
        """Start the engine; who answers."""
        return check(shared, models)

    def run_shard(self, shared: Shared, shard: Shard) -> ShardDone:
        """Ask a shard."""
        return run_shard(shared, shard)

    def close(self) -> None:
        """End the engine."""
        if _HOST is not None:
            _HOST.close()
