"""Everything that can go wrong before a model is called, found before a model is called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from evalrun.canonical import digest
from evalrun.datasets import Dataset, open_dataset
from evalrun.errors import Problem, Problems
from evalrun.frozen import frozen
from evalrun.gates.conditions import Gate
from evalrun.prompts import Prompt, Renderer, compile_prompt, with_variants
from evalrun.providers.base import Provider, ProviderContext, create
from evalrun.providers.batch_api import batch_api_of
from evalrun.scoring.pipeline import Pipeline, suite_scorers
from evalrun.suite.load import LoadedSuite
from evalrun.suite.plan import RunSpec, cells, matrix
from evalrun.sweep.code import code_of_models, scoring_code
from evalrun.sweep.conditions import parse_alerts, parse_gates, unknown_conditions
from evalrun.sweep.estimate import budget_problems
from evalrun.sweep.explaining import explain_problems
from evalrun.sweep.fits import models_without_columns, prompts_beyond_models
from evalrun.sweep.prompting import Compiled, api_of, compile_prompts, emptied
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.gates.alerts import Alert
    from evalrun.privacy.redact import Redactor
    from evalrun.privacy.sealed import Seal
    from evalrun.scoring.base import Scorer
    from evalrun.suite.schema import Suite
    from evalrun.sweep.judging import Judging
    from evalrun.tasks.plan import TaskPlan
    from evalrun.types import SampleRecord


@frozen
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
    """What removes personal data before anything is stored, where the suite says so."""
    seal: Seal | None = None
    """Under what answers are cached, where the suite redacts them and has them cached."""

    @property
    def redact_record(self) -> Callable[[SampleRecord], SampleRecord] | None:
        """What is journalled in the place of a record."""
        return None if self.redactor is None else self.redactor.record

    def pipeline_of(self, spec: RunSpec) -> Pipeline:
        """What reads the answers of a run: the prompt's or the suite's parsers, and the scorers; nothing
        where lm_eval does."""
        if self.tasks is not None and self.tasks.of(spec) is not None:
            return Pipeline((), (), "never")
        return self.pipeline.for_prompt(spec.prompt)

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


def prepare(loaded: LoadedSuite, work_dir: Path, store: Path | None = None) -> PreparedSweep:
    """Open the datasets, compile and check the prompts, build scorers and providers.

    Sends nothing to any model. `work_dir` is where managed engines will keep their logs, `store` where the
    key of pseudonyms is (None: nothing will be stored). Raises UserError with all problems found.
    """
    tasks = _plan_tasks(loaded, work_dir)
    problems = Problems()
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
    problems: Problems,
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
    compiled = compile_prompts(loaded, specs, datasets, problems)
    problems.found.extend(emptied(specs, datasets, compiled))
    own = tuple(datasets.values())
    if tasks is not None:
        _add_tasks(tasks, task_specs, datasets, compiled)
        specs = (*specs, *task_specs)
    pipeline = _pipeline(suite, own, problems)
    gates = parse_gates(loaded, problems)
    alerts = parse_alerts(loaded, problems)
    if pipeline is not None and (gates or alerts):
        scorers = _all_scorers(pipeline, task_specs)
        problems.found.extend(unknown_conditions(loaded, specs, scorers, gates, alerts))
    context = ProviderContext(
        base_dir=loaded.base_dir, work_dir=work_dir, deterministic=suite.deterministic, seed=suite.seed
    )
    providers = _providers(loaded, specs, context, problems)
    judging = None
    if pipeline is not None and any(scorer.asks for scorer in pipeline.scorers):
        with problems.collect():
            judging = _judging(loaded, pipeline, context, providers, datasets)
    problems.found.extend(prompts_beyond_models(specs, providers))
    problems.found.extend(models_without_columns(specs, providers, datasets))
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
        work_digest=_work_digest(loaded, datasets, compiled, judging, {**code, **code_of_models(providers)}),
    )


def _pipeline(suite: Suite, datasets: Iterable[Dataset], problems: Problems) -> Pipeline | None:
    """The suite's parsers and scorers, whose columns the rows have. None where they cannot be built."""
    with problems.collect():
        pipeline = Pipeline([parser.build() for parser in suite.parse], suite_scorers(suite), "at once")
        for prompt in suite.prompts:
            pipeline.for_prompt(prompt)
        for dataset in datasets:
            for scorer in pipeline.scorers:
                problems.found.extend(scorer.check(dataset.columns, f"dataset {dataset.id}"))
        return pipeline
    return None


def _providers(
    loaded: LoadedSuite, specs: Sequence[RunSpec], context: ProviderContext, problems: Problems
) -> dict[str, Provider]:
    """What the models are asked through, by model."""
    providers: dict[str, Provider] = {}
    for spec in specs:
        if spec.model.id not in providers:
            with problems.collect():
                provider = create(spec.model, context)
                if loaded.suite.performance.workers and batch_api_of(provider) is None:
                    provider = _spread(loaded, provider)
                providers[spec.model.id] = provider
    return providers


def _check_sinks(suite: Suite, problems: Problems) -> None:
    """A sink whose package or variable is missing is known before anything is asked."""
    for sink in suite.sinks:
        with problems.collect():
            sink.build()


def _seal(
    loaded: LoadedSuite, redactor: Redactor | None, store: Path | None, problems: Problems
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
    compiled: Compiled,
    store: Path | None,
    problems: Problems,
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


def _add_tasks(
    tasks: TaskPlan, specs: Sequence[RunSpec], datasets: dict[str, Dataset], compiled: Compiled
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


def _open_datasets(
    loaded: LoadedSuite, specs: tuple[RunSpec, ...], problems: Problems, store: Path | None
) -> dict[str, Dataset]:
    datasets: dict[str, Dataset] = {}
    for spec in {spec.dataset.id: spec.dataset for spec in specs}.values():
        with problems.collect():
            datasets[spec.id] = open_dataset(spec, loaded.base_dir, loaded.suite.seed, store=store)
    return datasets


def _work_digest(
    loaded: LoadedSuite,
    datasets: Mapping[str, Dataset],
    compiled: Compiled,
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
