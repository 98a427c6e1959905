"""How a sweep ends: its status, its exit code, and the reasons where nothing was scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from evalrun.errors import ExitCode, UserError
from evalrun.gates.check import Inconclusive, blocks, undecided_for_loss
from evalrun.gates.conditions import GateResult
from evalrun.results import Lost


def status_of(
    lost: Sequence[Lost], runs: int, *, interrupted: bool, complete: bool
) -> Literal["interrupted", "incomplete", "failed", "complete"]:
    """`failed` is a sweep that was asked to the end and of which no request was answered: it stays in the
    history as it is, and the same command begins a new one."""
    if interrupted:
        return "interrupted"
    if not complete:
        return "incomplete"
    unanswered = {each.run for each in lost if each.everything and each.failed == each.of}
    return "failed" if runs and len(unanswered) == runs else "complete"


def nothing_scored(lost: Sequence[Lost]) -> list[UserError]:
    """A fault for each run of which a scorer scored nothing at all, with the first cause in its own words."""
    faults = []
    for run in dict.fromkeys(each.run for each in lost if each.everything):
        of_run = [each for each in lost if each.run == run and each.everything]
        first = of_run[0]
        if first.failed == first.of:
            what = f"{run}: no request was answered, all {first.of:,} failed"
        else:
            names = ", ".join(each.scorer for each in of_run)
            rows = "its only row was" if first.of == 1 else f"all {first.of:,} rows were"
            what = f"{run}: nothing was scored by {names}, {rows} lost"
        faults.append(UserError(f"{what}; the first: {first.cause}", exit_code=ExitCode.INCOMPLETE))
    return faults


def exit_code_of(
    lost: Sequence[Lost],
    gates: Sequence[GateResult],
    inconclusive: Inconclusive,
    *,
    interrupted: bool = False,
    complete: bool = True,
) -> ExitCode:
    """130 interrupted; 3 not completed, or nothing scored; 1 a gate failed; 3 a gate that lost rows leave
    undecided; else 0."""
    if interrupted:
        return ExitCode.INTERRUPTED
    if not complete or any(each.everything for each in lost):
        return ExitCode.INCOMPLETE
    if blocks(gates, inconclusive):
        return ExitCode.GATE_FAILED
    return ExitCode.INCOMPLETE if undecided_for_loss(gates) else ExitCode.OK
