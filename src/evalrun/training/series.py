"""The series of a training: points of (step, name, value), in columns, whatever wrote them.

A step counts optimizer steps done. Values that are no numbers stay what they are: in `metrics.parquet` they
are null with the reason (`nan`, `inf`, `-inf`) beside them.
"""

from __future__ import annotations

import math
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from evalrun.tracking.plain import clean_text
from evalrun.tracking.trainings import LastValue

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Kind: TypeAlias = Literal["train", "eval", "system"]

_EVAL = re.compile(r"(?:eval|val|valid|validation|test)(?:[/_.-]|$)", re.IGNORECASE)
_SYSTEM = re.compile(r"(?:system|gpu|cpu|memory|energy|disk|network)[/.]", re.IGNORECASE)
MAX_STEP = (1 << 53) - 1
_CHUNK = 1 << 15
POINT = _FIELDS = 6
"""Numbers that make a point: code of the name, step, value, wall time, epoch, tokens."""
_NAME, _STEP, _VALUE, _WALL, _EPOCH, _TOKENS = range(_FIELDS)


def kind_of(name: str) -> Kind:
    """Whether a metric is of training, of evaluation, or of the machine, by its name."""
    if _SYSTEM.match(name):
        return "system"
    return "eval" if _EVAL.match(name) else "train"


_ROLES: Mapping[str, re.Pattern[str]] = {
    "loss": re.compile(r"(?:train(?:ing)?[/_.-])?loss(?:[/_.-]step)?|train/train_loss", re.IGNORECASE),
    "eval_loss": re.compile(r"(?:eval|val|valid|validation|test)[/_.-]loss(?:[/_.-]epoch)?", re.IGNORECASE),
    "learning_rate": re.compile(r"(?:train[/_.-])?(?:learning_rate|lr)(?:-\w+)?(?:/\w+)?", re.IGNORECASE),
    "grad_norm": re.compile(r"(?:train[/_.-])?grad(?:ient)?_norm", re.IGNORECASE),
    "tokens_per_s": re.compile(
        r"(?:train[/_.-])?(?:tokens_per_s(?:ec(?:ond)?)?|train_tokens_per_second|tokens/s|throughput)",
        re.IGNORECASE,
    ),
    "tokens": re.compile(
        r"(?:train[/_.-])?(?:num_input_tokens_seen|num_tokens|tokens(?:_seen)?)", re.IGNORECASE
    ),
}


@cache
def role_of(name: str) -> str:
    """What a metric is, whatever its framework calls it: `loss`, `eval_loss`, `learning_rate`, `grad_norm`,
    `tokens_per_s`, `tokens`; empty for any other."""
    return next((role for role, pattern in _ROLES.items() if pattern.fullmatch(name)), "")


class Points:
    """Points as they are read, in one array: 48 bytes each. Steps are whole: doubles hold them exactly."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self._rows = array("d")

    def __len__(self) -> int:
        return len(self._rows) // _FIELDS

    def add(
        self, step: int, name: str, value: float, wall_s: float = math.nan, epoch: float = math.nan,
        tokens: float = math.nan,
    ) -> None:  # fmt: skip
        """One point. `wall_s` is Unix time in seconds; what is not known is NaN."""
        code = self.names.get(name)
        if code is None:
            code = self.code(name)
        self._rows.extend((code, step, value, wall_s, epoch, tokens))

    def code(self, name: str) -> int:
        """The number that stands for a metric. What UTF-8 cannot hold of its name is replaced."""
        return self.names.setdefault(clean_text(name), len(self.names))

    def extend(self, rows: np.ndarray[Any, Any]) -> None:
        """Many points, of the form that `columns` gives."""
        self._rows.frombytes(rows.astype(float).tobytes())

    def columns(self, since: int = 0) -> np.ndarray[Any, Any]:
        """A row for each point from the one of that number on: code of its name, step, value, wall time,
        epoch, tokens."""
        import numpy as np

        return np.array(self._rows[since * _FIELDS :]).reshape(-1, _FIELDS)

    def truncate(self, step: int) -> int:
        """Drop what stands at or after `step`: the training was taken up again before it. Says how many. What
        the machine did stays."""
        import numpy as np

        rows = np.frombuffer(self._rows).reshape(-1, _FIELDS)
        machine = [code for name, code in self.names.items() if kind_of(name) == "system"]
        keep = (rows[:, _STEP] < step) | np.isin(rows[:, _NAME], machine)
        left = array("d")
        left.frombytes(rows[keep].tobytes())
        self._rows = left
        return int((~keep).sum())

    def rename(self, mapping: Mapping[str, str]) -> None:
        """Give metrics other names; those that get the same one become one."""
        import numpy as np

        names: dict[str, int] = {}
        codes = np.zeros(len(self.names))
        for name, code in self.names.items():
            codes[code] = names.setdefault(mapping.get(name, name), len(names))
        rows = np.frombuffer(self._rows).reshape(-1, _FIELDS)
        if len(rows):
            rows[:, _NAME] = codes[rows[:, _NAME].astype(int)]
        self.names = names

    def series(self) -> Series:
        """The points by name and step. Of several of one name and step the latest by wall time stays, without
        a time the last read; of what the machine did all stay."""
        import numpy as np

        rows = np.frombuffer(self._rows).reshape(-1, _FIELDS)
        # Those of a part that was given up may have no point left.
        used = set(np.unique(rows[:, _NAME]).astype(int).tolist())
        names = sorted(name for name, code in self.names.items() if code in used)
        rank = np.zeros(len(self.names), np.int32)
        for at, name in enumerate(names):
            rank[self.names[name]] = at
        codes, steps = rank[rows[:, _NAME].astype(np.int32)], rows[:, _STEP].astype(np.int64)
        order = np.lexsort((np.nan_to_num(rows[:, _WALL], nan=-np.inf), steps, codes))
        codes, steps = codes[order], steps[order]
        last = np.ones(len(order), bool)
        last[:-1] = (codes[1:] != codes[:-1]) | (steps[1:] != steps[:-1])
        last |= np.isin(codes, [at for at, name in enumerate(names) if kind_of(name) == "system"])
        order = order[last]
        values = (np.ascontiguousarray(rows[order, at]) for at in (_VALUE, _WALL, _EPOCH, _TOKENS))
        return Series(tuple(names), codes[last], steps[last], *values)


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Points in columns, sorted by name and step; `code` is the place of a point's name in `names`."""

    names: tuple[str, ...]
    code: np.ndarray[Any, Any]
    step: np.ndarray[Any, Any]
    value: np.ndarray[Any, Any]
    wall_s: np.ndarray[Any, Any]
    epoch: np.ndarray[Any, Any]
    tokens: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.step)

    def of(self, name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Steps, values and wall times of one metric; empty where there is none of that name."""
        at = self.span(name)
        return self.step[at], self.value[at], self.wall_s[at]

    def span(self, name: str) -> slice:
        """Where the points of a metric stand."""
        import numpy as np

        code = bisect_left(self.names, name)
        if self.names[code : code + 1] != (name,):
            return slice(0, 0)
        begin, end = np.searchsorted(self.code, [code, code + 1])
        return slice(int(begin), int(end))

    def only(self, names: Sequence[str]) -> Series:
        """The points of these metrics alone."""
        import numpy as np

        keep = np.isin(self.code, [bisect_left(self.names, name) for name in names])
        columns = (self.code, self.step, self.value, self.wall_s, self.epoch, self.tokens)
        return Series(self.names, *(column[keep] for column in columns))

    def named(self, role: str) -> str | None:
        """The metric that plays a role (`role_of`): of several the one with the most points."""
        found = [name for name in self.names if role_of(name) == role]
        return max(found, key=lambda name: len(self.of(name)[0]), default=None)

    def last(self) -> tuple[LastValue, ...]:
        """Each metric in short, and under the name of its role too."""
        import numpy as np

        found = []
        for name in self.names:
            steps, values, _ = self.of(name)
            finite = values[np.isfinite(values)]
            value, reason = _told(float(values[-1]))
            low, high = (float(finite.min()), float(finite.max())) if len(finite) else (None, None)
            found.append(LastValue(name, int(steps[-1]), value, low, high, len(steps), reason))
        known = {each.name: each for each in found}
        for role in _ROLES:
            named = self.named(role)
            if named is not None and role not in known:
                of = known[named]
                found.append(LastValue(role, of.step, of.value, of.low, of.high, of.points, of.reason))
        return tuple(found)

    def lines(self) -> Iterator[tuple[int, float, dict[str, float]]]:
        """Step, wall time and values of each step, in order: what a training logged line by line."""
        import numpy as np

        order = np.lexsort((self.code, self.step))
        before, wall, values = -1, math.nan, dict[str, float]()
        for start in range(0, len(order), _CHUNK):
            rows = order[start : start + _CHUNK]
            columns = (self.step, self.code, self.value, self.wall_s)
            for step, code, value, at in zip(*(column[rows].tolist() for column in columns), strict=True):
                if step != before and values:
                    yield before, wall, values
                    wall, values = math.nan, {}
                before = step
                values[self.names[code]] = value
                wall = at if not at <= wall else wall
        if values:
            yield before, wall, values

    def table(self) -> pa.Table:
        """As `metrics.parquet` has it."""
        import numpy as np
        import pyarrow as pa

        kinds = [kind_of(name) for name in self.names]
        finite = np.isfinite(self.value)
        odd = np.flatnonzero(~finite)
        reasons = pa.nulls(len(self), pa.string())
        if len(odd):
            told = np.array([None, "nan", "inf", "-inf"])
            kinds_of = np.zeros(len(self), np.int8)
            kinds_of[odd] = np.where(np.isnan(self.value[odd]), 1, np.where(self.value[odd] > 0, 2, 3))
            reasons = pa.array(told[kinds_of], pa.string())
        columns = {
            "step": pa.array(self.step),
            "epoch": pa.array(self.epoch, mask=np.isnan(self.epoch)),
            "tokens": pa.array(self.tokens, mask=np.isnan(self.tokens)),
            "wall_s": pa.array(self.wall_s, mask=np.isnan(self.wall_s)),
            "name": pa.DictionaryArray.from_arrays(pa.array(self.code), pa.array(self.names, pa.string())),
            "value": pa.array(self.value, mask=~finite),
            "kind": pa.DictionaryArray.from_arrays(pa.array(self.code), pa.array(kinds, pa.string())),
            "reason": reasons,
        }
        return pa.table(columns)

    def write(self, path: Path) -> None:
        """Write `metrics.parquet`, whole or not at all."""
        import pyarrow.parquet as pq

        from evalrun.atomic import replacing

        with replacing(path) as temporary:
            pq.write_table(self.table(), temporary, compression="zstd")


def read_series(path: Path) -> Series:
    """The series in a `metrics.parquet`. Raises UserError where it cannot be read."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from evalrun.errors import UserError

    try:
        table = pq.read_table(path, columns=["step", "epoch", "tokens", "wall_s", "name", "value", "reason"])
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"the series cannot be read: {error}", where=str(path)) from error
    column = table.column("name").combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], pa.string())
    encoded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
    names = [str(each) for each in encoded.dictionary.to_pylist()]
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.zeros(len(names), np.int32)
    rank[order] = np.arange(len(names), dtype=np.int32)
    codes = np.asarray(encoded.indices)
    values = table.column("value").to_numpy().copy()
    reasons = table.column("reason")
    if reasons.null_count < len(reasons):
        for place, reason in enumerate(reasons.to_pylist()):
            if reason in _ODD:
                values[place] = _ODD[reason]
    plain = {name: table.column(name).to_numpy() for name in ("step", "epoch", "tokens", "wall_s")}
    return Series(
        tuple(names[place] for place in order),
        rank[codes] if len(names) else codes.astype(np.int32),
        plain["step"],
        values,
        plain["wall_s"].astype(float),
        plain["epoch"].astype(float),
        plain["tokens"].astype(float),
    )


_ODD: Mapping[str, float] = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _told(value: float) -> tuple[float | None, str]:
    """The value, or None and the reason."""
    if math.isfinite(value):
        return value, ""
    return None, "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


MOST_POINTS = 2_000
"""Points that are drawn of one series."""


MOST_WHOLE = 20_000
"""Points of a metric up to which JSON has all of them."""


def pairs(series: Series, name: str) -> list[tuple[int, float | None]]:
    """Step and value of a metric's points, the value None where it is no number; thinned where they are more
    than MOST_WHOLE."""
    import numpy as np

    steps, values, _ = series.of(name)
    if len(steps) > MOST_WHOLE:
        keep = np.isfinite(values)
        steps, values = thinned(steps[keep], values[keep])
    told = [value if math.isfinite(value) else None for value in values.tolist()]
    return list(zip(steps.tolist(), told, strict=True))


def thinned(
    steps: np.ndarray[Any, Any], values: np.ndarray[Any, Any], most: int = MOST_POINTS
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """At most `most` points: of each stretch of points the first, the least, the greatest and the last, so
    that no spike is lost."""
    import numpy as np

    if len(steps) <= most:
        return steps, values
    keep: set[int] = set()
    for at in np.array_split(np.arange(len(steps)), most // 4):
        within = values[at]
        keep |= {int(at[0]), int(at[int(within.argmin())]), int(at[int(within.argmax())]), int(at[-1])}
    chosen = np.array(sorted(keep))
    return steps[chosen], values[chosen]


def drawable(series: Series, metric: str, until: int | None = None) -> tuple[list[int], list[float], int]:
    """Steps and values that can be drawn, thinned, of those before the step `until`; and how many values of
    the whole series are NaN or infinite."""
    import numpy as np

    steps, values, _ = series.of(metric)
    finite = np.isfinite(values)
    keep = finite if until is None else finite & (steps < until)
    chosen, kept = thinned(steps[keep], values[keep])
    return chosen.tolist(), kept.tolist(), int((~finite).sum())


def time_left(series: Series, metric: str, steps: int) -> tuple[float, float, float] | None:
    """Seconds that so many steps take: times the median seconds per step of the last 50 logs, and the same
    with their quartiles; None where there are too few logs."""
    import numpy as np

    done, _, walls = series.of(metric)
    ahead = np.diff(done[-51:])
    seconds = np.diff(walls[-51:])[ahead > 0] / ahead[ahead > 0]
    seconds = seconds[np.isfinite(seconds)]
    if len(seconds) < 3:
        return None
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75]) * steps
    return float(middle), float(low), float(high)
