"""Sweep folders for the tests of reports: real tracking and analysis code, invented answers."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from evalrun import registry
from evalrun.analysis.fairness_groups import FairnessPlan
from evalrun.analysis.performance import SystemSummary
from evalrun.analysis.run import AnalysisOptions, analyse
from evalrun.analysis.samples import SampleTable
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.parquet import journal_to_parquet, system_to_parquet

LABELS = ["billing", "bug", "account", "other"]
DIALECTS = ["standard", "regional", "learner"]
TICKETS = [
    "I was charged twice for the same month and want my money back.",
    "The app closes by itself as soon as I open the settings page.",
    "How do I change the email address that I sign in with?",
    "Do you have an office in Lisbon that I could visit?",
]


@dataclass(frozen=True)
class Cell:
    """One run: how often it is right, how fast it is, how often other things happen."""

    model: str
    prompt: str
    dataset: str = "tickets"
    params: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0, "max_tokens": 48})
    accuracy: float = 0.6
    e2e_s: float | None = 0.5
    unparsed: float = 0.0
    failed: float = 0.0
    cached: bool = False
    bias: float = 0.0
    """How much less often it is right for the last group."""

    @property
    def run(self) -> str:
        extra = "".join(
            f"-{key}={value}" for key, value in self.params.items() if key == "temperature" and value
        )
        return f"{self.model}-{self.prompt}-{self.dataset}{extra}"


QUICKSTART = (
    Cell("smollm2", "few_shot", accuracy=0.62, e2e_s=1.15, bias=0.16),
    Cell("smollm2", "reasoned", accuracy=0.56, e2e_s=2.4, unparsed=0.05, bias=0.1),
    Cell("smollm2", "direct", accuracy=0.4, e2e_s=0.5, unparsed=0.02, failed=0.01),
)

_kept = tempfile.TemporaryDirectory(prefix="evalrun-sweeps-")
_made: dict[str, Path] = {}
"""Sweeps that were made, by what was asked for."""

Change = Callable[[dict[str, Any], random.Random], dict[str, Any]]


def make_sweep(
    root: Path,
    cells: Sequence[Cell] = QUICKSTART,
    *,
    n: int = 96,
    by: Sequence[str] = ("dialect",),
    scorers: Sequence[Mapping[str, Any]] = ({"exact_match": {}}, {"classification": {"labels": LABELS}}),
    gates: Sequence[Mapping[str, Any]] = (),
    status: str = "complete",
    change: Change | None = None,
    text: str = "name: support-triage\n",
    description: str = "Which prompt sorts support tickets best?",
    cluster: bool = False,
) -> SweepFolder:
    """Write a sweep folder. `change` alters each record (a dict) before it is written.

    What was made once is copied: analysing it takes most of the time of many tests.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder = SweepFolder(root / "01JDATA0000000000000000000-support-triage")
    asked = repr((cells, n, by, scorers, gates, status, text, description, cluster))
    if change is None and asked in _made:
        shutil.copytree(_made[asked], folder.path)
        return folder
    folder.path.mkdir()
    folder.write_manifest(_manifest(cells, n, by, scorers, gates, status, text, description))
    built = [_scorer(each) for each in scorers]
    for at, cell in enumerate(cells):
        _write_run(folder, cell, at, n, by, built, change, cluster)
    if change is None:
        _made[asked] = Path(_kept.name) / str(len(_made))
        shutil.copytree(folder.path, _made[asked])
    return folder


def _scorer(entry: Mapping[str, Any]) -> Any:
    name, options = next(iter(entry.items()))
    made = registry.load("scorer", name)
    return made(made.Options(**options))


def _write_run(
    folder: SweepFolder, cell: Cell, at: int, n: int, by: Sequence[str], scorers: Sequence[Any],
    change: Change | None, cluster: bool,
) -> None:  # fmt: skip
    path = folder.run_dir(cell.run)
    rng = random.Random(f"{cell.run}")
    journal = path / "journal.jsonl"
    with journal.open("wb") as file:
        clock = 0.0
        for position in range(n):
            record = sample_record(cell, position, rng, clock, by, [s.name for s in scorers], cluster)
            clock = record.get("done_s") or clock
            if change is not None:
                record = change(record, rng)
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    journal_to_parquet(journal, path / "samples.parquet")
    journal.unlink()
    if cell.e2e_s is not None:
        _write_system(path, cell, clock)
    system = SystemSummary(
        engine_peak_bytes=int(412e6 + 30e6 * at), client_peak_bytes=int(150e6), engine_cpu_s=clock * 1.9,
        client_cpu_s=clock * 0.04, wall_s=clock, loop_lag_p99_s=0.001,
    ) if cell.e2e_s is not None else SystemSummary()  # fmt: skip
    found = analyse(
        SampleTable.from_parquet(path / "samples.parquet"),
        scorers,
        system,
        AnalysisOptions(fairness=FairnessPlan(by, seed=7), stream=True, seed=7),
    )
    folder.finish_run(
        cell.run,
        {
            "run": cell.run, "model": cell.model, "prompt": cell.prompt, "dataset": cell.dataset,
            "params": dict(cell.params), "repeats": 1, "status": "complete", "counts": asdict(found.counts),
            "metrics": [asdict(metric) for metric in found.metrics], "details": asdict(found.details),
            "timings": {"started_at": "2026-11-23T07:01:10+00:00", "wall_s": clock},
        },
    )  # fmt: skip


def sample_record(
    cell: Cell, position: int, rng: random.Random, clock: float, by: Sequence[str], scorers: Sequence[str],
    cluster: bool,
) -> dict[str, Any]:  # fmt: skip
    """One line of a journal, as the runner writes it."""
    luck = random.Random(f"row-{position}").random()
    target = LABELS[position % 4]
    group = DIALECTS[(position // 4) % 3]
    text = f"{TICKETS[position % 4]} (ticket {position})"
    accuracy = cell.accuracy - (cell.bias if group == DIALECTS[-1] else 0)
    right = 0.6 * luck + 0.4 * rng.random() < accuracy
    answer: str | None = target if right else LABELS[(position + rng.randrange(1, 4)) % 4]
    status, error, output = "scored", None, f"Label: {answer}"
    if rng.random() < cell.failed:
        status, error, output, answer = "failed", "timeout: no answer within 120 s", None, None
    elif rng.random() < cell.unparsed:
        status, error, output, answer = (
            "unparsed",
            "regex 'Label: (\\w+)' does not match",
            "I am not sure.",
            None,
        )
    measured = cell.e2e_s is not None and status != "failed" and not cell.cached
    e2e = (cell.e2e_s or 0) * rng.lognormvariate(0, 0.3)
    tokens = rng.randint(4, 24)
    score = None if status == "failed" else float(status == "scored" and answer == target)
    reason = "" if score is None else "unparsed counts as wrong" if status == "unparsed" else \
        f"answer '{answer}' {'is' if score else 'is not'} the target"  # fmt: skip
    return {
        "sample_id": f"T-{position:05d}", "repeat": 0, "position": position,
        "vars": {"ticket": position, "text": text, "label": target, "channel": ["web", "mail"][position % 2]},
        "messages": [
            {"role": "system", "content": f"You sort support tickets ({cell.prompt}). Give one label."},
            {"role": "user", "content": f"Ticket: {text}\nLabel:"},
        ],
        "prompt": None, "output": output, "answer": answer, "target": target, "status": status,
        "error": error,
        "finish_reason": None if status == "failed" else "stop", "prompt_tokens": 40 + position % 9,
        "completion_tokens": None if status == "failed" else tokens,
        "ttft_s": e2e * 0.35 if measured else None, "e2e_s": e2e if measured else None,
        "tpot_s": e2e * 0.65 / tokens if measured else None, "client_queue_s": 0.0004 if measured else None,
        "sent_s": clock if measured else None, "done_s": clock + e2e if measured else None,
        "attempts": 3 if status == "failed" else 1,
        "attempt_log": [
            {"start_s": 0.0, "duration_s": 1.0, "error": "timeout", "message": "no answer", "wait_s": 0.5}
        ] if status == "failed" else [{"start_s": 0.0, "duration_s": e2e, "error": None}],
        "cached": cell.cached, "warmup": position < 2 and measured, "cost_usd": None, "reasoning": None,
        "tool_calls": None, "model": cell.model, "fingerprint": None,
        "scores": {} if score is None else dict.fromkeys(scorers, score),
        "reasons": {} if score is None else dict.fromkeys(scorers, reason),
        "sensitive": {"dialect": group} if by else {},
        "cluster": f"template-{position // 8}" if cluster else None,
    }  # fmt: skip


def _write_system(path: Path, cell: Cell, wall_s: float) -> None:
    rng = random.Random(cell.run)
    rows = [
        {
            "t_s": step / 2, "phase": "running", "engine_pss_bytes": int(380e6 + min(step, 20) * 1.6e6),
            "client_pss_bytes": int(140e6 + step * 1e4), "engine_cpu_s": step * 0.95 + rng.random() * 0.1,
            "client_cpu_s": step * 0.02, "loop_lag_s": 0.0004,
        }
        for step in range(max(2, int(wall_s * 2)))
    ]  # fmt: skip
    lines = path / "system.jsonl"
    lines.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
    system_to_parquet(lines, path / "system.parquet")
    lines.unlink()


def _manifest(
    cells: Sequence[Cell], n: int, by: Sequence[str], scorers: Sequence[Mapping[str, Any]],
    gates: Sequence[Mapping[str, Any]], status: str, text: str, description: str,
) -> dict[str, Any]:  # fmt: skip
    return {
        "schema_version": 1, "sweep": "01JDATA0000000000000000000", "name": "support-triage",
        "project": "support-triage", "status": status, "started_at": "2026-11-23T07:01:00+00:00",
        "finished_at": "2026-11-23T07:02:48+00:00", "spec_digest": "5c1e" * 16,
        "suite": {
            "path": "suites/quickstart.yaml", "text": text, "digest": "ab12" * 16,
            "resolved": {
                "name": "support-triage", "description": description, "seed": 7, "repeats": 1,
                "parse": [{"regex": {"pattern": "Label: (\\w+)"}}, {"choice": {"choices": LABELS}}],
                "scorers": list(scorers), "fairness": {"by": list(by), "min_group": 30} if by else None,
                "performance": {"stream": True, "warmup": 2, "timeout_s": 120}, "unparsed": "count",
            },
        },
        "plan": [
            {"run": c.run, "model": c.model, "prompt": c.prompt, "dataset": c.dataset,
             "params": dict(c.params), "repeats": 1} for c in cells
        ],
        "provenance": {
            "evalrun": "0.1.0", "argv": ["suites/quickstart.yaml"], "python": {"version": "3.11.7"},
            "machine": {"cpu": "Example CPU", "cores": 2, "memory_bytes": 24_000_000_000, "os": "Debian 12"},
            "packages": [{"name": "aiohttp", "version": "3.11"}, {"name": "pyarrow", "version": "20.0"}],
            "git": {"commit": "36deb78a" * 5, "branch": "main", "dirty": False},
        },
        "datasets": {d: {"digest": "9f" * 32, "n": n, "source": {"path": f"data/{d}.jsonl"}, "warnings": []}
                     for d in dict.fromkeys(c.dataset for c in cells)},
        "prompts": {p: {"digest": "77" * 32, "source": {f"prompts/{p}.j2": "Ticket: {{ text }}\nLabel:"}}
                    for p in dict.fromkeys(c.prompt for c in cells)},
        "models": {m: {"provider": "llamacpp", "model": "smollm2-135m-instruct", "slots": 4, "threads": 2,
                       "engine": "llama.cpp b6000", "weights_sha256": "b179c9523d0e" * 5}
                   for m in dict.fromkeys(c.model for c in cells)},
        "seeds": {"root": 7}, "gates": list(gates), "exit_code": 0, "tags": {"team": "nlp"},
    }  # fmt: skip
