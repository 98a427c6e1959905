"""Maps of attention that are made small."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import numpy as np
import pytest

from evalrun.errors import UserError
from evalrun.explain.attention import ANSWER_BYTES, MEANS_BYTES, keep_maps, read_maps, shown


def told(maps: np.ndarray, start: int) -> dict[str, object]:
    layers, heads, size, _ = maps.shape
    values = base64.b64encode(zlib.compress(maps.tobytes())).decode()
    return {
        "layers": layers, "heads": heads, "tokens": size, "values": values, "start": start, "first": 0.5,
        "cut": False, "lens": [["a", -1.0, -2.0]],
    }  # fmt: skip


def random_maps(layers: int, heads: int, size: int) -> np.ndarray:
    """Rows that add up to 1, each over what stands before it."""
    rng = np.random.default_rng(0)
    shares = np.tril(rng.gamma(0.1, size=(layers, heads, size, size)) + 1e-9)
    return np.rint(shares / shares.sum(-1, keepdims=True) * 255).astype(np.uint8)


def decoded(text: str, *shape: int) -> np.ndarray:
    steps = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(shape)
    return (steps / 15) ** 2


def test_small_maps_keep_every_share_to_a_step() -> None:
    maps = random_maps(2, 3, 8)
    found, whole = shown(told(maps, 5), (None,) * 8, "key")
    assert (whole == maps).all() and (found.made, found.answer_from, found.least) == (3, 5, (0.0, 0.0))
    rows = decoded(found.answer, 2, 3, 3, 8)
    assert np.abs(rows - maps[:, :, 4:7] / 255).max() <= 1 / 15  # half a step of a square root, at most
    assert found.span == 1
    means = decoded(found.means, 2, 8, 8)
    assert np.abs(means - maps.mean(axis=1) / 255).max() <= 1 / 15


def test_whatever_the_maps_a_page_holds_little() -> None:
    maps = random_maps(30, 9, 128)
    found, _ = shown(told(maps, 120), (None,) * 128, "key")
    assert len(found.answer) < ANSWER_BYTES * 4 / 3 + 4 and len(found.means) < MEANS_BYTES * 4 / 3 + 4
    rows = decoded(found.answer, 30, 9, found.made, 128)
    assert decoded(found.means, -1, 128, 128).shape[0] == -(-30 // found.span) < 30
    kept = maps[:, :, 119 : 119 + found.made] / 255 >= found.least[0]
    assert 0 < found.least[0] < 1 and (rows[~kept] == 0).all() and (rows[kept] > 0).all()
    assert f"Shares below {found.least[0]:.0%}" in found.note


def test_whole_maps_are_kept_beside_one_another(tmp_path: Path) -> None:
    first, second = random_maps(1, 2, 4), random_maps(2, 2, 3)
    keep_maps(tmp_path, {"a": first})
    keep_maps(tmp_path, {"b": second})
    assert read_maps(tmp_path, "a") == pytest.approx(first / 255)
    assert read_maps(tmp_path, "b").shape == (2, 2, 3, 3)
    with pytest.raises(UserError, match="no maps of attention"):
        read_maps(tmp_path, "c")
