"""Gates: conditions on metrics that decide the exit code.

`exact_match >= 0.5`, `performance.ttft_s.p95 <= 1.5`: a metric, a comparison, a number. A gate is checked
on every run. A metric that is missing or has no value never passes.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from evalrun.errors import Problem

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_GATE = re.compile(rf"\s*(?P<metric>[\w.\-]+)\s*(?P<op>>=|<=|>|<)\s*(?P<bound>{_NUMBER})(?P<percent>%?)\s*")


class Verdict(StrEnum):
    """What a gate says of a run."""

    PASS = "pass"  # noqa: S105  (a verdict, not a password)
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Gate:
    """`metric` compared with `bound`. `text` is the gate as written."""

    text: str
    metric: str
    op: str
    bound: float

    def holds(self, value: float) -> bool:
        """Whether a value satisfies the condition."""
        return _OPERATORS[self.op](value, self.bound)


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate on one run. `value` is None where the metric has none; `reason` then says why."""

    gate: str
    run: str
    verdict: Verdict
    value: float | None
    reason: str = ""


def parse_gate(text: str) -> Gate | Problem:
    """A gate, or what is wrong with its text."""
    match = _GATE.fullmatch(text)
    if match is None:
        return Problem(
            f"cannot read the gate '{text}'",
            "gates",
            "Write METRIC OP NUMBER with OP one of >= <= > <, for example: exact_match >= 0.5",
        )
    bound = float(match["bound"]) / (100 if match["percent"] else 1)
    return Gate(text.strip(), match["metric"], match["op"], bound)


def check_gate(gate: Gate, run_id: str, metrics: Sequence[Mapping[str, Any]]) -> GateResult:
    """Hold a gate against the metrics of a run (as `run.json` has them), over all samples (no slice)."""
    for metric in metrics:
        if metric["name"] == gate.metric and not metric.get("slice"):
            value = metric["value"]
            if value is None:
                note = metric.get("note") or "it has no value"
                return GateResult(gate.text, run_id, Verdict.FAIL, None, note)
            verdict = Verdict.PASS if gate.holds(value) else Verdict.FAIL
            return GateResult(gate.text, run_id, verdict, value)
    return GateResult(gate.text, run_id, Verdict.FAIL, None, f"no metric '{gate.metric}' in this run")
