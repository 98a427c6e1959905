"""An answer of the embedded model in a chat, explained by what its template makes of the messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests import program

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.engine


def test_the_section_that_names_the_teams_made_the_word(tmp_path: Path) -> None:
    text = (
        "{% section task %}You sort support messages.{% endsection %}\n"
        "{% section teams %}Teams: billing, delivery, account.{% endsection %}\n"
        "{% section message %}Message: I was charged twice.{% endsection %}\n"
        "{% section ask %}Answer with the team only.{% endsection %}"
    )
    suite = {
        "name": "why",
        "models": [
            {
                "id": "m",
                "provider": "llamacpp",
                "model": "smollm2-135m-instruct",
                "params": {"temperature": 0, "max_tokens": 1},
            }
        ],
        "prompts": [{"id": "p", "text": text}],
        "datasets": [{"id": "d", "rows": [{"id": "a", "t": "billing"}], "key": "id", "target": "t"}],
        "scorers": ["exact_match"],
    }
    (tmp_path / "suite.yaml").write_text(json.dumps(suite))
    assert program.evalrun("suite.yaml", "--no-report", cwd=tmp_path).returncode == 0
    words = ("--units", "section", "--method", "shapley", "--target", "target", "--no-faithfulness", "--json")
    done = program.evalrun("explain", "latest/m-p-d/a", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    values = {unit["name"]: unit["value"] for unit in found["units"]}
    assert max(values, key=lambda name: values[name]) == "teams" and values["teams"] > 5
    assert sum(values.values()) == pytest.approx(found["v_full"] - found["v_empty"], abs=1e-9)
    assert found["evaluations"] == 16  # every combination once, the whole prompt among them
    assert [unit["tokens"] for unit in found["units"]] == [5, 9, 7, 6]
