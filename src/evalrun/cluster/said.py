"""What is said of a sweep on a cluster: what was lost and asked again, and why it could not go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalrun.cluster.cut import Run
from evalrun.errors import ExitCode, UserError

KEEPERLESS = (
    "what keeps the limits over all nodes was gone: each task kept to its share of them, after a minute in "
    "which nothing was sent"
)


def lost_again(state: Mapping[str, Any], run: Run) -> dict[str, int]:
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


def sentence(again: Mapping[str, int]) -> str:
    return (
        f"{again.get('lost_attempts', 0)} attempts at shards were lost: {again.get('asked_again', 0)} of "
        "their answers were in no segment and were asked for again, besides what was in flight; "
        f"{again['answered_twice']} answers came twice, of which the first counts"
    )


def too_many(run: Run) -> UserError:
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
