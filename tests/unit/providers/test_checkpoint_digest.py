"""The digest of a checkpoint is of what shapes its answers, and of nothing else that lies there."""

from pathlib import Path

import pytest

from evalrun.providers.downloads import checkpoint_sha256, file_sha256


def test_the_digest_is_of_what_shapes_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALRUN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "checkpoint-1"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"weights")
    before = checkpoint_sha256(path)
    (path / "optimizer.pt").write_bytes(b"state")
    (path / "trainer_state.json").write_text("{}")
    assert checkpoint_sha256(path) == before
    seen = {before}
    for name in ("chat_template.jinja", "tokenizer.json", "model-00002-of-00002.safetensors"):
        (path / name).write_text("more")
        seen.add(checkpoint_sha256(path))
    assert len(seen) == 4
    assert checkpoint_sha256(path / "config.json") == file_sha256(path / "config.json")
