"""In which order runs are made, and the record of it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

from tests.integration.test_budgets import _model
from tests.integration.test_sweep import N, write_suite
from tests.program import evalrun
from tests.servers import ChatServer


def test_the_order_of_runs_is_drawn_by_the_seed_and_recorded(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer = lambda body: "1"
    prompts = [{"id": f"p{i}", "text": f"{i}: {{{{ a }}}}"} for i in range(6)]
    orders = []
    for seed in (1, 2, 1):
        suite = write_suite(project, chat_server, prompts=prompts, seed=seed)
        result = json.loads(evalrun(suite, "--no-report", "--no-cache", "--fresh", "--json").stdout)
        assert [run["prompt"] for run in result["runs"]] == [f"p{i}" for i in range(6)], "shown as written"
        order = json.loads((Path(result["folder"]) / "sweep.json").read_text())["order"]
        assert all(part["begun_at"] < part["finished_at"] and part["done"] == 0 for part in order)
        assert [part["finished_at"] for part in order] == sorted(part["finished_at"] for part in order)
        orders.append([part["run"].split("-")[1] for part in order])
    asked = list(dict.fromkeys(f"p{question[0]}" for question in chat_server.questions[-6 * N :]))
    assert orders[0] == orders[2] == asked
    assert orders[0] != orders[1]
    few = evalrun(suite, "--no-report", "--no-cache", "--json", "--prompts", "p4,p1,p3")
    order = json.loads((Path(json.loads(few.stdout)["folder"]) / "sweep.json").read_text())["order"]
    kept = [name for name in orders[2] if name in ("p4", "p1", "p3")]
    assert [part["run"].split("-")[1] for part in order] == kept, "leaving runs out reorders nothing"


def test_models_on_one_endpoint_take_turns(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer = lambda body: body["model"]
    prompts = [{"id": f"p{i}", "text": f"{i}: {{{{ a }}}}"} for i in range(4)]
    models = _model(chat_server, id="one", model="m1") + _model(chat_server, id="two", model="m2")
    suite = write_suite(project, chat_server, models=models, prompts=prompts, seed=3)
    result = json.loads(evalrun(suite, "--no-report", "--no-cache", "--json").stdout)
    order = json.loads((Path(result["folder"]) / "sweep.json").read_text())["order"]
    made = [part["run"].split("-")[0] for part in order]
    assert sorted(made) == ["one"] * 4 + ["two"] * 4
    asked = [body["model"] for body in chat_server.bodies]
    changes = sum(a != b for a, b in pairwise(made))
    assert changes > 1, "not all of the one before all of the other"
    assert sum(a != b for a, b in pairwise(asked)) == changes, "runs stay whole"
