"""What a person means by SWEEP, SWEEP/RUN or SWEEP/RUN/SAMPLE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.parts import files_of
from evalrun.tracking.samples import find_run
from evalrun.tracking.store import Store


@frozen
class Target:
    """A sweep, a run of it, or a sample of that. `run` and `sample` are empty where not meant."""

    folder: SweepFolder
    run: str = ""
    sample: str = ""

    @property
    def name(self) -> str:
        """RUN or RUN/SAMPLE as it stands in events; empty for the sweep."""
        return f"{self.run}/{self.sample}" if self.sample else self.run


def find_target(store: Store, text: str) -> Target:
    """The sweep, run or sample of that name; the parts may be abbreviated to any unique beginning.

    The shortest beginning that names a sweep is taken as one, since sample ids may hold slashes. Raises
    UserError that lists the candidates.
    """
    parts = text.split("/")
    failed: UserError | None = None
    for at in range(1, len(parts) + 1):
        try:
            folder = store.resolve("/".join(parts[:at]))
        except UserError as error:
            failed = failed or error
            continue
        return within(folder, parts[at:]) if len(parts) > at else Target(folder)
    raise failed or UserError(f"there is no sweep '{text}'")


def within(folder: SweepFolder, parts: Sequence[str]) -> Target:
    """A run of the sweep, or a sample of that, by the parts of RUN/SAMPLE.
    What a run is called may hold slashes, as sample ids may."""
    failed: UserError | None = None
    for at in range(1, len(parts) + 1):
        try:
            run, rest = find_run(folder, "/".join(parts[:at])), "/".join(parts[at:])
            return Target(folder, run, _find_sample(folder, run, rest) if rest else "")
        except UserError as error:
            failed = failed or error
    raise failed or UserError("there is no run")


def find_run_target(store: Store, text: str, sweep: str = "latest") -> Target:
    """A run by SWEEP/RUN, by SWEEP where it has only one, or by what it is called in the sweep named beside.

    Raises UserError that lists the candidates.
    """
    try:
        target = find_target(store, text)
    except UserError as error:
        try:
            folder = store.resolve(sweep)
            return Target(folder, find_run(folder, text))
        except UserError as other:
            # Whoever wrote SWEEP/RUN with a sweep that there is, or meant several runs, is told so.
            raise (other if "fits" in str(other) and "/" not in text else error) from None
    if target.run:
        return Target(target.folder, target.run)
    runs = target.folder.run_ids()
    if len(runs) != 1:
        named = ", ".join(f"{text}/{run}" for run in runs[:5]) or "none is finished yet"
        raise UserError(
            f"the sweep '{text}' has {len(runs)} finished runs", remedy=f"Name one as SWEEP/RUN: {named}."
        )
    return Target(target.folder, runs[0])


def _find_sample(folder: SweepFolder, run: str, name: str) -> str:
    """The id of the sample whose id is, or alone begins with, `name`."""
    from evalrun.tracking.samples import duck

    path = folder.samples_path(run)
    if not path.exists():
        raise UserError("the run has no samples", where=str(path))
    with duck(str(path)) as database:
        query = (
            "SELECT DISTINCT sample_id FROM read_parquet(?) WHERE starts_with(sample_id, ?) "
            "ORDER BY sample_id <> ?, sample_id LIMIT 4"
        )
        found: list[tuple[Any, ...]] = database.execute(
            query, [[str(file) for file in files_of(path)], name, name]
        ).fetchall()
    ids = [str(row[0]) for row in found]
    if ids and (len(ids) == 1 or ids[0] == name):
        return ids[0]
    if ids:
        raise UserError(f"'{name}' fits several samples: {', '.join(ids)}", where=run)
    raise UserError(
        f"the run has no sample '{name[:80]}'",
        where=run,
        remedy=f"See: evalrun samples {folder.ulid}/{run}",
    )
