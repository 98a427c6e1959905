"""Weights & Biases, by its package (extra `wandb`); offline it leaves a folder that `wandb sync` sends."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from evalrun.results import RunResults
from evalrun.sinks.base import Unreachable, sink
from evalrun.sinks.trackers import Tracker, TrackerOptions

INIT_S = 20


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

    def log(
        self,
        sweep: str,
        results: RunResults,
        config: Mapping[str, Any],
        figures: Mapping[str, float],
        table: list[dict[str, str]],
    ) -> str:
        """Figures in one step; those of checkpoints over their training step, which their steps are not."""
        import wandb

        own = f"{sweep}-{hashlib.sha256(results.run.encode()).hexdigest()[:8]}".lower()
        settings = wandb.Settings(
            console="off", disable_git=True, disable_code=True, x_disable_stats=True, x_disable_meta=True,
            x_save_requirements=False, silent=True, init_timeout=INIT_S, save_code=False, program="evalrun",
        )  # fmt: skip
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
            raise Unreachable(str(error)[:500]) from error
        except wandb.errors.Error as error:
            raise ValueError(str(error)) from error
        return own
