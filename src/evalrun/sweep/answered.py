"""Who answered: the model and build that a server named in its responses, and whether they changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SHOWN = 5


def answered_by(samples: Path) -> tuple[dict[str, Any], list[str]]:
    """What the responses of a run said of model and `system_fingerprint`, as JSON, and warnings.

    `models` and `fingerprints` hold how many samples each answered, in the order of its first answer;
    `changes` how often the next answer to arrive came from another one than the last. Answers from the cache
    are left out: they were given another day. Both are empty where the server says nothing.
    """
    import numpy as np
    import pyarrow.parquet as pq

    names = ("model", "fingerprint")
    table = pq.read_table(samples, columns=[*names, "cached", "done_s"], read_dictionary=list(names))
    fresh = ~table.column("cached").to_numpy().astype(bool)
    done = table.column("done_s").to_numpy().astype(float)
    order = np.argsort(np.where(np.isnan(done), np.inf, done), kind="stable")
    found: dict[str, Any] = {}
    warnings = []
    for name in names:
        codes, texts = _codes(table.column(name))
        codes = codes[order][fresh[order]]
        codes = codes[codes >= 0]
        first: dict[int, None] = (
            dict.fromkeys(codes.tolist()) if len(texts) > 1 else dict.fromkeys(codes[:1].tolist())
        )
        counts = {texts[code]: int(np.count_nonzero(codes == code)) for code in first}
        changes = int(np.count_nonzero(np.diff(codes))) if len(codes) else 0
        found[f"{name}s"] = counts
        found[f"{name}_changes"] = changes
        if changes:
            what = "model" if name == "model" else "system_fingerprint"
            shown = [f"{text} ({count:,} samples)" for text, count in list(counts.items())[:_SHOWN]]
            more = f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else ""
            warnings.append(
                f"the server's {what} changed during the run, {changes:,} time{'s' if changes > 1 else ''}: "
                f"{', '.join(shown)}{more}; the answers are not those of one model"
            )
    return found, warnings


def _codes(column: Any) -> tuple[NDArray[np.int64], list[str]]:
    """A column of dictionaries as codes over one list of texts; -1 where there is none."""
    import numpy as np

    texts: dict[str, int] = {}
    parts = []
    for chunk in column.chunks:
        known = [texts.setdefault(each, len(texts)) for each in chunk.dictionary.to_pylist()]
        indices = chunk.indices.to_numpy(zero_copy_only=False)
        missing = np.isnan(indices) if indices.dtype.kind == "f" else np.zeros(len(indices), bool)
        lookup = np.array([*known, -1], np.int64)
        parts.append(lookup[np.where(missing, -1, indices).astype(np.int64)])
    return (np.concatenate(parts) if parts else np.zeros(0, np.int64)), list(texts)
