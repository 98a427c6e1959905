"""Checkpoints of a training over its steps: which to ship, what that choice is worth, what was forgotten.

Steps are compared sample by sample. Neighbours answer much alike, so that bounds for all steps at once by the
greatest statistic of a resample (`standings.AllPairs`) are far narrower than a correction by their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.bootstrap import resampled_sums, unit_totals
from evalrun.analysis.correction import holm
from evalrun.analysis.distributions import single_threaded, t_quantile
from evalrun.analysis.measures import (
    Matrix,
    Measure,
    RunSamples,
    bounds_of,
    default_metrics,
    find_measure,
    is_mean,
    joined,
    seed_of,
)
from evalrun.analysis.paired import decided_difference, paired_difference
from evalrun.analysis.standings import BUNCHES, Pairs, as_student
from evalrun.canonical import canonical_json
from evalrun.results import CheckpointOf, GroupValue
from evalrun.sweep_results import (
    CheckpointLine,
    Forgotten,
    GapCurve,
    GapPoint,
    LossPoint,
    StepCurve,
    StepPoint,
    Trend,
)

Floats = NDArray[np.float64]

HALVES = 200
RESAMPLES = 4_000
MOST_CURVES = 6
MOST_SAMPLES = 200
"""So many forgotten samples are named."""
NLL = "perplexity.nll_per_token"


def checkpoint_lines(
    runs: Sequence[RunSamples], rules: Mapping[str, Any] | None, *, alpha: float
) -> tuple[CheckpointLine, ...]:
    """Every line of checkpoints among the runs of a sweep. `rules` are what its suite says under
    `checkpoints`: `best`, the metric that decides, and `margin`."""
    lines: dict[tuple[str, str, str, bytes], list[RunSamples]] = {}
    for run in runs:
        if run.run.checkpoint is not None and run.has_samples:
            params = canonical_json(dict(run.run.params))
            key = (run.run.checkpoint.of, run.run.prompt, run.run.dataset, params)
            lines.setdefault(key, []).append(run)
    made = (_line(sorted(line, key=_step), rules or {}, alpha) for line in lines.values())
    return tuple(line for line in made if line.curves)


def _step(run: RunSamples) -> int:
    return _checkpoint(run).step


def _checkpoint(run: RunSamples) -> CheckpointOf:
    assert run.run.checkpoint is not None
    return run.run.checkpoint


def _line(runs: Sequence[RunSamples], rules: Mapping[str, Any], alpha: float) -> CheckpointLine:
    first, margin = runs[0].run, float(rules.get("margin") or 0.0)
    curves = []
    for at, measure in enumerate(_measures(runs, rules.get("best"))):
        curves.append(step_curve(runs, measure, margin=0.0 if at else margin, alpha=alpha))
    line = CheckpointLine(
        of=_checkpoint(runs[0]).of,
        prompt=first.prompt,
        dataset=first.dataset,
        params=first.params,
        training=_checkpoint(runs[-1]).training,
        curves=tuple(curves),
        gaps=tuple(_gaps(runs, {curve.metric for curve in curves}, alpha)),
        losses=_losses(runs),
    )
    if not curves:
        return line
    line = replace(line, forgotten=_forgotten(runs, curves[0], alpha))
    return replace(line, sentence=sentence(line))


def _measures(runs: Sequence[RunSamples], best: str | None) -> list[Measure]:
    """The metrics of a line that have values and a better end, the one that decides first."""
    names = [best] if best and is_mean(best, runs) else []
    scored = [run for run in runs if run.table.scores]  # of a model that gave nothing there are none
    found: dict[str, Measure] = {}
    scores = default_metrics(scored) if scored else []
    if any(run.run.metric(NLL) is not None for run in scored) and is_mean(NLL, scored):
        scores.append(NLL)  # it says more of a training than any score, and is a part of one here
    for name in [*names, *scores]:
        measure = find_measure(name, runs)
        if measure.direction != "none" and any(not np.isnan(measure.values(run)).all() for run in runs):
            found.setdefault(measure.name, measure)
    return list(found.values())[:MOST_CURVES]


# --- one metric over the steps ---------------------------------------------------------------------------


def step_curve(runs: Sequence[RunSamples], measure: Measure, *, margin: float, alpha: float) -> StepCurve:
    """A metric over steps. A checkpoint that lost too many rows, or has no value, is no part of it."""
    sound = [run for run in runs if not np.isnan(measure.values(run)).all() and not _incomplete(run, measure)]
    points = {_step(run): StepPoint(_step(run), run.run.run, note="too many rows lost") for run in runs}
    curve = StepCurve(measure.name, measure.unit, measure.direction, margin=margin)
    data = joined(sound, measure) if sound else None
    if data is None or not len(data.values):
        return replace(curve, points=tuple(points.values()), note="the steps share no sample")
    seed = seed_of(measure, sound[0].seed)
    steps = [_step(run) for run in sound]
    compared = _compared(data, measure, steps, margin, alpha, seed)
    for run, point in zip(sound, compared, strict=True):
        points[point.step] = replace(point, run=run.run.run)
    return replace(
        curve,
        n=len(data.values),
        points=tuple(points.values()),
        looks_best=steps[_looks_best(data.values, measure)],
        best=next(point.step for point in compared if point.verdict in ("best", "tied")),
        worth=half_split_worth(data.values, data.clusters, measure.direction, seed=seed),
        trend=step_trend(data.values, data.clusters, measure.direction, seed=seed),
        note=f"{data.dropped:,} samples that not all steps have are left out" if data.dropped else "",
    )


def _incomplete(run: RunSamples, measure: Measure) -> bool:
    metric = run.run.metric(measure.name)
    return metric is not None and metric.incomplete


def _looks_best(values: Floats, measure: Measure) -> int:
    """The column with the best mean; of equal ones the earliest."""
    means = values.mean(axis=0)
    return int(np.argmin(means) if measure.direction == "lower" else np.argmax(means))


def _compared(
    data: Matrix, measure: Measure, steps: Sequence[int], margin: float, alpha: float, seed: int
) -> list[StepPoint]:
    """Each step with its band, and how far it is behind the one that looks best."""
    values, best = data.values, _looks_best(data.values, measure)
    band = simultaneous_band(values, data.clusters, alpha=alpha, seed=seed)
    low, high = (bound if bound is not None else math.nan for bound in bounds_of(measure))
    band = np.fmin(np.fmax(band, low), high)
    pairs = Pairs(values, data.clusters, alpha=alpha, seed=seed)
    sign = -1.0 if measure.direction == "lower" else 1.0
    points = []
    for at, step in enumerate(steps):
        point = StepPoint(
            step, "", float(values[:, at].mean()), _known(band[0, at]), _known(band[1, at]), len(values)
        )
        if at == best:
            points.append(replace(point, verdict="best"))
            continue
        apart = pairs.apart(best, at)
        ends = sorted(sign * end for end in (apart.low, apart.high) if end is not None)
        shown = bool(ends) and ends[0] > margin and apart.p <= alpha
        points.append(
            replace(
                point,
                behind=sign * apart.difference,
                behind_low=ends[0] if ends else None,
                behind_high=ends[-1] if ends else None,
                p=apart.p,
                verdict="behind" if shown else "tied",
            )
        )
    return points


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def simultaneous_band(
    values: Floats, clusters: NDArray[Any] | None = None, *, alpha: float = 0.05, seed: int = 0
) -> Floats:
    """Bounds for the means of k columns, shape (2, k), that hold for all of them at once: mean ± c se.

    c is the 1 - alpha quantile of the greatest |mean* - mean| / se of a resample of samples or clusters. NaN
    where a column does not vary."""
    n, k = values.shape
    if clusters is None and n > 4 * BUNCHES:
        clusters = np.arange(n) % BUNCHES
    means = values.mean(axis=0)
    totals = unit_totals(values - means, clusters) / n
    units = len(totals)
    if units < 2:
        return np.full((2, k), np.nan)
    se = np.sqrt(units / (units - 1) * (totals**2).sum(axis=0))
    se[se <= 1e-12 * max(1e-300, float(np.abs(means).max()))] = np.nan
    varied = ~np.isnan(se)
    if not varied.any():
        return np.full((2, k), np.nan)
    with single_threaded():
        drawn = [
            np.abs(sums[:, varied] / se[varied]).max(axis=1)
            for sums in resampled_sums(totals, seed=seed, resamples=RESAMPLES)
        ]
    greatest = np.sort(np.concatenate(drawn)) * math.sqrt(units / (units - 1))
    greatest = as_student(greatest, units - 1)
    at = min(len(greatest) - 1, math.ceil((1 - alpha) * (len(greatest) + 1)) - 1)
    return np.stack([means - greatest[at] * se, means + greatest[at] * se])


def half_split_worth(
    values: Floats, clusters: NDArray[Any] | None, direction: str, *, seed: int = 0, halves: int = HALVES
) -> float | None:
    """What the step with the best mean is worth on samples that did not pick it: a random half of the samples
    (or clusters) picks, the other half scores, over many halves. The mean of the picked step on the data that
    picked it is too high by what was luck. None below four samples.
    """
    totals, counts = unit_totals(values, clusters), unit_totals(np.ones((len(values), 1)), clusters)
    units = len(totals)
    if units < 4 or values.shape[1] < 2:
        return None
    rng = np.random.default_rng(seed)
    ranks = rng.random((halves, units)).argsort(axis=1).argsort(axis=1)
    picks = (ranks < units // 2).astype(np.float64)
    inside, outside = (picks @ totals) / (picks @ counts), ((1 - picks) @ totals) / ((1 - picks) @ counts)
    chosen = (inside.argmin if direction == "lower" else inside.argmax)(axis=1)
    return float(outside[np.arange(halves), chosen].mean())


def step_trend(values: Floats, clusters: NDArray[Any] | None, direction: str, *, seed: int = 0) -> Trend:
    """Whether columns in step order get better.

    The test is over samples, not steps: the sum of signs of later minus earlier over all pairs of steps, by
    sample, is as likely of either sign where nothing changes, however much neighbouring steps are alike.
    """
    n, k = values.shape
    if k < 3:
        return Trend()
    sign = -1.0 if direction == "lower" else 1.0
    pairs = k * (k - 1) / 2
    signs = np.zeros(n)
    for at in range(1, k):
        signs += np.sign(sign * (values[:, at : at + 1] - values[:, :at])).sum(axis=1)
    tested = paired_difference(np.zeros(n), signs / pairs, clusters, seed=seed)
    third = k // 3
    late = paired_difference(
        values[:, -2 * third : -third].mean(axis=1), values[:, -third:].mean(axis=1), clusters, seed=seed
    )
    return Trend(_tau(sign * values.mean(axis=0)), tested.p, late)


def _tau(means: Floats) -> float | None:
    """Kendall's tau-b between the places of the means and the means (Kendall 1945)."""
    differences = np.sign(means[None, :] - means[:, None])[np.triu_indices(len(means), 1)]
    ties = int((differences == 0).sum())
    if ties == len(differences):
        return None
    return float(differences.sum() / math.sqrt(len(differences) * (len(differences) - ties)))


# --- what else is known of a line ------------------------------------------------------------------------


def _gaps(runs: Sequence[RunSamples], metrics: Set[str], alpha: float) -> list[GapCurve]:
    """Gaps between groups by these metrics over the steps. A gap of samples is biased upwards, so what chance
    gives stands beside it."""
    found: dict[tuple[str, str], list[tuple[RunSamples, Any]]] = {}
    for run in runs:
        for column, groups in run.run.details.groups.items():
            for metric, measure in groups.metrics.items():
                if metric in metrics and measure.gap is not None and measure.gap.value is not None:
                    found.setdefault((column, metric), []).append((run, measure))
    curves = []
    for (column, metric), known in found.items():
        corrected = holm([measure.gap.p_decides for _, measure in known])
        points = []
        for (run, measure), p in zip(known, corrected, strict=True):
            low, high = gap_bounds(measure.groups, len(known), alpha)
            gap = measure.gap
            point = GapPoint(_step(run), run.run.run, gap.value, gap.chance_gap_p95, p, low, high)
            points.append(point)
        curves.append(GapCurve(column, metric, known[0][1].unit, tuple(points)))
    return curves


def gap_bounds(
    groups: Sequence[GroupValue], steps: int, alpha: float
) -> tuple[float, float] | tuple[None, None]:
    """Bounds for the greatest difference between the groups' means, which hold at all of so many steps at
    once; None where a group has no standard error.

    The greatest difference lies between the greatest lower and the greatest upper bound of all differences,
    where those hold for all pairs of groups (Bonferroni, Student's t). A resample of the greatest difference
    would never reach zero.
    """
    known = [group for group in groups if group.compared and group.value is not None]
    if len(known) < 2 or any(group.se is None or group.n < 2 for group in known):
        return None, None
    pairs = list(combinations(known, 2))
    lows, highs = [0.0], []
    for one, other in pairs:
        apart = abs((one.value or 0.0) - (other.value or 0.0))
        t = t_quantile(1 - alpha / (2 * len(pairs) * steps), one.n + other.n - 2)
        reach = t * math.hypot(one.se or 0.0, other.se or 0.0)
        lows.append(apart - reach)
        highs.append(apart + reach)
    return max(lows), max(highs)


def _forgotten(runs: Sequence[RunSamples], curve: StepCurve, alpha: float) -> Forgotten | None:
    """What an earlier step could and the last cannot, where a score says right or wrong."""
    known = {point.step for point in curve.points if point.verdict != "incomparable"}
    sound = [run for run in runs if _step(run) in known]
    if len(sound) < 2:
        return None
    measure = find_measure(curve.metric, sound)
    data = joined(sound, measure)
    values = data.values
    if measure.direction != "higher" or not bool(((values == 0) | (values == 1)).all()):
        return None
    lost = (values[:, :-1].max(axis=1) == 1) & (values[:, -1] == 0)
    best = next(at for at, run in enumerate(sound) if _step(run) == curve.best)
    against = None
    if best != len(sound) - 1:
        against = decided_difference(
            values[:, best], values[:, -1], data.clusters, seed=seed_of(measure, sound[0].seed), alpha=alpha
        )
    ids = _shared_ids(sound, measure)
    return Forgotten(
        measure.name,
        _step(sound[-1]),
        int(lost.sum()),
        len(values),
        float(lost.mean()),
        tuple(str(name) for name in ids[lost][:MOST_SAMPLES]),
        against,
    )


def _shared_ids(runs: Sequence[RunSamples], measure: Measure) -> NDArray[Any]:
    """The sample ids behind the rows of `joined`, in its order."""
    names: dict[int, str] = {}
    for run in runs:
        names |= dict(zip(run.table.keys.tolist(), run.ids.tolist(), strict=True))
    known = [set(run.table.keys[~np.isnan(measure.values(run))].tolist()) for run in runs]
    shared = sorted(set.intersection(*known))
    return np.array([names[key] for key in shared], dtype=object)


def _losses(runs: Sequence[RunSamples]) -> tuple[LossPoint, ...]:
    """The training's own losses beside evalrun's negative log-likelihood, where any is known."""
    points = []
    for run in runs:
        checkpoint, metric = _checkpoint(run), run.run.metric(NLL)
        nll = metric.value if metric is not None else None
        train = checkpoint.train_loss
        gap = nll - train if nll is not None and train is not None else None
        points.append(LossPoint(checkpoint.step, train, checkpoint.eval_loss, nll, gap))
    told = any(point.train_loss is not None or point.eval_loss is not None for point in points)
    return tuple(points) if told else ()


# --- in words --------------------------------------------------------------------------------------------


def sentence(line: CheckpointLine) -> str:
    """Which step to take and why, what the choice is worth, how scores go, and what was forgotten."""
    curve = line.curves[0]
    said = [_choice(line.of, curve)]
    looks = _point(curve, curve.looks_best)
    if curve.worth is not None and looks is not None and looks.value is not None:
        said.append(
            f"Picking the best mean of {len(curve.points)} steps is worth {curve.worth:.4g} on samples that "
            f"did not pick it, and {looks.value:.4g} on those that did."
        )
    said += _going(curve)
    if line.forgotten is not None and line.forgotten.count:
        lost = line.forgotten
        said.append(
            f"{lost.count:,} of {lost.n:,} samples ({lost.share:.1%}) were right at an earlier step and are "
            f"wrong at step {lost.last}."
        )
    return " ".join(said)


def _point(curve: StepCurve, step: int | None) -> StepPoint | None:
    return next((point for point in curve.points if point.step == step), None)


def _choice(of: str, curve: StepCurve) -> str:
    best, looks = _point(curve, curve.best), _point(curve, curve.looks_best)
    if best is None or looks is None or best.value is None or looks.value is None:
        return f"{of}: no step has a {curve.metric} that can be compared."
    tied = sum(point.verdict in ("best", "tied") for point in curve.points)
    by = f" by more than {curve.margin:g}" if curve.margin else ""
    text = f"{of}: take step {best.step} by {curve.metric} ({best.value:.4g}, n = {curve.n:,})"
    if best.step == looks.step:
        earlier = sum(point.step < best.step for point in curve.points if point.verdict == "behind")
        return f"{text}: it looks best, and every earlier step is worse{by}." if earlier else f"{text}."
    return (
        f"{text}: the earliest of {tied} steps that are not shown to be worse{by} than step {looks.step}, "
        f"which looks best ({looks.value:.4g})."
    )


def _going(curve: StepCurve) -> list[str]:
    trend, said = curve.trend, []
    if trend.tau is not None and trend.p is not None:
        way = "gets better" if trend.tau > 0 else "gets worse"
        known = f"tau {trend.tau:+.2f}, p = {trend.p:.2g}"
        said.append(
            f"{curve.metric} {way} with the steps ({known})."
            if trend.p <= 0.05
            else f"No trend over the steps can be told from chance ({known})."
        )
    late = trend.late
    if late is not None and late.difference is not None and late.p is not None and late.p <= 0.05:
        better = (late.difference > 0) == (curve.direction == "higher")
        said.append(
            f"The last third of the steps is still {'better' if better else 'worse'} than the middle third "
            f"({late.difference:+.4g})."
        )
    return said
