"""A training is imported whole or not at all, with checkpoints, architecture, digests and a trail."""

import json
import math
import os
import pickle
from pathlib import Path

import pytest
from tests import event_files

from evalrun.checkpoints import safetensors_header
from evalrun.errors import UserError
from evalrun.tracking.store import Store
from evalrun.tracking.trainings import (
    delete_training,
    resolve_training,
    training_folders,
    verify_training,
)
from evalrun.training.architecture import architecture_of
from evalrun.training.ending import series_of
from evalrun.training.importing import ImportOptions, import_training

HISTORY = [{"step": 10 * at, "loss": 4.0 / at, "learning_rate": 1e-3, "grad_norm": 1.0} for at in range(1, 7)]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("EVALRUN_CACHE", str(tmp_path / "cache"))
    return Store(tmp_path / "store")


def write_tensors(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str = "F32") -> None:
    """A safetensors file of zeros, written by hand."""
    at, header = 0, {}
    for name, shape in shapes.items():
        size = 4 * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(at))


SHAPES = {
    "model.embed_tokens.weight": (8, 4),
    "model.layers.0.self_attn.q_proj.weight": (4, 4),
    "model.layers.0.mlp.up_proj.weight": (6, 4),
    "model.norm.weight": (4,),
}
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 1,
    "hidden_size": 4,
    "num_attention_heads": 2,
    "vocab_size": 8,
    "tie_word_embeddings": True,
}


def make_output(folder: Path, history: object = HISTORY, steps: tuple[int, ...] = (20, 60)) -> Path:
    """What the HF Trainer leaves."""
    for step in steps:
        place = folder / f"checkpoint-{step}"
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(CONFIG))
        write_tensors(place / "model.safetensors", SHAPES)
        state = {"global_step": step, "max_steps": 60, "log_history": history if step == steps[-1] else []}
        (place / "trainer_state.json").write_text(json.dumps(state))
    return folder


def bring(store: Store, source: Path, **options: object):  # type: ignore[no-untyped-def]
    return import_training(store, ImportOptions(str(source), **options))  # type: ignore[arg-type]


def test_a_training_is_kept_with_all_there_is_of_it(store: Store, tmp_path: Path) -> None:
    out = make_output(tmp_path / "out")
    done = bring(store, out, name="tiny", tags={"team": "nlp"})
    folder = resolve_training(store, "tiny")
    assert folder.path == done.folder.path
    manifest = folder.training()
    assert (manifest.status, manifest.steps, manifest.framework) == ("finished", 60, "huggingface")
    assert [row.step for row in folder.checkpoints()] == [20, 60]
    assert len({row.sha256 for row in folder.checkpoints()} - {""}) == 1
    assert series_of(folder).of("loss")[1].tolist() == [4.0, 2.0, 4 / 3, 1.0, 0.8, 4 / 6]
    assert manifest.architecture["parameters"] == 76
    assert [event["action"] for event in folder.events()] == ["import", "checkpoint", "checkpoint", "finish"]
    assert verify_training(folder) == []
    assert manifest.sources[0].path == str(out / "checkpoint-60" / "trainer_state.json")


def test_the_very_same_files_are_kept_once(store: Store, tmp_path: Path) -> None:
    out = make_output(tmp_path / "out")
    first, second = bring(store, out), bring(store, out)
    assert (first.again, second.again) == (False, True)
    assert first.folder.path == second.folder.path
    assert not bring(store, out, name="another").again
    assert len(training_folders(store)) == 2


def test_the_catalog_knows_trainings_and_forgets_them(store: Store, tmp_path: Path) -> None:
    import sqlalchemy as sa

    from evalrun.tracking.changes import rename, tag
    from evalrun.tracking.tables import training, training_metric_last, training_tag

    folder = bring(store, make_output(tmp_path / "out"), name="tiny").folder

    def ask(*columns: sa.Column[object]) -> list[tuple[object, ...]]:
        query = sa.select(*columns).order_by(*columns)
        return store.read(lambda connection: [tuple(row) for row in connection.execute(query)])

    assert ask(training.c.name, training.c.steps) == [("tiny", 60)]
    assert ("loss", 60, 4 / 6) in ask(
        training_metric_last.c.name, training_metric_last.c.step, training_metric_last.c.value
    )
    tag(store, folder, {"team": "nlp"})
    rename(store, folder, "triage")
    assert ask(training_tag.c.key, training_tag.c.value) == [("team", "nlp")]
    assert ask(training.c.name) == [("triage",)]
    assert resolve_training(store, "triage").path == folder.path
    store.reindex()
    assert ask(training.c.name) == [("triage",)]
    delete_training(store, folder, "done with")
    assert ask(training.c.name) == []
    assert ask(training_metric_last.c.name) == []


def test_the_trail_tells_of_alterations(store: Store, tmp_path: Path) -> None:
    from evalrun.tracking.audit import verify

    folder = bring(store, make_output(tmp_path / "out")).folder
    assert verify(store).broken == []
    metrics = folder.path / "metrics.parquet"
    metrics.write_bytes(metrics.read_bytes() + b" ")
    assert ["was altered" in each.what for each in verify(store).broken] == [True]
    metrics.unlink()
    assert [each.what for each in verify(store).broken] == ["is gone"]


def test_a_training_that_went_away_without_a_tombstone_is_told(store: Store, tmp_path: Path) -> None:
    import shutil

    from evalrun.tracking.audit import verify

    folder = bring(store, make_output(tmp_path / "out")).folder
    shutil.rmtree(folder.path)
    assert ["without a tombstone" in each.what for each in verify(store).broken] == [True]


def test_a_diverged_training_is_told_and_noted(store: Store, tmp_path: Path) -> None:
    history = [*HISTORY[:3], {"step": 40, "loss": 0.0, "grad_norm": math.nan}]
    done = bring(store, make_output(tmp_path / "out", history))
    assert [str(alert) for alert in done.alerts] == ["diverged at step 40: grad_norm is nan"]
    assert "alert" in [event["action"] for event in done.folder.events()]


def test_a_training_that_stopped_short_is_interrupted(store: Store, tmp_path: Path) -> None:
    manifest = bring(store, make_output(tmp_path / "out", HISTORY[:4], (40,))).manifest
    assert manifest.status == "interrupted"
    assert manifest.notes == ("it ended at step 40 of 60",)


def test_pickles_are_never_loaded(store: Store, tmp_path: Path) -> None:
    harm = tmp_path / "harm"

    class Harmful:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return Path.touch, (harm,)

    out = make_output(tmp_path / "out")
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin"):
        (out / "checkpoint-60" / name).write_bytes(pickle.dumps(Harmful()))
    (out / "epoch=1-step=70.ckpt").write_bytes(pickle.dumps(Harmful()))
    done = bring(store, out)
    assert not harm.exists()
    assert done.checkpoints[-1].step == 70
    assert "never opened" in done.checkpoints[-1].note


@pytest.mark.parametrize("length", [2**63, 2**40, 10])
def test_a_lying_header_keeps_everything_out(store: Store, tmp_path: Path, length: int) -> None:
    out = make_output(tmp_path / "out")
    weights = out / "checkpoint-60" / "model.safetensors"
    weights.write_bytes(length.to_bytes(8, "little") + weights.read_bytes()[8:])
    with pytest.raises(UserError) as caught:
        bring(store, out)
    assert "checkpoint-60" in caught.value.problems[0].where
    assert caught.value.problems[0].remedy
    assert training_folders(store) == []
    root = tmp_path / "store" / "trainings"
    assert not root.exists() or list(root.iterdir()) == []


def test_what_is_no_training_is_an_error(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, what in (("nowhere", "no such file or folder"), ("empty", "holds nothing")):
        with pytest.raises(UserError, match=what) as caught:
            bring(store, tmp_path / source)
        assert caught.value.problems[0].where == str(tmp_path / source)
    with pytest.raises(UserError, match="Did you mean 'lightning'"):
        bring(store, tmp_path / "empty", framework="lightening")
    assert training_folders(store) == []


def test_every_framework_is_recognized(store: Store, tmp_path: Path) -> None:
    board = tmp_path / "board" / "events.out.tfevents.1"
    board.parent.mkdir()
    board.write_bytes(event_files.series("loss", [(1.0, 1, 2.0)]))
    light = tmp_path / "light" / "version_0"
    light.mkdir(parents=True)
    (light / "metrics.csv").write_text("epoch,step,loss\n0,0,2.0\n")
    (light / "checkpoints").mkdir()
    (light / "checkpoints" / "epoch=0-step=1.ckpt").write_bytes(b"pickle")
    (tmp_path / "rows.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    for name, framework in (("board", "tensorboard"), ("light", "lightning"), ("rows.jsonl", "table")):
        manifest = bring(store, tmp_path / name).manifest
        assert (manifest.framework, manifest.steps) == (framework, 1)
    assert [row.step for row in resolve_training(store, "light").checkpoints()] == [1]


# The model's card


def test_the_card_counts_parts_and_each_tensor_once(tmp_path: Path) -> None:
    place = make_output(tmp_path, steps=(20,)) / "checkpoint-20"
    card = architecture_of(place)
    assert card["parts"] == {"embedding": 32, "attention": 16, "mlp": 24, "norm": 4}
    assert (card["layers"], card["head_dim"], card["tied_embeddings"]) == (1, 2, True)
    (place / "model.safetensors").rename(place / "model-1-of-2.safetensors")
    write_tensors(place / "model-2-of-2.safetensors", {"lm_head.weight": (8, 4)})
    weights = {
        **dict.fromkeys(SHAPES, "model-1-of-2.safetensors"),
        "lm_head.weight": "model-2-of-2.safetensors",
    }
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    assert architecture_of(place)["parameters"] == 76 + 32
    (place / "model-2-of-2.safetensors").unlink()
    with pytest.raises(UserError, match="not there"):
        architecture_of(place)


def test_the_parameters_of_smollm2_are_counted(tmp_path: Path) -> None:
    """Its published number, from the header alone: the file has holes in the place of its weights."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (49152, 576),
        "model.norm.weight": (576,),
    }
    for at in range(30):
        layer = f"model.layers.{at}."
        shapes |= {f"{layer}{name}_layernorm.weight": (576,) for name in ("input", "post_attention")}
        for name, rows in (("q", 576), ("k", 192), ("v", 192), ("o", 576)):
            shapes[f"{layer}self_attn.{name}_proj.weight"] = (rows, 576)
        shapes |= {f"{layer}mlp.{name}_proj.weight": (1536, 576) for name in ("gate", "up")}
        shapes[f"{layer}mlp.down_proj.weight"] = (576, 1536)
    at, header = 0, {}
    for name, shape in shapes.items():
        end = at + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)
    card = architecture_of(tmp_path)
    assert (card["parameters"], card["tensors"], card["weights_dtype"]) == (134_515_008, 272, "BF16")


def test_a_mixture_has_total_and_active_parameters(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"num_local_experts": 4, "num_experts_per_tok": 1}))
    experts = {f"model.layers.0.mlp.experts.{at}.w1.weight": (10, 10) for at in range(4)}
    write_tensors(tmp_path / "model.safetensors", {**experts, "model.embed_tokens.weight": (5, 10)})
    card = architecture_of(tmp_path)
    assert (card["parameters"], card["active_parameters"]) == (450, 150)


def test_an_adapter_names_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "tiny/base", "r": 8, "lora_alpha": 16})
    )
    write_tensors(tmp_path / "adapter_model.safetensors", {"base.layers.0.q_proj.lora_A.weight": (8, 4)})
    card = architecture_of(tmp_path)
    assert (card["base"], card["rank"], card["parts"]) == ("tiny/base", 8, {"adapter": 32})
    assert architecture_of(tmp_path / "nowhere") == {}


def test_several_trainings_in_a_folder_are_listed_and_one_is_taken(store: Store, tmp_path: Path) -> None:
    make_output(tmp_path / "runs" / "one")
    assert import_training(store, ImportOptions(str(tmp_path / "runs"))).manifest.steps == 60
    make_output(tmp_path / "runs" / "two")
    with pytest.raises(UserError, match="2 folders with trainings") as caught:
        import_training(store, ImportOptions(str(tmp_path / "runs")))
    assert "one, two" in str(caught.value)


def test_what_was_damaged_since_is_told_though_its_log_is_known(store: Store, tmp_path: Path) -> None:
    out = make_output(tmp_path / "out")
    kept = import_training(store, ImportOptions(str(out)))
    assert kept.checkpoints
    assert import_training(store, ImportOptions(str(out))).again
    weights = out / "checkpoint-60" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match="not whole"):
        import_training(store, ImportOptions(str(out)))


@pytest.mark.parametrize(
    ("shape", "offsets"), [((3, 4), (0, 4)), ((10**30,), (0, 4)), ((1,), (4, 8)), ((1,), (0, 8))]
)
def test_a_header_whose_shapes_and_places_do_not_fit_is_an_error(
    tmp_path: Path, shape: tuple[int, ...], offsets: tuple[int, int]
) -> None:
    path = tmp_path / "model.safetensors"
    text = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(offsets[1]))
    with pytest.raises(UserError, match="header"):
        safetensors_header(path)


def test_a_pipe_is_not_waited_for(store: Store, tmp_path: Path) -> None:
    out = make_output(tmp_path / "out", steps=(20,))
    (out / "checkpoint-20" / "model.safetensors").unlink()
    os.mkfifo(out / "checkpoint-20" / "model.safetensors")
    with pytest.raises(UserError, match="it is no file"):
        import_training(store, ImportOptions(str(out)))
