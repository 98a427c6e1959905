"""What goes wrong while a model is trained, seen in what it logs: each told once an episode.

Rules are robust ones (medians): limits from a mean and a standard deviation fire all day on a loss. A rule
that has fired is silent until ten logs in a row were free of what it fired on.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias, get_args

from evalrun.errors import UserError
from evalrun.registry import nearest
from evalrun.training.series import Series, role_of

Rule: TypeAlias = Literal[
    "diverged", "spike", "grad_norm", "eval_loss rising", "stalled", "lr_zero", "throughput fell"
]
RULES: tuple[Rule, ...] = get_args(Rule)

WINDOW, CALM = 50, 10
"""Logs that a rule looks back at, and logs without the condition that end an episode."""
_FEWEST = 10
_MAD = 1.4826
"""Makes the median absolute deviation of a normal distribution its standard deviation."""
_SPIKE, _RUNNING, _GRADIENT, _SLOWER, _STALL = 6.0, 3, 10.0, 0.7, 5.0
_NEAR_ZERO = 1e-3
"""A loss that came down below this may be rounded to 0.0 by its framework; any other that is 0.0 is a corpse.
"""
SHORTEST_STALL_S = 10.0


@dataclass(frozen=True, slots=True)
class TrainingAlert:
    """One episode: which rule, at which step it was first seen, and what was seen."""

    rule: Rule
    step: int
    reason: str

    def __str__(self) -> str:
        return f"{self.rule} at step {self.step:,}: {self.reason}"


def read_rules(texts: Iterable[str]) -> dict[Rule, int]:
    """Rules by name, `eval_loss rising 3` with its count; all of them where none is given. Raises UserError
    with the nearest name."""
    chosen: dict[Rule, int] = {}
    for text in texts:
        name, count = text.strip(), 0
        head, _, last = name.rpartition(" ")
        if last.isdigit() and head == "eval_loss rising":
            name, count = head, int(last)
        rule = next((each for each in RULES if each == name), None)
        if rule is None or (count and not 1 <= count <= 100):
            near = nearest(name, RULES)
            listed = f"There are: {', '.join(RULES)}; of eval_loss rising N, N evaluations in a row."
            raise UserError(
                f"there is no alert '{text[:80]}'",
                remedy=f"Did you mean '{near}'? {listed}" if near else listed,
            )
        chosen[rule] = count or _RISING
    return chosen or dict.fromkeys(RULES, _RISING)


_RISING = 3


class _Window:
    """The last values that count, kept sorted as well: their median costs next to nothing."""

    def __init__(self) -> None:
        self._values: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._values)

    def append(self, value: float) -> None:
        """The next value; the oldest goes."""
        if len(self._values) == WINDOW:
            del self._sorted[bisect_left(self._sorted, self._values.popleft())]
        self._values.append(value)
        insort(self._sorted, value)

    @property
    def median(self) -> float:
        """The median of the values."""
        ordered, half = self._sorted, len(self._sorted) // 2
        return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2

    def spread_at_least(self) -> float:
        """A bound from below on `spread`, at once: half of all values lie within the spread around the
        median, so that a quarter of all do on one of its sides."""
        half, quarter = len(self._sorted) // 2, -(-(len(self._sorted) // 2) // 2)
        middle = self.median
        return min(middle - self._sorted[half - quarter + 1], self._sorted[half + quarter - 1] - middle)

    def spread(self) -> float:
        """The median of their distances from the median."""
        middle = self.median
        return statistics.median([abs(value - middle) for value in self._sorted])


@dataclass(slots=True)
class _Episode:
    """Whether a rule is in what it fired on; so it fires once."""

    inside: bool = False
    calm: int = 0

    def fires(self, holds: bool) -> bool:
        if holds:
            self.calm = 0
            first, self.inside = not self.inside, True
            return first
        if self.inside:
            self.calm += 1
            if self.calm >= CALM:
                self.inside = False
        return False


_Check: TypeAlias = Callable[[int, Mapping[str, float]], "tuple[bool, int, str] | None"]
"""Whether a rule's condition holds, from which step on, and what was seen; None where the line says nothing
of it."""


@dataclass(slots=True)
class AlertWatch:
    """Takes what a training logs, line by line, and says what has gone wrong.

    `planned_steps` lets a learning rate end at zero. For what one line costs nothing grows with their number.
    """

    rules: Mapping[Rule, int] = field(default_factory=lambda: read_rules(()))
    planned_steps: int | None = None
    _losses: _Window = field(default_factory=_Window)
    _gradients: _Window = field(default_factory=_Window)
    _speeds: _Window = field(default_factory=_Window)
    _gaps: _Window = field(default_factory=_Window)
    _episodes: dict[Rule, _Episode] = field(default_factory=dict)
    _high: int = 0
    _spike_at: int = 0
    _zeros: int = 0
    _had_rate: bool = False
    _loss: float = math.nan
    _eval: float = math.nan
    _eval_from: float = math.nan
    _rises: int = 0
    _wall: float = math.nan
    _step: int = 0
    _checked: list[tuple[Rule, _Check]] = field(default_factory=list)
    diverged_since: int | None = None
    """The step from which on nothing that it logged was sound; None where the last of it is. A single
    overflow (mixed precision skips such a step) is told, and passes."""

    def add(self, step: int, values: Mapping[str, float], wall_s: float = math.nan) -> list[TrainingAlert]:
        """Take one line; what is to be told of it. `wall_s` is Unix time, NaN where it is not known."""
        by_role = {role: values[name] for role, name in _roles_in(tuple(values))}
        found = [*self._timed(step, wall_s)]
        for rule, check in self._checked:
            if (seen := check(step, by_role)) is not None:
                holds, at, reason = seen
                if (holds or rule in self._episodes) and self._episode(rule).fires(holds):
                    found.append(TrainingAlert(rule, at, reason))
        self._step = step
        return found

    def idle(self, now_s: float) -> list[TrainingAlert]:
        """What is to be told where nothing was logged until now (Unix time)."""
        return self._stalled(self._step, now_s - self._wall) if math.isfinite(self._wall) else []

    def _episode(self, rule: Rule) -> _Episode:
        return self._episodes.setdefault(rule, _Episode())

    def __post_init__(self) -> None:
        checks: Mapping[Rule, _Check] = {
            "diverged": self._diverged,
            "spike": self._spike,
            "grad_norm": self._gradient,
            "eval_loss rising": self._rising,
            "lr_zero": self._rate,
            "throughput fell": self._speed,
        }
        self._checked = [(rule, check) for rule, check in checks.items() if rule in self.rules]

    def _timed(self, step: int, wall_s: float) -> list[TrainingAlert]:
        if not math.isfinite(wall_s):
            return []
        found: list[TrainingAlert] = []
        if math.isfinite(self._wall) and wall_s >= self._wall:
            gap = wall_s - self._wall
            found = self._stalled(self._step, gap)
            if not found:
                self._gaps.append(gap)
        self._wall = wall_s
        return found

    def _stalled(self, step: int, gap_s: float) -> list[TrainingAlert]:
        if "stalled" not in self.rules or len(self._gaps) < _FEWEST:
            return []
        usual = self._gaps.median
        long = gap_s > max(_STALL * usual, SHORTEST_STALL_S)
        if not self._episode("stalled").fires(long):
            return []
        reason = f"nothing was logged for {gap_s:.0f} s; usually it is {usual:.3g} s"
        return [TrainingAlert("stalled", step, reason)]

    def _diverged(self, step: int, values: Mapping[str, float]) -> tuple[bool, int, str] | None:
        seen = self._corpse(step, values)
        if seen is not None and seen[0] and self.diverged_since is None:
            self.diverged_since = step
        elif seen is not None and not seen[0] and "loss" in values:
            self.diverged_since = None
        return seen

    def _corpse(self, step: int, values: Mapping[str, float]) -> tuple[bool, int, str] | None:
        for role in ("grad_norm", "loss", "eval_loss"):
            if not math.isfinite(values.get(role, 0.0)):
                return True, step, f"{role} is {values[role]}"
        loss = values.get("loss")
        if loss == 0.0 and not self._loss < _NEAR_ZERO:
            before = f" after {self._loss:.4g}" if math.isfinite(self._loss) else ""
            return True, step, f"the loss is exactly 0.0{before}: trainers log that for NaN"
        if loss is not None and loss != 0.0:
            self._loss = loss
        return (False, step, "") if values.keys() & {"loss", "grad_norm", "eval_loss"} else None

    def _spike(self, step: int, values: Mapping[str, float]) -> tuple[bool, int, str] | None:
        loss = values.get("loss")
        if loss is None or not math.isfinite(loss):
            return None
        high, limit = False, math.nan
        if len(self._losses) >= 2 * _FEWEST:
            middle = self._losses.median
            least = max(_MAD * (1 - 1e-9) * self._losses.spread_at_least(), 1e-3 * abs(middle))
            if loss > middle + _SPIKE * least:
                limit = middle + _SPIKE * max(_MAD * self._losses.spread(), 1e-3 * abs(middle))
                high = loss > limit
        self._high = self._high + 1 if high else 0
        self._spike_at = step if self._high == 1 else self._spike_at
        if not high or self._high > WINDOW:  # a new level, after so long, is what the loss is now
            self._losses.append(loss)
        reason = f"the loss is {loss:.4g}, above {limit:.4g} for {_RUNNING} logs in a row"
        return self._high >= _RUNNING, self._spike_at, reason

    def _gradient(self, step: int, values: Mapping[str, float]) -> tuple[bool, int, str] | None:
        norm = values.get("grad_norm")
        if norm is None or not math.isfinite(norm):
            return None
        usual = self._gradients.median if len(self._gradients) >= _FEWEST else math.inf
        self._gradients.append(norm)
        return norm > _GRADIENT * usual, step, f"it is {norm:.4g}, usually {usual:.4g}"

    def _rising(self, step: int, values: Mapping[str, float]) -> tuple[bool, int, str] | None:
        loss = values.get("eval_loss")
        if loss is None or not math.isfinite(loss):
            return None
        rises = loss > self._eval
        self._eval_from = self._eval if rises and not self._rises else self._eval_from
        self._rises, self._eval = (self._rises + 1 if rises else 0), loss
        if not self._rises:
            self._episode("eval_loss rising").inside = False
        reason = f"it rose {self._rises} evaluations in a row, from {self._eval_from:.4g} to {loss:.4g}"
        return self._rises >= self.rules["eval_loss rising"], step, reason

    def _rate(self, step: int, values: Mapping[str, float]) -> tuple[bool, int, str] | None:
        rate = values.get("learning_rate")
        if rate is None:
            return None
        self._had_rate |= rate > 0
        self._zeros = self._zeros + 1 if rate == 0 and self._had_rate else 0
        over = self.planned_steps is not None and step >= self.planned_steps
        return self._zeros >= _RUNNING and not over, step, f"the learning rate is 0 for {self._zeros} logs"

    def _speed(self, step: int, values: Mapping[str, float]) -> tuple[bool, int, str] | None:
        speed = values.get("tokens_per_s")
        if speed is None or not math.isfinite(speed):
            return None
        usual = self._speeds.median if len(self._speeds) >= _FEWEST else 0.0
        slow = speed < _SLOWER * usual
        if not slow:
            self._speeds.append(speed)
        return slow, step, f"{speed:,.4g} tokens/s, usually {usual:,.4g}"


@lru_cache(1024)
def _roles_in(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """What plays which role: of several that are alike (`loss`, and `train_loss` at the end) the shortest
    name."""
    ordered = sorted(names, key=len, reverse=True)
    return tuple({role: name for name in ordered if (role := role_of(name))}.items())


def alerts_of(
    series: Series, planned_steps: int | None = None, rules: Mapping[Rule, int] | None = None
) -> list[TrainingAlert]:
    """The alerts of a whole training, in the order of its steps."""
    return watched(series, planned_steps, rules)[0]


def watched(
    series: Series, planned_steps: int | None = None, rules: Mapping[Rule, int] | None = None
) -> tuple[list[TrainingAlert], int | None]:
    """The alerts of a whole training, and the step from which on it had diverged for good (None: it had not,
    or it came back)."""
    watch = AlertWatch(rules or read_rules(()), planned_steps)
    roles = [name for name in series.names if role_of(name)]
    alerts = [
        alert for step, wall, values in series.only(roles).lines() for alert in watch.add(step, values, wall)
    ]
    return alerts, watch.diverged_since
