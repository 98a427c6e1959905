"""The first thing under Fairness: one table of all that was compared between groups."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.program import evalrun
from tests.recorded import recorded_suite


def _suite(folder: Path) -> Path:
    rows: list[dict[str, Any]] = []
    for at in range(240):
        side, size = "ab"[at % 2], "small" if at < 10 else "large"
        rows.append(
            {"id": f"s{at}", "side": side, "third": "xyz"[at // 2 % 3], "size": size, "want": "yes",
             "fair": "yes" if at % 5 else "no", "unfair": "no" if side == "b" and at % 6 else "yes"}
        )  # fmt: skip
    return recorded_suite(
        folder,
        rows,
        [],
        models=[{"id": name, "provider": "recorded", "column": name} for name in ("fair", "unfair")],
        datasets=[{"id": "d", "path": "rows.jsonl", "key": "id", "target": "want",
                   "sensitive": ["side", "third", "size"]}],
        fairness={"by": ["side", "third", "size"]},
    )  # fmt: skip


def _rows(page: str) -> list[list[str]]:
    table = re.search(r'id="gaps">(.*?)</table>', page, re.S)
    assert table is not None
    rows = re.findall(r"<tr>(.*?)</tr>", table[1], re.S)[1:]
    return [[re.sub("<.*?>", "", cell).strip() for cell in re.split("</t[hd]>", row)[:-1]] for row in rows]


def test_one_table_says_what_was_compared_and_how_it_reads(project: Path) -> None:
    assert evalrun(str(_suite(project)), "--report", "r.html", "--quiet").returncode == 0
    page = Path("r.html").read_text()
    rows = _rows(page)
    # What is wider than chance first, of whichever run; then the best run, column by column.
    assert rows[0][:3] == ["side", "unfair", "exact_match"]
    assert float(rows[0][3]) > 0.5
    assert rows[0][5:] == ["&lt; 0.001", "240", "wider than chance"]
    assert [row[:3] for row in rows[1:]] == [
        ["side", "fair", "exact_match"],
        ["third", "fair", "exact_match"],
    ]
    assert {row[7] for row in rows[1:]} <= {"tied", "no gap"}
    assert "corrected for all" in page
    # A column with one group that is large enough is folded.
    assert re.search(r"<summary>By size: nothing to compare</summary>", page)
