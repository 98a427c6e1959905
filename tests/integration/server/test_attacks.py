"""Forged hosts, origins, cookies and tokens; links used twice; hostile answers; paths out of the store."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from tests.team import HOSTILE, Client, Running, form

from evalrun.errors import UserError
from evalrun.server.config import Config, read_config
from evalrun.tracking.events import read_events
from evalrun.tracking.folder import SweepFolder


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1:1", "", "localhost"])
def test_another_name_of_the_server_is_refused(host: str, team: Running) -> None:
    client = team.machine("admin")
    answer = client.get("/api/v1/me", Host=host or "x")
    assert answer.status == 421


FORGED = {
    "another port": {"Origin": "http://127.0.0.1:1"},
    "another scheme": {"Origin": "ftp://127.0.0.1"},
    "no origin, a cookie": {"Origin": ""},
    "null": {"Origin": "null"},
    "cross-site": {"Origin": "", "Sec_Fetch_Site": "cross-site"},
    "same-site": {"Sec_Fetch_Site": "same-site"},
    "a lie of one": {"Origin": "http://evil.example", "Sec_Fetch_Site": "same-origin"},
}


@pytest.mark.parametrize("how", FORGED)
def test_a_page_of_another_origin_changes_nothing(how: str, team: Running, sweep: SweepFolder) -> None:
    client, path = team.person("ana", {"*": "admin"}), f"/api/v1/sweeps/{sweep.ulid}/notes"
    assert client.post(path, {"text": "forged"}, **FORGED[how]).status == 403
    assert "forged" not in (sweep.path / "events.jsonl").read_text()
    assert client.post(path, {"text": "ours"}, Sec_Fetch_Site="same-origin").status == 200


def test_a_token_beside_a_cookie_does_not_excuse_a_forged_origin(team: Running, sweep: SweepFolder) -> None:
    client = team.machine("admin")
    answer = client.post(
        f"/api/v1/sweeps/{sweep.ulid}/notes", {"text": "x"}, Cookie="a=b", Origin="http://evil.example"
    )
    assert answer.status == 403


def test_get_changes_nothing(team: Running, sweep: SweepFolder) -> None:
    client = team.person("ana", {"*": "admin"})
    for path in (f"/api/v1/sweeps/{sweep.ulid}/notes", "/sign-out", "/api/v1/tokens/x/revoke"):
        assert client.get(path).status == 405


def test_a_link_signs_in_once(team: Running) -> None:
    accounts = team.server.accounts
    secret = accounts.make_link(accounts.person("link", "ana"))
    own = {"Origin": team.origin, "Content-Type": "application/x-www-form-urlencoded"}
    client = Client(team.port, own)
    first = client.ask("POST", "/sign-in", data=form(link=secret))
    assert first.status == 303
    cookie = str(first.headers["Set-Cookie"])
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert client.ask("POST", "/sign-in", data=form(link=secret)).status == 403


def test_guesses_are_slowed(team: Running) -> None:
    accounts = team.server.accounts
    secret = accounts.make_link(accounts.person("link", "ana"))
    client = Client(team.port, {"Origin": team.origin})
    statuses = [client.post("/sign-in", {"link": f"guess{at}"}).status for at in range(11)]
    assert statuses == [403] * 10 + [429]
    assert client.post("/sign-in", {"link": secret}).status == 429
    assert team.nobody().get("/api/v1/me", Authorization="Bearer evr_x").status == 429


@pytest.mark.parametrize(
    "header", ["Basic YTpi", "Bearer", f"Bearer evr_{'0' * 12}_{'A' * 43}", "Bearer \xe9"]
)
def test_a_token_that_is_none_is_never_taken_for_nobody(header: str, team: Running) -> None:
    answer = team.nobody().get("/healthz", Authorization=header)
    assert answer.status == 401


def test_every_page_has_its_headers_and_nothing_that_models_wrote_is_markup(
    team: Running, sweep: SweepFolder
) -> None:
    editor = team.person("ed", {"*": "editor"})
    assert editor.post(f"/api/v1/sweeps/{sweep.ulid}/notes", {"text": HOSTILE}).status == 200
    assert editor.post(f"/api/v1/sweeps/{sweep.ulid}/tags", {"name": "t", "value": HOSTILE}).status == 200
    for path in ("/", "/p/team", f"/s/{sweep.ulid}", "/find?q=%3Cscript%3E", "/nothing", "/p/%3Cscript%3E"):
        answer = editor.get(path)
        assert b"<script>" not in answer.body, path
        assert b"<img" not in answer.body, path
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_a_report_is_served_in_a_sandbox(team: Running, sweep: SweepFolder) -> None:
    viewer = team.person("vic", {"team": "viewer"})
    answer = viewer.get(f"/s/{sweep.ulid}/report")
    assert answer.status == 200
    assert answer.headers["Content-Security-Policy"].startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in answer.headers["Content-Security-Policy"]
    assert HOSTILE.encode() not in answer.body


@pytest.mark.parametrize(
    "path",
    ["../../events.jsonl", "%2e%2e/%2e%2e/events.jsonl", "lock", "runs/../../x", "/etc/passwd"],
)
def test_only_the_files_of_a_sweep_are_given_away(path: str, team: Running, sweep: SweepFolder) -> None:
    assert team.machine("admin").get(f"/api/v1/sweeps/{sweep.ulid}/files/{path}").status == 404


def test_a_large_or_odd_body_is_refused(team: Running, sweep: SweepFolder) -> None:
    client, path = team.machine("admin"), f"/api/v1/sweeps/{sweep.ulid}/notes"
    assert client.ask("POST", path, data=b'{"text": "' + b"a" * (3 << 20) + b'"}').status == 413
    assert client.ask("POST", path, data=b"[1]").status == 400
    assert client.ask("POST", path, data=b"{").status == 400
    assert client.post(path, {"text": ["a"]}).status == 400
    assert client.post(path, {"text": "a", "target": "no-run"}).status == 400


def test_a_header_that_names_a_person_is_believed_of_the_proxy_alone(start: Callable[..., Running]) -> None:
    proxy = {"trusted": ["127.0.0.1"]}
    roles = {"ml": "editor", "labelling": {"role": "annotator", "projects": ["team"]}}
    behind = start(login={"proxy": proxy}, roles=roles)
    found = behind.nobody().get("/api/v1/me", X_Forwarded_User="ana", X_Forwarded_Groups="ml, labelling").json
    assert found == {"name": "ana", "actor": "ana (proxy)", "roles": {"*": "editor", "team": "annotator"}}
    assert (
        behind.nobody().get("/api/v1/me", X_Forwarded_User="eve", X_Forwarded_Groups="strangers").status
        == 403
    )
    elsewhere = start(login={"proxy": {"trusted": ["10.0.0.1"]}}, roles=roles)
    forged = {"X_Forwarded_User": "ana", "X_Forwarded_Groups": "ml", "X_Forwarded_For": "10.0.0.1"}
    assert elsewhere.nobody().get("/api/v1/me", **forged).status == 401


UNSAFE = {
    "no login": ({"bind": "0.0.0.0:80", "public_url": "https://x.example"}, "no way to sign in"),
    "no https": ({"bind": "0.0.0.0:80", "login": {"links": True}}, "https://"),
    "no proxy": ({"login": {"proxy": {"trusted": []}}}, "empty"),
    "everybody": ({"login": {"proxy": {"trusted": ["0.0.0.0/0"]}}}, "everybody"),
    "no network": ({"login": {"proxy": {"trusted": ["gateway"]}}}, "no address"),
    "unknown key": ({"pulic_url": "https://x.example"}, "public_url"),
    "a role": ({"roles": {"ml": "boss"}}, "roles"),
    "an address": ({"bind": "here"}, "no address to listen on"),
    "no secret": (
        {
            "public_url": "https://x.example",
            "login": {
                "oidc": {"issuer": "https://i.example", "client_id": "e", "client_secret_env": "NOT_SET"}
            },
        },
        "NOT_SET",
    ),
    "oidc": ({"login": {"oidc": {"issuer": "http://i.example", "client_id": "e"}}}, "issuer"),
}


@pytest.mark.parametrize("what", UNSAFE)
def test_unsafe_settings_are_refused_at_the_start(what: str, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    import yaml

    monkeypatch.delenv("NOT_SET", raising=False)
    settings, words = UNSAFE[what]
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match=re.escape(words)):
        read_config(path)


def test_the_settings_of_this_machine_alone_are_safe() -> None:
    assert read_config(None) == Config()


def test_who_did_what_stands_in_the_trail(team: Running, sweep: SweepFolder) -> None:
    path = f"/api/v1/sweeps/{sweep.ulid}"
    ana = team.person("ana", {"*": "editor"})
    assert ana.post(f"{path}/notes", {"text": "odd", "target": "m-p-d/s0001"}).status == 200
    assert ana.post(f"{path}/approve", {"run": "m-p-d", "verdict": "approved", "reason": "ok"}).status == 200
    assert ana.post(f"{path}/promote", {"run": "m-p-d", "name": "prod", "reason": "ok"}).status == 200
    assert (
        ana.post(f"{path}/promote", {"run": "m-p-d", "name": "p", "reason": "x", "override": True}).status
        == 403
    )
    assert ana.post(f"{path}/baseline", {"name": "main"}).status == 200
    actors = {event["action"]: event["actor"] for event in sweep.events()}
    assert actors["note"] == actors["approve"] == actors["promote"] == "ana (link)"
    assert {e["actor"] for e in read_events(team.store.events_path) if e["action"] == "baseline"} == {
        "ana (link)"
    }
    vic = team.person("vic", {"*": "viewer"})
    assert vic.post(f"{path}/notes", {"text": "no"}).status == 403
    denied = [e for e in read_events(team.store.events_path) if e["action"] == "deny"]
    assert denied[-1]["actor"] == "vic (link)"
    from evalrun.tracking.audit import verify

    assert verify(team.store).broken == []
