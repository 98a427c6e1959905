"""Every route as every role and as nobody; tokens and sessions that do not count any more."""

from __future__ import annotations

import re
import time

import pytest
import sqlalchemy as sa
from tests.team import Client, Running

from evalrun.server.accounts import FEEDBACK, rank
from evalrun.server.config import ROLES
from evalrun.server.database import Session, Token
from evalrun.server.routes import ROUTES, Route, openapi
from evalrun.tracking.folder import SweepFolder

QUEUE = {"title": "right?", "run": "m-p-d", "schema": {"kind": "pass_fail"}, "n": 4}
ENDS = ("sign_out", "delete", "close")
"""Routes after which others would find nothing."""


def _path(route: Route, sweep: str, queue: str) -> str:
    names = {"project": "team", "sweep": sweep, "queue": queue, "item": "x", "person": "x", "token": "x"}
    names |= {"name": "x.css", "path": "sweep.json"}
    return re.sub(r"{(\w+)(?::path)?}", lambda found: names[found[1]], route.path)


def _may(role: str, route: Route) -> bool:
    if route.needs == "anyone":
        return True
    if route.needs == "feedback":
        return role == FEEDBACK or rank(role) >= rank("annotator")
    return rank(role) >= rank("viewer" if route.needs == "person" else route.needs)


def _order(route: Route) -> bool:
    return route.function.endswith(ENDS)


@pytest.mark.parametrize("role", [*ROLES, FEEDBACK, "nobody", "other project"])
def test_every_route_is_open_to_whom_the_table_says(role: str, team: Running, sweep: SweepFolder) -> None:
    queue = team.machine("editor").post(f"/api/v1/sweeps/{sweep.ulid}/queues", QUEUE).json["queue"]
    if role == "nobody":
        client = team.nobody()
    elif role == "other project":
        client = team.machine("admin", "elsewhere")
    else:
        client = team.machine(role)
    for route in sorted(ROUTES, key=_order):
        if (
            route.function.endswith(("look:live", "look:compare", "look:trend", "look:report"))
            and rank(role) > 0
        ):
            continue  # drawn once, as viewer: it takes seconds
        # Whoever begins a push of a sweep that is not there says of which project it is.
        body = {"project": "team"} if "push" in route.path else {}
        answer = client.ask(
            route.method, _path(route, sweep.ulid, queue), body if route.method != "GET" else None
        )
        said = (route.method, route.path, answer.status, answer.body[:200])
        if route.needs == "anyone":
            assert answer.status not in (401, 404 if route.path == "/healthz" else 401), said
        elif role == "nobody":
            expected = 401 if route.path.startswith("/api/") or route.method != "GET" else 303
            assert answer.status == expected, said
        elif role == "other project":
            scoped = re.search(r"{(project|sweep|queue)}", route.path)
            if scoped:
                assert answer.status == 404, said
            elif route.needs == "admin":
                assert answer.status == 403, said
        elif _may(role, route):
            assert answer.status not in (401, 403), said
            assert answer.status < 500, said
        else:
            assert answer.status in (403, 404), said


def test_the_file_of_the_api_is_made_from_the_table(team: Running) -> None:
    document = team.nobody().get("/api/v1/openapi.json").json
    assert document == openapi()
    listed = {(method.upper(), path) for path, each in document["paths"].items() for method in each}
    assert listed == {
        (each.method, each.path.replace(":path}", "}"))
        for each in ROUTES
        if each.path.startswith(("/api/", "/healthz"))
    }


def test_a_token_counts_until_it_is_revoked_or_runs_out(team: Running) -> None:
    client = team.machine("viewer")
    assert client.get("/api/v1/me").json["roles"] == {"*": "viewer"}
    change = sa.update(Token).values(expires=int(time.time()) - 1)
    team.server.database.write(lambda connection: connection.execute(change))
    expired = client.get("/api/v1/me")
    assert (expired.status, expired.headers["WWW-Authenticate"]) == (401, 'Bearer error="invalid_token"')
    other = team.machine("viewer", name="second")
    assert other.get("/api/v1/me").status == 200
    team.server.accounts.revoke_token("second")
    assert other.get("/api/v1/me").status == 401


def test_no_secret_is_kept(team: Running) -> None:
    client, person = team.machine("viewer"), team.person("ana", {"*": "viewer"})
    kept = (team.store.root / "server.db").read_bytes() + (team.store.root / "server.db-wal").read_bytes()
    kept += team.store.events_path.read_bytes()
    assert client.headers["Authorization"].rpartition("_")[2].encode() not in kept
    assert person.headers["Cookie"].rpartition("=")[2].encode() not in kept


def test_a_token_takes_away_from_its_owner_and_never_adds(team: Running) -> None:
    accounts = team.server.accounts
    owner = accounts.person("link", "olga")
    accounts.grant(owner, "team", "annotator")
    secret = accounts.make_token("hers", "admin", "*", 1, made_by="olga", owner=owner)
    client = Client(team.port, {"Authorization": f"Bearer {secret}"})
    assert client.get("/api/v1/me").status == 401  # she has no role in all projects
    secret = accounts.make_token("hers too", "admin", "team", 1, made_by="olga", owner=owner)
    client = Client(team.port, {"Authorization": f"Bearer {secret}"})
    assert client.get("/api/v1/me").json["roles"] == {"team": "annotator"}
    accounts.disable(owner)
    assert client.get("/api/v1/me").status == 401


def test_a_session_ends_everywhere_at_once(team: Running) -> None:
    first, second = team.person("ana", {"*": "viewer"}), team.person("ana")
    assert first.get("/api/v1/me").status == second.get("/api/v1/me").status == 200
    assert first.post("/sign-out", {"everywhere": True}).status == 303
    assert first.get("/api/v1/me").status == second.get("/api/v1/me").status == 401


def test_a_session_runs_out(team: Running) -> None:
    client = team.person("ana", {"*": "viewer"})
    change = sa.update(Session).values(seen=sa.text("seen - 13 * 3600"))
    team.server.database.write(lambda connection: connection.execute(change))
    assert client.get("/api/v1/me").status == 401


def test_roles_are_of_projects_and_what_one_may_not_see_is_not_there(
    team: Running, sweep: SweepFolder
) -> None:
    client = team.person("eve", {"elsewhere": "admin"})
    assert client.get("/api/v1/sweeps").json["total"] == 0
    assert client.get("/api/v1/runs?q=samples%20%3E%200").json["total"] == 0
    for path in (f"/s/{sweep.ulid}", "/p/team", f"/compare?s={sweep.ulid}", f"/s/{sweep.ulid}/report"):
        assert client.get(path).status == 404, path
    assert b"/p/team" not in client.get("/").body
