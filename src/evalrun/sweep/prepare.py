"""Everything that can go wrong before a model is called, found before a model is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

from evalrun import registry
from evalrun.canonical import digest
from evalrun.datasets import Dataset, open_dataset
from evalrun.errors import Problem, UserError
from evalrun.gates.conditions import Gate, parse_gate
from evalrun.prompts import Api, FewShotPool, Prompt, Renderer, compile_prompt, open_pool, with_variants
from evalrun.providers.base import (
    Pinned,
    Provider,
    ProviderContext,
    ReadsRows,
    capability,
    create,
    likelihood_problem,
)
from evalrun.providers.batch_api import batch_api_of
from evalrun.sandbox import reaches_by_computed_names
from evalrun.scoring.pipeline import Pipeline, suite_scorers
from evalrun.suite.components import PYTHON, ModelSpec
from evalrun.suite.load import LoadedSuite
from evalrun.suite.plan import RunSpec, cells, matrix
from evalrun.sweep.estimate import budget_problems
from evalrun.sweep.explaining import explain_problems
from evalrun.types import JSON
from evalrun.usercode import code_digests

if TYPE_CHECKING:
    from evalrun.gates.alerts import Alert
    from evalrun.privacy.redact import Redactor
    from evalrun.privacy.sealed import Seal
    from evalrun.scoring.base import Scorer
    from evalrun.suite.schema import Suite
    from evalrun.sweep.judging import Judging
    from evalrun.tasks.plan import TaskPlan
    from evalrun.types import SampleRecord


@dataclass(frozen=True, slots=True)
class PreparedSweep:
    """A suite whose data, prompts, models and scorers are at hand and fit together.

    `prompts` and `renderers` are keyed by (prompt id, api) and (prompt id, dataset id, api): the same
    prompt is rendered differently for chat and for plain completion. `examples` are the digests of the
    few-shot examples, keyed "prompt id/dataset id".
    """

    loaded: LoadedSuite
    specs: tuple[RunSpec, ...]
    datasets: Mapping[str, Dataset]
    prompts: Mapping[tuple[str, str], Prompt]
    renderers: Mapping[tuple[str, str, str], Renderer]
    examples: Mapping[str, str]
    providers: Mapping[str, Provider]
    pipeline: Pipeline
    gates: tuple[Gate, ...]
    work_digest: str
    code: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 by file of the scorers and parsers that are not evalrun's own."""
    alerts: tuple[Alert, ...] = ()
    judging: Judging | None = None
    """What scorers ask of models, where any does."""
    tasks: TaskPlan | None = None
    """The published tasks of the suite, where it has any."""
    redactor: Redactor | None = None
    seal: Seal | None = None
    """Under what answers are cached, where the suite redacts them and has them cached."""
    """What removes personal data before anything is stored, where the suite says so."""

    @property
    def redact_record(self) -> Callable[[SampleRecord], SampleRecord] | None:
        """What is journalled in the place of a record."""
        return None if self.redactor is None else self.redactor.record

    def pipeline_of(self, spec: RunSpec) -> Pipeline:
        """What reads the answers of a run: the suite's parsers and scorers, or nothing where lm_eval does."""
        if self.tasks is not None and self.tasks.of(spec) is not None:
            return Pipeline((), (), "never")
        return self.pipeline

    def dataset(self, spec: RunSpec) -> Dataset:
        """The rows of a run. A task has others for models that chat than for those that do not."""
        cells = self.tasks.of(spec) if self.tasks is not None else None
        return self.datasets[spec.dataset.id] if cells is None else cast("Dataset", cells.documents)

    def close(self) -> None:
        """End what was started to prepare it."""
        if self.tasks is not None:
            self.tasks.close()

    def renderer(self, spec: RunSpec) -> Renderer:
        """The renderer of a run's prompt over its dataset."""
        return self.renderers[spec.prompt.id, spec.dataset.id, api_of(spec.model)]


def api_of(model: ModelSpec) -> Api:
    """Which of the two, chat or completions, a model is asked through."""
    api: Api = getattr(model.options, "api", "chat")
    return api


class _Problems:
    """Collects the problems of several steps, so that they are reported together."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            self.found.extend(error.problems)

    def raise_if_any(self) -> None:
        if self.found:
            raise UserError(list(dict.fromkeys(self.found)))


def prepare(loaded: LoadedSuite, work_dir: Path, store: Path | None = None) -> PreparedSweep:
    """Open the datasets, compile and check the prompts, build scorers and providers.

    Sends nothing to any model. `work_dir` is where managed engines will keep their logs, `store` where the
    key of pseudonyms is (None: nothing will be stored). Raises UserError with all problems found.
    """
    tasks = _plan_tasks(loaded, work_dir)
    problems = _Problems()
    try:
        return _prepared(loaded, work_dir, problems, tasks, store)
    except BaseException:
        if tasks is not None:
            tasks.close()
        raise


def _plan_tasks(loaded: LoadedSuite, work_dir: Path) -> TaskPlan | None:
    if not loaded.suite.tasks:
        return None
    from evalrun.tasks.plan import plan_tasks

    return plan_tasks(loaded, work_dir)


def _task_specs(suite: Suite, tasks: TaskPlan | None) -> tuple[RunSpec, ...]:
    if tasks is None:
        return ()
    from evalrun.runner.cache import likelihood_params

    return tuple(tasks.specs(suite, likelihood_params))


def _prepared(
    loaded: LoadedSuite,
    work_dir: Path,
    problems: _Problems,
    tasks: TaskPlan | None,
    store: Path | None,
) -> PreparedSweep:
    suite = loaded.suite
    task_specs = _task_specs(suite, tasks)
    specs = matrix(suite) if task_specs else cells(suite)
    if any(prompt.ablate for prompt in suite.prompts):
        with problems.collect():
            specs = with_variants(specs, loaded.base_dir)
    datasets = _open_datasets(loaded, specs, problems, store)
    compiled = _compile_prompts(loaded, specs, datasets, problems)
    problems.found.extend(_emptied(specs, datasets, compiled))
    own = tuple(datasets.values())
    if tasks is not None:
        _add_tasks(tasks, task_specs, datasets, compiled)
        specs = (*specs, *task_specs)
    pipeline: Pipeline | None = None
    with problems.collect():
        pipeline = Pipeline([each.build() for each in suite.parse], suite_scorers(suite), "at once")
        for dataset in own:
            for scorer in pipeline.scorers:
                problems.found.extend(scorer.check(dataset.columns, f"dataset {dataset.id}"))
    gates = _parse_gates(loaded, problems)
    alerts = _parse_alerts(loaded, problems)
    if pipeline is not None and (gates or alerts):
        problems.found.extend(_unknown(loaded, specs, _all_scorers(pipeline, task_specs), gates, alerts))
    context = ProviderContext(
        base_dir=loaded.base_dir, work_dir=work_dir, deterministic=suite.deterministic, seed=suite.seed
    )
    providers = {}
    for spec in specs:
        if spec.model.id not in providers:
            with problems.collect():
                provider = create(spec.model, context)
                if suite.performance.workers and batch_api_of(provider) is None:
                    provider = _spread(loaded, provider)
                providers[spec.model.id] = provider
    judging = None
    if pipeline is not None and any(scorer.asks for scorer in pipeline.scorers):
        with problems.collect():
            judging = _judging(loaded, pipeline, context, providers, datasets)
    problems.found.extend(_prompts_beyond_models(specs, providers))
    problems.found.extend(_models_without_columns(specs, providers, datasets))
    asked = {**(judging.providers if judging is not None else {}), **providers}
    problems.found.extend(budget_problems(loaded, specs, asked))
    if suite.load is not None:
        from evalrun.sweep.levels import load_problems

        problems.found.extend(load_problems(loaded, providers, pipeline))
    _check_sinks(suite, problems)
    problems.found.extend(explain_problems(suite, context))
    redactor = _redactor(loaded, datasets, compiled, store, problems, providers)
    seal = _seal(loaded, redactor, store, problems)
    problems.raise_if_any()
    if pipeline is None:
        raise AssertionError("a pipeline that was not built is a problem that was raised")
    code = scoring_code(suite, pipeline, loaded.base_dir)
    return PreparedSweep(
        loaded=loaded,
        specs=specs,
        datasets=datasets,
        prompts=compiled.prompts,
        renderers=compiled.renderers,
        examples=compiled.examples,
        providers=providers,
        pipeline=pipeline,
        gates=gates,
        alerts=alerts,
        judging=judging,
        tasks=tasks,
        redactor=redactor,
        seal=seal,
        code=code,
        work_digest=_work_digest(loaded, datasets, compiled, judging, {**code, **_code_of_models(providers)}),
    )


def _check_sinks(suite: Suite, problems: _Problems) -> None:
    """A sink whose package or variable is missing is known before anything is asked."""
    for sink in suite.sinks:
        with problems.collect():
            sink.build()


def _seal(
    loaded: LoadedSuite, redactor: Redactor | None, store: Path | None, problems: _Problems
) -> Seal | None:
    """What encrypts the cache, where a suite that redacts wants one. Adds what is wrong to `problems`."""
    privacy = loaded.suite.privacy
    if redactor is None or store is None or privacy is None or privacy.cache == "off":
        return None
    from evalrun.privacy.sealed import Seal

    with problems.collect():
        return Seal(store)
    return None


def _redactor(
    loaded: LoadedSuite,
    datasets: Mapping[str, Dataset],
    compiled: _Compiled,
    store: Path | None,
    problems: _Problems,
    providers: Mapping[str, Provider],
) -> Redactor | None:
    privacy = loaded.suite.privacy
    if privacy is None or not privacy.active:
        return None
    from evalrun.sweep.private import prepare_redactor

    problems.found += [
        Problem(
            "it is asked in batches, whose files lie here as they are until they are answered",
            f"privacy, model '{name}'",
            "Leave out batch for it.",
        )
        for name, provider in providers.items()
        if batch_api_of(provider) is not None
    ]
    with problems.collect():
        return prepare_redactor(loaded.suite, datasets, compiled.renderers, store, loaded.base_dir)
    return None


def _emptied(
    specs: Sequence[RunSpec], datasets: Mapping[str, Dataset], compiled: _Compiled
) -> Iterator[Problem]:
    """The prompts of which nothing is left when their parts are left out, by the first row."""
    for spec in specs:
        key = (spec.prompt.id, spec.dataset.id, api_of(spec.model))
        item = next(iter(datasets.get(spec.dataset.id) or ()), None)
        if not spec.prompt.without or key not in compiled.renderers or item is None:
            continue
        with suppress(UserError):
            rendered = compiled.renderers[key].render(item)
            texts = [message.content for message in rendered.messages] or [rendered.prompt]
            if all(isinstance(text, str) and not text.strip() for text in texts):
                yield Problem(
                    f"without {spec.prompt.without} nothing is left of the prompt",
                    f"prompt {spec.prompt.ablates}, ablate",
                    "Keep what is always there, such as the row's own text, outside the sections.",
                )


def _add_tasks(
    tasks: TaskPlan, specs: Sequence[RunSpec], datasets: dict[str, Dataset], compiled: _Compiled
) -> None:
    """The documents and prompts of tasks among those of the suite's own."""
    for spec in specs:
        cells = tasks.of(spec)
        if cells is None:
            continue
        api = api_of(spec.model)
        datasets[spec.dataset.id] = cast("Dataset", cells.documents)
        key = (spec.prompt.id, api)
        if key not in compiled.prompts:
            compiled.prompts[key] = compile_prompt(spec.prompt, Path(), "chat")
        compiled.renderers[spec.prompt.id, spec.dataset.id, api] = task_renderer()


def task_renderer() -> Renderer:
    """What gives of a task's item what is sent for it."""
    from evalrun.tasks.documents import TaskRenderer

    return cast("Renderer", TaskRenderer())


def _all_scorers(pipeline: Pipeline, specs: Sequence[RunSpec]) -> Sequence[Scorer]:
    """The suite's scorers and the metrics of its tasks."""
    if not specs:
        return pipeline.scorers
    from evalrun.scoring.tasks import task_scorers
    from evalrun.suite.tasks import TaskDataset

    of_tasks = {
        scorer.name: scorer
        for spec in specs
        if isinstance(spec.dataset, TaskDataset)
        for scorer in task_scorers(spec.dataset)
    }
    return (*pipeline.scorers, *of_tasks.values())


def _spread(loaded: LoadedSuite, provider: Provider) -> Provider:
    from evalrun.runner.spread import spread

    where = loaded.locate("performance", "workers")
    return spread(provider, loaded.suite.performance.workers, where)


def _judging(
    loaded: LoadedSuite,
    pipeline: Pipeline,
    context: ProviderContext,
    providers: Mapping[str, Provider],
    datasets: Mapping[str, Dataset],
) -> Judging:
    from evalrun.sweep.judging import prepare_judging

    columns = {name: dataset.columns for name, dataset in datasets.items()}
    return prepare_judging(loaded.suite, pipeline.scorers, context, providers, columns)


def _parse_gates(loaded: LoadedSuite, problems: _Problems) -> tuple[Gate, ...]:
    gates = []
    for at, text in enumerate(loaded.suite.gates):
        gate = parse_gate(text)
        if isinstance(gate, Problem):
            problems.found.append(replace(gate, where=loaded.locate("gates", at)))
        else:
            gates.append(gate)
    return tuple(gates)


def _unknown(
    loaded: LoadedSuite,
    specs: Sequence[RunSpec],
    scorers: Sequence[Scorer],
    gates: Sequence[Gate],
    alerts: Sequence[Alert],
) -> Iterator[Problem]:
    """Gates and alerts that speak of what no run of the suite can have."""
    from evalrun.gates.conditions import FEEDBACK, TLS, speakable, unknown

    scopes = {
        "model": {
            *loaded.declared["models"],
            *(spec.model.id for spec in specs),
            *(spec.model.checkpoint.of for spec in specs if spec.model.checkpoint is not None),
        },
        "prompt": {*loaded.declared["prompts"], *(spec.prompt.id for spec in specs)},
        "dataset": {*loaded.declared["datasets"], *(spec.dataset.id for spec in specs)},
        "load": {word for spec in specs for word in _level_words(spec)},
    }
    about = speakable(loaded.suite, scorers, scopes)
    written = [text.strip() for text in loaded.suite.gates]
    for gate in gates:
        where = loaded.locate("gates", written.index(gate.text))
        yield from (replace(each, where=where) for each in unknown(gate, about))
    when = [text.strip() for text in loaded.suite.alerts.when] if loaded.suite.alerts is not None else []
    for alert in alerts:
        if alert.kind in ("training", "slo"):  # of what a training logs nothing is known before
            continue
        if alert.kind == "drift" or alert.metric == TLS or alert.metric.startswith(FEEDBACK):
            continue
        where = loaded.locate("alerts", "when", when.index(alert.text))
        yield from (replace(each, where=where) for each in unknown(alert.gate, about, "alert"))


def _level_words(spec: RunSpec) -> tuple[str, ...]:
    from evalrun.gates.conditions import level_words

    return level_words({"params": spec.axes, "role": spec.load.role}) if spec.load is not None else ()


def _parse_alerts(loaded: LoadedSuite, problems: _Problems) -> tuple[Alert, ...]:
    if loaded.suite.alerts is None:
        return ()
    from evalrun.gates.alerts import parse_alert

    alerts = []
    for at, text in enumerate(loaded.suite.alerts.when):
        alert = parse_alert(text)
        if isinstance(alert, Problem):
            problems.found.append(replace(alert, where=loaded.locate("alerts", "when", at)))
        else:
            alerts.append(alert)
    return tuple(alerts)


def _prompts_beyond_models(
    specs: tuple[RunSpec, ...], providers: Mapping[str, Provider]
) -> Iterator[Problem]:
    """Prompts that ask a model for what its provider cannot give."""
    for spec in specs:
        provider = providers.get(spec.model.id)
        if provider is not None and (problem := _without_tokens(spec, provider)) is not None:
            yield problem
        if spec.prompt.ask is not None and provider is not None:
            problem = likelihood_problem(provider, spec.prompt.ask.via)
            if problem is not None:
                yield replace(problem, what=f"prompt {spec.prompt.id}: {problem.what}")


def _without_tokens(spec: RunSpec, provider: Provider) -> Problem | None:
    """Why a model cannot be asked for the likelihoods of a published task."""
    from evalrun.suite.tasks import TaskDataset

    if not (isinstance(spec.dataset, TaskDataset) and spec.dataset.asks_likelihoods):
        return None
    if "token_ids" in provider.supports:
        return None
    problem = likelihood_problem(provider, "prompt_logprobs")
    what = problem.what if problem else f"provider '{spec.model.provider}' cannot be asked by token ids"
    remedy = "Ask it by openai_compatible, vllm or llamacpp with api: completions, or set ask: written."
    return Problem(f"task {spec.dataset.id}: {what}", f"model {spec.model.id}", remedy)


def _models_without_columns(
    specs: tuple[RunSpec, ...], providers: Mapping[str, Provider], datasets: Mapping[str, Dataset]
) -> Iterator[Problem]:
    """Models that answer from the rows, and rows without what they need."""
    for model, name in dict.fromkeys((spec.model.id, spec.dataset.id) for spec in specs):
        provider, dataset = providers.get(model), datasets.get(name)
        if provider is not None and dataset is not None:
            reader, columns = capability(provider, ReadsRows), (*dataset.columns, *dataset.partial)
            if reader is not None and (problem := reader.check(columns, f"dataset {name}")) is not None:
                yield replace(problem, what=f"model {model}: {problem.what}")


def _open_datasets(
    loaded: LoadedSuite, specs: tuple[RunSpec, ...], problems: _Problems, store: Path | None
) -> dict[str, Dataset]:
    datasets: dict[str, Dataset] = {}
    for spec in {spec.dataset.id: spec.dataset for spec in specs}.values():
        with problems.collect():
            datasets[spec.id] = open_dataset(spec, loaded.base_dir, loaded.suite.seed, store=store)
    return datasets


@dataclass(frozen=True, slots=True)
class _Compiled:
    """The prompts of a suite by (prompt id, api), what renders them by (prompt id, dataset id, api), and
    the digests of the few-shot examples by "prompt id/dataset id"."""

    prompts: dict[tuple[str, str], Prompt] = field(default_factory=dict)
    renderers: dict[tuple[str, str, str], Renderer] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)


def _compile_prompts(
    loaded: LoadedSuite, specs: tuple[RunSpec, ...], datasets: Mapping[str, Dataset], problems: _Problems
) -> _Compiled:
    compiled = _Compiled()
    for spec in specs:
        api = api_of(spec.model)
        key = (spec.prompt.id, api)
        if key not in compiled.prompts:
            with problems.collect():
                compiled.prompts[key] = compile_prompt(spec.prompt, loaded.base_dir, api)
        dataset, prompt = datasets.get(spec.dataset.id), compiled.prompts.get(key)
        place = (spec.prompt.id, spec.dataset.id, api)
        if dataset is None or prompt is None or place in compiled.renderers:
            continue
        before = len(problems.found)
        problems.found.extend(
            prompt.check(dataset.columns, f"dataset {dataset.id}", dataset.partial, dataset.binary)
        )
        said = prompt.left_empty(dataset.nulls)
        dataset.warnings.extend(text for text in said if text not in dataset.warnings)
        with problems.collect():
            pool = None
            if spec.prompt.few_shot is not None and spec.prompt.few_shot.shown:
                pool = open_pool(spec.dataset, spec.prompt.few_shot, loaded.base_dir, loaded.suite.seed)
                compiled.examples[f"{prompt.id}/{dataset.id}"] = pool.digest
            compiled.renderers[place] = _bound(prompt, pool, loaded.suite.seed, dataset)
            if len(problems.found) == before:
                _try_out(prompt, compiled.renderers[place], dataset)
    return compiled


def _bound(prompt: Prompt, pool: FewShotPool | None, seed: int, dataset: Dataset) -> Renderer:
    """The renderer of a prompt, after a look at which of its examples are tested rows. Raises UserError."""
    renderer = prompt.bind(pool, seed)
    tested = renderer.tested(dataset) if pool is not None else set()
    if pool is None or prompt.few_shot is None or not tested:
        return renderer
    what = (
        f"{len(tested):,} of the {len(pool):,} few-shot examples of {pool.name} ask what a row of dataset "
        f"{dataset.id} asks"
    )
    if prompt.few_shot.contamination == "error":
        raise UserError(
            what,
            where=f"prompt {prompt.id}, few_shot",
            remedy="Take examples from another split or file, or set contamination: leave_out.",
        )
    if prompt.few_shot.contamination == "leave_out":
        dataset.warnings.append(f"{what}: they are left out of prompt {prompt.id}")
        return prompt.bind(pool.without(tested), seed)
    shown = sum(renderer.shows(item, tested) for item in islice(iter(dataset), _COUNTED_ROWS))
    of = min(len(dataset), _COUNTED_ROWS)
    dataset.warnings.append(
        f"prompt {prompt.id} shows {shown:,} of {of:,} samples other tested rows with their answers: {what} "
        "(few_shot: {contamination: leave_out} leaves them out, error forbids them)"
    )
    return renderer


_COUNTED_ROWS = 20_000
"""In so many rows it is counted what examples they are shown."""
_TRIED_ROWS = 8


def _try_out(prompt: Prompt, renderer: Renderer, dataset: Dataset) -> None:
    """Render the first rows, and all where a template makes up the names that it looks up: what the sandbox
    refuses must be known before anything is sent. Raises UserError."""
    every = any(map(reaches_by_computed_names, prompt.source.values()))
    for item in islice(iter(dataset), None if every else _TRIED_ROWS):
        renderer.render(item)


def _work_digest(
    loaded: LoadedSuite,
    datasets: Mapping[str, Dataset],
    compiled: _Compiled,
    judging: Judging | None,
    code: Mapping[str, JSON],
) -> str:
    """Identifies the work: two sweeps with one digest would ask and score the same."""
    return digest(
        {
            "suite": loaded.suite.work_digest_payload(),
            "datasets": {name: dataset.digest for name, dataset in datasets.items()},
            "prompts": {f"{name}/{api}": prompt.digest for (name, api), prompt in compiled.prompts.items()},
            "examples": compiled.examples,
            **({"judging": judging.digest} if judging is not None else {}),
            **({"code": dict(code)} if code else {}),
        }
    )


def scoring_code(suite: Suite, pipeline: Pipeline, base_dir: Path) -> dict[str, str]:
    """The digests of scorers and parsers that are not evalrun's own, with the modules that they import.

    They are the suite's (`python:`, also within other scorers) and those of other packages.
    """
    sections: list[JSON] = [each.resolved() for each in (*suite.parse, *suite.scorers)]
    own = [registry.import_attribute(target) for target in _python_targets(sections)]
    return code_digests([*own, *pipeline.scorers, *pipeline.parsers], base_dir)


def _python_targets(value: JSON) -> Iterator[str]:
    """What components name by `python:`, at any depth: a scorer may hold parsers and another scorer."""
    if isinstance(value, Mapping):
        target = value.get(PYTHON)
        if isinstance(target, str):
            yield target
        for each in value.values():
            yield from _python_targets(each)
    elif isinstance(value, list):
        for each in value:
            yield from _python_targets(each)


def _code_of_models(providers: Mapping[str, Provider]) -> dict[str, JSON]:
    """The digests of the functions that stand in a model's place."""
    return {
        f"model {name}": pinned.pins()
        for name, provider in providers.items()
        if provider.spec.provider == PYTHON and (pinned := capability(provider, Pinned)) is not None
    }
