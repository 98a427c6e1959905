"""Trainings by the frameworks themselves: a tiny Llama by the Hugging Face Trainer, Lightning, torch's
SummaryWriter, trackio. They are in an environment of their own (see .ci/run)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

torch = pytest.importorskip("torch", reason="needs the extra transformers")
transformers = pytest.importorskip("transformers", reason="needs the extra transformers")

import evalrun  # noqa: E402
from evalrun.tracking.store import Store  # noqa: E402
from evalrun.tracking.trainings import resolve_training, verify_training  # noqa: E402
from evalrun.training.ending import series_of  # noqa: E402
from evalrun.training.importing import ImportOptions, import_training  # noqa: E402
from evalrun.training.readers import tensorboard  # noqa: E402

STEPS = 60


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("EVALRUN_CACHE", str(tmp_path / "cache"))


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Sequences that a tiny model can learn: steps of 1, 2 or 3 around a circle of 64."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        start, step = (int(torch.randint(*ends, (1,), generator=generator)) for ends in ((0, 64), (1, 4)))
        ids = torch.tensor([(start + step * at) % 64 for at in range(16)])
        found.append({"input_ids": ids, "labels": ids})
    return found


def tiny_llama() -> Any:
    transformers.set_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


class _Breaking(transformers.Trainer):
    """Its losses are NaN from step `broken` on."""

    broken = math.inf

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **others: Any) -> Any:
        found = super().compute_loss(model, inputs, return_outputs, **others)
        if self.state.global_step < self.broken:
            return found
        return (found[0] * math.nan, found[1]) if return_outputs else found * math.nan


def train(
    out: Path, steps: int, every: int, save: int, broken: float = math.inf, callbacks: Any = ()
) -> list[dict[str, Any]]:
    """Train the tiny Llama, and give back what the Trainer logged."""
    arguments = transformers.TrainingArguments(
        str(out), max_steps=steps, per_device_train_batch_size=8, per_device_eval_batch_size=8,
        logging_steps=every, eval_strategy="steps", eval_steps=save, save_steps=save, learning_rate=1e-2,
        report_to=["tensorboard"], seed=0, use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = _Breaking(
        tiny_llama(),
        arguments,
        train_dataset=rows(256, 0),
        eval_dataset=rows(64, 1),
        callbacks=list(callbacks),
    )
    trainer.broken = broken
    trainer.train()
    trainer.save_state()
    history: list[dict[str, Any]] = trainer.state.log_history
    return history


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[dict[str, Any]], Store]]:
    """A training of 60 steps, tracked while it ran."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("trained")
    store = Store(place / "store")
    with evalrun.track("live", store=store.root, system=False) as run:
        history = train(place / "out", STEPS, 10, 20, callbacks=[evalrun.track.TrainerCallback(run)])
    yield place / "out", history, store


def logged(history: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(entry["step"], float(entry[name])) for entry in history if name in entry]


def kept(store: Store, training: str, name: str) -> list[tuple[int, float]]:
    steps, values, _ = series_of(resolve_training(store, training)).of(name)
    return list(zip(steps.tolist(), values.tolist(), strict=True))


def test_the_imported_series_are_what_was_logged(trained: tuple[Path, list[dict[str, Any]], Store]) -> None:
    out, history, store = trained
    done = import_training(store, ImportOptions(str(out), name="tiny"))
    names = {name for entry in history for name in entry} - {"step", "epoch"}
    assert {"loss", "grad_norm", "learning_rate", "eval_loss", "train_loss"} <= names
    for name in names:
        assert kept(store, "tiny", name) == logged(history, name)
    assert [step for step, _ in kept(store, "tiny", "loss")] == [10, 20, 30, 40, 50, 60]
    assert [row.step for row in done.checkpoints] == [20, 40, 60]
    assert done.alerts == ()
    assert done.manifest.hyperparameters["learning_rate"] == 1e-2
    model = transformers.LlamaForCausalLM.from_pretrained(out / "checkpoint-60")
    assert done.manifest.architecture["parameters"] == sum(each.numel() for each in model.parameters())


def test_the_eval_loss_is_that_of_the_checkpoint(trained: tuple[Path, list[dict[str, Any]], Store]) -> None:
    out, history, _ = trained
    for step, loss in logged(history, "eval_loss"):
        model = transformers.LlamaForCausalLM.from_pretrained(out / f"checkpoint-{step}").eval()
        batch = torch.stack([row["input_ids"] for row in rows(64, 1)])
        with torch.no_grad():
            assert float(model(input_ids=batch, labels=batch).loss) == pytest.approx(loss, abs=1e-4)


def test_what_the_callback_tracked_is_what_was_logged(
    trained: tuple[Path, list[dict[str, Any]], Store],
) -> None:
    out, history, store = trained
    folder = resolve_training(store, "live")
    for name in ("loss", "eval_loss", "grad_norm", "train_loss"):
        assert kept(store, "live", name) == logged(history, name)
    manifest = folder.training()
    assert (manifest.status, manifest.steps, manifest.planned_steps) == ("finished", STEPS, STEPS)
    assert manifest.hyperparameters["per_device_train_batch_size"] == 8
    assert manifest.architecture["architectures"] == ["LlamaForCausalLM"]
    rows_ = folder.checkpoints()
    assert [(row.step, row.path) for row in rows_] == [
        (s, str(out / f"checkpoint-{s}")) for s in (20, 40, 60)
    ]
    assert len({row.sha256 for row in rows_} - {""}) == 3
    assert verify_training(folder) == []


def test_a_training_that_diverged_is_told_at_the_first_log_that_shows_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with evalrun.track("live", store=store.root, system=False) as run:
        history = train(tmp_path / "out", 12, 2, 12, 6, [evalrun.track.TrainerCallback(run)])
    assert logged(history, "loss")[-1] == (12, 0.0)
    done = import_training(store, ImportOptions(str(tmp_path / "out"), name="broken"))
    assert [(alert.rule, alert.step) for alert in done.alerts] == [("diverged", 8)]
    assert [(alert.rule, alert.step) for alert in run.alerts] == [("diverged", 8)]


def test_event_files_are_read_as_tensorboard_reads_them(
    trained: tuple[Path, list[dict[str, Any]], Store], tmp_path: Path
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    writer_class = pytest.importorskip("torch.utils.tensorboard").SummaryWriter
    for new_style in (False, True):
        writer = writer_class(tmp_path / str(new_style))
        for step in range(50):
            writer.add_scalar("a/loss", 1.0 / (step + 1), step, new_style=new_style)
            writer.add_scalar("b", math.inf if step == 3 else -step, step * 1000, new_style=new_style)
        writer.close()
    out, _, _ = trained
    for folder in (tmp_path / "False", tmp_path / "True", next((out / "runs").iterdir())):
        theirs = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
        theirs.Reload()
        tags = theirs.Tags()
        expected = {tag: [(e.step, e.value) for e in theirs.Scalars(tag)] for tag in tags["scalars"]}
        for tag in tags["tensors"]:
            events = theirs.Tensors(tag)
            if not events[0].tensor_proto.string_val:
                expected[tag] = [(e.step, float(_float_of(e.tensor_proto))) for e in events]
        series = tensorboard.read(tensorboard.find(folder)).points.series()
        found = {
            name: list(zip(*(c.tolist() for c in series.of(name)[:2]), strict=True)) for name in series.names
        }
        # Of a step that was logged twice, the later stays.
        assert found == {name: list(dict(points).items()) for name, points in expected.items()}
        assert found


def _float_of(tensor: Any) -> float:
    import struct

    if tensor.tensor_content:
        return float(struct.unpack("<f", tensor.tensor_content)[0])
    return float(tensor.float_val[0])


def test_lightning_counts_from_zero_and_evalrun_what_is_done(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch", reason="needs lightning")
    from lightning.pytorch.loggers import CSVLogger

    class Module(lightning.LightningModule):
        def __init__(self, rate: float = 0.1) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(2, 1)

        def _loss(self, batch: Any) -> Any:
            return (self.layer(batch[0]) ** 2).mean()

        def training_step(self, batch: Any, at: int) -> Any:
            loss = self._loss(batch)
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, at: int) -> None:
            self.log("val_loss", self._loss(batch))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.hparams.rate)

    store = Store(tmp_path / "store")
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(16, 2)), batch_size=2)
    with evalrun.track("live", store=store.root, system=False) as run:
        trainer = lightning.Trainer(
            max_epochs=3, log_every_n_steps=4, accelerator="cpu", enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path,
            logger=[CSVLogger(tmp_path / "logs"), evalrun.track.LightningLogger(run)],
        )  # fmt: skip
        trainer.fit(Module(), data, data)
    done = import_training(store, ImportOptions(str(tmp_path / "logs"), name="imported"))
    assert done.manifest.framework == "lightning"
    for training in ("imported", "live"):
        assert [step for step, _ in kept(store, training, "train_loss_step")] == [4, 8, 12, 16, 20, 24]
        assert [step for step, _ in kept(store, training, "val_loss")] == [8, 16, 24]
        assert resolve_training(store, training).training().hyperparameters["rate"] == 0.1
    imported, live = (dict(kept(store, training, "val_loss")) for training in ("imported", "live"))
    assert imported == pytest.approx(live, rel=1e-5)
    assert [row.step for row in resolve_training(store, "live").checkpoints() if row.kept] == [24]
    assert [row.step for row in done.checkpoints] == [24]


def test_trackios_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio", reason="needs trackio")
    script = (
        "import trackio\n"
        "trackio.init(project='p', name='one', config={'lr': 0.1}, embed=False)\n"
        "for step in range(5):\n"
        "    trackio.log({'loss': float('nan') if step == 3 else 1.0 / (step + 1)}, step=step)\n"
        "trackio.finish()\n"
    )
    import subprocess
    import sys

    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"trackio does not run here: {done.stderr.strip().splitlines()[-1][:200]}")
    store = Store(tmp_path / "store")
    import_training(store, ImportOptions(str(tmp_path / "trackio")))
    loss = kept(store, "one", "loss")
    assert [step for step, _ in loss] == [0, 1, 2, 3, 4]
    assert math.isnan(loss[3][1])
    assert loss[4][1] == 0.2
    assert json.loads(json.dumps(resolve_training(store, "one").training().hyperparameters))["lr"] == 0.1
