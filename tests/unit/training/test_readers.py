"""What other programs wrote, read: values, steps, and what is odd about it; torn and hostile files."""

import json
import math
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import event_files

from evalrun.errors import UserError
from evalrun.training.readers import Reading, services, tables, tensorboard, trainer_state

HISTORY = [
    {"step": 10, "epoch": 0.5, "loss": 2.5, "grad_norm": 1.25, "learning_rate": 1e-3},
    {"step": 20, "epoch": 1.0, "loss": 1.5, "grad_norm": 1.0, "learning_rate": 5e-4},
    {"step": 20, "epoch": 1.0, "eval_loss": 1.75, "eval_runtime": 0.5},
]


def values(reading: Reading, name: str) -> list[tuple[int, float]]:
    steps, found, _ = reading.points.series().of(name)
    return list(zip(steps.tolist(), found.tolist(), strict=True))


def write_state(folder: Path, history: object, step: int = 20, **more: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "trainer_state.json"
    path.write_text(json.dumps({"global_step": step, "log_history": history, **more}))
    return path


# Hugging Face


def test_the_newest_state_is_taken_value_for_value(tmp_path: Path) -> None:
    write_state(tmp_path / "checkpoint-10", HISTORY[:1], 10)
    write_state(tmp_path / "checkpoint-20", HISTORY, 20, max_steps=40, train_batch_size=8)
    reading = trainer_state.read(trainer_state.find(tmp_path))
    assert values(reading, "loss") == [(10, 2.5), (20, 1.5)]
    assert values(reading, "eval_loss") == [(20, 1.75)]
    assert (reading.steps, reading.planned_steps, reading.notes) == (20, 40, [])
    assert reading.hyperparameters == {"max_steps": 40, "per_device_train_batch_size": 8}


def test_bare_nan_is_read_and_noted_once(tmp_path: Path) -> None:
    history = [*HISTORY, {"step": 30, "loss": 0.0, "grad_norm": math.nan, "eval_loss": math.inf}]
    path = write_state(tmp_path, history, 30)
    assert "NaN" in path.read_text()
    reading = trainer_state.read([path])
    assert math.isnan(values(reading, "grad_norm")[-1][1])
    assert reading.notes == ["2 values are NaN or infinite: kept as null with the reason"]


def test_a_history_that_goes_back_gives_up_what_followed(tmp_path: Path) -> None:
    history = [{"step": step, "loss": float(at)} for at, step in enumerate((10, 20, 30, 15, 25))]
    reading = trainer_state.read([write_state(tmp_path, history, 25)])
    assert values(reading, "loss") == [(10, 0.0), (15, 3.0), (25, 4.0)]
    assert len(reading.notes) == 1
    assert "from step 30 to 15: 2 points" in reading.notes[0]


def test_a_best_checkpoint_that_is_gone_is_noted(tmp_path: Path) -> None:
    path = write_state(tmp_path, HISTORY, best_model_checkpoint="/nowhere/checkpoint-10")
    assert trainer_state.read([path]).notes == [
        "best_model_checkpoint is not there any more: /nowhere/checkpoint-10"
    ]
    (tmp_path / "checkpoint-10").mkdir()
    assert trainer_state.read([path]).notes == []


def test_a_torn_state_is_passed_over_where_another_is_whole(tmp_path: Path) -> None:
    write_state(tmp_path / "checkpoint-10", HISTORY[:1], 10)
    torn = write_state(tmp_path / "checkpoint-20", HISTORY)
    torn.write_bytes(torn.read_bytes()[:-20])
    reading = trainer_state.read(trainer_state.find(tmp_path))
    assert reading.steps == 10
    assert "checkpoint-20/trainer_state.json was passed over" in reading.notes[0]
    with pytest.raises(UserError, match="not whole"):
        trainer_state.read([torn])


@pytest.mark.parametrize("text", ["[]", "{}", '{"log_history": 3}', "\xff", "[" * 100_000, ""])
def test_what_is_no_state_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError) as caught:
        trainer_state.read([path])
    assert caught.value.problems[0].where == str(path)


def test_odd_entries_are_left_out(tmp_path: Path) -> None:
    history = [
        *HISTORY,
        3,
        {"loss": 1.0},
        {"step": -1, "loss": 1.0},
        {"step": 2**60, "loss": 1.0},
        {"step": 30, "loss": "x"},
    ]
    reading = trainer_state.read([write_state(tmp_path, history)])
    assert values(reading, "loss") == [(10, 2.5), (20, 1.5)]
    assert reading.notes == ["4 entries of the history have no step and are left out"]


# TensorBoard


def write_events(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(event_files.record(b"\x09" + bytes(8) + event_files.field(3, b"brain.Event:2")) + data)
    return path


def test_both_ways_to_write_a_scalar_are_read(tmp_path: Path) -> None:
    data = event_files.event(
        5.0, 300, event_files.scalar("a", 1.5), event_files.scalar("b", 2.5, as_tensor=True)
    )
    reading = tensorboard.read([write_events(tmp_path / "events.out.tfevents.1", data)])
    assert (values(reading, "a"), values(reading, "b")) == ([(300, 1.5)], [(300, 2.5)])
    assert reading.points.series().of("a")[2].tolist() == [5.0]


def test_a_file_cut_anywhere_in_its_last_record_has_all_before_it(tmp_path: Path) -> None:
    first = event_files.series("a", [(1.0, 1, 1.0), (2.0, 2, 2.0)])
    whole = first + event_files.series("a", [(3.0, 3, 3.0)])
    for cut in range(1, len(whole) - len(first) + 1):
        path = write_events(tmp_path / "events.out.tfevents.1", whole[: len(whole) - cut])
        reading = tensorboard.read([path])
        assert values(reading, "a") == [(1, 1.0), (2, 2.0)]
        assert sum("torn" in note for note in reading.notes) == (cut < len(whole) - len(first))


def test_of_overlapping_files_the_later_wall_time_wins(tmp_path: Path) -> None:
    old = write_events(
        tmp_path / "events.out.tfevents.9", event_files.series("a", [(1.0, 1, 1.0), (2.0, 2, 2.0)])
    )
    new = write_events(
        tmp_path / "events.out.tfevents.1", event_files.series("a", [(9.0, 2, 7.0), (10.0, 3, 8.0)])
    )
    assert values(tensorboard.read([new, old]), "a") == [(1, 1.0), (2, 7.0), (3, 8.0)]


def test_folders_one_after_the_other_are_restarts_and_side_by_side_are_not(tmp_path: Path) -> None:
    one = write_events(
        tmp_path / "x" / "events.out.tfevents.1", event_files.series("a", [(1.0, 1, 1.0), (2.0, 2, 2.0)])
    )
    later = write_events(tmp_path / "y" / "events.out.tfevents.1", event_files.series("a", [(3.0, 2, 5.0)]))
    assert values(tensorboard.read([one, later]), "a") == [(1, 1.0), (2, 5.0)]
    beside = write_events(tmp_path / "z" / "events.out.tfevents.1", event_files.series("a", [(1.5, 2, 6.0)]))
    names = tensorboard.read([one, beside]).points.series().names
    assert len(names) == 2


@given(st.binary(max_size=200))
def test_no_bytes_raise(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "events.out.tfevents.1"
    for content in (data, event_files.record(data), event_files.record(event_files.field(5, data))):
        path.write_bytes(content)
        tensorboard.read([path])


# Lightning, CSV, JSONL


def test_lightnings_steps_are_one_more_and_its_rows_are_folded(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,train_loss_step,val_loss\n0,3,2.0,\n0,7,1.5,\n0,7,,1.75\n1,11,1.25,\n"
    )
    (tmp_path / "hparams.yaml").write_text(
        "lr: 0.001\nmodel: !!python/object:os.system {a: 1}\nlayers: [1, 2]\n"
    )
    reading = tables.read_lightning(tmp_path / "metrics.csv")
    assert values(reading, "train_loss_step") == [(4, 2.0), (8, 1.5), (12, 1.25)]
    assert values(reading, "val_loss") == [(8, 1.75)]
    assert reading.hyperparameters["lr"] == 0.001
    assert reading.hyperparameters["layers"] == [1, 2]
    assert reading.hyperparameters["model"].startswith("python/object:os.system")
    assert "plus one" in reading.notes[0]


def test_hyperparameters_make_no_objects(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss\n0,1\n")
    harm = tmp_path / "harm"
    (tmp_path / "hparams.yaml").write_text(f"a: !!python/object/apply:os.mkdir ['{harm}']\n")
    tables.read_lightning(tmp_path / "metrics.csv")
    assert not harm.exists()


def test_columns_by_a_map(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("iteration,train/loss,comment\n5,2.0,x\n10,nan,y\n")
    reading = tables.read_table(path, {"step": "iteration", "loss": "train/loss"})
    found = values(reading, "loss")
    assert found[0] == (5, 2.0)
    assert math.isnan(found[1][1])
    assert reading.notes == [
        "1 values are NaN or infinite: kept as null with the reason",
        "2 values are texts and are left out",
    ]


def test_one_row_a_point_and_nested_json(tmp_path: Path) -> None:
    long = tmp_path / "long.csv"
    long.write_text("step,name,value\n1,loss,2\n1,lr,0.1\n2,loss,1\n")
    assert values(tables.read_table(long, {}), "loss") == [(1, 2.0), (2, 1.0)]
    lines = tmp_path / "log.jsonl"
    lines.write_text(
        '{"global_step": 1, "train": {"loss": 2.0}}\n{"global_step": 2, "train": {"loss": 1.0}}\n{"glo'
    )
    reading = tables.read_table(lines, {})
    assert values(reading, "train/loss") == [(1, 2.0), (2, 1.0)]
    assert "torn" in reading.notes[0]


@pytest.mark.parametrize(
    ("name", "text", "mapped", "what", "where", "remedy"),
    [
        ("a.csv", "step,loss\n5,1\n4,1\n", {}, "falls from 5 to 4", ":3", "--map step="),
        ("a.csv", "i,loss\n5,1\n", {}, "no row has a step", "", "--map step=COLUMN"),
        ("a.csv", "step,loss\n5,1\n", {"loss": "los"}, "no column 'los'", "", "Did you mean 'loss'"),
        ("a.csv", "step,step\n5,1\n", {}, "'step' twice", ":1", "Rename"),
        ("a.csv", "", {}, "no rows", "", ""),
        ("a.jsonl", '{"step": 1}\nnonsense\n{"step": 2}\n', {}, "not JSON", ":2", "One JSON object"),
        ("a.jsonl", "[1]\n", {}, "no JSON object", ":1", "One JSON object"),
    ],
)
def test_tables_that_cannot_be_read(
    tmp_path: Path, name: str, text: str, mapped: dict[str, str], what: str, where: str, remedy: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=what) as caught:
        tables.read_table(path, mapped)
    problem = caught.value.problems[0]
    assert problem.where == f"{path}{where}"
    assert remedy in problem.remedy


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"step,loss\n1,\xff\n")
    with pytest.raises(UserError, match="UTF-8"):
        tables.read_table(tmp_path / "a.csv", {})


# trackio


def make_trackio(path: Path, *runs: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE metrics (id INTEGER PRIMARY KEY, run_name, step, timestamp, metrics)")
        database.execute("CREATE TABLE configs (id INTEGER PRIMARY KEY, run_name, config)")
        for run in runs:
            rows = [(run, 0, '{"loss": 2.0}'), (run, 1, '{"loss": "NaN", "grad": "-Infinity"}')]
            database.executemany(
                "INSERT INTO metrics (run_name, step, timestamp, metrics) VALUES (?, ?, '2026-01-01', ?)",
                rows,
            )
            database.execute(
                'INSERT INTO configs (run_name, config) VALUES (?, \'{"lr": 1, "_user": 2}\')', [run]
            )
    database.close()


def test_trackio_keeps_nan_as_text(tmp_path: Path) -> None:
    make_trackio(tmp_path / "p.db", "one")
    assert services.find_trackio(tmp_path) == [tmp_path / "p.db"]
    reading = services.read_trackio(tmp_path / "p.db")
    loss = values(reading, "loss")
    assert loss[0] == (0, 2.0)
    assert math.isnan(loss[1][1])
    assert values(reading, "grad") == [(1, -math.inf)]
    assert (reading.name, reading.hyperparameters) == ("one", {"lr": 1})


def test_which_run_of_trackio_is_asked(tmp_path: Path) -> None:
    make_trackio(tmp_path / "p.db", "one", "two")
    with pytest.raises(UserError, match="has 2 runs") as caught:
        services.read_trackio(tmp_path / "p.db")
    assert "one, two" in caught.value.problems[0].remedy
    assert services.read_trackio(tmp_path / "p.db", "two").name == "two"
    (tmp_path / "x.db").write_bytes(b"SQLite format 3\0" + bytes(100))
    with pytest.raises(UserError, match="no SQLite file of trackio"):
        services.read_trackio(tmp_path / "x.db")


# Tables as other programs write them


CELLS = st.sampled_from(
    ["", "epoch", "Step", "1", "2.5", "nan", "-inf", "1e3", "text", "True", '"3"', '"a\nb"', " 4", "1_0"]
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), CELLS, CELLS, CELLS), min_size=1, max_size=12),
    st.sampled_from(["step,loss,a,b", "Step,name,value,epoch", "iteration,timestamp,loss,", "x,y,z,step"]),
)
def test_blocks_read_what_rows_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str, str, str]], header: str
) -> None:
    path = tmp_path_factory.mktemp("csv") / "log.csv"
    step, lines = 0, []
    for ahead, *cells in rows:
        step += ahead
        lines.append(",".join([str(step), *cells]))
    path.write_text("\n".join([header, *lines]) + "\n")
    found = []
    for blocks in (tables._in_blocks, lambda *_: False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tables, "_in_blocks", blocks)
            try:
                reading = tables.read_table(path, {})
                series = reading.points.series()
                found.append((series.names, repr(list(series.lines())), reading.notes))
            except UserError as error:
                found.append(str(error))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "step;loss\n1;2,5\n2;1\n"),
        ("a.csv", "step\tloss\n1\t2.5\n2\t1\n"),
        ("a.tsv", "step\tloss\n1\t2.5\n2\t1\n"),
        ("a.csv", "# by hand\n\nstep,loss\n1,2.5\n2,1\n"),
        ("a.csv", "\ufeffStep , loss\n1, 2.5\n2, 1\n"),
        ("a.csv", ",step,loss\n0,1,2.5\n1,2,1\n"),
        ("a.csv", "step,loss,note\n1,2.5,\n2,1,\n3,0"),
        ("a.csv", 'step,loss,note\n1,2.5,a\n2,1,b\n3,1,"torn'),
        ("a.jsonl", '{"step": 1.0, "loss": 2.5}\n{"_step": 7, "step": 2, "loss": 1}\n'),
    ],
)
def test_tables_as_other_programs_write_them(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert values(tables.read_table(tmp_path / name, {}), "loss") == [(1, 2.5), (2, 1.0)]


@pytest.mark.parametrize(
    "time", ["1700000000", "1700000000000", "1700000000000000", "2023-11-14T22:13:20+00:00"]
)
def test_times_are_seconds_whatever_they_were_written_in(tmp_path: Path, time: str) -> None:
    (tmp_path / "a.csv").write_text(f"step,loss,timestamp\n1,2,{time}\n")
    assert tables.read_table(tmp_path / "a.csv", {}).points.series().wall_s.tolist() == [1.7e9]


def test_references_that_spread_without_end_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss\n0,1\n")
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    for text in ("\n".join(lines), "a: &a [*a]"):
        (tmp_path / "hparams.yaml").write_text(text)
        reading = tables.read_lightning(tmp_path / "metrics.csv")
        assert reading.hyperparameters == {}
        assert "spread" in reading.notes[-1]


def test_names_that_utf8_cannot_hold_are_kept_readable(tmp_path: Path) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text('{"global_step": 1.0, "log_history": [{"step": 1.0, "a\\ud800": 2.0}]}', "utf-8-sig")
    reading = trainer_state.read([path])
    assert reading.points.series().names == ("a\ufffd",)
    assert reading.steps == 1
