"""What a server's chat template makes of messages, as a text for `api: completions`.

llama.cpp's server tells it (`/apply-template`); vLLM's gives the tokens of a chat (`/tokenize`) and the text
of tokens (`/detokenize`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evalrun.providers.http_provider import json_bytes
from evalrun.types import JSON, ErrorKind, Message, ProviderError

if TYPE_CHECKING:
    from evalrun.providers.openai_api import OpenAIAPI

_ABSENT = (ErrorKind.NOT_FOUND, ErrorKind.BAD_REQUEST, ErrorKind.PROTOCOL)


async def chat_text(api: OpenAIAPI[Any], messages: Sequence[Message]) -> str:
    """The text that the model reads, without a begin-of-text token that completions add by themselves.

    Raises ProviderError (bad_request) where the server does not tell.
    """
    sent = [{"role": message.role, "content": message.content} for message in messages]
    try:
        return str(await _post(api, "apply-template", {"messages": sent}, "prompt"))
    except ProviderError as error:
        if error.kind not in _ABSENT:
            raise
    named = {} if api.model is None else {"model": api.model}
    try:
        body = {**named, "messages": sent, "add_generation_prompt": True}
        ids = list(await _post(api, "tokenize", body, "tokens"))
        plain = list(await _post(api, "tokenize", {**named, "prompt": "a"}, "tokens"))
        if len(plain) > 1 and ids[:1] == plain[:1]:
            del ids[0]
        return str(await _post(api, "detokenize", {**named, "tokens": ids}, "prompt"))
    except ProviderError as error:
        if error.kind not in _ABSENT:
            raise
        what = (
            "the server does not tell what its chat template makes of messages (/apply-template, /tokenize)"
        )
        raise ProviderError(ErrorKind.BAD_REQUEST, what) from error


async def _post(api: OpenAIAPI[Any], path: str, body: Mapping[str, JSON], key: str) -> Any:
    if api.client is None:
        raise ProviderError(ErrorKind.ENGINE, "the server is not connected")
    return await api.client.post(api.beside(path), json_bytes(body), lambda document, _: document[key])
