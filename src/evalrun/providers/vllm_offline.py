"""vLLM without a server: whole batches to `vllm.LLM` in a child process, with the engine's own timings."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, ClassVar

from evalrun.errors import UserError
from evalrun.providers import parameters
from evalrun.providers.base import ProviderContext
from evalrun.providers.batches import BatchEngine
from evalrun.providers.openai_api import Api
from evalrun.providers.vllm_child import KEY_VARIABLE
from evalrun.providers.vllm_engine import VLLMEngine, VLLMOptions, effective_engine_args, model_argument
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.suite.components import ModelSpec


class VLLMOffline(VLLMEngine, BatchEngine[VLLMOptions]):
    """Hands batches to `vllm.LLM`. Made by `VLLM` where the suite says `mode: offline`.

    Timings are those of the engine core: time to first token runs from the moment the request stood in
    the engine's queue, so in a large batch it contains the wait for the requests before it.
    """

    summary: ClassVar[str] = "vLLM offline, on whole batches"
    parameters = parameters.VLLM
    supports = frozenset({"chat", "completions", "prompt_logprobs", "first_token"})

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        super().__init__(spec, context)
        self.engine_args = effective_engine_args(self.options, context.deterministic)
        if self.options.api == "chat":  # only completions give log-probabilities of prompts
            self.supports = type(self).supports - {"prompt_logprobs"}
        self._identity: dict[str, JSON] = {}
        model_argument(spec, context)
        if "tools" in spec.params:
            raise UserError(
                "vLLM offline does not read tool calls",
                where=f"model {spec.id}",
                remedy="Use mode: server with engine_args enable_auto_tool_choice and tool_call_parser.",
            )

    @property
    def endpoint(self) -> str:
        return f"local:vllm:{self.spec.id}"

    @property
    def batch_size(self) -> int:
        return self.options.batch

    @property
    def api(self) -> Api:
        return self.options.api

    async def start(self) -> None:
        """Load the model in a child process. Raises UserError (exit 3) with the cause from its log."""
        if self.engine is not None:
            return
        key = secrets.token_urlsafe(24)
        try:
            announced = await self.launch("offline", {KEY_VARIABLE: key}, engine_args=self.engine_args)
            self._identity = {
                "provider": "vllm",
                "mode": "offline",
                "api": self.options.api,
                "model": self.spec.model,
                "engine": {"vllm": announced.get("version")},
                "max_model_len": announced.get("max_model_len"),
                **self.engine_identity(),
            }
        except BaseException:
            await self.close()
            raise
        self.listen_to(int(announced["port"]), key)

    def identity(self) -> dict[str, JSON]:
        return dict(self._identity)
