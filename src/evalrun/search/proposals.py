"""GEPA: prompts that a model of the suite writes, judged by the rows that choose and raced at the end.

The `gepa` package chooses whom to improve and by which rows; evalrun asks, scores, checks what was written
and decides. Everything said by models is journalled, and GEPA is seeded: a search that was killed goes the
same way again and sends nothing that was answered.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from evalrun.analysis.race import Race
from evalrun.analysis.sequential import e_value
from evalrun.canonical import digest
from evalrun.datasets import Item
from evalrun.errors import UserError
from evalrun.prompts.rendering import Rendered
from evalrun.providers.base import ProviderContext, create
from evalrun.runner.cell import Cell, CellRun
from evalrun.runner.journal import RunFolder, read_journal
from evalrun.scoring.pipeline import Pipeline
from evalrun.search.conduct import Searching
from evalrun.search.leaks import HeldOut
from evalrun.search.pool import Halted, Pool, needs
from evalrun.search.space import asked_order
from evalrun.search_results import SearchResults
from evalrun.suite.components import ModelSpec
from evalrun.suite.prompt import PromptSpec
from evalrun.sweep.blocks import Rows
from evalrun.sweep.endpoints import run_jobs
from evalrun.sweep.matrix_job import MatrixJob
from evalrun.sweep.phase import Phase
from evalrun.sweep.prepare import prepare
from evalrun.sweep.prompting import api_of
from evalrun.tracking.folder import SweepFolder
from evalrun.types import JSON, Message

if TYPE_CHECKING:
    from evalrun.providers.base import Provider
    from evalrun.runner.limits import Throttle
    from evalrun.runner.watch import LoadOnce
    from evalrun.search.space import Space

Result = TypeVar("Result")

FINALISTS = 8
"""So many proposals are raced against the baseline at most."""
VALIDATED = 4
"""Blocks of rows by which proposals are compared before the race."""
ACCEPTED = 2.0
"""The e-value on a minibatch from which a proposal is taken up."""
LONGEST = 10_000
"""Characters that a part may have, or three times those of the old one: a prompt is paid for by the token."""
_TRIES = 3
_SECTION = re.compile(r"({%-?\s*section\s+(\w+)\s*-?%})(.*?)({%-?\s*endsection\s*-?%})", re.DOTALL)
_BLOCK = re.compile(r"```[\w-]*\n(.*?)```", re.DOTALL)
_WRITE = """\
Below is a part of a prompt for a language model, with answers that it led to and what was right or wrong
with them. Write a better version of this part. Keep each of its placeholders exactly as it is ({variables}),
and add no other. Say only what is true of the task in general: nothing about single examples.

The part, "{component}":
```
{text}
```

{examples}
Answer with the whole new part, between lines of ``` and nothing else.
"""


def check_gepa() -> None:
    """Raises UserError where the package is missing."""
    try:
        import gepa  # noqa: F401
    except ImportError:
        raise needs("gepa", "search: {by: gepa}") from None


@dataclass(frozen=True, slots=True)
class Parts:
    """A prompt as texts by name, and what of them is written anew."""

    spec: PromptSpec
    texts: Mapping[str, str]
    sections: frozenset[str]

    @classmethod
    def of(cls, spec: PromptSpec, base_dir: Path, wanted: Sequence[str], where: str) -> Parts:
        """Raises UserError for a section that the prompt has not, or where nothing can be written anew."""
        texts: dict[str, str] = {}
        if spec.system is not None:
            texts["system"] = spec.system
        if spec.file is not None:
            texts["text"] = (base_dir / spec.file).read_text(encoding="utf-8")
        elif spec.text is not None:
            texts["text"] = spec.text
        if isinstance(spec.messages, list):
            for at, message in enumerate(spec.messages):
                if isinstance(message.content, str):
                    texts[f"message {at}"] = message.content
        marked = [match[2] for text in texts.values() for match in _SECTION.finditer(text)]
        for name in wanted:
            if name not in marked:
                has = f"It has: {', '.join(marked)}." if marked else "It has none."
                mark = "Mark it by {% section NAME %}…{% endsection %}."
                raise UserError(
                    f"prompt {spec.id} has no section '{name}'", where=where, remedy=f"{has} {mark}"
                )
        if not texts:
            what = f"prompt {spec.id} has no text that could be written anew"
            raise UserError(what, where=where, remedy="Name another baseline.")
        return cls(spec, texts, frozenset(wanted or marked))

    def components(self) -> dict[str, str]:
        """What is written anew, by name."""
        if not self.sections:
            return dict(self.texts)
        found = [match for text in self.texts.values() for match in _SECTION.finditer(text)]
        return {match[2]: match[3] for match in found if match[2] in self.sections}

    def prompt(self, components: Mapping[str, str], name: str) -> PromptSpec:
        """The prompt with these in place of its own."""

        def anew(match: re.Match[str]) -> str:
            return match[1] + components.get(match[2], match[3]) + match[4]

        texts = dict(self.texts)
        for key, text in texts.items():
            texts[key] = _SECTION.sub(anew, text) if self.sections else components[key]
        update: dict[str, Any] = {"id": name, "file": None}
        update |= {key: texts[key] for key in ("system", "text") if key in texts}
        if isinstance(self.spec.messages, list):
            update["messages"] = [
                message.model_copy(update={"content": texts.get(f"message {at}", message.content)})
                for at, message in enumerate(self.spec.messages)
            ]
        return self.spec.model_copy(update=update)


def variables_of(text: str) -> frozenset[str]:
    """The variables of the rows that a template uses. Raises ValueError where it is no template."""
    from jinja2 import Environment, TemplateSyntaxError, meta

    try:
        return frozenset(meta.find_undeclared_variables(Environment(autoescape=True).parse(text)))
    except TemplateSyntaxError as error:  # a filter that is not there, too
        raise ValueError(f"it is no template: {error.message}") from None


def fault_of(old: str, new: str) -> str:
    """Why a part cannot stand in the place of another; empty where it can."""
    if not new.strip():
        return "it is empty"
    try:
        before, now = variables_of(old), variables_of(new)
    except ValueError as error:
        return str(error)
    if lost := before - now:
        return f"it has lost {', '.join(f'{{{{ {name} }}}}' for name in sorted(lost))}"
    if added := now - before:
        return (
            f"it uses {', '.join(f'{{{{ {name} }}}}' for name in sorted(added))}, which the old one did not"
        )
    return ""


@dataclass(frozen=True, slots=True)
class _Asked:
    """One question to the writer, as a job of the runner."""

    model: ModelSpec
    folder: RunFolder
    key: str
    text: str

    @property
    def name(self) -> str:
        return "writer"

    def render(self, item: Item) -> Rendered:
        """The question itself."""
        if api_of(self.model) == "completions":
            return Rendered((), self.text)
        return Rendered((Message("user", self.text),), None)

    async def run(self, phase: Phase, provider: Provider, throttle: Throttle, load: LoadOnce) -> None:
        """Ask it, if it was not answered before."""
        earlier = self.folder.open(provider.identity())
        rows = Rows([Item(self.key, 0, {})])
        reader = Pipeline((), (), "never")
        params = dict(self.model.params)
        cell = Cell(self.name, rows, self, provider, reader, params, price=self.model.price)
        try:
            run = await phase.ask(cell, self.folder, earlier, phase.options(self.model), throttle)
        finally:
            self.folder.close()
            self.folder.system.unlink(missing_ok=True)
        assert isinstance(run, CellRun)
        if run.complete:
            phase.progress.end(self.name)


class AskedProposals(Searching):
    """Lets GEPA propose, then races the best proposals against the baseline."""

    def __init__(self, space: Space) -> None:
        check_gepa()
        assert space.spec.propose is not None
        super().__init__(space)
        self._rules = space.spec.propose
        loaded = space.loaded
        where = loaded.locate("search", "propose")
        self._parts = Parts.of(space.baseline.prompt, loaded.base_dir, self._rules.sections, where)
        self._writer = next(each for each in loaded.suite.models if each.id == self._rules.model)
        self.rejected: list[str] = []
        self._names: dict[str, str] = {}
        self._made: dict[str, dict[str, JSON]] = {}

    async def ask(self, phase: Phase, jobs: Sequence[MatrixJob]) -> None:
        """Propose and race, as far as there is time."""
        self._base = next(job for job in jobs if job.name == self._space.baseline.run_id)
        folder = self._base.folder
        context = ProviderContext(self._space.loaded.base_dir, folder.path / "engines", seed=phase.suite.seed)
        writer = create(self._writer, context)
        models = frozenset({self._base.model.id, self._writer.id})
        providers = {**phase.providers, self._writer.id: writer}
        self._phase = replace(phase, providers=providers, needed_later=models)
        units = asked_order(self._base)
        self._pool = Pool(self._phase, units, self._space.by)
        loaded, spec = self._base.prepared.loaded, self._base.spec.dataset
        self._held_out = HeldOut(spec, loaded.base_dir, loaded.suite.seed)
        self._name(self._parts.components())
        try:
            found = await self._propose(len(units))
            await self._race(found)
        except Halted:
            pass
        finally:
            await writer.close()
            await phase.providers[self._base.model.id].close()

    async def _propose(self, units: int) -> list[str]:
        """The names of the best proposals, by what GEPA saw of them."""
        from gepa.api import optimize

        loop, rules = asyncio.get_running_loop(), self._rules
        adapter: Any = _Adapter(self, loop)
        validated = list(range(min(units, VALIDATED * self._space.spec.block)))

        def run() -> Any:
            return optimize(
                seed_candidate=self._parts.components(),
                trainset=list(range(units)),
                valset=validated,
                adapter=cast("Any", adapter),
                reflection_minibatch_size=min(rules.minibatch, units),
                acceptance_criterion=_Accepted(),
                stop_callbacks=cast("Any", [lambda state: adapter.proposals >= rules.candidates]),
                max_metric_calls=rules.candidates * (2 * rules.minibatch + 2 * len(validated))
                + len(validated),
                seed=self._phase.suite.seed,
                logger=cast("Any", _Quiet()),
                raise_on_exception=True,
            )

        result = await asyncio.to_thread(run)
        order = sorted(range(len(result.candidates)), key=lambda at: -result.val_aggregate_scores[at])
        names = [self._name(result.candidates[at]) for at in order[:FINALISTS]]
        return list(dict.fromkeys([self._base.name, *names]))

    async def _race(self, names: Sequence[str]) -> None:
        pool, spec = self._pool, self._space.spec
        race = Race(names, units=len(pool.units), alpha=spec.alpha, within=spec.within)
        at = 0
        while not race.over or (len(names) == 1 and at < len(pool.units)):
            block = range(at, min(at + spec.block, len(pool.units)))
            race.tell(await pool.ask(race.left, block))
            at += spec.block
        await pool.finish(self._base.name)
        found = replace(race.result(), calls=pool.calls, grid=len(pool.units) * len(pool.jobs))
        labels = {name: f"proposal {self._made[name]['number']}" for name in pool.jobs if name in self._made}
        self.results = SearchResults(
            metric=self._space.by.metric, baseline=self._base.name, winner=found.best, race=found,
            rows=self._space.rows, data=self._space.data_digest,
            labels={self._base.name: self._parts.spec.id, **labels}, made=self._made,
            refused=tuple(self.rejected),
        )  # fmt: skip
        self.results = await pool.guarded(self.results, self._space.guards)

    def _name(self, components: Mapping[str, str]) -> str:
        """The run of a candidate, made where it is new. Raises UserError for one that cannot be rendered."""
        key = digest(dict(components))
        if key in self._names:
            return self._names[key]
        if not self._names:
            self._names[key] = self._pool.add(self._base)
            return self._names[key]
        number = len(self._names)
        prompt = self._parts.prompt(components, f"{self._parts.spec.id}-proposal{number}")
        document = prompt.model_dump(mode="json", exclude_defaults=True)
        space = self._space.with_made(self._base.name, {"prompt": document})
        spec = next(cell for cell in space.candidates if cell.prompt.id == prompt.id)
        suite = self._base.prepared.loaded.suite.model_copy(
            update={"prompts": [prompt], "models": [self._space.baseline.model], "include": [], "exclude": []}
        )
        folder = self._base.folder.path
        loaded = replace(self._base.prepared.loaded, suite=suite)
        own = prepare(loaded, folder / "engines", folder.parent.parent)
        job = replace(
            self._base, spec=replace(self._base.spec, run_id=spec.run_id, prompt=prompt), prepared=own
        )
        renderer = own.renderer(job.spec)
        for item in chain.from_iterable(self._pool.units):
            renderer.render(item)
        self._names[key] = self._pool.add(job)
        self._made[job.name] = {"prompt": document, "number": number}
        return self._names[key]

    async def scores(self, at: Sequence[int], components: Mapping[str, str]) -> tuple[str, list[float]]:
        """The run of a candidate, and its shares of units; one without a score has the mean of the others."""
        name = self._name(components)
        shares = (await self._pool.ask([name], at))[name]
        mean = float(np.nanmean(shares)) if not np.isnan(shares).all() else 0.0
        return name, [mean if np.isnan(each) else float(each) for each in shares]

    def examples(self, name: str, at: Sequence[int]) -> list[dict[str, Any]]:
        """What the writer is shown of a candidate's answers: rows that choose, never one held out."""
        records = self._pool.records(name)
        found = []
        for item in (self._pool.units[index][0] for index in at):
            record = records.get(item.sample_id, {})
            reasons = "; ".join(filter(None, (record.get("reasons") or {}).values()))
            score = (record.get("scores") or {}).get(self._space.by.column)
            target = f"; expected: {item.target}" if item.target is not None else ""
            asked = record.get("prompt") or record.get("messages")
            feedback = f"score {score}{target}{'; ' if reasons else ''}{reasons}"
            found.append({"Inputs": asked, "Generated Outputs": record.get("output"), "Feedback": feedback})
        return found

    async def write(
        self, component: str, candidate: Mapping[str, str], examples: Sequence[Mapping[str, Any]]
    ) -> str:
        """A new text for a part; the old one where the writer gives none that can stand in its place."""
        text = candidate[component]
        shown = "\n".join(
            f"Example {at}\nAsked: {each['Inputs']}\nAnswered: {each['Generated Outputs']}\n"
            f"{each['Feedback']}\n"
            for at, each in enumerate(examples, 1)
        )
        names = ", ".join(f"{{{{ {name} }}}}" for name in sorted(variables_of(text))) or "it has none"
        question = _WRITE.format(component=component, text=text, examples=shown, variables=names)
        for _ in range(_TRIES):
            said = await self._ask_writer(question)
            block = _BLOCK.search(said)
            fault = "there is no text between lines of ```" if block is None else ""
            if block is not None:
                new = block[1].strip("\n")
                fault = self._fault(component, candidate, new)
                if not fault:
                    return new
            self.rejected.append(f"{component}: {fault}")
            question += f"\nYour last answer cannot be used: {fault}. Write it again.\n"
        return text

    def _fault(self, component: str, candidate: Mapping[str, str], new: str) -> str:
        """Why a text cannot stand in a candidate, without a word of a row held out; empty where it can."""
        text = candidate[component]
        if len(new) > (most := max(LONGEST, 3 * len(text))):
            return f"it has {len(new):,} characters, and {most:,} are the most"
        if fault := fault_of(text, new):
            return fault
        if self._held_out.quoted(new) is not None:
            return "it quotes a row that is held out"
        try:
            self._name({**candidate, component: new})
        except UserError as error:
            return f"it cannot be rendered for every row: {error.problems[0].what}"
        return ""

    async def _ask_writer(self, text: str) -> str:
        folder: SweepFolder = self._base.folder
        folder.make_run_dirs(["writer"])
        run = RunFolder(folder.run_dir("writer"))
        key = digest({"text": text})
        await run_jobs(self._phase, [_Asked(self._writer, run, key, text)])
        if self._phase.stop.requested or self._phase.execution.faults:
            raise Halted
        said = [each for each in read_journal(run.journal) if each["sample_id"] == key]
        if said and said[-1].get("error"):
            self.rejected.append(f"the writer did not answer: {said[-1]['error']}")
        return (said[-1].get("output") or "") if said else ""


class _Accepted:
    """Takes a proposal up where it is better on the minibatch by more than luck alone gives."""

    def should_accept(self, proposal: Any, state: Any) -> bool:
        """Whether the e-value of "better than its parent" reaches `ACCEPTED`."""
        before = np.asarray(proposal.subsample_scores_before or [], dtype=np.float64)
        now = np.asarray(proposal.subsample_scores_after or [], dtype=np.float64)
        return len(now) == len(before) and bool(len(now)) and e_value(now - before) >= ACCEPTED


class _Quiet:
    """Takes what GEPA logs."""

    def log(self, message: str) -> None:
        """Nothing."""


class _Adapter:
    """What GEPA asks of evalrun, from its thread."""

    def __init__(self, search: AskedProposals, loop: asyncio.AbstractEventLoop) -> None:
        self._search, self._loop = search, loop
        self.proposals = 0

    def _wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def evaluate(self, batch: list[int], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        """The scores of a candidate on some units."""
        from gepa.core.adapter import EvaluationBatch

        name, scores = self._wait(self._search.scores(batch, candidate))
        traces = self._search.examples(name, batch) if capture_traces else None
        return EvaluationBatch(outputs=[None] * len(batch), scores=scores, trajectories=traces)

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]
    ) -> dict[str, list[dict[str, Any]]]:
        """What the writer is shown, by component."""
        return {name: list(eval_batch.trajectories or ()) for name in components_to_update}

    def propose_new_texts(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> dict[str, str]:
        """New texts of some components, checked."""
        self.proposals += 1
        return {
            name: self._wait(self._search.write(name, candidate, reflective_dataset[name]))
            for name in components_to_update
        }
