"""The two forms a request goes out in: chat messages, or raw text."""

from __future__ import annotations

from typing import Any, Literal

from evalrun.types import ErrorKind, ProviderError, Request

Api = Literal["chat", "completions"]


def wrong_form(api: Api) -> ProviderError:
    """The failure of a request whose prompt is of the other form than the model's `api`."""
    what = (
        "no messages: this text prompt needs api: completions"
        if api == "chat"
        else "chat messages cannot be sent with api: completions"
    )
    return ProviderError(ErrorKind.BAD_REQUEST, what)


def has_form(request: Request, api: Api) -> bool:
    """Whether the request's prompt can be sent to that API."""
    return bool(request.messages) if api == "chat" else request.prompt is not None


def question(request: Request, api: Api) -> dict[str, Any]:
    """The prompt as an argument of an SDK: `messages` or `prompt`. Raises ProviderError."""
    if not has_form(request, api):
        raise wrong_form(api)
    if api == "chat":
        return {"messages": [{"role": each.role, "content": each.content} for each in request.messages]}
    return {"prompt": request.prompt}
