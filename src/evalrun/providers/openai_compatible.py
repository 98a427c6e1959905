"""Any server that speaks the OpenAI API: vLLM, SGLang, llama.cpp, TGI, Ollama, LiteLLM proxies and others."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from evalrun.errors import UserError
from evalrun.providers.http_provider import ServerOptions, ServerProvider
from evalrun.providers.openai_api import OpenAIAPI
from evalrun.types import JSON


class OpenAICompatibleOptions(ServerOptions):
    """What a model entry with `provider: openai_compatible` may say besides the common keys."""

    api: Literal["chat", "completions"] = Field(
        default="chat",
        description="Which endpoint is asked: chat/completions with messages, or completions with raw text.",
    )
    include_usage: bool = Field(
        default=True,
        description="Ask for token counts at the end of streams; false for servers that refuse the field.",
    )


class OpenAICompatible(OpenAIAPI[OpenAICompatibleOptions], ServerProvider[OpenAICompatibleOptions]):
    """Sends requests to a server that is already there."""

    shorthand: ClassVar[str | None] = "base_url"
    summary: ClassVar[str] = (
        "a server that speaks the OpenAI API (vLLM, SGLang, llama.cpp, Ollama and others)"
    )
    supports = frozenset({"chat", "completions", "stream", "prompt_logprobs", "first_token", "json_schema"})
    probe: ClassVar[str] = "models"

    async def start(self) -> None:
        """See whether the server is there. Any HTTP answer will do.

        Where the suite names no model, the server's only one is taken. Raises UserError (exit 3) when
        nothing listens at the address, (exit 2) when the server has several models and none is named.
        """
        status, body, headers = await self.reach()
        if self.model is None:
            self.model = self._only_model(status, body)
            self._prefixes.clear()
        if headers.get("Server") == "llama.cpp":
            # It hangs up after each stream without saying so: the next request there would fail.
            await self.close()
            self.connect(self.made_client(reuse=False))

    def identity(self) -> dict[str, JSON]:
        return {**super().identity(), "api": self.api}

    def _only_model(self, status: int, body: bytes) -> str:
        import orjson

        try:
            models = [entry["id"] for entry in orjson.loads(body)["data"]] if status == 200 else []
        except (orjson.JSONDecodeError, LookupError, TypeError):
            models = []
        if len(models) == 1:
            return str(models[0])
        raise UserError(
            "the model's name is missing, and the server does not offer exactly one",
            where=f"model {self.spec.id}",
            remedy=f"Add `model:` with one of: {', '.join(map(str, models[:20]))}."
            if models
            else "Add `model:`.",
        )
