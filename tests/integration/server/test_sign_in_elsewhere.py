"""OpenID Connect against a provider of the tests, which can be told to lie; a database in PostgreSQL."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.team import Running

jwk = pytest.importorskip("joserfc.jwk", reason="needs the extra: pip install -e '.[serve]'")
jwt = pytest.importorskip("joserfc.jwt", reason="needs the extra: pip install -e '.[serve]'")


class Provider:
    """A provider of identities on loopback. `claims` replace those of the token; `key` signs it."""

    def __init__(self) -> None:
        self.key = self.known = jwk.RSAKey.generate_key(2048, {"kid": "one"})
        self.claims: dict[str, Any] = {}
        self.nonce = ""
        self.forms: list[dict[str, list[str]]] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                base = provider.issuer
                found: Any = {"keys": [provider.known.as_dict(private=False)]}
                if "openid-configuration" in self.path:
                    names = {"authorization_endpoint": "auth", "token_endpoint": "token", "jwks_uri": "keys"}
                    found = {"issuer": base, **{name: f"{base}/{path}" for name, path in names.items()}}
                self._send(found)

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                provider.forms.append(parse_qs(self.rfile.read(length).decode()))
                self._send({"id_token": provider.token()})

            def _send(self, document: Any) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(document).encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def token(self) -> str:
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": "evalrun", "sub": "42", "iat": now, "exp": now + 60}
        claims |= {"nonce": self.nonce, "groups": ["ml"], "email": "ana@example.org", "email_verified": True}
        return str(jwt.encode({"alg": "RS256", "kid": "one"}, {**claims, **self.claims}, self.key))


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.http.shutdown()


@pytest.fixture
def known(provider: Provider, start: Any) -> Running:
    oidc = {"issuer": provider.issuer, "client_id": "evalrun"}
    running: Running = start(public_url="http://127.0.0.1:1", login={"oidc": oidc}, roles={"ml": "editor"})
    return running


def _sign_in(known: Running, provider: Provider, **changed: str) -> Any:
    begun = known.nobody().get("/auth/oidc")
    asked = {name: each[0] for name, each in parse_qs(urlsplit(begun.headers["Location"]).query).items()}
    assert asked["code_challenge_method"] == "S256"
    provider.nonce = asked["nonce"]
    cookie = begun.headers["Set-Cookie"].partition(";")[0]
    state = changed.get("state", asked["state"])
    return known.nobody().get(
        f"/auth/oidc/callback?code=c&state={state}", Cookie=changed.get("cookie", cookie)
    )


def test_who_signs_in_has_the_roles_of_their_groups(known: Running, provider: Provider) -> None:
    answer = _sign_in(known, provider)
    assert answer.status == 303
    cookie = next(each for each in answer.headers.get_all("Set-Cookie") if "oidc" not in each)
    me = known.nobody().get("/api/v1/me", Cookie=cookie.partition(";")[0]).json
    assert me == {"name": "ana@example.org", "actor": "ana@example.org (oidc)", "roles": {"*": "editor"}}
    assert len(provider.forms[0]["code_verifier"][0]) >= 43


LIES: dict[str, dict[str, Any]] = {
    "another audience": {"aud": "other", "azp": "evalrun"},
    "audiences without azp": {"aud": ["evalrun", "other"]},
    "another party": {"azp": "other"},
    "another issuer": {"iss": "http://evil.example"},
    "another nonce": {"nonce": "x"},
    "run out": {"exp": 1},
    "nobody": {"sub": None},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_token_that_is_not_for_us_signs_nobody_in(lie: str, known: Running, provider: Provider) -> None:
    provider.claims = LIES[lie]
    assert _sign_in(known, provider).status == 403


def test_a_key_that_is_not_the_providers_signs_nobody_in(known: Running, provider: Provider) -> None:
    provider.key = jwk.RSAKey.generate_key(2048, {"kid": "one"})
    assert _sign_in(known, provider).status == 403


def test_a_sign_in_that_was_not_begun_here_ends(known: Running, provider: Provider) -> None:
    assert _sign_in(known, provider, state="other").status == 400
    assert _sign_in(known, provider, cookie="a=b").status == 400


def test_in_postgresql_it_is_the_same(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg", reason="needs the extra: pip install -e '.[postgres]'")
    from tests.postgres import PostgresServer, binaries

    programs = binaries()
    if programs is None:
        pytest.skip("there is no PostgreSQL on this machine")
    with PostgresServer(programs) as server:
        monkeypatch.setenv("EVALRUN_CATALOG", server.url())
        running = start()
        ana = running.person("ana", {"*": "viewer"})
        assert ana.get("/api/v1/sweeps").json["total"] == 1
        running.store.reindex()
        assert ana.get("/api/v1/me").json["name"] == "ana"
        assert running.machine("admin").get("/api/v1/tokens").status == 200
        assert not (running.store.root / "server.db").exists()
        running.stop()
        running.server.database.close()
