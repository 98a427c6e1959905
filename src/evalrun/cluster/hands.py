"""What asks shards: Ray tasks for models that are asked over a network, an actor a node for engines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evalrun.cluster.shard import EngineHost, Shard, ShardDone, run_shard
from evalrun.errors import ExitCode, UserError
from evalrun.suite.components import ModelSpec

_RESTARTS = 3
"""How often Ray starts an engine's actor again on its node."""
_CLOSING_S = 10.0
_LOOK_S = 1.0
_AHEAD = 2
"""Shards handed to Ray for each core."""


async def result(ref: Any) -> Any:
    """What a task gives. Raises what it raised."""
    return await asyncio.wrap_future(ref.future())


def needs(model: ModelSpec) -> dict[str, float]:
    """What Ray sets aside for a model."""
    resources = model.resources
    gpus = resources.gpus if resources is not None else 0
    return {
        "num_cpus": resources.cpus if resources is not None else 1,
        "num_gpus": gpus,
        "memory": int(resources.memory_gb * 1e9) if resources is not None and resources.memory_gb else 0,
    }


class TaskHands:
    """Shards as tasks: Ray places each where there is room, and runs it again where a worker or node dies."""

    def __init__(self, ray: Any, shared: Any, retries: int) -> None:
        self._shared = shared
        self._task, self._retries = ray.remote(run_shard), retries
        self.room = self.told = 0
        """How many shards may be handed over, and the number that tasks were told of."""

    @staticmethod
    def room_on(nodes: Sequence[Mapping[str, Any]]) -> int:
        """How many shards are handed over at a time: a few more than cores, so that none waits for the
        driver. Their rows lie in Ray's shared memory."""
        return _AHEAD * max(1, sum(int(node["Resources"]["CPU"]) for node in nodes))

    async def ask(self, shard: Shard, model: ModelSpec) -> ShardDone:
        """Ask one shard."""
        task = self._task.options(**needs(model), max_retries=self._retries)
        done: ShardDone = await result(task.remote(self._shared, shard))
        return done

    async def close(self) -> None:
        """There is nothing to end."""


class ActorHands:
    """The engines of one model: as many on a node as its resources bear, each started once."""

    def __init__(self, ray: Any, shared: Any, model: ModelSpec, on: Callable[[str], Any]) -> None:
        self._ray, self._shared, self._model, self._on = ray, shared, model, on
        self._free: asyncio.Queue[Any] = asyncio.Queue()
        self._actors: list[Any] = []
        self._starting: list[asyncio.Future[None]] = []

    @property
    def room(self) -> int:
        """How many shards can be asked at a time."""
        return len(self._actors)

    async def start(
        self, nodes: Sequence[Mapping[str, Any]], note: Callable[[str, dict[str, Any]], None]
    ) -> None:
        """Start the engines; `note` is told who answers. Raises UserError where none can be."""
        from ray.exceptions import RayError

        for started, ref in self._started(nodes):
            try:
                _, said = await result(ref)
            except RayError:  # its node died meanwhile
                self._actors.remove(started)
                continue
            if isinstance(said, UserError):
                raise said
            note(self._model.id, said[self._model.id])
            self._free.put_nowait(started)
        if not self._actors:
            raise self._gone()

    def start_more(
        self, nodes: Sequence[Mapping[str, Any]], note: Callable[[str, dict[str, Any]], None]
    ) -> None:
        """Start engines on nodes that joined, while others ask; those that are not like the others, or do
        not start, are left out."""
        for started, ref in self._started(nodes):
            self._starting.append(asyncio.ensure_future(self._join(started, ref, note)))

    async def _join(self, started: Any, ref: Any, note: Callable[[str, dict[str, Any]], None]) -> None:
        with contextlib.suppress(Exception):
            _, said = await result(ref)
            if not isinstance(said, UserError):
                note(self._model.id, said[self._model.id])
                self._free.put_nowait(started)
                return
        self._actors.remove(started)
        self._ray.kill(started)

    def _started(self, nodes: Sequence[Mapping[str, Any]]) -> list[tuple[Any, Any]]:
        """The actors of engines on these nodes, each with what it says once it is ready."""
        wanted = needs(self._model)
        made = [
            self._ray.remote(EngineHost)
            .options(
                **wanted,
                max_restarts=_RESTARTS,
                max_task_retries=_RESTARTS,
                scheduling_strategy=self._on(node["NodeID"]),
            )
            .remote()
            for node in nodes
            for _ in range(_fitting(node["Resources"], wanted))
        ]
        self._actors += made
        return [(each, each.check.remote(self._shared, [self._model.id])) for each in made]

    async def ask(self, shard: Shard, model: ModelSpec) -> ShardDone:
        """Ask one shard of an engine that is free. Raises UserError once none is left."""
        from ray.exceptions import RayActorError

        while self._actors:
            try:
                async with asyncio.timeout(_LOOK_S):
                    actor = await self._free.get()
            except TimeoutError:
                continue  # the last one may be gone
            try:
                done: ShardDone = await result(actor.run_shard.remote(self._shared, shard))
            except RayActorError:
                self._actors.remove(actor)
                continue
            self._free.put_nowait(actor)
            return done
        raise self._gone()

    def _gone(self) -> UserError:
        return UserError(
            f"all engines of model {self._model.id} are gone",
            remedy="See to the nodes, then run the same command again: it goes on from the segments.",
            exit_code=ExitCode.INCOMPLETE,
        )

    async def close(self) -> None:
        """End the engines."""
        for starting in self._starting:
            starting.cancel()
        for actor in self._actors:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSING_S):
                    await result(actor.close.remote())
            self._ray.kill(actor)
        self._actors = []


def check_fits(model: ModelSpec, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raises UserError (exit 3) where no node has what a model needs."""
    wanted = needs(model)
    if any(_fitting(node["Resources"], wanted) for node in nodes):
        return
    parts = ((amount, name.removeprefix("num_")) for name, amount in wanted.items() if amount)
    asked = ", ".join(f"{amount:g} {name}" for amount, name in parts)
    raise UserError(
        f"no node of the cluster has what model {model.id} needs: {asked}",
        remedy="Add such a node, or ask for less under the model's resources.",
        exit_code=ExitCode.INCOMPLETE,
    )


def _fitting(resources: Mapping[str, float], wanted: Mapping[str, float]) -> int:
    """How many engines a node bears: by its GPUs where the model asks for some, else one."""
    if resources.get("CPU", 0) < wanted["num_cpus"] or resources.get("memory", 0) < wanted["memory"]:
        return 0
    if wanted["num_gpus"] >= 1:
        return int(resources.get("GPU", 0) // wanted["num_gpus"])
    return int(resources.get("GPU", 0) >= wanted["num_gpus"])
