"""The Ray cluster that `--on` names."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from typing import Any

from evalrun.errors import ExitCode, UserError

SCHEME = "ray"
_CLIENT_PORT = 10001
_PATIENCE_S = 5.0
_OWN_STORE_BYTES = 256 << 20
"""Shared memory of a cluster that is started here: shards are small."""


def connect(on: str) -> tuple[Any, bool]:
    """Join a cluster. `ray` is that of this machine ($RAY_ADDRESS, or one that runs here), or one that is
    started for the sweep; `ray://HOST:PORT` another, by the port of its head or of its Ray Client server.

    Gives the module `ray`, and whether this process was in a cluster before. Raises UserError: exit 2 for a
    wrong name or other versions, 3 without a cluster.
    """
    scheme, _, address = on.partition("://")
    if scheme != SCHEME or (not address and "://" in on) or any(each in address for each in "/@?"):
        raise UserError(
            f"'{on}' is no cluster", where="--on", remedy="Write ray, or ray://HOST:PORT of its head."
        )
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import obstore  # noqa: F401
        import ray
    except ImportError as error:
        raise UserError(
            f"--on ray needs the package {error.name}", where="--on", remedy="pip install 'evalrun-llm[ray]'"
        ) from None
    address = address or os.environ.get("RAY_ADDRESS", "").removeprefix("ray://")
    if address and address != "auto":
        _check_there(address, on)
    if ray.is_initialized():  # by the program that calls us
        return ray, True
    _join(ray, address, on)
    return ray, False


def _check_there(address: str, on: str) -> None:
    """Ray waits minutes for a head that is not there, and ends the process then."""
    host, _, port = address.rpartition(":")
    try:
        if not host or not port.isdecimal():
            raise ValueError(f"'{address}' has no port")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE_S):
            return
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(on, str(error)) from None


def _no_cluster(on: str, why: str) -> UserError:
    return UserError(
        f"there is no Ray cluster at this address: {why}",
        where=f"--on {on}",
        remedy="Start one (ray start --head), or leave the address out for one on this machine.",
        exit_code=ExitCode.INCOMPLETE,
    )


def _join(ray: Any, address: str, on: str) -> None:
    options: dict[str, Any] = {"namespace": "evalrun", "log_to_driver": False, "logging_level": logging.ERROR}
    if address.endswith(f":{_CLIENT_PORT}"):
        options["address"] = f"ray://{address}"
    elif address:
        options["address"] = address
    try:
        try:
            ray.init(**options)
        except (ConnectionError, ValueError):
            if address:
                raise
            ray.init(**options, include_dashboard=False, object_store_memory=_OWN_STORE_BYTES)
    except Exception as error:  # of many kinds, for what a user can do about
        said = str(error).strip().partition("\n")[0][:300]
        with contextlib.suppress(Exception):
            ray.shutdown()
        if "ersion mismatch" in str(error):
            raise UserError(
                "the cluster has another version of Ray or Python: " + " ".join(str(error).split())[:400],
                where=f"--on {on}",
                remedy="Install the same on all machines.",
            ) from None
        raise _no_cluster(on, said or type(error).__name__) from None
