"""evalrun from Python: `evalrun.run("suite.yaml")`, and what came of it as data frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.paths import default_store
from evalrun.sweep.options import SweepOptions

if TYPE_CHECKING:
    import pandas

    from evalrun.analysis.compare import Comparison
    from evalrun.analysis.pairing import Chosen
    from evalrun.tracking.finding import RunRow
    from evalrun.tracking.folder import SweepFolder
    from evalrun.tracking.store import Store


class Run:
    """One finished run of a sweep: one model, one prompt, one dataset, one set of parameters."""

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

        Raises KeyError when the run has no such metric.
        """
        for metric in self.metrics:
            if metric["name"] == name and metric["slice"] == slice_:
                return metric
        raise KeyError(f"{name} {slice_}" if slice_ else name)

    def samples(self) -> pandas.DataFrame:
        """One row a sample: the columns of `samples.parquet`."""
        import pandas

        return pandas.read_parquet(self._folder.run_dir(self.id) / "samples.parquet")

    def __repr__(self) -> str:
        return f"Run({self.id!r})"


class Sweep:
    """One execution of a suite, as it is on disk."""

    def __init__(self, folder: SweepFolder, report: Path | None = None, exit_code: int | None = None) -> None:
        self._folder = folder
        self.manifest: dict[str, Any] = folder.read_manifest()
        self.id: str = self.manifest["sweep"]
        self.status: str = self.manifest["status"]
        self.exit_code: int | None = self.manifest["exit_code"] if exit_code is None else exit_code
        self.report = report
        self.runs = [Run(folder, each) for each in folder.runs()]

    @property
    def path(self) -> Path:
        """The sweep's folder."""
        return self._folder.path

    def __repr__(self) -> str:
        return f"Sweep({self.id!r}, {self.status}, {len(self.runs)} runs)"


class OpenStore:
    """The sweeps of a store."""

    def __init__(self, path: Path) -> None:
        from evalrun.tracking.store import Store

        self._store = Store(path)

    def sweep(self, which: str = "latest") -> Sweep:
        """A sweep by any unique beginning of its id, by name, or the latest. Raises UserError."""
        return Sweep(self._store.resolve(which))

    def find(self, query: str = "", **options: Any) -> list[RunRow]:
        """The runs that a query finds: `open_store().find('metric.exact_match > 0.8')`.

        `options` are those of `Search.of`: sort, metrics, limit (50), archived. Raises UserError that points
        at what is wrong in the query.
        """
        from evalrun.tracking.finding import Search

        return [*self._store.find(Search.of(query, **options)).rows]

    def list(self, limit: int = 20, project: str | None = None) -> list[Any]:
        """The newest sweeps as catalog rows."""
        return list(self._store.list(limit=limit, project=project))


def run(suite: str | Path, **options: Any) -> Sweep:
    """Run a suite file and return the sweep.

    `options` are those of `SweepOptions`: overrides, store, report, write_report, use_cache, fresh.
    Raises UserError when the suite is invalid; a sweep that could not be completed is returned with its
    `status` and `exit_code`.
    """
    from evalrun.reports.progress import make_progress
    from evalrun.sweep.main import run_sweep

    outcome = run_sweep(Path(suite), SweepOptions(**options), make_progress(quiet=True))
    return Sweep(outcome.folder, outcome.report, int(outcome.exit_code))


def open_store(path: str | Path | None = None) -> OpenStore:
    """Open a store: the given folder, else `$EVALRUN_STORE`, else `.evalrun`."""
    return OpenStore(Path(path) if path is not None else default_store())


def compare(
    a: Sweep | Run | str | Path,
    *others: Sweep | Run | str | Path,
    store: str | Path | None = None,
    **options: Any,
) -> Comparison:
    """Compare sweeps or runs sample by sample: each of the others against `a`; a sweep alone within itself.

    Each is a Sweep, a Run, or what the command line takes (SWEEP, SWEEP/RUN, a folder). `options` are those
    of `CompareOptions`: metrics, margin, common, correction, alpha, seed. Raises UserError where datasets
    differ and `common` is not set, and for unknown metrics.
    """
    from evalrun.analysis.compare import CompareOptions
    from evalrun.analysis.compare import compare as compared
    from evalrun.tracking.store import Store

    where = Store(Path(store) if store is not None else default_store())
    if "metrics" in options:
        options["metrics"] = tuple(options["metrics"])
    return compared([_chosen(each, where) for each in (a, *others)], CompareOptions(**options))


def _chosen(what: Sweep | Run | str | Path, store: Store) -> Chosen:
    from evalrun.analysis.pairing import Chosen, choose

    if isinstance(what, Run):
        return Chosen(what._folder, what.id)
    if isinstance(what, Sweep):
        return Chosen(what._folder)
    return choose(store, str(what))
