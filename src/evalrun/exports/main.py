"""The room's door: a sweep in one of the formats that others read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalrun.atomic import disk_errors, replacing
from evalrun.errors import UserError
from evalrun.registry import import_attribute
from evalrun.reports.source import Source
from evalrun.secrets import scrub
from evalrun.tracking.folder import SweepFolder

KINDS: Mapping[str, str] = {
    "csv": "evalrun.exports.tables:as_csv",
    "json": "evalrun.exports.tables:as_json",
    "parquet": "evalrun.exports.tables:as_parquet",
    "latex": "evalrun.exports.tables:as_latex",
    "markdown": "evalrun.exports.tables:as_markdown",
    "eee": "evalrun.exports.eee:as_eee",
    "hf": "evalrun.exports.standards:as_hugging_face",
    "inspect": "evalrun.exports.inspect:as_inspect",
    "openlineage": "evalrun.exports.standards:as_openlineage",
    "croissant": "evalrun.exports.standards:as_croissant",
}
"""Kind to the function that writes it."""


@dataclass
class Export:
    """A sweep to be written to `out` (a file or a folder, as the kind has it; None: standard output).

    `samples` asks for the samples and not only for figures, `scale` is what 1.0 is on the benchmark's own
    scale, `organization` who evaluated. What is written, and what has no place there, is noted here.
    """

    folder: SweepFolder
    source: Source
    out: Path | None
    samples: bool = False
    scale: float | None = None
    organization: str = ""
    text: str = ""
    files: list[Path] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)

    def leave_out(self, what: str, why: str) -> None:
        """Say once that something has no place in the format."""
        if {"what": what, "why": why} not in self.left_out:
            self.left_out.append({"what": what, "why": why})

    def place(self, kind: str) -> Path:
        """The folder or file to write to. Raises UserError where none is given."""
        if self.out is None:
            raise UserError(f"--as {kind} is written to files", remedy="Say where: --out PATH.")
        return self.out

    def write(self, text: str, path: Path | None = None) -> None:
        """Write a text whole or not at all, to `path`, else to `out`, else for standard output."""
        path = path or self.out
        text = scrub(text)
        if path is None:
            self.text += text
            return
        with disk_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8", errors="replace")
        self.files.append(path)


def export(folder: SweepFolder, kind: str, out: Path | None, **options: Any) -> Export:
    """Write a sweep as `kind`. Raises UserError where it has no results or the kind cannot hold it."""
    source = Source.of(folder)
    if not source.runs:
        raise UserError("the sweep has no finished run", where=str(folder.path))
    done = Export(folder, source, out, **options)
    write: Callable[[Export], None] = import_attribute(KINDS[kind])
    write(done)
    return done
