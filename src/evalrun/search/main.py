"""`evalrun search SUITE`: the race, then winner against baseline on rows that nothing was chosen by."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from evalrun.atomic import replacing
from evalrun.documents import read
from evalrun.errors import ExitCode, UserError
from evalrun.search.leaks import check_prompts
from evalrun.search.race import AskedRace
from evalrun.search.space import Space, check_held_out, space_of
from evalrun.search_results import SearchResults
from evalrun.suite.load import load_suite
from evalrun.sweep.endpoints import run_jobs
from evalrun.sweep.main import Outcome, run_sweep
from evalrun.sweep.matrix_job import MatrixJob
from evalrun.sweep.options import SweepOptions
from evalrun.sweep.phase import Conduct, Phase
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.analysis.run import RunAnalysis
    from evalrun.gates.conditions import GateResult
    from evalrun.reports.progress import Progress
    from evalrun.suite.plan import RunSpec

LEDGER = "hold_out.json"
"""In the store: which searches looked at which rows held out."""
_LOOKED_BACK = 20
_LONGEST_PATH = 1000


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """How a search ended. `last` is the sweep of the rows held out, or, where there is none, the race."""

    last: Outcome
    results: SearchResults | None
    space: Space

    @property
    def exit_code(self) -> ExitCode:
        """That of the sweep that ended last."""
        return self.last.exit_code


class _Whole:
    """Asks runs whole, and says in the manifest what the search came to."""

    def __init__(self, results: SearchResults) -> None:
        self._results = results

    async def ask(self, phase: Phase, jobs: Sequence[MatrixJob]) -> None:
        await run_jobs(phase, [job for job in jobs if not job.folder.is_finished(job.name)])

    def enter(self, spec: RunSpec, analysis: RunAnalysis) -> RunAnalysis:
        return analysis

    def gates(self, results: Sequence[GateResult]) -> list[GateResult]:
        return list(results)

    def document(self) -> Mapping[str, Any]:
        return {"previous": None, "search": asdict(self._results)}


def search(
    suite: Path, options: SweepOptions, display: Progress, *, fresh_split: bool = False
) -> SearchOutcome:
    """Search as the suite says. The same command again goes on where it was stopped.

    With `fresh_split`, rows are held out that no search of this data has looked at. Raises UserError before
    anything is sent where the search cannot be made.
    """
    space = space_of(load_suite(suite, options.overrides))
    conduct = way_of(space)  # what is missing for it is said before anything else
    ledger = _Ledger(options.store / LEDGER, space.data_digest)
    split = space.suite.seed + (ledger.next_split(space.suite.seed) if fresh_split else 0)
    held_out = check_held_out(space, split)
    check_prompts(space, split)
    ledger.check()
    folder = _raced_before(Store(options.store), space, split)
    if folder is not None:
        display.message(f"The race {folder.ulid} is over already: winner and baseline are asked now.")
        outcome = Outcome(folder, folder.read_manifest(), folder.runs(), None, ExitCode.OK)
    else:
        # Its report is made where it is the last word.
        alone = replace(options, write_report=options.write_report and not space.spec.hold_out)
        outcome = run_sweep(space.searched(split), alone, display, conduct)
    if outcome.manifest["status"] != "complete" or not outcome.manifest.get("search"):
        return SearchOutcome(outcome, None, space)
    results = replace(read(SearchResults, outcome.manifest["search"]), sweep=outcome.folder.ulid)
    if results.winner is not None and results.winner in results.made:
        space = space.with_made(results.winner, results.made[results.winner])
    winner = next((each for each in space.candidates if each.run_id == results.winner), None)
    if winner is None or not space.spec.hold_out:
        return SearchOutcome(outcome, results, space)
    results = replace(results, looks=ledger.look(split, outcome.folder.ulid), held_out=held_out)
    display.message(_looked(results.looks))
    last = run_sweep(space.held_out(split, winner), options, display, _Whole(results))
    return SearchOutcome(last, results, space)


def way_of(space: Space) -> Conduct:
    """How candidates are found and asked."""
    if space.spec.by == "tpe":
        from evalrun.search.trials import AskedTrials

        return AskedTrials(space)
    if space.spec.by == "gepa":
        from evalrun.search.proposals import AskedProposals

        return AskedProposals(space)
    return AskedRace(space)


def _raced_before(store: Store, space: Space, split: int) -> SweepFolder | None:
    """The newest sweep of the very same race, if it is over and its winner was not looked at yet."""
    resolved = space.searched(split).suite.resolved()
    for row in store.list(_LOOKED_BACK, f"{space.suite.project}-search"):
        folder = store.resolve(row.sweep)
        manifest = folder.read_manifest()
        found = manifest.get("search") or {}
        if manifest.get("status") != "complete" or found.get("data") != space.data_digest:
            continue
        if found.get("sweep"):  # winner and baseline of a race, asked about all rows held out
            return None
        if manifest["suite"]["resolved"] == resolved:
            return folder if space.spec.hold_out else None
    return None


def write_best(outcome: SearchOutcome, out: Path) -> None:
    """Write the winner as a suite of its own, prompts and parameters written out. Files that it names are
    read where they lie, wherever it is written to."""
    import yaml

    results, space = outcome.results, outcome.space
    winner = next(each for each in space.candidates if results is not None and each.run_id == results.winner)
    suite = space.winners(winner)
    document = suite.model_dump(mode="json", exclude_defaults=True, exclude={"models", "parse", "scorers"})
    resolved = suite.resolved()
    document["models"] = _said(resolved["models"])
    document |= {name: _components(resolved[name]) for name in ("parse", "scorers") if resolved[name]}
    base_dir = space.loaded.base_dir
    for prompt in document["prompts"]:
        prompt |= {"parse": _components(prompt["parse"])} if "parse" in prompt else {}
        if "file" in prompt and not _INCLUDES.search(
            text := (base_dir / prompt["file"]).read_text(encoding="utf-8")
        ):
            prompt |= {"text": text}
            del prompt["file"]
    document = {name: document[name] for name in type(suite).model_fields if name in document}
    if out.resolve().parent != base_dir:
        document = _moved(document, base_dir, out.resolve().parent)
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")


_INCLUDES = re.compile(r"{%-?\s*(include|import|from|extends)\b")
_SAID = ("text", "system", "content", "rows", "description")
"""Keys of what is said, and names no file."""


def _moved(value: Any, base_dir: Path, folder: Path) -> Any:
    """With the names of files beside one folder as seen from another."""
    if isinstance(value, Mapping):
        return {key: each if key in _SAID else _moved(each, base_dir, folder) for key, each in value.items()}
    if isinstance(value, list):
        return [_moved(each, base_dir, folder) for each in value]
    if isinstance(value, str) and "." in value and len(value) < _LONGEST_PATH and "\n" not in value:
        there = base_dir / value
        if not Path(value).is_absolute() and there.exists():
            return Path(os.path.relpath(there, folder)).as_posix()
    return value


def _components(entries: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Parsers or scorers, those without options by their names."""
    said = [_said(entry) for entry in entries]
    return [found or next(iter(entry)) for found, entry in zip(said, entries, strict=True)]


def _said(value: Any) -> Any:
    """Without what is not set, for people to read."""
    if isinstance(value, Mapping):
        kept = {name: _said(each) for name, each in value.items()}
        return {name: each for name, each in kept.items() if each is not None and each not in ({}, [])}
    return [_said(each) for each in value] if isinstance(value, list) else value


def _looked(looks: int) -> str:
    if looks == 1:
        return "The rows held out are looked at for the first time."
    return (
        f"The rows held out are looked at for time {looks}: each look is at 5 % of its own, and choosing "
        "between looks makes the best of them too high. --fresh-split holds out others."
    )


class _Ledger:
    """Which searches looked at which rows held out of a dataset."""

    def __init__(self, path: Path, data: str) -> None:
        self._path, self._data = path, data

    def check(self) -> None:
        """Raise UserError where it cannot be read, before anything is sent."""
        self._read()

    def look(self, split: int, sweep: str) -> int:
        """Note a look; how many there were of these rows, this one included."""
        every = self._read()
        looks = every.setdefault(f"{self._data}/{split}", [])
        if all(each["sweep"] != sweep for each in looks):
            looks.append({"sweep": sweep, "at": datetime.now(UTC).isoformat(timespec="seconds")})
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as temporary:
                temporary.write_bytes(orjson.dumps(every, option=orjson.OPT_INDENT_2))
        return len(looks)

    def next_split(self, seed: int) -> int:
        """The first number that, added to the seed, draws rows that nobody has looked at."""
        looked = self._read()
        return next(k for k in range(len(looked) + 1) if f"{self._data}/{seed + k}" not in looked)

    def _read(self) -> dict[str, list[dict[str, str]]]:
        try:
            found = orjson.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError:
            found = None
        if not isinstance(found, dict) or not all(isinstance(looks, list) for looks in found.values()):
            raise UserError(
                "it is damaged, so it is not known how often the rows held out were looked at",
                where=str(self._path),
                remedy="Bring back a copy, or move it away: the count then begins anew.",
            )
        return found
