"""From a suite with a `search` section to the two suites that are run: the race over the rows that choose,
and winner against baseline over those held out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, cast

from evalrun.canonical import canonical_json
from evalrun.datasets import Item, open_dataset
from evalrun.errors import UserError
from evalrun.gates.conditions import Gate
from evalrun.registry import nearest
from evalrun.suite.dataset import DatasetSpec, PartSpec
from evalrun.suite.load import LoadedSuite, unknown_parameters
from evalrun.suite.plan import RunSpec, cells
from evalrun.suite.prompt import PromptSpec
from evalrun.suite.schema import CellFilter, Suite
from evalrun.suite.search import PARSE, SELECTS, SHOTS, SearchRules
from evalrun.sweep.blocks import Judged, drawn, judged_by, units_of
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.sweep.matrix_job import MatrixJob

FEWEST_HELD_OUT = 100


@dataclass(frozen=True, slots=True)
class Space:
    """A search, ready to run. `suite` is the suite with the candidates as its matrix, over all rows."""

    spec: SearchRules
    loaded: LoadedSuite
    suite: Suite
    candidates: tuple[RunSpec, ...]
    baseline: RunSpec
    by: Judged
    data_digest: str
    rows: int
    guards: tuple[Gate, ...] = ()

    @property
    def alike(self) -> dict[str, bytes]:
        """What each candidate is asked: the same for those that differ by their parsers alone."""
        return {cell.run_id: asked_alike(cell) for cell in self.candidates}

    def labels(self) -> dict[str, str]:
        """The short names of the candidates: what tells each apart, of model, prompt and parameters."""
        parts = [
            (cell.model.id, cell.prompt.id, *(f"{name}={value}" for name, value in cell.swept.items()))
            for cell in self.candidates
        ]
        told = [at for at, values in enumerate(zip(*parts, strict=True)) if len(set(values)) > 1]
        return {
            cell.run_id: " \u00b7 ".join(names[at] for at in told)
            for cell, names in zip(self.candidates, parts, strict=True)
        }

    def axes(self) -> dict[str, dict[str, JSON]]:
        """Where each candidate lies on the axes: model, prompt, few_shot.count, parameters. Only what some of
        them differ in."""
        found: dict[str, dict[str, JSON]] = {}
        for cell in self.candidates:
            prompt, more = cell.prompt.id, dict[str, JSON]()
            for name, chain in self.spec.chains.items():
                if _reads(self.suite, cell.prompt) == [each.resolved() for each in chain]:
                    prompt, more[PARSE] = prompt.removesuffix(f"-{name}"), name
            if SHOTS in self.spec.over:
                shown = 0 if cell.prompt.few_shot is None else cell.prompt.few_shot.shown
                prompt, more[SHOTS] = prompt.removesuffix(f"-{shown}shot"), shown
            found[cell.run_id] = {"model": cell.model.id, "prompt": prompt, **more, **cell.swept}
        names = list(next(iter(found.values()), {}))
        told = [
            name for name in names if len({canonical_json(each.get(name)) for each in found.values()}) > 1
        ]
        return {run: {name: each[name] for name in told if name in each} for run, each in found.items()}

    def searched(self, split_seed: int) -> LoadedSuite:
        """The suite of the race."""
        return self._of("search", split_seed, self.suite)

    def held_out(self, split_seed: int, winner: RunSpec) -> LoadedSuite:
        """The suite that asks winner and baseline about the rows held out."""
        chosen = [_only(winner)] if winner is self.baseline else [_only(self.baseline), _only(winner)]
        suite = self.suite.model_copy(update={"include": chosen, "exclude": [], "search": None})
        return self._of("held_out", split_seed, suite)

    def with_made(self, name: str, made: Mapping[str, JSON]) -> Space:
        """With a candidate that the search made beside the baseline."""
        base = self.baseline
        update: dict[str, object] = {"models": [base.model], "prompts": [base.prompt]}
        if "params" in made:
            from evalrun.search.trials import tuned

            number, params = cast("int", made["number"]), cast("Mapping[str, JSON]", made["params"])
            update["models"] = [base.model, tuned(self, number, params)]
        else:
            update["prompts"] = [base.prompt, PromptSpec.model_validate(made["prompt"])]
        suite = self.suite.model_copy(update={**update, "include": [], "exclude": []})
        pair = [cell for cell in cells(suite) if dict(cell.swept) == dict(base.swept)]
        baseline = next(cell for cell in pair if cell.run_id == base.run_id)
        return replace(self, suite=suite, candidates=tuple(pair), baseline=baseline)

    def winners(self, winner: RunSpec) -> Suite:
        """The suite with the winner alone, over all rows, as one to go on with."""
        update = {
            "models": [winner.model.model_copy(update={"params": dict(winner.params)})],
            "prompts": [winner.prompt],
            "sweep": {},
            "search": None,
            "include": [],
            "exclude": [],
        }
        return self.loaded.suite.model_copy(update=update)

    def _of(self, part: Literal["search", "held_out"], seed: int, suite: Suite) -> LoadedSuite:
        datasets: list[DatasetSpec] = []
        for dataset in suite.datasets:
            drawn = PartSpec(take=part, held_out=self.spec.hold_out, seed=seed)
            # The first rows of a file are drawn from when they are chosen: see `asked_order`.
            shuffle = dataset.shuffle or dataset.limit is None
            datasets.append(dataset.model_copy(update={"part": drawn, "shuffle": shuffle}))
        # A project of its own: neither baselines nor trends of the suite's runs are of a part of the rows.
        update = {"datasets": datasets, "project": f"{suite.project}-search"}
        return replace(self.loaded, suite=suite.model_copy(update=update))


def asked_order(job: MatrixJob) -> list[Sequence[Item]]:
    """The units of a candidate's dataset in drawn order."""
    spec = job.spec.dataset
    units = units_of(job.prepared.datasets[spec.id])
    return list(units) if spec.shuffle else drawn(units, job.prepared.loaded.suite.seed)


def asked_alike(cell: RunSpec) -> bytes:
    """What a cell sends, and to whom, as a key; its parsers are no part of it."""
    prompt = cell.prompt.model_dump(mode="json", exclude={"id", "parse"})
    return canonical_json([cell.model.id, prompt, dict(cell.params)])


def space_of(loaded: LoadedSuite) -> Space:
    """What a suite's search is over. Raises UserError with what does not fit; sends nothing."""
    spec, suite = loaded.suite.search, loaded.suite
    if spec is None:
        raise UserError(
            "the suite has no `search` section",
            where=str(loaded.path),
            remedy="Write one: `search: {metric: exact_match, baseline: PROMPT}`.",
        )
    if len(suite.datasets) != 1:
        raise UserError(
            f"a search is over one dataset, and the suite has {len(suite.datasets)}",
            where=loaded.locate("datasets"),
            remedy="Choose one: --datasets ID.",
        )
    by, scorers = judged_by(loaded, spec.metric, loaded.locate("search", "metric"))
    suite = _with_axes(loaded, spec, suite)
    _check_parameters(loaded, spec, suite)
    if spec.propose is not None:
        suite = _without_writer(loaded, spec.propose.model, suite)
    # The metric's scorer first: what runs are ranked by, in the report as here.
    first = sorted(zip(suite.scorers, scorers, strict=False), key=lambda pair: pair[1].name != by.column)
    update = {
        "scorers": [each for each, _ in first],
        "gates": [],
        "alerts": None,
        "load": None,
        "stop_early": None,
    }
    suite = suite.model_copy(update=update)
    if unknown := [finding for finding in unknown_parameters(suite) if finding.path[0] == "sweep"]:
        axis = f"params.{unknown[0].path[1]}"
        where = loaded.locate("search", "over", axis)
        raise UserError(unknown[0].what, where=where, remedy=unknown[0].remedy)
    candidates = cells(suite)
    if len(candidates) < 2 and spec.by == "race":
        raise UserError(
            "there is one candidate, and nothing to search",
            where=loaded.locate("search"),
            remedy="Add prompts, models, or `search: {over: {params.temperature: [0, 0.7]}}`.",
        )
    baseline = _baseline(loaded, spec, candidates)
    guards: tuple[Gate, ...] = ()
    if spec.guards:
        from evalrun.search.guards import read_guards

        guards = read_guards(loaded, suite, scorers)
    whole = open_dataset(suite.datasets[0], loaded.base_dir, suite.seed)
    if spec.by != "race":  # the others are made on the way
        suite = suite.model_copy(update={"include": [_only(baseline)], "exclude": []})
        candidates = (baseline,)
    return Space(spec, loaded, suite, candidates, baseline, by, whole.digest, len(whole), guards)


def _check_parameters(loaded: LoadedSuite, spec: SearchRules, suite: Suite) -> None:
    """Raises UserError for an axis of TPE that no model of the suite knows."""
    if spec.by != "tpe":
        return
    names = {axis.removeprefix("params."): axis for axis in spec.over}
    trial = suite.model_copy(update={"sweep": {name: [0] for name in names}})
    for finding in unknown_parameters(trial):
        if finding.path[0] == "sweep":
            where = loaded.locate("search", "over", names[str(finding.path[1])])
            raise UserError(finding.what, where=where, remedy=finding.remedy)


def _without_writer(loaded: LoadedSuite, writer: str, suite: Suite) -> Suite:
    """The suite without the model that writes prompts."""
    models = {model.id: model for model in loaded.suite.models}
    if writer not in models:
        near = nearest(writer, models)
        raise UserError(
            f"there is no model '{writer}' that could write prompts",
            where=loaded.locate("search", "propose", "model"),
            remedy=f"Did you mean '{near}'?" if near else f"There are: {', '.join(models)}.",
        )
    left = [model for model in suite.models if model.id != writer]
    if not left:
        raise UserError(
            f"'{writer}' writes the prompts, and no model is left to answer them",
            where=loaded.locate("search", "propose", "model"),
            remedy="Add the model that is to answer to `models`.",
        )
    return suite.model_copy(update={"models": left})


def check_held_out(space: Space, split_seed: int) -> int:
    """How many rows are held out. Raises UserError where they are too few to say anything."""
    if not space.spec.hold_out:
        return 0
    held_out = space.held_out(split_seed, space.baseline)
    rows = len(open_dataset(held_out.suite.datasets[0], held_out.base_dir, held_out.suite.seed))
    if rows < FEWEST_HELD_OUT:
        raise UserError(
            f"{rows} of {space.rows:,} rows are held out, and at least {FEWEST_HELD_OUT} are needed",
            where=space.loaded.locate("search", "hold_out"),
            remedy="Bring more rows, hold out a greater share, or set hold_out: 0 and do without an honest "
            "score of the winner.",
        )
    return rows


def _with_axes(loaded: LoadedSuite, spec: SearchRules, suite: Suite) -> Suite:
    """The suite with the axes of `over` in place of its own."""
    update: dict[str, object] = {}
    sweep = dict(suite.sweep)
    for axis, values in spec.over.items():
        if axis in SELECTS:
            entries = {entry.id: entry for entry in getattr(suite, axis)}
            for at, value in enumerate(values):
                if value not in entries:
                    near = nearest(str(value), entries)
                    raise UserError(
                        f"there is no '{value}' among the {axis}",
                        where=loaded.locate("search", "over", axis, at),
                        remedy=f"Did you mean '{near}'?" if near else f"There are: {', '.join(entries)}.",
                    )
            update[axis] = [entries[str(value)] for value in values]
        elif spec.by == "race" and axis not in (SHOTS, PARSE):
            sweep[axis.removeprefix("params.")] = list(values)
    suite = suite.model_copy(update={**update, "sweep": sweep})
    if SHOTS in spec.over:
        counts = [int(cast("int", value)) for value in spec.over[SHOTS]]
        prompts = [made for prompt in suite.prompts for made in _with_shots(loaded, prompt, counts)]
        suite = suite.model_copy(update={"prompts": prompts})
    if PARSE in spec.over:
        prompts = [made for prompt in suite.prompts for made in _with_parsers(suite, prompt, spec)]
        suite = suite.model_copy(update={"prompts": prompts})
    return suite


def _reads(suite: Suite, prompt: PromptSpec) -> list[JSON]:
    """The parsers of the answers to a prompt, as a suite has them."""
    chain = suite.parse if prompt.parse is None else prompt.parse
    return [each.resolved() for each in chain]


def _with_parsers(suite: Suite, prompt: PromptSpec, spec: SearchRules) -> Iterator[PromptSpec]:
    """The prompt with each chain of parsers; as it is where that is its own."""
    for name, chain in spec.chains.items():
        if [each.resolved() for each in chain] == _reads(suite, prompt):
            yield prompt
        else:
            yield prompt.model_copy(update={"id": f"{prompt.id}-{name}", "parse": chain})


def _with_shots(loaded: LoadedSuite, prompt: PromptSpec, counts: Sequence[int]) -> Iterator[PromptSpec]:
    """The prompt with each number of worked examples; as it is where that is its own number."""
    own = prompt.few_shot
    if own is None or own.ids is not None:
        what = f"prompt {prompt.id} has no few_shot that could show another number of examples"
        remedy = "Write few_shot: {count: 4, split: train} there, or choose prompts that have it."
        raise UserError(what, where=loaded.locate("search", "over", SHOTS), remedy=remedy)
    for count in dict.fromkeys(counts):
        if count == own.shown:
            yield prompt
            continue
        shown = own.model_copy(update={"first" if own.first else "count": count}) if count else None
        yield prompt.model_copy(update={"id": f"{prompt.id}-{count}shot", "few_shot": shown})


def _baseline(loaded: LoadedSuite, spec: SearchRules, candidates: Sequence[RunSpec]) -> RunSpec:
    if spec.baseline is None:
        return candidates[0]
    fits = [each for each in candidates if spec.baseline in (each.run_id, each.prompt.id, each.model.id)]
    exact = [each for each in fits if each.run_id == spec.baseline]
    if len(exact or fits) != 1:
        runs = ", ".join(each.run_id for each in (fits or candidates)[:10])
        what = "no candidate is" if not fits else f"{len(fits)} candidates are"
        raise UserError(
            f"{what} the baseline '{spec.baseline}'",
            where=loaded.locate("search", "baseline"),
            remedy=f"Name one run: {runs}.",
        )
    return (exact or fits)[0]


def _only(cell: RunSpec) -> CellFilter:
    return CellFilter(model=[cell.model.id], prompt=[cell.prompt.id], params=dict(cell.swept))
