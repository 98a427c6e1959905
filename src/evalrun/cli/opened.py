"""The store that a command works on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evalrun.tracking.store import Store


def open_store(store: Path | None) -> Store:
    """The store that `--store` names, else `$EVALRUN_STORE`, else `.evalrun`."""
    from evalrun.paths import default_store
    from evalrun.tracking.store import Store

    return Store(store or default_store())
