"""`palladion incident anchor`: proofs of OpenTimestamps, that a dossier existed when a block of Bitcoin was made."""

from pathlib import Path

import click

from palladion.cli.output import actor, echo, find_installation, json_option, print_fields, print_json
from palladion.errors import INCONCLUSIVE
from palladion.files import read_limited, write_atomically

_NEW = click.Path(dir_okay=False, path_type=Path)
_THERE = click.Path(exists=True, dir_okay=False, path_type=Path)
_calendars_option = click.option(
    "--calendar",
    "calendars",
    multiple=True,
    metavar="URL",
    help="A calendar, such as https://a.pool.opentimestamps.org. May be repeated.",
)


@click.group()
def anchor() -> None:
    """Proofs of OpenTimestamps: a dossier existed when a block of Bitcoin was made, whatever an authority says."""


@anchor.command(
    "new",
    epilog="Example: palladion incident anchor new case.zip --out case.ots --calendar https://a.pool.opentimestamps.org",
)
@click.argument("package", type=_THERE)
@_calendars_option
@click.option("--out", type=_NEW, required=True, metavar="FILE", help="Write the proof to this new .ots file.")
@json_option
@click.pass_context
def new_anchor(ctx: click.Context, package: Path, calendars: tuple[str, ...], out: Path, as_json: bool) -> None:
    """Have calendars promise a block of Bitcoin for a dossier. They learn a digest of a digest, and nothing else.

    The block is there some hours later: `palladion incident anchor upgrade` asks for the way to it. No calendar is
    asked that is not named here.
    """
    from palladion.incident.dossier.calendars import calendar_address
    from palladion.incident.dossier.write import anchor_dossier

    if not calendars:
        raise click.UsageError("name a calendar with --calendar URL")
    addresses = [calendar_address(calendar) for calendar in calendars]
    written = anchor_dossier(find_installation(ctx), package, out, addresses, actor=actor())
    if as_json:
        print_json(
            {
                "proof": str(out),
                "incident": written.case,
                "manifest": written.manifest_digest,
                "calendars": addresses,
                "receipt": str(written.receipt),
            }
        )
        return
    echo(f"a block of Bitcoin is promised for the dossier of incident {written.case}; the proof is {out}")
    print_fields(
        [
            ("manifest", written.manifest_digest),
            ("ledger", written.receipt),
            ("in some hours", f"palladion incident anchor upgrade {out}"),
            ("check it", f"python3 {package} --ots {out}"),
        ]
    )


@anchor.command("upgrade", epilog="Example: palladion incident anchor upgrade case.ots")
@click.argument("proof", type=_THERE)
@_calendars_option
@json_option
@click.pass_context
def upgrade_anchor(ctx: click.Context, proof: Path, calendars: tuple[str, ...], as_json: bool) -> None:
    """Ask the calendars of PROOF for the way to a block of Bitcoin, and write what they have into the same file.

    Asked are those of the public pool, and those that --calendar names. Exit code 3 while no block is in the proof.
    """
    from palladion.incident.dossier.calendars import calendar_address, upgraded
    from palladion.incident.dossier.verifier.opentimestamps import PROOF_BYTES_MAX, read_proof

    addresses = [calendar_address(calendar) for calendar in calendars]
    done = upgraded(read_limited(proof, size_max=PROOF_BYTES_MAX, what="the proof"), addresses)
    heights = sorted({branch.height for branch in read_proof(done.data).branches if branch.height is not None})
    if done.added:
        write_atomically(proof, done.data)
    if as_json:
        print_json({"proof": str(proof), "added": done.added, "blocks": heights, "waiting": list(done.waiting)})
    else:
        for sentence in done.waiting:
            echo(sentence)
        echo(f"{proof} leads to block {', '.join(map(str, heights))}" if heights else f"{proof} leads to no block yet")
    if not heights:
        ctx.exit(INCONCLUSIVE)
