"""evalrun from Python: `evalrun.run("suite.yaml")`, and what came of it as data frames, tables and charts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from evalrun.analysis import compare as comparing
from evalrun.analysis.correction import ALPHA, Correction
from evalrun.errors import UserError
from evalrun.paths import default_store
from evalrun.registry import nearest
from evalrun.suite.build import suite_text
from evalrun.suite.load import LoadedSuite, load_text
from evalrun.suite.overrides import Overrides
from evalrun.sweep.options import SweepOptions

if TYPE_CHECKING:
    import numpy
    import pandas
    from numpy.typing import NDArray

    from evalrun.analysis.pairing import Chosen
    from evalrun.explanations import Explanation
    from evalrun.reports.notebook import Plots
    from evalrun.tracking.finding import RunRow
    from evalrun.tracking.folder import SweepFolder

Ids: TypeAlias = str | Sequence[str] | None
Entries: TypeAlias = Any
"""What `suite.build.suite_text` takes for a section."""


class UnknownMetric(UserError, KeyError):
    """A run has no metric of that name; the message says what it has."""

    __str__ = UserError.__str__


class Run:
    """One finished run of a sweep: one model, one prompt, one dataset, one set of parameters.

    `metrics` are mappings with name, slice, value, n, se, ci_low, ci_high, unit, direction, method and note.
    """

    def __init__(self, folder: SweepFolder, manifest: dict[str, Any]) -> None:
        self._folder = folder
        self.id: str = manifest["run"]
        self.model: str = manifest["model"]
        self.prompt: str = manifest["prompt"]
        self.dataset: str = manifest["dataset"]
        self.params: dict[str, Any] = manifest["params"]
        self.counts: dict[str, int] = manifest["counts"]
        self.metrics: list[dict[str, Any]] = manifest["metrics"]

    def metric(self, name: str, **slice_: str) -> dict[str, Any]:
        """The metric of that name over all samples, or over a slice (`dialect="aave"`).

        Raises UnknownMetric, a KeyError that names the nearest one, when the run has no such metric.
        """
        for metric in self.metrics:
            if metric["name"] == name and metric["slice"] == slice_:
                return metric
        slices = [metric["slice"] for metric in self.metrics if metric["name"] == name]
        if slices:
            said = ", ".join(map(str, slices[:8]))
            raise UnknownMetric(f"{self.id} has no {name} for {slice_}", remedy=f"It has it for: {said}.")
        known = sorted({metric["name"] for metric in self.metrics})
        near = nearest(name, known)
        scores = [each for each in known if not each.startswith(("performance.", "memory.", "cost."))]
        remedy = f"Did you mean '{near}'?" if near else f"It has, among others: {', '.join(scores[:8])}."
        raise UnknownMetric(f"{self.id} has no metric '{name}'", remedy=remedy)

    def samples(self) -> pandas.DataFrame:
        """One row a sample: the columns of `samples.parquet`."""
        import pandas

        return pandas.read_parquet(self._folder.samples_path(self.id))

    def explain(self, sample: str, **options: Any) -> Explanation:
        """Why the model gave a sample's answer: parts of its prompt with their weights in nats.

        `options` are those of `evalrun.explain.options.Options`: method, units, target, removal, most,
        attention. Asks the model, and keeps what came of it beside the samples. Raises UserError as
        `evalrun explain` does.
        """
        from evalrun.explain.main import explain_run
        from evalrun.explain.options import Options

        store = self._folder.path.parent.parent
        done = explain_run(self._folder, self.id, Options(**options), wanted=[sample], store=store)
        return done.samples[0]

    def attention(self, explanation: Explanation) -> NDArray[numpy.float32]:
        """The whole maps of attention of an explanation that was made with `attention=1`: shares as float32,
        layers by heads by tokens by tokens. They say where heads look, not what the answer depends on.

        Raises UserError where none were kept.
        """
        from evalrun.explain.attention import read_maps

        attention = explanation.attention
        return read_maps(self._folder.run_dir(self.id), attention.key if attention is not None else "")

    def __repr__(self) -> str:
        return f"Run({self.id!r})"


class Sweep:
    """One execution of a suite, as it is on disk. In a notebook it shows its leaderboard."""

    def __init__(self, folder: SweepFolder, report: Path | None = None, exit_code: int | None = None) -> None:
        self._folder = folder
        self.manifest: dict[str, Any] = folder.read_manifest()
        self.id: str = self.manifest["sweep"]
        self.name: str = self.manifest["name"]
        self.project: str = self.manifest["project"]
        self.status: str = self.manifest["status"]
        self.exit_code: int | None = self.manifest["exit_code"] if exit_code is None else exit_code
        self.gates: list[dict[str, Any]] = self.manifest["gates"]
        self.report = report
        self.runs = [Run(folder, manifest) for manifest in folder.runs()]

    @property
    def path(self) -> Path:
        """The sweep's folder."""
        return self._folder.path

    def run(self, which: str | int) -> Run:
        """A run by its number, its id, or any part of its id that only one run has. Raises UserError."""
        if isinstance(which, int):
            return self.runs[which]
        matches = [run for run in self.runs if run.id == which] or [r for r in self.runs if which in r.id]
        if len(matches) == 1:
            return matches[0]
        what = (
            f"'{which}' is in the names of {len(matches)} runs" if matches else f"there is no run '{which}'"
        )
        raise UserError(what, remedy=f"There are: {', '.join(run.id for run in matches or self.runs)}.")

    def leaderboard(self) -> pandas.DataFrame:
        """One row a run, by dataset and from best to worst.

        Columns: run, model, prompt, dataset, one for each parameter, standing ("best", "tied", "behind",
        "incomparable"), the metric they are ranked by with ci_low, ci_high and n, the difference from the
        best run with diff_low, diff_high and its corrected p, then every other metric over all samples.
        """
        import pandas

        from evalrun.analysis.conclude import read_sweep

        concluded = read_sweep(self._folder)
        primary = concluded.results.primary
        order = {place.run: at for at, place in enumerate(concluded.results.standings)}
        rows = []
        for run in sorted(concluded.runs, key=lambda run: order.get(run.run, len(order))):
            place = concluded.results.standings[order[run.run]] if run.run in order else None
            row: dict[str, Any] = {
                "run": run.run, "model": run.model, "prompt": run.prompt, "dataset": run.dataset,
                **run.params, "standing": place.verdict if place else "incomparable",
            }  # fmt: skip
            if primary is not None and (first := run.metric(primary.metric)) is not None:
                ends = {"ci_low": first.ci_low, "ci_high": first.ci_high, "n": first.n}
                row |= {primary.metric: first.value, **ends}
            if place is not None and place.difference is not None:
                row |= {"difference": _negative(place.difference), "p": place.p}
                row |= {"diff_low": _negative(place.ci_high), "diff_high": _negative(place.ci_low)}
            row |= {m.name: m.value for m in run.metrics if not m.slice and m.name not in row}
            rows.append(row)
        return pandas.DataFrame(rows)

    def metrics(self) -> pandas.DataFrame:
        """One row a metric, run and slice, with n, se, interval, unit and direction."""
        return self._frame(lambda run: run.metrics)

    def samples(self) -> pandas.DataFrame:
        """One row a sample and run: the columns of `samples.parquet` after those that name the run.

        `model` and `prompt` are ids of the suite; what a response said of its model is in `answered_by`, the
        text that was sent in `messages` or `prompt_text`.
        """
        import pandas

        frames = []
        for run in self.runs:
            frame = run.samples().rename(columns={"model": "answered_by", "prompt": "prompt_text"})
            names = {"run": run.id, "model": run.model, "prompt": run.prompt, "dataset": run.dataset}
            for at, (name, value) in enumerate(names.items()):
                frame.insert(at, name, value)
            frames.append(frame)
        return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame()

    def compare(
        self,
        *others: Sweep | Run | str | Path,
        metrics: Sequence[str] = (),
        margin: float | None = None,
        common: bool = False,
        correction: Correction = "holm",
        alpha: float = ALPHA,
        seed: int | None = None,
    ) -> Comparison:
        """Compare others with this sweep, sample by sample; alone, its runs with each other.

        The arguments are those of `evalrun.compare`.
        """
        options = comparing.CompareOptions(tuple(metrics), margin, common, correction, alpha, seed)
        return _compare([_chosen(each, self._folder.path.parent.parent) for each in (self, *others)], options)

    @cached_property
    def plot(self) -> Plots:
        """The report's charts: `.quality()`, `.differences()`, `.latency()`, `.load()`, `.groups()`."""
        from evalrun.reports.notebook import Plots

        return Plots(self._folder)

    def _frame(self, rows: Callable[[Run], Sequence[Mapping[str, Any]]]) -> pandas.DataFrame:
        import pandas

        return pandas.DataFrame(
            [
                {"run": run.id, "model": run.model, "prompt": run.prompt, "dataset": run.dataset, **row}
                for run in self.runs
                for row in rows(run)
            ]
        )

    def __repr__(self) -> str:
        return f"Sweep({self.id!r}, {self.status}, {len(self.runs)} runs)"

    def _repr_html_(self) -> str:
        from evalrun.reports.notebook import sweep_html

        return sweep_html(self._folder)


def _negative(value: float | None) -> float | None:
    """Stored is best - run; shown is run - best, so that a worse run stands below zero, as in the report."""
    return None if value is None else 0.0 - value


class Comparison(comparing.Comparison):
    """What was compared, as `evalrun compare` has it. In a notebook it shows a table with intervals."""

    def to_frame(self) -> pandas.DataFrame:
        """One row a metric and pair of runs: values, difference, interval, p corrected, verdict.

        Of a sweep compared within itself: one row a run, against the best of its dataset.
        """
        import pandas

        rows = [
            {
                "metric": each.metric, "run": each.b.run, "against": each.a.run, "n": each.result.n,
                "value": each.result.mean_b, "value_against": each.result.mean_a,
                "difference": each.result.difference, "ci_low": each.result.ci_low,
                "ci_high": each.result.ci_high, "p": each.p_corrected, "verdict": each.verdict.word,
            }
            for each in self.compared
        ]  # fmt: skip
        rows += [
            {
                "metric": board.metric, "run": place.run.run, "against": board.places[0].run.run,
                "n": board.n, "value": place.mean.value, "value_against": board.places[0].mean.value,
                "difference": _negative(place.behind), "ci_low": _negative(place.behind_high),
                "ci_high": _negative(place.behind_low), "p": place.p, "verdict": place.verdict,
            }
            for board in self.standings
            for place in board.places
        ]  # fmt: skip
        return pandas.DataFrame(rows)

    def _repr_html_(self) -> str:
        from evalrun.reports.notebook import comparison_html

        return comparison_html(self)


class Store:
    """The sweeps of a store."""

    def __init__(self, path: str | Path | None = None) -> None:
        from evalrun.tracking.store import Store as Folders

        self._store = Folders(Path(path) if path is not None else default_store())

    def sweep(self, which: str = "latest") -> Sweep:
        """A sweep as the command line names it: an id's beginning, a name, `latest`. Raises UserError."""
        return Sweep(self._store.resolve(which))

    def find(
        self,
        query: str = "",
        *,
        sort: Sequence[str] = (),
        metrics: Sequence[str] = (),
        limit: int | None = 50,
        archived: bool = False,
    ) -> pandas.DataFrame:
        """The runs that a query finds, one row each: `open_store().find('metric.exact_match > 0.8')`.

        `sort` are names (`-` in front: downwards), `metrics` more of them to show. A parameter is the column
        `param.NAME`, a tag `tag.NAME`, a metric the column of its name with NAME.n, NAME.ci_low and
        NAME.ci_high. Raises UserError that points at what is wrong in the query.
        """
        import pandas

        from evalrun.tracking.finding import RunRow

        rows = self.rows(query, sort=sort, metrics=metrics, limit=limit, archived=archived)
        found = pandas.DataFrame([_flat(row) for row in rows])
        if rows:
            return found
        plain = [own.name for own in fields(RunRow) if own.name not in ("params", "tags", "metrics")]
        return found.reindex(columns=[*plain, *metrics, *re.findall(r"\bmetric\.([\w.]+)", query)])

    def rows(
        self,
        query: str = "",
        *,
        sort: Sequence[str] = (),
        metrics: Sequence[str] = (),
        limit: int | None = 50,
        archived: bool = False,
    ) -> list[RunRow]:
        """The same as typed rows."""
        from evalrun.tracking.finding import Search

        search = Search.of(query, sort=sort, metrics=metrics, limit=limit, archived=archived)
        return [*self._store.find(search).rows]

    def list(self, limit: int = 20, project: str | None = None) -> list[Any]:
        """The newest sweeps as catalog rows."""
        return list(self._store.list(limit=limit, project=project))

    def __repr__(self) -> str:
        return f"Store({str(self._store.root)!r})"


def _flat(row: RunRow) -> dict[str, Any]:
    flat = {name.name: getattr(row, name.name) for name in fields(row)}
    params, tags, metrics = flat.pop("params"), flat.pop("tags"), flat.pop("metrics")
    for name, metric in metrics.items():
        parts = metric or {}
        flat[name] = parts.get("value")
        flat |= {f"{name}.{part}": parts.get(part) for part in ("n", "ci_low", "ci_high")}
    flat |= {f"param.{name}": value for name, value in params.items()}
    return flat | {f"tag.{name}": value for name, value in tags.items()}


class Suite:
    """A suite made in Python, as good as one in a file: the same keys, checked when it is made.

    `models`, `prompts` and `datasets` take lists of entries as YAML has them, or mappings from id to entry; a
    prompt may be its text, a dataset a list of rows, a pandas DataFrame or a path, a model, a parser or a
    scorer a Python function. Relative paths start at `folder` (default: the current one). Raises UserError
    with everything that is wrong.

        suite = evalrun.Suite(
            "triage",
            models={"small": {"provider": "llamacpp", "model": "smollm2-135m-instruct"}},
            prompts={"direct": "Which team? {{ text }}"},
            datasets={"tickets": {"rows": frame, "target": "team"}},
            scorers=["includes"],
        )
        sweep = evalrun.run(suite, limit=20)
    """

    def __init__(
        self,
        name: str,
        *,
        models: Entries,
        prompts: Entries = None,
        datasets: Entries = None,
        scorers: Entries = None,
        tasks: Entries = None,
        task_data: str | Path | None = None,
        task_files: Mapping[str, Any] | None = None,
        project: str | None = None,
        description: str | None = None,
        seed: int | None = None,
        judges: Entries = None,
        sweep: Mapping[str, Sequence[Any]] | None = None,
        repeats: int | None = None,
        parse: Entries = None,
        derive: Mapping[str, str] | None = None,
        fairness: Mapping[str, Any] | None = None,
        performance: Mapping[str, Any] | None = None,
        load: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float | None] | None = None,
        report: Mapping[str, Any] | None = None,
        explain: Mapping[str, Any] | None = None,
        search: Mapping[str, Any] | None = None,
        privacy: Mapping[str, Any] | None = None,
        retention: Mapping[str, Any] | None = None,
        stop_early: Mapping[str, Any] | None = None,
        probe: Mapping[str, Any] | None = None,
        gates: Sequence[str] | None = None,
        inconclusive: Literal["warn", "fail"] | None = None,
        baseline: str | None = None,
        nightly: Mapping[str, Any] | None = None,
        alerts: Mapping[str, Any] | None = None,
        sinks: Sequence[Any] | None = None,
        checkpoints: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        include: Sequence[Mapping[str, Any]] | None = None,
        exclude: Sequence[Mapping[str, Any]] | None = None,
        unparsed: Literal["count", "exclude"] | None = None,
        budget: Mapping[str, Any] | None = None,
        allow: Sequence[str] | None = None,
        errors: Mapping[str, Any] | None = None,
        deterministic: bool | None = None,
        folder: str | Path | None = None,
    ) -> None:
        given = {key: value for key, value in locals().items() if key not in ("self", "folder", "__class__")}
        self._text = suite_text(given)
        self._path = Path(folder or Path.cwd()) / f"{name}.yaml"
        self._load(Overrides())

    def _load(self, overrides: Overrides) -> LoadedSuite:
        return load_text(self._text, self._path, overrides)

    def to_yaml(self) -> str:
        """The suite as a file would have it."""
        return self._text

    def save(self, path: str | Path) -> Path:
        """Write it as a suite file, which the command line runs."""
        Path(path).write_text(self._text, encoding="utf-8")
        return Path(path)

    def __repr__(self) -> str:
        return f"Suite({self._path.stem!r})"


def run(
    suite: str | Path | Suite,
    *,
    limit: int | None = None,
    models: Ids = None,
    prompts: Ids = None,
    datasets: Ids = None,
    overrides: Mapping[str, Any] | Overrides | None = None,
    store: str | Path | None = None,
    report: str | Path | None = None,
    write_report: bool = True,
    use_cache: bool = True,
    fresh: bool = False,
    baseline: str | None = None,
    inconclusive: Literal["warn", "fail"] | None = None,
    reuse: bool = False,
    use_lock: bool = True,
) -> Sweep:
    """Run a suite, a file or a `Suite`, and return the sweep.

    `limit` is the number of rows of every dataset; `models`, `prompts`, `datasets` name those to keep;
    `overrides` maps dotted paths to values ({"models.small.params.temperature": 0.7}), as `--set` does.
    `store` and `report` say where things go, `fresh` begins anew where an unfinished sweep could go on,
    `baseline` is what gates compare with, `reuse` takes over equal runs of earlier sweeps.

    Raises UserError when the suite is invalid; a sweep that could not be completed is returned with its
    `status` and `exit_code`.
    """
    from evalrun.reports.progress import make_progress
    from evalrun.sweep.main import run_sweep

    changes = overrides if isinstance(overrides, Overrides) else _overrides(overrides or {})
    kept = {"models": models, "prompts": prompts, "datasets": datasets}
    chosen = {name: (ids,) if isinstance(ids, str) else tuple(ids) for name, ids in kept.items() if ids}
    changes = Overrides(
        limit=limit if limit is not None else changes.limit,
        data=changes.data,
        sets=changes.sets,
        **{name: chosen.get(name, getattr(changes, name)) for name in kept},
    )
    options = SweepOptions(
        overrides=changes, store=Path(store) if store is not None else default_store(),
        report=Path(report) if report is not None else None, write_report=write_report,
        use_cache=use_cache, fresh=fresh, baseline=baseline, inconclusive=inconclusive, reuse=reuse,
        use_lock=use_lock,
    )  # fmt: skip
    what = suite._load(changes) if isinstance(suite, Suite) else Path(suite)
    outcome = run_sweep(what, options, make_progress(quiet=True))
    return Sweep(outcome.folder, outcome.report, int(outcome.exit_code))


def _overrides(values: Mapping[str, Any]) -> Overrides:
    import orjson

    return Overrides(sets=tuple(f"{path}={orjson.dumps(value).decode()}" for path, value in values.items()))


def open_store(path: str | Path | None = None) -> Store:
    """Open a store: the given folder, else `$EVALRUN_STORE`, else `.evalrun`."""
    return Store(path)


def find(query: str = "", *, store: str | Path | None = None, limit: int | None = 50) -> pandas.DataFrame:
    """The runs of a store that a query finds, one row each; see `Store.find`."""
    return Store(store).find(query, limit=limit)


def compare(
    a: Sweep | Run | str | Path,
    *others: Sweep | Run | str | Path,
    store: str | Path | None = None,
    metrics: Sequence[str] = (),
    margin: float | None = None,
    common: bool = False,
    correction: Correction = "holm",
    alpha: float = ALPHA,
    seed: int | None = None,
) -> Comparison:
    """Compare sweeps or runs sample by sample: each of the others against `a`; a sweep alone within itself.

    Each is a Sweep, a Run, or what the command line takes (SWEEP, SWEEP/RUN, a folder). `metrics` names those
    to compare (default: the score of every scorer); `margin` is the difference below which runs count as
    equivalent; `common` compares different datasets by the samples that both have. Raises UserError where
    datasets differ and `common` is not set, and for unknown metrics.
    """
    options = comparing.CompareOptions(tuple(metrics), margin, common, correction, alpha, seed)
    where = Path(store) if store is not None else default_store()
    return _compare([_chosen(each, where) for each in (a, *others)], options)


def _compare(chosen: Sequence[Chosen], options: comparing.CompareOptions) -> Comparison:
    made = comparing.compare(chosen, options)
    return Comparison(**{own.name: getattr(made, own.name) for own in fields(made)})


def _chosen(what: Sweep | Run | str | Path, store: Path) -> Chosen:
    from evalrun.analysis.pairing import Chosen, choose
    from evalrun.tracking.store import Store as Folders

    if isinstance(what, Run):
        return Chosen(what._folder, what.id)
    if isinstance(what, Sweep):
        return Chosen(what._folder)
    return choose(Folders(store), str(what))
