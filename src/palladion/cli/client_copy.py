"""`palladion client export` and `palladion client import`: the same clients at two gates (docs/access.md)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.gate_files import OPENED_WITH, PUBLISHED_BY, REPLACE, SEALED_TO
from palladion.cli.output import (
    actor,
    ask_pin,
    echo,
    find_installation,
    json_option,
    owner_identities,
    passphrase_option,
    print_fields,
    print_json,
    warn,
)
from palladion.clock import timestamp

if TYPE_CHECKING:
    from palladion.keys import Recipient
    from palladion.lifecycle.client_copy import Imported

# What the kinds of changes are called in a listing; the kinds are those of the ledger.
_CHANGES = {
    "client.added": "clients added",
    "client.changed": "clients that may ask something else",
    "client.revoked": "clients revoked",
    "client.key-added": "keys added",
    "client.key-ending": "keys that end earlier",
    "client.key-revoked": "keys revoked",
    "client.identity-added": "identities added",
    "client.identity-revoked": "identities revoked",
    "standing.changed": "standings lowered",
}


@click.command("export", epilog="Example: palladion client export clients.sealed --to pallr1x…")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@SEALED_TO
@REPLACE
@passphrase_option
@json_option
@click.pass_context
def export_clients(
    ctx: click.Context,
    file: Path,
    recipients: "tuple[Recipient, ...]",
    replace: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Write the clients to FILE, so that another gate lets the same ones in.

    Sealed to RECIPIENT and signed by the owner. It holds no API key: names, scopes, standings, identities, and keyed
    hashes with what they are keyed with.
    """
    from palladion.lifecycle import client_copy as life
    from palladion.seal.sign import publisher_text

    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file))
    made = life.export_clients(installation, owner, file, recipients, actor=actor(), replace=replace)
    publisher = publisher_text(made.publisher)
    if as_json:
        counts = {"clients": made.clients, "keys": made.keys}
        print_json({"file": str(file), **counts, "publisher": publisher, "receipt": str(made.receipt)})
        return
    echo(f"wrote {file}")
    print_fields(
        [
            ("clients", str(made.clients)),
            ("keys", f"{made.keys}, as keyed hashes"),
            ("publisher", publisher),
            ("ledger", str(made.receipt)),
        ]
    )


@click.command("import", epilog="Example: palladion client import clients.sealed --publisher pallp1e… --dry-run")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@PUBLISHED_BY
@OPENED_WITH
@click.option("--another-gate", is_flag=True, help="Its publisher has another gate, which the file is of.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@json_option
@click.pass_context
def import_clients(
    ctx: click.Context,
    file: Path,
    publisher: bytes | None,
    identities: tuple[str, ...],
    another_gate: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Let the clients in that another gate wrote to FILE, with the same keys.

    What was revoked here stays revoked, and no standing is raised. A file that is older than the last one is refused.
    """
    from palladion.lifecycle import client_copy as life
    from palladion.seal.recipients import parse_identity

    others = [parse_identity(text, ask_pin=ask_pin) for text in identities]
    installation = find_installation(ctx)
    done = life.import_clients(
        installation, file, others, publisher=publisher, actor=actor(), dry_run=dry_run, another_gate=another_gate
    )
    if as_json:
        print_json(_document(done))
        return
    echo(f"{'would take' if dry_run else 'took'} over the clients of gate {done.gate} as of {timestamp(done.issued)}")
    counts = [(label, str(done.changes.count(kind))) for kind, label in _CHANGES.items() if done.changes.count(kind)]
    if not counts:
        echo("nothing is new")
    if counts or done.receipt:
        print_fields([*counts, ("ledger", str(done.receipt) if done.receipt else None)])
    for line in done.changes.kept:
        warn(f"{line}: palladion client standing changes it" if " stays " in line else line)
    for line in done.changes.passed_over:
        warn(f"passed over {line}")


def _document(done: "Imported") -> dict[str, Any]:
    from palladion.seal.sign import publisher_text

    return {
        "gate": done.gate,
        "issued": timestamp(done.issued),
        "publisher": publisher_text(done.publisher),
        "changes": {kind: done.changes.count(kind) for kind in _CHANGES if done.changes.count(kind)},
        "kept": done.changes.kept,
        "passed_over": done.changes.passed_over,
        "receipt": str(done.receipt) if done.receipt else None,
    }
