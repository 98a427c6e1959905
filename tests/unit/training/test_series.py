"""Points in columns: the last word on a step stays, what is no number keeps its reason, roles by name."""

import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.training.series import Points, kind_of, read_series, role_of, thinned


def test_of_one_step_the_latest_by_time_stays_and_without_a_time_the_last_read() -> None:
    points = Points()
    points.add(10, "loss", 3.0, wall_s=200.0)
    points.add(10, "loss", 4.0, wall_s=100.0)
    points.add(20, "a", 1.0)
    points.add(20, "a", 2.0)
    series = points.series()
    assert series.of("loss")[1].tolist() == [3.0]
    assert series.of("a")[1].tolist() == [2.0]
    assert series.of("nothing")[1].tolist() == []


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 50),
            st.sampled_from(["loss", "eval/loss", "ä", ""]),
            st.floats(),
            st.floats(0, 2e9) | st.just(math.nan),
        ),
        max_size=60,
    )
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str, float, float]]
) -> None:
    points = Points()
    for row in rows:
        points.add(*row)
    series = points.series()
    path = tmp_path_factory.getbasetemp() / "metrics.parquet"
    series.write(path)
    again = read_series(path)
    for name in {row[1] for row in rows}:
        for one, other in zip(series.of(name), again.of(name), strict=True):
            np.testing.assert_array_equal(one, other)
    assert len(series) == len({row[:2] for row in rows})


def test_what_is_no_number_is_null_with_its_reason(tmp_path: Path) -> None:
    points = Points()
    for step, value in enumerate([1.0, math.nan, math.inf, -math.inf]):
        points.add(step, "loss", value)
    points.series().write(tmp_path / "metrics.parquet")
    table = pq.read_table(tmp_path / "metrics.parquet")
    assert table.column("value").to_pylist() == [1.0, None, None, None]
    assert table.column("reason").to_pylist() == [None, "nan", "inf", "-inf"]
    assert set(table.column("kind").to_pylist()) == {"train"}
    last = points.series().last()[0]
    assert (last.value, last.reason, last.low, last.high) == (None, "-inf", 1.0, 1.0)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("loss", "loss"),
        ("train/loss", "loss"),
        ("train_loss_step", "loss"),
        ("eval_loss", "eval_loss"),
        ("val_loss", "eval_loss"),
        ("eval/loss", "eval_loss"),
        ("lr-AdamW", "learning_rate"),
        ("train/learning_rate", "learning_rate"),
        ("train/grad_norm", "grad_norm"),
        ("num_input_tokens_seen", "tokens"),
        ("eval_accuracy", ""),
        ("closs", ""),
        ("loss_scale", ""),
    ],
)
def test_what_a_metric_is_by_its_name(name: str, role: str) -> None:
    assert role_of(name) == role


def test_the_kinds_of_metrics() -> None:
    assert [kind_of(name) for name in ("eval_loss", "valid", "loss", "system.gpu.0.use", "evaluate")] == [
        "eval",
        "eval",
        "train",
        "system",
        "train",
    ]


def test_lines_are_what_was_logged_at_each_step() -> None:
    points = Points()
    points.add(2, "loss", 1.0, 5.0)
    points.add(1, "loss", 2.0, 4.0)
    points.add(2, "eval_loss", 3.0, 6.0)
    assert list(points.series().lines()) == [
        (1, 4.0, {"loss": 2.0}),
        (2, 6.0, {"loss": 1.0, "eval_loss": 3.0}),
    ]


def test_thinning_keeps_every_spike() -> None:
    values = np.sin(np.arange(100_000))
    values[[3, 50_000, 99_998]] = [40, -40, 50]
    steps, kept = thinned(np.arange(100_000), values)
    assert len(steps) <= 2_000
    assert {40.0, -40.0, 50.0} <= set(kept.tolist())
    assert (steps[0], steps[-1]) == (0, 99_999)


def test_a_metric_that_was_given_up_altogether_is_none() -> None:
    points = Points()
    points.add(1, "loss", 2.0)
    points.add(9, "eval_loss", 1.0)
    assert points.truncate(5) == 1
    assert [each.name for each in points.series().last()] == ["loss"]
