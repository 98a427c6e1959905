"""Maps of attention made small: what a page shows of them, and where the whole of them is kept."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.canonical import digest
from evalrun.errors import UserError
from evalrun.explanations import MAPS, Attention, Lens, Place

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Maps = NDArray[np.uint8]

ANSWER_BYTES, MEANS_BYTES = 900, 900
"""What a page may hold, before base64, of the answer's rows and of the whole maps."""
MOST_MADE = 3
_STEPS = 15
_FINE = 0.03
_CUTS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 0.8)


def shown(told: Mapping[str, Any], places: tuple[Place | None, ...], key: str) -> tuple[Attention, Maps]:
    """What a page shows of the maps that a model told, and the maps themselves."""
    import numpy as np

    layers, heads, size = (int(told[name]) for name in ("layers", "heads", "tokens"))
    raw = zlib.decompress(base64.b64decode(told["values"]))
    maps = np.frombuffer(raw, np.uint8).reshape(layers, heads, size, size)
    first = int(told["start"]) - 1
    made, answer, least = 1, "", 1.0
    for count in range(min(MOST_MADE, size - 1 - first), 0, -1):
        coded, cut = _small(maps[:, :, first : first + count] / 255, ANSWER_BYTES)
        if not answer or cut < least:  # more rows only where they cost nothing of the first
            made, answer, least = count, coded, cut
    span, means, cut = _means(maps)
    note = (
        f"{told['first']:.0%} of the attention of the prompt's last position goes to the first token "
        "(mean over all heads). Attention says where heads look, not what the answer depends on."
    )
    if max(least, cut):
        note += f" Shares below {least:.0%} (single heads) and {cut:.0%} (means) are not drawn."
    if span > 1:
        note += f" Whole maps are means over {span} layers each, to keep the page small."
    if told["cut"]:
        note += f" Only the last {size} tokens are shown."
    lens = tuple(Lens(str(token), float(value), float(own)) for token, value, own in told["lens"])
    found = Attention(
        layers, heads, size, made, first + 1, answer, means, span, (least, cut), places, float(told["first"]),
        lens, key, note,
    )  # fmt: skip
    return found, maps


def _means(maps: Maps) -> tuple[int, str, float]:
    """Whole maps, the mean of all heads of a few layers each: of as few as leaves most shares in. The number
    of layers, the maps, and the limit below which shares are left out."""
    import numpy as np

    layers = maps.mean(axis=1) / 255
    for span in (1, 2, 3, 5, 10, len(layers)):
        together = np.stack([layers[at : at + span].mean(axis=0) for at in range(0, len(layers), span)])
        coded, cut = _small(together, MEANS_BYTES)
        if cut <= _FINE:
            break
    return span, coded, cut


def _small(shares: Any, most: int) -> tuple[str, float]:
    """Shares as base64 of zlib of 16 steps, and the limit below which they are left out: the lowest by which
    that is small."""
    import numpy as np

    steps = np.rint(np.sqrt(shares) * _STEPS).astype(np.uint8)
    for least in _CUTS:
        kept = zlib.compress(np.where(shares < least, 0, steps).astype(np.uint8).tobytes(), 9)
        if len(kept) <= most:
            break
    return base64.b64encode(kept).decode(), least


def key_of(sample: str, repeat: int, target: str) -> str:
    """The name of a sample's maps in their file."""
    return digest([sample, repeat, target])[:16]


def keep_maps(folder: Path, maps: Mapping[str, Maps]) -> None:
    """Write maps beside those of other samples."""
    import numpy as np

    from evalrun.atomic import replacing

    path = folder / MAPS
    every = {**_kept(path), **maps}
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **every)  # type: ignore[arg-type]
        temporary.chmod(0o600)


def read_maps(folder: Path, key: str) -> NDArray[np.float32]:
    """The maps of a sample as shares: float32, layers by heads by tokens by tokens. Raises UserError."""
    import numpy as np

    found = _kept(folder / MAPS)
    if key not in found:
        what = "no maps of attention are kept of the sample"
        raise UserError(what, where=str(folder), remedy="`evalrun explain … --attention` keeps them.")
    return np.asarray(found[key] / np.float32(255), dtype=np.float32)


def _kept(path: Path) -> dict[str, Maps]:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        return {}
    except (ValueError, OSError, EOFError) as error:
        raise UserError("is no file of maps", where=str(path), remedy="Explain the run again.") from error
