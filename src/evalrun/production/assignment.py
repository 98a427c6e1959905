"""An experiment as its file says it, and which arm a unit is in.

The arm is a function of the unit's key alone: the application computes it by five lines, and so does whoever
reads the logs. Experiments of one namespace that have different buckets of it share no unit.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from evalrun.errors import Problem, UserError
from evalrun.spans import span_s
from evalrun.suite.components import Id
from evalrun.suite.findings import complaint, from_pydantic
from evalrun.suite.tree import parse_yaml
from evalrun.suite.values import Spec

BUCKETS = 10_000
"""A unit falls into one of so many buckets: shares are exact to one in so many."""

_GUARD = re.compile(
    r"(?P<name>[^\s<>=]+)\s+(?:(?:p(?P<percent>\d{1,2}(?:\.\d+)?)\s*)?(?P<sign><=|>=)\s*(?P<bound>-?[\d.]+(?:e-?\d+)?)"
    r"|no\s+(?P<way>worse|higher|lower)(?:\s+by\s+(?P<margin>[\d.]+))?)\s*\Z",
    re.IGNORECASE,
)
_LOWER = re.compile(r"error|refus|unparsed|fail|e2e|ttft|latency|cost|tokens|down\b|_s\Z", re.IGNORECASE)


def is_lower_better(name: str) -> bool:
    """Whether a figure of this name is better where it is lower: errors, refusals, times, costs, tokens."""
    return bool(_LOWER.search(name))


def parse_guard(text: str) -> re.Match[str]:
    """A guardrail's parts. Raises ValueError."""
    match = _GUARD.match(text.strip())
    if match is None:
        raise ValueError(
            f"cannot read the guardrail '{text}': write e2e_s p95 <= 8, cost_usd <= 0.01, "
            "score.refused no worse by 0.01"
        )
    return match


def _guard(text: str) -> str:
    parse_guard(text)
    return text


def _span(text: str) -> str:
    if span_s(text) is None and not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        raise ValueError(f"'{text}' is no date: write 2026-12-24")
    return text


class RatioSpec(Spec):
    """A metric that is a sum over a sum, such as tokens per answer."""

    numerator: str = Field(description="Column that is summed above.")
    denominator: str = Field(description="Column that is summed below.")


class ExperimentSpec(Spec):
    """An experiment on the users of a deployment."""

    id: Id = Field(description="Its name; the salt of the assignment.")
    arms: dict[str, str | None] = Field(
        min_length=2, description="The arms, control first, each with the run (SWEEP/RUN) that it serves."
    )
    split: dict[str, float] = Field(
        default_factory=dict, description="The shares of the arms. Default: equal."
    )
    unit: str = Field(default="user_key", description="Column of what is assigned: a user, a conversation.")
    arm: str = Field(default="arm", description="Column with the arm that the application logged.")
    namespace: str = Field(default="", description="Experiments of one namespace share its buckets.")
    buckets: tuple[int, int] = Field(
        default=(0, BUCKETS),
        description=f"The buckets of the namespace that it has, of {BUCKETS}: [0, 5000].",
    )
    primary: str | RatioSpec = Field(description="Column whose mean over requests is compared, or a ratio.")
    guardrails: list[Annotated[str, AfterValidator(_guard)]] = Field(
        default_factory=list,
        description="What must not get worse: e2e_s p95 <= 8; score.refused no worse by 0.01.",
    )
    sequential: bool = Field(default=True, description="Whether one may look at any time.")
    tuning_n: int = Field(
        default=5000, ge=100, description="Units at which a sequential interval is narrowest."
    )
    until: Annotated[str, AfterValidator(_span)] | None = Field(
        default=None, description="The date from which on a fixed experiment may be read."
    )
    covariate: str | None = Field(
        default=None,
        description="Column with the unit's mean before the experiment, which takes noise out (CUPED).",
    )
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="The level, over all treatments together.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.split and set(self.split) != set(self.arms):
            raise complaint("split and arms name different arms", "Give every arm its share.", ("split",))
        shares = self.shares
        if min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-9:
            raise complaint("the shares of the arms do not sum to 1", "Write 0.5 and 0.5.", ("split",))
        low, high = self.buckets
        if not 0 <= low < high <= BUCKETS:
            raise complaint(f"buckets lie between 0 and {BUCKETS}", "Write [0, 5000].", ("buckets",))
        if not self.sequential and self.until is None:
            raise complaint("a fixed experiment needs the date of its end", "Write until: 2026-12-24.", ())
        return self

    @property
    def shares(self) -> dict[str, float]:
        """The share of each arm, in the order of the arms."""
        return {name: self.split[name] if self.split else 1 / len(self.arms) for name in self.arms}

    @property
    def control(self) -> str:
        """The first arm."""
        return next(iter(self.arms))

    def bounds(self) -> list[tuple[str, int]]:
        """Each arm with the bucket that it ends before."""
        ends, at = [], 0.0
        for name, share in self.shares.items():
            at += share
            ends.append((name, round(at * BUCKETS)))
        return ends

    def assign(self, unit: str) -> str | None:
        """The arm of a unit; None where it is in none, since its bucket is another experiment's."""
        if not self.buckets[0] <= bucket(self.namespace, "", unit) < self.buckets[1]:
            return None
        own = bucket(self.namespace, self.id, unit)
        return next(name for name, end in self.bounds() if own < end)

    def excludes(self, other: ExperimentSpec) -> bool:
        """Whether no unit can be in both."""
        apart = self.buckets[1] <= other.buckets[0] or other.buckets[1] <= self.buckets[0]
        return bool(self.namespace) and self.namespace == other.namespace and apart

    def code(self) -> str:
        """The function that the application calls."""
        ends = self.bounds()
        chain = " else ".join(f"{name!r} if at({self.id!r}) < {end}" for name, end in ends[:-1])
        low, high = self.buckets
        return "\n".join(
            [
                "def arm(unit: str) -> str | None:  # import hashlib",
                f"    text = lambda salt: f{f'{self.namespace}|{{salt}}|{{unit}}'!r}",
                f"    at = lambda salt: int(hashlib.sha256(text(salt).encode()).hexdigest(), 16) % {BUCKETS}",
                f"    if not {low} <= at('') < {high}: return None",
                f"    return {chain} else {ends[-1][0]!r}",
            ]
        )


def bucket(namespace: str, salt: str, unit: str) -> int:
    """SHA-256 of `namespace|salt|unit`, modulo the number of buckets."""
    return int(hashlib.sha256(f"{namespace}|{salt}|{unit}".encode()).hexdigest(), 16) % BUCKETS


def load_experiment(path: Path) -> ExperimentSpec:
    """Read the file of an experiment: its keys, or these under `experiment:`. Raises UserError with every
    problem."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise UserError(error.strerror or str(error), where=str(path)) from None
    except UnicodeDecodeError:
        raise UserError("this is no text in UTF-8", where=str(path)) from None
    tree, problems = parse_yaml(text, str(path))
    if tree is None or not isinstance(tree.value, dict):
        remedy = "It has id, arms, primary."
        raise UserError(problems or [Problem("this is no experiment", str(path), remedy)])
    data: Any = tree.plain()
    prefix: tuple[str, ...] = ()
    if set(data) == {"experiment"} and isinstance(data["experiment"], dict):
        data, prefix = data["experiment"], ("experiment",)
    try:
        spec = ExperimentSpec(**data) if all(isinstance(key, str) for key in data) else None
    except ValidationError as error:
        problems += [
            Problem(item.what, str(tree.deepest((*prefix, *item.path)).shown_place()), item.remedy)
            for item in from_pydantic(error.errors(), data, ExperimentSpec)
        ]
        raise UserError(problems) from None
    if problems or spec is None:
        raise UserError(problems or [Problem("a key is no text", str(path))])
    return spec
