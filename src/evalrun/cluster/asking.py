"""The driver's part of a sweep on a cluster: plan, check the nodes, hand out shards, gather.

Shards are handed to Ray a few more than can run at a time, and the segments of each that is done are read
into the run's journal. Segments are the truth: a driver that is started again reads what is there and asks
the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.cluster.cut import Coming, Flight, Run
from evalrun.cluster.gather import Gathered, measured
from evalrun.cluster.hands import ActorHands, TaskHands, check_fits, result
from evalrun.cluster.keeping import Keeping, limits_of, purse_of
from evalrun.cluster.place import Place
from evalrun.cluster.plan import PLAN, SHARD, Plan, compare, plan_of, read_plan
from evalrun.cluster.said import KEEPERLESS, lost_again, sentence, too_many, unrunnable
from evalrun.cluster.segments import run_prefix
from evalrun.cluster.shard import ShardDone, Shared, check
from evalrun.errors import ExitCode, UserError
from evalrun.suite.overrides import Overrides
from evalrun.suite.values import LimitsSpec
from evalrun.sweep.private import carried, note_failed
from evalrun.tracking.folder import CLUSTER

if TYPE_CHECKING:
    from evalrun.sweep.matrix_job import MatrixJob
    from evalrun.sweep.phase import Phase
    from evalrun.sweep.prepare import PreparedSweep

GATHERED = "gathered.json"
"""Says that a sweep was gathered to its end: the same command is a new one then."""
_RETRIES = 50
"""How often Ray runs a shard again whose worker or node died."""
_TRIES = 3
"""How often a shard is asked again whose answers are not where they were written."""
_LOOK_S = 0.5
_NODES_S = 3.0
"""How often it is looked for nodes that came or went."""


@dataclass(frozen=True, slots=True)
class OnOptions:
    """Where and how: `on` names the cluster, `at` the place of the segments, `shard` is the size of shards in
    samples; `fresh` begins a new sweep."""

    on: str
    at: str
    shard: int = SHARD
    fresh: bool = False


class Asking:
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
        self._keeper: Keeping
        self._shared: Any = None
        self._nodes: list[Mapping[str, Any]] = []
        self._next_look_s = 0.0
        self._runs: list[Run] = []
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
        self._nodes = await self._alive()
        if not self._nodes:
            raise UserError("no node of the cluster has a CPU", where=f"--on {self._options.on}",
                            exit_code=ExitCode.INCOMPLETE)  # fmt: skip
        for model in {job.model.id: job.model for job in self._jobs}.values():
            check_fits(model, self._nodes)
        limits = limits_of(self._jobs)
        self._keeper = Keeping.begun(self._ray, self._root, limits, self._phase, resumed=self._resumed)
        self._shared = self._ray.put(self._make_shared(plan, limits))
        stopping = asyncio.get_running_loop().create_task(self._pass_stop_on())
        try:
            groups = self._groups()
            asked = [job.model.id for job in groups.get("", [])]
            await self._check_nodes(list(dict.fromkeys(asked)))
            for engine, some in groups.items():
                if not self._phase.stop.requested:
                    await self._ask_group(engine, some)
            if all(run.concluded for run in self._runs) and len(self._runs) == len(self._jobs):
                await asyncio.to_thread(self._place.put_new, f"{self._root}/{GATHERED}", b"{}")
        finally:
            together: Counter[str] = Counter()
            for run in self._runs:
                together.update(run.again)
            said |= {"nodes": len(self._nodes), **together}
            if limits and self._keeper.dead:
                self._phase.execution.warnings.append(KEEPERLESS)
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
            self._keeper.close()

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

    async def _alive(self) -> list[Mapping[str, Any]]:
        """The nodes that can be asked just now."""
        nodes = await asyncio.to_thread(self._ray.nodes)
        return [node for node in nodes if node["Alive"] and node["Resources"].get("CPU")]

    def _make_shared(self, plan: Plan, limits: Mapping[str, LimitsSpec]) -> Shared:
        prepared = self._prepared
        pools = {
            key: renderer.pool for key, renderer in prepared.renderers.items() if renderer.pool is not None
        }
        of_tasks = {} if prepared.tasks is None else {
            spec.run_id: spec for spec in prepared.specs if prepared.tasks.of(spec) is not None
        }  # fmt: skip
        return Shared(
            self._place.url, self._root, plan.digest, self._suite, self._overrides, pools, of_tasks,
            carried(prepared), self._phase.in_flight, limits, 1.0 / TaskHands.room_on(self._nodes),
            purse_of(self._phase) is not None, self._keeper.handle,
        )  # fmt: skip

    def _groups(self) -> dict[str, list[MatrixJob]]:
        """The runs by what asks them: tasks (""), or the engine of a model, one model after the other."""
        groups: dict[str, list[MatrixJob]] = {}
        for job in self._jobs:
            local = self._prepared.providers[job.model.id].endpoint.startswith("local:")
            groups.setdefault(job.model.id if local else "", []).append(job)
        return groups

    async def _check_nodes(self, models: Sequence[str]) -> None:
        """Whether every node has what the plan says, before anything is asked."""
        task = self._ray.remote(check)
        refs = [
            task.options(num_cpus=0, max_retries=3, scheduling_strategy=self._on(node["NodeID"])).remote(
                self._shared, models
            )
            for node in self._nodes
        ]
        problems: dict[Any, None] = {}
        code = ExitCode.USAGE
        for node, ref in zip(self._nodes, refs, strict=True):
            try:
                _, said = await result(ref)
            except UserError as error:
                said = error
            except Exception as error:
                if node["NodeID"] not in {each["NodeID"] for each in await self._alive()}:
                    continue  # it died meanwhile, as it may at any moment
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

    async def _ask_group(self, model: str, jobs: Sequence[MatrixJob]) -> None:
        hands: ActorHands | TaskHands
        if model:
            self._phase.progress.phase(jobs[0].name, "starting")
            hands = ActorHands(self._ray, self._shared, jobs[0].model, self._on)
        else:
            hands = TaskHands(self._ray, self._shared, _RETRIES)
        try:
            if isinstance(hands, ActorHands):
                await hands.start(self._nodes, self._identity)
            else:
                hands.room = TaskHands.room_on(self._nodes)
            runs = [await self._open(job) for job in jobs]
            await self._keeper.spent(self._phase)
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

    async def _open(self, job: MatrixJob) -> Run:
        """Take up what is there of a run: in its journal, and in segments."""
        phase, prefix = self._phase, run_prefix(job.name)
        total = len(job.prepared.dataset(job.spec)) * job.spec.repeats
        gathered = Gathered(self._place, self._root, prefix, job, phase.observer)
        earlier = gathered.open(phase.execution.identities[job.model.id])
        phase.progress.begin(job.name, total, earlier)
        run = Run(job, gathered, prefix, total, datetime.now(UTC), time.perf_counter())
        if self._resumed:
            for name in await asyncio.to_thread(self._place.names, f"{self._root}/{prefix}"):
                await gathered.take(name)
            gathered.twice, gathered.failed = 0, set()  # what failed then is asked again
        phase.execution.taken_over += len(gathered.done)
        self._runs.append(run)
        detail = {"done": len(gathered.done), "of": total}
        job.folder.append_event("begin_run", detail, target=job.name, durable=False)
        return run

    async def _drive(self, hands: ActorHands | TaskHands, runs: Sequence[Run]) -> None:
        """Keep all hands busy until every shard is done, or none may be begun any more."""
        stop = self._phase.stop
        coming = Coming(runs, self._options.shard, self._epoch)
        flying: dict[asyncio.Future[ShardDone], Flight] = {}
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
                if stop.requested and self._keeper.dead:
                    break  # they cannot be told: what they wrote is gathered when the sweep goes on
                await self._look_for_nodes(hands)
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

    async def _look_for_nodes(self, hands: ActorHands | TaskHands) -> None:
        """Use nodes that joined. Where limits have no keeper any more, as many tasks ask as did before."""
        if time.monotonic() < self._next_look_s or self._keeper.dead:
            return
        self._next_look_s = time.monotonic() + _NODES_S
        known = {node["NodeID"] for node in self._nodes}
        self._nodes = await self._alive() or self._nodes
        joined = [node for node in self._nodes if node["NodeID"] not in known]
        if isinstance(hands, ActorHands):
            hands.start_more(joined, self._identity)
            return
        room = TaskHands.room_on(self._nodes)
        if room > hands.told:
            await self._keeper.seats(room)  # all tasks have heard it when it is used, a look later
        else:
            hands.room = room
        hands.told = room

    async def _took(self, flight: Flight, future: asyncio.Future[ShardDone]) -> Flight | None:
        """Gather what came of a shard; what of it must be asked again."""
        run, shard = flight.run, flight.shard
        try:
            done = future.result()
            if done.identity:
                self._identity(run.job.model.id, done.identity)
            await run.gathered.take_result(done)
            note_failed(self._prepared, done.unredacted)
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
            self._ended(run, too_many(run))
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
        return Flight(run, left, flight.tries + (not done.stopped))

    def _ended(self, run: Run, fault: UserError) -> None:
        """No more of this run is asked."""
        run.fault = run.fault or fault
        self._faulty(fault)

    def _lost(self, run: Run) -> UserError:
        damaged = run.gathered.damaged
        said = f"; {len(damaged)} are not what was written (first: {damaged[0]})" if damaged else ""
        return UserError(
            f"segments of run {run.job.name} are not where they were written{said}",
            where=self._place.url,
            remedy="The store does not keep what it accepts, or --at is not shared by all nodes. What was "
            "gathered is kept.",
            exit_code=ExitCode.INCOMPLETE,
        )

    async def _conclude_if_whole(self, run: Run) -> None:
        """Score and finish a run whose samples all have records."""
        if run.concluded or not run.whole or run.left or run.fault is not None:
            return
        run.concluded = True
        await run.gathered.close()
        run.again = lost_again(await self._keeper.state(), run)
        figures = measured(run.gathered, run.results, run.started_at, time.perf_counter() - run.began)
        figures.timings.update(run.again)
        if run.again.get("lost_attempts") or run.again["answered_twice"]:
            figures.timings["notes"] = [sentence(run.again)]
        identity = self._phase.execution.identities[run.job.model.id]
        await run.job.conclude(self._phase, run.gathered.folder, figures, identity)
        if run.gathered.damaged:
            what = f"{run.job.name}: {len(run.gathered.damaged)} segments were damaged"
            self._phase.execution.warnings.append(f"{what}; the samples they stood for were asked again")

    async def _pass_stop_on(self) -> None:
        """Tell the tasks when the sweep is to stop, and the sweep when the budget is spent."""
        while True:
            await asyncio.sleep(_LOOK_S)
            state = await self._keeper.state()
            if state.get("spent") and not self._phase.stop.requested:
                spending: Any = self._phase.purse
                self._phase.stop.fault = spending.fault()
                self._phase.stop.requested = True
            if self._phase.stop.requested:
                await self._keeper.stop()


def _unfinished(names: Sequence[str]) -> str:
    """The newest sweep of this work that lies there and was never gathered to its end; "" without one."""
    roots = {name.rpartition("/")[0] for name in names if name.endswith(f"/{PLAN}")}
    ended = {name.rpartition("/")[0] for name in names if name.endswith(f"/{GATHERED}")}
    return max(roots - ended, default="")
