"""evalrun.track: what was logged is there, one process writes, and nothing is raised into a training."""

import logging
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import evalrun
from evalrun.errors import UserError
from evalrun.tracking.store import Store
from evalrun.tracking.trainings import resolve_training, training_folders, verify_training
from evalrun.training import journal, track
from evalrun.training.ending import series_of


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("EVALRUN_CACHE", str(tmp_path / "cache"))
    for name in track._RANKS:
        monkeypatch.delenv(name, raising=False)
    return Store(tmp_path / "store")


def begin(store: Store, name: str = "tiny", **options: object) -> track.Tracked:
    return evalrun.track(name, store=store.root, **{"system": False, **options})


def loss_of(store: Store, name: str = "tiny", metric: str = "loss") -> list[tuple[int, float]]:
    steps, values, _ = series_of(resolve_training(store, name)).of(metric)
    return list(zip(steps.tolist(), values.tolist(), strict=True))


def test_what_is_logged_is_there(store: Store, tmp_path: Path) -> None:
    (tmp_path / "checkpoint-10").mkdir()
    with begin(store, config={"lr": 2e-4, "seed": 7}, project="triage", tags={"team": "nlp"}) as run:
        run.log({"loss": 1.5, "grad_norm": math.nan, "text": "no number"}, step=10)
        run.log({"eval_loss": 2}, step=10)
        run.add_scalar("loss", 1.0, 20)
        run.log({"loss": 0.5})
        run.checkpoint(tmp_path / "checkpoint-10", step=10)
    folder = resolve_training(store, "tiny")
    manifest = folder.training()
    assert loss_of(store) == [(10, 1.5), (20, 1.0), (21, 0.5)]
    assert loss_of(store, metric="eval_loss") == [(10, 2.0)]
    assert math.isnan(loss_of(store, metric="grad_norm")[0][1])
    assert (manifest.status, manifest.steps, manifest.project) == ("finished", 21, "triage")
    assert (manifest.hyperparameters, manifest.seeds) == ({"lr": 2e-4, "seed": 7}, {"seed": 7})
    assert [row.step for row in folder.checkpoints()] == [10]
    assert verify_training(folder) == []
    assert not (folder.path / "metrics.jsonl").exists()


def test_the_first_and_the_last_reading_of_the_machine_are_always_there(store: Store) -> None:
    with begin(store, system=True) as run:
        run.log({"loss": 1.0}, step=1)
    assert series_of(resolve_training(store, "tiny")).named("loss") == "loss"
    assert len(loss_of(store, metric="system.cpu_s")) == 2
    assert resolve_training(store, "tiny").training().steps == 1


def test_a_lower_step_takes_the_training_up_from_there(store: Store) -> None:
    with begin(store) as run:
        for step in (1, 2, 3, 2):
            run.log({"loss": float(step)}, step=step)
        run.log({"loss": 9.0}, step=3)
    assert loss_of(store) == [(1, 1.0), (2, 2.0), (3, 9.0)]
    assert resolve_training(store, "tiny").training().resumed == (2,)


def test_what_was_logged_is_as_it_was_when_it_was_logged(store: Store) -> None:
    class Tensor:
        value = 1.0

        def __float__(self) -> float:
            return self.value

    tensor, values = Tensor(), {"loss": 1.0}
    with begin(store) as run:
        values["tensor"] = tensor  # type: ignore[assignment]
        run.log(values, step=1)
        tensor.value, values["loss"] = 5.0, 5.0
    assert loss_of(store) == loss_of(store, metric="tensor") == [(1, 1.0)]


def test_only_rank_0_writes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    with begin(store) as run:
        run.log({"loss": 1.0}, step=1)
        run.checkpoint("nowhere", step=1)
    assert run.path is None
    assert training_folders(store) == []
    with begin(store, per_rank=True) as run:
        run.log({"loss": 1.0}, step=1)
    assert loss_of(store, "tiny-rank3") == [(1, 1.0)]
    monkeypatch.setenv("RANK", "0")
    with begin(store) as run:
        run.log({"loss": 1.0}, step=1)
    assert loss_of(store) == [(1, 1.0)]


def test_nothing_is_raised_into_a_training(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with begin(store) as run:
        run.log(None, step=1)  # type: ignore[arg-type]
        run.log({"loss": 1.0}, step="x")  # type: ignore[arg-type]
        run.log({"loss": object()}, step=2**60)
        run.log({3: 1.0, "loss": 2.0}, step=4)  # type: ignore[dict-item]
        run.checkpoint(None)  # type: ignore[arg-type]
        run.config(None)  # type: ignore[arg-type]
    run.log({"loss": 3.0}, step=5)
    run.finish()
    assert loss_of(store) == [(4, 2.0)]
    assert [each.levelno for each in caplog.records] == [logging.WARNING]


def test_a_store_that_cannot_be_made_ends_no_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with evalrun.track("tiny", store=tmp_path / "file" / "store") as run:
        run.log({"loss": 1.0}, step=1)
    assert len(caplog.records) == 1
    assert "not tracked" in caplog.text


def test_a_store_that_hangs_does_not_keep_a_training_from_beginning(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, left = threading.Event(), threading.Event()

    def hangs(*_: Any) -> Any:
        answers.wait(60)
        left.set()
        raise OSError("too late")

    monkeypatch.setattr("evalrun.tracking.trainings.create_training", hangs)
    monkeypatch.setattr("evalrun.training.track.BEGIN_S", 0.05)
    run = evalrun.track("tiny", store=store.root)
    run.log({"loss": 1.0}, step=1)
    run.finish()
    assert not left.is_set() and run.path is None
    assert "the store did not answer within 0.05 s" in caplog.text
    answers.set()
    assert left.wait(60)


def test_what_cannot_be_written_is_counted_and_told_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, full = os.pwrite, True

    def pwrite(descriptor: int, data: bytes, at: int) -> int:
        if full:
            real(descriptor, bytes(data)[:5], at)
            raise OSError(28, "No space left on device")
        return real(descriptor, data, at)

    with begin(store) as run:
        monkeypatch.setattr(os, "pwrite", pwrite)
        assert run._journal is not None
        for step in (1, 2):
            run.log({"loss": 1.0}, step=step)
            run._journal.flush()
        full = False
        run.log({"loss": 2.0}, step=3)
    assert loss_of(store) == [(3, 2.0)]
    assert resolve_training(store, "tiny").training().notes == ("2 lines could not be written",)
    assert len([each for each in caplog.records if "No space" in each.message]) == 1


def test_a_disk_that_stays_full_is_noted_too(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def pwrite(descriptor: int, data: bytes, at: int) -> int:
        raise OSError(28, "No space left on device")

    with begin(store) as run:
        run.log({"loss": 1.0}, step=1)
        assert run._journal is not None
        run._journal.flush()
        with monkeypatch.context() as full:
            full.setattr(os, "pwrite", pwrite)
            run.log({"loss": 1.0}, step=2)
            run._journal.close()
    assert loss_of(store) == [(1, 1.0)]
    assert resolve_training(store, "tiny").training().notes == ("1 lines could not be written",)


def test_what_waits_for_a_disk_that_hangs_is_bounded_and_counted(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers, real = threading.Event(), os.fdatasync

    def hanging(descriptor: int) -> None:
        if threading.current_thread().name == "evalrun-track":
            answers.wait(30)
        real(descriptor)

    monkeypatch.setattr(journal, "MOST_WAITING", 10)
    monkeypatch.setattr(journal, "_STUCK_S", 0.0)
    monkeypatch.setattr(os, "fdatasync", hanging)
    with begin(store) as run:
        run.log({"loss": 1.0}, step=0)
        writer = run._journal
        assert writer is not None
        while writer._busy_since is None:
            time.sleep(0.001)
        for step in range(1, 101):
            run.log({"loss": 1.0}, step=step)
            run.checkpoint("out", step=step)  # waits for the disk as little
        assert (len(writer._waiting), writer.lost) == (10, 90)
        answers.set()
    assert loss_of(store) == [(step, 1.0) for step in range(11)]
    assert "90 lines were dropped" in caplog.text
    assert resolve_training(store, "tiny").training().notes == ("90 lines could not be written",)


def test_a_disk_that_never_answers_keeps_no_training_from_ending(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers, real = threading.Event(), os.fdatasync

    def hanging(descriptor: int) -> None:
        if threading.current_thread().name == "evalrun-track":
            answers.wait(30)
        real(descriptor)

    monkeypatch.setattr(journal, "PATIENCE_S", 0.05)
    monkeypatch.setattr(os, "fdatasync", hanging)
    with begin(store) as run:
        run.log({"loss": 1.0}, step=1)
    assert "the disk does not answer" in caplog.text
    answers.set()
    assert resolve_training(store, "tiny").status() == "interrupted"
    assert loss_of(store) == [(1, 1.0)]


def test_metrics_that_count_otherwise_go_side_by_side(store: Store) -> None:
    for steps in ((10, 20, 30), (40, 50, 60)):
        run = begin(store)
        for epoch, step in enumerate(steps, 1 if steps[0] == 10 else 4):
            run.log({"loss": 1.0 / step}, step=step)
            run.log({"val_accuracy": 0.5}, step=epoch)
        # Killed: the next of this name goes on with it.
        assert run._journal is not None
        run._journal.close()
        run._lock.close()
        run._ended = True
    begin(store).finish()
    series = series_of(resolve_training(store, "tiny"))
    assert series.of("loss")[0].tolist() == [10, 20, 30, 40, 50, 60]
    assert series.of("val_accuracy")[0].tolist() == [1, 2, 3, 4, 5, 6]


def test_leaving_with_success_ends_well(store: Store) -> None:
    for code, status in ((None, "finished"), (0, "finished"), (1, "failed")):
        with pytest.raises(SystemExit), begin(store) as run:
            run.log({"loss": 1.0}, step=1)
            raise SystemExit(code)
        assert resolve_training(store, "tiny").training().status == status


@pytest.mark.parametrize(
    ("name", "kept"), [("", "training"), ("a/b/../c", "a/b/../c"), ("ü\0\n n", "ü n"), ("x" * 300, "x" * 100)]
)
def test_any_name_is_made_fit(store: Store, name: str, kept: str) -> None:
    begin(store, name).finish()
    assert [folder.training().name for folder in training_folders(store)] == [kept]
    assert training_folders(store)[0].path.parent == store.root / "trainings"


def test_a_failed_training_is_failed_and_its_error_goes_on(store: Store) -> None:
    for error, status in ((ValueError, "failed"), (KeyboardInterrupt, "interrupted")):
        with pytest.raises(error), begin(store) as run:
            run.log({"loss": 1.0}, step=1)
            raise error
        assert resolve_training(store, "tiny").training().status == status


def test_an_alert_is_told_while_it_runs(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    with begin(store, on_alert=lambda alert: told.append(alert.rule)) as run:
        for step, loss in enumerate((4.0, 3.0, 0.0, 0.0), 1):
            run.log({"loss": loss}, step=step)
        assert run._journal is not None
        run._journal.flush()
        assert told == ["diverged"]
        assert [alert.step for alert in run.alerts] == [3]
    actions = [event["action"] for event in resolve_training(store, "tiny").events()]
    assert actions == ["start", "alert", "finish"]
    assert "diverged at step 3" in caplog.text


def test_an_unknown_alert_is_told_before_the_training_begins(store: Store) -> None:
    with pytest.raises(UserError, match="Did you mean 'diverged'"):
        begin(store, alerts=["divergd"])
    with pytest.raises(TypeError):
        evalrun.track("tiny", stoer=store.root)
