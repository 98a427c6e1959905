"""The team's server: `serve`, `user` and `token` where it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalrun.cli.options import FILE, json_option, print_json, print_rows, store_option
from evalrun.errors import UserError
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.server.accounts import Accounts


def needs_extra() -> None:
    """Raises UserError where the packages of the server are not there."""
    from importlib.util import find_spec

    for name in ("starlette", "uvicorn"):
        if find_spec(name) is None:
            raise UserError(
                f"the package {name} is not installed", remedy='Run: pip install "evalrun-llm[serve]"'
            )


@click.command()
@click.option("--config", type=FILE, metavar="serve.yaml", help="Who may sign in, how, and what they may do.")
@click.option("--bind", metavar="HOST:PORT", help="Where to listen. [default: 127.0.0.1:8470]")
@store_option
def serve(config: Path | None, bind: str | None, store: Store) -> None:
    """Serve the store to a team: look, follow, push, label, decide. Ctrl-C ends it.

    Without --config only this machine can reach it, and you sign in by the one-time link that is printed.

    \b
    Examples:
      evalrun serve
      evalrun serve --config serve.yaml
    """
    from evalrun.server.config import read_config

    settings = read_config(config, bind)
    needs_extra()
    if settings.login.oidc is not None:
        from importlib.util import find_spec

        if find_spec("joserfc") is None:
            raise UserError(
                "the package joserfc is not installed", remedy='Run: pip install "evalrun-llm[serve]"'
            )
    from evalrun.server.main import serve as run

    run(store, settings, lambda text: click.echo(text, err=True))


def _accounts(store: Store, config: Path | None = None) -> Accounts:
    from evalrun.server.accounts import Accounts
    from evalrun.server.config import read_config
    from evalrun.server.database import Database

    return Accounts(Database(store), read_config(config), store)


@click.group()
def user() -> None:
    """People of the server on this machine's store.

    \b
    Examples:
      evalrun user link ana --role annotator
      evalrun user grant ana --project support-triage --role editor
    """


_PROJECT = click.option("--project", default="*", metavar="NAME", help="In this project. [default: all]")


@user.command("link")
@click.argument("name")
@click.option("--role", metavar="ROLE", help="Give this role too.")
@_PROJECT
@click.option("--url", metavar="URL", help="The server's address. [default: where it was last started]")
@store_option
def user_link(name: str, role: str | None, project: str, url: str | None, store: Store) -> None:
    """Print a link that signs a person in, once, within 15 minutes; enter them when new.

    \b
    Example:
      evalrun user link ana --role annotator
    """
    accounts = _accounts(store)
    if not name.strip() or not name.isprintable() or len(name) > 200:
        raise UserError("a name has 1 to 200 printable characters")
    person = accounts.person("link", name)
    if role is not None:
        accounts.grant(person, project, role)
    from evalrun.server.config import address_of

    address = (url or address_of(store.root)).rstrip("/")
    click.echo(f"{address}/sign-in#{accounts.make_link(person)}")


@user.command("grant")
@click.argument("name")
@click.option("--role", required=True, metavar="ROLE", help="viewer, annotator, editor, admin; none.")
@_PROJECT
@store_option
def user_grant(name: str, role: str, project: str, store: Store) -> None:
    """Give a person a role, in a project or in all; `none` takes it away.

    \b
    Example:
      evalrun user grant ana --role editor
    """
    accounts = _accounts(store)
    accounts.grant(accounts.find(name), project, None if role == "none" else role)
    click.echo(f"{name}: {role} in {'all projects' if project == '*' else project}")


@user.command("remove")
@click.argument("name")
@click.option("--undo", is_flag=True, help="Let them in again.")
@store_option
def user_remove(name: str, undo: bool, store: Store) -> None:
    """Shut a person out: their sessions end at once.

    \b
    Example:
      evalrun user remove ana
    """
    accounts = _accounts(store)
    accounts.disable(accounts.find(name), not undo)
    click.echo(f"{name} is {'let in again' if undo else 'shut out'}")


@user.command("list")
@store_option
@json_option
def user_list(store: Store, as_json: bool) -> None:
    """List people with their roles.

    \b
    Example:
      evalrun user list --json
    """
    people = _accounts(store).people()
    if as_json:
        print_json({"users": people})
        return
    roles = [", ".join(f"{project}: {role}" for project, role in each["grants"].items()) for each in people]
    rows = [
        [each["name"], each["issuer"], role, "shut out" if each["disabled"] else "", each["id"]]
        for each, role in zip(people, roles, strict=True)
    ]
    print_rows(["name", "from", "roles", "", "id"], rows)


@click.group()
def token() -> None:
    """Tokens of machines for the server on this machine's store.

    \b
    Example:
      evalrun token create ci --role editor --project support-triage --days 90
    """


@token.command("create")
@click.argument("name")
@click.option("--role", required=True, metavar="ROLE", help="viewer, annotator, editor, admin or feedback.")
@_PROJECT
@click.option("--days", default=90, show_default=True, metavar="N", help="How long it holds.")
@store_option
def token_create(name: str, role: str, project: str, days: int, store: Store) -> None:
    """Make a token; its secret is printed once, on standard output.

    \b
    Example:
      evalrun token create ci --role editor --days 90
    """
    from evalrun.tracking.events import user_name

    click.echo(_accounts(store).make_token(name, role, project, days, made_by=user_name()))


@token.command("revoke")
@click.argument("name")
@store_option
def token_revoke(name: str, store: Store) -> None:
    """End a token by its id or name, at once.

    \b
    Example:
      evalrun token revoke ci
    """
    _accounts(store).revoke_token(name)
    click.echo(f"{name} is revoked")


@token.command("list")
@store_option
@json_option
def token_list(store: Store, as_json: bool) -> None:
    """List tokens, without their secrets.

    \b
    Example:
      evalrun token list --json
    """
    from datetime import UTC, datetime

    tokens = _accounts(store).tokens()
    if as_json:
        print_json({"tokens": tokens})
        return

    def day(seconds: Any) -> str:
        return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).date().isoformat()

    rows = [
        [
            t["name"],
            t["id"],
            t["role"],
            t["project"],
            day(t["expires"]),
            day(t["last_used"]),
            day(t["revoked"]),
        ]
        for t in tokens
    ]
    print_rows(["name", "id", "role", "project", "runs out", "last used", "revoked"], rows)
