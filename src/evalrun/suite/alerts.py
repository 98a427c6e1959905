"""What a suite says of alerts: on what, and where they go besides the terminal and the report."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from evalrun.suite.components import Spec
from evalrun.suite.findings import complaint


def _address(value: str) -> str:
    """An http:// or https:// address with a host. The address is a secret: no message repeats it."""
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid or not value.isprintable() or " " in value:
        raise complaint("expected an http:// or https:// address with a host", "Such as ${SLACK_WEBHOOK}.")
    return value


class AlertsSpec(Spec):
    """Alerts: conditions that are told of when they hold. They never change the exit code."""

    when: list[str] = Field(
        min_length=1,
        description="Conditions: a metric against a number (exact_match < 0.5), or against the sweeps before "
        "(exact_match worse than last 5; better than last 5; better than ever).",
    )
    webhook: Annotated[str, AfterValidator(_address)] | None = Field(
        default=None,
        exclude=True,
        description="Address that alerts are posted to as JSON that Slack understands; write it as ${NAME}. "
        "It is stored nowhere.",
    )
    private_network: bool = Field(
        default=False,
        description="Let the webhook's host name stand for a private address. Addresses written out may be "
        "private anyhow.",
    )
