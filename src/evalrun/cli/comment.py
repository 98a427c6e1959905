"""`evalrun comment`: a sweep's summary on the pull or merge request that a job belongs to."""

from __future__ import annotations

import os
from pathlib import Path

import click

from evalrun.cli.options import FILE, json_option, print_json, store_option
from evalrun.tracking.store import Store


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.option("--body", type=FILE, metavar="FILE.md", help="Say this Markdown in place of the summary.")
@click.option("--dry-run", is_flag=True, help="Print what it would say.")
@store_option
@json_option
def comment(sweep: str, body: Path | None, dry_run: bool, store: Store, as_json: bool) -> None:
    """Say on the pull or merge request of this job what a sweep came to: gates, figures with intervals.

    There is one comment for each project: the next job changes it. In a job that belongs to no request
    nothing is sent. GITHUB_TOKEN (permission pull-requests: write) or GITLAB_TOKEN (scope api) is needed.

    \b
    Example:
      evalrun comment latest --dry-run
    """
    from evalrun.errors import UserError
    from evalrun.reports.gates import markdown
    from evalrun.reports.source import Source
    from evalrun.reports.terminal import lead_lines
    from evalrun.sinks import forges

    source = Source.of(store.resolve(sweep))
    project = source.manifest.project or source.manifest.name
    try:
        summary = markdown(source.manifest, source.runs, lead_lines(source)) if body is None else ""
        text = summary if body is None else body.read_text("utf-8", "replace")
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(body)) from error
    if dry_run:
        click.echo(forges.body_of(project, text), nl=False)
        return
    request = forges.request_of(os.environ)
    done = "no request" if request is None else forges.comment(request, project, text)
    if as_json:
        print_json({"comment": done})
    else:
        click.echo(f"comment: {done}")
