"""`palladion approval key …`: keys of approvers, and who has one."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from palladion.cli.approval_shown import board_of, show_change
from palladion.cli.output import (
    actor,
    ask_pin,
    echo,
    find_installation,
    json_option,
    owner_identities,
    passphrase_option,
    passphrase_recipient,
    print_fields,
    print_json,
    print_table,
    read_passphrase,
    warn,
)
from palladion.errors import KeysError
from palladion.policy import PassphrasePolicy

if TYPE_CHECKING:
    from palladion.approvals.signing import ApproverSigner
    from palladion.lifecycle.approvals import Permit

key_option = click.option(
    "--key", required=True, metavar="KEY", help="Your key: its file, or pkcs11:token=NAME;object=LABEL?module-path=/…"
)
key_passphrase_option = click.option(
    "--key-passphrase-file",
    "key_passphrase",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Read the passphrase of your key from the first line of FILE instead of asking.",
)
_reason = click.option("--reason", required=True, metavar="TEXT", help="Why; the other approvers read it.")


approval_option = click.option(
    "--approval", default="", metavar="ID", help="The request that others agreed to: palladion approval request."
)
break_glass_option = click.option(
    "--break-glass",
    default="",
    metavar="REASON",
    help="In an emergency, do without approvals: it alerts at once, opens a case, and has to be reviewed.",
)


def permit_of(approval: str, break_glass: str) -> "Permit":
    """What the two options bring."""
    from palladion.lifecycle.approvals import Permit

    if approval and break_glass:
        raise click.UsageError("either --approval or --break-glass")
    return Permit(approval, break_glass)


def signer_of(place: str, passphrase: Path | None) -> "ApproverSigner":
    """The key of the approver who runs this command."""
    from palladion.lifecycle.approval_keys import open_approver_key
    from palladion.seal.recipients import PassphraseIdentity

    return open_approver_key(place, lambda: PassphraseIdentity(_passphrase(passphrase)), ask_pin=ask_pin)


@click.group("key")
def keys() -> None:
    """Keys of approvers: each makes his own, and the owner puts it on the list."""


@keys.command("new", epilog="Example: palladion approval key new bob.key")
@click.argument("place", metavar="KEY")
@key_passphrase_option
@json_option
def new(place: str, key_passphrase: Path | None, as_json: bool) -> None:
    """Make your key: in the new file KEY, behind a passphrase, or in the token that a pkcs11: URI names.

    Needs no installation: make it on a machine of your own. What it prints is public: palladion approval key add.
    """
    from palladion.lifecycle.approval_keys import new_approver_key

    made = new_approver_key(
        place,
        lambda: passphrase_recipient(_passphrase(key_passphrase, new=True), PassphrasePolicy()),
        ask_pin=ask_pin,
    )
    if as_json:
        print_json({"key": str(made), "id": made.key_id})
    else:
        echo(str(made))


@keys.command("add", epilog="Example: palladion approval key add bob ed25519:… --reason 'bob looks after deliveries'")
@click.argument("name")
@click.argument("key")
@click.option(
    "--also",
    multiple=True,
    metavar="IDENTITY",
    help="Another account of the same person, such as user:bob-admin: what it asks for, he does not approve.",
)
@_reason
@passphrase_option
@json_option
@click.pass_context
def add(
    ctx: click.Context,
    name: str,
    key: str,
    also: tuple[str, ...],
    reason: str,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Make the operator NAME an approver with this KEY, or give him another key.

    Once there are as many approvers as are needed, they have to agree: else whoever knows the owner passphrase could
    add himself.
    """
    from palladion.approvals.roster import Change
    from palladion.approvals.signing import ApproverKey
    from palladion.lifecycle.approvers import approver_of, change_approvers, has_account

    installation = find_installation(ctx)
    approver = approver_of(installation, name, str(ApproverKey.parse(key)), also=also)
    owner = installation.open_owner_root(owner_identities(passphrase_file))
    made = change_approvers(installation, owner, Change(add=approver), reason=reason, actor=actor())
    if not has_account(approver):
        warn(
            f"{name} has no account of this machine on the list: what he asks for here, he could approve himself; "
            "name it with --also user:NAME"
        )
    show_change(made, as_json=as_json)


@keys.command("list", epilog="Example: palladion approval key list")
@json_option
@click.pass_context
def list_keys(ctx: click.Context, as_json: bool) -> None:
    """List who approves, as the ledger has it under the owner's signature."""
    from palladion.approvals.signing import ApproverKey
    from palladion.lifecycle.approval_board import read_board

    installation = find_installation(ctx)
    board = read_board(installation, installation.open_gate_root())
    live, statement = board_of(installation).statement, board.statement
    listed = statement.approvers if statement else ()
    rows = [(item.name, ", ".join(item.identities), item.key, ApproverKey.parse(item.key).key_id) for item in listed]
    needed = board.needed(installation.policy.approvals.needed)
    if as_json:
        columns = ("approver", "accounts", "key", "id")
        found = [dict(zip(columns, row, strict=True)) for row in rows]
        armed = statement is not None and statement.armed
        print_json({"approvers": found, "needed": needed, "armed": armed})
        return
    if rows:
        print_table(("approver", "accounts", "key"), [row[:3] for row in rows])
    else:
        echo("nobody approves yet: palladion approval key add NAME KEY")
    for item in listed:
        if live is not None and live.named(item.name) is None:
            warn(f"{item.name} was revoked as an operator, and approves nothing: palladion approval key remove")
    print_fields([("needed", needed), ("statement", statement.sequence if statement else None)])


@keys.command("remove", epilog="Example: palladion approval key remove bob --reason 'bob has left'")
@click.argument("name")
@_reason
@passphrase_option
@json_option
@click.pass_context
def remove(ctx: click.Context, name: str, reason: str, passphrase_file: Path | None, as_json: bool) -> None:
    """Take an approver off the list, and with him what he agreed to and was not used yet. The others have to agree."""
    from palladion.approvals.roster import Change
    from palladion.lifecycle.approvers import change_approvers

    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file))
    made = change_approvers(installation, owner, Change(remove=name), reason=reason, actor=actor())
    show_change(made, as_json=as_json)


def _passphrase(source: Path | None, *, new: bool = False) -> str:
    if source is not None:
        return read_passphrase(source, new=new)
    if not sys.stdin.isatty():
        raise KeysError(
            "the passphrase of the key is needed, and there is no terminal", "use --key-passphrase-file FILE"
        )
    prompt = "New passphrase of the key" if new else "Passphrase of the key"
    found: str = click.prompt(prompt, hide_input=True, confirmation_prompt=new, err=True)
    return found
