"""Run by the interpreter that has lm_eval: what its own `simple_evaluate` makes of tasks on a server."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    job = json.loads(sys.argv[1])
    import lm_eval
    from lm_eval.tasks import TaskManager

    said = lm_eval.simple_evaluate(
        model=job.get("model", "local-completions"),
        model_args={"model": "m", "base_url": job["url"], **job.get("model_args", {})},
        tasks=job["tasks"],
        task_manager=TaskManager(include_path=job["folder"], include_defaults=False),
        num_fewshot=job.get("num_fewshot"),
        limit=job.get("limit"),
        apply_chat_template=job.get("chat", False),
        bootstrap_iters=job["bootstrap"],
        log_samples=True,
    )
    samples = {
        name: [
            {key: value for key, value in row.items() if isinstance(value, int | float | str)} for row in rows
        ]
        for name, rows in said["samples"].items()
    }
    with Path(job["out"]).open("w") as file:
        json.dump(
            {"results": said["results"], "groups": said.get("groups", {}), "samples": samples},
            file,
            default=str,
        )


if __name__ == "__main__":
    main()
