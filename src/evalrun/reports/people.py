"""What people said of a sweep, as pages show it: tags, notes and comments, labels, figures of their own."""

from __future__ import annotations

from collections.abc import Sequence

from evalrun.frozen import frozen
from evalrun.reports import numbers
from evalrun.reports.numbers import plural
from evalrun.reports.view import grid_link, sample_path
from evalrun.reports.visible import visible
from evalrun.tracking.changes import said
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.people import Note


@frozen
class Remark:
    """A note: on what (empty: the whole sweep), where that leads on the page, and who wrote it when."""

    on: str
    link: str
    text: str
    who: str


@frozen
class PeopleView:
    """All that people said of one sweep. `figures` are rows of run, name and number."""

    called: str
    tags: Sequence[tuple[str, str]]
    remarks: Sequence[Remark]
    labels: Sequence[str]
    figures: Sequence[tuple[str, str, str]]

    @property
    def anything(self) -> bool:
        """Whether anybody said anything."""
        return bool(self.tags or self.remarks or self.labels or self.figures)


def people_view(folder: SweepFolder, called: str = "", *, links: bool = True) -> PeopleView:
    """What people said of a sweep until now. `links`: whether its samples are on the page."""
    told = said(folder)
    return PeopleView(
        called=called,
        tags=[(visible(key), visible(value)) for key, value in sorted(told.tags.items())],
        remarks=[_remark(note, links=links) for note in reversed(told.notes)],
        labels=[
            visible(
                f"{plural(label.n, 'label')} of '{label.column}'"
                f"{f' on {label.target}' if label.target else ''}, by {label.actor}, {label.ts[:16]}"
            )
            for label in told.labels
        ],
        figures=[
            (visible(run), visible(name), numbers.significant(value))
            for run, figures in sorted(told.figures.items())
            for name, value in sorted(figures.items())
        ],
    )


def _remark(note: Note, *, links: bool) -> Remark:
    run, _, sample = note.target.partition("/")
    link = ""
    if links and sample:
        link = f"#sample={sample_path(run, sample)}"
    elif links and run:
        link = grid_link(run=run)
    return Remark(visible(note.target), link, visible(note.text), visible(f"{note.actor}, {note.ts[:16]}"))
