"""Schedules of arrivals: the law that is meant, the same draws at all rates, traces that are read or
refused."""

import math
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.errors import UserError
from evalrun.runner.load.schedule import Schedule, schedule_of
from evalrun.runner.load.trace import trace_offsets
from evalrun.suite.levels import LoadSpec, levels_of


def schedule(seed: int = 7, rows: int = 10, base: Path = Path(), **load: Any) -> Schedule:
    spec = LoadSpec.model_validate({"reference": "none", **load})
    return schedule_of(spec, levels_of(spec)[0], seed=seed, rows=rows, base_dir=base)


def gaps(offsets: list[float]) -> Any:
    return np.diff(np.array([0.0, *offsets]))


@pytest.mark.parametrize(("shape", "cv2"), [(0.25, 4.0), (1.0, 1.0), (4.0, 0.25)])
def test_gamma_arrivals_have_the_spread_of_their_shape(shape: float, cv2: float) -> None:
    found = gaps(list(schedule(rates=[5], arrivals={"gamma": shape}, requests=20_000)))
    assert found.mean() == pytest.approx(0.2, rel=0.05)
    assert found.var() / found.mean() ** 2 == pytest.approx(cv2, rel=0.05 if shape >= 1 else 0.1)


def test_poisson_counts_vary_as_poisson_counts_do() -> None:
    offsets = list(schedule(rates=[10], requests=100_000))
    counts = np.bincount(np.floor(np.array(offsets) / 5).astype(int))[:-1]
    assert 0.9 < counts.var() / counts.mean() < 1.1


def test_rates_share_their_draws() -> None:
    slow, fast = (list(schedule(rates=[rate], requests=500)) for rate in (2, 4))
    np.testing.assert_allclose(np.array(slow), 2 * np.array(fast), rtol=1e-12)


def test_the_seed_alone_decides() -> None:
    assert list(schedule(rates=["1/s"])) == list(schedule(rates=["60/min"]))
    assert list(schedule(seed=8, rates=[1])) != list(schedule(rates=[1]))
    # The same on every machine: unit-rate arrivals of seed 7.
    golden = [1.964724, 2.000367, 4.062118, 4.364765, 4.999449]
    np.testing.assert_allclose(list(islice(schedule(rates=[1]), 5)), golden, atol=1e-6)


@settings(max_examples=25)
@given(st.floats(0.1, 20), st.floats(0.1, 20), st.floats(0.5, 10))
def test_a_ramp_offers_what_its_rates_come_to(start: float, to: float, seconds: float) -> None:
    ramp = {"from": start, "to": to, "seconds": seconds}
    offsets = list(schedule(arrivals={"ramp": ramp}))
    unit = list(schedule(rates=[1], requests=len(offsets) + 1))
    expected = (start + to) / 2 * seconds
    assert all(offset < seconds for offset in offsets) and offsets == sorted(offsets)
    # Each arrival inverts the expected number up to it.
    for offset, passed in zip(offsets, unit, strict=False):
        assert start * offset + (to - start) * offset**2 / (2 * seconds) == pytest.approx(passed, rel=1e-6)
    assert unit[len(offsets)] >= expected * (1 - 1e-9)


def test_a_level_ends_by_time_or_by_number() -> None:
    assert list(schedule(rates=[4], arrivals="constant", seconds=1)) == [0, 0.25, 0.5, 0.75]
    assert len(list(schedule(rates=[4], arrivals="constant", seconds=1, warmup_s=1))) == 8
    assert len(list(schedule(rates=[4], requests=3))) == 3
    assert len(list(schedule(rates=[4], rows=9))) == 9


def test_a_trace_is_replayed_from_its_first_arrival_on(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "TIMESTAMP,ContextTokens\n" + "".join(f"{100 + k / 4},1\n" for k in range(100))
    )
    offsets = list(schedule(base=tmp_path, arrivals={"trace": Path("t.csv"), "speed": 2}))
    np.testing.assert_allclose(offsets, np.arange(100) / 8)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("azure.csv", "TIMESTAMP,A\n2023-11-16 18:17:03.9799600,1\n2023-11-16 18:17:04.4799600,2\n"),
        ("mooncake.jsonl", '{"timestamp": 0, "input_length": 6}\n{"timestamp": 500, "input_length": 1}\n'),
        ("plain.txt", "3.5\n4\n"),
        ("burst.csv", "Timestamp,Model\n5,a\n5.5,b\n"),
        ("own.jsonl", "1.5\n2.0\n"),
    ],
)  # fmt: skip
def test_traces_of_many_forms(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    np.testing.assert_allclose(list(trace_offsets(tmp_path / name)), [0, 0.5])


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("timestamp\n1\n3\n2\n", 4, "not sorted"),
        ("timestamp\n1\nsoon\n", 3, "no time stamp"),
        ("timestamp\n1\nnan\n", 3, "no time stamp"),
        ("timestamp\n", 0, "no arrivals"),
        ("", 0, "no arrivals"),
    ],
)
def test_a_trace_that_cannot_be_replayed_names_its_line(
    tmp_path: Path, text: str, line: int, what: str
) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        list(trace_offsets(path))
    (problem,) = caught.value.problems
    assert what in problem.what and problem.where == f"{path}:{line}".removesuffix(":0")


def test_a_schedule_is_never_held_whole() -> None:
    import tracemalloc

    tracemalloc.start()
    for offset in schedule(rates=[1000], requests=250_000):
        assert offset < math.inf
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6  # 250,000 floats in a list are 8 MB, and three chunks are there at a time
