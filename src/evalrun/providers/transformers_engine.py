"""Models of Hugging Face Transformers in a child process: folders of weights as a training writes them, LoRA
adapters, names on the Hub."""

from __future__ import annotations

import importlib.util
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import orjson
from pydantic import Field

from evalrun.errors import ExitCode, UserError
from evalrun.providers import parameters
from evalrun.providers.base import (
    LooksInside,
    Pinned,
    ProviderContext,
    ProviderOptions,
    RendersChat,
    provider,
)
from evalrun.providers.batches import BatchEngine
from evalrun.providers.llamacpp import available_cores, patient_threads
from evalrun.providers.openai_api import Api
from evalrun.providers.vllm_child import KEY_VARIABLE
from evalrun.providers.vllm_engine import death_of, started, weights_identity
from evalrun.types import JSON, ErrorKind, Message, ProviderError, Timing

if TYPE_CHECKING:
    from evalrun.suite.components import ModelSpec

ADAPTER_CONFIG = "adapter_config.json"
_SORTED_AT_ONCE = 4
"""So many batches are handed over together, to be sorted by length."""


class TransformersOptions(ProviderOptions):
    """What a model entry with `provider: transformers` may say besides the common keys.

    `model` is a folder of weights as safetensors (relative to the suite), a folder with a LoRA adapter, or a
    name on the Hugging Face Hub.
    """

    api: Literal["chat", "completions"] = Field(
        default="chat",
        description="chat puts messages through the tokenizer's chat template; completions sends raw text.",
    )
    adapter: str | None = Field(
        default=None, description="A folder with a LoRA adapter to lay over the model (needs peft)."
    )
    tokenizer: str | None = Field(
        default=None, description="Folder or name of the tokenizer, where it is not beside the weights."
    )
    revision: str | None = Field(
        default=None, description="For a name on the Hub: branch, tag or commit. Default: main."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="The numbers that are computed with. auto: as the weights are stored."
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="auto, cpu, mps, cuda or cuda:1. auto: a GPU where there is one.",
    )
    batch: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Samples in one forward pass. Default 16, and 1 where the suite says deterministic: true."
        " Sums are rounded otherwise in another batch, which can change greedy text.",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="CPU threads. Default: the cores that this process may use and nothing else is using.",
    )
    startup_timeout_s: float = Field(
        default=600, gt=0, strict=False, description="Seconds that loading may take."
    )


@provider("transformers")
class Transformers(BatchEngine[TransformersOptions], Pinned, RendersChat, LooksInside):
    """Hands batches to a model in a child process.

    Times are of the batch that a sample was in: from its beginning to the sample's first and last token.
    """

    summary: ClassVar[str] = "Hugging Face Transformers in a child process: checkpoints, LoRA adapters"
    parameters = parameters.TRANSFORMERS
    supports = frozenset({"chat", "completions", "prompt_logprobs", "first_token"})

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        super().__init__(spec, context)
        if self.options.api == "chat":  # only completions give log-probabilities of prompts
            self.supports = type(self).supports - {"prompt_logprobs"}
        if spec.model is None:
            raise UserError(
                "'model' is missing",
                where=f"model {spec.id}",
                remedy="Name a folder of weights, or a model of the Hugging Face Hub.",
            )
        if context.deterministic and (self.options.batch or 1) > 1:
            raise UserError(
                f"deterministic: true needs a batch of 1, found batch: {self.options.batch}",
                where=f"model {spec.id}",
                remedy="Leave batch out, or drop deterministic.",
            )
        self.rows = self.options.batch or (1 if context.deterministic else 16)
        self._identity: dict[str, JSON] = {}

    @property
    def endpoint(self) -> str:
        return f"local:transformers:{self.spec.id}"

    @property
    def batch_size(self) -> int:
        return self.rows * (_SORTED_AT_ONCE if self.rows > 1 else 1)

    @property
    def api(self) -> Api:
        return self.options.api

    async def start(self) -> None:
        """Load the model in a child process. Raises UserError (exit 3) with the cause from its log."""
        if self.engine is not None:
            return
        from evalrun.providers.engine import Engine, EngineCommand

        model, adapter = self._places()
        self._check_installed(adapter)
        key = secrets.token_urlsafe(24)
        threads = self.options.threads or free_cores()
        config = {
            "parent_pid": os.getpid(),
            "model": model,
            "adapter": adapter,
            "tokenizer": self._tokenizer(model, adapter),
            "revision": self.options.revision,
            "dtype": self.options.dtype,
            "device": self.options.device,
            "batch": self.rows,
            "threads": threads,
        }
        module = "evalrun.providers.transformers_child"
        self.engine = Engine(
            EngineCommand(
                name="transformers",
                argv=(sys.executable, "-P", "-m", module, orjson.dumps(config).decode()),
                log_path=self.context.work_dir / f"engine-{self.spec.id}.log",
                startup_timeout_s=self.options.startup_timeout_s,
                env={
                    KEY_VARIABLE: key,
                    "OMP_NUM_THREADS": str(threads),
                    "TOKENIZERS_PARALLELISM": "false",
                    "HF_HUB_DISABLE_TELEMETRY": "1",
                    **patient_threads(os.environ),
                },
                remedy="The log says more. See that the weights are whole and that memory suffices.",
            )
        )
        try:
            announced = await started(self.engine)
            self._check_template(announced)
            self._identity = self._identify(announced)
        except BaseException:
            await self.close()
            raise
        self.listen_to(int(announced["port"]), key)

    async def look(self, what: str, arguments: Mapping[str, JSON]) -> dict[str, JSON]:
        if self.client is None:
            raise ProviderError(ErrorKind.ENGINE, "the engine is not running")
        body = orjson.dumps({"api": "look", "requests": [{"what": what, **arguments}]})
        return await self.client.post(self.client.below("batch"), body, _read_look)

    async def chat_text(self, messages: Sequence[Message]) -> str:
        sent = [{"role": message.role, "content": message.content} for message in messages]
        return str((await self.look("chat_text", {"messages": sent}))["text"])

    async def engine_stats(self) -> dict[str, float]:
        return {}  # it keeps no figures of its own

    async def death(self, patience_s: float) -> ProviderError | None:
        return None if self.engine is None else await death_of(self.engine, patience_s)

    def pins(self) -> dict[str, JSON]:
        try:
            model, adapter = self._places()
        except UserError:  # a trainer deletes its older checkpoints
            return {}
        pinned = weights_identity(model, self.options.revision)
        if adapter is not None:
            pinned["adapter_sha256"] = weights_identity(adapter, None).get("weights_sha256")
        tokenizer = self._tokenizer(model, adapter)
        if tokenizer != model:
            own = weights_identity(tokenizer, None)
            pinned |= {
                name: own[name] for name in ("tokenizer_sha256", "chat_template_sha256") if name in own
            }
        return pinned

    def identity(self) -> dict[str, JSON]:
        return dict(self._identity)

    def _identify(self, announced: dict[str, JSON]) -> dict[str, JSON]:
        return {
            "provider": "transformers",
            "model": self.spec.model,
            "api": self.options.api,
            "engine": {name: announced.get(name) for name in ("transformers", "torch")},
            "dtype": announced.get("dtype"),
            "device": announced.get("device"),
            "batch": self.rows,
            **({"threads": self.options.threads} if self.options.threads else {}),
            **self.pins(),
        }

    def _places(self) -> tuple[str, str | None]:
        """The base model and the adapter: folders, or names on the Hub. Raises UserError."""
        model, adapter = self._place(self.spec.model or ""), self.options.adapter
        if adapter is not None:
            return model, self._place(adapter)
        folder = Path(model)
        if (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file():
            return self._base_of(folder), model
        return model, None

    def _place(self, name: str) -> str:
        folder = self.context.base_dir / Path(name).expanduser()
        if folder.exists():
            return str(folder.resolve())
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise UserError(
                f"there is no folder '{name}'",
                where=f"model {self.spec.id}",
                remedy="Correct the path: relative ones start at the suite's folder.",
            )
        return name

    def _base_of(self, adapter: Path) -> str:
        """The model that an adapter was made for, as its configuration says."""
        try:
            base = orjson.loads((adapter / ADAPTER_CONFIG).read_bytes())["base_model_name_or_path"]
        except (OSError, ValueError, LookupError, TypeError):
            base = None
        if not isinstance(base, str) or not base:
            raise UserError(
                "the adapter does not say which model it is for",
                where=str(adapter / ADAPTER_CONFIG),
                remedy="Name the model under 'model' and this folder under 'adapter'.",
            )
        beside = adapter / base
        return str(beside.resolve()) if beside.exists() else self._place(base)

    def _tokenizer(self, model: str, adapter: str | None) -> str:
        if self.options.tokenizer is not None:
            return self._place(self.options.tokenizer)
        own = adapter is not None and (Path(adapter) / "tokenizer_config.json").is_file()
        return adapter if own and adapter is not None else model

    def _check_installed(self, adapter: str | None) -> None:
        for package in ("torch", "transformers", *(("peft",) if adapter is not None else ())):
            if importlib.util.find_spec(package) is None:
                extra = (
                    "pip install peft"
                    if package == "peft"
                    else "pip install 'transformers>=5' torch safetensors"
                )
                raise UserError(
                    f"{package} is not installed",
                    where=f"model {self.spec.id}",
                    remedy=f"Run: {extra}",
                    exit_code=ExitCode.INCOMPLETE,
                )

    def _check_template(self, announced: dict[str, JSON]) -> None:
        if self.options.api == "chat" and not announced.get("chat_template"):
            raise UserError(
                "the tokenizer has no chat template",
                where=f"model {self.spec.id}",
                remedy="Set api: completions, or put the template into the folder as chat_template.jinja.",
                exit_code=ExitCode.INCOMPLETE,
            )


def _read_look(document: JSON, timing: Timing) -> dict[str, JSON]:
    if "error" in document:
        raise ProviderError(ErrorKind.BAD_REQUEST, str(document["message"]))
    return dict(document["result"])


def free_cores() -> int:
    """Cores that this process may use and nothing else is using: threads that share a busy core wait for each
    other (seen: 19 s with two for a forward pass that one does in 1.2 s)."""
    try:
        busy = os.getloadavg()[0]
    except OSError:
        busy = 0.0
    return max(1, available_cores() - round(busy))
