"""The child process, with small engines written here: they serve, crash, hang and are orphaned."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evalrun.errors import ExitCode, UserError
from evalrun.providers.engine import Engine, EngineCommand, log_tail

SERVE = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from evalrun.providers.engine import watch_parent
watch_parent(os.getppid())
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *args): pass
server = HTTPServer(("127.0.0.1", 0), Handler)
print("some noise first")
print('{"port": %d, "build": "b7"}' % server.server_port, flush=True)
sys.stdout.write("x" * 300000); sys.stdout.flush()
print("engine says hello", file=sys.stderr, flush=True)
server.serve_forever()
"""


@pytest.fixture
def engine(tmp_path: Path) -> Callable[..., Engine]:
    def make(code: str, timeout_s: float = 20) -> Engine:
        command = (sys.executable, "-c", code)
        return Engine(
            EngineCommand("toy", command, tmp_path / "logs" / "toy.log", timeout_s, remedy="Mend it.")
        )

    return make


def is_gone(pid: int, patience_s: float = 5) -> bool:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if sys.platform == "linux" and ") Z " in Path(f"/proc/{pid}/stat").read_text():
            return True
        time.sleep(0.02)
    return False


async def test_it_starts_announces_itself_and_stops(engine: Callable[..., Engine]) -> None:
    toy = engine(SERVE)
    announced = await toy.start()
    assert announced["build"] == "b7" and announced["port"] > 0
    pid = toy.pid
    assert pid is not None and toy.running and await toy.failure(0) is None
    await toy.stop()
    await toy.stop()
    assert toy.pid is None and is_gone(pid)


async def test_a_crash_is_told_with_the_last_words(engine: Callable[..., Engine]) -> None:
    toy = engine(SERVE)
    await toy.start()
    assert toy.pid is not None
    os.kill(toy.pid, signal.SIGKILL)
    reason = await toy.failure()
    assert reason == "the engine ended (SIGKILL); its log ends: engine says hello"
    await toy.stop()


async def test_an_engine_that_ends_while_starting(engine: Callable[..., Engine]) -> None:
    with pytest.raises(UserError, match=r"exit code 3.*weights are torn") as caught:
        await engine("import sys; print('weights are torn', file=sys.stderr); sys.exit(3)").start()
    problem = caught.value.problems[0]
    assert caught.value.exit_code is ExitCode.INCOMPLETE
    assert problem.remedy == "Mend it." and problem.where.endswith("toy.log")


@pytest.mark.parametrize(
    "code",
    ["import time; time.sleep(9e5)", "import time; print('{\"port\": 9}', flush=True); time.sleep(9e5)"],
)
async def test_an_engine_that_is_never_ready_is_stopped(engine: Callable[..., Engine], code: str) -> None:
    toy = engine(code, 0.5)
    with pytest.raises(UserError, match=r"not ready after 0\.5 s"):
        await toy.start()
    assert not toy.running


async def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    toy = Engine(EngineCommand("toy", (str(tmp_path / "nothing"),), tmp_path / "toy.log", 5))
    with pytest.raises(UserError, match="cannot be started"):
        await toy.start()


async def test_cancelling_the_start_leaves_nothing(engine: Callable[..., Engine]) -> None:
    toy = engine("import time; time.sleep(60)")
    starting = asyncio.create_task(toy.start())
    await asyncio.sleep(0.3)
    assert toy.running
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not toy.running


async def test_an_engine_that_ignores_the_request_to_end_is_killed(
    engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalrun.providers.engine._STOP_PATIENCE_S", 0.3)
    toy = engine("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVE)
    await toy.start()
    await toy.stop()
    assert not toy.running


PARENT = """
import asyncio, sys, time
from pathlib import Path
from evalrun.providers.engine import Engine, EngineCommand
async def main():
    command = EngineCommand("toy", (sys.executable, "-c", sys.argv[1]), Path(sys.argv[2]), 20)
    engine = Engine(command)
    await engine.start()
    print(engine.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
PIPE_ONLY = SERVE.replace("watch_parent(os.getppid())", "sys.platform = 'other'; watch_parent(os.getppid())")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("code", [SERVE, PIPE_ONLY], ids=["kernel and pipe", "pipe alone"])
def test_kill_minus_nine_of_the_parent_ends_the_engine(tmp_path: Path, code: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, code, str(tmp_path / "log")], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(pid, 0)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert is_gone(pid)


def test_log_tail(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert log_tail(path, 3) == []
    path.write_bytes(b"x" * 100_000 + b"\n\none\n  two\xff \n")
    assert log_tail(path, 2) == ["one", "two\ufffd"]


async def test_what_the_engine_said_of_its_error_is_told_though_much_came_after(
    engine: Callable[..., Engine],
) -> None:
    said = "import sys; print('error: no kernel image', file=sys.stderr)\n"
    after = "[print('freeing buffer', at, file=sys.stderr) for at in range(40)]; sys.exit(1)"
    with pytest.raises(UserError, match=r"error: no kernel image \| freeing buffer 35 .*buffer 39"):
        await engine(said + after).start()
