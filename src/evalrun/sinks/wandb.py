"""Weights & Biases, by its package (extra `wandb`); offline it leaves a folder that `wandb sync` sends."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from evalrun.results import RunResults
from evalrun.secrets import scrub
from evalrun.sinks.base import WORDS, Refused, Unreachable, sink
from evalrun.sinks.trackers import Tracker, TrackerOptions

SETTINGS: Mapping[str, Any] = {
    "console": "off", "disable_git": True, "disable_code": True, "save_code": False, "program": "evalrun",
    "x_disable_stats": True, "x_disable_meta": True, "x_disable_machine_info": True,
    "x_save_requirements": False, "silent": True,
    "init_timeout": 20, "finish_timeout": 60, "finish_timeout_raises": True,
}  # fmt: skip
"""Nothing that nobody asked for is sent, and nothing is waited for without end. What an older version
of theirs does not know is left out."""

_REFUSALS = re.compile(r"\b(error|HTTP) (40[0-79]|41\d|422)\b")


class WandbOptions(TrackerOptions):
    """Weights & Biases; its own variables (WANDB_API_KEY, WANDB_BASE_URL, WANDB_DIR, …) hold."""

    entity: str | None = Field(default=None, description="The team or user there. Default: yours.")
    mode: Literal["online", "offline"] | None = Field(
        default=None,
        description="offline writes a folder for `wandb sync`. Default: WANDB_MODE, else online.",
    )


@sink("wandb")
class WandbSink(Tracker):
    """A run has the same id each time: a second send goes on with it and leaves one."""

    Options = WandbOptions
    summary = "Weights & Biases: a run for each run, grouped by sweep (extra: wandb)."
    package = "wandb"
    places = ("WANDB_BASE_URL", "WANDB_MODE", "WANDB_DIR")

    def log(
        self,
        sweep: str,
        results: RunResults,
        config: Mapping[str, Any],
        figures: Mapping[str, float],
        table: list[dict[str, str]],
    ) -> str:
        """Figures in one step; those of checkpoints over their training step, which their steps are not."""
        # Their client would tell them of errors, with what was at hand when these came.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        own = f"{sweep}-{hashlib.sha256(results.run.encode()).hexdigest()[:8]}".lower()
        wanted = {name: value for name, value in SETTINGS.items() if name in wandb.Settings.model_fields}
        settings = wandb.Settings(**wanted)
        try:
            run = wandb.init(
                project=self._options.project, entity=self._options.entity, mode=self._options.mode,
                id=own, name=results.run, group=sweep, job_type="eval", config=dict(config), resume="allow",
                settings=settings, reinit="finish_previous",
            )  # fmt: skip
            if results.step is not None:
                run.define_metric("*", step_metric="train_step")
                figures = {**figures, "train_step": results.step}
            run.log(dict(figures))
            if table:
                columns = list(table[0])
                rows = [list(row.values()) for row in table]
                run.log({"failing samples": wandb.Table(columns=columns, data=rows)})
            run.finish(0)
        except wandb.errors.CommError as error:
            words = scrub(" ".join(str(error).split()))[:WORDS]
            raise (Refused if _REFUSALS.search(words) else Unreachable)(words) from error
        except wandb.errors.Error as error:
            raise Refused(scrub(str(error))[:WORDS]) from error
        return own
