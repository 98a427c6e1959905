"""A request, once it is known who sent it and of what it speaks: what every route is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from evalrun.server.accounts import Person
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.glance import SweepRow

if TYPE_CHECKING:
    from evalrun.server.app import Server


class Refused(Exception):
    """Ends a request with a status and one sentence."""

    def __init__(self, status: int, what: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(what)
        self.status, self.what, self.headers = status, what, dict(headers or {})


class Json(Response):
    """A JSON document."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, default=str, option=orjson.OPT_NON_STR_KEYS)


@dataclass
class Asked:
    """One request. `person` is who sent it; `row` the sweep and `queue` the queue that its path names, and
    `project` theirs."""

    request: Request
    server: Server
    body: bytes = b""
    person: Person = field(default_factory=lambda: Person("", "", ""))
    project: str = ""
    row: SweepRow | None = None
    queue: Any = None

    @property
    def folder(self) -> SweepFolder:
        """The sweep that is spoken of."""
        assert self.row is not None
        return SweepFolder(self.row.folder)

    @property
    def ulid(self) -> str:
        """The id of the sweep that the path names."""
        return str(self.request.path_params["sweep"])

    @property
    def is_api(self) -> bool:
        """Whether a program asks: it is answered in JSON, also when refused."""
        return self.request.url.path.startswith("/api/") or self.request.url.path == "/healthz"

    @cached_property
    def is_form(self) -> bool:
        """Whether the body is that of an HTML form; JSON that `curl -d` calls one is none."""
        kind = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        return kind == "application/x-www-form-urlencoded" and not self.body.lstrip().startswith(b"{")

    @cached_property
    def values(self) -> dict[str, Any]:
        """The body's values, of JSON or a form. Raises Refused where it is neither."""
        if not self.body:
            return {}
        try:
            if self.is_form:
                return dict(parse_qsl(self.body.decode(), keep_blank_values=True, max_num_fields=500))
            found = orjson.loads(self.body)
        except ValueError as error:
            raise Refused(400, f"the body cannot be read: {error}") from error
        if not isinstance(found, dict):
            raise Refused(400, "the body is no JSON object")
        return found

    def text(self, name: str, *, most: int = 10_000, default: str | None = None) -> str:
        """A text of the body. Raises Refused where it is missing, no text, or too long."""
        value = self.values.get(name, default)
        if not isinstance(value, str) or (not value.strip() and default is None):
            raise Refused(400, f"'{name}' is missing")
        if len(value) > most or "\0" in value:
            raise Refused(400, f"'{name}' has at most {most:,} characters")
        return value.strip()

    def param(self, name: str, default: str = "") -> str:
        """A value of the query string."""
        return self.request.query_params.get(name, default)

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """An HTML page."""
        return HTMLResponse(self.server.render(template, asked=self, **values), status_code=status)

    def done(self, document: Mapping[str, Any], back: str) -> Response:
        """After a change: the document for a program; for a form the page it was on, else `back`."""
        if not self.is_form:
            return Json(dict(document))
        came = urlsplit(self.request.headers.get("referer", ""))
        here = came.netloc == self.request.headers.get("host") and came.path.startswith("/")
        return RedirectResponse(came.path if here and not came.path.startswith("//") else back, 303)

    def sees(self, row: SweepRow) -> bool:
        """Whether the person may see a sweep: not as an annotator while a blind queue of it is open."""
        if not self.person.may("viewer", row.project):
            return False
        return self.person.role(row.project) != "annotator" or row.sweep not in self.server.blinded()
