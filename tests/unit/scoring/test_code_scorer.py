"""Code that models wrote: run locked down, judged by its tests, with hostile programs among the answers."""

import os
import platform
import sys
from pathlib import Path

import pytest

from evalrun.errors import UserError
from evalrun.scoring.base import ScoringInput, Unparsed
from evalrun.scoring.parsers.text import CodeBlockOptions, code_block
from evalrun.scoring.pipeline import suite_scorers
from evalrun.scoring.scorers.code import Code, CodeOptions, Limits, Ran, run_locked
from evalrun.suite.load import parse_suite
from evalrun.types import Status

LIMITS = Limits(timeout_s=2, memory_bytes=512_000_000)
linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="needs Linux"
)


def ran(program: str) -> Ran:
    return run_locked(program, LIMITS)


def scored(answer: str, row: dict, **options: object) -> tuple[float | None, str]:
    scorer = Code(CodeOptions(**{"tests": "test", "timeout_s": 5, **options}))
    found = scorer.score(ScoringInput(answer, answer, None, Status.SCORED, row))
    return found.value, found.reason


def test_a_program_passes_where_it_comes_to_its_end() -> None:
    found = ran("open('a.txt', 'w').write('x')\nassert open('a.txt').read() == 'x'")
    assert found.passed
    assert found.reason == "the tests passed"
    assert "resource limits" in found.in_force


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("assert 1 == 2, 'not so'", "AssertionError: not so"),
        ("def f(:", "SyntaxError"),
        ("import sys; sys.exit(0)\nassert False", "SystemExit: 0"),
        ("import os; os._exit(0)", "ended early"),
        ("import time; time.sleep(9e5)", "stopped after 2 s"),
        ("while True: pass", "stopped after 2 s"),
        ("while True: print('x' * 10_000)", "stopped after 2 s"),
        ("x = bytearray(10**10)", "512 MB of memory"),
        ("open('big', 'wb').write(bytes(10**8))", ""),
        ("import os\nwhile True: os.fork()", "os.fork is not allowed"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen is not allowed"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "not allowed"),
        ("import os, signal; os.kill(os.getppid(), signal.SIGKILL)", "os.kill is not allowed"),
        ("import os; open(f'/proc/{os.getppid()}/environ').read()", "is not allowed"),
    ],
)
def test_hostile_and_broken_programs_fail_and_end(program: str, reason: str) -> None:
    found = ran(program)
    assert not found.passed
    assert reason in found.reason


def test_a_program_sees_no_secret_and_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "sk-very-secret")
    found = ran("import os\nassert 'MY_API_KEY' not in os.environ and 'HOME' not in os.environ")
    assert found.passed, found.reason


def test_nothing_outside_the_working_folder_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / "x"
    assert not ran(f"open({str(target)!r}, 'w')").passed
    assert not ran(f"import os; os.mkdir({str(target)!r})").passed
    assert not target.exists()


@linux
def test_the_kernel_refuses_what_goes_round_python(tmp_path: Path) -> None:
    """ctypes calls the C library, where no audit hook is asked."""
    probe = ran("pass")
    if not {"Landlock", "seccomp"} <= set(probe.in_force):
        pytest.skip(f"not to be had here: {', '.join(probe.missing)}")
    head = "import ctypes, os\nc = ctypes.CDLL(None, use_errno=True)\n"
    secret, target = tmp_path / "secret", tmp_path / "made"
    secret.write_text("s")
    calls = {
        "socket": "c.socket(2, 1, 0)",
        "fork": "c.fork()",
        "kill": f"c.kill({os.getpid()}, 0)",
        "setsid": "c.setsid()",
        "write": f"c.open({str(target).encode()!r}, {os.O_CREAT | os.O_WRONLY}, 0o600)",
        "read": f"c.open({str(secret).encode()!r}, 0)",
    }
    for name, call in calls.items():
        found = ran(f"{head}assert {call} == -1")
        assert found.passed, (name, found.reason)
    assert not target.exists()


def test_nothing_of_it_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert ran("open('left', 'w').write('x')").passed
    assert not ran("import time; time.sleep(60)").passed
    assert list(tmp_path.iterdir()) == []


def test_the_answer_stands_before_its_tests() -> None:
    answer = "def add(a, b):\n    return a + b"
    assert scored(answer, {"test": "assert add(1, 2) == 3"})[0] == 1
    assert scored(answer, {"test": ["assert add(1, 2) == 3", "assert add(1, 1) == 3"]})[0] == 0
    value, reason = scored(answer, {"other": ""})
    assert value is None
    assert "no column 'test'" in reason


def test_a_completion_goes_on_where_the_prompt_ended() -> None:
    row = {"prompt": "def add(a, b):\n", "test": "def check(f):\n    assert f(1, 2) == 3", "entry": "add"}
    tests = "{{ test }}\ncheck({{ entry }})"
    assert scored("    return a + b", row, before="prompt", tests=tests)[0] == 1
    assert scored("    return a - b", row, before="prompt", tests=tests)[0] == 0


def test_what_is_in_force_is_said() -> None:
    _, reason = scored("x = 1", {"test": "assert x == 1"})
    assert "in force: resource limits" in reason


def test_missing_columns_are_found_before_anything_runs() -> None:
    scorer = Code(CodeOptions(tests="{{ test }}\ncheck({{ entry }})"))
    [problem] = scorer.check(("test",), "dataset d")
    assert "reads 'entry', which is no column" in problem.what
    assert scorer.check(("test", "entry"), "dataset d") == []


def test_the_suite_must_allow_it() -> None:
    data = {
        "name": "s",
        "models": [{"id": "m", "provider": "recorded", "column": "output"}],
        "prompts": [{"id": "p", "text": "x"}],
        "datasets": [{"id": "d", "rows": [{"test": "", "output": ""}]}],
        "scorers": [{"not": {"code": "test"}}],
    }
    with pytest.raises(UserError, match="does not allow"):
        suite_scorers(parse_suite(data))
    [made] = suite_scorers(parse_suite({**data, "allow": ["code_execution"]}))
    assert made.late


# Fenced code


def block(text: str, **options: object) -> str:
    return code_block(text, CodeBlockOptions(**options))


def test_code_is_taken_from_between_fences() -> None:
    text = "Sure:\n```python\na = 1\n```\nor\n~~~js\nb\nc\nd\ne\n~~~\n```\nlast\n```"
    assert block(text) == "a = 1"
    assert block(text, which="last") == "last"
    assert block(text, which="longest") == "b\nc\nd\ne"
    assert block(text, which="all") == "a = 1\n\nb\nc\nd\ne\n\nlast"
    assert block(text, language="python", which="last") == "last"  # a block that says no language may be it


def test_code_that_was_cut_off_or_never_fenced() -> None:
    assert block("```python\ndef f():\n    return 1") == "def f():\n    return 1"
    assert block("    return 1\n") == "    return 1"
    assert block("````\n```\ninner\n```\n````") == "```\ninner\n```"
    with pytest.raises(Unparsed, match="no block"):
        block("return 1", unfenced="unparsed")
    with pytest.raises(Unparsed, match="no block of python"):
        block("```js\nx\n```", language="python")
