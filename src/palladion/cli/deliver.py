"""`palladion deliver`: a copy for one recipient."""

from pathlib import Path

import click

from palladion.cli.approval_key import approval_option, break_glass_option, permit_of
from palladion.cli.output import (
    actor,
    echo,
    find_installation,
    json_option,
    owner_identities,
    passphrase_option,
    print_fields,
    print_json,
    progress,
    size_text,
    stages,
    warn,
)


@click.command(epilog="Example: palladion deliver fraud --to acme --out fraud-for-acme.sealed")
@click.argument("version")
@click.option(
    "--to", "recipient", required=True, metavar="NAME", help="A registered recipient (palladion recipient add)."
)
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="The new sealed file."
)
@click.option(
    "--base",
    default="",
    metavar="MODEL",
    help="Of an adapter: the recipient's own sealed copy of the model it fits, which is what it has to open beside.",
)
@click.option("--without-fingerprint", is_flag=True, help="Deliver a model that is too small to carry a fingerprint.")
@click.option("--license-required", is_flag=True, help="Let it open under a licence only: palladion license issue.")
@approval_option
@break_glass_option
@passphrase_option
@json_option
@click.pass_context
def deliver(
    ctx: click.Context,
    version: str,
    recipient: str,
    out: Path,
    base: str,
    without_fingerprint: bool,
    license_required: bool,
    approval: str,
    break_glass: str,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Make the copy of VERSION (such as fraud@2) for one recipient: stamped, sealed to it alone, signed, recorded.

    The copy computes what the version does and carries a fingerprint, so that a leak can be traced: see palladion prove
    copy. It is stamped tensor by tensor: memory need not hold the model. The recipient opens it with `palladion
    unseal`, and needs your publisher's key to check who made it. Where others have to agree
    (docs/approvals.md), it needs the --approval that they gave.
    """
    from palladion.lifecycle import deliver as life
    from palladion.lifecycle.seal import find_base

    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file))
    with progress(f"deliver {version}") as bar:
        made = life.deliver(
            installation,
            owner,
            version,
            recipient,
            out,
            actor=actor(),
            base=find_base(installation, base),
            without_fingerprint=without_fingerprint,
            license_required=license_required,
            permit=permit_of(approval, break_glass),
            progress=stages(bar),
        )
    row = made.delivery
    if as_json:
        print_json(
            {
                "model": row.model,
                "version": row.number,
                "recipient": row.recipient,
                "file": str(made.path),
                "fingerprinted": row.fingerprinted,
                "predicted_log10_p": made.predicted_log10_p,
                "receipt": str(made.receipt),
            }
        )
        return
    echo(f"delivered {row.model} version {row.number} to {row.recipient}")
    print_fields(
        [
            ("file", f"{made.path} ({size_text(made.path.stat().st_size)}), opens for {row.recipient} alone"),
            ("trace", f"log10 p about {made.predicted_log10_p:.0f} in an exact copy" if row.fingerprinted else None),
            ("ledger", str(made.receipt)),
        ]
    )
    if not row.fingerprinted:
        warn("the copy carries no fingerprint: a leak of it cannot be traced to the recipient")
