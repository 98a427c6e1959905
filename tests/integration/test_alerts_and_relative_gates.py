"""Relative gates over every kind of metric, alerts to a webhook, and undecided gates, end to end."""

from __future__ import annotations

import http.server
import json
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.program import evalrun
from tests.servers import ChatServer

ROWS = 120
GATES = [
    "performance.e2e_s.p50 <= baseline * 1000",
    "memory.client_peak_bytes <= baseline * 10",
    "cost.usd <= baseline * 1.2",
    "error_rate <= baseline + 0.01",
    "fairness.group.exact_match.gap <= baseline + 0.05",
    "exact_match[group=a] >= baseline - 0.01",
]
SUITE = """
name: kinds
models:
  - {{id: m, provider: openai_compatible, base_url: "{url}", model: x,
      price: {{input_per_million_usd: {price}, output_per_million_usd: {price}}}}}
prompts: [{{id: p, text: "{{{{ q }}}}"}}]
datasets: [{{id: d, path: rows.jsonl, key: id, target: "{{{{ label }}}}", sensitive: [group]}}]
scorers: [exact_match]
fairness: {{by: [group]}}
gates: {gates}
{more}
"""


@pytest.fixture
def rows(project: Path) -> Path:
    with (project / "rows.jsonl").open("w") as file:
        for at in range(ROWS):
            row = {"id": f"r{at}", "q": f"q{at}", "label": "42" if at % 4 else "43", "group": "ab"[at % 2]}
            file.write(json.dumps(row) + "\n")
    return project


def run(suite: str, *arguments: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    Path("kinds.yaml").write_text(suite)
    command = ("kinds.yaml", "--no-report", "--no-cache", "--quiet", "--json", "--fresh")
    done = evalrun(*command, *arguments, env=environment)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def test_gates_on_speed_memory_cost_errors_and_fairness_hold_against_the_baseline(
    rows: Path, chat_server: ChatServer
) -> None:
    from evalrun.tracking.changes import set_baseline
    from evalrun.tracking.store import Store

    def suite(price: float) -> str:
        return SUITE.format(url=chat_server.base_url, price=price, gates=json.dumps(GATES), more="")

    code, first, said = run(suite(1.0))
    assert code == 1 and all("no baseline" in gate["reason"] for gate in first["gates"]), said
    store = Store(Path(".evalrun"))
    set_baseline(store, "main", store.resolve("latest"))
    code, same, _ = run(suite(1.0))
    assert [(gate["gate"], gate["verdict"]) for gate in same["gates"]] == [(each, "pass") for each in GATES]
    assert code == 0 and all(gate["baseline"] is not None for gate in same["gates"])
    code, dearer, _ = run(suite(2.0))
    failed = [gate["gate"] for gate in dearer["gates"] if gate["verdict"] == "fail"]
    assert (code, failed) == (1, ["cost.usd <= baseline * 1.2"])


class _Sink(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.got.append(self.rfile.read(int(self.headers["Content-Length"])))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def sink() -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    server.got = []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_alerts_are_posted_and_recorded_and_the_address_is_kept_nowhere(
    rows: Path, chat_server: ChatServer, sink: Any
) -> None:
    url = f"http://127.0.0.1:{sink.server_address[1]}/services/PLANTED"
    more = 'alerts: {when: ["exact_match < 0.9", "exact_match < 0.1"], webhook: "%s"}'
    given = {"url": chat_server.base_url, "price": 1, "gates": "[]"}
    code, document, said = run(SUITE.format(**given, more=more % "${HOOK}"), HOOK=url, GITHUB_ACTIONS="true")
    assert code == 0, "an alert never changes the exit code"
    assert [(each["alert"], each["fired"]) for each in document["alerts"]] == [
        ("exact_match < 0.9", True), ("exact_match < 0.1", False),
    ]  # fmt: skip
    assert "ALERT exact_match < 0.9 (m-p-d)" in said and "::warning title=evalrun alert::" in said
    code, _, _ = run(SUITE.format(**given, more=more % url))  # written into the suite itself
    assert code == 0 and len(sink.got) == 2 and b"exact_match &lt; 0.9" in sink.got[0]

    Path("kinds.yaml").unlink()
    kept = [each for each in Path(".evalrun").rglob("*") if each.is_file()]
    assert kept and not [each for each in kept if b"PLANTED" in each.read_bytes()]
    events = [json.loads(line) for each in kept if each.name == "events.jsonl" for line in each.open()]
    posted = [event["detail"] for event in events if event["action"] == "alert"]
    assert posted == [{"alerts": ["exact_match < 0.9 (m-p-d)"], "webhook": "posted"}] * 2

    more = 'alerts: {when: ["exact_match < 0.9"], webhook: "http://127.0.0.1:1/x"}'
    code, document, said = run(SUITE.format(**given, more=more))
    assert code == 0 and "the webhook cannot be reached" in said and document["status"] == "complete"


def test_the_suite_says_what_an_undecided_gate_does(rows: Path, chat_server: ChatServer) -> None:
    from evalrun.tracking.changes import set_baseline
    from evalrun.tracking.store import Store

    gate = '["exact_match no worse than baseline by 0.01"]'
    given = {"url": chat_server.base_url, "price": 1, "gates": gate}
    run(SUITE.format(**given, more=""))
    store = Store(Path(".evalrun"))
    set_baseline(store, "main", store.resolve("latest"))
    chat_server.answer = lambda body: "44" if body["messages"][-1]["content"] == "q7" else "42"
    code, document, _ = run(SUITE.format(**given, more="inconclusive: fail"), "--junit", "strict.xml")
    assert (code, document["gates"][0]["verdict"]) == (1, "inconclusive")
    assert "samples are needed" in document["gates"][0]["reason"]
    assert ElementTree.parse("strict.xml").getroot().get("failures") == "1"
    code, _, _ = run(SUITE.format(**given, more=""), "--junit", "loose.xml", "--summary", "loose.md")
    assert code == 0
    assert ElementTree.parse("loose.xml").getroot().get("skipped") == "1"
    assert "⚠️ inconclusive" in Path("loose.md").read_text()
    code, _, _ = run(SUITE.format(**given, more="inconclusive: fail"), "--inconclusive", "warn")
    assert code == 0
