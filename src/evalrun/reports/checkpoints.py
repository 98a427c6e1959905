"""The checkpoints of trainings in the report: which step to ship and why, curves over steps, what was
forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

from evalrun.frozen import frozen
from evalrun.reports.charts.steps import curve_chart, gap_chart, loss_chart, verdict_of
from evalrun.reports.numbers import NONE, measured, p_value
from evalrun.reports.view import Answer, Chart, Phrase, Table
from evalrun.reports.visible import visible
from evalrun.results import ALPHA, RunResults
from evalrun.sweep_results import CheckpointLine, GapCurve, StepPoint

MOST_FORGOTTEN = 30


@frozen
class LineView:
    """One line of checkpoints. `forgotten` are samples that an earlier step could; each leads to its row."""

    title: str
    sentence: str
    charts: Sequence[Chart]
    table: Table
    forgotten: Table | None = None


def checkpoint_views(
    lines: Sequence[CheckpointLine], runs: Sequence[RunResults], chances: Mapping[str, float]
) -> list[LineView]:
    """The lines of checkpoints of a sweep, as its results have them. `chances` are the levels of chance of
    the first metric, by run."""
    by_id = {run.run: run for run in runs}
    return [_view(at, line, by_id, chances, several=len(lines) > 1) for at, line in enumerate(lines)]


def advised(answer: Answer, lines: Sequence[CheckpointLine]) -> Answer:
    """The answer about a dataset whose runs are all one line of checkpoints: which of them to ship is said by
    the line. Where gates forbid to ship, that stays."""
    if not answer.advice or answer.advice[0].text != "Ship ":
        return answer
    for line in lines:
        curve = line.curves[0]
        if {point.run for point in curve.points} == {run.id for run in answer.runs}:
            take = next((point.run for point in curve.points if point.step == curve.best), "")
            chosen = next((run for run in answer.runs if run.id == take), None)
            if chosen is not None and len(curve.points) > 1:
                why = ", the earliest step that is not shown to be worse than the best."
                return replace(answer, advice=[Phrase("Ship "), Phrase(chosen.spoken, "run"), Phrase(why)])
    return answer


def _view(
    at: int,
    line: CheckpointLine,
    runs: Mapping[str, RunResults],
    chances: Mapping[str, float],
    *,
    several: bool,
) -> LineView:
    levels = [chances[point.run] for point in line.curves[0].points if point.run in chances]
    first = curve_chart(f"steps-{at}-0", line.curves[0], max(levels, default=None))
    charts = [first, *(curve_chart(f"steps-{at}-{n}", curve) for n, curve in enumerate(line.curves[1:], 1))]
    losses = loss_chart(f"losses-{at}", line)
    charts += [losses] if losses else []
    charts += [gap_chart(f"gaps-{at}-{number}", gap) for number, gap in enumerate(line.gaps)]
    title = f"{line.of}: {line.prompt} on {line.dataset}" if several else line.of
    if line.training:
        title += f" (training {line.training})"
    return LineView(visible(title), visible(line.sentence), charts, _table(line, runs), _forgotten(line))


def _table(line: CheckpointLine, runs: Mapping[str, RunResults]) -> Table:
    curve, others = line.curves[0], line.curves[1:]
    rows, links = [], []
    for point in curve.points:
        run = runs.get(point.run)
        checkpoint = run.checkpoint if run is not None else None
        beside = [_beside(point.step, other.points, other.unit) for other in others]
        beside += [_gap(point.step, gap) for gap in line.gaps]
        rows.append(
            (
                f"step {point.step:,}",
                measured(point.value, point.low, point.high, curve.unit),
                measured(point.behind, point.behind_low, point.behind_high, curve.unit),
                p_value(point.p),
                verdict_of(curve, point.step, point.verdict),
                *beside,
                checkpoint.weights_sha256[:12] if checkpoint is not None else "",
            )
        )
        links.append(f"#grid?run={quote(point.run, safe='')}")
    columns = ["checkpoint", curve.metric, "behind the best", "p, corrected", "verdict"]
    columns += [each.metric for each in others]
    columns += [f"{gap.metric} gap by {visible(gap.column)}" for gap in line.gaps] + ["digest"]
    numeric = frozenset({1, 2, 3, *range(5, len(columns) - 1)})
    if not any(row[-1] for row in rows):  # a server's models have none
        rows, columns = [row[:-1] for row in rows], columns[:-1]
    caption = f"The steps of {line.of}; intervals hold for all steps at once"
    return Table(caption, columns, rows, numeric, links)


def _beside(step: int, points: Sequence[StepPoint], unit: str) -> str:
    point = next((point for point in points if point.step == step and point.value is not None), None)
    return measured(point.value, point.low, point.high, unit) if point is not None else NONE


def _gap(step: int, gap: GapCurve) -> str:
    """The gap with its bounds, and whether chance alone gives so large a one."""
    point = next((point for point in gap.points if point.step == step), None)
    if point is None:
        return NONE
    shown = measured(point.value, point.low, point.high, gap.unit)
    return f"{shown}, tied" if point.p is not None and point.p >= ALPHA else shown


def _forgotten(line: CheckpointLine) -> Table | None:
    lost = line.forgotten
    if lost is None or not lost.count:
        return None
    run = next((point.run for point in line.curves[0].points if point.step == lost.last), "")
    shown = lost.sample_ids[:MOST_FORGOTTEN]
    links = [f"#sample={quote(run, safe='')}/{quote(sample, safe='')}/0" for sample in shown]
    more = f", the first {len(shown)} of {lost.count:,}" if lost.count > len(shown) else ""
    caption = f"Right at an earlier step, wrong at step {lost.last}{more}"
    return Table(caption, ["sample"], [[visible(sample)] for sample in shown], frozenset(), links)
