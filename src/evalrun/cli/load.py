"""`evalrun load SUITE`: put a suite under load without editing it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from evalrun.cli.options import ANY_PATH, SUITE_OPTIONS, make_overrides
from evalrun.cli.run import run
from evalrun.errors import UserError


@click.command(no_args_is_help=True)
@click.argument("suite", type=ANY_PATH)
@click.option("--concurrency", metavar="N,…", help="Levels of requests in flight, such as 1,4,16.")
@click.option("--rates", metavar="R,…", help="Levels of requests a second, such as 1/s,2/s,4/s or 1,2,4.")
@click.option(
    "--seconds", type=float, metavar="S", help="How long each level goes on. [default: all rows once]"
)
@click.option("--requests", type=int, metavar="N", help="In place of --seconds: requests a level.")
@click.option("--arrivals", metavar="HOW", help="With --rates: poisson (default) or constant.")
@click.option(
    "--warmup", type=float, metavar="S", help="Seconds of each level that no figure of speed counts."
)
@click.option(
    "--slo", multiple=True, metavar="TEXT", help='What is promised: "e2e_s <= 20". May be repeated.'
)
@click.option(
    "--search",
    metavar="N",
    help="Find the highest load that keeps --slo: up to N in flight, or a rate (40/s).",
)
@click.option("--attain", metavar="SHARE", help="With --search: the share that must keep it. [default: 0.95]")
@click.pass_context
def load(
    ctx: click.Context,
    /,
    suite: Path,
    concurrency: str | None,
    rates: str | None,
    seconds: float | None,
    requests: int | None,
    arrivals: str | None,
    warmup: float | None,
    slo: tuple[str, ...],
    search: str | None,
    attain: str | None,
    **rest: Any,
) -> None:
    """Put a suite under load: a run at each level, with throughput, latency, goodput and scores.

    Takes every option of `evalrun run` too. What the suite's own `load:` says of anything else is kept.

    \b
    Examples:
      evalrun load suite.yaml --concurrency 1,4,16 --slo "e2e_s <= 20"
      evalrun load suite.yaml --rates 1/s,2/s,4/s --seconds 60
      evalrun load suite.yaml --search 64 --slo "ttft_s <= 0.5"
      evalrun load suite.yaml --search 40/s --slo "e2e_s <= 2"
    """
    given = [
        name
        for name, value in (("--concurrency", concurrency), ("--rates", rates), ("--search", search))
        if value
    ]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other", remedy="Give one of them.")
    if attain and not search:
        raise UserError("--attain is for a search", where="--attain", remedy="Give --search N too.")
    sets: list[str] = []
    if given:  # levels of the command line replace those of the suite
        sets += [f"load.{key}=null" for key in ("concurrency", "rates", "search")]
    if concurrency:
        sets.append(f"load.concurrency=[{concurrency}]")
    if rates:
        sets.append(f"load.rates=[{rates}]")
    if search:
        sets.append(f"load.search={{up_to: {search}{f', attain: {attain}' if attain else ''}}}")
    if given and not arrivals and not rates:
        sets.append("load.arrivals=poisson")
    if seconds is not None or requests is not None:
        sets += ["load.seconds=null", "load.requests=null"]
    plain = {"seconds": seconds, "requests": requests, "arrivals": arrivals, "warmup_s": warmup}
    sets += [f"load.{key}={value}" for key, value in plain.items() if value is not None]
    if slo:
        sets.append(f"load.slo=[{', '.join(chr(34) + text + chr(34) for text in slo)}]")
    rest["sets"] = (*sets, *rest["sets"])
    if not given:
        _has_levels(suite, rest)
    rest["suite"] = suite
    ctx.invoke(run, **rest)


def _has_levels(suite: Path, options: Mapping[str, Any]) -> None:
    from evalrun.suite.load import load_suite

    overrides = make_overrides(**{name: options[name] for name in SUITE_OPTIONS})
    if load_suite(suite, overrides).suite.load is None:
        raise UserError(
            "the suite has no load:, and no levels are named",
            where=str(suite),
            remedy="Give --concurrency 1,4,16 or --rates 1/s,2/s.",
        )


load.params += [option for option in run.params if option.name != "suite"]
