"""`evalrun whatis`: a deployment as offline runs, probes, traffic and users see it."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.program import evalrun
from tests.servers import ChatServer

PART = """
models: [{id: live, provider: openai_compatible, base_url: "%s", model: m}]
prompts: [{id: p, messages: [{role: user, content: "{{ q }}"}]}]
datasets: [{id: d, rows: [{q: a, a: "42"}, {q: b, a: "43"}], target: "{{ a }}"}]
scorers: [exact_match]
"""


def test_the_figures_of_all_sources_stand_side_by_side(tmp_path: Path) -> None:
    def run(*words: str) -> str:
        done = evalrun(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with ChatServer() as server:
        part = PART % server.base_url
        (tmp_path / "suite.yaml").write_text("name: triage" + part)
        (tmp_path / "probe.yaml").write_text("name: triage-probe\nprobe: {env: prod}" + part)
        (tmp_path / "traffic.yaml").write_text("name: users\ntags: {kind: traffic, env: prod}" + part)
        run("suite.yaml", "--no-report")
        promoted = json.loads(run("promote", "latest", "--as", "production", "--reason", "best", "--json"))
        run("deployed", "latest", "--env", "prod")
        before = json.loads(run("whatis", "production", "--json"))
        assert {side["source"] for side in before["sides"]} == {"offline"}
        run("probe", "probe.yaml", "--once")
        run("traffic.yaml", "--no-report", "--limit", "1")
        document = json.loads(run("whatis", "production", "--json"))
        text = run("whatis", "production")
        run("drift", "latest", "--against", "production")
        before = json.loads(run("card", promoted["sweep"], "--as", "annex-iv", "--json"))
    of = {(side["source"], side["metric"]): side for side in document["sides"]}
    assert of["offline", "exact_match"]["value"] == 0.5
    assert of["probe", "exact_match"]["value"] == 0.5
    assert of["traffic", "exact_match"]["value"] == 1.0
    assert of["probe", "availability"]["value"] == 1.0
    assert of["probe", "availability"]["since"] == time.strftime("%Y-%m-%d", time.gmtime())
    assert document["origin"]["sweep"] == promoted["sweep"]
    assert document["origin"]["name"] == "triage"
    assert "offline" in text
    assert "traffic" in text
    assert "from the sweep triage" in text
    (seen,) = (section["lines"] for section in before["sections"] if section["reference"] == "9")
    lines = {line["label"].partition(" (")[0]: line for line in seen}
    assert lines["Availability"]["n"] == 2 and "n = 2" in lines["Availability"]["text"]
    assert [line["value"] for line in seen if line["label"].startswith("exact_match (")] == [0.5, 1.0]
    assert any(label.startswith("Drift of ") for label in lines)
    assert lines["Post-market monitoring plan"]["state"] == "to be completed"
    (folder,) = (tmp_path / ".evalrun" / "sweeps").glob(f"{promoted['sweep']}-*")
    assert all((folder / line["evidence"]["file"]).is_file() for line in seen if line["evidence"])
