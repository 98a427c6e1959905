"""The room's door for experiments: whether an arm is better, by the units that were assigned.

First it is seen whether the units fell into the arms as they should have (sample ratio): where not, nothing
is concluded. A unit's rows belong together, so a mean over requests is a ratio of sums over units, with the
variance of the delta method. Sequential intervals hold whenever one looks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.correction import holm
from evalrun.analysis.distributions import normal_quantile
from evalrun.canonical import digest
from evalrun.errors import ExitCode, UserError
from evalrun.production.assignment import ExperimentSpec, RatioSpec, is_lower_better, parse_guard
from evalrun.registry import nearest

if TYPE_CHECKING:
    import pandas

    from evalrun.tracking.changes import Placed
    from evalrun.tracking.store import Store

Floats: TypeAlias = NDArray[np.float64]
GuardVerdict: TypeAlias = Literal["holds", "violated", "undecided"]
Verdict: TypeAlias = Literal["better", "worse", "tied", "no verdict"]

RATIO_LEVEL = 0.001
"""Below this p-value of the sample ratio nothing is concluded."""
MOST_IN_TWO_ARMS = 0.01
"""Above this share of units that are in several arms nothing is concluded."""
ALIKE = 0.95
"""Where fewer units are in the arm that their keys give, arms cannot be computed from the keys."""
LEAST_UNITS = 100
"""Nothing is claimed with fewer units in an arm."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Whether units fell into the arms as they should have. `counts` are units, `expected` shares."""

    counts: dict[str, int]
    expected: dict[str, float]
    chi2: float
    p: float
    ok: bool


@dataclass(frozen=True, slots=True)
class Effect:
    """A treatment against control: means per request, difference with its interval, p (fixed experiments) and
    by how much CUPED cut the variance."""

    arm: str
    metric: str
    control: float
    treatment: float
    difference: float
    ci_low: float
    ci_high: float
    p: float | None
    n: int
    verdict: Verdict
    variance_cut: float = 0.0


@dataclass(frozen=True, slots=True)
class Guard:
    """A guardrail on a treatment: it holds, is violated, or the units cannot tell yet."""

    guardrail: str
    arm: str
    verdict: GuardVerdict
    value: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, slots=True)
class Interaction:
    """Whether two experiments change each other's effect on their common units: the difference of
    differences, and whether they were assigned apart from each other. `detectable` is what so many units find
    four times in five."""

    experiments: tuple[str, str]
    units: int
    assigned_p: float
    d: float
    ci_low: float
    ci_high: float
    p: float
    detectable: float
    found: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Analysis:
    """What an experiment comes to. `why` says what stands against a verdict."""

    id: str
    verdict: Verdict
    winner: str
    why: str
    ratio: Ratio
    in_two_arms: int
    left_out: dict[str, int]
    rows: int
    method: str
    effects: tuple[Effect, ...] = ()
    guards: tuple[Guard, ...] = ()
    interactions: tuple[Interaction, ...] = ()
    digest: str = field(default="")

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def reason(self) -> str:
        """What a promotion says of it."""
        effect = next(each for each in self.effects if each.arm == self.winner)
        interval = f"[{effect.ci_low:+.3f}, {effect.ci_high:+.3f}]"
        return (
            f"experiment {self.id}: {effect.metric} {effect.difference:+.3f} {interval}, "
            f"n = {effect.n:,} units, {self.method} (analysis {self.digest[:16]})"
        )


def analyse(
    spec: ExperimentSpec, table: pandas.DataFrame, others: Sequence[ExperimentSpec] = (),
    now: datetime | None = None,
) -> Analysis:  # fmt: skip
    """Conclude an experiment from one row a request. Raises UserError for a column that is not there."""
    names = _columns(spec)
    _check(table, [spec.unit, spec.arm, *names])
    rows, left_out = _usable(spec, table)
    arms = rows.groupby("_unit", sort=False)["_arm"].nunique()
    twice = set(arms.index[arms > 1])
    once = rows[~rows["_unit"].isin(twice)]
    units = once.drop_duplicates("_unit")
    counts = {arm: int((units["_arm"] == arm).sum()) for arm in spec.arms}
    ratio = sample_ratio(counts, spec.shares)
    method = f"sequential, {1 - spec.alpha:.0%}" if spec.sequential else f"fixed, {1 - spec.alpha:.0%}"
    why = _against(spec, ratio, len(twice), len(arms), now or datetime.now(UTC))
    base: dict[str, Any] = {
        "id": spec.id, "ratio": ratio, "in_two_arms": len(twice), "left_out": left_out, "rows": len(rows),
        "method": method,
    }  # fmt: skip
    if why:
        return Analysis(verdict="no verdict", winner="", why=why, **base)
    treatments = [arm for arm in spec.arms if arm != spec.control]
    effects = tuple(_effect(spec, once, arm, len(treatments)) for arm in treatments)
    guards = tuple(_guard(spec, once, arm, text) for arm in treatments for text in spec.guardrails)
    crossed = _interactions(spec, once, others)
    verdict, winner, why = _conclude(effects, guards, counts)
    analysis = Analysis(
        verdict=verdict, winner=winner, why=why, effects=effects, guards=guards, interactions=crossed, **base
    )
    return replace(analysis, digest=digest(analysis.document()))


def _columns(spec: ExperimentSpec) -> list[str]:
    primary = spec.primary
    names = [primary.numerator, primary.denominator] if isinstance(primary, RatioSpec) else [primary]
    names += [parse_guard(text)["name"] for text in spec.guardrails]
    return names + ([spec.covariate] if spec.covariate else [])


def _check(table: pandas.DataFrame, names: Sequence[str]) -> None:
    for name in names:
        if name not in table.columns:
            near = nearest(name, [str(column) for column in table.columns])
            listed = ", ".join(map(str, table.columns[:20]))
            remedy = f"Did you mean '{near}'?" if near else f"There are: {listed}."
            raise UserError(f"the rows have no column '{name}'", remedy=remedy)


def _usable(spec: ExperimentSpec, table: pandas.DataFrame) -> tuple[pandas.DataFrame, dict[str, int]]:
    """The rows that have a unit and an arm of the experiment, and how many were left out for what."""
    no_unit = table[spec.unit].isna()
    no_arm = ~no_unit & table[spec.arm].isna()
    strange = ~no_unit & ~no_arm & ~table[spec.arm].isin(list(spec.arms))
    rows = table[~(no_unit | no_arm | strange)]
    rows = rows.assign(_unit=rows[spec.unit].astype(str), _arm=rows[spec.arm].astype(str))
    told = {"no unit": no_unit, "no arm": no_arm, "an arm of no such name": strange}
    return rows, {why: int(which.sum()) for why, which in told.items() if which.any()}


def sample_ratio(counts: Mapping[str, int], shares: Mapping[str, float]) -> Ratio:
    """Pearson's chi-squared of units by arm against the shares they were to have."""
    from scipy import stats

    total = sum(counts.values())
    seen = np.array([counts[arm] for arm in shares], np.float64)
    wanted = total * np.array(list(shares.values()))
    chi2 = float(((seen - wanted) ** 2 / wanted).sum()) if total else 0.0
    p = float(stats.chi2.sf(chi2, len(seen) - 1))
    return Ratio(dict(counts), dict(shares), chi2, p, p >= RATIO_LEVEL)


def _against(spec: ExperimentSpec, ratio: Ratio, twice: int, units: int, now: datetime) -> str:
    """Why nothing may be concluded; "" where it may."""
    if not spec.sequential and spec.until is not None:
        end = datetime.fromisoformat(spec.until).replace(tzinfo=UTC)
        if now < end:
            return f"a fixed experiment is read at its end, {spec.until}"
    if units and twice / units > MOST_IN_TWO_ARMS:
        return f"{twice:,} of {units:,} units are in several arms"
    if not ratio.ok:
        listed = ", ".join(f"{arm} {count:,}" for arm, count in ratio.counts.items())
        return f"the sample ratio is off ({listed}; p = {ratio.p:.2g}): units were lost or assigned otherwise"
    few = [arm for arm, count in ratio.counts.items() if count < LEAST_UNITS]
    if few:
        return f"fewer than {LEAST_UNITS} units in {', '.join(few)}"
    return ""


@dataclass(frozen=True, slots=True)
class Units:
    """One value a unit of an arm, whose mean is the arm's ratio and whose variance over n is the ratio's:
    R + (N - R D) / mean(D), the linear part of N / D. `codes` are the units."""

    ratio: float
    values: Floats
    codes: NDArray[Any]

    @property
    def variance(self) -> float:
        """Of the ratio: Var(R) = (s_N² - 2 R s_ND + R² s_D²) / (n mean(D)²)."""
        return float(self.values.var(ddof=1)) / len(self.values)


def linearised(numerator: Floats, denominator: Floats, codes: NDArray[Any] | None = None) -> Units:
    """Units by their sums (1-D, one entry a unit). Raises ValueError where all denominators are 0."""
    mean = float(denominator.mean()) if len(denominator) else 0.0
    if mean == 0:
        raise ValueError("the denominator is 0 everywhere")
    ratio = float(numerator.mean()) / mean
    values = ratio + (numerator - ratio * denominator) / mean
    return Units(ratio, values, np.arange(len(values)) if codes is None else codes)


def _units(rows: pandas.DataFrame, arm: str, metric: str | RatioSpec, above: float | None = None) -> Units:
    """The units of an arm. `above`: the share of requests whose value is greater than that."""
    import pandas

    of = rows[rows["_arm"] == arm]
    if isinstance(metric, RatioSpec):
        top = pandas.to_numeric(of[metric.numerator], errors="coerce")
        bottom = pandas.to_numeric(of[metric.denominator], errors="coerce")
    else:
        top = pandas.to_numeric(of[metric], errors="coerce")
        bottom = top.notna().astype(float)
        top = top if above is None else (top > above).astype(float)
    there = top.notna() & bottom.notna() & (bottom != 0 if not isinstance(metric, RatioSpec) else True)
    sums = pandas.DataFrame({"unit": of["_unit"], "top": top, "bottom": bottom})[there].groupby("unit").sum()
    if len(sums) < 2 or not sums["bottom"].any():
        raise UserError(f"the column '{metric}' has too few values in the arm '{arm}'")
    return linearised(sums["top"].to_numpy(float), sums["bottom"].to_numpy(float), sums.index.to_numpy())


def half_width(variance: float, n: float, alpha: float, tuning_n: float) -> float:
    """Half the width of an asymptotic confidence sequence for a difference of means of n units in all, with
    this variance (Waudby-Smith et al. 2023, arXiv 2103.06476, eqs. 9 and 161; narrowest at `tuning_n`)."""
    r2 = rho(alpha, tuning_n) ** 2
    s2 = n * variance
    grown = n * r2 + 1
    return math.sqrt(s2 * 2 * grown / (n * n * r2) * math.log(math.sqrt(grown) / alpha))


def rho(alpha: float, tuning_n: float) -> float:
    """The parameter of a confidence sequence that is narrowest at so many units."""
    least = -2 * math.log(alpha)
    return math.sqrt((least + math.log(least + 1)) / tuning_n)


def _interval(
    spec: ExperimentSpec, difference: float, variance: float, n: int, alpha: float
) -> tuple[float, float, float | None]:
    """Interval of a difference, and p in a fixed experiment."""
    if spec.sequential:
        half = half_width(variance, n, alpha, spec.tuning_n)
        return difference - half, difference + half, None
    se = math.sqrt(variance)
    half = normal_quantile(1 - alpha / 2) * se
    p = math.erfc(abs(difference) / se / math.sqrt(2)) if se > 0 else float(difference == 0)
    return difference - half, difference + half, p


def _effect(spec: ExperimentSpec, rows: pandas.DataFrame, arm: str, treatments: int) -> Effect:
    control, treatment = (_units(rows, each, spec.primary) for each in (spec.control, arm))
    variance = control.variance + treatment.variance
    cut, difference = 0.0, treatment.ratio - control.ratio
    if spec.covariate is not None:
        adjusted = cuped(control, treatment, _before(rows, spec.covariate))
        cut = 1 - adjusted[1] / variance if variance else 0.0
        difference, variance = adjusted
    n = len(control.values) + len(treatment.values)
    low, high, p = _interval(spec, difference, variance, n, spec.alpha / treatments)
    name = (
        spec.primary
        if isinstance(spec.primary, str)
        else f"{spec.primary.numerator}/{spec.primary.denominator}"
    )
    sign = -1 if is_lower_better(name) else 1
    verdict: Verdict = "tied"
    if low > 0 or high < 0:
        verdict = "better" if sign * difference > 0 else "worse"
    return Effect(
        arm, name, control.ratio, treatment.ratio, difference, low, high, p, n, verdict, cut
    )  # fmt: skip


def _before(rows: pandas.DataFrame, covariate: str) -> Mapping[str, float]:
    import pandas

    values = pandas.to_numeric(rows[covariate], errors="coerce")
    means = values.groupby(rows["_unit"]).mean().dropna()
    return {str(unit): float(mean) for unit, mean in means.items()}


def cuped(control: Units, treatment: Units, before: Mapping[str, float]) -> tuple[float, float]:
    """Difference and its variance after what units were like before is taken out: y - theta (x - mean x),
    with theta = cov(y, x) / var(x) within arms (Deng et al. 2013). A unit without a past gets the mean."""
    pasts = [np.array([before.get(str(code), np.nan) for code in of.codes]) for of in (control, treatment)]
    mean = float(np.nanmean(np.concatenate(pasts)))
    pasts = [np.where(np.isnan(past), mean, past) for past in pasts]
    pairs = list(zip((control, treatment), pasts, strict=True))
    covariance = sum(float(((of.values - of.values.mean()) * (x - x.mean())).sum()) for of, x in pairs)
    variance = sum(float(((x - x.mean()) ** 2).sum()) for x in pasts)
    theta = covariance / variance if variance > 0 else 0.0
    adjusted = [of.values - theta * (x - mean) for of, x in pairs]
    difference = float(adjusted[1].mean() - adjusted[0].mean())
    return difference, sum(float(values.var(ddof=1)) / len(values) for values in adjusted)


def _guard(spec: ExperimentSpec, rows: pandas.DataFrame, arm: str, text: str) -> Guard:
    """A guardrail by an interval at the same level; a percentile by the share of requests beyond its
    bound."""
    parts = parse_guard(text)
    name = parts["name"]
    if parts["way"] is not None:
        control, treatment = (_units(rows, each, name) for each in (spec.control, arm))
        difference = treatment.ratio - control.ratio
        n = len(control.values) + len(treatment.values)
        variance = control.variance + treatment.variance
        low, high, _ = _interval(spec, difference, variance, n, spec.alpha)
        margin, way = float(parts["margin"] or 0), parts["way"].lower()
        rises = way == "higher" or (way == "worse" and is_lower_better(name))
        worst, best = (high, low) if rises else (-low, -high)
        verdict: GuardVerdict = "violated" if best > margin else "holds" if worst <= margin else "undecided"
        return Guard(text, arm, verdict, difference, low, high)
    bound, percent, at_most = float(parts["bound"]), parts["percent"], parts["sign"] == "<="
    if percent is not None:
        of = _units(rows, arm, name, above=bound)
        bound, value = 1 - float(percent) / 100, of.ratio
    else:
        of = _units(rows, arm, name)
        value = of.ratio
    low, high, _ = _interval(spec, value, of.variance, len(of.values), spec.alpha)
    if percent is None and not at_most:
        outside, inside = high < bound, low >= bound
    else:  # a percentile is at most its bound where at most the rest of the requests lie above it
        outside, inside = (low > bound, high <= bound) if at_most else (high < bound, low >= bound)
    verdict = "violated" if outside else "holds" if inside else "undecided"
    return Guard(text, arm, verdict, value, low, high)


def _interactions(
    spec: ExperimentSpec, rows: pandas.DataFrame, others: Sequence[ExperimentSpec]
) -> tuple[Interaction, ...]:
    """With each other experiment: first treatments against control, Holm over the pairs."""
    found = [
        crossed
        for other in others
        if other.id != spec.id and not spec.excludes(other)
        if (crossed := _crossed(spec, rows, other)) is not None
    ]
    return holm_over(found, spec.alpha)


def holm_over(crossed: Sequence[Interaction], alpha: float) -> tuple[Interaction, ...]:
    """The interactions with those marked that are found after Holm's correction over the pairs."""
    adjusted = holm([each.p for each in crossed])
    return tuple(
        replace(each, found=p is not None and p < alpha) for each, p in zip(crossed, adjusted, strict=True)
    )


def _crossed(spec: ExperimentSpec, rows: pandas.DataFrame, other: ExperimentSpec) -> Interaction | None:
    """The interaction with one other experiment, whose arm is read from its column, or computed."""
    note = ""
    if other.arm in rows.columns and other.arm != spec.arm:
        theirs = rows.drop_duplicates("_unit").set_index("_unit")[other.arm].to_dict()
    else:
        theirs, note = {unit: other.assign(unit) for unit in rows["_unit"].unique()}, _keys_differ(spec, rows)
    arms = [list(spec.arms)[:2], list(other.arms)[:2]]
    cells: dict[tuple[int, int], Floats] = {}
    mine = [_units(rows, arm, spec.primary) for arm in arms[0]]
    for i, units in enumerate(mine):
        of = np.array([str(theirs.get(str(code))) for code in units.codes])
        for j, arm in enumerate(arms[1]):
            cells[i, j] = units.values[of == arm]
    n = {cell: len(values) for cell, values in cells.items()}
    if min(n.values()) < 2:
        return None
    found = interaction((spec.id, other.id), cells, None if not spec.sequential else spec)
    return replace(found, note=note) if note else found


def _keys_differ(spec: ExperimentSpec, rows: pandas.DataFrame) -> str:
    """A note where the keys of the rows do not give the arms that were logged: then they are pseudonyms, or
    the application assigns otherwise, and another experiment's arms cannot be computed from them."""
    units = rows.drop_duplicates("_unit")
    agree = sum(spec.assign(unit) == arm for unit, arm in zip(units["_unit"], units["_arm"], strict=True))
    if agree >= ALIKE * len(units):
        return ""
    return (
        f"nothing can be told of it: computed from the column {spec.unit}, only {agree:,} of {len(units):,} "
        "units are in the arm that was logged; log the other's arm too, and name its column under `arm`"
    )


def interaction(
    names: tuple[str, str], cells: Mapping[tuple[int, int], Floats], spec: ExperimentSpec | None = None
) -> Interaction:
    """The difference of differences of four cells: (mean11 - mean10) - (mean01 - mean00), SE by the sum of
    their variances over n; the independence of the assignments by chi-squared over the units. With `spec` the
    interval and p hold whenever one looks."""
    from scipy import stats

    mean = {cell: float(values.mean()) for cell, values in cells.items()}
    d = (mean[1, 1] - mean[1, 0]) - (mean[0, 1] - mean[0, 0])
    variance = sum(float(values.var(ddof=1)) / len(values) for values in cells.values())
    n = sum(len(values) for values in cells.values())
    table = [[len(cells[i, j]) for j in (0, 1)] for i in (0, 1)]
    apart = float(stats.chi2_contingency(table, correction=False).pvalue)
    se = math.sqrt(variance)
    if spec is None:
        half = 1.959963984540054 * se
        p = math.erfc(abs(d) / se / math.sqrt(2)) if se else float(d == 0)
    else:
        half = half_width(variance, n, spec.alpha, spec.tuning_n)
        p = anytime_p(d, variance, n, spec.tuning_n, spec.alpha)
    note = "the two were not assigned apart from each other" if apart < RATIO_LEVEL else ""
    return Interaction(names, n, apart, d, d - half, d + half, p, 2.8 * se, False, note)


def anytime_p(difference: float, variance: float, n: float, tuning_n: float, alpha: float) -> float:
    """The level at which a confidence sequence just leaves zero out; `alpha` is what it was tuned for."""
    if variance <= 0:
        return float(difference == 0)
    r2 = rho(alpha, tuning_n) ** 2
    grown = n * r2 + 1
    log = 0.5 * math.log(grown) - (difference**2 / (n * variance)) * n * n * r2 / (2 * grown)
    return min(1.0, math.exp(log))


def _conclude(
    effects: Sequence[Effect], guards: Sequence[Guard], counts: Mapping[str, int]
) -> tuple[Verdict, str, str]:
    """The verdict, who won and what stands against promoting it."""
    better = [each for each in effects if each.verdict == "better"]
    if not better:
        verdict: Verdict = "worse" if all(each.verdict == "worse" for each in effects) else "tied"
        return verdict, "", ""
    best = max(better, key=lambda each: abs(each.difference))
    broken = [each.guardrail for each in guards if each.arm == best.arm and each.verdict == "violated"]
    return "better", best.arm, f"violated: {'; '.join(broken)}" if broken else ""


def read_rows(store: Store, what: str) -> pandas.DataFrame:
    """Rows of a file (Parquet, CSV, JSON lines), or the samples of SWEEP or SWEEP/RUN with the columns of
    their data beside the scores. Raises UserError."""
    import pandas

    path = Path(what)
    if path.is_file():
        try:
            if path.suffix == ".parquet":
                return pandas.read_parquet(path)
            if path.suffix == ".csv":
                return pandas.read_csv(path)
            return pandas.read_json(path, lines=path.suffix != ".json")
        except (ValueError, OSError, pandas.errors.ParserError) as error:
            raise UserError(f"the rows cannot be read: {error}"[:300], where=str(path)) from None
    if path.suffix in (".parquet", ".csv", ".jsonl", ".ndjson", ".json"):
        raise UserError("there is no such file", where=str(path))
    from evalrun.tracking.targets import find_target

    target = find_target(store, what)
    runs = [target.run] if target.run else target.folder.run_ids()
    frames = [pandas.read_parquet(target.folder.samples_path(run)) for run in runs]
    return pandas.concat([_with_vars(frame) for frame in frames], ignore_index=True)


def _with_vars(frame: pandas.DataFrame) -> pandas.DataFrame:
    """Samples with the columns of their data under their own names, unless a column of theirs has it."""
    names = {name: str(name).removeprefix("vars.") for name in frame.columns}
    taken = set(frame.columns)
    return frame.rename(columns={old: new for old, new in names.items() if old == new or new not in taken})


def check_promotable(spec: ExperimentSpec, analysis: Analysis) -> str:
    """The run (SWEEP/RUN) of the arm that won. Raises UserError (exit 1) where nothing won, or a guardrail is
    violated."""
    if analysis.verdict != "better" or analysis.why:
        why = analysis.why or f"the verdict is '{analysis.verdict}'"
        raise UserError(f"{spec.id}: nothing is promoted: {why}", exit_code=ExitCode.GATE_FAILED)
    run = spec.arms[analysis.winner]
    if not run:
        remedy = f"Write arms: {{{analysis.winner}: SWEEP/RUN}}."
        raise UserError(f"the arm '{analysis.winner}' names no run", where="arms", remedy=remedy)
    return run


def promote_winner(
    store: Store, spec: ExperimentSpec, analysis: Analysis, name: str, *, override: bool = False
) -> Placed:
    """Let the winning arm's run stand for a name. The analysis is kept in the store under its digest, which
    the promotion names. Raises UserError."""
    import orjson

    from evalrun.atomic import private_folder, write_private
    from evalrun.tracking.changes import Wish, promote
    from evalrun.tracking.targets import find_run_target

    target = find_run_target(store, check_promotable(spec, analysis))
    folder = private_folder(store.root / "experiments" / spec.id)
    placed = promote(store, target, Wish(name, analysis.reason(), override))
    document = orjson.dumps(analysis.document(), option=orjson.OPT_INDENT_2)
    write_private(folder / f"{analysis.digest[:16]}.json", document)
    return placed
