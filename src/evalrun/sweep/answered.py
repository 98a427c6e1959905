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
    # Neither pq.read_table nor to_numpy: both import pandas, which costs half a second.
    with pq.ParquetFile(samples, read_dictionary=list(names)) as file:
        table = file.read(columns=[*names, "cached", "done_s"])
    fresh = ~_plain(table.column("cached"), np.bool_, 0)
    done = _plain(table.column("done_s"), np.float64, np.nan)
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

    from evalrun.analysis.columns import plain_values

    texts: dict[str, int] = {}
    parts = []
    for chunk in column.chunks:
        known = [texts.setdefault(each, len(texts)) for each in chunk.dictionary.to_pylist()]
        lookup = np.array([*known, -1], np.int64)
        parts.append(lookup[plain_values(chunk.indices, np.int64, -1)])
    return (np.concatenate(parts) if parts else np.zeros(0, np.int64)), list(texts)


def _plain(column: Any, kind: type[np.generic], missing: float) -> NDArray[Any]:
    """A column in chunks as numpy, with `missing` for null."""
    import numpy as np

    from evalrun.analysis.columns import plain_values

    parts = [plain_values(chunk, kind, missing) for chunk in column.chunks]
    return np.concatenate(parts) if parts else np.zeros(0, kind)
