"""W&B's offline file, written here byte by byte as its client does: what is read, and what is torn."""

import json
import math
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.errors import UserError
from evalrun.training.importing import ImportOptions, read_training
from evalrun.training.readers import wandb_file

HEAD = b":W&B\xe1\xbe\x00"


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def items(values: dict[str, Any]) -> bytes:
    """Keys with a slash as W&B writes them, as one nested key; the others plainly."""
    return b"".join(
        field(1, field(2 if "/" in key else 1, key.encode()) + field(16, json.dumps(value).encode()))
        for key, value in values.items()
    )


def history(step: int, values: dict[str, Any]) -> bytes:
    return field(1, step + 1) + field(2, items(values) + field(2, field(1, step)))


def log(records: list[bytes]) -> bytes:
    """As LevelDB writes a log: blocks of 32 KiB, records that go over several in parts."""
    out = bytearray(HEAD)
    for record in records:
        first = True
        while first or record:
            if (left := 32_768 - len(out) % 32_768) < 7:
                out += bytes(left)
                continue
            part, record = record[: left - 7], record[left - 7 :]
            kind = bytes([(1 if not record else 2) if first else (4 if not record else 3)])
            out += (
                zlib.crc32(kind + part).to_bytes(4, "little") + len(part).to_bytes(2, "little") + kind + part
            )
            first = False
    return bytes(out)


RUN = field(17, field(1, b"abc") + field(8, b"lora") + field(4, items({"lr": 0.01, "_wandb": {"x": 1}})))


def test_every_row_is_read_at_the_trainers_steps(tmp_path: Path) -> None:
    rows = [{"train/loss": 1 / n, "train/global_step": 10 * n, "note": "x" * 5_000} for n in range(1, 40)]
    rows[-1]["train/loss"] = math.nan
    folder = tmp_path / "wandb" / "offline-run-20261130-abc"
    folder.mkdir(parents=True)
    (folder / "run-abc.wandb").write_bytes(log([RUN, *(history(n, row) for n, row in enumerate(rows))]))
    reading = read_training(ImportOptions(str(tmp_path)))
    assert (reading.name, reading.framework, reading.steps) == ("lora", "wandb", 390)
    assert reading.hyperparameters == {"lr": 0.01}
    series = reading.points.columns()
    assert series[:, 1].tolist() == [10 * n for n in range(1, 40)]
    assert series[:-1, 2].tolist() == [1 / n for n in range(1, 39)] and math.isnan(series[-1, 2])
    assert reading.notes == ["steps are those of 'train/global_step'"]


def test_a_file_cut_anywhere_has_all_before_it(tmp_path: Path) -> None:
    whole = log([RUN, *(history(n, {"loss": 1.0 / (n + 1), "_timestamp": 5.0}) for n in range(4))])
    path = tmp_path / "run.wandb"
    seen = set()
    for end in range(len(HEAD), len(whole)):
        path.write_bytes(whole[:end])
        reading = wandb_file.read(path)
        seen.add(len(reading.points))
    assert seen == {0, 1, 2, 3}


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("hostile") / "run.wandb"
    path.write_bytes(log([data, field(2, data), field(17, data)]))
    wandb_file.read(path)
    path.write_bytes(HEAD + data)
    wandb_file.read(path)
    path.write_bytes(b"X" + data)
    with pytest.raises(UserError):
        wandb_file.read(path)
