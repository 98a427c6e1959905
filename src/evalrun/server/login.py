"""Signing in: one-time links and OpenID Connect (authorization code with PKCE). A proxy's needs no page."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from typing import Any
from urllib.parse import urlencode

import orjson
from starlette.responses import RedirectResponse, Response

from evalrun.server.asked import Asked, Refused
from evalrun.server.config import Oidc
from evalrun.server.security import peer_of

PENDING_S, ANSWER_S = 600, 15
_LEEWAY_S = 60
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]


def page(asked: Asked) -> Response:
    return asked.page("sign_in.html.j2", oidc=asked.server.config.login.oidc)


def redeem(asked: Asked) -> Response:
    server, peer = asked.server, peer_of(asked.request.scope, asked.server.config)
    if server.failures.blocks(peer):
        raise Refused(429, "too many failed attempts; wait a minute", {"Retry-After": "60"})
    person = server.accounts.redeem(asked.text("link", most=200))
    if person is None:
        server.failures.failed(peer)
        what = "the link was used, has run out, or never was: ask for another (`evalrun user link NAME`)"
        raise Refused(403, what)
    return _signed_in(asked, person, "link")


def _signed_in(asked: Asked, person: str, method: str) -> Response:
    """A new session, whatever one there was."""
    server = asked.server
    secret = server.accounts.sign_in(person, method)
    response = RedirectResponse("/", 303)
    response.set_cookie(
        server.cookie, secret, max_age=server.config.limits.session_days * 86400, path="/",
        secure=server.config.is_secure, httponly=True, samesite="lax",
    )  # fmt: skip
    return response


def sign_out(asked: Asked) -> Response:
    asked.server.accounts.sign_out(asked.person, everywhere=bool(asked.values.get("everywhere")))
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(asked.server.cookie, path="/", secure=asked.server.config.is_secure, httponly=True)
    return response


# OpenID Connect


def _oidc(asked: Asked) -> Oidc:
    found = asked.server.config.login.oidc
    if found is None:
        raise Refused(404, "there is no such page")
    return found


def _cookie(asked: Asked) -> str:
    return f"{asked.server.cookie}-oidc"


def _redirect_uri(asked: Asked) -> str:
    return f"{asked.server.config.public_url.rstrip('/')}/auth/oidc/callback"


async def _fetch(url: str, form: dict[str, str] | None = None) -> dict[str, Any]:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as client:
            asking = client.get(url) if form is None else client.post(url, data=form)
            async with asking as answer:
                found = orjson.loads(await answer.content.read(1 << 20))
                if answer.status != 200 or not isinstance(found, dict):
                    raise Refused(502, "the provider of identities refused")
                return found
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Refused(502, "the provider of identities does not answer") from error


async def _metadata(oidc: Oidc) -> dict[str, Any]:
    found = await _fetch(f"{oidc.issuer.rstrip('/')}/.well-known/openid-configuration")
    if found.get("issuer") != oidc.issuer:
        raise Refused(502, "the provider of identities calls itself something else")
    return found


async def oidc_begin(asked: Asked) -> Response:
    oidc = _oidc(asked)
    metadata = await _metadata(oidc)
    pending = {"state": secrets.token_urlsafe(24), "nonce": secrets.token_urlsafe(24)}
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code", "client_id": oidc.client_id, "redirect_uri": _redirect_uri(asked),
        "scope": oidc.scope, **pending, "code_challenge": challenge, "code_challenge_method": "S256",
    }  # fmt: skip
    kept = orjson.dumps({**pending, "verifier": verifier, "until": int(time.time()) + PENDING_S})
    response = RedirectResponse(f"{metadata['authorization_endpoint']}?{urlencode(query)}", 303)
    # It is the browser's own, and tells a thief nothing that the code alone would not.
    response.set_cookie(
        _cookie(asked), base64.urlsafe_b64encode(kept).decode(), max_age=PENDING_S, path="/",
        secure=asked.server.config.is_secure, httponly=True, samesite="lax",
    )  # fmt: skip
    return response


async def oidc_end(asked: Asked) -> Response:
    import anyio.to_thread

    oidc = _oidc(asked)
    try:
        pending = orjson.loads(base64.urlsafe_b64decode(asked.request.cookies.get(_cookie(asked), "")))
        state, until = str(pending["state"]), int(pending["until"])
        verifier, nonce = str(pending["verifier"]), str(pending["nonce"])
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(400, "this sign-in was not begun here; begin again") from error
    if until < time.time() or not hmac.compare_digest(state.encode(), asked.param("state").encode()):
        raise Refused(400, "this sign-in was not begun here, or took too long; begin again")
    if not asked.param("code"):
        raise Refused(403, "the provider of identities did not sign you in")
    metadata = await _metadata(oidc)
    form = {
        "grant_type": "authorization_code", "code": asked.param("code"), "client_id": oidc.client_id,
        "redirect_uri": _redirect_uri(asked), "code_verifier": verifier,
    }  # fmt: skip
    if oidc.secret():
        form["client_secret"] = oidc.secret()
    tokens = await _fetch(metadata["token_endpoint"], form)
    keys = await _fetch(metadata["jwks_uri"])
    claims = _claims(str(tokens.get("id_token", "")), keys, oidc, nonce)
    response = await anyio.to_thread.run_sync(_enter, asked, oidc, claims)
    response.delete_cookie(_cookie(asked), path="/", secure=asked.server.config.is_secure, httponly=True)
    return response


def _enter(asked: Asked, oidc: Oidc, claims: dict[str, Any]) -> Response:
    accounts = asked.server.accounts
    verified = claims.get("email") if claims.get("email_verified") is True else None
    name = str(verified or claims.get("preferred_username") or claims.get("name") or claims["sub"])[:200]
    given = claims.get(oidc.groups_claim, [])
    groups = tuple(str(each) for each in given) if isinstance(given, list) else ()
    # By issuer and subject, never by e-mail: that may be given to another one day.
    shown = "".join(char for char in name if char.isprintable())
    return _signed_in(asked, accounts.person(oidc.issuer, str(claims["sub"]), shown, groups), "oidc")


def _claims(text: str, keys: dict[str, Any], oidc: Oidc, nonce: str) -> dict[str, Any]:
    """What an ID token says, once it is known that it is meant for us, now, by who it should be."""
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet

    try:
        token = jwt.decode(text, KeySet.import_key_set(keys), algorithms=_ALGORITHMS)  # type: ignore[arg-type]
        registry = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_S,
            iss={"essential": True, "value": oidc.issuer}, aud={"essential": True, "value": oidc.client_id},
            exp={"essential": True}, iat={"essential": True}, sub={"essential": True},
            nonce={"essential": True, "value": nonce},
        )  # fmt: skip
        registry.validate(token.claims)
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise Refused(403, "the provider's token is not valid for this server") from error
    audience = token.claims["aud"]
    others = isinstance(audience, list) and len(audience) > 1
    if (others or "azp" in token.claims) and token.claims.get("azp") != oidc.client_id:
        raise Refused(403, "the provider's token is not valid for this server")
    return dict(token.claims)
