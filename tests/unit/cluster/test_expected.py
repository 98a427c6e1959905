"""What `plan --on` says before anything is asked: shards, and what a worker that dies costs at most."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from evalrun.cli.main import cli


def test_plan_says_the_shards_and_the_bound_of_a_death(tmp_path: Path) -> None:
    """By hand: 12,000 samples in shards of 5,000 are three; 7 in flight, and a shard in no segment."""
    model = {"id": "m", "provider": "openai_compatible", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
    suite = {
        "name": "planned",
        "models": [model],
        "prompts": [{"id": "p", "text": "{{ q }}"}],
        "datasets": [{"id": "d", "rows": [{"q": str(n), "a": "1"} for n in range(60)], "target": "{{ a }}"}],
        "scorers": ["exact_match"],
        "repeats": 200,
        "performance": {"concurrency": 7},
    }
    (tmp_path / "suite.json").write_text(json.dumps(suite))
    words = ["plan", str(tmp_path / "suite.json"), "--on", "ray"]
    said = CliRunner().invoke(cli, [*words, "--json"])
    assert said.exit_code == 0, said.output
    cluster = json.loads(said.stdout)["cluster"]
    assert cluster["models"]["m"] == {"shards": 3, "in_flight": 7, "unwritten": 5000}
    lines = CliRunner().invoke(cli, [*words, "--shard", "1000"]).stdout
    assert "12 shards of at most 1,000 samples" in " ".join(lines.split())
    assert "7 in flight and 1,000 in no segment, which are asked again" in " ".join(lines.split())
