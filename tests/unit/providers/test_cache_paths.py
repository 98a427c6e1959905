from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from evalrun.errors import ExitCode, UserError
from evalrun.paths import cache_dir, models_dir


def test_the_variable_names_the_folder_and_it_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALRUN_CACHE", str(tmp_path / "a" / "b"))
    assert cache_dir() == tmp_path / "a" / "b"
    assert models_dir() == tmp_path / "a" / "b" / "models"
    if sys.platform != "win32":
        assert stat.S_IMODE(cache_dir().stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EVALRUN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="EVALRUN_CACHE") as caught:
        cache_dir()
    assert caught.value.exit_code is ExitCode.INCOMPLETE
