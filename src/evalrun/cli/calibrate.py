"""`evalrun calibrate`: what evalrun itself costs on this machine."""

from __future__ import annotations

from dataclasses import asdict

import click

from evalrun.cli.options import json_option, print_json

BUSY = 0.7
"""Below this share of a core, something else held evalrun back."""


@click.command()
@click.option(
    "--requests", type=click.IntRange(min=400), default=4000, show_default=True, metavar="N",
    help="How many answers are asked for; the more, the steadier the figures.",
)  # fmt: skip
@json_option
def calibrate(requests: int, as_json: bool) -> None:
    """Measure evalrun's own cost on this machine, against a built-in server that costs nothing.

    The figures are kept for this machine. Each sweep records them, and says so beside its latencies where
    its rate came near what evalrun can reach. Takes about ten seconds; run it while the machine is quiet.

    \b
    Example:
      evalrun calibrate
    """
    from evalrun.runner.calibration import save
    from evalrun.sweep.calibrate import measure

    found = measure(requests)
    path = save(found)
    _warn_if_busy(found.core_share)
    if as_json:
        print_json(asdict(found))
        return
    click.echo(
        f"CPU per answer            {found.us_per_request:8.0f} µs\n"
        f"CPU per streamed answer   {found.us_per_streamed_request:8.0f} µs, and"
        f" {found.us_per_chunk:.0f} µs for each chunk\n"
        f"highest rate              {found.requests_per_s:8.0f} answers/s\n"
        f"highest rate, streamed    {found.streamed_per_s:8.0f} answers/s of"
        f" {found.chunks_per_streamed} chunks"
    )
    click.echo(f"kept in {path}", err=True)


def _warn_if_busy(core_share: float) -> None:
    if core_share < BUSY:
        click.echo(
            f"warning: evalrun had {core_share:.0%} of a core: the machine was busy, and the rates are lower"
            " than what it reaches. Run this again while it is quiet.",
            err=True,
        )
