"""What a GGUF file says of its model; torn and hostile ones end in one message."""

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.errors import UserError
from evalrun.training.architecture import architecture_of
from evalrun.training.gguf import read_gguf


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def make() -> bytes:
    """A model of one layer, with a list of words and one of numbers."""
    entries = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("llama.block_count") + struct.pack("<II", 4, 1),
        text("llama.attention.head_count") + struct.pack("<II", 4, 2),
        text("llama.rope.freq_base") + struct.pack("<If", 6, 10000.0),
        text("tokenizer.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("bc"),
        text("tokenizer.types") + struct.pack("<IIQ", 9, 5, 3) + struct.pack("<3i", 1, 2, 3),
    ]
    tensors = [
        text("token_embd.weight") + struct.pack("<IQQIQ", 2, 4, 8, 1, 0),
        text("blk.0.attn_q.weight") + struct.pack("<IQQIQ", 2, 4, 4, 2, 64),
        text("blk.0.ffn_up.weight") + struct.pack("<IQQIQ", 2, 4, 6, 2, 96),
        text("output_norm.weight") + struct.pack("<IQIQ", 1, 4, 0, 128),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries))
    return head + b"".join(entries) + b"".join(tensors) + bytes(200)


def test_the_card_of_a_gguf_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(make())
    metadata, tensors = read_gguf(path)
    assert (metadata["tokenizer.tokens"], metadata["tokenizer.types"], len(tensors)) == (2, 3, 4)
    card = architecture_of(path)
    assert (card["model_type"], card["layers"], card["heads"], card["rope_theta"]) == ("llama", 1, 2, 10000.0)
    assert card["parts"] == {"embedding": 32, "attention": 16, "mlp": 24, "norm": 4}
    assert card["weights_dtype"] == {"F16": 32, "Q4_0": 40, "F32": 4}


def test_a_file_cut_anywhere_in_its_header_is_an_error(tmp_path: Path) -> None:
    path, whole = tmp_path / "tiny.gguf", make()
    for cut in range(len(whole) - 200):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match="no whole GGUF file"):
            read_gguf(path)


@settings(max_examples=200)
@given(st.integers(4, 300), st.binary(min_size=1, max_size=8))
def test_no_bytes_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, at: int, data: bytes) -> None:
    whole = bytearray(make())
    whole[at : at + len(data)] = data
    path = tmp_path_factory.getbasetemp() / "hostile.gguf"
    path.write_bytes(whole)
    try:
        architecture_of(path)
    except UserError:
        return
