"""The driver's side of the keeper: it is started beside the driver, asked how far all are, and told."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evalrun.cluster.keeper import LONG_WINDOW_S, Keeper, Line, Purse
from evalrun.errors import UserError
from evalrun.suite.values import LimitsSpec

if TYPE_CHECKING:
    from evalrun.sweep.matrix_job import MatrixJob
    from evalrun.sweep.phase import Phase

_LOOK_S = 0.5
_STATE_TRIES = 10
_NAME_FREE_S = 15.0


class Keeping:
    """The keeper of a sweep, seen from the driver."""

    def __init__(self, ray: Any, handle: Any) -> None:
        self._ray, self.handle = ray, handle
        self._line = Line(handle)

    @classmethod
    def begun(
        cls, ray: Any, root: str, limits: Mapping[str, LimitsSpec], phase: Phase, *, resumed: bool
    ) -> Keeping:
        """Start it. Raises UserError where another process asks this sweep; Ray needs some seconds to end the
        keeper of one that was killed."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # What an earlier part sent until a moment ago is not known: its minute is waited for.
        quiet_s = LONG_WINDOW_S if resumed and limits else 0.0
        here = ray.get_runtime_context().get_node_id()
        made = ray.remote(Keeper).options(
            num_cpus=0,
            max_concurrency=1000,
            name=f"keeper {root}",
            # It lives as long as the driver: not on a node that may go.
            scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
        )
        end_s = time.monotonic() + _NAME_FREE_S
        while True:
            try:
                return cls(ray, made.remote(limits, purse_of(phase), quiet_s))
            except ValueError:
                if time.monotonic() < end_s:
                    time.sleep(_LOOK_S)
                    continue
                raise UserError(
                    "this sweep is being asked on this cluster by another process",
                    where="--on",
                    remedy="Wait for it, or begin anew with --fresh.",
                ) from None

    @property
    def dead(self) -> bool:
        """Whether it is gone."""
        return self._line.dead

    async def state(self) -> dict[str, Any]:
        """What it knows; nothing where it is dead, or out of reach for long."""
        for _ in range(_STATE_TRIES):  # a node that went can put it out of reach for a moment
            state = await self._line.call("state")
            if state is not None or self.dead:
                return state or {}
        return {}

    async def seats(self, count: int) -> None:
        """Tell it how many shards may be asked at a time from now on: a task's share is by that."""
        await self._line.call("seats", count)

    async def spent(self, phase: Phase) -> None:
        """Tell it what was spent by all that is gathered: also what earlier parts left in segments."""
        spent = getattr(phase.purse, "spent", None)
        if spent is not None:
            await self._line.call("spent", spent.usd, spent.tokens)

    async def stop(self) -> None:
        """Let all tasks end after what is in flight."""
        await self._line.call("stop")

    def close(self) -> None:
        """End it."""
        self._ray.kill(self.handle)


def purse_of(phase: Phase) -> Purse | None:
    """The budget of the suite, and what earlier parts of the sweep spent of it."""
    budget = phase.suite.budget
    if budget is None or (budget.usd is None and budget.tokens is None):
        return None
    spent = getattr(phase.purse, "spent", None)
    return Purse(budget.usd, budget.tokens, spent.usd if spent else 0.0, spent.tokens if spent else 0.0)


def limits_of(jobs: Sequence[MatrixJob]) -> dict[str, LimitsSpec]:
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
