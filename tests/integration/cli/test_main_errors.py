"""How the program ends where something is wrong: a message, an exit code, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.program import evalrun


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["lisst"], 2, "Did you mean 'list'?"),
        (["missing.yaml"], 2, "there is no suite 'missing.yaml'"),
        (["show"], 2, "Usage: evalrun show"),
        (["show", "--nope"], 2, "No such option"),
        (["show", "--live"], 2, "there is no sweep"),
        (["verify", "a" * 5000], 3, "error: aaa"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(project: Path, words: list[str], code: int, message: str) -> None:
    done = evalrun(*words)
    assert done.returncode == code
    assert message in done.stderr and "Traceback" not in done.stderr
    assert max(map(len, done.stderr.splitlines())) < 400
