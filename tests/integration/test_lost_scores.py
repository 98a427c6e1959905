"""Scores that were lost never make a figure, a gate, a standing or an exit code better."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.program import evalrun
from tests.servers import ChatServer

ROWS = 20
SCORERS = """
from evalrun import scorer

def raises(answer, row):
    if int(row["i"]) >= int(row["kept"]):
        raise ValueError("bad row")
    return 1.0

def gives_nan(answer, row):
    return float("nan") if int(row["i"]) >= int(row["kept"]) else 1.0

def not_of_this_row(answer, row):
    return (None, "not applicable: another language") if int(row["i"]) >= int(row["kept"]) else 1.0

def sometimes(sample):
    return "yes" if int(sample.row["i"]) % 5 else "no"

@scorer(metric="The share.")
def share(answer, row):
    return raises(answer, row)

def grade(sample):
    text = " ".join(message["content"] for message in sample.messages)
    return '{"reason": "x", "grade": "correct"}' if "kept" in text else "I cannot grade this."
"""


def rows(folder: Path, name: str, kept: int, **more: Any) -> None:
    with (folder / f"{name}.jsonl").open("w") as file:
        for at in range(ROWS):
            word = "kept" if at < kept else "gone"
            row = {"id": f"{name}{at}", "i": at, "kept": kept, "q": f"{word} {at}", "out": "yes", "t": "yes"}
            file.write(json.dumps({**row, "group": "ab"[at % 2], **more}) + "\n")


def suite(folder: Path, **parts: Any) -> Path:
    document = {
        "name": "lost",
        "models": [{"id": "m", "provider": "recorded", "column": "out"}],
        "prompts": [{"id": "p", "text": "{{ q }}"}],
        "datasets": [{"id": "d", "path": "d.jsonl", "key": "id", "target": "t"}],
        **parts,
    }
    path = folder / "suite.yaml"
    path.write_text(json.dumps(document).replace("mine:", f"{module(folder)}:"))
    return path


def sweep(path: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    done = evalrun(path, "--no-report", "--quiet", "--json", "--no-cache", *words)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def metric(result: dict[str, Any], name: str, run: int = 0, **slice_: str) -> dict[str, Any]:
    return next(m for m in result["runs"][run]["metrics"] if m["name"] == name and m["slice"] == slice_)


@pytest.fixture
def lossy(project: Path) -> Path:
    (project / f"{module(project)}.py").write_text(SCORERS)
    return project


def module(folder: Path) -> str:
    """A name of its own for each test: modules stay in the process."""
    return "mine_" + "".join(filter(str.isalnum, folder.name))


def refuse_unless_kept(server: ChatServer) -> None:
    plain = server.behaviour

    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        if "kept" in str(body["messages"]):
            return await plain(body, request)
        return web.json_response({"error": {"message": "maximum context length is 10 tokens"}}, status=400)

    server.answer = lambda body: "yes"
    server.behaviour = behaviour


@pytest.mark.parametrize(
    ("kept", "verdict", "code"), [(2, "inconclusive", 3), (19, "pass", 0), (18, "inconclusive", 3)]
)
@pytest.mark.parametrize("kind", ["raises", "gives_nan", "failed", "judge"])
def test_a_gate_on_what_was_lost(
    lossy: Path, chat_server: ChatServer, kind: str, kept: int, verdict: str, code: int
) -> None:
    """5 % of 20 rows are borne, more are not: whoever lost them."""
    rows(lossy, "d", kept)
    parts: dict[str, Any] = {"scorers": [{"python": f"mine:{kind}"}]}
    name = kind
    if kind == "failed":
        refuse_unless_kept(chat_server)
        name, served = "includes", {"provider": "openai_compatible", "base_url": chat_server.base_url}
        parts = {"scorers": ["includes"], "models": [{"id": "m", "model": "x", **served}]}
    if kind == "judge":
        name, judge = "judge", {"id": "j", "provider": "python", "function": "mine:grade"}
        parts = {"scorers": [{"judge": {"model": "j"}}], "judges": [judge]}
    found, result, _ = sweep(suite(lossy, gates=[f"{name} >= 0.95"], **parts))
    own = metric(result, name)
    assert (result["gates"][0]["verdict"], found) == (verdict, code)
    assert own["value"] == 1.0 and own["n"] == kept
    assert own.get("incomplete", False) is (code == 3)
    if code == 3 and kind in ("failed", "judge"):
        assert (own["bound_low"], own["bound_high"]) == (pytest.approx(kept / ROWS), 1.0)
    if code == 3 and kind in ("raises", "gives_nan"):
        assert own["bound_low"] is None and "no bounds" in own["note"]
    lost = result["lost"][0]
    words = {"raises": "bad row", "gives_nan": "nan", "judge": "no grade", "failed": "maximum context"}
    assert (lost["lost"], lost["of"]) == (ROWS - kept, ROWS) and words[kind] in lost["cause"]


def test_a_best_case_that_fails_is_a_failed_gate_and_a_worst_case_that_passes_a_passed_one(
    lossy: Path, chat_server: ChatServer
) -> None:
    rows(lossy, "d", 16)
    refuse_unless_kept(chat_server)
    served = {"provider": "openai_compatible", "base_url": chat_server.base_url, "model": "x"}
    path = suite(
        lossy, models=[{"id": "m", **served}], scorers=["includes"],
        gates=["includes >= 0.8", "includes <= 0.7", "includes >= 0.9"],
    )  # fmt: skip
    code, result, _ = sweep(path)
    assert [gate["verdict"] for gate in result["gates"]] == ["pass", "fail", "inconclusive"]
    assert code == 1
    junit = lossy / "j.xml"
    assert evalrun("gate", "latest", "--gate", "includes >= 0.9", "--junit", junit).returncode == 3
    counts = ElementTree.parse(junit).getroot().attrib
    assert (counts["errors"], counts["skipped"], counts["failures"]) == ("1", "0", "0")


def test_what_lost_everything_ends_with_exit_code_3_and_the_first_cause(
    lossy: Path, chat_server: ChatServer
) -> None:
    rows(lossy, "d", 0)
    code, result, _ = sweep(suite(lossy, scorers=[{"python": "mine:raises"}]))
    assert code == 3 and result["status"] == "complete", "the answers are there: they can be scored again"
    assert "raises" in result["errors"][0] and "ValueError: bad row" in result["errors"][0]
    judge = {"id": "j", "provider": "python", "function": "mine:grade"}
    code, result, _ = sweep(suite(lossy, scorers=[{"judge": {"model": "j"}}], judges=[judge]))
    assert code == 3 and "no grade" in result["errors"][0]
    refuse_unless_kept(chat_server)
    served = {"provider": "openai_compatible", "base_url": chat_server.base_url, "model": "x"}
    path = suite(lossy, models=[{"id": "m", **served}], scorers=["includes"])
    path.write_text(path.read_text().replace('"key": "id"', '"key": "id", "limit": 8'))
    shown = evalrun(path, "--no-report", "--quiet", "--no-cache")
    assert shown.returncode == 3
    assert "HTTP 400: maximum context length is 10 tokens" in " ".join(shown.stdout.split())
    assert "HTTP 400: maximum context length is 10 tokens" in shown.stderr
    manifest = json.loads(evalrun("show", "latest", "--json").stdout)
    assert manifest["status"] == "failed" and manifest["exit_code"] == 3
    assert "HTTP 400" in manifest["results"]["lost"][0]["cause"]
    code, again, _ = sweep(path)
    assert not again["resumed"] and again["sweep"] != manifest["sweep"], "an outage is not taken up again"


def test_everything_may_be_tolerated(lossy: Path) -> None:
    rows(lossy, "d", 2)
    path = suite(lossy, scorers=[{"python": "mine:raises"}], gates=["raises >= 0.9"], errors={"tolerate": 1})
    code, result, _ = sweep(path)
    assert code == 0 and "incomplete" not in metric(result, "raises")
    assert result["lost"][0]["lost"] == ROWS - 2, "what was lost is said all the same"


def test_rows_that_a_scorer_does_not_speak_of_are_not_lost(lossy: Path) -> None:
    rows(lossy, "d", 2)
    path = suite(lossy, scorers=[{"python": "mine:not_of_this_row"}], gates=["not_of_this_row >= 0.9"])
    code, result, _ = sweep(path)
    assert code == 0 and result["lost"] == []


def test_derived_scores_one_dataset_of_two_and_their_standings(lossy: Path) -> None:
    rows(lossy, "d", ROWS)
    rows(lossy, "e", 4, out="no", second="yes")
    rows(lossy, "d", ROWS, second="no")
    path = suite(
        lossy,
        models=[{"id": name, "provider": "recorded", "column": name} for name in ("out", "second")],
        datasets=[{"id": name, "path": f"{name}.jsonl", "key": "id", "target": "t"} for name in "de"],
        scorers=["exact_match", {"python": "mine:raises"}],
        derive={"both": "0.5*exact_match + 0.5*raises"},
        gates=["both >= 0.45 for dataset=d", "both >= 0.9 for dataset=e"],
    )
    code, result, _ = sweep(path)
    assert code == 3
    by_run = {gate["run"]: gate["verdict"] for gate in result["gates"]}
    assert by_run == {
        "out-p-d": "pass", "second-p-d": "pass", "out-p-e": "inconclusive", "second-p-e": "inconclusive",
    }  # fmt: skip
    runs = [run["run"] for run in result["runs"]]
    assert metric(result, "both", runs.index("second-p-e"))["incomplete"]
    assert "incomplete" not in metric(result, "both", runs.index("second-p-d"))
    assert "incomplete" not in metric(result, "exact_match", runs.index("second-p-e"))


def test_a_model_whose_requests_fail_is_never_best(lossy: Path, chat_server: ChatServer) -> None:
    rows(lossy, "d", 4)
    refuse_unless_kept(chat_server)
    plain = chat_server.answer
    chat_server.answer = plain
    served = {"id": "lossy", "provider": "openai_compatible", "base_url": chat_server.base_url, "model": "x"}
    half = {"id": "whole", "provider": "python", "function": "mine:sometimes"}
    _, result, _ = sweep(suite(lossy, models=[served, half], scorers=["includes"]))
    standings = {each["run"]: (each["verdict"], each["incomplete"]) for each in result["standings"]}
    assert standings == {"whole-p-d": ("best", False), "lossy-p-d": ("tied", True)}
    shown = evalrun("show", "latest").stdout
    assert "Incomplete, too many rows were lost; ranked after the others: lossy" in " ".join(shown.split())


def test_one_slice_its_gap_and_its_contrast(lossy: Path) -> None:
    """Group b loses every second row; the whole loses a quarter, and group a nothing."""
    with (lossy / "d.jsonl").open("w") as file:
        for at in range(40):
            lost = at % 2 and at % 4 == 1
            row = {"id": f"d{at}", "i": int(lost), "kept": 1, "q": "x", "out": "yes", "t": "yes"}
            file.write(json.dumps({**row, "group": "ab"[at % 2]}) + "\n")
    path = suite(
        lossy,
        datasets=[{"id": "d", "path": "d.jsonl", "key": "id", "target": "t", "sensitive": ["group"]}],
        scorers=[{"python": "mine:share"}],
        fairness={"by": ["group"], "min_group": 5},
        gates=["share[group=a] >= 0.9", "share[group=b] >= 0.9", "fairness.group.share.gap <= 0.1",
               "fairness.group.share.gap <= 0.5"],
    )  # fmt: skip
    code, result, _ = sweep(path)
    assert [gate["verdict"] for gate in result["gates"]] == ["pass", "inconclusive", "inconclusive", "pass"]
    assert code == 3
    own = metric(result, "share", group="b")
    assert (own["bound_low"], own["bound_high"], own["value"]) == (0.5, 1.0, 1.0)
    assert "incomplete" not in metric(result, "share", group="a")
    gap = metric(result, "fairness.group.share.gap")
    assert (gap["value"], gap["bound_low"], gap["bound_high"]) == (0.0, 0.0, 0.5)


def test_no_worse_than_a_baseline(lossy: Path, chat_server: ChatServer) -> None:
    rows(lossy, "d", 10)
    served = {"provider": "openai_compatible", "base_url": chat_server.base_url, "model": "x"}
    gates = [
        "includes no worse than baseline by 0.1", "includes no worse than baseline by 0.6",
        "includes >= baseline - 0.1", "includes >= baseline - 0.6", "includes >= baseline + 0.1",
    ]  # fmt: skip
    path = suite(lossy, models=[{"id": "m", **served}], scorers=["includes"], gates=gates)
    chat_server.answer = lambda body: "yes"
    first = sweep(path)[1]
    assert evalrun("baseline", "set", "main", first["sweep"]).returncode == 0
    refuse_unless_kept(chat_server)
    code, result, _ = sweep(path)
    verdicts = [gate["verdict"] for gate in result["gates"]]
    assert verdicts[0] == "inconclusive", "ten of twenty lost: the worst case is 0.5 worse"
    assert verdicts[2:] == ["inconclusive", "pass", "fail"] and code == 1
    assert all(gate["incomplete"] for gate in result["gates"])
    code, result, _ = sweep(path, "--baseline", "latest")
    assert result["gates"][2]["verdict"] == "inconclusive", "a baseline that lost rows shows nothing either"


def test_latencies_of_requests_that_failed(lossy: Path, chat_server: ChatServer) -> None:
    """A failed request may have had any latency: half of them lost leave the upper percentiles open."""
    rows(lossy, "d", 16)
    refuse_unless_kept(chat_server)
    served = {"provider": "openai_compatible", "base_url": chat_server.base_url, "model": "x"}
    path = suite(
        lossy, models=[{"id": "m", **served}], scorers=["includes"],
        gates=["performance.e2e_s.p50 <= 60", "performance.e2e_s.mean <= 60", "performance.e2e_s.max <= 0"],
    )  # fmt: skip
    code, result, _ = sweep(path)
    assert [gate["verdict"] for gate in result["gates"]] == ["pass", "inconclusive", "fail"] and code == 1
    median = metric(result, "performance.e2e_s.p50")
    assert median["bound_low"] <= median["value"] <= median["bound_high"] < 60
    assert metric(result, "performance.e2e_s.mean")["bound_high"] is None
