"""Gates: conditions on metrics that decide the exit code.

    exact_match >= 0.5                                         a metric over all samples, every run
    exact_match[dialect=aave] >= 0.5 for model=served          a slice of it; some runs only
    performance.e2e_s.p95 <= baseline * 1.2                    relative to the same run of the baseline
    exact_match no worse than baseline by 0.02                 a paired test, sample by sample

Nothing passes that has no samples, no such metric, or no baseline where one is needed.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from evalrun.errors import Problem
from evalrun.registry import nearest

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
NUMBER_FORM = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
METRIC_FORM = r'(?:"(?P<quoted>[^"]+)"|(?P<metric>[\w.\-]+))'
SLICE_FORM = r"(?:\[(?P<slice>[^\]]*)\])?"
_BOUND = (
    rf"(?:(?P<bound>{NUMBER_FORM})(?P<percent>%?)"
    r"|baseline(?:\s*(?P<sign>[-+*])\s*(?P<change>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?))?)"
)
SCOPE_FORM = r"(?:\s+for\s+(?P<scope>\S.*?))?"
_COMPARISON = re.compile(rf"\s*{METRIC_FORM}{SLICE_FORM}\s*(?P<op>>=|<=|>|<)\s*{_BOUND}{SCOPE_FORM}\s*")
_NO_WORSE = re.compile(
    rf"\s*{METRIC_FORM}{SLICE_FORM}\s+(?P<strict>strictly\s+)?no\s+worse\s+than\s+baseline"
    rf"(?:\s+by\s+(?P<margin>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?))?{SCOPE_FORM}\s*"
)
SCOPES = ("model", "prompt", "dataset", "run")
_FORMS = (
    "Write one of: exact_match >= 0.5; exact_match[dialect=aave] >= 0.5; exact_match >= baseline - 0.02; "
    "performance.e2e_s.p95 <= baseline * 1.2; exact_match no worse than baseline by 0.02; "
    "each may end in: for model=ID"
)


class Verdict(StrEnum):
    """What a gate says of a run."""

    PASS = "pass"  # noqa: S105  (a verdict, not a password)
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Gate:
    """`metric` (of a slice) compared with `bound`. `text` is the gate as written.

    Of kind "relative", the bound is made from the baseline's value by `sign` and `bound`; of kind "no_worse",
    `bound` is the margin in the metric's unit, and a `strict` one passes or fails, never undecided. `scope`
    says of which runs it speaks.
    """

    text: str
    metric: str
    op: str
    bound: float
    kind: Literal["absolute", "relative", "no_worse"] = "absolute"
    sign: Literal["", "+", "-", "*"] = ""
    slice: Mapping[str, str] = field(default_factory=dict)
    scope: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False

    @property
    def needs_baseline(self) -> bool:
        """Whether the gate compares with a baseline."""
        return self.kind != "absolute"

    def holds(self, value: float, baseline: float | None = None) -> bool:
        """Whether a value satisfies the condition."""
        return _OPERATORS[self.op](value, self.limit(baseline))

    def limit(self, baseline: float | None = None) -> float:
        """What the value is held against."""
        if self.kind == "absolute" or baseline is None:
            return self.bound
        made = {"": baseline, "+": baseline + self.bound, "-": baseline - self.bound}
        return made.get(self.sign, baseline * self.bound)

    def covers(self, run: Mapping[str, Any]) -> bool:
        """Whether the gate speaks of a run (given with run, model, prompt and dataset)."""
        return all(str(run.get(key)) == value for key, value in self.scope.items())


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate on one run. `value` is None where the metric has none; `reason` then says why.

    `baseline` is the baseline's value, `limit` what the value was held against. For paired tests
    `difference`, `ci_low` and `ci_high` are of run - baseline over `n` pairs, and `detectable` is the
    difference that so many pairs find four times in five.
    """

    gate: str
    run: str
    verdict: Verdict
    value: float | None
    reason: str = ""
    baseline: float | None = None
    limit: float | None = None
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int | None = None
    detectable: float | None = None


def parse_gate(text: str) -> Gate | Problem:
    """A gate, or what is wrong with its text."""
    match = _COMPARISON.fullmatch(text) or _NO_WORSE.fullmatch(text)
    if match is None:
        return Problem(f"cannot read the gate '{text}'", "gates", _FORMS)
    parts = match.groupdict()
    pairs = read_pairs(parts["slice"]), read_pairs(parts["scope"])
    if pairs[0] is None or pairs[1] is None:
        return Problem(f"cannot read the gate '{text}': groups are written NAME=VALUE", "gates", _FORMS)
    for key in pairs[1]:
        if key not in SCOPES:
            what = f"cannot read the gate '{text}': 'for' takes {', '.join(SCOPES)}, not '{key}'"
            return Problem(what, "gates", _FORMS)
    return _gate(text.strip(), parts, pairs[0], pairs[1])


def _gate(text: str, parts: Mapping[str, str | None], slice_: dict[str, str], scope: dict[str, str]) -> Gate:
    metric = parts["quoted"] or parts["metric"] or ""
    if "margin" in parts:
        margin, strict = float(parts["margin"] or 0), parts["strict"] is not None
        return Gate(text, metric, "", margin, "no_worse", "", slice_, scope, strict)
    op = parts["op"] or ""
    if parts["bound"] is not None:
        bound = float(parts["bound"]) / (100 if parts["percent"] else 1)
        return Gate(text, metric, op, bound, "absolute", "", slice_, scope)
    sign: Literal["", "+", "-", "*"] = parts["sign"] or ""  # type: ignore[assignment]
    return Gate(text, metric, op, float(parts["change"] or 0), "relative", sign, slice_, scope)


def read_pairs(text: str | None) -> dict[str, str] | None:
    """`a=b, c=d` (or with `and`) as a dict; None where it is not of that form."""
    pairs: dict[str, str] = {}
    for part in re.split(r",|\sand\s", text) if text is not None else ():
        key, equals, value = part.partition("=")
        if not equals or not key.strip() or not value.strip():
            return None
        pairs[key.strip()] = value.strip().strip("\"'")
    return pairs


def find_metric(
    metrics: Sequence[Mapping[str, Any]], name: str, slice_: Mapping[str, str]
) -> Mapping[str, Any] | None:
    """The metric of that name and slice among those of a run, as `run.json` has them."""
    for metric in metrics:
        if metric["name"] == name and dict(metric.get("slice") or {}) == dict(slice_):
            return metric
    return None


def check_gate(
    gate: Gate,
    run_id: str,
    metrics: Sequence[Mapping[str, Any]],
    baseline: Sequence[Mapping[str, Any]] | None = None,
) -> GateResult:
    """Hold a gate against the metrics of a run, and a relative one against those of the baseline's run.

    Metrics are as `run.json` has them. For paired gates see `evalrun.gates.paired`.
    """
    value, missing = value_of(gate, metrics)
    if value is None:
        return GateResult(gate.text, run_id, Verdict.FAIL, None, missing)
    if gate.kind == "absolute":
        verdict = Verdict.PASS if gate.holds(value) else Verdict.FAIL
        return GateResult(gate.text, run_id, verdict, value, limit=gate.bound)
    if baseline is None:
        return GateResult(gate.text, run_id, Verdict.FAIL, value, NO_BASELINE)
    held, missing = value_of(gate, baseline)
    if held is None:
        return GateResult(gate.text, run_id, Verdict.FAIL, value, f"the baseline: {missing}")
    verdict = Verdict.PASS if gate.holds(value, held) else Verdict.FAIL
    limit = gate.limit(held)
    reason = f"held against {limit:.4g} (baseline {held:.4g})"
    return GateResult(gate.text, run_id, verdict, value, reason, baseline=held, limit=limit)


NO_BASELINE = "there is no baseline to compare with (`evalrun baseline set NAME SWEEP`, then --baseline NAME)"


def value_of(gate: Gate, metrics: Sequence[Mapping[str, Any]]) -> tuple[float | None, str]:
    metric = find_metric(metrics, gate.metric, gate.slice)
    where = "[" + ", ".join(f"{key}={value}" for key, value in gate.slice.items()) + "]" if gate.slice else ""
    if metric is None:
        near = nearest(gate.metric, {each["name"] for each in metrics} - {gate.metric})
        meant = f" (did you mean '{near}'?)" if near and not gate.slice else ""
        return None, f"no metric '{gate.metric}{where}' in this run{meant}"
    if metric["value"] is None:
        return None, metric.get("note") or "it has no value"
    if metric.get("n") == 0:
        return None, "no samples"
    return float(metric["value"]), ""
