"""A page of sections, each of charts, tables and sentences: what probes and experiments are shown on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from evalrun.atomic import replacing
from evalrun.reports import numbers, page
from evalrun.reports.view import Chart, Table

SCRIPTS = ("page.js", "download.js", "charts.js")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page under a title. `notes` stand below."""

    key: str
    title: str
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Sections:
    """A page: what it is of (`kind`), its title, sentences, and what is wrong, said first."""

    kind: str
    title: str
    said: Sequence[str]
    trouble: Sequence[str]
    sections: Sequence[Section]

    def html(self) -> str:
        """The page, which needs no network."""
        charts = [chart for section in self.sections for chart in section.charts]
        template = page.environment().get_template("sections.html.j2")
        return template.render(page=self, made=when(time.time()), **page.frame(SCRIPTS, charts))

    def write(self, out: Path) -> None:
        """Write it whole or not at all. Raises UserError where it cannot be written."""
        text = self.html()
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="replace")
            temporary.chmod(page.REPORT_MODE)


def when(seconds: float) -> str:
    """A moment (Unix seconds) as it is shown."""
    return numbers.moment(datetime.fromtimestamp(seconds, UTC).isoformat())
