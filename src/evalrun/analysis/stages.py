"""Where the time of a run went: load, render, queue, prefill, decode, score, write.

Loading the engine, rendering prompts, scoring and writing tables are seconds of this process (or of the
engine's start). Requests are under way side by side, so that their own seconds add up to more than the run
took: the time in which answers were waited for is divided among waiting for a place (queue), time to the
first token (prefill) and the rest of the answer (decode) in the proportion of these sums.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evalrun.analysis.samples import SampleTable
from evalrun.types import JSON

STAGES: Mapping[str, str] = {
    "load": "starting the engine and loading the model",
    "render": "reading rows and rendering prompts",
    "queue": "requests waiting in evalrun for their turn",
    "prefill": "from sending a request to its first token",
    "decode": "from the first token to the end of the answer; the whole answer where it was not streamed",
    "score": "parsing and scoring answers",
    "write": "making the run's tables",
}
"""The stages in their order, with what each is."""


def stage_times(
    table: SampleTable, known: Mapping[str, float], wall_s: float | None
) -> list[dict[str, JSON]]:
    """The stages that took any time: name, seconds of the run, and of requests the sum of their own.

    `known` are the measured seconds of load, render, score (while was asked), `score_after` and write,
    `wall_s` those in which was asked, rendered and scored.
    """
    asked = ~table.cached & table.answered
    e2e, ttft, queued = (
        np.nan_to_num(table.number(name)[asked]) for name in ("e2e_s", "ttft_s", "client_queue_s")
    )
    own = {
        "queue": float(np.maximum(queued, 0).sum()),
        "prefill": float(ttft.sum()),
        "decode": float(np.maximum(e2e - ttft, 0).sum()),
    }
    total = sum(own.values())
    waited = max(0.0, (wall_s or 0.0) - known.get("render", 0.0) - known.get("score", 0.0))
    seconds = {name: waited * own_s / total for name, own_s in own.items()} if total > 0 else {}
    seconds |= {**known, "score": known.get("score", 0.0) + known.get("score_after", 0.0)}
    return [
        {"stage": name, "seconds": seconds[name], "requests_s": own.get(name)}
        for name in STAGES
        if seconds.get(name, 0.0) > 0
    ]
