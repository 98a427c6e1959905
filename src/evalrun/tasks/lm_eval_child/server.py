"""Jobs, one JSON document a line, answered one after the other."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

from . import code
from .build import Built, build, show
from .data import Data
from .names import index_of, tasks_folder, version
from .score import aggregate, score
from .values import Fault, first_line


class Server:
    """Answers jobs one after the other."""

    def __init__(self) -> None:
        self.data: Data | None = None
        self.built: dict[str, Built] = {}

    def answer(self, job: dict[str, Any]) -> dict[str, Any]:
        """One job. Raises Fault."""
        if job["op"] == "version":
            return {"version": version(), "folder": tasks_folder()}
        if job["op"] == "index":
            return index_of(job["folders"], job["defaults"])
        if self.data is None:
            self.data = Data()
            self.data.install()
            code.install()
        if job["op"] == "build":
            self.built[job["key"]], described = build(self.data, job)
            return described
        if job["op"] == "show":
            return show(self.data, job)
        if job["op"] == "score":
            return score(self.built[job["key"]], job)
        if job["op"] == "aggregate":
            return {"groups": aggregate(self.built[job["key"]], job["results"])}
        raise Fault(f"unknown operation {job['op']}")


def main() -> None:
    """Answer jobs until standard input ends."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # lm_eval prints progress and bootstrap lines
    sys.stdout = sys.stderr
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.disable(logging.WARNING)
    server = Server()
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {"ok": server.answer(json.loads(line))}
        except Fault as fault:
            answer = {"fault": {"what": fault.what, "remedy": fault.remedy, "kind": fault.kind}}
        except Exception as error:
            import traceback

            traceback.print_exc()
            answer = {
                "fault": {
                    "what": f"{type(error).__name__}: {first_line(error)}",
                    "remedy": "",
                    "kind": "bug",
                }
            }
        channel.write(json.dumps(answer, ensure_ascii=True) + "\n")
        channel.flush()
