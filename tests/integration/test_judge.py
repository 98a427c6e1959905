"""Judges as a user runs them, on a scripted server that grades well, badly, off the menu, or not at all."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from aiohttp import web
from click.testing import CliRunner
from tests.integration.test_sweep import metric
from tests.program import evalrun
from tests.servers import ChatServer, completion

from evalrun.cli.main import cli

N = 24


def suite_of(folder: Path, server: ChatServer, scorers: list[Any], **changes: Any) -> Path:
    """N questions to one model, and judges `j`, `k` and `l` on the same server."""
    rows = [
        {"id": f"q{i}", "text": f"question {i}", "want": f"answer {i}", "grade": 1 + i % 5, "old": f"old {i}"}
        for i in range(N)
    ]
    common = {"provider": "openai_compatible", "base_url": server.base_url}
    price = {"input_per_million_usd": 1.0, "output_per_million_usd": 2.0}
    suite = {
        "name": "judged",
        "models": [{**common, "id": "tested", "model": "tested", "params": {"temperature": 0}}],
        "judges": [{**common, "id": name, "model": f"judge-{name}", "price": price} for name in "jkl"],
        "prompts": [{"id": "plain", "text": "{{ text }}"}],
        "datasets": [{"id": "qa", "rows": rows, "key": "id", "target": "want"}],
        "scorers": scorers,
        "performance": {"concurrency": 4, "retries": 0},
        **changes,
    }
    path = folder / "suite.yaml"
    path.write_text(json.dumps(suite))
    return path


def number_in(body: dict[str, Any]) -> int:
    """Which question a request is about."""
    found = re.search(r"question (\d+)", body["messages"][0]["content"])
    assert found is not None
    return int(found[1])


def answering(judge: Any) -> Any:
    """The tested model answers rightly; `judge` says what a judge says to a body."""

    def answer(body: dict[str, Any]) -> str:
        return f"answer {number_in(body)}" if body["model"] == "tested" else judge(body)

    return answer


def run(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    """Run the program in this process; its JSON document."""
    done = CliRunner().invoke(cli, [*map(str, arguments), "--json", "--no-report"])
    assert done.exit_code == code, done.output
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def folder_of(result: dict[str, Any], at: int = 0) -> Path:
    return Path(result["folder"]) / "runs" / result["runs"][at]["run"]


def judge_bodies(server: ChatServer) -> list[dict[str, Any]]:
    return [body for body in server.bodies if body["model"] != "tested"]


def test_grades_on_a_scale_with_a_person_beside_them(project: Path, chat_server: ChatServer) -> None:
    """A judge that is one too high for every fifth sample: figures as computed by hand."""

    def judge(body: dict[str, Any]) -> str:
        n = number_in(body)
        return json.dumps({"reason": f"because of {n}", "grade": min(5, 1 + n % 5 + (n % 5 == 0))})

    chat_server.answer = answering(judge)
    suite = suite_of(project, chat_server, [{"judge": {"model": "j", "scale": [1, 5], "human": "grade"}}])
    result = run(suite)
    human = [1 + n % 5 for n in range(N)]
    given = [min(5, 1 + n % 5 + (n % 5 == 0)) for n in range(N)]
    found = result["runs"][0]
    assert metric(found, "judge")["value"] == pytest.approx(sum(given) / N)
    assert metric(found, "judge")["n"] == N
    same = sum(a == b for a, b in zip(human, given, strict=True)) / N
    assert metric(found, "judge.human.accuracy")["value"] == pytest.approx(same)
    from scipy.stats import kendalltau, spearmanr
    from sklearn.metrics import cohen_kappa_score

    expected = {
        "kappa": cohen_kappa_score(human, given, weights="quadratic"),
        "spearman": spearmanr(human, given).statistic,
        "kendall": kendalltau(human, given).statistic,
    }
    for name, value in expected.items():
        assert metric(found, f"judge.human.{name}")["value"] == pytest.approx(value), name
    # 7 prompt tokens and 3 of the answer, N times, at 1 and 2 dollars a million.
    assert metric(found, "cost.judge_usd")["value"] == pytest.approx(N * 13 / 1e6)
    assert not any(each["name"] == "cost.usd" for each in found["metrics"])
    samples = pq.read_table(folder_of(result) / "samples.parquet").to_pylist()
    assert samples[3]["reason.judge"] == "4: because of 3"
    assert {row["completion_tokens"] for row in samples} == {3}
    asked = pq.read_table(folder_of(result) / "judge.parquet").to_pylist()
    assert len(asked) == N
    assert {row["sample_id"] for row in asked} == {row["sample_id"] for row in samples}
    assert all(json.loads(row["output"])["grade"] == int(row["grade"]) for row in asked)


def test_what_a_judge_is_sent(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer = answering(lambda body: '{"grade": "correct"}')
    run(suite_of(project, chat_server, [{"judge": {"model": "j", "rubric": "Is {{ old }} better?"}}]))
    body = next(body for body in judge_bodies(chat_server) if number_in(body) == 7)
    text = body["messages"][0]["content"]
    for part in ("question 7", "<answer>\nanswer 7\n</answer>", "Is old 7 better?", "correct, incorrect"):
        assert part in text
    assert (body["temperature"], body["max_tokens"]) == (0, 256)
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["grade"]["enum"] == ["correct", "incorrect"]


def test_off_menu_prose_refusals_and_silence(project: Path, chat_server: ChatServer) -> None:
    """Each kind of bad verdict, one sample each: asked again once, then unscored; never a zero."""
    first = {
        0: '{"grade": 9}',  # off the menu; then a grade
        1: '{"grade": 9}',  # off the menu, and again
        2: "I'm sorry, I cannot judge that.",
        3: "",
        4: 'Well: {"grade": 4, "reason": "prose around it"} is what I think.',
        5: "4",
    }

    def judge(body: dict[str, Any]) -> str:
        n, again = number_in(body), "There is no such grade" in body["messages"][-1]["content"]
        if again and n == 0:
            return '{"grade": 2}'
        return first.get(n, '{"grade": 5}')

    chat_server.answer = answering(judge)
    result = run(suite_of(project, chat_server, ["exact_match", {"judge": {"model": "j", "scale": [1, 5]}}]))
    found = result["runs"][0]
    grades = [2, 4, 4] + [5] * (N - 6)
    assert metric(found, "judge")["n"] == N - 3
    assert metric(found, "judge")["value"] == pytest.approx(sum(grades) / len(grades))
    assert "3 answered without such a score" in metric(found, "judge")["note"]
    assert metric(found, "judge.unscored")["value"] == pytest.approx(3 / N)
    assert metric(found, "judge.reasked")["value"] == pytest.approx(4 / N)
    assert metric(found, "exact_match")["n"] == N
    assert len(judge_bodies(chat_server)) == N + 4
    again = [
        body for body in judge_bodies(chat_server) if len(body["messages"]) == 3 and number_in(body) == 0
    ]
    assert again[0]["messages"][1] == {"role": "assistant", "content": '{"grade": 9}'}
    assert list(again[0]["response_format"]["json_schema"]["schema"]["properties"]) == ["grade"]
    rows = {row["vars.id"]: row for row in pq.read_table(folder_of(result) / "samples.parquet").to_pylist()}
    assert rows["q1"]["score.judge"] is None
    assert "off the menu: '9'" in rows["q1"]["reason.judge"]


def test_a_judge_that_can_never_be_read_is_no_result(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer = answering(lambda body: "What a lovely day.")
    result = run(suite_of(project, chat_server, [{"judge": {"model": "j"}}]), code=3)
    found = result["runs"][0]
    assert (metric(found, "judge")["value"], metric(found, "judge")["n"]) == (None, 0)
    assert metric(found, "judge.unscored")["value"] == 1.0
    assert not metric(found, "judge.unscored").get("incomplete"), "how many got no grade is known of all"
    assert "no grade in 'What a lovely day.'" in result["errors"][0]


def test_a_judge_that_fails_leaves_its_samples_out(project: Path, chat_server: ChatServer) -> None:
    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        if body["model"] != "tested" and number_in(body) % 6 == 0:
            return web.json_response({"error": {"message": "overloaded"}}, status=500)
        text = f"answer {number_in(body)}" if body["model"] == "tested" else '{"grade": "correct"}'
        return web.json_response(completion(text))

    chat_server.behaviour = behaviour
    found = run(suite_of(project, chat_server, [{"judge": {"model": "j"}}]))["runs"][0]
    assert (metric(found, "judge")["n"], metric(found, "judge.unscored")["n"]) == (N - 4, N)
    assert found["counts"]["failed"] == 0  # the model answered; it is the judge that failed


def test_several_judges_and_their_agreement(project: Path, chat_server: ChatServer) -> None:
    """j and k agree; l says the opposite for every third sample."""

    def judge(body: dict[str, Any]) -> str:
        n = number_in(body)
        right = n % 2 == 0
        if body["model"] == "judge-l" and n % 3 == 0:
            right = not right
        return json.dumps({"grade": "correct" if right else "incorrect"})

    chat_server.answer = answering(judge)
    found = run(suite_of(project, chat_server, [{"judge": {"model": ["j", "k", "l"]}}]))["runs"][0]
    assert metric(found, "judge")["value"] == pytest.approx(0.5)
    krippendorff = pytest.importorskip("krippendorff")
    of_l = [(n % 2 == 0) != (n % 3 == 0) for n in range(N)]
    both = [n % 2 == 0 for n in range(N)]
    expected = krippendorff.alpha(
        [[int(x) for x in row] for row in (both, both, of_l)], level_of_measurement="nominal"
    )
    alpha = metric(found, "judge.alpha")
    assert alpha["value"] == pytest.approx(expected)
    assert alpha["ci_low"] < alpha["value"] < alpha["ci_high"]


def in_order(body: dict[str, Any]) -> tuple[str, str]:
    """The two answers of a pair as they were shown."""
    found = re.search(
        r"<answer_A>\n(.*?)\n</answer_A>\n<answer_B>\n(.*?)\n</answer_B>",
        body["messages"][0]["content"],
        re.S,
    )
    assert found is not None
    return found[1], found[2]


def test_pairs_with_a_fair_and_with_a_biased_judge(project: Path, chat_server: ChatServer) -> None:
    """j knows the better answer (the new one of two out of three); k always takes the first."""

    def judge(body: dict[str, Any]) -> str:
        if body["model"] == "judge-k":
            return '{"grade": "A"}'
        new_first = in_order(body)[0].startswith("answer")
        new_wins = number_in(body) % 3 != 0
        return json.dumps({"grade": "A" if new_first == new_wins else "B"})

    chat_server.answer = answering(judge)
    pairwise = {"column": "old"}
    scorers = [
        {"judge": {"name": "fair", "model": "j", "pairwise": pairwise}},
        {"judge": {"name": "biased", "model": "k", "pairwise": pairwise}},
    ]
    result = run(suite_of(project, chat_server, scorers))
    found = result["runs"][0]
    assert metric(found, "fair")["value"] == pytest.approx(2 / 3)
    assert metric(found, "fair.first_position")["value"] == 0.5
    assert metric(found, "fair.inconsistent")["value"] == 0.0
    assert metric(found, "biased")["value"] == 0.5
    assert metric(found, "biased.first_position")["value"] == 1.0
    assert metric(found, "biased.inconsistent")["value"] == 1.0
    assert len(judge_bodies(chat_server)) == 2 * 2 * N


def test_pairs_against_another_prompts_run(project: Path, chat_server: ChatServer) -> None:
    def answer(body: dict[str, Any]) -> str:
        if body["model"] == "tested":
            return "short" if body["messages"][0]["content"].startswith("Briefly") else "a long answer"
        return json.dumps({"grade": "A" if len(in_order(body)[0]) > len(in_order(body)[1]) else "B"})

    chat_server.answer = answer
    prompts = [{"id": "plain", "text": "{{ text }}"}, {"id": "brief", "text": "Briefly: {{ text }}"}]
    scorers = [{"judge": {"model": "j", "pairwise": {"prompt": "plain"}}}, "exact_match"]
    result = run(suite_of(project, chat_server, scorers, prompts=prompts))
    by_prompt = {each["prompt"]: each for each in result["runs"]}
    assert metric(by_prompt["brief"], "judge")["value"] == 0.0
    assert metric(by_prompt["plain"], "judge")["n"] == 0  # it would be compared with itself
    assert len(judge_bodies(chat_server)) == 2 * N


def test_the_same_model_as_judge_is_pointed_out(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer = lambda body: (
        '{"grade": "correct"}' if "You grade" in body["messages"][0]["content"] else "x"
    )
    result = run(suite_of(project, chat_server, [{"judge": {"model": "tested"}}], judges=[]))
    assert "same model" in metric(result["runs"][0], "judge")["note"]
    assert any("same model" in warning for warning in result["warnings"])
    other = run(suite_of(project, chat_server, [{"judge": {"model": "tested"}}], judges=[]), "--fresh")
    assert all("answered" not in warning for warning in other["warnings"])


def test_verdicts_come_from_the_cache_at_no_cost(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer = answering(lambda body: '{"grade": "correct"}')
    suite = suite_of(project, chat_server, [{"judge": {"model": "j"}}])
    run(suite)
    sent = len(chat_server.bodies)
    again = run(suite, "--fresh")
    assert len(chat_server.bodies) == sent
    assert metric(again["runs"][0], "judge")["value"] == 1.0
    assert not any(each["name"] == "cost.judge_usd" for each in again["runs"][0]["metrics"])


def test_kill_9_while_judging_and_the_same_command_again(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer = answering(lambda body: '{"grade": "correct"}')
    chat_server.delay_s = 0.03
    suite = suite_of(project, chat_server, [{"judge": {"model": "j"}}, "exact_match"])
    process = subprocess.Popen(
        [sys.executable, "-m", "evalrun", str(suite), "--no-cache", "--no-report"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while len(judge_bodies(chat_server)) < N // 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.1)
    before = len(chat_server.bodies)
    result = run(suite, "--no-cache")
    assert result["resumed"]
    assert before < len(chat_server.bodies) <= 2 * N + 20  # 20 requests were in flight at most
    assert len([body for body in chat_server.bodies if body["model"] == "tested"]) == N
    found = result["runs"][0]
    assert (metric(found, "judge")["value"], metric(found, "judge")["n"]) == (1.0, N)
    # What was measured before the kill is still there.
    assert metric(found, "performance.e2e_s.p50")["value"] >= 0.03
    assert not (folder_of(result) / "judge").exists()
    assert not (folder_of(result) / "answered.json").exists()


def test_a_judge_that_is_not_there_keeps_the_answers(project: Path, chat_server: ChatServer) -> None:
    """The sweep ends incomplete; once the judge is there, only it is asked."""
    chat_server.answer = answering(lambda body: '{"grade": "correct"}')
    suite = suite_of(project, chat_server, [{"judge": {"model": "j"}}])
    text = json.loads(suite.read_text())
    with ChatServer() as spare:
        text["judges"][0]["base_url"] = spare.base_url
        suite.write_text(json.dumps(text))
        port = spare.port
    done = evalrun(suite, "--no-cache", "--no-report")
    assert done.returncode == 3
    assert "is not there" in done.stderr
    late = ChatServer()
    late.port = port
    late.answer = answering(lambda body: '{"grade": "incorrect"}')
    with late:
        result = run(suite, "--no-cache")
    assert len(chat_server.bodies) == N
    assert metric(result["runs"][0], "judge")["value"] == 0.0


def test_rescoring_with_a_judge(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer = answering(lambda body: json.dumps({"grade": 1 + number_in(body) % 5}))
    first = run(suite_of(project, chat_server, ["exact_match"]))
    assert len(chat_server.bodies) == N
    common = {"provider": "openai_compatible", "base_url": chat_server.base_url}
    scorers = {
        "judges": [{**common, "id": "late", "model": "judge-late"}],
        "scorers": ["exact_match", {"judge": {"model": "late", "scale": [1, 5], "human": "grade"}}],
        "derive": {"good": "judge >= 3"},
    }
    (project / "scorers.yaml").write_text(json.dumps(scorers))
    child = run("rescore", first["sweep"], "--scorers", "scorers.yaml")
    assert child["parent"] == first["sweep"]
    found = child["runs"][0]
    grades = [1 + n % 5 for n in range(N)]
    assert metric(found, "judge")["value"] == pytest.approx(sum(grades) / N)
    assert metric(found, "judge.human.kappa")["value"] == pytest.approx(1.0)
    assert metric(found, "good")["value"] == pytest.approx(sum(grade >= 3 for grade in grades) / N)
    assert metric(found, "exact_match")["value"] == 1.0
    assert len(chat_server.bodies) == 2 * N
    assert (folder_of(child) / "judge.parquet").exists()
    assert evalrun("audit", "verify").returncode == 0


def test_a_rescoring_that_was_ended_goes_on(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer = answering(lambda body: '{"grade": "correct"}')
    first = run(suite_of(project, chat_server, ["exact_match"]))
    (project / "scorers.yaml").write_text(json.dumps([{"judge": {"model": "j"}}]))
    chat_server.delay_s = 0.05
    command = [
        sys.executable,
        "-m",
        "evalrun",
        "rescore",
        first["sweep"],
        "--scorers",
        "scorers.yaml",
        "--no-report",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(judge_bodies(chat_server)) < 22 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (project / ".evalrun" / "cache" / "responses.db").unlink()
    child = run(*command[3:-1])
    assert metric(child["runs"][0], "judge")["n"] == N
    folders = list((project / ".evalrun" / "sweeps").iterdir())
    assert len(folders) == 2
    assert len({number_in(body) for body in judge_bodies(chat_server)}) == N
    assert len(judge_bodies(chat_server)) <= N + 20


def test_the_plan_counts_what_judges_are_asked(project: Path, chat_server: ChatServer) -> None:
    scorers = [
        {"judge": {"model": ["j", "k"]}},
        {"judge": {"name": "pairs", "model": "l", "pairwise": {"column": "old"}}},
    ]
    done = evalrun("plan", suite_of(project, chat_server, scorers), "--json")
    plan = json.loads(done.stdout)
    assert plan["total"]["judge_requests"] == 4 * N
    assert [(each["scorer"], each["model"], each["requests"]) for each in plan["judges"]] == [
        ("judge", "j", N),
        ("judge", "k", N),
        ("pairs", "l", 2 * N),
    ]
    assert plan["total"]["usd"] > 0
    assert not chat_server.bodies


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        ({"judge": {"model": "jay"}}, "there is no model 'jay' to ask"),
        ({"judge": {"model": "j", "human": "grades"}}, "no column 'grades'"),
        ({"judge": {"model": "j", "rubric": "{{ nothing }}"}}, "uses 'nothing'"),
        ({"judge": {"model": "j", "rubric": "{% if %}"}}, "cannot be read"),
        ({"judge": {"model": "j", "rubric_file": "gone.txt"}}, "gone.txt"),
        ({"judge": {"model": "j", "pairwise": {"prompt": "plan"}}}, "no prompt 'plan' to compare with"),
        ({"judge": {"model": "j", "pairwise": {"column": "older"}}}, "no column 'older'"),
    ],
)
def test_what_cannot_work_is_found_before_anything_is_sent(
    project: Path, chat_server: ChatServer, scorer: dict[str, Any], message: str
) -> None:
    done = evalrun(suite_of(project, chat_server, [scorer]))
    assert done.returncode == 2
    assert message in done.stderr
    assert not chat_server.bodies


class EmbeddingServer(ChatServer):
    """Also answers /v1/embeddings: the vector of a text is its counts of a, b and c."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[list[str]] = []
        self.refuse = 0

    async def _embeddings(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if self.refuse:
            self.refuse -= 1
            return web.json_response({"error": {"message": "busy"}}, status=503)
        self.inputs.append(body["input"])
        await asyncio.sleep(0.01)
        data = [
            {"index": at, "embedding": [text.count("a"), text.count("b"), text.count("c") + 0.001]}
            for at, text in enumerate(body["input"])
        ]
        data.reverse()  # in any order: the index says which is which
        return web.json_response({"data": data, "usage": {"prompt_tokens": 5 * len(data)}, "model": "abc"})

    async def _start(self) -> None:
        await super()._start()
        app = web.Application()
        app.router.add_post("/v1/embeddings", self._embeddings)
        app.router.add_get("/v1/models", self._models)
        self._more = web.AppRunner(app, shutdown_timeout=0.1)
        await self._more.setup()
        site = web.TCPSite(self._more, "127.0.0.1", 0)
        await site.start()
        self.embedding_port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]


def test_embedding_similarity(project: Path) -> None:
    rows = [
        {"text": "1", "want": ["ab"]},
        {"text": "2", "want": ["c", "aab"]},
        {"text": "3", "want": ["b"]},
        {"text": "4", "want": ["a"]},
    ]
    answers = {"1": "ba", "2": "aab", "3": "a", "4": ""}
    with EmbeddingServer() as server:
        server.answer = lambda body: answers[body["messages"][0]["content"]]
        address = f"http://127.0.0.1:{server.embedding_port}/v1"
        emb = {"id": "emb", "provider": "openai_compatible", "base_url": address, "model": "abc"}
        suite = suite_of(project, server, [{"embedding": "emb"}], judges=[emb])
        text = json.loads(suite.read_text())
        text["datasets"] = [{"id": "qa", "rows": rows, "key": "text", "target": "{{ want }}"}]
        text["performance"] = {"retries": 2}
        suite.write_text(json.dumps(text))
        result = run(suite)
        samples = {
            row["sample_id"]: row for row in pq.read_table(folder_of(result) / "samples.parquet").to_pylist()
        }
        assert samples["1"]["score.embedding"] == pytest.approx(1.0)
        assert samples["2"]["score.embedding"] == pytest.approx(1.0)  # the nearest target counts
        assert samples["3"]["score.embedding"] == pytest.approx(0.0, abs=1e-5)
        assert samples["4"]["score.embedding"] == 0.0  # no answer
        assert metric(result["runs"][0], "embedding")["n"] == 4
        sent = [text for batch in server.inputs for text in batch]
        assert sorted(sent) == ["a", "aab", "ab", "b", "ba", "c"]  # each distinct text once
        assert max(map(len, server.inputs)) > 1
        run(suite, "--fresh")
        assert len([text for batch in server.inputs for text in batch]) == len(sent)
        server.refuse = 1  # the whole first request fails; each of its texts is asked again
        again = run(suite, "--fresh", "--no-cache")
        assert metric(again["runs"][0], "embedding") == metric(result["runs"][0], "embedding")


def test_a_model_without_embeddings_is_named(project: Path, chat_server: ChatServer) -> None:
    small = {"id": "small", "provider": "llamacpp", "model": "smollm2-135m-instruct"}
    done = evalrun(suite_of(project, chat_server, [{"embedding": "small"}], judges=[small]))
    assert done.returncode == 2
    assert "makes no embeddings" in done.stderr
    assert "embeddings: true" in done.stderr
    assert not chat_server.bodies
