"""What plugs into trainers: a callback for the Hugging Face Trainer, a logger for Lightning.

Nothing of a framework is patched. Their classes are made when they are asked for, since their bases come from
packages that need not be there.
"""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Any

from evalrun.errors import UserError
from evalrun.training.track import Tracked


@cache
def trainer_callback() -> Any:
    """The class of the callback. Raises UserError where transformers is not installed."""
    try:
        from transformers import TrainerCallback
    except ImportError as error:
        raise UserError(
            "the callback needs the package transformers", remedy="pip install 'transformers>=5'"
        ) from error

    class Callback(TrainerCallback):  # type: ignore[misc, unused-ignore]  # without the package it is Any
        """Logs what the Trainer logs, its arguments, and its checkpoints, from the process of rank 0."""

        def __init__(self, tracked: Tracked) -> None:
            self._tracked = tracked

        def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            if not state.is_world_process_zero:
                return
            with contextlib.suppress(Exception):
                values = dict(args.to_dict())
                values |= {"world_size": args.world_size, "train_batch_size": args.train_batch_size}
                self._tracked.config(values)
            self._tracked.plan(state.max_steps)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
            if state.is_world_process_zero and logs:
                self._tracked.log(logs, step=state.global_step)

        def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            if state.is_world_process_zero:
                place = f"{args.output_dir}/checkpoint-{state.global_step}"
                self._tracked.checkpoint(place, step=state.global_step)

    return Callback


@cache
def lightning_logger() -> Any:
    """The class of the logger. Raises UserError where Lightning is not installed."""
    try:
        from lightning.pytorch.loggers.logger import Logger
    except ImportError:
        try:
            from pytorch_lightning.loggers.logger import Logger
        except ImportError as error:
            raise UserError(
                "the logger needs the package lightning", remedy="pip install lightning"
            ) from error

    class EvalrunLogger(Logger):  # type: ignore[misc, unused-ignore]
        """Logs what a LightningModule logs. Lightning counts steps from 0: one more is done."""

        def __init__(self, tracked: Tracked) -> None:
            super().__init__()
            self._tracked = tracked

        @property
        def name(self) -> str:
            return self._tracked.path.name[27:] if self._tracked.path is not None else "evalrun"

        @property
        def version(self) -> str:
            return self._tracked.path.name[:26] if self._tracked.path is not None else ""

        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            self._tracked.log(metrics, step=None if step is None else step + 1)

        def log_hyperparams(self, params: Any, *args: Any, **others: Any) -> None:
            with contextlib.suppress(Exception):
                self._tracked.config(dict(params) if hasattr(params, "keys") else vars(params))

        def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
            with contextlib.suppress(Exception):
                path = checkpoint_callback.last_model_path or checkpoint_callback.best_model_path
                if path:
                    from pathlib import Path

                    from evalrun.checkpoints import step_of

                    self._tracked.checkpoint(path, step=step_of(Path(path)))

        def finalize(self, status: str) -> None:
            """Lightning may fit again with the same logger: it is the `with` block that ends the training."""

    return EvalrunLogger
