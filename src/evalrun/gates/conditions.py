"""Gates: conditions on metrics that decide the exit code.

    exact_match >= 0.5                                         a metric over all samples, every run
    exact_match[dialect=aave] >= 0.5 for model=served          a slice of it; some runs only
    performance.e2e_s.p95 <= baseline * 1.2                    relative to the same run of the baseline
    privacy.findings == 0                                      nothing personal is found in what is stored
    exact_match >= 0.7 confidently                             its whole 95 % interval, not the value alone
    exact_match no worse than baseline by 0.02                 a paired test, sample by sample
    exact_match no worse than last 5 by 0.02                   against the mean of the five sweeps before
    performance.goodput_rps at load=8/s >= 5                   one level of load
    exact_match at load=8/s no worse than load=reference by 0.02   against another level, sample by sample
    exact_match no worse than best step by 0.02                a training's last checkpoint against its best
    served_model: same                                         the server names itself as in the baseline

Nothing passes that has no samples, no such metric, or no baseline where one is needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from evalrun import registry
from evalrun.analysis.catalogue import FINDINGS, RATES, performance_catalogue
from evalrun.analysis.catalogue import OF_SCORES as OF_REPEATS
from evalrun.analysis.fairness_definitions import CRITERIA, DECISIONS, FLIPS
from evalrun.analysis.fairness_definitions import OF_SCORES as OF_VERSIONS
from evalrun.errors import Problem
from evalrun.floats import COMPARISONS
from evalrun.frozen import frozen
from evalrun.registry import did_you_mean, nearest
from evalrun.sweep_results import Concentration
from evalrun.tracking.people import TAG_FIGURE
from evalrun.types import PERTURB

if TYPE_CHECKING:
    from evalrun.scoring.base import Scorer
    from evalrun.suite.schema import Suite

NUMBER_FORM = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
METRIC_FORM = r'(?:"(?P<quoted>[^"]+)"|(?P<metric>[\w.\-]+))'
SLICE_FORM = r"(?:\[(?P<slice>[^\]]*)\])?"
_BOUND = (
    rf"(?:(?P<bound>{NUMBER_FORM})(?P<percent>%?)"
    r"|baseline(?:\s*(?P<sign>[-+*])\s*(?P<change>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?))?)"
)
_SURE = r"(?P<confidently>\s+confidently)?"
SCOPE_FORM = r"(?:\s+for\s+(?P<scope>\S.*?))?"
_COMPARISON = re.compile(
    rf"\s*{METRIC_FORM}{SLICE_FORM}\s*(?P<op>>=|<=|>|<|==)\s*{_BOUND}{_SURE}{SCOPE_FORM}\s*"
)
_NO_WORSE = re.compile(
    rf"\s*{METRIC_FORM}{SLICE_FORM}\s+(?P<strict>strictly\s+)?no\s+worse\s+than\s+"
    r"(?:baseline|(?:the\s+)?last\s+(?P<pool>[1-9]\d{0,2})(?:\s+sweeps?)?)"
    rf"(?:\s+by\s+(?P<margin>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?))?{SCOPE_FORM}\s*"
)
_STEPS = re.compile(
    rf"\s*{METRIC_FORM}{SLICE_FORM}\s+(?P<strict>strictly\s+)?(?P<steps>(?:no\s+)?worse\s+than\s+(?:the\s+)?best\s+step)"
    rf"(?:\s+by\s+(?P<margin>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?))?{SCOPE_FORM}\s*"
)
"""As a gate, without "no" it says what must not be: nobody wants the last step to be worse."""
_SERVED = re.compile(rf"\s*(?P<metric>served_model)\s*(?::|==?|\s)\s*same{SCOPE_FORM}\s*")
SERVED = "served_model"
SCOPES = ("model", "prompt", "dataset", "run", "load")
_AT_LOAD = re.compile(
    rf"(?P<metric>\s*{METRIC_FORM.replace('?P<metric>', '?:').replace('?P<quoted>', '?:')}"
    rf"{SLICE_FORM.replace('?P<slice>', '?:')})\s+at\s+load\s*=\s*(?P<load>\S+)(?P<rest>\s.*)"
)
_AGAINST_LOAD = re.compile(r"\bthan\s+load\s*=\s*(?P<load>\S+)")
_LEVEL = re.compile(r"(?P<number>\d+\.?\d*|\.\d+)\s*(?P<rate>/s|rps)?")
FEEDBACK = "feedback."
"""How the names of figures begin that users give (`evalrun feedback`)."""
TLS = "tls_days"
"""The days that the certificate of a probed endpoint holds."""
REFERENCE = "reference"
COMPARED = "compared with"
"""How a reason names the limit that was made from the baseline."""
_FORMS = (
    "Write one of: exact_match >= 0.5; exact_match[dialect=aave] >= 0.5; exact_match >= baseline - 0.02; "
    "performance.e2e_s.p95 <= baseline * 1.2; exact_match >= 0.7 confidently; "
    "exact_match no worse than baseline by 0.02; exact_match no worse than last 5 by 0.02; "
    "exact_match no worse than best step by 0.02; "
    "each may end in: for model=ID"
)


class Verdict(StrEnum):
    """What a gate says of a run."""

    PASS = "pass"  # noqa: S105  (a verdict, not a password)
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@frozen
class Gate:
    """`metric` (of a slice) compared with `bound`. `text` is the gate as written.

    Of kind "relative", the bound is made from the baseline's value by `sign` and `bound`; of kind "no_worse",
    `bound` is the margin in the metric's unit, and a `strict` one passes or fails, never undecided. `scope`
    says of which runs it speaks. With `confidently` the whole interval must satisfy the condition. With
    `pool` the baseline is the mean of so many sweeps before, with `against` it is the level of load of that
    name of the same sweep, with `steps` the best step of the same training.
    """

    text: str
    metric: str
    op: str
    bound: float
    kind: Literal["absolute", "relative", "no_worse", "served"] = "absolute"
    sign: Literal["", "+", "-", "*"] = ""
    slice: Mapping[str, str] = field(default_factory=dict)
    scope: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    confidently: bool = False
    pool: int = 0
    against: str = ""
    steps: bool = False

    @property
    def needs_baseline(self) -> bool:
        """Whether the gate compares with a baseline that has to be named."""
        return self.kind != "absolute" and not self.pool and not self.against and not self.steps

    def holds(self, value: float, baseline: float | None = None) -> bool:
        """Whether a value satisfies the condition; a difference that is rounding does not count."""
        return COMPARISONS[self.op](value, self.limit(baseline))

    def limit(self, baseline: float | None = None) -> float:
        """What the value is compared with."""
        if self.kind == "absolute" or baseline is None:
            return self.bound
        made = {"": baseline, "+": baseline + self.bound, "-": baseline - self.bound}
        return made.get(self.sign, baseline * self.bound)

    def covers(self, run: Mapping[str, Any]) -> bool:
        """Whether the gate speaks of a run (given with run, model, prompt and dataset, and params)."""
        of = (run.get("checkpoint") or {}).get("of")  # the model's name in the suite, before its steps
        return all(
            value in level_words(run)
            if key == "load"
            else str(run.get(key)) == value or (key == "model" and of == value)
            for key, value in self.scope.items()
        )


@frozen
class GateResult:
    """One gate on one run. `value` is None where the metric has none; `reason` then says why.

    `baseline` is the baseline's value, `limit` what the value was compared with. For paired tests
    `difference`, `ci_low` and `ci_high` are of run - baseline over `n` pairs, and `detectable` is the
    difference that so many pairs find four times in five. `incomplete` says that the figure, or the
    baseline's, lost more rows than the suite tolerates: then the gate passes only where the worst case does,
    fails only where the best case does, and is inconclusive otherwise. `where` are the slices that hold
    more of the samples that speak against it than chance, for a gate that fails. A paired gate fails at
    `level`.
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
    level: float | None = None
    incomplete: bool = False
    where: tuple[Concentration, ...] = ()


def level_words(run: Mapping[str, Any]) -> tuple[str, ...]:
    """The words for the level of load of a planned run, empty where it has none."""
    value = (run.get("params") or {}).get("load")
    if value is None:
        return ()
    own = (level_word(str(value)),)
    return (*own, REFERENCE) if run.get("role") == REFERENCE else own


def level_word(text: str) -> str:
    """One form for a level: `8/s` for 8.0/s and 8rps, `4` for 4."""
    found = _LEVEL.fullmatch(text.strip())
    return text if found is None else f"{float(found['number']):.12g}{'/s' if found['rate'] else ''}"


def parse_gate(text: str) -> Gate | Problem:
    """A gate, or what is wrong with its text."""
    at = _AT_LOAD.fullmatch(text)
    if at is None:
        return _parsed(text)
    rest = at["rest"]
    against = _AGAINST_LOAD.search(rest)
    if against is not None:
        rest = f"{rest[: against.start()]}than baseline{rest[against.end() :]}"
    gate = _parsed(at["metric"] + rest)
    if isinstance(gate, Problem):
        return Problem(f"cannot read the gate '{text}'", gate.where, gate.remedy)
    scope = {**gate.scope, "load": level_word(at["load"])}
    named = "" if against is None else level_word(against["load"])
    return replace(gate, text=text.strip(), scope=scope, against=named)


def _parsed(text: str) -> Gate | Problem:
    forms = (_SERVED, _COMPARISON, _NO_WORSE, _STEPS)
    match = next((match for form in forms if (match := form.fullmatch(text))), None)
    if match is None:
        return Problem(f"cannot read the gate '{text}'", "gates", _FORMS)
    parts = match.groupdict()
    if parts.get("op") == "==" and (parts["metric"] != FINDINGS.name or parts["bound"] != "0"):
        what = f"cannot read the gate '{text}': only {FINDINGS.name} is compared by '==', with 0"
        return Problem(what, "gates", "Figures are estimates: compare them by >=, <=, > or <.")
    if parts.get("confidently") and parts.get("bound") is None:
        what = (
            f"cannot read the gate '{text}': 'confidently' is for a number, a baseline varies by chance too"
        )
        return Problem(what, "gates", "Write: no worse than baseline by MARGIN")
    pairs = read_pairs(parts.get("slice")), read_pairs(parts["scope"])
    if pairs[0] is None or pairs[1] is None:
        return Problem(f"cannot read the gate '{text}': groups are written NAME=VALUE", "gates", _FORMS)
    for key in pairs[1]:
        if key not in SCOPES:
            what = f"cannot read the gate '{text}': 'for' takes {', '.join(SCOPES)}, not '{key}'"
            return Problem(what, "gates", _FORMS)
    if "load" in pairs[1]:
        pairs[1]["load"] = level_word(pairs[1]["load"])
    return _gate(text.strip(), parts, pairs[0], pairs[1])


def _gate(text: str, parts: Mapping[str, str | None], slice_: dict[str, str], scope: dict[str, str]) -> Gate:
    metric = parts.get("quoted") or parts["metric"] or ""
    if "quoted" not in parts:
        return Gate(text, metric, "", 0.0, "served", "", slice_, scope)
    if "margin" in parts:
        margin, strict = float(parts["margin"] or 0), parts["strict"] is not None
        if "steps" in parts:
            return Gate(text, metric, "", margin, "no_worse", "", slice_, scope, strict, steps=True)
        return Gate(
            text, metric, "", margin, "no_worse", "", slice_, scope, strict, pool=int(parts["pool"] or 0)
        )
    op = (parts["op"] or "").replace("==", "<=")  # a count is not below 0
    if parts["bound"] is not None:
        bound = float(parts["bound"]) / (100 if parts["percent"] else 1)
        sure = parts["confidently"] is not None
        return Gate(text, metric, op, bound, "absolute", "", slice_, scope, confidently=sure)
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
    """Check a gate on the metrics of a run, and a relative one on those of the baseline's run.

    Metrics are as `run.json` has them. For paired gates see `evalrun.gates.check`.
    """
    value, missing = value_of(gate, metrics)
    if value is None:
        return GateResult(gate.text, run_id, Verdict.FAIL, None, missing)
    ends = _ends(find_metric(metrics, gate.metric, gate.slice), value)
    if gate.kind == "absolute":
        if ends.incomplete:
            return GateResult(
                gate.text, run_id, ends.verdict([gate.holds(end) for end in ends.values]), value,
                ends.sentence, limit=gate.bound, incomplete=True,
            )  # fmt: skip
        return _by_interval(gate, run_id, value, find_metric(metrics, gate.metric, gate.slice) or {})
    if baseline is None:
        return GateResult(gate.text, run_id, Verdict.FAIL, value, NO_BASELINE)
    held, missing = value_of(gate, baseline)
    if held is None:
        return GateResult(gate.text, run_id, Verdict.FAIL, value, f"the baseline: {missing}")
    limit = gate.limit(held)
    reason = f"{COMPARED} {limit:.4g} (baseline {held:.4g})"
    of_baseline = _ends(find_metric(baseline, gate.metric, gate.slice), held)
    if ends.incomplete or of_baseline.incomplete:
        cases = [gate.holds(end, other) for end in ends.values for other in of_baseline.values]
        said = [ends.sentence, of_baseline.sentence and f"the baseline is {of_baseline.sentence}", reason]
        return GateResult(
            gate.text, run_id, ends.verdict(cases), value, "; ".join(filter(None, said)), baseline=held,
            limit=limit, incomplete=True,
        )  # fmt: skip
    verdict = Verdict.PASS if gate.holds(value, held) else Verdict.FAIL
    return GateResult(gate.text, run_id, verdict, value, reason, baseline=held, limit=limit)


def _by_interval(gate: Gate, run_id: str, value: float, metric: Mapping[str, Any]) -> GateResult:
    """The value against a number; `confidently` the whole interval. Where the two differ it is said."""
    verdict = Verdict.PASS if gate.holds(value) else Verdict.FAIL
    low, high = metric.get("ci_low"), metric.get("ci_high")
    plain = GateResult(gate.text, run_id, verdict, value, limit=gate.bound)
    if low is None or high is None:
        if not gate.confidently:
            return plain
        return replace(plain, verdict=Verdict.INCONCLUSIVE, reason="the value has no interval to decide by")
    interval = f"95 % interval {low:.4g} to {high:.4g}"
    if gate.holds(low) == gate.holds(high):
        return replace(plain, reason=interval) if gate.confidently else plain
    if gate.confidently:
        return replace(plain, verdict=Verdict.INCONCLUSIVE, reason=f"{interval}, which reaches both sides")
    return replace(plain, reason=f"by the value alone: its {interval} reaches both sides")


def signed(value: float) -> str:
    """A difference as every page and table writes it: a sign always, and a minus, not a hyphen."""
    return f"{value:+.3g}".replace("-", "\N{MINUS SIGN}")


@frozen
class _Ends:
    """The least and the greatest value that a figure may have; `sentence` where it is incomplete."""

    values: tuple[float, ...]
    incomplete: bool = False
    sentence: str = ""

    @staticmethod
    def verdict(cases: Sequence[bool]) -> Verdict:
        """What holds in all cases passes, what holds in none fails, and the rest cannot be told."""
        return Verdict.PASS if all(cases) else Verdict.INCONCLUSIVE if any(cases) else Verdict.FAIL


def _ends(metric: Mapping[str, Any] | None, value: float) -> _Ends:
    if metric is None or not metric.get("incomplete"):
        return _Ends((value,))
    low, high = metric.get("bound_low"), metric.get("bound_high")
    values = (-math.inf if low is None else float(low), math.inf if high is None else float(high))
    return _Ends(values, incomplete=True, sentence=str(metric.get("note") or "").partition("; ")[0])


FIRST = "there is no baseline yet, and `baseline: first` lets the first sweep pass: nothing was compared"
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


_LABEL = "<label>"
_OF_K = re.compile(r"pass_(at|hat)_[1-9][0-9]*")


@frozen
class Speakable:
    """What a condition of a suite may speak of.

    `names` are whole names of metrics and `heads` beginnings that may be followed by anything (a class, or
    what a scorer of the user's own adds). `columns` hold groups, `attributes` set versions of samples apart;
    `scopes` are the ids that `for` may name (without `run`: those depend on what is selected).
    """

    names: frozenset[str]
    heads: tuple[str, ...]
    columns: frozenset[str]
    attributes: frozenset[str]
    repeated: bool
    scopes: Mapping[str, Collection[str]]

    def metric(self, name: str) -> bool:
        """Whether runs of the suite can have a metric of that name."""
        if name in self.names or name.startswith(self.heads):
            return True
        head, _, rest = name.partition(".")
        if head == "fairness":
            return any(self._between(rest.removeprefix(f"{each}.")) for each in self._columns_of(rest))
        if head == "counterfactual":
            return any(self._of_versions(rest.removeprefix(f"{each}.")) for each in self._attributes_of(rest))
        inner, _, figure = rest.rpartition(".")
        if head == "robustness":
            return PERTURB in self.attributes and figure in OF_VERSIONS and self.metric(inner)
        if head == "repeats" and self.repeated:
            known = figure in OF_REPEATS or _OF_K.fullmatch(figure) is not None
            return rest == "consistency" or (known and self.metric(inner))
        return False

    def _columns_of(self, rest: str) -> list[str]:
        return [column for column in self.columns if rest.startswith(f"{column}.")]

    def _attributes_of(self, rest: str) -> list[str]:
        return [attribute for attribute in self.attributes if rest.startswith(f"{attribute}.")]

    def _between(self, figure: str) -> bool:
        """Whether groups of a column have a figure: `<metric>.gap`, `equal_opportunity.<label>.ratio`."""
        inner, _, last = figure.rpartition(".")
        if last in ("gap", "contrast"):
            return self.metric(inner)
        kinds = (each.rpartition(".") for each in CRITERIA)
        return any(
            last == form and (inner == kind or inner.startswith(f"{kind}.")) for kind, _, form in kinds
        )

    def _of_versions(self, figure: str) -> bool:
        inner, _, last = figure.rpartition(".")
        return figure in FLIPS or (last == "difference" and self.metric(inner))


def speakable(suite: Suite, scorers: Sequence[Scorer], declared: Mapping[str, Collection[str]]) -> Speakable:
    """What the conditions of a suite may speak of; `declared` gives the ids of models, prompts, datasets."""
    patterns = {rate.info.name for rate in RATES} | {FINDINGS.name} | set(performance_catalogue())
    attributes: set[str] = set()
    for dataset in suite.datasets:
        attributes |= {*dataset.counterfactual, *((PERTURB,) if dataset.perturb else ())}
    columns = set(attributes)
    if suite.fairness is not None:
        columns |= {*suite.fairness.by, *suite.fairness.control}
        columns |= {name for names in suite.fairness.intersections for name in names}
        columns |= {"-".join(names) for names in suite.fairness.intersections}
        patterns |= {*DECISIONS, *(f"{name}.{_LABEL}" for name in DECISIONS)}
    patterns |= {*suite.metrics, *(f"{TAG_FIGURE}{key}" for key in suite.tags)}
    heads = []
    for scorer in scorers:
        patterns |= {info.name for info in scorer.metrics()}
        if scorer.registered not in registry.built_in("scorer"):
            patterns.add(scorer.name)
            heads.append(f"{scorer.name}.")
    return Speakable(
        names=frozenset(pattern for pattern in patterns if _LABEL not in pattern),
        heads=(*heads, *(pattern.partition(_LABEL)[0] for pattern in patterns if _LABEL in pattern)),
        columns=frozenset(columns),
        attributes=frozenset(attributes),
        repeated=suite.repeats > 1,
        scopes=declared,
    )


def unknown(gate: Gate, about: Speakable, kind: str = "gate") -> Iterator[Problem]:
    """What a condition speaks of and its suite does not have. The problems have no place."""
    if gate.kind != "served" and not about.metric(gate.metric):
        what = (
            f"no run of this suite has the metric '{gate.metric}', of which the {kind} '{gate.text}' speaks"
        )
        yield Problem(what, "", _remedy(gate.metric, about))
    for column in gate.slice:
        if column not in about.columns:
            what = f"the {kind} '{gate.text}' speaks of groups of '{column}', which fairness does not compare"
            yield Problem(
                what, "", did_you_mean(column, about.columns) or "Name it under fairness: {by: […]}."
            )
    if gate.against and gate.against not in about.scopes.get("load", ()):
        what = f"the {kind} '{gate.text}' speaks of the load '{gate.against}', which the suite does not have"
        yield Problem(what, "", did_you_mean(gate.against, about.scopes.get("load", ())))
    for axis, value in gate.scope.items():
        if axis in about.scopes and value not in about.scopes[axis]:
            what = f"the {kind} '{gate.text}' speaks of the {axis} '{value}', which the suite does not have"
            yield Problem(what, "", did_you_mean(value, about.scopes[axis]))


def _remedy(name: str, about: Speakable) -> str:
    near = registry.nearest(name, about.names)
    if near:
        return f"Did you mean '{near}'?"
    if name.startswith("fairness."):
        return f"Columns that fairness compares: {', '.join(sorted(about.columns)) or 'none'}."
    if name.startswith("repeats.") and not about.repeated:
        return "With repeats: 2 or more there is."
    own = sorted({each for each in about.names if each.partition(".")[0] not in _FAMILIES})
    return f"Scores of this suite: {', '.join(own)}."


_FAMILIES = frozenset(name.partition(".")[0] for name in (FINDINGS.name, *performance_catalogue()))
