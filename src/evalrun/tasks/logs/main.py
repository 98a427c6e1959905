"""Results of other tools: what was asked, answered and scored, sample by sample, as their files have it."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from pathlib import Path

from evalrun.errors import UserError
from evalrun.tasks.logs.inspect import read_inspect
from evalrun.tasks.logs.lm_eval import read_lm_eval
from evalrun.tasks.logs.model import ImportedResults
from evalrun.tasks.logs.openai import read_openai
from evalrun.tasks.logs.promptfoo import read_promptfoo

_UNREADABLE = (
    LookupError, ValueError, TypeError, AttributeError, StopIteration, OSError, EOFError, OverflowError,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error,
    RuntimeError,  # an archive with a password, values nested too deeply
)  # fmt: skip


def read_results(kind: str, path: Path) -> ImportedResults:
    """Results of a tool. Raises UserError for files that are not of the kind."""
    readers = {
        "lm-eval": read_lm_eval,
        "inspect": read_inspect,
        "promptfoo-results": read_promptfoo,
        "openai-evals": read_openai,
    }
    try:
        results = readers[kind](path)
    except _UNREADABLE as error:
        raise UserError(
            f"{path} cannot be read as results of {kind}: {type(error).__name__}: {error}", where=str(path)
        ) from error
    if not any(run.samples for run in results.runs):
        raise UserError(f"{path} holds no samples of {kind}", where=str(path))
    return results
