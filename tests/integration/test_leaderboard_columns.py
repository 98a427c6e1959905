"""Which figures the leaderboard of a report shows of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.recorded import document_of, leaderboards, output_of, recorded_suite

APP = """
def answer(sample, usd):
    return {"output": "yes", "cost_usd": usd}
"""


def column(page: Path, title: str) -> list[str] | None:
    """The cells of the leaderboard's column, by rank; None where there is no such column."""
    (rows,) = leaderboards(page)
    places = [at for at, head in enumerate(rows[0]) if head.startswith(title)]
    return [row[places[0]] for row in rows[1:]] if places else None


def test_cost_stands_beside_each_run(project: Path) -> None:
    (project / "priced_app.py").write_text(APP)
    models = [
        {"id": name, "provider": "python", "function": "priced_app:answer", "args": {"usd": usd}}
        for name, usd in (("cheap", 0.001), ("dear", 0.25))
    ]
    rows = [{"id": f"s{at}", "want": "yes"} for at in range(4)]
    output_of(recorded_suite(project, rows, [], models=models), "--report", "page.html", "--quiet")
    cells = column(project / "page.html", "cost")
    assert cells is not None and sorted(cells) == ["$0.0040", "$1.00"]


def test_runs_without_a_cost_have_no_such_column(project: Path) -> None:
    rows = [{"id": f"s{at}", "want": "yes", "m": "yes"} for at in range(4)]
    output_of(recorded_suite(project, rows, ["m"]), "--report", "page.html", "--quiet")
    assert column(project / "page.html", "cost") is None


def test_memory_is_a_column_where_runs_differ_by_more_than_a_twentieth(project: Path) -> None:
    rows = [{"id": f"s{at}", "want": "yes", "a": "yes", "b": "yes"} for at in range(4)]
    folder = Path(document_of(recorded_suite(project, rows, "ab"), "--no-report")["folder"])

    def shown(peak_of_b: float) -> list[str] | None:
        replace_metric(folder, "memory.client_peak_bytes", {"a": 200e6, "b": peak_of_b})
        output_of("report", "latest", "--out", "page.html")
        return column(project / "page.html", "evalrun memory")

    differs = shown(240e6)
    assert differs is not None and sorted(differs) == ["200 MB", "240 MB"]
    assert shown(204e6) is None
    assert "evalrun memory 200 MB to 204 MB" in (project / "page.html").read_text()


def replace_metric(folder: Path, name: str, values: dict[str, float]) -> None:
    """Give a metric another value in every document of a sweep's runs, wherever these keep it."""

    def replaced(node: Any, value: float) -> Any:
        if isinstance(node, dict):
            changed = {key: replaced(each, value) for key, each in node.items()}
            return {**changed, "value": value} if node.get("name") == name and "value" in node else changed
        return [replaced(each, value) for each in node] if isinstance(node, list) else node

    for model, value in values.items():
        (run,) = (folder / "runs").glob(f"{model}-*")
        for path in run.glob("*.json"):
            if name in (text := path.read_text()):
                path.write_text(json.dumps(replaced(json.loads(text), value)))
