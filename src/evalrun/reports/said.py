"""What people said of a sweep, in lines for a terminal: name, tags, notes, labels, where its runs stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from evalrun.reports.numbers import plural
from evalrun.reports.visible import terminal
from evalrun.tracking.people import Note, Said
from evalrun.tracking.promotions import Placed

MOST_NOTES = 10


def said_lines(said: Said, suite_name: str, standing: Sequence[str]) -> Iterator[str]:
    """One line for each thing, none where nobody said any. `standing` are those of `standing_lines`."""
    if said.name is not None and said.name != suite_name:
        yield f"Called {terminal(said.name)}; the suite calls it {terminal(suite_name)}."
    if said.tags:
        yield "Tags: " + ", ".join(terminal(f"{key}={value}") for key, value in sorted(said.tags.items()))
    if said.archived:
        yield "Archived: `evalrun archive --undo` puts it back into the lists."
    yield from standing
    for each in said.labels:
        of = f" of {terminal(each.target)}" if each.target else ""
        yield f"Labels: {plural(each.n, 'label')} of {terminal(each.column)!r}{of}, by {terminal(each.actor)}"
    if len(said.notes) > MOST_NOTES:
        yield f"Notes: {len(said.notes)}, of which these are the last; `evalrun annotate` shows all."
    yield from map(_note, said.notes[-MOST_NOTES:])


def standing_lines(
    places: Sequence[Placed], now: Mapping[tuple[str, str, str], Placed], baselines: Sequence[str]
) -> list[str]:
    """Where the runs of one sweep stand or stood (`places`), given what stands now in the whole store."""
    lines = [f"Baseline: {terminal(name)}" for name in baselines]
    for each in places:
        stands = now.get((each.project, each.kind, each.name)) == each
        said = "Promoted" if each.kind == "promote" else "Deployed"
        why = terminal(each.reason or each.url, 200)
        tail = "" if stands else "; another stands there now"
        over = f"; overridden: {len(each.overridden)}" if each.overridden else ""
        what = f"{said}: {terminal(each.run)} as {terminal(each.name)}"
        who = f"{each.ts[:16]}, by {terminal(each.actor)}"
        lines.append(f"{what}, {who}{': ' + why if why else ''}{over}{tail}")
    return lines


def _note(note: Note) -> str:
    on = f" on {terminal(note.target)}" if note.target else ""
    return f"Note{on}, {note.ts[:16]}, {terminal(note.actor)}: {terminal(' '.join(note.text.split()), 400)}"
