"""Asks some samples of a stored sweep again, and says how far answers and scores agree with those it holds.

What is sent is what was sent: messages, parameters and seeds stand with the samples. The suite is the one in
the manifest; the cache is passed over; nothing in the sweep changes. Judges are not asked again, and prompts
that ask for likelihoods are passed over.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.errors import Problem, UserError
from evalrun.runner.cache import sent_params
from evalrun.sweep.private import refuse_redacted
from evalrun.sweep.stored import key_of, stored_samples
from evalrun.tracking.folder import SweepFolder
from evalrun.types import Message, SampleRecord

if TYPE_CHECKING:
    from evalrun.datasets import Item
    from evalrun.prompts.rendering import Rendered
    from evalrun.providers.base import Provider
    from evalrun.scoring.pipeline import Pipeline
    from evalrun.suite.plan import RunSpec
    from evalrun.suite.schema import Suite

ALPHA = 0.05
_EXAMPLES = 3
LOCAL = frozenset({"llamacpp", "vllm", "recorded", "python"})


@dataclass(frozen=True, slots=True)
class MetricAgreement:
    """A scorer's mean then and now over the samples that were asked again; `difference` is now - then, with
    its 95 % interval and the p of a paired test. `differs` says that it is more than chance."""

    name: str
    before: float | None
    after: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    p: float | None
    n: int
    differs: bool = False


@dataclass(frozen=True, slots=True)
class RunAgreement:
    """One run: of `asked` samples, how many had the same output and the same answer, and how many failed now.

    `changed` are the parts of the model's identity that are not what they were; `kind` says how alike the
    answers can be expected to be: greedy-local, seeded or remote.
    """

    run: str
    kind: str
    asked: int
    same_output: int
    same_answer: int
    failed: int
    metrics: tuple[MetricAgreement, ...]
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    examples: tuple[dict[str, Any], ...] = ()

    @property
    def share(self) -> float:
        """Of the samples that were answered again, those with the very same output."""
        answered = self.asked - self.failed
        return self.same_output / answered if answered else 0.0


def verify_runs(
    folder: SweepFolder, *, samples: int = 50, run: str | None = None, work_dir: Path | None = None
) -> list[RunAgreement]:
    """Ask `samples` samples again, spread over the runs of the sweep (or of one of them).

    Which ones depends on the sweep alone. Raises UserError where nothing can be asked: exit 2 for a sweep
    without finished runs, exit 3 where a model is not to be had.
    """
    from evalrun.suite.plan import matrix
    from evalrun.tracking.samples import find_run

    manifest = folder.read_manifest()
    if not manifest["suite"].get("resolved"):
        raise UserError("the sweep's manifest holds no suite", where=folder.path.name)
    refuse_redacted(manifest, folder.path.name, "ask it again")
    suite = _stored_suite(manifest["suite"]["resolved"], folder)
    base_dir = Path(manifest["suite"].get("path") or ".").absolute().parent
    specs = {spec.run_id: spec for spec in matrix(suite)}
    if not specs and suite.tasks:
        raise UserError(
            "runs of published tasks are not asked again by verify",
            where=folder.path.name,
            remedy="Run the suite again with --fresh --no-cache, and compare the two sweeps.",
        )
    ids = [find_run(folder, run)] if run is not None else folder.run_ids()
    finished = [id_ for id_ in ids if id_ in specs and folder.is_finished(id_)]
    if not finished:
        raise UserError("the sweep has no finished run", where=folder.path.name)
    chosen = [each for each in finished if specs[each].prompt.ask is None]
    if not chosen:
        raise UserError("only answers in words can be asked again, not likelihoods", where=folder.path.name)
    share, rest = divmod(samples, len(chosen))
    counts = {each: share + (at < rest) for at, each in enumerate(chosen)}
    with tempfile.TemporaryDirectory(prefix="evalrun-verify-") as temporary:
        check = _Check(folder, suite, base_dir, Path(temporary), work_dir or Path(temporary))
        found = asyncio.run(
            check.all({specs[each].run_id: specs[each] for each in chosen if counts[each]}, counts)
        )
    return _judged(found)


def _stored_suite(resolved: dict[str, Any], folder: SweepFolder) -> Suite:
    from evalrun.secrets import MASK
    from evalrun.suite.load import parse_suite

    try:
        return parse_suite(resolved)
    except UserError as error:
        what = "the suite held a secret, which is not stored: name keys by api_key_env"
        lost = [Problem(what, folder.path.name)] if MASK in str(resolved) else []
        raise UserError([*error.problems, *lost]) from error


class _Check:
    def __init__(
        self, folder: SweepFolder, suite: Suite, base_dir: Path, temporary: Path, work_dir: Path
    ) -> None:
        from evalrun.scoring.pipeline import Pipeline, suite_scorers

        self._folder, self._suite, self._base_dir = folder, suite, base_dir
        self._temporary, self._work_dir = temporary, work_dir
        self._pipeline: Pipeline = Pipeline([each.build() for each in suite.parse], suite_scorers(suite))

    async def all(self, specs: Mapping[str, RunSpec], counts: Mapping[str, int]) -> list[RunAgreement]:
        from evalrun.providers.base import ProviderContext, create

        context = ProviderContext(
            self._base_dir, self._work_dir, deterministic=self._suite.deterministic, seed=self._suite.seed
        )
        found: list[RunAgreement] = []
        for model_id in dict.fromkeys(spec.model.id for spec in specs.values()):
            of_model = [spec for spec in specs.values() if spec.model.id == model_id]
            provider = create(of_model[0].model, context)
            try:
                await provider.start()
                found += [await self._run(spec, provider, counts[spec.run_id]) for spec in of_model]
            finally:
                await provider.close()
        return sorted(found, key=lambda each: list(specs).index(each.run))

    async def _run(self, spec: RunSpec, provider: Provider, count: int) -> RunAgreement:
        from evalrun.runner.cell import Cell, CellContext, CellOptions, CellRun, Stop
        from evalrun.runner.journal import Journal
        from evalrun.runner.limits import Throttle
        from evalrun.sweep.endpoints import limit_of

        before = _chosen(self._folder.samples_path(spec.run_id), count)
        performance, stored = self._suite.performance, _Stored(before)
        collected: dict[tuple[str, int], SampleRecord] = {}
        journal = Journal(self._temporary / f"{len(list(self._temporary.iterdir()))}.jsonl")
        # Each stored sample stands for one repeat.
        reader = self._pipeline.for_prompt(spec.prompt)
        cell = Cell(spec.run_id, stored, stored, provider, reader, sent_params(spec))
        options = CellOptions(
            stream=performance.stream and "stream" in provider.supports,
            warmup=0,
            timeout_s=spec.model.timeout_s or performance.timeout_s,
            retries=performance.retries,
            seed=self._suite.seed,
            tolerate=1.0,
        )
        limit = limit_of(self._suite, spec.model, provider, {})
        context = CellContext(journal, None, Throttle(limit), _Collector(collected), Stop())
        try:
            await CellRun(cell, options, context).run()
        finally:
            await journal.close()
        return self._compared(spec, provider, before, collected)

    def _compared(
        self,
        spec: RunSpec,
        provider: Provider,
        before: Sequence[Mapping[str, Any]],
        after: Mapping[tuple[str, int], SampleRecord],
    ) -> RunAgreement:
        pairs = [(row, after.get((str(row["sample_id"]), int(row["repeat"])))) for row in before]
        answered = [(row, now) for row, now in pairs if now is not None and now.status != "failed"]
        differing = [(row, now) for row, now in answered if row["output"] != now.output]
        return RunAgreement(
            run=spec.run_id,
            kind=_kind(spec),
            asked=len(pairs),
            same_output=len(answered) - len(differing),
            same_answer=sum(_same_answer(row, now) for row, now in answered),
            failed=len(pairs) - len(answered),
            metrics=tuple(_metrics(answered)),
            changed=_changed(self._folder.identity(spec.model.id), provider.identity()),
            examples=tuple(
                {"sample_id": row["sample_id"], "before": row["output"], "after": now.output}
                for row, now in differing[:_EXAMPLES]
            ),
        )


class _Collector:
    """Takes the records as they come."""

    def __init__(self, into: dict[tuple[str, int], SampleRecord]) -> None:
        self._into = into

    def sample(self, run_id: str, record: SampleRecord) -> None:
        """Keep it."""
        self._into[record.sample_id, record.repeat] = record


class _Stored:
    """Stored samples, asked as they were: they stand for a dataset and for the renderer of its prompt."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._rows = {key_of(row): row for row in rows}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Item]:
        from evalrun.datasets import Item

        for at, ((sample_id, repeat), row) in enumerate(self._rows.items()):
            yield Item(sample_id, at, row["row"], row["target"], repeat=repeat)

    def render(self, item: Item) -> Rendered:
        from evalrun.prompts.rendering import Rendered

        row = self._rows[item.sample_id, item.repeat or 0]
        messages = tuple(Message(message["role"], message["content"]) for message in row["messages"] or ())
        return Rendered(messages, row["prompt"])


def _chosen(path: Path, count: int) -> list[dict[str, Any]]:
    """The samples to ask again: of those answered, the `count` whose ids have the smallest hashes."""
    from evalrun.tracking.parquet import iter_samples

    names = ("sample_id", "repeat", "status")
    ranked = sorted(
        (hashlib.sha256(f"{row['sample_id']}\0{row['repeat']}".encode()).digest(), key_of(row))
        for row in iter_samples(path, columns=list(names))
        if row["status"] != "failed"
    )
    wanted = {key for _, key in ranked[:count]}
    return [row for row in stored_samples(path, ("score.",)) if key_of(row) in wanted]


def _kind(spec: RunSpec) -> str:
    greedy = spec.params.get("temperature", 1) == 0
    if spec.model.provider in LOCAL:
        return "greedy-local" if greedy else "seeded"
    return "remote"


def _same_answer(row: Mapping[str, Any], now: SampleRecord) -> bool:
    from evalrun.tracking.columns import text_form

    before: tuple[object, object] = (row["status"], row["answer"])
    return before == (str(now.status), text_form(now.answer))


def _metrics(pairs: Sequence[tuple[Mapping[str, Any], SampleRecord]]) -> Iterator[MetricAgreement]:
    import numpy as np

    from evalrun.analysis.paired import paired_difference

    for name in dict.fromkeys(name for _, now in pairs for name in now.scores):
        both = [
            (row["sample_id"], float(then), float(new))
            for row, now in pairs
            if (then := row.get(f"score.{name}")) is not None and (new := now.scores.get(name)) is not None
        ]
        if not both:
            continue
        ids, a, b = (np.array(side) for side in zip(*both, strict=True))
        repeated = len(set(ids.tolist())) < len(ids)
        found = paired_difference(a, b, ids if repeated else None)
        yield MetricAgreement(
            name=name,
            before=found.mean_a,
            after=found.mean_b,
            difference=found.difference,
            ci_low=found.ci_low,
            ci_high=found.ci_high,
            p=found.p,
            n=len(both),
        )


def _judged(found: list[RunAgreement]) -> list[RunAgreement]:
    """Which scorers differ, all tests of the sweep taken together (Holm): many runs are many chances."""
    from evalrun.analysis.correction import holm

    adjusted = iter(holm([metric.p for each in found for metric in each.metrics]))

    def judged(metric: MetricAgreement) -> MetricAgreement:
        p = next(adjusted)
        return replace(metric, differs=p is not None and p < ALPHA)

    return [replace(each, metrics=tuple(map(judged, each.metrics))) for each in found]


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What the model is otherwise than it was then: weights, engine, settings."""
    return {
        key: (before.get(key), now.get(key))
        for key in dict.fromkeys([*before, *now])
        if before and before.get(key) != now.get(key)
    }


def as_document(folder: SweepFolder, found: Sequence[RunAgreement]) -> dict[str, Any]:
    """The result as JSON."""
    runs = [{**asdict(each), "share": each.share} for each in found]
    asked = sum(each.asked - each.failed for each in found)
    same = sum(each.same_output for each in found)
    return {
        "sweep": folder.ulid,
        "asked": sum(each.asked for each in found),
        "failed": sum(each.failed for each in found),
        "same_output": same,
        "share": same / asked if asked else 0.0,
        "differs": any(metric.differs for each in found for metric in each.metrics),
        "runs": runs,
    }
