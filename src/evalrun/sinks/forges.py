"""One comment on a pull request of GitHub or a merge request of GitLab, changed and not repeated.

Which request it is, and where the API is, a job's environment says. The comment is found again by a mark that
no reader sees, which has the project in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from evalrun.errors import ExitCode, UserError
from evalrun.secrets import scrub
from evalrun.sinks.base import Refused, Unreachable, call

MOST = 60_000
"""Characters: GitHub takes 65,536 of a comment."""

_PAGE, _PAGES = 100, 20


@dataclass(frozen=True)
class Request:
    """A pull or merge request: where its comments are listed and made, where one is changed, and how."""

    comments: str
    one: str
    change: str
    headers: Mapping[str, str]


def request_of(environment: Mapping[str, str]) -> Request | None:
    """The request that a job belongs to; None where it belongs to none (a push, a schedule).

    Raises UserError where the environment is neither's, or has no token.
    """
    if environment.get("GITHUB_ACTIONS") == "true":
        pull = re.fullmatch(r"refs/pull/(\d+)/(?:merge|head)", environment.get("GITHUB_REF", ""))
        if pull is None:
            return None
        api = environment.get("GITHUB_API_URL", "https://api.github.com")
        base = f"{api}/repos/{environment.get('GITHUB_REPOSITORY', '')}/issues"
        headers = {
            "Authorization": f"Bearer {_token(environment, 'GITHUB_TOKEN')}",
            "Accept": "application/vnd.github+json",
        }
        return Request(f"{base}/{pull[1]}/comments", f"{base}/comments", "PATCH", headers)
    if environment.get("GITLAB_CI") == "true":
        number = environment.get("CI_MERGE_REQUEST_IID")
        if not number:
            return None
        project = quote(environment.get("CI_PROJECT_ID", ""), safe="")
        notes = f"{environment.get('CI_API_V4_URL', '')}/projects/{project}/merge_requests/{number}/notes"
        return Request(notes, notes, "PUT", {"PRIVATE-TOKEN": _token(environment, "GITLAB_TOKEN")})
    raise UserError(
        "this is no job of GitHub Actions or GitLab CI",
        remedy="`--dry-run` prints what the comment would say.",
    )


def _token(environment: Mapping[str, str], name: str) -> str:
    token = environment.get(name, "")
    if not token or not token.isascii() or not token.isprintable():
        raise UserError(f"the variable {name} holds no token", remedy="docs/ci.md says which it needs.")
    return token


def body_of(project: str, text: str) -> str:
    """The comment: the mark, then the text, cut where it is too long."""
    text = scrub(text)
    if len(text) > MOST:
        text = f"{text[:MOST].rpartition(chr(10))[0]}\n\n… the rest is in the job's summary."
    return f"{_mark(project)}\n{text}"


def comment(request: Request, project: str, text: str) -> str:
    """Make the comment, or change the one that is there; returns "made", "changed" or "the same".

    Raises UserError (exit 3) with the server's words where it does not take it.
    """
    body = body_of(project, text)
    try:
        there = next((c for c in _listed(request) if str(c.get("body", "")).startswith(_mark(project))), None)
        if there is None:
            _call("POST", request.comments, request, {"body": body})
            return "made"
        if str(there["body"]).replace("\r\n", "\n").rstrip() == body.rstrip():
            return "the same"
        _call(request.change, f"{request.one}/{there['id']}", request, {"body": body})
        return "changed"
    except (Refused, Unreachable) as error:
        raise UserError(f"the comment was not taken: {error}", exit_code=ExitCode.INCOMPLETE) from error


def _mark(project: str) -> str:
    return f"<!-- evalrun {re.sub(r'[^A-Za-z0-9._-]', '_', project)} -->"


def _listed(request: Request) -> Iterator[dict[str, Any]]:
    for page in range(1, _PAGES + 1):
        found = _call("GET", f"{request.comments}?per_page={_PAGE}&page={page}", request, None)
        if not isinstance(found, list):
            raise Refused("it did not answer with comments")
        yield from found
        if len(found) < _PAGE:
            return


def _call(method: str, url: str, request: Request, document: Mapping[str, Any] | None) -> Any:
    body = None if document is None else orjson.dumps(document)
    said = call(method, url, body, {"Content-Type": "application/json", **request.headers})
    try:
        return orjson.loads(said) if said else None
    except ValueError:
        raise Refused("it did not answer in JSON") from None
