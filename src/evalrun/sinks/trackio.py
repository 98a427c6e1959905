"""trackio, which keeps experiments in a local SQLite file (extra `trackio`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evalrun.results import RunResults
from evalrun.sinks.base import Unreachable, sink
from evalrun.sinks.trackers import Tracker, TrackerOptions
from evalrun.tracking.folder import SweepFolder


@sink("trackio")
class TrackioSink(Tracker):
    """`TRACKIO_DIR` says where. A run that is there already is replaced: a second send leaves one."""

    Options = TrackerOptions
    summary = "trackio: a run for each run, grouped by sweep (extra: trackio)."
    package = "trackio"
    places = ("TRACKIO_DIR",)

    def withdraw(
        self, folder: SweepFolder, run_id: str, remote: str, samples: Sequence[tuple[str, int]]
    ) -> int | None:
        """Nothing to do: a run that is sent anew replaces the one that is there."""
        return 0

    def log(
        self,
        sweep: str,
        results: RunResults,
        config: Mapping[str, Any],
        figures: Mapping[str, float],
        table: list[dict[str, str]],
    ) -> str:
        """Figures at the checkpoint's step, else at 0."""
        import trackio

        project, name = self._options.project, f"{sweep[-8:]}/{results.run}"
        for run in self._there(name, sweep):
            run.delete()
        trackio.init(
            project=project, name=name, group=sweep, config=dict(config), resume="never", embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        told: dict[str, Any] = dict(figures)
        if table:
            import pandas

            told["failing samples"] = trackio.Table(dataframe=pandas.DataFrame(table))
        trackio.log(told, step=results.step or 0)
        trackio.finish()
        if not self._there(name, sweep):  # it writes in a thread of its own, which fails in silence
            raise Unreachable("trackio did not keep the run: is TRACKIO_DIR a folder that can be written?")
        return name

    def _there(self, name: str, sweep: str) -> list[Any]:
        """The runs of that name that are of this sweep."""
        import trackio

        try:
            runs = list(trackio.Api().runs(self._options.project))
        except (ValueError, OSError):  # the project is not there yet
            return []
        return [run for run in runs if run.name == name and (run.config or {}).get("evalrun_sweep") == sweep]
