"""The leaderboard as CSV, Markdown and LaTeX, with intervals; samples as CSV or Parquet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from evalrun.atomic import disk_errors, replacing
from evalrun.exports.main import Export
from evalrun.reports import numbers
from evalrun.results import HEADLINES, RunResults
from evalrun.types import MetricValue

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_csv(export: Export) -> None:
    """A row a run with every metric and its interval, or with `samples` a row a sample."""
    rows = list(_samples(export)) if export.samples else list(_figures(export))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    export.write(out.getvalue())


def as_json(export: Export) -> None:
    """Figures by run and metric, mappings all the way down, as `dvc metrics` reads them."""
    figures = {
        run.run: {
            metric.name: {
                "value": metric.value, "ci_low": metric.ci_low, "ci_high": metric.ci_high, "n": metric.n
            }
            for metric in run.metrics
            if not metric.slice and metric.value is not None
        }
        for run in export.source.runs
    }  # fmt: skip
    export.write(orjson.dumps(figures, option=orjson.OPT_INDENT_2).decode() + "\n")


def as_parquet(export: Export) -> None:
    """All samples of all runs in one table, with `run`, `run.model`, `run.prompt`, `run.dataset` before."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from evalrun.tracking.parquet import without_secrets

    path, tables = export.place("parquet"), []
    for run in export.source.runs:
        table = without_secrets(pq.read_table(export.folder.samples_path(run.run)))
        for name, value in reversed(_beside(run).items()):
            table = table.add_column(0, name, pa.array([value] * len(table), pa.string()))
        tables.append(table)
    whole = pa.concat_tables(_alike(tables), promote_options="permissive")
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            pq.write_table(whole, temporary, compression="zstd")
    export.files.append(path)


def as_markdown(export: Export) -> None:
    """The leaderboard as a table of Markdown."""
    head, rows = _board(export)
    plain = re.compile(r"([\\`*_{}\[\]<>|~])")
    lines = [[plain.sub(r"\\\1", cell) for cell in row] for row in (head, *rows)]
    lines.insert(1, ["---", *["---:"] * (len(head) - 2), "---"])
    export.write("".join(f"| {' | '.join(line)} |\n" for line in lines))


def as_latex(export: Export) -> None:
    """The leaderboard as a tabular of booktabs; what is best or tied with it is bold."""
    head, rows = _board(export)
    lines = [r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{l{'r' * (len(head) - 2)}l}}", r"\toprule"]
    lines += [" & ".join(map(_tex, head)) + r" \\", r"\midrule"]
    for row in rows:
        cells = [*map(_tex, row)]
        if row[-1] in ("best", "tied"):
            cells[1] = rf"\textbf{{{cells[1]}}}"
        lines.append(" & ".join(cells) + r" \\")
    export.write("\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""]))


def scores(run: RunResults) -> list[MetricValue]:
    """The metrics that scorers gave, over all samples."""
    return [metric for metric in run.metrics if metric.scorer and not metric.slice]


def _of(run: RunResults) -> dict[str, str]:
    return {"run": run.run, "model": run.model, "prompt": run.prompt, "dataset": run.dataset}


def _beside(run: RunResults) -> dict[str, str]:
    """The same beside a sample's own columns, of which `model` is what the server says, `prompt` the text."""
    return {name if name == "run" else f"run.{name}": value for name, value in _of(run).items()}


def _alike(tables: list[Any]) -> list[Any]:
    """Tables whose columns of one name have one type: text where their runs' rows do not agree."""
    import pyarrow as pa

    kinds: dict[str, set[Any]] = {}
    for table in tables:
        for field in table.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    mixed = {name for name, types in kinds.items() if len(types - {pa.null()}) > 1}
    numbers = {pa.int64(), pa.float64()}
    wanted = {name: pa.float64() if kinds[name] <= numbers else pa.string() for name in mixed}
    return [
        table.cast(pa.schema([field.with_type(wanted.get(field.name, field.type)) for field in table.schema]))
        for table in tables
    ]


def _verdicts(export: Export) -> Mapping[str, str]:
    """Each run's standing by the metric that leads, as it was concluded."""
    return {standing.run: standing.verdict for standing in export.source.results.standings}


def _figures(export: Export) -> Iterator[dict[str, Any]]:
    verdicts = _verdicts(export)
    for run in export.source.runs:
        counts = {"samples": run.counts.samples, "failed": run.counts.failed}
        params = {f"params.{name}": value for name, value in run.params.items()}
        row = {**_of(run), **params, "standing": verdicts.get(run.run), **counts}
        for metric in run.metrics:
            by = "".join(f"[{column}={group}]" for column, group in metric.slice.items())
            figures = {"": metric.value, ".ci_low": metric.ci_low, ".ci_high": metric.ci_high}
            for suffix, value in {**figures, ".se": metric.se, ".n": metric.n}.items():
                row[f"{metric.name}{by}{suffix}"] = value
        yield row


def _samples(export: Export) -> Iterator[dict[str, Any]]:
    from evalrun.tracking.parquet import iter_samples

    for run in export.source.runs:
        for row in iter_samples(export.folder.samples_path(run.run)):
            yield {**_beside(run), **row}


def _cell(value: Any) -> Any:
    """Nothing for null; a text that a spreadsheet would take for a formula is kept a text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return orjson.dumps(value, default=str).decode() if isinstance(value, list | dict) else value


def _board(export: Export) -> tuple[list[str], list[list[str]]]:
    """Head and rows: the run, its scores and headlines with intervals, n, and where it stands."""
    runs, verdicts = export.source.runs, _verdicts(export)
    names = list(dict.fromkeys(metric.name for run in runs for metric in scores(run)))
    names += [name for name in HEADLINES if any(_given(run, name) for run in runs)]
    rows = []
    for run in runs:
        cells = [_figure(_given(run, name)) for name in names]
        rows.append([run.run, *cells, numbers.count(run.counts.samples), verdicts.get(run.run) or ""])
    return ["run", *names, "n", "standing"], rows


def _given(run: RunResults, name: str) -> MetricValue | None:
    metric = run.metric(name)
    return metric if metric is not None and metric.value is not None else None


def _figure(metric: MetricValue | None) -> str:
    return "" if metric is None else f"{numbers.metric(metric)} {numbers.metric_interval(metric)}".strip()


_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {char: "\\" + char for char in "&%$#_{}"} | {"\N{MINUS SIGN}": "$-$", "µ": r"$\mu$"}
_TEX |= {"<": "$<$", ">": "$>$", "|": "$|$", "\N{NARROW NO-BREAK SPACE}": r"\,", "\xa0": "~"}


def _tex(text: str) -> str:
    return "".join(_TEX.get(char, char) for char in " ".join(text.split(" ")).replace("\n", " "))
