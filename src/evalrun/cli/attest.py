"""`evalrun attest`: what became of a sweep's gates, as a signed statement for other tools."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from evalrun.cli.options import FILE, inconclusive_option, json_option, print_json, store_option
from evalrun.errors import ExitCode
from evalrun.tracking.store import Store


class _Attest(click.Group):
    """What is not `verify` is the sweep that is attested."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help", "-h"):
            args = ["make", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Attest, no_args_is_help=True)
def attest() -> None:
    """Attest the gates of a sweep (in-toto, test result), or verify such an attestation.

    \b
    Examples:
      evalrun attest latest --key id_ed25519 --out gates.intoto.json
      evalrun attest verify gates.intoto.json --signers allowed_signers
    """


@attest.command(no_args_is_help=True)
@click.argument("sweep")
@click.option("--out", type=FILE, required=True, metavar="FILE", help="The attestation, as JSON.")
@click.option(
    "--key", type=FILE, metavar="FILE",
    help="An Ed25519 private key (OpenSSH or PEM). [default: the bare statement, for another signer]",
)  # fmt: skip
@inconclusive_option
@store_option
@json_option
def make(
    sweep: str, out: Path, key: Path | None, inconclusive: str | None, store: Store, as_json: bool
) -> None:
    """Write the verdicts that SWEEP holds. `evalrun gate SWEEP --attest FILE` attests gates checked now.

    \b
    Example:
      evalrun attest latest --key id_ed25519 --out gates.intoto.json
    """
    from evalrun.evidence.attest import statement, write

    folder = store.resolve(sweep)
    manifest = folder.read_manifest()
    strict = (inconclusive or (manifest["suite"].get("resolved") or {}).get("inconclusive")) == "fail"
    document = statement(folder, manifest["gates"], strict=strict)
    write(document, out, key)
    if as_json:
        print_json({"attestation": str(out), "signed": key is not None, "statement": document})
    else:
        signed = "signed" if key else "not signed: no --key"
        click.echo(f"{document['predicate']['result']}: {out} ({signed})")


@attest.command(no_args_is_help=True)
@click.argument("file", type=FILE)
@click.option(
    "--signers", type=FILE, required=True, metavar="FILE",
    help="Whose word counts: a list of allowed signers, a public SSH key, or a PEM.",
)  # fmt: skip
@click.option("--sweep", metavar="SWEEP", help="Also that it speaks of this sweep as it is now.")
@store_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context, file: Path, signers: Path, sweep: str | None, store: Store, as_json: bool
) -> None:
    """Verify an attestation. Exit code 1 unless an allowed signer signed it, of the SWEEP that is named.

    \b
    Example:
      evalrun attest verify gates.intoto.json --signers id_ed25519.pub --sweep latest
    """
    from evalrun.evidence.attest import check
    from evalrun.reports.visible import visible

    checked = check(file, signers, store.resolve(sweep) if sweep else None)
    if as_json:
        print_json({"file": str(file), **asdict(checked)})
    else:
        parts = [checked.signer, checked.result, *(f"differs: {name}" for name in checked.differs)]
        click.echo(visible(", ".join(filter(None, [f"{checked.status}: {file}", *parts]))))
    ctx.exit(int(ExitCode.OK if checked.holds else ExitCode.GATE_FAILED))
