"""One training for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints of 20, 40 and 60 steps, and held.jsonl with the texts of the evaluation."""
    pytest.importorskip("torch", reason="needs the extra 'transformers'")
    import json

    from tiny_llama import train

    folder = tmp_path_factory.mktemp("trained")
    texts, _ = train(folder / "out")
    lines = [json.dumps({"id": f"h{at}", "text": text}) + "\n" for at, text in enumerate(texts)]
    (folder / "held.jsonl").write_text("".join(lines))
    return folder
