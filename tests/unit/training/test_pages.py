"""Pages of trainings: what can be drawn is, what is hostile is shown, and what is missing ends none."""

import math
from pathlib import Path

import pytest

from evalrun.reports.training import TrainingView, _measured, render_page, time_left, training_lines
from evalrun.tracking.store import Store
from evalrun.tracking.trainings import TrainingManifest, create_training
from evalrun.training.series import Points


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("EVALRUN_CACHE", str(tmp_path / "cache"))
    return Store(tmp_path / "store")


def make(store: Store, rows: list[tuple[int, str, float, float]], **more: object) -> TrainingView:
    folder = create_training(store, "tiny")
    points = Points()
    for row in rows:
        points.add(*row)
    series = points.series()
    series.write(folder.path / "metrics.parquet")
    values = {"status": "finished", "steps": max([0, *(row[0] for row in rows)]), **more}
    folder.write_training(
        TrainingManifest(training=folder.ulid, name="tiny", project="tiny", **values)  # type: ignore[arg-type]
    )
    return TrainingView.of(store, folder)


@pytest.mark.parametrize(
    "values",
    [[math.inf, 1.0], [math.nan, math.nan], [0.0, 0.0], [-1.0, -2.0], [1.0], [1e-300, 1e300], [5.0, 5.0]],
    ids=str,
)
def test_losses_of_any_kind_make_a_page(
    store: Store, values: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalrun.reports.page.read_bundle", lambda: "")
    view = make(store, [(step, "loss", value, math.nan) for step, value in enumerate(values)])
    assert "tiny" in render_page([view])
    assert "tiny" in render_page([view, view])
    assert training_lines(view)[0].startswith("tiny (")


def test_what_is_hostile_is_shown_and_not_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalrun.reports.page.read_bundle", lambda: "")
    name = "<script>alert(1)</script>"
    view = make(
        store, [(1, name, 1.0, math.nan)], hyperparameters={name: name}, notes=(name,), tags={"a": name}
    )
    assert "<script>alert" not in render_page([view])


def test_the_time_left_is_steps_left_times_the_usual_step(store: Store) -> None:
    rows = [(step, "loss", 1.0, 100.0 + 2.0 * step) for step in range(1, 60)]
    view = make(store, rows, status="running", planned_steps=100)
    assert time_left(view) is None  # no process holds it: it does not run
    with view.folder.lock():
        running = TrainingView.of(store, view.folder)
        assert time_left(running) == pytest.approx((82.0, 82.0, 82.0))


def test_the_document_has_status_last_values_series_and_alerts(store: Store) -> None:
    rows = [(step, "train/loss", 3.0 - step, math.nan) for step in (1, 2)]
    document = make(store, [*rows, (1, "grad_norm", math.inf, math.nan)]).document()
    assert (document["training"], document["status"], document["steps"]) == (
        document["folder"].rsplit("/", 1)[1][:26],
        "finished",
        2,
    )
    assert document["last"] == {"train/loss": 1.0, "loss": 1.0, "grad_norm": None}
    assert document["series"] == {"train/loss": [(1, 2.0), (2, 1.0)], "grad_norm": [(1, None)]}
    # An overflow of one step is told, and did not end the training: its loss after it is sound.
    assert [alert["rule"] for alert in document["alerts"]] == ["diverged"]
    assert document["thinned"] == []


def test_a_training_whose_last_loss_is_no_number_is_diverged(store: Store) -> None:
    rows = [(step, "loss", value, math.nan) for step, value in enumerate((2.0, 1.0, math.nan, math.nan), 1)]
    view = make(store, rows)
    assert (view.status, view.diverged) == ("diverged", 3)
    assert make(store, [*rows, (5, "loss", 0.9, math.nan)]).status == "finished"


def test_a_unit_is_said_once_in_a_row() -> None:
    assert _measured(2.98, 2.94, 3.02, "nats/token") == "2.98 [2.94, 3.02] nats/token"
    assert _measured(0.5, 0.25, 0.75, "fraction") == "0.50 [0.25, 0.75]"


def test_a_long_series_is_thinned_in_the_document_and_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalrun.training.series.MOST_WHOLE", 2_500)
    document = make(store, [(step, "loss", 1.0, math.nan) for step in range(3_000)]).document()
    assert (document["thinned"], len(document["series"]["loss"]) <= 2_000) == (["loss"], True)
    assert document["metrics"][0]["points"] == 3_000
