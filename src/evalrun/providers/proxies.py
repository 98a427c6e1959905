"""Through which proxy a server is asked, and that no key is told to one."""

from __future__ import annotations

import ipaddress
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

from evalrun.errors import ExitCode, Problem, UserError


def proxy_of(address: str, proxies: Mapping[str, str] | None = None) -> str | None:
    """The address of the proxy that the environment names for a server, None where it names none.

    This machine is never asked through one. `proxies` are by scheme, and those of the environment where they
    are not given. Raises UserError (exit 2) for a proxy that does not speak HTTP.
    """
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    # Both forms: NO_PROXY may name a host with or without its port.
    if is_here(host) or any(map(urllib.request.proxy_bypass, (host, f"{host}:{port}"))):
        return None
    named = urllib.request.getproxies() if proxies is None else proxies
    proxy = named.get(parts.scheme) or named.get("all")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        from evalrun.secrets import scrub_url

        raise UserError(
            f"the environment names the proxy {scrub_url(proxy)}, which does not speak HTTP",
            where=f"{parts.scheme.upper()}_PROXY or ALL_PROXY",
            remedy=f"Name an HTTP proxy, or add {host} to NO_PROXY.",
        )
    return proxy


def is_here(host: str) -> bool:
    """Whether a host is this machine: localhost by its names, and the addresses of loopback."""
    host = host.rstrip(".").lower()
    if host in ("localhost", "ip6-localhost", "ip6-loopback") or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified


def key_problem(address: str, proxy: str | None, where: str) -> Problem | None:
    """What is wrong with sending a key to a server by a proxy: by plain HTTP the proxy would read it."""
    if proxy is None or urlsplit(address).scheme != "http":
        return None
    from evalrun.secrets import scrub_url

    host = urlsplit(address).hostname
    return Problem(
        f"the key for {scrub_url(address)} would be told to the proxy {scrub_url(proxy)},"
        " since plain HTTP goes through it in clear",
        where,
        f"Use https, name no key, or add {host} to NO_PROXY so that the server is asked without the proxy.",
    )


def absent_proxy(address: str, proxy: str | None, error: BaseException, where: str) -> UserError | None:
    """The fault of a proxy that is not there, where the error says that one is missing."""
    import aiohttp

    from evalrun.providers.faults import causes, shorten
    from evalrun.secrets import scrub_url

    chain = causes(error)
    missing = [cause for cause in chain if isinstance(cause, aiohttp.ClientProxyConnectionError)]
    if proxy is None or not missing:
        return None
    return UserError(
        f"the proxy {scrub_url(proxy)} for {scrub_url(address)} is not there: {shorten(str(missing[0]))}",
        where=where,
        remedy="Correct `proxy` of the model, HTTPS_PROXY or HTTP_PROXY; or add "
        f"{urlsplit(address).hostname} to NO_PROXY, so that it is asked without a proxy.",
        exit_code=ExitCode.INCOMPLETE,
    )


def holds_key(address: str) -> bool:
    """Whether credentials stand in an address."""
    parts = urlsplit(address)
    return parts.username is not None or parts.password is not None
