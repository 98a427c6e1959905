"""What broke, where: from a regression to the slice that holds it, in every place that people look at."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.program import evalrun
from tests.recorded import document_of, recorded_suite

WRONG = {f"t{at}" for at in range(0, 140, 4)}


def rows(broken: bool) -> list[dict[str, Any]]:
    """140 tickets, a quarter of them of shipping; where it is broken these are all answered wrong."""
    teams = ["shipping" if at % 4 == 0 else "billing" for at in range(140)]
    return [
        {
            "id": f"t{at}",
            "text": f"ticket {at}",
            "team": team,
            "said": "bug" if broken and at % 4 == 0 else team,
        }
        for at, team in enumerate(teams)
    ]


def suite_of(folder: Path, broken: bool) -> Path:
    dataset = {"id": "d", "path": "rows.jsonl", "key": "id", "target": "team"}
    models = [{"id": "m", "provider": "recorded", "column": "said"}]
    gates = ["exact_match >= 0.9", "exact_match no worse than baseline by 0.02"]
    return recorded_suite(folder, rows(broken), [], models=models, datasets=[dataset], gates=gates)


@pytest.fixture
def night(project: Path) -> Path:
    """The suite of a second night, on which shipping broke; the first night is the baseline."""
    evalrun(str(suite_of(project, False)), "--no-report", "--quiet", "--no-lock")
    assert evalrun("baseline", "set", "main", "latest").returncode == 0
    return suite_of(project, True)


def test_every_place_says_which_slice_it_is(night: Path) -> None:
    done = evalrun(
        str(night), "--baseline", "main", "--junit", "j.xml", "--summary", "s.md", "--report", "r.html"
    )
    assert done.returncode == 1, done.stderr
    where = "35 of 35 in target=shipping (all 35 of them)"
    said = " ".join(done.stdout.split())
    assert said.count(where) == 3  # both gates, and the line against the sweep before
    junit = Path("j.xml").read_text()
    assert where in junit
    assert "Samples: t0, t4, t8, t12, t16" in junit
    assert re.search(r"Next: evalrun samples 01\w{24}/m-p-d", junit)
    assert "35 of 35 in target" in Path("s.md").read_text().replace("\\", "")
    assert where in Path("r.html").read_text()
    told = " ".join(evalrun("compare", "latest~1", "latest", "--common", "--html", "c.html").stdout.split())
    assert f"what became worse: {where}" in told
    assert where in Path("c.html").read_text()


def test_documents_have_it_typed(night: Path) -> None:
    document = document_of(night, "--no-report", "--baseline", "main", code=1)
    slices = [*(gate["where"] for gate in document["gates"]), document["previous"]["runs"][0]["where"]]
    for (slice_,) in slices:
        assert (slice_["column"], slice_["value"]) == ("target", "shipping")
        assert (slice_["inside"], slice_["size"], slice_["affected"], slice_["total"]) == (35, 35, 35, 140)
        assert {*slice_["sample_ids"]} <= WRONG
    compared = json.loads(evalrun("compare", "latest~1", "latest", "--common", "--json").stdout)
    assert compared["comparisons"][0]["where"][0]["value"] == "shipping"
