"""The one table of routes: what is routed, who may, what the OpenAPI file and the documentation say, and what
the test walks as every role, all come from here.

`needs` is the role needed in the project that the path names (by `{project}`, `{sweep}` or `{queue}`),
or, for a path that names none, in all projects. `anyone` need not sign in; `person` must have, and sees what
they may.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Needs: TypeAlias = Literal["anyone", "person", "feedback", "viewer", "annotator", "editor", "admin"]


@dataclass(frozen=True, slots=True)
class Route:
    """A path and method, who may, the function (`module:name` in this room), and what it does.

    `body` names the values of its body; those with `?` may be left out.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    needs: Needs
    function: str
    what: str
    body: str = ""


_PAGES = (
    Route("GET", "/", "person", "look:home", "Projects and the newest sweeps"),
    Route("GET", "/p/{project}", "viewer", "look:project", "The sweeps of a project"),
    Route("GET", "/p/{project}/trend", "viewer", "look:trend", "A metric of a project over time, sandboxed"),
    Route("GET", "/find", "person", "look:find", "Search runs in the language of `evalrun find`"),
    Route("GET", "/compare", "person", "look:compare", "A comparison of the sweeps ticked, sandboxed"),
    Route("GET", "/s/{sweep}", "viewer", "look:sweep", "A sweep: scores, live, notes, decisions"),
    Route("GET", "/s/{sweep}/report", "viewer", "look:report", "The report of a sweep, sandboxed"),
    Route("GET", "/queues", "person", "queues:overview", "Queues of samples to label"),
    Route("GET", "/q/{queue}", "annotator", "queues:page", "Label the items of a queue"),
    Route("GET", "/q/{queue}/results", "editor", "results:page", "Agreement, gold, adjudication"),
    Route("GET", "/admin", "admin", "admin:page", "People, grants and tokens"),
    Route("GET", "/sign-in", "anyone", "login:page", "Sign in"),
    Route("POST", "/sign-in", "anyone", "login:redeem", "Redeem a one-time link", "link"),
    Route("POST", "/sign-out", "person", "login:sign_out", "End the session, or all", "everywhere?"),
    Route("GET", "/auth/oidc", "anyone", "login:oidc_begin", "Go to the provider of identities"),
    Route("GET", "/auth/oidc/callback", "anyone", "login:oidc_end", "Come back from it"),
    Route("GET", "/healthz", "anyone", "look:healthz", "Whether the server and its database answer"),
    Route("GET", "/static/{name}", "anyone", "look:static", "Style and script of the pages"),
)
_LOOK = (
    Route("GET", "/api/v1/me", "person", "look:me", "Who asks, and what they may"),
    Route("GET", "/api/v1/projects", "person", "look:api_projects", "Projects with their number of sweeps"),
    Route("GET", "/api/v1/sweeps", "person", "look:api_sweeps", "Sweeps, the newest first"),
    Route("GET", "/api/v1/runs", "person", "look:api_runs", "Runs that a query (`q`) finds"),
    Route("GET", "/api/v1/sweeps/{sweep}", "viewer", "look:api_sweep", "A sweep with its runs"),
    Route("GET", "/api/v1/sweeps/{sweep}/live", "viewer", "look:live", "Its progress, as server-sent events"),
    Route(
        "POST",
        "/api/v1/sweeps/{sweep}/live",
        "editor",
        "live:tell",
        "Tell how far a sweep is that runs elsewhere",
        "project, name, state",
    ),
    Route("GET", "/api/v1/sweeps/{sweep}/progress", "viewer", "look:progress", "Its progress, once"),
    Route("GET", "/api/v1/openapi.json", "anyone", "look:openapi", "This API as OpenAPI 3.1"),
)
_PUSH = (
    Route("POST", "/api/v1/sweeps/{sweep}/push", "editor", "push:begin",
          "Announce files; says which bytes are missing", "project, folder, files"),
    Route("PUT", "/api/v1/sweeps/{sweep}/push/{path:path}", "editor", "push:put",
          "Bytes of a file, from `Upload-Offset` on"),
    Route("POST", "/api/v1/sweeps/{sweep}/push-commit", "editor", "push:commit",
          "Check what was sent and take it into the store", "project"),
    Route("GET", "/api/v1/sweeps/{sweep}/files", "viewer", "push:files", "Names and digests of its files"),
    Route("GET", "/api/v1/sweeps/{sweep}/files/{path:path}", "viewer", "push:file", "One file of it"),
)  # fmt: skip
_TALK = (
    Route("POST", "/api/v1/sweeps/{sweep}/notes", "annotator", "talk:note",
          "Comment on a sweep, run or sample", "text, target?"),
    Route("POST", "/api/v1/sweeps/{sweep}/tags", "editor", "talk:tag", "Set or remove a tag", "name, value?"),
    Route("POST", "/api/v1/sweeps/{sweep}/archive", "editor", "talk:archive",
          "Take it out of the lists, or put it back", "undo?"),
    Route("POST", "/api/v1/sweeps/{sweep}/baseline", "editor", "talk:baseline",
          "Let it stand for a baseline of its project", "name"),
    Route("POST", "/api/v1/sweeps/{sweep}/approve", "editor", "talk:approve",
          "Approve a run, or reject it, with a reason", "run, verdict, reason"),
    Route("POST", "/api/v1/sweeps/{sweep}/promote", "editor", "talk:promote",
          "Let a run stand for a name; `override` needs admin", "run, name, reason, override?"),
    Route("DELETE", "/api/v1/sweeps/{sweep}", "admin", "talk:delete", "Delete it for good", "reason?"),
    Route("POST", "/api/feedback", "feedback", "talk:feedback",
          "What a user of an application thinks of an answer",
          "rating, sweep?, run?, sample?, request?, text?, project?"),
)  # fmt: skip
_QUEUES = (
    Route("POST", "/api/v1/sweeps/{sweep}/queues", "editor", "queues:create",
          "Make a queue", "title, run, schema, where?, pick?, n?, seed?, overlap?, blind?, other?, show?"),
    Route("GET", "/api/v1/queues/{queue}", "annotator", "results:status", "How far a queue is"),
    Route("POST", "/api/v1/queues/{queue}/next", "annotator", "queues:next_item", "Lease the next item"),
    Route("POST", "/api/v1/queues/{queue}/items/{item}/answer", "annotator", "queues:answer",
          "Answer an item", "value, comment?, ms?"),
    Route("POST", "/api/v1/queues/{queue}/items/{item}/skip", "annotator", "queues:skip", "Leave to others"),
    Route("POST", "/api/v1/queues/{queue}/undo", "annotator", "queues:undo", "Take one's last answer back"),
    Route("POST", "/api/v1/queues/{queue}/items/{item}/adjudicate", "editor", "results:adjudicate",
          "Decide between different answers", "value"),
    Route("POST", "/api/v1/queues/{queue}/close", "editor", "results:close",
          "End it; gold goes to its sweep"),
    Route("GET", "/api/v1/queues/{queue}/results", "editor", "results:results", "Agreement, people, gold"),
)  # fmt: skip
_ADMIN = (
    Route("GET", "/api/v1/users", "admin", "admin:users", "People with their grants"),
    Route("POST", "/api/v1/users", "admin", "admin:invite", "Enter a person; gives a one-time link", "name"),
    Route("POST", "/api/v1/users/{person}/grants", "admin", "admin:grant",
          "Give a role (`none`: take it away)", "project, role"),
    Route("POST", "/api/v1/users/{person}/disable", "admin", "admin:disable", "Shut a person out", "undo?"),
    Route("GET", "/api/v1/tokens", "admin", "admin:tokens", "Tokens, without their secrets"),
    Route("POST", "/api/v1/tokens", "admin", "admin:make_token",
          "Make a token; its secret is shown once", "name, role, project?, days?"),
    Route("POST", "/api/v1/tokens/{token}/revoke", "admin", "admin:revoke_token", "End a token"),
)  # fmt: skip

ROUTES: tuple[Route, ...] = (*_PAGES, *_LOOK, *_PUSH, *_TALK, *_QUEUES, *_ADMIN)


def openapi() -> dict[str, Any]:
    """The API of the table, as OpenAPI 3.1. Pages are left out."""
    import re

    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        if not route.path.startswith(("/api/", "/healthz")):
            continue
        path = route.path.replace(":path}", "}")
        names = re.findall(r"{(\w+)}", path)
        entry: dict[str, Any] = {
            "summary": route.what,
            "operationId": route.function.replace(":", "_"),
            "parameters": [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
            ],
            "responses": {"200": {"description": "done"}, "4XX": {"$ref": "#/components/responses/Refused"}},
            "x-role": route.needs,
        }
        if route.needs != "anyone":
            entry["security"] = [{"token": []}, {"session": []}]
        if route.body:
            fields = [each.strip() for each in route.body.split(",")]
            schema = {
                "type": "object",
                "properties": {each.rstrip("?"): {} for each in fields},
                "required": [each for each in fields if not each.endswith("?")],
            }
            entry["requestBody"] = {"content": {"application/json": {"schema": schema}}}
        paths.setdefault(path, {})[route.method.lower()] = entry
    refused = {"type": "object", "properties": {"error": {"type": "string"}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "evalrun server", "version": "1"},
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "evalrun session"},
            },
            "responses": {
                "Refused": {
                    "description": "refused, and why",
                    "content": {"application/json": {"schema": refused}},
                }
            },
        },
    }
