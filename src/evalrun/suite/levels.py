"""Load as an axis of the matrix: what `load:` says, and the levels that it makes.

A level is a number of requests in flight (closed loop: the next request is sent when an answer is there) or a
schedule of arrivals (open loop: requests are sent when they are due, however slow the server is).
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from evalrun.floats import COMPARISONS
from evalrun.frozen import frozen
from evalrun.suite.findings import complaint, describe
from evalrun.suite.values import Fraction, LocalPath, Spec
from evalrun.types import JSON

_RATE = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*(?:/\s*(s|sec|second|min|minute|h|hour))?\s*")
_SECONDS = {None: 1, "s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_SLO = re.compile(rf"\s*(?P<of>[\w.]+)\s*(?P<op><=|<)\s*(?P<bound>{_NUMBER})\s*s?\s*")
_RIGHT = re.compile(rf"\s*(?P<of>[\w.\-]+)\s*(?P<op>>=|>|<=|<)\s*(?P<bound>{_NUMBER})\s*")
TIMES = ("ttft_s", "tpot_s", "e2e_s", "response_s", "ttft_scheduled_s")
"""What a promise may speak of."""
MOST_RATE = 100_000
"""Requests a second. No engine that is evaluated answers a tenth of it, and no machine asks more."""
_OF_SCHEDULE = {"e2e_s": "response_s", "ttft_s": "ttft_scheduled_s"}


def _rate(value: Any) -> Any:
    """Requests a second from 2, "2/s" or "120/min"."""
    if isinstance(value, str) and (found := _RATE.fullmatch(value)):
        return float(found[1]) / _SECONDS[found[2]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise complaint(f"expected a rate, found {describe(value)}", "Such as 2/s, 120/min or 2.")
    return float(value)


def _above_zero(value: float) -> float:
    if not 0 < value < float("inf"):
        raise complaint(f"a rate of {value:g} requests a second is none", "Give one above 0.")
    if value > MOST_RATE:
        raise complaint(
            f"one machine does not send {value:,.0f} requests a second",
            f"Give a rate of at most {MOST_RATE:,}/s; thousands want performance: {{workers: N}}.",
        )
    return value


Rate = Annotated[
    float,
    BeforeValidator(_rate),
    AfterValidator(_above_zero),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}),
]
"""Requests a second: 2, "2/s" or "120/min"."""


@frozen
class Bound:
    """`of op bound`: a latency in seconds, or a score."""

    of: str
    op: str
    bound: float

    def holds(self, value: float) -> bool:
        """Whether a value satisfies it."""
        return COMPARISONS[self.op](value, self.bound)

    def scheduled(self) -> Bound:
        """The same from the moment for which the request was scheduled."""
        return Bound(_OF_SCHEDULE.get(self.of, self.of), self.op, self.bound)

    def __str__(self) -> str:
        return f"{self.of} {self.op} {self.bound:g}"


def slo_of(text: str) -> Bound:
    """An objective (`ttft_s <= 0.5`). Raises ValueError."""
    found = _SLO.fullmatch(text)
    if found is None or found["of"] not in TIMES:
        raise complaint(f"cannot read the objective '{text}'", f"Write one of {', '.join(TIMES)} <= SECONDS.")
    if float(found["bound"]) <= 0:
        raise complaint(f"no answer can keep '{text}'", "Give seconds above 0.")
    return Bound(found["of"], found["op"], float(found["bound"]))


def right_of(text: str) -> Bound:
    """When an answer is right (`exact_match >= 1`). Raises ValueError."""
    if (found := _RIGHT.fullmatch(text)) is None:
        raise complaint(f"cannot read '{text}'", "Write SCORER >= NUMBER, such as exact_match >= 1.")
    return Bound(found["of"], found["op"], float(found["bound"]))


def _checked_slo(value: str) -> str:
    slo_of(value)
    return value


def _checked_right(value: str) -> str:
    right_of(value)
    return value


class RampSpec(Spec):
    """A rate that changes evenly from one value to another, and then stays."""

    start: Annotated[float, BeforeValidator(_rate), WithJsonSchema({"type": "number"})] = Field(
        alias="from", ge=0, le=MOST_RATE, description="Requests a second at the beginning."
    )
    to: Rate = Field(description="Requests a second at the end.")
    seconds: float = Field(gt=0, description="How long the change takes.")


class ArrivalsSpec(Spec):
    """When requests arrive, where it is neither `poisson` nor `constant`. Exactly one of gamma, ramp,
    trace."""

    gamma: float | None = Field(
        default=None, gt=0,
        description="Gaps of a gamma distribution with this shape k: bursts below 1 (CV² = 1/k), Poisson at "
        "1, more even above.",
    )  # fmt: skip
    ramp: RampSpec | None = Field(default=None, description="Poisson arrivals whose rate changes evenly.")
    trace: LocalPath | None = Field(
        default=None,
        description="File of recorded arrivals: a column or key `timestamp` (CSV, JSONL; seconds, or ISO "
        "times; `timestamp` of Mooncake's JSONL is in ms), or a number of seconds on each line.",
    )
    speed: float = Field(default=1.0, gt=0, description="With `trace`: how much faster it is replayed.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("gamma", "ramp", "trace") if getattr(self, name) is not None]
        if len(given) != 1:
            raise complaint("give exactly one of gamma, ramp and trace", "Or write poisson or constant.")
        if self.trace is None and self.speed != 1:
            raise complaint("speed is for a trace", "Leave it out.", ("speed",))
        return self

    @property
    def kind(self) -> str:
        """Which one it is."""
        return "gamma" if self.gamma is not None else "ramp" if self.ramp is not None else "trace"


def _up_to(value: int | str) -> int | float | str:
    if isinstance(value, str):
        if "/" not in value:
            raise complaint(f"expected a number or a rate, found '{value}'", "Such as 256, or 40/s.")
        return f"{_above_zero(_rate(value)):.12g}/s"
    if value < 1:
        raise complaint("a search needs at least one request in flight", "Give 1 or more, or a rate: 40/s.")
    return value


class SearchSpec(Spec):
    """Search for the highest load at which the promise is kept: requests in flight, or a rate."""

    attain: Fraction = Field(default=0.95, description="The share of requests that must keep the promise.")
    up_to: Annotated[int | str, AfterValidator(_up_to)] = Field(
        default=256, description="Requests in flight at most, or a rate, such as 40/s."
    )
    probe_s: float = Field(
        default=60, gt=0,
        description="Seconds after which a probe is given up, twice as long at most; what was found is held "
        "for so many once more.",
    )  # fmt: skip

    @property
    def rate(self) -> bool:
        """Whether rates are searched."""
        return isinstance(self.up_to, str)

    @property
    def most(self) -> float:
        """The highest that may be found: requests in flight, or a second."""
        return float(str(self.up_to).removesuffix("/s"))


_SCENARIO_S = 600.0
_SCENARIOS: dict[str, dict[str, JSON]] = {
    "mlperf-server": {"arrivals": "poisson", "seconds": _SCENARIO_S},
    "mlperf-single-stream": {"concurrency": [1], "seconds": _SCENARIO_S},
    "mlperf-offline": {"concurrency": [512], "requests": 24_576},
}


class LoadSpec(Spec):
    """Load as an axis: every level is a run of its own, with the same rows in the same order."""

    scenario: Literal["mlperf-server", "mlperf-single-stream", "mlperf-offline"] | None = Field(
        default=None,
        description="What MLPerf's rules ask for, where the suite does not say otherwise: server (with "
        "rates: Poisson arrivals, 600 s), single-stream (one in flight, 600 s) or offline (24,576 requests, "
        "512 in flight). Its percentiles are `response_s.p99_certified` and, of a single stream, "
        "`response_s.p90_certified`.",
    )
    concurrency: list[Annotated[int, Field(ge=1)]] | None = Field(
        default=None, min_length=1, description="Closed loop: levels of requests in flight."
    )
    rates: list[Rate] | None = Field(
        default=None, min_length=1, description="Open loop: levels of requests a second, such as 1/s."
    )
    arrivals: Literal["poisson", "constant"] | ArrivalsSpec = Field(
        default="poisson",
        description="How requests arrive at a rate: poisson, constant or {gamma: k}; {ramp: …} and "
        "{trace: …} are levels of their own, without rates.",
    )
    seconds: float | None = Field(
        default=None, gt=0,
        description="How long each level goes on, after the warm-up. Rows are taken again from the start "
        "where they run out. Default: until every row was asked.",
    )  # fmt: skip
    requests: int | None = Field(default=None, ge=1, description="In place of seconds: requests a level.")
    warmup_s: float = Field(
        default=0, ge=0, description="Seconds at the beginning of each level that no figure of speed counts."
    )
    max_in_flight: int = Field(
        default=512, ge=1,
        description="Open loop: requests in flight at most, which protects this machine. Where it is "
        "reached, the level says so.",
    )  # fmt: skip
    slo: list[Annotated[str, AfterValidator(_checked_slo)]] = Field(
        default_factory=list,
        description='What is promised, such as "ttft_s <= 0.5" and "e2e_s <= 20". In open loop both are '
        "taken from the moment for which a request was scheduled. Without it, to answer at all.",
    )
    right: Annotated[str, AfterValidator(_checked_right)] | None = Field(
        default=None,
        description='When an answer is right, such as "exact_match >= 1". Default: the first scorer\'s score '
        "is at least 0.5.",
    )
    reference: Literal["none"] | Annotated[int, Field(ge=1)] = Field(
        default=1,
        description="Requests in flight of the level that scores are compared with. It is run twice: what "
        "differs between the two is noise. none: no such level.",
    )
    prefix_cache: Literal["separate", "reset", "keep"] = Field(
        default="separate",
        description="Keep levels from finding each other's prompts in the server's prefix cache by what is "
        "sent (cache_salt, cache_prompt: false), by emptying it before each level (reset: vLLM's "
        "/reset_prefix_cache, SGLang's /flush_cache), or let them.",
    )
    search: SearchSpec | None = Field(
        default=None, description="In place of levels: find the highest that keeps the promise."
    )

    @model_validator(mode="before")
    @classmethod
    def _of_scenario(cls, data: Any) -> Any:
        """Fill in what a scenario sets and the suite does not say."""
        if not isinstance(data, dict) or data.get("scenario") not in _SCENARIOS:
            return data
        name, given = data["scenario"], {key: value for key, value in data.items() if value is not None}
        told = ("seconds", "requests") if {"seconds", "requests"} & given.keys() else ()
        if name == "mlperf-server" and not {"rates", "search", "concurrency"} & given.keys():
            raise complaint("the scenario mlperf-server needs rates", "Add rates: [1/s, 2/s].", ("scenario",))
        seconds = given.get("seconds")
        if name != "mlperf-offline" and isinstance(seconds, int | float) and seconds < _SCENARIO_S:
            what = f"{name} takes {_SCENARIO_S:g} s at least, not {seconds:g}"
            raise complaint(what, "Leave seconds out, or leave scenario out.", ("seconds",))
        return {**{key: own for key, own in _SCENARIOS[name].items() if key not in told}, **given}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        own = isinstance(self.arrivals, ArrivalsSpec) and self.arrivals.kind in ("ramp", "trace")
        given = [name for name in ("concurrency", "rates", "search") if getattr(self, name) is not None]
        if own and self.rates is not None:
            raise complaint("a ramp or a trace has rates of its own", "Leave rates out.", ("rates",))
        if not given and not own:
            raise complaint(
                "load has no levels", "Give concurrency: [1, 4, 16], rates: [1/s, 4/s] or search."
            )
        if len(given) > 1 or (own and given):
            what = " and ".join([*given, *(["arrivals"] if own else [])])
            raise complaint(f"{what} exclude each other", "Give one of them.", (given[0],))
        if self.seconds is not None and self.requests is not None:
            raise complaint("seconds and requests exclude each other", "Give one.", ("requests",))
        if self.search is not None and not self.slo:
            raise complaint("a search needs a promise to keep", 'Add slo: ["e2e_s <= 20"].', ("search",))
        over = [rate for rate in self.rates or () if (self.requests or math.inf) <= rate * self.warmup_s]
        if over:
            what = f"at {over[0]:g}/s all {self.requests} requests lie in the warm-up of {self.warmup_s:g} s"
            raise complaint(what, "Raise requests, or shorten warmup_s.", ("warmup_s",))
        for name in ("concurrency", "rates"):
            values = getattr(self, name) or []
            if len(set(values)) < len(values):
                raise complaint("a level stands twice", "Name each once.", (name,))
        return self

    def objectives(self, *, open_loop: bool) -> tuple[Bound, ...]:
        """The promise; in open loop, from the moments for which requests were scheduled."""
        bounds = [slo_of(text) for text in self.slo]
        return tuple(each.scheduled() if open_loop else each for each in bounds)


Role = Literal["level", "reference", "again", "search"]


@frozen
class Level:
    """One level of load: `concurrency` requests in flight, or arrivals at `rate` a second (None: those of a
    ramp or a trace). The reference for scores is run twice: as `reference` and once more as `again`."""

    concurrency: int | None = None
    rate: float | None = None
    arrivals: str = ""
    role: Role = "level"

    @property
    def open_loop(self) -> bool:
        """Whether requests are sent when they are due and not when an answer is there."""
        return bool(self.arrivals)

    @property
    def value(self) -> JSON:
        """The level as a value of the axis: 4, "2/s", "trace", "1 again"."""
        if self.role == "search":
            return "search"
        if self.role == "again":
            return f"{self.concurrency} again"
        return self.concurrency if self.concurrency is not None else self.name

    @property
    def name(self) -> str:
        """The level as people write it: 4, 2/s, trace."""
        if self.role == "search":
            return "search"
        if self.concurrency is None:
            return self.arrivals if self.rate is None else f"{self.rate:.12g}/s"
        return str(self.value)

    @property
    def slug(self) -> str:
        """The level in the name of a run."""
        return self.name.replace("/s", "rps").replace(" ", "-")

    @property
    def words(self) -> str:
        """What load that is, as a run says it: "4 at once", "2/s arriving"."""
        if self.role == "search":
            return f"up to {self.concurrency} at once" if self.rate is None else f"up to {self.rate:.12g}/s"
        return f"{self.concurrency} at once" if self.concurrency is not None else f"{self.name} arriving"

    def document(self) -> dict[str, JSON]:
        """As JSON: {"concurrency": 4} or {"rate": 2.0}; a ramp and a trace have no rate."""
        if self.concurrency is not None:
            return {"concurrency": self.concurrency}
        return {"arrivals": self.arrivals} if self.rate is None else {"rate": self.rate}


def levels_of(load: LoadSpec) -> tuple[Level, ...]:
    """The levels of a suite, each of which is a run of every cell: first those of the suite in its order,
    then what scores are compared with."""
    kind = load.arrivals if isinstance(load.arrivals, str) else load.arrivals.kind
    reference = load.reference if isinstance(load.reference, int) else None
    if load.search is not None:
        if load.search.rate:
            return (Level(rate=load.search.most, arrivals=kind, role="search"),)
        return (Level(int(load.search.most), role="search"),)
    if load.concurrency is not None:
        found = [Level(each, role="reference" if each == reference else "level") for each in load.concurrency]
    else:
        rates: list[float | None] = [*load.rates] if load.rates is not None else [None]
        found = [Level(rate=rate, arrivals=kind) for rate in rates]
    if reference is None:
        return tuple(found)
    if reference not in [level.concurrency for level in found]:
        found.append(Level(reference, role="reference"))
    return (*found, Level(reference, role="again"))


def level_seconds(load: LoadSpec, level: Level, requests: int) -> float | None:
    """How long a level sends, as far as that is known beforehand: a closed loop without `seconds` goes on
    until its requests are answered, and a search until its questions are."""
    if level.role == "search":
        return None
    if load.seconds is not None:
        return load.warmup_s + load.seconds
    ramp = load.arrivals.ramp if isinstance(load.arrivals, ArrivalsSpec) else None
    if ramp is not None and level.arrivals == "ramp":
        return load.warmup_s + ramp.seconds if load.requests is None else None
    return requests / level.rate if level.rate is not None else None


def level_requests(load: LoadSpec, level: Level, rows: int) -> int:
    """How many requests a level is expected to send, of a dataset with so many rows (repeats included)."""
    if load.requests is not None:
        return load.requests
    if load.seconds is not None and level.rate is not None:
        return round(level.rate * (load.seconds + load.warmup_s))
    return rows
