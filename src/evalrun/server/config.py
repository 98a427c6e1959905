"""What a server is told at its start (`serve.yaml`), and what it refuses to start with."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evalrun.errors import Problem, UserError
from evalrun.registry import nearest

Role: TypeAlias = Literal["viewer", "annotator", "editor", "admin"]
ROLES: tuple[Role, ...] = ("viewer", "annotator", "editor", "admin")
"""From the least to the most that one may do; each may do what those before it may."""

DEFAULT_BIND = "127.0.0.1:8470"
ADDRESS = "server.json"
"""The file of the store in which its server says where it is."""
MIB = 1 << 20


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Oidc(_Part):
    """A provider of identities (OpenID Connect). The client's secret is named by an environment variable."""

    issuer: str
    client_id: str
    client_secret_env: str = ""
    groups_claim: str = "groups"
    scope: str = "openid email profile"

    def secret(self) -> str:
        """The client's secret; empty for a public client (PKCE is used either way)."""
        return os.environ.get(self.client_secret_env, "") if self.client_secret_env else ""


class Proxy(_Part):
    """Who signed in is told by a proxy in front, in headers. Believed only of the peers in `trusted`."""

    trusted: list[str]
    user_header: str = "X-Forwarded-User"
    groups_header: str = "X-Forwarded-Groups"

    def trusts(self, peer: str) -> bool:
        """Whether the other end of the connection itself is one of them; no header changes that."""
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in ipaddress.ip_network(each, strict=False) for each in self.trusted)


class Login(_Part):
    """How people sign in: by one-time links (`evalrun user link`), OpenID Connect, a proxy."""

    links: bool = False
    oidc: Oidc | None = None
    proxy: Proxy | None = None


class GroupRole(_Part):
    """What a group of the login may do, in which projects."""

    role: Role
    projects: list[str] = ["*"]


class Limits(_Part):
    """What a push may hold, and how long a session lasts."""

    push_bytes: Annotated[int, Field(gt=0)] = 4096 * MIB
    push_files: Annotated[int, Field(gt=0)] = 20_000
    body_bytes: Annotated[int, Field(gt=0)] = 2 * MIB
    session_idle_h: Annotated[int, Field(gt=0)] = 12
    session_days: Annotated[int, Field(gt=0)] = 7
    logins_a_minute: Annotated[int, Field(gt=0)] = 10


class Config(_Part):
    """All of `serve.yaml`. `default_role` is what everyone who can sign in may do in every project."""

    bind: str = DEFAULT_BIND
    public_url: str = ""
    allow_http: bool = False
    hosts: list[str] = []
    login: Login = Login()
    roles: dict[str, Role | GroupRole] = {}
    default_role: Role | Literal["none"] = "viewer"
    limits: Limits = Limits()

    @property
    def host(self) -> str:
        """The address to listen on."""
        return self.bind.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port to listen on; 0 takes a free one."""
        return int(self.bind.rpartition(":")[2])

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host == "localhost" or _is_loopback(self.host)

    @property
    def is_secure(self) -> bool:
        """Whether browsers come by https."""
        return self.public_url.startswith("https://")


def own_address(config: Config) -> str:
    """Where browsers find the server."""
    return config.public_url.rstrip("/") or f"http://{config.bind}"


def address_of(root: Path) -> str:
    """Where the server of a store was last; of one that was never started, the default."""
    try:
        return str(json.loads((root / ADDRESS).read_bytes())["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return own_address(Config())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_config(path: Path | None, bind: str | None = None) -> Config:
    """The settings of a file and of `--bind`. Raises UserError with all that is wrong or unsafe in them."""
    where = str(path) if path else "--bind"
    values: Any = {}
    if path is not None:
        import yaml

        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"cannot be read: {error}", where=where) from error
    if not isinstance(values, dict):
        raise UserError("holds no settings", where=where, remedy="See docs/server.md for an example.")
    if bind is not None:
        values["bind"] = bind
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise UserError([_problem(each, where) for each in error.errors()]) from error
    problems = _unsafe(config, where)
    if problems:
        raise UserError(problems)
    return config


def _problem(error: Any, where: str) -> Problem:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = nearest(str(error["loc"][-1]), [*Config.model_fields, *Login.model_fields, *Oidc.model_fields])
        return Problem(f"unknown key '{place}'", where, f"Did you mean '{near}'?" if near else "")
    return Problem(f"{place}: {error['msg']}", where)


def _unsafe(config: Config, where: str) -> list[Problem]:
    if not re.fullmatch(r".+:\d{1,5}", config.bind) or config.port > 65535:
        return [Problem(f"'{config.bind}' is no address to listen on", where, "Write ADDRESS:PORT.")]
    found = []
    login, url = config.login, urlsplit(config.public_url)
    if not config.is_local and not (login.links or login.oidc or login.proxy):
        what = f"{config.host} can be reached from other machines, and there is no way to sign in"
        found.append(
            Problem(what, where, "Add `login: {links: true}`, `oidc:` or `proxy:`; or bind 127.0.0.1.")
        )
    if config.public_url and (url.scheme not in ("http", "https") or not url.netloc or url.path.strip("/")):
        found.append(Problem(f"public_url '{config.public_url}' is no https://HOST[:PORT]", where))
    elif not config.is_local and not config.is_secure and not config.allow_http:
        what = (
            "an open address needs a public_url that begins with https://: sessions would be read on the way"
        )
        found.append(
            Problem(what, where, "Put a proxy with TLS in front and name its address in public_url.")
        )
    if login.oidc and not config.public_url:
        found.append(Problem("login.oidc needs public_url: the provider sends people back to it", where))
    if login.oidc and not login.oidc.issuer.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        found.append(Problem("login.oidc.issuer must begin with https://", where))
    if login.oidc and login.oidc.client_secret_env and not login.oidc.secret():
        what = f"login.oidc: the variable {login.oidc.client_secret_env} is not set"
        found.append(Problem(what, where, "Set it in the server's environment."))
    if login.proxy is not None:
        found += _unsafe_proxy(login.proxy, where)
    return found


def _unsafe_proxy(proxy: Proxy, where: str) -> list[Problem]:
    if not proxy.trusted:
        what = "login.proxy.trusted is empty: nobody's header could be believed"
        return [Problem(what, where, "List the proxy's address, such as 10.0.0.2.")]
    found = []
    for each in proxy.trusted:
        try:
            network = ipaddress.ip_network(each, strict=False)
        except ValueError:
            found.append(Problem(f"login.proxy.trusted: '{each}' is no address or network", where))
            continue
        if network.prefixlen == 0:
            what = f"login.proxy.trusted: '{each}' is everybody: anyone could name themselves admin"
            found.append(Problem(what, where, "List the proxy's own address."))
    return found
