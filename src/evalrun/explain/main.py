"""The room's door: explain samples of a finished run, and keep what came of it beside them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalrun.errors import UserError
from evalrun.explain.asking import Asker, check_inside
from evalrun.explain.kept import keep
from evalrun.explain.options import Options
from evalrun.explain.sample import Sample
from evalrun.explain.subject import Marker, choose_target, open_run
from evalrun.explanations import Explained, Explanation
from evalrun.tracking.events import utc_now
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.samples import find_samples


def explain_run(
    folder: SweepFolder,
    run_id: str,
    options: Options,
    *,
    wanted: Sequence[str] = (),
    where: str = "",
    count: int = 5,
    seconds: float | None = None,
    store: Path,
    use_cache: bool = True,
    say: Any = None,
) -> Explained:
    """Explain samples of a finished run with the model that answered it, and keep that in the run's folder.

    `wanted` are the ids of some; else the first `count` for which the condition `where` holds, those with the
    lowest score first where there is no condition. After `seconds` no further sample is begun.

    Raises UserError: exit 2 for what is known before anything is computed (unknown names, no such sample, a
    model without likelihoods, one that is not the sweep's, a prompt of which nothing would be left), exit 3
    where the model cannot be asked.
    """
    from evalrun.providers.base import ProviderContext
    from evalrun.runner.cache import ResponseCache, likelihood_params

    options = options.check()
    run = open_run(folder, run_id)
    rows = _rows(folder, run_id, wanted, where, count)
    targets = [choose_target(run, row, options.target) for row in rows]
    context = ProviderContext(run.base_dir, store / "engines", run.suite.deterministic, run.suite.seed)
    cache = ResponseCache(store / "cache" / "responses.db") if use_cache else None
    asker = Asker.of(run.model, context, likelihood_params(run.params), cache)
    check_inside(asker.provider, options.method, options.attention)
    marker = Marker(run)
    began = time.monotonic()
    made: list[Explanation] = []
    with asker:
        asker.check_same(folder.identity(run.model.id), f"{folder.path.name}/{run_id}")
        prepared = [Sample.of(run, row, asker, marker, options) for row in rows]
        for at, (one, (asked, others)) in enumerate(zip(prepared, targets, strict=True)):
            if made and seconds is not None and time.monotonic() - began > seconds:
                break
            if say is not None:
                say(f"sample {rows[at]['sample_id']} ({at + 1} of {len(rows)})")
            made.append(one.explained(asked, others, inside=at < options.attention))
        identity = asker.provider.identity()
    explained = Explained(run_id, run.model.id, identity, tuple(made), utc_now())
    return keep(folder, explained, {key: maps for one in prepared for key, maps in one.maps.items()})


def _rows(
    folder: SweepFolder, run_id: str, wanted: Sequence[str], where: str, count: int
) -> list[dict[str, Any]]:
    path = folder.samples_path(run_id)
    if not path.exists():
        raise UserError("the run has no samples yet", where=f"{folder.path.name}/{run_id}")
    if wanted:
        found = [find_samples(path, f"sample_id == {sample!r}", limit=1).rows for sample in wanted]
        for sample, rows_of in zip(wanted, found, strict=True):
            if not rows_of:
                raise UserError(
                    f"there is no sample '{sample}' in the run",
                    where=f"{folder.path.name}/{run_id}",
                    remedy="`evalrun samples RUN` lists the ids of its samples.",
                )
        return [row for rows_of in found for row in rows_of]
    if where:
        rows = list(find_samples(path, where, limit=count).rows)
    else:
        columns = find_samples(path, limit=1).rows
        scores = [name for name in (columns[0] if columns else ()) if name.startswith("score.")]
        rows = list(find_samples(path, "status != 'failed'", sort=scores[:1], limit=count).rows)
    if not rows:
        raise UserError("no sample is as asked for", where=f"{folder.path.name}/{run_id}")
    return rows
