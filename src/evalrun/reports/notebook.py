"""What a notebook shows of a sweep or a comparison: tables with intervals, and the report's charts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.errors import UserError
from evalrun.reports import numbers, page
from evalrun.reports.charts import groups, quality, speed
from evalrun.reports.charts.dots import forest
from evalrun.reports.leaderboard import leaderboard
from evalrun.reports.source import Source
from evalrun.reports.verdicts import judge
from evalrun.reports.view import Chart, RunView, lead_of, other_scores, verdict_word
from evalrun.tracking.folder import SweepFolder

if TYPE_CHECKING:
    from evalrun.analysis.compare import Comparison

WIDTH, HEIGHT = 640, 280
"""Pixels of a chart in a notebook."""


def sweep_html(folder: SweepFolder) -> str:
    """A sweep's leaderboards as HTML: the verdict in words, values with intervals, n, what was measured."""
    source = Source.of(folder)
    verdicts = judge(source)
    boards = [
        leaderboard(
            name,
            runs,
            lead_of(runs, verdicts.primary),
            named=verdicts.named,
            others=other_scores(source.suite, runs),
        )
        for name, runs in verdicts.by_dataset.items()
    ]
    return _render("sweep", source=source, boards=boards, answers=verdicts.answers)


def comparison_html(comparison: Comparison) -> str:
    """A comparison as an HTML table: a row for each metric and pair of runs, its difference with interval."""
    if comparison.standings:  # a sweep within itself: the same table, against the best
        return _render("standings", boards=comparison.standings)
    rows = [
        (
            each.metric, each.b.run, each.a.run,
            numbers.figure(each.result.mean_a, each.result.ci_low, each.result.ci_high, each.unit),
            numbers.figure(each.result.mean_b, each.result.ci_low, each.result.ci_high, each.unit),
            numbers.measured(
                each.result.difference, each.result.ci_low, each.result.ci_high, each.unit, sign=True
            ),
            numbers.p_value(each.p_corrected), numbers.count(each.result.n), verdict_word(each.verdict),
        )
        for each in comparison.compared
    ]  # fmt: skip
    return _render("comparison", rows=rows, comparison=comparison)


def _render(what: str, **values: Any) -> str:
    return page.environment().get_template("notebook.html.j2").render(what=what, **values)


@dataclass(frozen=True, slots=True)
class Plot:
    """One chart: `spec` is its Vega-Lite specification. A notebook draws it; `save` writes it to a file."""

    chart: Chart

    @property
    def spec(self) -> dict[str, Any]:
        """The specification with its colours and size written out, as Vega-Lite tools take it."""
        spec = {**self.chart.spec, "width": WIDTH, "background": _colours()["paper"]}
        if isinstance(spec.get("height"), Mapping):
            spec["height"] = HEIGHT
        spec.pop("autosize", None)
        spec["title"] = {"text": self.chart.title, "anchor": "start", "fontSize": 13}
        written: dict[str, Any] = _written_out(spec)
        return written

    def save(self, path: str | Path) -> Path:
        """Write it as SVG, PNG, HTML or JSON, by the file's suffix. Raises UserError for any other."""
        import orjson
        import vl_convert

        target, spec = Path(path), self.spec
        writers: Mapping[str, Callable[[], bytes]] = {
            ".svg": lambda: vl_convert.vegalite_to_svg(spec).encode(),
            ".png": lambda: vl_convert.vegalite_to_png(spec, scale=2),
            ".html": lambda: vl_convert.vegalite_to_html(spec, bundle=True).encode(),
            ".json": lambda: orjson.dumps(spec, option=orjson.OPT_INDENT_2),
        }
        if target.suffix not in writers:
            raise UserError(
                f"a chart cannot be written as '{target.suffix}'", remedy=f"Use one of {', '.join(writers)}."
            )
        target.write_bytes(writers[target.suffix]())
        return target

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        import vl_convert

        return {
            "application/vnd.vegalite.v6+json": self.spec,
            "image/svg+xml": vl_convert.vegalite_to_svg(self.spec),
            "text/plain": self.chart.alt,
        }


class Plots:
    """The charts of a sweep. Each method raises UserError where the sweep has nothing to draw in it."""

    def __init__(self, folder: SweepFolder) -> None:
        self._source = Source.of(folder)

    @cached_property
    def _verdicts(self) -> Any:
        return judge(self._source)

    def quality(self, dataset: str | None = None) -> Plot:
        """Quality against time or cost: one point a run, with intervals."""
        return self._draw(
            dataset,
            lambda name, runs: quality.quality_charts(
                0, name, runs, lead_of(runs, self._verdicts.primary), named=False
            ),
        )

    def differences(self, dataset: str | None = None) -> Plot:
        """Each run minus the best, with its interval."""
        return self._draw(dataset, lambda name, runs: [forest("forest", name, runs, named=False, least=1)])

    def latency(self, measure: str = "e2e_s", dataset: str | None = None) -> Plot:
        """How a latency is distributed: "e2e_s", "ttft_s", "tpot_s" or "icl_s"."""
        if measure not in speed.NAMES:
            raise UserError(
                f"there is no latency '{measure}'", remedy=f"There are: {', '.join(speed.NAMES)}."
            )
        return self._draw(
            dataset, lambda name, runs: [speed.latency("latency", measure, name, runs, named=False)]
        )

    def load(self, dataset: str | None = None) -> Plot:
        """Throughput against concurrency, where some model ran at two levels or more."""
        return self._draw(dataset, lambda name, runs: speed.load_charts(0, name, runs, named=False))

    def groups(self, column: str, metric: str | None = None, dataset: str | None = None) -> Plot:
        """A metric by the groups of a sensitive column, for every run."""
        primary = self._verdicts.primary
        shown = metric or (primary.metric if primary else "")
        return self._draw(
            dataset,
            lambda name, runs: [groups.by_group("groups", f"{shown} by {column}", column, shown, runs)],
        )

    def _draw(
        self, dataset: str | None, charts: Callable[[str, Sequence[RunView]], Sequence[Chart | None]]
    ) -> Plot:
        known = self._verdicts.by_dataset
        name = dataset if dataset is not None else next(iter(known), "")
        if name not in known:
            raise UserError(f"there is no dataset '{name}'", remedy=f"There are: {', '.join(known)}.")
        chart = next((chart for chart in charts(name, known[name]) if chart is not None), None)
        if chart is None:
            raise UserError(f"the sweep has nothing to draw there for dataset '{name}'")
        return Plot(chart)


def _colours() -> dict[str, str]:
    """The light theme of the report: variable to colour."""
    style = page.asset("report.css")
    theme = style[style.index(":root {") : style.index("}", style.index(":root {"))]
    return dict(re.findall(r"--([a-z0-9-]+): ([^;]+);", theme))


def _written_out(value: Any) -> Any:
    """A specification whose colours are CSS variables, with the colours themselves."""
    if isinstance(value, str):
        return re.sub(r"var\(--([a-z0-9-]+)\)", lambda match: _colours()[match[1]], value)
    if isinstance(value, Mapping):
        return {key: _written_out(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_written_out(item) for item in value]
    return value
