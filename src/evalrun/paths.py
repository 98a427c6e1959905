"""Where things that may be made again are kept: weights, digests, bundles."""

from __future__ import annotations

import os
from pathlib import Path

from evalrun.errors import ExitCode, UserError

CACHE_VARIABLE = "EVALRUN_CACHE"


def cache_dir() -> Path:
    """The cache folder, made (0700) when it is not there.

    `EVALRUN_CACHE` names it, else it is `evalrun` in the user's cache folder of the platform.
    Raises UserError (exit 3) when it cannot be made.
    """
    configured = os.environ.get(CACHE_VARIABLE)
    if configured:
        return _made(Path(configured).expanduser().absolute())
    import platformdirs

    return _made(Path(platformdirs.user_cache_dir("evalrun", appauthor=False)))


def models_dir() -> Path:
    """The folder of downloaded weights, made (0700) when it is not there."""
    return _made(cache_dir() / "models")


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the cache folder cannot be made: {error.strerror or error}",
            where=str(folder),
            remedy=f"Set {CACHE_VARIABLE} to a folder that can be written.",
            exit_code=ExitCode.INCOMPLETE,
        ) from error
    return folder


def default_store() -> Path:
    """Where sweeps are kept: `EVALRUN_STORE`, else `.evalrun/` in the current folder."""
    return Path(os.environ.get("EVALRUN_STORE") or ".evalrun")
