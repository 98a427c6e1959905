"""The tables of a bias audit after New York City's Local Law 144: by sex, by race or ethnicity, and by both.

Which columns and which decision are meant stands in `card.yaml` under `ll144`, else columns of these names
and `fairness: {positive: …}` of the suite are taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evalrun.analysis.impact import Impact, above_median, impact_ratios
from evalrun.errors import UserError
from evalrun.evidence.document import Answers, Line, Section
from evalrun.evidence.facts import Facts, in_run
from evalrun.registry import nearest
from evalrun.reports import numbers
from evalrun.results import RunResults
from evalrun.tracking.folder import SAMPLES
from evalrun.tracking.parquet import column_names, read_columns

KEYS = ("sex", "race", "selected", "score", "leave_out_few")
_NAMES = {"sex": ("sex", "gender"), "race": ("race", "race_ethnicity", "ethnicity")}


def sections(facts: Facts, answers: Answers) -> list[Section]:
    """The sections of each dataset. Raises UserError where columns or the decision are not known."""
    settings = answers.said.get("ll144") or {}
    if not isinstance(settings, Mapping):
        raise UserError("'ll144' is a mapping", where=answers.file, remedy=f"Its keys are {', '.join(KEYS)}.")
    for key in settings:
        if key not in KEYS:
            near = nearest(str(key), KEYS)
            raise UserError(
                f"'ll144' has no key '{key}'",
                where=answers.file,
                remedy=f"Did you mean '{near}'?" if near else f"Its keys are {', '.join(KEYS)}.",
            )
    return [section for run in facts.runs for section in _of_run(facts, run, settings, answers.file)]


def _of_run(facts: Facts, run: RunResults, settings: Mapping[str, Any], where: str) -> list[Section]:
    path = facts.folder.samples_path(run.run)
    present = column_names(path) if path.exists() else []
    columns = {kind: _column(kind, settings, present, where) for kind in ("sex", "race")}
    columns = {kind: name for kind, name in columns.items() if name}
    if not columns:
        raise UserError(
            "no column of the samples says sex, or race and ethnicity",
            where=run.run,
            remedy="Name them in card.yaml: ll144: {sex: COLUMN, race: COLUMN}.",
        )
    score = settings.get("score")
    decided = f"score.{score}" if score else "answer"
    if decided not in present:
        raise UserError(f"the samples have no '{decided}'", where=run.run)
    table = read_columns(
        path, list(dict.fromkeys([decided, "status", "repeat", *columns.values()]))
    ).to_pylist()
    rows = [
        row for row in table if row["repeat"] == 0 and row["status"] != "failed" and row[decided] is not None
    ]
    selected, words = _selected(facts, rows, decided, settings, where)
    groups = list(columns.items()) + ([("both", "")] if len(columns) == 2 else [])
    made = []
    for kind, column in groups:
        names = [_category(row, [column] if column else list(columns.values())) for row in rows]
        made.append(
            _section(
                facts,
                run,
                kind,
                names,
                selected,
                words,
                len(table) - len(rows),
                bool(settings.get("leave_out_few")),
            )
        )
    return made


def _column(kind: str, settings: Mapping[str, Any], present: Sequence[str], where: str) -> str:
    """The column of the samples that holds sex, or race; empty where there is none of its names."""
    asked = settings.get(kind)
    names = [asked] if asked else _NAMES[kind]
    for name in names:
        for full in (f"sensitive.{name}", f"vars.{name}"):
            if full in present:
                return full
    if asked:
        raise UserError(
            f"the samples have no column '{asked}'",
            where=where,
            remedy="`ll144` names columns of the dataset.",
        )
    return ""


def _selected(
    facts: Facts, rows: Sequence[Mapping[str, Any]], decided: str, settings: Mapping[str, Any], where: str
) -> tuple[list[bool], str]:
    values = [row[decided] for row in rows]
    if decided != "answer":
        return (above_median(values) if values else []), f"scoring rate: {decided} above its median"
    resolved = facts.folder.read_manifest()["suite"].get("resolved") or {}
    positive = settings.get("selected", (resolved.get("fairness") or {}).get("positive"))
    if positive is None:
        raise UserError(
            "what counts as selected is not known",
            where=where or "ll144",
            remedy="Say it in card.yaml: ll144: {selected: ANSWER}, or {score: SCORER} of a tool.",
        )
    wanted = positive if isinstance(positive, list) else [positive]
    texts = {("yes" if w is True else "no" if w is False else str(w)).casefold() for w in wanted}
    hits = [str(value).strip().casefold() in texts for value in values]
    if values and not any(hits):
        raise UserError(
            f"no answer is {', '.join(sorted(texts))}: nobody was selected", where=where or "ll144"
        )
    return hits, f"selection rate: the answer is {' or '.join(sorted(texts))}"


def _category(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    values = [row[column] for column in columns]
    known = all(value is not None and str(value).strip() for value in values)
    return ", ".join(str(value).strip() for value in values) if known else ""


def _section(
    facts: Facts,
    run: RunResults,
    kind: str,
    names: Sequence[str],
    selected: Sequence[bool],
    words: str,
    lost: int,
    leave_out: bool,
) -> Section:
    counts: dict[str, tuple[int, int]] = {}
    for name, hit in zip(names, selected, strict=True):
        if name:
            had, n = counts.get(name, (0, 0))
            counts[name] = (had + hit, n + 1)
    impacts = impact_ratios(counts, seed=facts.source.suite.seed or 0, leave_out_few=leave_out)
    evidence = in_run(run, SAMPLES, f"evalrun samples {facts.folder.ulid}/{run.run}")
    lines = [
        Line(i.category, _words(i), value=i.ratio, n=i.n, low=i.low, high=i.high, evidence=evidence)
        for i in impacts
    ]
    unknown = sum(not name for name in names)
    lines.append(
        Line(
            "Category unknown",
            f"{unknown:,} of {len(names):,}",
            value=unknown,
            n=len(names),
            evidence=evidence,
        )
    )
    title = {"sex": "By sex", "race": "By race and ethnicity", "both": "By sex and race and ethnicity"}[kind]
    of = f" ({run.dataset})" if len(facts.runs) > 1 else ""
    note = f"{words}; {lost:,} samples without an answer are in no rate." if lost else f"{words}."
    return Section(f"{title}{of}", "6 RCNY 5-301", tuple(lines), note)


def _words(impact: Impact) -> str:
    rate = f"{impact.selected:,} of {impact.n:,}, rate {numbers.fixed(impact.rate, 3)}"
    if impact.ratio is None:
        return f"{rate}, left out of the ratios" if impact.left_out else f"{rate}, no ratio"
    bounds = numbers.interval(impact.low, impact.high)
    return f"{rate}, impact ratio {numbers.fixed(impact.ratio, 3)} {bounds}".strip()
