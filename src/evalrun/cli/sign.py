"""`evalrun sign`: a person vouches for a sweep by an SSH key."""

from __future__ import annotations

from pathlib import Path

import click

from evalrun.cli.options import FILE, json_option, print_json, store_option
from evalrun.tracking.store import Store


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.option(
    "--key", type=FILE, required=True, metavar="FILE",
    help="A private SSH key, or the public one of a key that an agent holds.",
)  # fmt: skip
@click.option("--as", "identity", default="", metavar="WHO", help="Who signs. [default: the key's comment]")
@click.option("--role", default="", metavar="ROLE", help="What it means: approved, reviewed, …")
@store_option
@json_option
def sign(sweep: str, key: Path, identity: str, role: str, store: Store, as_json: bool) -> None:
    """Sign a finished sweep: its documents, and the trail that holds the digests of all its files.

    `evalrun audit verify --signers FILE` checks it, and so does `ssh-keygen -Y verify` alone.

    \b
    Examples:
      evalrun sign latest --key ~/.ssh/id_ed25519 --role approved
      evalrun audit verify latest --signers allowed_signers
    """
    from evalrun.evidence.signing import sign as sign_sweep
    from evalrun.evidence.signing import signature_of

    folder = store.resolve(sweep)
    file = sign_sweep(store, folder, key, identity, role)
    if as_json:
        print_json({"sweep": folder.ulid, "signed": str(file), "signature": str(signature_of(file))})
    else:
        click.echo(f"signed {folder.path.name}: {signature_of(file)}")
