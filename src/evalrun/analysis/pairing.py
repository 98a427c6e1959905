"""Which runs are compared with which, and which of their samples are the same."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.measures import RunSamples
from evalrun.canonical import canonical_json
from evalrun.errors import Problem, UserError
from evalrun.frozen import frozen
from evalrun.registry import nearest
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.parquet import read_columns
from evalrun.tracking.store import Store

Ints = NDArray[np.int64]


@frozen
class Chosen:
    """A sweep, or one run of it, that takes part in a comparison. Of its samples only `columns` are read,
    where these are named."""

    folder: SweepFolder
    run: str | None = None
    columns: tuple[str, ...] | None = None
    _loaded: list[RunSamples] = field(default_factory=list, init=False, repr=False, compare=False)

    def load(self) -> list[RunSamples]:
        """Its finished runs, read once. Raises UserError where there are none, or the named one is not among
        them."""
        if not self._loaded:
            self._loaded.extend(self._read())
        return [*self._loaded]

    def _read(self) -> list[RunSamples]:
        sweep = self.folder.manifest()
        ids = self.folder.run_ids()
        if self.run is not None:
            if self.run not in ids:
                near = nearest(self.run, ids)
                raise UserError(
                    f"the sweep {sweep.name} has no finished run '{self.run}'",
                    where=str(self.folder.path),
                    remedy=f"Did you mean '{near}'?" if near else f"There are: {', '.join(ids)}.",
                )
            ids = [self.run]
        if not ids:
            raise UserError(
                f"the sweep {sweep.name} has no finished run",
                where=str(self.folder.path),
                remedy="Run its suite again to finish it.",
            )
        return [RunSamples(self.folder, sweep, self.folder.run(id_), self.columns) for id_ in ids]


def choose(store: Store, name: str) -> Chosen:
    """What a person means by SWEEP, SWEEP/RUN or a RUN of the latest sweep; SWEEP is all that `Store.resolve`
    knows, also a path.

    Raises UserError that lists the candidates.
    """
    try:
        return Chosen(store.resolve(name))
    except UserError as error:
        failed = error
    from evalrun.tracking.targets import find_run_target

    try:
        target = find_run_target(store, name)
    except UserError as error:
        # A sweep that is ambiguous or not there is said first, unless the name has to do with runs.
        raise (error if "/" in name or "fits" in str(error) else failed) from None
    return Chosen(target.folder, target.run)


@frozen
class RunPair:
    """b is compared with a. `differs` names what makes the two runs different, besides the sweep."""

    a: RunSamples
    b: RunSamples
    differs: tuple[str, ...]


def match_runs(
    first: Sequence[RunSamples], second: Sequence[RunSamples]
) -> tuple[list[RunPair], list[RunSamples]]:
    """Pair the runs of two sweeps, and the runs that found no partner.

    First those alike in model, prompt, dataset and parameters; then, among the rest, those that are the only
    ones on both sides with the same model, prompt and dataset. Where nothing was found so: the only ones on
    the same data, or the only ones at all.
    """
    pairs: list[RunPair] = []
    left, right = list(first), list(second)
    for key in (_cell, _place, _data, _dataset, _any):
        if key not in (_cell, _place) and pairs:
            break  # what is left over then is more likely new than a partner
        mine, theirs = _grouped(left, key), _grouped(right, key)
        found = [
            RunPair(runs[0], theirs[each][0], _differences(runs[0], theirs[each][0]))
            for each, runs in mine.items()
            if len(runs) == 1 and len(theirs.get(each, ())) == 1
        ]
        pairs += found
        taken = {id(run) for pair in found for run in (pair.a, pair.b)}
        left = [run for run in left if id(run) not in taken]
        right = [run for run in right if id(run) not in taken]
    order = {id(run): at for at, run in enumerate(first)}
    pairs.sort(key=lambda pair: order[id(pair.a)])
    return pairs, [*left, *right]


def _grouped(
    runs: Sequence[RunSamples], key: Callable[[RunSamples], Hashable]
) -> dict[Hashable, list[RunSamples]]:
    found: dict[Hashable, list[RunSamples]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    return found


def _cell(run: RunSamples) -> Hashable:
    return (*_place_of(run), canonical_json(dict(run.run.params)))


def _place(run: RunSamples) -> Hashable:
    return _place_of(run)


def _place_of(run: RunSamples) -> tuple[str, str, str]:
    return run.run.model, run.run.prompt, run.run.dataset


def _data(run: RunSamples) -> Hashable:
    return run.digest or run.run.dataset


def _dataset(run: RunSamples) -> Hashable:
    return run.run.dataset


def _any(run: RunSamples) -> Hashable:
    return ()


def _differences(a: RunSamples, b: RunSamples) -> tuple[str, ...]:
    found = [
        f"{axis} {one} / {other}"
        for axis, one, other in (
            ("model", a.run.model, b.run.model),
            ("prompt", a.run.prompt, b.run.prompt),
            ("dataset", a.run.dataset, b.run.dataset),
        )
        if one != other
    ]
    if a.run.prompt == b.run.prompt and a.prompt_digest != b.prompt_digest:
        found.append(f"text of prompt {a.run.prompt}")
    for name in dict.fromkeys([*a.run.params, *b.run.params]):
        one, other = a.run.params.get(name), b.run.params.get(name)
        if one != other:
            found.append(f"{name} {_plain(one)} / {_plain(other)}")
    return tuple(found)


def _plain(value: Any) -> str:
    return "unset" if value is None else str(value)


def same_data(a: RunSamples, b: RunSamples) -> bool:
    """Whether both runs read the same dataset, by its digest; without digests nobody knows."""
    return a.digest is not None and a.digest == b.digest


def check_digests(pairs: Sequence[RunPair]) -> None:
    """Raise a UserError that says which datasets are not the same, once each, and of which pairs."""
    unlike: dict[str, list[str]] = {}
    for pair in pairs:
        if not same_data(pair.a, pair.b):
            one, other = pair.a.info.run, pair.b.info.run
            unlike.setdefault(_unlike(pair), []).append(one if one == other else f"{one} / {other}")
    if unlike:
        remedy = "Give --common (in Python common=True) to compare the samples that both have."
        raise UserError([Problem(what, _first_of(names), remedy) for what, names in unlike.items()])


def _first_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _unlike(pair: RunPair) -> str:
    digests = [run.digest for run in (pair.a, pair.b)]
    if None in digests:
        return "the datasets cannot be compared: a manifest has no digest"
    one, other = (str(digest)[:12] for digest in digests)
    return (
        f"the datasets '{pair.a.run.dataset}' and '{pair.b.run.dataset}' differ (digests {one} and {other})"
    )


@frozen
class Joined:
    """The samples of two runs that are the same: entry i of a's ids `in_a` is entry i of b's ids `in_b`.

    `only_a`, `only_b` count the ids that one run has and the other lacks; `changed` those that both have
    with other content.
    """

    ids: NDArray[Any]
    in_a: Ints
    in_b: Ints
    only_a: int
    only_b: int
    changed: int
    notes: tuple[str, ...]

    def clusters(self, pair: RunPair) -> Ints | None:
        """Cluster codes of the joined samples: those of a, or of b where a has none."""
        if pair.a.clusters is not None:
            return np.asarray(pair.a.clusters[self.in_a])
        return None if pair.b.clusters is None else np.asarray(pair.b.clusters[self.in_b])

    def weights(self, pair: RunPair) -> Any:
        """What the joined samples stand for: as a's dataset says, or b's; None where all count alike."""
        if pair.a.weights is not None:
            return pair.a.weights[self.in_a]
        return None if pair.b.weights is None else pair.b.weights[self.in_b]


def join(pair: RunPair) -> Joined:
    """Join two runs by sample id. Where their datasets differ, an id counts only if its content is the same:
    an id from a key column says nothing of the rest of the row."""
    a, b = pair.a.table, pair.b.table
    # By their hashes, as everywhere, and then in the order of the ids: texts are slow to sort and compare.
    _, in_a, in_b = np.intersect1d(a.keys, b.keys, assume_unique=True, return_indices=True)
    names = pair.a.ids[in_a].tolist()
    order = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
    ids, in_a, in_b = pair.a.ids[in_a[order]], in_a[order], in_b[order]
    only_a, only_b = a.distinct - len(ids), b.distinct - len(ids)
    notes, changed = [], 0
    if not same_data(pair.a, pair.b):
        same = _same_content(pair, ids)
        changed = int(len(ids) - same.sum())
        ids, in_a, in_b = ids[same], in_a[same], in_b[same]
        notes.append(
            f"{_unlike(pair)}: only the {len(ids)} samples that both have are compared, "
            f"of {a.distinct} and {b.distinct}"
        )
        if changed:
            notes.append(f"left out: {changed} samples with the same id and other content")
        if pair.a.prompt_digest != pair.b.prompt_digest:
            notes.append("the prompts differ, so only ids and targets show that samples are the same")
    elif only_a or only_b:
        notes.append(f"in one run only, left out: {only_a} of the first, {only_b} of the second")
    if len(ids) == 0:
        notes.append("no sample id is in both runs")
    return Joined(ids, in_a, in_b, only_a, only_b, changed, tuple(notes))


def _same_content(pair: RunPair, ids: NDArray[Any]) -> NDArray[np.bool_]:
    columns = ["target"]
    if pair.a.prompt_digest is not None and pair.a.prompt_digest == pair.b.prompt_digest:
        columns += ["messages", "prompt"]
    of_a, of_b = _contents(pair.a, columns), _contents(pair.b, columns)
    return np.array([of_a[id_] == of_b[id_] for id_ in ids], np.bool_)


def _contents(run: RunSamples, columns: Sequence[str]) -> dict[str, int]:
    """A hash of these columns for each sample id (its first repeat). A failed sample has them too."""
    path: Path = run.folder.samples_path(run.run.run)
    table = read_columns(path, ["sample_id", *columns])
    texts: list[list[Any]] = [table.column(name).to_pylist() for name in columns]
    content: dict[str, int] = {}
    hashed: Callable[[tuple[Any, ...]], int] = hash
    for at, sample_id in enumerate(table.column("sample_id").to_pylist()):
        content.setdefault(sample_id, hashed(tuple(column[at] for column in texts)))
    return content


def same_answers(pair: RunPair, joined: Joined) -> bool:
    """Whether both runs have the same samples with the very same outputs: taken from the cache, or given
    again by a model that never varies."""
    a, b = pair.a.table, pair.b.table
    if joined.only_a or joined.only_b or joined.changed or not np.array_equal(a.ids, b.ids):
        return False
    return _answers(pair.a) == _answers(pair.b)


def _answers(run: RunSamples) -> list[tuple[int, str | None]]:
    """The repeat and the output of each entry of the run's table."""
    columns = read_columns(run.folder.samples_path(run.run.run), ["repeat", "output"])
    rows = [*zip(*(columns.column(name).to_pylist() for name in ("repeat", "output")), strict=True)]
    return [rows[at] for at in run.table.order.tolist()]
