"""What is known of one task, for `evalrun tasks show`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from evalrun.suite.tasks import TASK_DATA_VARIABLE, metric_name
from evalrun.tasks.lmeval import LmEval, known_names

LICENCE = "that of its data set: see the dataset card; lm_eval's YAML is MIT"


def shown(name: str, data: str | None = None) -> dict[str, Any]:
    """A task, group or tag as JSON. Raises UserError with the nearest names where there is none."""
    lm_eval = LmEval()
    try:
        names = known_names(lm_eval)
        entry = names.get(name)
        document: dict[str, Any] = {**entry.document(), "path": entry.path, "members": list(entry.members)}
        if entry.kind == "task":
            with tempfile.TemporaryDirectory(prefix="evalrun-tasks-") as folder:
                said = lm_eval.ask(
                    "show",
                    key="show",
                    name=name,
                    specs=[name],
                    include=names.folders([name]),
                    out=folder,
                    task_data=data or os.environ.get(TASK_DATA_VARIABLE) or None,
                )
            said["metrics"] = [metric_name(key) for key in said.get("metrics") or ()]
            document |= {**said, "licence": LICENCE, "lm_eval": lm_eval.version}
        elif entry.path is not None:
            document["yaml"] = Path(entry.path).read_text(encoding="utf-8")
        return document
    finally:
        lm_eval.close()
