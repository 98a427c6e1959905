"""People, grants and tokens, for admins."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from evalrun.server.accounts import ALL
from evalrun.server.asked import Asked, Refused


def page(asked: Asked) -> Response:
    return asked.page("admin.html.j2", **_all(asked), secret="", link="")


def _all(asked: Asked) -> dict[str, Any]:
    accounts = asked.server.accounts
    return {"people": accounts.people(), "tokens": accounts.tokens()}


def users(asked: Asked) -> Any:
    return {"users": asked.server.accounts.people()}


def invite(asked: Asked) -> Any:
    """Enter a person, or another link for one who is known: shown once, to be handed on."""
    accounts = asked.server.accounts
    name = asked.text("name", most=200)
    if not name.isprintable():
        raise Refused(400, "a name has printable characters only")
    person = accounts.person("link", name)
    link = f"{base(asked)}/sign-in#{accounts.make_link(person)}"
    if asked.is_form:
        return asked.page("admin.html.j2", **_all(asked), secret="", link=link)
    return {"person": person, "link": link}


def base(asked: Asked) -> str:
    """The address of this server, as the browser knows it."""
    config = asked.server.config
    return config.public_url.rstrip("/") or f"http://{asked.request.headers['host']}"


def _person(asked: Asked) -> str:
    return asked.server.accounts.find(str(asked.request.path_params["person"]))


def grant(asked: Asked) -> Response:
    role, person = asked.text("role"), _person(asked)
    project = asked.text("project", most=200, default=ALL) or ALL
    asked.server.accounts.grant(person, project, None if role == "none" else role)
    return asked.done({"person": person, "project": project, "role": role}, "/admin")


def disable(asked: Asked) -> Response:
    person = _person(asked)
    if person == asked.person.id:
        raise Refused(400, "you cannot shut yourself out")
    asked.server.accounts.disable(person, not asked.values.get("undo"))
    return asked.done({"person": person}, "/admin")


def tokens(asked: Asked) -> Any:
    return {"tokens": asked.server.accounts.tokens()}


def make_token(asked: Asked) -> Any:
    days = str(asked.values.get("days") or 90)
    if not days.isdigit():
        raise Refused(400, "'days' is a whole number")
    secret = asked.server.accounts.make_token(
        asked.text("name", most=100), asked.text("role"), asked.text("project", most=200, default=ALL) or ALL,
        int(days), made_by=asked.person.actor, owner=None if asked.person.is_token else asked.person.id,
    )  # fmt: skip
    if asked.is_form:
        return asked.page("admin.html.j2", **_all(asked), secret=secret, link="")
    return {"token": secret}


def revoke_token(asked: Asked) -> Response:
    name = str(asked.request.path_params["token"])
    asked.server.accounts.revoke_token(name)
    return asked.done({"revoked": name}, "/admin")
