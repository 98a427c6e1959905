"""Gates and alerts as they are shown: report, terminal, JUnit XML, Markdown, lines of GitHub Actions.

Texts in these come from suites and models, and may be meant to harm: control characters that XML cannot hold
are replaced, Markdown and HTML are taken as text, and a line break cannot begin a command of its own.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from evalrun.atomic import disk_errors
from evalrun.frozen import frozen
from evalrun.gates.conditions import FIRST
from evalrun.reports import numbers
from evalrun.reports.source import AlertVerdict, Manifest
from evalrun.reports.view import RunView, grid_link
from evalrun.reports.visible import terminal
from evalrun.results import Lost, RunResults
from evalrun.sweep_results import Concentration, GateVerdict
from evalrun.types import MetricValue


@frozen
class GateView:
    """One gate on one run. `verdict` is "pass", "inconclusive" (the samples cannot tell) or "fail"; `link`
    shows the samples that it is about, `broke` the slices that hold more of these than chance."""

    gate: str
    run: str
    verdict: str
    value: str
    interval: str
    n: str
    reason: str
    link: str = ""
    broke: Sequence[tuple[str, str]] = ()

    @property
    def passed(self) -> bool:
        """Whether the gate holds."""
        return self.verdict == "pass"


VERDICTS = ("fail", "inconclusive", "pass")


def tally(views: Sequence[GateView]) -> list[tuple[str, int]]:
    """How many gate checks ended how, the failed ones first; what did not occur is left out."""
    counts = [(verdict, sum(view.verdict == verdict for view in views)) for verdict in VERDICTS]
    return [(verdict, count) for verdict, count in counts if count]


def gates(results: Sequence[GateVerdict], runs: Sequence[RunView]) -> list[GateView]:
    """The gates' verdicts, the failed ones first, with the figure that each was compared with."""
    by_id = {run.id: run for run in runs}
    views = []
    for result in results:
        run = by_id.get(result.run)
        metric = _metric_of(result.gate, run.results) if run else None
        ends = (metric.ci_low, metric.ci_high, metric.unit) if metric else (None, None, "")
        shown = numbers.figure(result.value, *ends) if metric else numbers.fixed(result.value, 3)
        if result.ci_low is not None and result.ci_high is not None:  # of the difference to the baseline
            change = (result.difference, result.ci_low, result.ci_high)
            interval = f"change {numbers.measured(*change, sign=True)}"
        else:
            interval = numbers.interval(*ends)
        views.append(
            GateView(
                gate=result.gate,
                run=run.full if run else result.run or "all runs",
                verdict=result.verdict if result.verdict in VERDICTS else "fail",
                value=shown,
                interval=interval,
                n=numbers.count(result.n or (metric.n if metric else None)),
                reason=_why(result),
                link=_samples(run, metric) if run else "",
                broke=[_slice(run, metric, part) for part in result.where] if run else [],
            )
        )
    return sorted(views, key=lambda view: VERDICTS.index(view.verdict))


def _slice(run: RunView, metric: MetricValue | None, part: Concentration) -> tuple[str, str]:
    link = _samples(run, metric)
    return (
        f"{part.column}={part.value}",
        f"{link}&{grid_link(**{f'by.{part.column}': part.value})[len('#grid?') :]}",
    )


_ENDINGS = {"error_rate": "failed", "unparsed_rate": "unparsed", "refused_rate": "refused"}


def _samples(run: RunView, metric: MetricValue | None) -> str:
    """Where the samples of a gate's metric are: of its group, and those that speak against it."""
    chosen = {"run": run.id}
    if metric is not None:
        chosen |= {f"by.{column}": group for column, group in metric.slice.items()}
        if metric.scorer:
            chosen |= {"score": metric.scorer, "kind": "wrong"}
        elif metric.name in _ENDINGS:
            chosen["kind"] = _ENDINGS[metric.name]
    return grid_link(**chosen)


def _metric_of(gate: str, run: RunResults) -> MetricValue | None:
    """The metric, of all samples or of a group, that a gate is about."""
    from evalrun.gates.conditions import Gate, parse_gate

    parsed = parse_gate(gate)
    if not isinstance(parsed, Gate):
        return None
    wanted = (parsed.metric, dict(parsed.slice))
    return next((metric for metric in run.metrics if (metric.name, dict(metric.slice)) == wanted), None)


_NOT_XML = "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
"""Not compiled here, which takes milliseconds: few sweeps write JUnit or Markdown."""
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~>@$:])")
_VERDICTS = {"pass": "✅ pass", "fail": "❌ fail", "inconclusive": "⚠️ inconclusive"}
_MOST_RUNS = 50
_MOST_NAMED = 4
_MOST_FAILED = 10


def junit(manifest: Manifest, strict: bool = False, report: str = "") -> str:
    """The gates as JUnit XML, one test case a gate and run. Inconclusive: skipped, or failed if `strict`.
    `report` is where the HTML report lies."""
    gates = manifest.gates
    failed = [gate for gate in gates if _fails(gate, strict)]
    errors = [] if strict else [gate for gate in gates if lost_rows(gate)]
    skipped = sum(gate.verdict == "inconclusive" for gate in gates) - len(errors) if not strict else 0
    name = _attribute(f"evalrun {manifest.name}")
    counts = f'tests="{len(gates)}" failures="{len(failed)}" errors="{len(errors)}" skipped="{skipped}"'
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<testsuites name={name} {counts}>"]
    lines.append(f"<testsuite name={name} {counts} timestamp={_attribute((manifest.started_at or '')[:19])}>")
    for gate in gates:
        place = _attribute(gate.run or manifest.name)
        lines.append(f"<testcase classname={place} name={_attribute(gate.gate)}>")
        said = _sentence(gate)
        if _fails(gate, strict):
            body = _text("\n".join([said, *_more(gate, manifest, report)]))
            lines.append(f"<failure message={_attribute(said)}>{body}</failure>")
        elif lost_rows(gate):
            lines.append(f"<error message={_attribute('inconclusive: ' + said)}>{_text(said)}</error>")
        elif gate.verdict == "inconclusive":
            lines.append(f"<skipped message={_attribute('inconclusive: ' + said)}/>")
        lines.append("</testcase>")
    return "\n".join([*lines, "</testsuite>", "</testsuites>"]) + "\n"


def markdown(
    manifest: Manifest, runs: Sequence[RunResults], said: Sequence[str] = (), report: str = ""
) -> str:
    """The sweep as a Markdown summary: what it comes to (`said`), gates with the samples that speak against
    them, then the first metrics of each run. `report` is where the HTML report lies."""
    title = f"## evalrun: {_plain(manifest.name)} ({_plain(manifest.status)})"
    lines = [title, ""]
    for at, line in enumerate(said):
        lines += [f"{_plain(line)}" if at else f"**{_plain(line)}**", ""]
    where = f", report {_plain(report)}" if report else ""
    lines.append(f"Sweep `{re.sub(r'[^0-9A-Z]', '', manifest.sweep)}`{where}")
    if manifest.gates:
        lines += ["", "| gate | run | verdict | value | |", "| --- | --- | --- | ---: | --- |"]
        for gate in manifest.gates:
            cells = (_plain(gate.gate), _plain(gate.run), _VERDICTS[gate.verdict], _short(gate.value))
            lines.append("| " + " | ".join((*cells, _plain(_why(gate)))) + " |")
        failed = [gate for gate in manifest.gates if gate.verdict == "fail" and gate.run]
        lines += [""] if failed else []
        for gate in failed[:_MOST_FAILED]:
            told = "; ".join(_more(gate, manifest))
            lines.append(f"- {_plain(gate.gate)}, {_plain(gate.run)}: {_plain(told)}")
    fired = [alert for alert in manifest.alerts if alert.fired]
    if fired:
        lines += ["", "| alert | run | value | |", "| --- | --- | ---: | --- |"]
        for alert in fired:
            cells = (
                f"🔔 {_plain(alert.alert)}", _plain(alert.run or ""), _short(alert.value),
                _plain(alert.reason),
            )  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    for run in runs[:_MOST_RUNS]:
        for sentence in lost_sentences(run.details.lost):
            lines += ["", f"⚠️ {_plain(run.run)}: {_plain(sentence)}"]
    lines += ["", "| run | samples | failed | metric | value | 95 % interval | n |"]
    lines.append("| --- | ---: | ---: | --- | ---: | --- | ---: |")
    for run in runs[:_MOST_RUNS]:
        whole = [metric for metric in run.metrics if not metric.slice and metric.value is not None]
        for metric in whole[:3]:
            lines.append(_metric_row(run, metric))
    if len(runs) > _MOST_RUNS:
        lines += ["", f"{len(runs) - _MOST_RUNS} more runs are in the report."]
    return "\n".join(lines) + "\n"


def workflow_lines(manifest: Manifest, strict: bool = False) -> list[str]:
    """What GitHub Actions shows at the job: `::error` for failed gates, `::warning` for undecided ones."""
    lines = []
    for gate in manifest.gates:
        if gate.verdict == "pass" and gate.reason == FIRST:
            lines.append(
                f"::notice title=evalrun gate::{_command(f'{gate.gate} ({gate.run}): {gate.reason}')}"
            )
        if gate.verdict != "pass":
            kind = "error" if _fails(gate, strict) or lost_rows(gate) else "warning"
            text = f"{gate.gate} ({gate.run}): {gate.verdict}, {_sentence(gate)}"
            lines.append(f"::{kind} title=evalrun gate{_at(manifest, gate.gate)}::{_command(text)}")
    for alert in manifest.alerts:
        if alert.fired:
            text = f"{alert.alert} ({alert.run}): {_sentence(alert)}"
            lines.append(f"::warning title=evalrun alert::{_command(text)}")
    return lines


def code_quality(manifest: Manifest, strict: bool = False) -> str:
    """The gates that do not pass as GitLab's code quality report, which marks their lines."""
    import hashlib

    findings = [
        {
            "description": f"{gate.gate} ({gate.run}): {gate.verdict}, {_sentence(gate)}",
            "check_name": "evalrun gate",
            "fingerprint": hashlib.sha256(f"{manifest.project}|{gate.gate}|{gate.run}".encode()).hexdigest(),
            "severity": "major" if _fails(gate, strict) or lost_rows(gate) else "minor",
            "location": {"path": place[0], "lines": {"begin": place[1]}},
        }
        for gate in manifest.gates
        if gate.verdict != "pass" and (place := gate_place(manifest, gate.gate))
    ]
    return json.dumps(findings, indent=1, ensure_ascii=True) + "\n"


def gate_place(manifest: Manifest, gate: str) -> tuple[str, int] | None:
    """The suite's file as the repository has it, and the line of a gate in it; None where it stands in
    none: it was given on the command line, or the suite was made in Python."""
    path, text = manifest.suite.path, manifest.suite.text
    if not path or not text:
        return None
    lines = text.splitlines()
    begin = next((at for at, line in enumerate(lines) if re.match(r"gates\s*:", line)), None)
    if begin is None:
        return None
    written = (gate, json.dumps(gate, ensure_ascii=False)[1:-1], gate.replace("'", "''"))
    end = next((at for at in range(begin + 1, len(lines)) if re.match(r"[A-Za-z_]", lines[at])), len(lines))
    at = next((at for at in range(begin, end) if any(form in lines[at] for form in written)), None)
    root = os.environ.get("GITHUB_WORKSPACE") or os.environ.get("CI_PROJECT_DIR") or Path.cwd()
    return None if at is None else (Path(os.path.relpath(path, root)).as_posix(), at + 1)


def _at(manifest: Manifest, gate: str) -> str:
    """The place of a gate as properties of a workflow command."""
    place = gate_place(manifest, gate)
    if place is None:
        return ""
    return f",file={_command(place[0]).replace(':', '%3A').replace(',', '%2C')},line={place[1]}"


def alert_lines(manifest: Manifest) -> list[str]:
    """The alerts that fired, and those that could not be checked, as lines for a terminal."""
    lines = []
    for alert in manifest.alerts:
        run = f" ({alert.run})" if alert.run else ""
        if alert.fired:
            lines.append(terminal(f"ALERT {alert.alert}{run}: {_sentence(alert)}", 500))
        elif not alert.checked:
            lines.append(terminal(f"alert not checked: {alert.alert}{run}: {alert.reason}", 500))
    return lines


def publish(
    manifest: Manifest,
    runs: Sequence[RunResults],
    *,
    junit_file: Path | None = None,
    summary_file: Path | None = None,
    quality_file: Path | None = None,
    strict: bool = False,
    said: Callable[[], Sequence[str]] = tuple,
    report: str = "",
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """Write what was asked for, add to `$GITHUB_STEP_SUMMARY` where it is set, and give back the lines to
    print on stderr (none outside GitHub Actions). `said` gives the sentences of the summary, `report` is
    where the HTML report lies. Raises UserError where a file cannot be written."""
    environment = os.environ if environment is None else environment
    if junit_file is not None:
        _write(junit_file, junit(manifest, strict, report))
    if summary_file is not None:
        _write(summary_file, markdown(manifest, runs, said(), report))
    if quality_file is not None:
        _write(quality_file, code_quality(manifest, strict))
    if environment.get("GITHUB_STEP_SUMMARY"):
        target = Path(environment["GITHUB_STEP_SUMMARY"])
        with disk_errors(target.parent), target.open("a", encoding="utf-8", errors="replace") as file:
            file.write(markdown(manifest, runs, said(), report))
    return workflow_lines(manifest, strict) if environment.get("GITHUB_ACTIONS") == "true" else []


def _write(path: Path, text: str) -> None:
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="replace")


def lost_sentences(lost: Sequence[Lost]) -> list[str]:
    """How many rows have no score, and the first reason in the words of who said it; one sentence for scores
    that were lost for the same reason."""
    alike: dict[tuple[int, int, str], list[Lost]] = {}
    for one in lost:
        alike.setdefault((one.lost, one.of, one.cause), []).append(one)
    sentences = []
    for (count, of, cause), some in alike.items():
        names = numbers.listing([one.scorer for one in some[:_MOST_NAMED]])
        more = f" and {len(some) - _MOST_NAMED} more" if len(some) > _MOST_NAMED else ""
        failed = f" ({numbers.plural(some[0].failed, 'request')} failed)" if some[0].failed else ""
        word = "incomplete, " if some[0].incomplete else ""
        rows = f"{word}{numbers.count(count)} of {numbers.plural(of, 'row')} lost{failed}"
        sentences.append(f"{names}{more}: {rows}; the first: {cause}")
    return sentences


def lost_rows(gate: GateVerdict) -> bool:
    """Whether a gate cannot be decided because rows were lost, which is no fault of the model's."""
    return gate.verdict == "inconclusive" and gate.incomplete


def _fails(gate: GateVerdict, strict: bool) -> bool:
    return gate.verdict == "fail" or (strict and gate.verdict == "inconclusive")


def _sentence(gate: GateVerdict | AlertVerdict) -> str:
    value = "no value" if gate.value is None else f"value {_short(gate.value)}"
    reason = _why(gate) if isinstance(gate, GateVerdict) else gate.reason
    return f"{value}; {reason}" if reason else value


def _why(gate: GateVerdict) -> str:
    """Why a gate has its verdict, and where the samples lie that speak against it."""
    return "; ".join(filter(None, (gate.reason, numbers.where(gate.where))))


def _more(gate: GateVerdict, manifest: Manifest, report: str = "") -> list[str]:
    """For whoever looks at a failed gate in a CI job: some of its samples, the report, and the command that
    shows more: both sides where it failed against a baseline, else the run's samples."""
    ids = list(dict.fromkeys(name for each in gate.where for name in each.sample_ids))
    lines = [f"Samples: {', '.join(ids[:10])}"] if ids else []
    lines += [f"Report: {report}"] if report else []
    if gate.difference is not None and manifest.baseline:
        return [*lines, f"Next: evalrun compare {manifest.baseline} {manifest.sweep} --html compared.html"]
    if not gate.run:
        return [*lines, f"Next: evalrun show {manifest.sweep}"]
    asked = _asked(gate.gate)
    return [*lines, f"Next: evalrun samples {manifest.sweep}/{gate.run}{asked}"]


def _asked(gate: str) -> str:
    """The query for the samples that speak against a gate of endings; of scores it needs the run's own."""
    ending = _ENDINGS.get(gate.partition(" ")[0])
    return f" 'status == \"{ending}\"'" if ending else ""


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _metric_row(run: RunResults, metric: MetricValue) -> str:
    cells = (
        _plain(run.run), run.counts.samples, run.counts.failed, _plain(metric.name), numbers.metric(metric),
        numbers.metric_interval(metric), metric.n,
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def _text(value: str) -> str:
    from xml.sax.saxutils import escape

    return escape(re.sub(_NOT_XML, "\ufffd", value))


def _attribute(value: str) -> str:
    from xml.sax.saxutils import quoteattr

    return quoteattr(re.sub(_NOT_XML, "\ufffd", value), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


def _plain(value: str) -> str:
    """Text that Markdown shows as it is, on one line, in a table's cell."""
    line = " ".join(re.sub(_NOT_XML, "\ufffd", str(value)).split())[:500]
    return _MARKDOWN.sub(r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;"))


def _command(value: str) -> str:
    """The data of a workflow command, as GitHub escapes it."""
    printable = "".join(char if char.isprintable() or char in "\r\n" else "?" for char in value)
    return printable.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
