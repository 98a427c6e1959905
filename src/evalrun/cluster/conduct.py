"""Asks the runs of a sweep on a Ray cluster, and gathers the answers into its ordinary folder.

The driver cuts what is left of the runs into shards, hands them to Ray a few more than can run at a time, and
reads the segments of each that is done into the run's journal. From there on all is as in any sweep. Segments
are the truth: a driver that is started again reads what is there and asks the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.cluster.connect import connect
from evalrun.cluster.gather import Gathered, measured
from evalrun.cluster.hands import ActorHands, TaskHands, check_fits, result
from evalrun.cluster.keeper import LONG_WINDOW_S, Keeper, Purse
from evalrun.cluster.place import Place, normal
from evalrun.cluster.plan import PLAN, SHARD, Plan, compare, plan_of, read_plan
from evalrun.cluster.segments import run_prefix
from evalrun.cluster.shard import Shard, ShardDone, Shared, check
from evalrun.datasets import Item
from evalrun.errors import ExitCode, UserError
from evalrun.providers.batch_api import BatchOptions
from evalrun.suite.load import LoadedSuite
from evalrun.suite.overrides import Overrides
from evalrun.suite.values import LimitsSpec
from evalrun.tracking.folder import CLUSTER

if TYPE_CHECKING:
    from evalrun.analysis.run import RunAnalysis
    from evalrun.gates.conditions import GateResult
    from evalrun.suite.plan import RunSpec
    from evalrun.sweep.execute import MatrixJob, Phase
    from evalrun.sweep.prepare import PreparedSweep

GATHERED = "gathered.json"
"""Says that a sweep was gathered to its end: the same command is a new one then."""
_RETRIES = 50
"""How often Ray runs a shard again whose worker or node died."""
_AHEAD = 2
"""Shards handed to Ray for each that can run: so many rows lie in its shared memory."""
_TRIES = 3
"""How often a shard is asked again whose answers are not where they were written."""
_LOOK_S = 0.5
_STATE_TRIES = 10
_NAME_FREE_S = 15.0


@dataclass(frozen=True, slots=True)
class OnOptions:
    """Where and how: `on` names the cluster, `at` the place of the segments, `shard` is the size of shards in
    samples; `fresh` begins a new sweep."""

    on: str
    at: str
    shard: int = SHARD
    fresh: bool = False


def open_conduct(loaded: LoadedSuite, overrides: Overrides, options: OnOptions) -> OnRay:
    """Join the cluster and look at the place, before anything else. Raises UserError."""
    suite = loaded.suite
    for name, there in (
        ("load", suite.load),
        ("tasks", suite.tasks),
        ("stop_early", suite.stop_early),
        ("privacy", suite.privacy),  # segments hold answers before the driver could redact them
    ):
        if there:
            raise UserError(
                f"a suite with {name} is asked on one machine",
                where=loaded.locate(name),
                remedy="Leave --on out.",
            )
    for at, model in enumerate(suite.models):
        batch = getattr(model.options, "batch", False)
        if batch is True or isinstance(batch, BatchOptions):
            raise UserError(
                f"model '{model.id}' is asked in batches, which needs no cluster",
                where=loaded.locate("models", at),
                remedy="Leave --on out, or `batch`.",
            )
    url = normal(options.at)
    ray, joined_before = connect(options.on)
    return OnRay(ray, joined_before, Place(url, make=True), loaded.path.resolve(), overrides, options)


@dataclass(slots=True)
class _Run:
    """A run that is being asked: `left` shards are not done of those that are cut, which are all once it is
    `whole`."""

    job: MatrixJob
    gathered: Gathered
    prefix: str
    size: int
    started_at: datetime
    began: float
    left: int = 0
    whole: bool = False
    concluded: bool = False
    results: list[ShardDone] = field(default_factory=list)
    fault: UserError | None = None
    again: dict[str, int] = field(default_factory=dict)
    """How often attempts at shards were lost, and what was asked again for it."""


class OnRay:
    """How the runs of a sweep are asked (`evalrun.sweep.execute.Conduct`)."""

    whole = True

    def __init__(
        self,
        ray: Any,
        joined_before: bool,
        place: Place,
        suite: Path,
        overrides: Overrides,
        options: OnOptions,
    ) -> None:
        self._ray, self._joined_before = ray, joined_before
        self._place, self._suite = place, suite
        self._overrides, self._options = overrides, options
        self._said: dict[str, Any] = {}
        self.refused: UserError | None = None
        """Why nothing was asked: the plan, the place or a node is not what it must be."""

    def enter(self, spec: RunSpec, analysis: RunAnalysis) -> RunAnalysis:
        """As they are."""
        return analysis

    def gates(self, results: Sequence[GateResult]) -> list[GateResult]:
        """As they are."""
        return list(results)

    def document(self) -> Mapping[str, Any]:
        """Where the sweep was asked."""
        return {"cluster": self._said} if self._said else {}

    async def ask(self, phase: Phase, jobs: Sequence[MatrixJob]) -> None:
        """Ask, gather and finish the runs. `jobs` are all, the finished ones too."""
        todo = [
            job
            for job in jobs
            if not job.folder.is_finished(job.name) and not job.finish.is_waiting(job.name)
        ]
        if not todo:
            return
        place, suite = self._place, self._suite
        try:
            asking = _Asking(self._ray, place, suite, self._overrides, self._options, phase, todo)
            await asking.run(self._said)
        except UserError as fault:
            phase.execution.faults.append(fault)
            self.refused = fault

    def close(self) -> None:
        """Leave the cluster; one that was started for the sweep ends."""
        if not self._joined_before:
            self._ray.shutdown()


class _Asking:
    """The steps of asking, in order."""

    def __init__(
        self,
        ray: Any,
        place: Place,
        suite: Path,
        overrides: Overrides,
        options: OnOptions,
        phase: Phase,
        jobs: Sequence[MatrixJob],
    ) -> None:
        self._ray, self._place, self._suite, self._overrides = ray, place, suite, overrides
        self._options, self._phase, self._jobs = options, phase, jobs
        self._prepared: PreparedSweep = jobs[0].prepared
        folder = jobs[0].folder
        self._root, self._resumed = self._begin(folder.path, folder.ulid)
        self._keeper: Any = None
        self._shared: Any = None
        self._runs: list[_Run] = []
        self._epoch = f"{int(time.time() * 1000):013d}"

    def _begin(self, folder: Path, sweep: str) -> tuple[str, bool]:
        """The part of the place that is the sweep's, and whether something may lie there."""
        note = folder / CLUSTER
        work = f"{self._prepared.loaded.suite.name}-{self._prepared.work_digest[:12]}"
        if note.exists():
            return note.read_text(), True
        root, resumed = f"{work}/{sweep}", False
        if not self._options.fresh:
            left = _unfinished(self._place.names(work))
            if left:
                root, resumed = left, True
                self._phase.progress.message(f"goes on with the segments at {self._place.url}/{left}")
        from evalrun.atomic import write_private

        write_private(note, root.encode())
        return root, resumed

    async def run(self, said: dict[str, Any]) -> None:
        """Plan, check the nodes, ask, gather."""
        plan = await asyncio.to_thread(self._write_plan)
        said |= {"at": self._place.url, "root": self._root, "shard": self._options.shard}
        limits = _limits(self._jobs)
        nodes = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        if not nodes:
            raise UserError("no node of the cluster has a CPU", where=f"--on {self._options.on}",
                            exit_code=ExitCode.INCOMPLETE)  # fmt: skip
        for model in {job.model.id: job.model for job in self._jobs}.values():
            check_fits(model, nodes)
        slots = max(1, sum(int(node["Resources"]["CPU"]) for node in nodes))
        shared = self._make_shared(plan, limits, slots)
        self._shared = self._ray.put(shared)
        stopping = asyncio.get_running_loop().create_task(self._pass_stop_on())
        try:
            groups = self._groups()
            asked = [job.model.id for job in groups.get("", [])]
            await self._check_nodes(nodes, list(dict.fromkeys(asked)))
            for engine, some in groups.items():
                if not self._phase.stop.requested:
                    await self._ask_group(engine, some, nodes, slots)
            if all(run.concluded for run in self._runs) and len(self._runs) == len(self._jobs):
                await asyncio.to_thread(self._place.put_new, f"{self._root}/{GATHERED}", b"{}")
        finally:
            together: Counter[str] = Counter()
            for run in self._runs:
                together.update(run.again)
            said |= {"nodes": len(nodes), **together}
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
            self._ray.kill(self._keeper)

    def _write_plan(self) -> Plan:
        """Write the plan, or compare it with the one that is there. Finds out whether the store creates."""
        path = f"{self._root}/{PLAN}"
        sweep = self._root.rpartition("/")[2]
        plan = plan_of(self._prepared, sweep)
        if self._place.put_new(path, plan.document()) and self._place.put_new(path, plan.document()):
            raise UserError(
                "the store writes over what is there although it was asked to create only",
                where=self._place.url,
                remedy="Use one that knows conditional writes (If-None-Match).",
            )
        there = read_plan(self._place, path)
        if there.digest != plan.digest:
            compare(there.digests, plan.digests, f"{self._place.url}/{path}")
            raise UserError("it is the plan of another sweep", where=f"{self._place.url}/{path}",
                            remedy="Name another --at, or begin anew with --fresh.")  # fmt: skip
        return plan

    def _make_keeper(self, limits: Mapping[str, LimitsSpec], purse: Purse | None, quiet_s: float) -> Any:
        """The actor that keeps limits and budget. Raises UserError where another process asks this sweep;
        Ray needs some seconds to end the keeper of one that was killed."""
        made = self._ray.remote(Keeper).options(
            num_cpus=0,
            max_concurrency=1000,
            name=f"keeper {self._root}",
            # It lives as long as the driver: not on a node that may go.
            scheduling_strategy=self._on(self._ray.get_runtime_context().get_node_id()),
        )
        end_s = time.monotonic() + _NAME_FREE_S
        while True:
            try:
                return made.remote(limits, purse, quiet_s)
            except ValueError:
                if time.monotonic() < end_s:
                    time.sleep(_LOOK_S)
                    continue
                raise UserError(
                    "this sweep is being asked on this cluster by another process",
                    where=f"--on {self._options.on}",
                    remedy="Wait for it, or begin anew with --fresh.",
                ) from None

    def _make_shared(self, plan: Plan, limits: Mapping[str, LimitsSpec], slots: int) -> Shared:
        budget = self._prepared.loaded.suite.budget
        purse = None
        if budget is not None and (budget.usd is not None or budget.tokens is not None):
            spent = getattr(self._phase.purse, "spent", None)
            purse = Purse(
                budget.usd, budget.tokens, spent.usd if spent else 0.0, spent.tokens if spent else 0.0
            )
        # What an earlier part sent until a moment ago is not known: its minute is waited for.
        quiet_s = LONG_WINDOW_S if self._resumed and limits else 0.0
        self._keeper = self._make_keeper(limits, purse, quiet_s)
        pools = {
            key: renderer.pool
            for key, renderer in self._prepared.renderers.items()
            if renderer.pool is not None
        }
        return Shared(
            self._place.url, self._root, plan.digest, self._suite, self._overrides, pools,
            self._phase.in_flight, limits, 1.0 / slots, purse is not None, self._keeper,
        )  # fmt: skip

    def _groups(self) -> dict[str, list[MatrixJob]]:
        """The runs by what asks them: tasks (""), or the engine of a model, one model after the other."""
        groups: dict[str, list[MatrixJob]] = {}
        for job in self._jobs:
            local = self._prepared.providers[job.model.id].endpoint.startswith("local:")
            groups.setdefault(job.model.id if local else "", []).append(job)
        return groups

    async def _check_nodes(self, nodes: Sequence[Mapping[str, Any]], models: Sequence[str]) -> None:
        """Whether every node has what the plan says, before anything is asked."""
        task = self._ray.remote(check)
        refs = [
            task.options(num_cpus=0, max_retries=3, scheduling_strategy=self._on(node["NodeID"])).remote(
                self._shared, models
            )
            for node in nodes
        ]
        problems: dict[Any, None] = {}
        code = ExitCode.USAGE
        for node, ref in zip(nodes, refs, strict=True):
            try:
                _, said = await result(ref)
            except UserError as error:
                said = error
            except Exception as error:
                said = unrunnable(error, node["NodeManagerHostname"])
            if isinstance(said, UserError):
                problems |= dict.fromkeys(said.problems)
                code = said.exit_code
                continue
            for name, identity in said.items():
                self._identity(name, identity)
        if problems:
            raise UserError(list(problems), exit_code=code)

    def _on(self, node: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node, soft=False)

    def _identity(self, model: str, identity: dict[str, Any]) -> None:
        """Note who answers. Raises UserError where two nodes would answer by unlike models."""
        known = self._phase.execution.identities.setdefault(model, identity)
        if known != identity:
            keys = sorted(key for key in {*known, *identity} if known.get(key) != identity.get(key))
            raise UserError(
                f"model {model} is not the same on all nodes: {', '.join(keys)} differ",
                remedy="Give every node the same weights and the same build of the engine.",
            )

    async def _ask_group(
        self, model: str, jobs: Sequence[MatrixJob], nodes: Sequence[Mapping[str, Any]], slots: int
    ) -> None:
        hands: ActorHands | TaskHands
        if model:
            self._phase.progress.phase(jobs[0].name, "starting")
            hands = ActorHands(self._ray, self._shared, jobs[0].model, self._on)
        else:
            hands = TaskHands(self._ray, self._shared, slots, _RETRIES, _AHEAD)
        try:
            if isinstance(hands, ActorHands):
                await hands.start(nodes, self._identity)
            runs = [await self._open(job) for job in jobs]
            try:
                await self._drive(hands, runs)
            finally:
                for run in runs:
                    if not run.concluded:
                        await run.gathered.close()
        except UserError as fault:
            self._faulty(fault)
        finally:
            await hands.close()

    def _faulty(self, fault: UserError) -> None:
        if str(fault) not in map(str, self._phase.execution.faults):
            self._phase.execution.faults.append(fault)
            self._phase.progress.message(str(fault))

    async def _open(self, job: MatrixJob) -> _Run:
        """Take up what is there of a run: in its journal, and in segments."""
        phase, prefix = self._phase, run_prefix(job.name)
        total = len(job.prepared.dataset(job.spec)) * job.spec.repeats
        gathered = Gathered(self._place, self._root, prefix, job, phase.observer)
        earlier = gathered.open(phase.execution.identities[job.model.id])
        phase.progress.begin(job.name, total, earlier)
        run = _Run(job, gathered, prefix, total, datetime.now(UTC), time.perf_counter())
        if self._resumed:
            for name in await asyncio.to_thread(self._place.names, f"{self._root}/{prefix}"):
                await gathered.take(name)
            gathered.twice, gathered.failed = 0, set()  # what failed then is asked again
        phase.execution.taken_over += len(gathered.done)
        self._runs.append(run)
        detail = {"done": len(gathered.done), "of": total}
        job.folder.append_event("begin_run", detail, target=job.name, durable=False)
        return run

    async def _drive(self, hands: ActorHands | TaskHands, runs: Sequence[_Run]) -> None:
        """Keep all hands busy until every shard is done, or none may be begun any more."""
        stop = self._phase.stop
        coming = _Coming(runs, self._options.shard, self._epoch)
        flying: dict[asyncio.Future[ShardDone], _Flight] = {}
        try:
            while True:
                while len(flying) < hands.room and not stop.requested:
                    flight = coming.take()
                    if flight is None:
                        break
                    ask = hands.ask(flight.shard, flight.run.job.model)
                    flying[asyncio.ensure_future(ask)] = flight
                if not flying:
                    break
                ready, _ = await asyncio.wait(flying, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                for future in ready:
                    flight = flying.pop(future)
                    rest = await self._took(flight, future)
                    if rest is not None:
                        coming.again.append(rest)
                    await self._conclude_if_whole(flight.run)
            for run in runs:
                await self._conclude_if_whole(run)
        finally:
            for future in flying:
                future.cancel()

    async def _took(self, flight: _Flight, future: asyncio.Future[ShardDone]) -> _Flight | None:
        """Gather what came of a shard; what of it must be asked again."""
        run, shard = flight.run, flight.shard
        try:
            done = future.result()
            if done.identity:
                self._identity(run.job.model.id, done.identity)
            await run.gathered.take_result(done)
            self._phase.progress.refresh(run.job.name)
        except UserError as fault:
            self._ended(run, fault)
            return None
        except Exception as error:  # of Ray: a worker that dies again and again, a node without evalrun
            self._ended(run, unrunnable(error))
            return None
        run.results.append(done)
        if done.fault is not None:
            self._ended(run, done.fault)
            return None
        share = self._prepared.loaded.suite.errors.stop_above
        if len(run.gathered.failed) > share * run.size:
            self._ended(run, _too_many(run))
            return None
        if not run.gathered.missing(shard):
            run.left -= 1
            return None
        if self._phase.stop.requested:
            return None
        # Stopped by a notice that its node goes: what is left is asked elsewhere. Else its answers are lost.
        if not done.stopped and flight.tries >= _TRIES:
            self._ended(run, self._lost(run))
            return None
        left = replace(shard, done=run.gathered.done_of(shard))
        return _Flight(run, left, flight.tries + (not done.stopped))

    def _ended(self, run: _Run, fault: UserError) -> None:
        """No more of this run is asked."""
        run.fault = run.fault or fault
        self._faulty(fault)

    def _lost(self, run: _Run) -> UserError:
        damaged = run.gathered.damaged
        said = f"; {len(damaged)} are not what was written (first: {damaged[0]})" if damaged else ""
        return UserError(
            f"segments of run {run.job.name} are not where they were written{said}",
            where=self._place.url,
            remedy="The store does not keep what it accepts, or --at is not shared by all nodes. What was "
            "gathered is kept.",
            exit_code=ExitCode.INCOMPLETE,
        )

    async def _conclude_if_whole(self, run: _Run) -> None:
        """Score and finish a run whose samples all have records."""
        if run.concluded or not run.whole or run.left or run.fault is not None:
            return
        run.concluded = True
        await run.gathered.close()
        run.again = _again(await self._state(), run)
        figures = measured(run.gathered, run.results, run.started_at, time.perf_counter() - run.began)
        figures.timings.update(run.again)
        if run.again.get("lost_attempts") or run.again["answered_twice"]:
            figures.timings["notes"] = [_sentence(run.again)]
        identity = self._phase.execution.identities[run.job.model.id]
        await run.job.conclude(self._phase, run.gathered.folder, figures, identity)
        if run.gathered.damaged:
            what = f"{run.job.name}: {len(run.gathered.damaged)} segments were damaged"
            self._phase.execution.warnings.append(f"{what}; the samples they stood for were asked again")

    async def _pass_stop_on(self) -> None:
        """Tell the tasks when the sweep is to stop, and the sweep when the budget is spent."""
        while True:
            await asyncio.sleep(_LOOK_S)
            state = await self._state()
            if state.get("spent") and not self._phase.stop.requested:
                spending: Any = self._phase.purse
                self._phase.stop.fault = spending.fault()
                self._phase.stop.requested = True
            if self._phase.stop.requested:
                self._keeper.stop.remote()

    async def _state(self) -> dict[str, Any]:
        """What the keeper knows; nothing where it is dead, or out of reach for long."""
        from ray.exceptions import ActorDiedError, RayError

        for _ in range(_STATE_TRIES):
            try:
                state: dict[str, Any] = await result(self._keeper.state.remote())
            except ActorDiedError:
                return {}
            except RayError:  # a node that went can put it out of reach for a moment
                await asyncio.sleep(_LOOK_S)
            else:
                return state
        return {}


@dataclass(frozen=True, slots=True)
class _Flight:
    """A shard that is being asked, the how manieth time."""

    run: _Run
    shard: Shard
    tries: int = 1


class _Coming:
    """The shards that are still to be asked, cut one by one."""

    def __init__(self, runs: Sequence[_Run], size: int, epoch: str) -> None:
        self.again: list[_Flight] = []
        self._size, self._epoch = size, epoch
        self._every = (flight for run in runs for flight in self._of(run))

    def take(self) -> _Flight | None:
        """The next one whose run goes on; None where there is none."""
        while True:
            flight = self.again.pop() if self.again else next(self._every, None)
            if flight is None or flight.run.fault is None:
                return flight

    def _of(self, run: _Run) -> Iterator[_Flight]:
        for shard in self._shards(run):
            run.left += 1
            yield _Flight(run, shard)
        run.whole = True

    def _shards(self, run: _Run) -> Iterator[Shard]:
        """What is left of a run, cut."""
        spec, done = run.job.spec, run.gathered.done
        rows, number = max(1, self._size // spec.repeats), 0
        items: list[Item] = []
        had: set[tuple[str, int]] = set()
        fresh = not done
        for item in run.job.prepared.dataset(spec):
            keys = {(item.sample_id, repeat) for repeat in range(spec.repeats)}
            if keys <= done:
                continue
            items.append(item)
            had |= keys & done
            if len(items) == rows:
                yield self._cut(run, number, items, had, fresh)
                number, items, had = number + 1, [], set()
        if items:
            yield self._cut(run, number, items, had, fresh)

    def _cut(
        self, run: _Run, number: int, items: list[Item], had: set[tuple[str, int]], fresh: bool
    ) -> Shard:
        spec = run.job.spec
        return Shard(
            spec.run_id,
            number,
            f"{run.prefix}/{self._epoch}-{number:06d}",
            items,
            frozenset(had),
            len(items) * spec.repeats,
            run.size,
            first=number == 0 and fresh,
        )


def _again(state: Mapping[str, Any], run: _Run) -> dict[str, int]:
    """How many attempts at a run's shards were lost, how many samples that they had answered are in no
    segment, and how many answers came twice. Of attempts nothing is said where the keeper is dead."""
    twice = {"answered_twice": run.gathered.twice}
    if not state:
        return twice
    lost = {
        attempt: count for attempt, (shard, count) in state["lost"].items() if shard.startswith(run.prefix)
    }
    again = sum(max(0, count - run.gathered.by_attempt[attempt]) for attempt, count in lost.items())
    return {"lost_attempts": len(lost), "asked_again": again, **twice}


def _sentence(again: Mapping[str, int]) -> str:
    return (
        f"{again.get('lost_attempts', 0)} attempts at shards were lost: {again.get('asked_again', 0)} of "
        "their answers were in no segment and were asked for again, besides what was in flight; "
        f"{again['answered_twice']} answers came twice, of which the first counts"
    )


def _unfinished(names: Sequence[str]) -> str:
    """The newest sweep of this work that lies there and was never gathered to its end; "" without one."""
    roots = {name.rpartition("/")[0] for name in names if name.endswith(f"/{PLAN}")}
    ended = {name.rpartition("/")[0] for name in names if name.endswith(f"/{GATHERED}")}
    return max(roots - ended, default="")


def _limits(jobs: Sequence[MatrixJob]) -> dict[str, LimitsSpec]:
    """The limits of each endpoint: the strictest that its models name."""
    named: dict[str, list[LimitsSpec]] = {}
    for job in jobs:
        if job.model.limits is not None:
            endpoint = job.prepared.providers[job.model.id].endpoint
            named.setdefault(endpoint, []).append(job.model.limits)

    def least(values: Iterable[int | None]) -> int | None:
        return min((value for value in values if value is not None), default=None)

    return {
        endpoint: LimitsSpec(
            requests_per_minute=least(each.requests_per_minute for each in some),
            tokens_per_minute=least(each.tokens_per_minute for each in some),
        )
        for endpoint, some in named.items()
    }


def _too_many(run: _Run) -> UserError:
    return UserError(
        f"{len(run.gathered.failed)} of {run.size} samples of run {run.job.name} failed, more than "
        "errors.tolerate allows",
        remedy="Fix the cause, then run the same command again: failed samples are asked anew.",
        exit_code=ExitCode.INCOMPLETE,
    )


def unrunnable(error: Exception, node: str = "") -> UserError:
    """What Ray says of a task that could not be run, in one message."""
    said = str(error)
    last = said.strip().rpartition("\n")[2][:300] or type(error).__name__
    where = f"node {node}" if node else ""
    if "ModuleNotFoundError" in said or "ImportError" in said:
        remedy = "Install the same evalrun, with its extras, on every node."
        return UserError(f"a node cannot run evalrun's tasks: {last}", where=where, remedy=remedy)
    return UserError(
        f"Ray could not run a task: {last}",
        where=where,
        remedy="See to the cluster, then run the same command again: it goes on from the segments.",
        exit_code=ExitCode.INCOMPLETE,
    )
