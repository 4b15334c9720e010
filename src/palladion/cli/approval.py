"""`palladion approval …`: what others have to agree to before it leaves; asked for, decided, and looked at."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.approval_after import COMMANDS
from palladion.cli.approval_key import key_option, key_passphrase_option, keys, signer_of
from palladion.cli.approval_shown import (
    board_of,
    complete,
    confirm,
    decisions,
    print_request,
    read_exchange,
    row_of,
    show_change,
    write_new,
)
from palladion.cli.output import (
    VERIFIER_KEY,
    actor,
    echo,
    find_installation,
    json_option,
    owner_identities,
    passphrase_option,
    print_fields,
    print_json,
    print_table,
    warn,
)

if TYPE_CHECKING:
    from palladion.approvals.request import SignedDecision, Verdict
    from palladion.ledger.checkpoint import VerifierKey
    from palladion.lifecycle.installation import Installation

# As approvals have them, which only commands that run load; a test compares.
PURPOSES = ("deliver", "export", "unseal", "release", "rewrap")
_hours = click.option("--hours", type=click.IntRange(1, 168), help="How long it holds; else approvals.hours.")
_reason = click.option(
    "--reason", required=True, metavar="TEXT", help="Why; approvers read it, and the ledger keeps it."
)
_comment = click.option("--comment", default="", metavar="TEXT", help="What to say with it.")
_yes = click.option("--yes", is_flag=True, help="Do not show the request and ask first.")
_out = click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="The new file."
)


def _decision(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument and the options of a decision, whatever it is."""
    options: tuple[Callable[[Any], Any], ...] = (
        click.pass_context,
        json_option,
        _yes,
        _comment,
        key_passphrase_option,
        key_option,
        click.argument("request_id", metavar="ID"),
    )
    for option in options:
        command = option(command)
    return command


@click.group()
def approval() -> None:
    """Approvals: several people before a copy is delivered or an original comes to lie on a disk.

    `approvals.needed` in palladion.toml says how many; docs/approvals.md how to begin, and what it does not stop.
    """


approval.add_command(keys)


@approval.command(
    "request",
    epilog="Example: palladion approval request --version fraud@2 --recipient lab --purpose deliver --reason …",
)
@click.option("--version", default="", metavar="VERSION", help="The version, such as fraud@2.")
@click.option(
    "--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE", help="Or a sealed file."
)
@click.option("--purpose", type=click.Choice(PURPOSES), required=True, help="What is to be done with it.")
@click.option("--recipient", default="", metavar="NAME", help="Who gets it; for deliver, rewrap and release.")
@click.option("--license-required", is_flag=True, help="To deliver a copy that opens with a licence alone.")
@click.option("--evidence", default="", metavar="DIGEST", help="SHA-256 of the evidence of the machine that gets it.")
@_reason
@_hours
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the request to this new file too, for approvers on machines of their own.",
)
@json_option
@click.pass_context
def request(
    ctx: click.Context,
    version: str,
    file: Path | None,
    purpose: Any,
    recipient: str,
    license_required: bool,
    evidence: str,
    reason: str,
    hours: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Ask others to agree to one delivery, export or release. Once they have, it is done with --approval ID."""
    from palladion.approvals.request import encode_exchange
    from palladion.lifecycle.approvals import ask
    from palladion.lifecycle.asking import asking_for
    from palladion.lifecycle.decoy_touches import notice_sealed

    if bool(version) == (file is not None):
        raise click.UsageError("either --version is needed, or --file")
    installation = find_installation(ctx)
    if file is not None:
        # whoever asks to have a decoy has been where it lies; he is told what everybody is
        notice_sealed(installation, file, actor=actor())
    asking = asking_for(
        installation,
        purpose=purpose,
        reason=reason,
        version=version,
        file=file,
        recipient=recipient,
        evidence=evidence,
        license_required=license_required,
    )
    made, receipt = ask(installation, asking, actor=actor(), hours=hours)
    if out is not None:
        write_new(out, encode_exchange(board_of(installation).case(made.id).signed))
    _show_asked(made, str(receipt), as_json=as_json)


@approval.command("list", epilog="Example: palladion approval list")
@click.option("--all", "everything", is_flag=True, help="Those that were used, denied or ended, too.")
@json_option
@click.pass_context
def list_requests(ctx: click.Context, everything: bool, as_json: bool) -> None:
    """List requests, and broken glass that nobody has reviewed."""
    installation = find_installation(ctx)
    board = board_of(installation)
    rows = [row_of(installation, board, case) for case in board.cases.values()]
    shown = [row for row in rows if everything or row["state"] in {"waiting", "approved", "begun"}]
    broken = [
        {"id": item.id, "by": item.by, "purpose": item.purpose, "what": item.subject, "reason": item.reason}
        for item in board.unreviewed
    ]
    if as_json:
        print_json({"requests": shown, "to_review": broken, "ignored": board.refused})
        return
    if shown:
        columns = ("id", "purpose", "what", "recipient", "requester", "state", "approvals", "until")
        print_table(columns, [[row[column] for column in columns] for row in shown])
    else:
        echo("no requests wait")
    for item in board.unreviewed:
        warn(f"{item.by} broke the glass to {item.purpose} {item.subject}: palladion approval review {item.id}")
    for text in board.refused:
        warn(f"the ledger has what does not hold, and counts for nothing: {text}")


@approval.command("show", epilog="Example: palladion approval show 3f2a")
@click.argument("request_id", metavar="ID")
@json_option
@click.pass_context
def show(ctx: click.Context, request_id: str, as_json: bool) -> None:
    """Show a request, and what was said to it. The first digits of its id are enough."""
    installation = find_installation(ctx)
    board = board_of(installation)
    case = board.case(request_id)
    row = row_of(installation, board, case)
    if as_json:
        print_json({**row, "digest": case.request.digest, "decisions": decisions(board, case)})
        return
    print_request(complete(installation, case))
    said = [f"{item['verdict']} by {item['by']}" for item in decisions(board, case)]
    print_fields([("state", row["state"]), ("approvals", row["approvals"]), ("said", ", ".join(said) or None)])


@approval.command("grant", epilog="Example: palladion approval grant 3f2a --key bob.key")
@_decision
def grant(
    ctx: click.Context, request_id: str, key: str, key_passphrase: Path | None, comment: str, yes: bool, as_json: bool
) -> None:
    """Agree to a request, with your key. Read it first: what you sign is what is shown."""
    _decide(ctx, request_id, "grant", key=key, passphrase=key_passphrase, comment=comment, yes=yes, as_json=as_json)


@approval.command("deny", epilog="Example: palladion approval deny 3f2a --key bob.key --comment 'no contract'")
@_decision
def deny(
    ctx: click.Context, request_id: str, key: str, key_passphrase: Path | None, comment: str, yes: bool, as_json: bool
) -> None:
    """Say no to a request, with your key. One no ends it, however many agreed."""
    _decide(ctx, request_id, "deny", key=key, passphrase=key_passphrase, comment=comment, yes=yes, as_json=as_json)


@approval.command("revoke", epilog="Example: palladion approval revoke 3f2a --reason 'the contract ended'")
@click.argument("request_id", metavar="ID")
@_reason
@json_option
@click.pass_context
def revoke(ctx: click.Context, request_id: str, reason: str, as_json: bool) -> None:
    """Take a request back, approved or not. What was done with it already stays done."""
    from palladion.lifecycle.approvals import withdraw

    found, receipt = withdraw(find_installation(ctx), request_id, reason=reason, actor=actor())
    if as_json:
        print_json({"id": found.id, "revoked": True, "receipt": str(receipt)})
    else:
        echo(f"revoked request {found.id} (ledger {receipt})")


@approval.command("export", epilog="Example: palladion approval export 3f2a --out request.json")
@click.argument("request_id", metavar="ID")
@_out
@json_option
@click.pass_context
def export(ctx: click.Context, request_id: str, out: Path, as_json: bool) -> None:
    """Write a request to a file, for an approver on a machine of his own: palladion approval sign."""
    from palladion.approvals.request import encode_exchange

    installation = find_installation(ctx)
    case = board_of(installation).case(request_id)
    write_new(out, encode_exchange(complete(installation, case)))
    if as_json:
        print_json({"id": case.request.id, "file": str(out), "ledger_key": str(installation.ledger_key())})
    else:
        echo(f"wrote request {case.request.id} to {out}")
        print_fields([("ledger key", str(installation.ledger_key()))])


@approval.command("sign", epilog="Example: palladion approval sign request.json --key bob.key --out decision.json")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@key_option
@key_passphrase_option
@click.option("--deny", "denied", is_flag=True, help="Say no instead.")
@click.option(
    "--ledger-key",
    type=VERIFIER_KEY,
    metavar="KEY",
    help="The key of the ledger that the request has to be of, as you noted it: without it anybody may have made it.",
)
@_comment
@_out
@_yes
@json_option
def sign(
    file: Path,
    key: str,
    key_passphrase: Path | None,
    denied: bool,
    ledger_key: "VerifierKey | None",
    comment: str,
    out: Path,
    yes: bool,
    as_json: bool,
) -> None:
    """Decide on a request in a file, where there is no installation; it goes back: palladion approval import."""
    from palladion.approvals.request import SignedDecision, decide, encode_exchange
    from palladion.clock import SystemClock

    found = read_exchange(file)
    if isinstance(found, SignedDecision):
        raise click.UsageError(f"{file} is a decision already")
    asked = found.verified(ledger_key.public_key) if ledger_key is not None else found.request
    if ledger_key is None:
        warn("nothing shows that your installation made this request: name its key with --ledger-key")
    confirm(found, "deny" if denied else "grant", yes=yes)
    signer = signer_of(key, key_passphrase)
    signed = decide(asked, "deny" if denied else "grant", signer, at=SystemClock().now(), comment=comment)
    write_new(out, encode_exchange(signed))
    if as_json:
        print_json({"id": asked.id, "verdict": signed.decision.verdict, "file": str(out)})
    else:
        echo(f"signed: {signed.decision.verdict} request {asked.id}; send {out} back")


@approval.command("import", epilog="Example: palladion approval import decision.json")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
@click.pass_context
def import_decision(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Take a decision that an approver signed on a machine of his own."""
    from palladion.approvals.request import SignedDecision

    found = read_exchange(file)
    if not isinstance(found, SignedDecision):
        raise click.UsageError(f"{file} is a request: palladion approval sign makes a decision of it")
    _take(find_installation(ctx), found, as_json=as_json)


@approval.command("change", epilog="Example: palladion approval change --needed 3 --reason 'zoe has come'")
@click.option("--needed", type=click.IntRange(0, 32), help="How many approvals are needed from now on.")
@click.option("--break-glass/--no-break-glass", default=None, help="Whether --break-glass is allowed.")
@click.option("--escrow", is_flag=True, help="Agree to the escrow recipients that palladion.toml names now.")
@_reason
@_hours
@passphrase_option
@json_option
@click.pass_context
def change(
    ctx: click.Context,
    needed: int | None,
    break_glass: bool | None,
    escrow: bool,
    reason: str,
    hours: int | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Change how many are needed, signed by the owner. Once there are enough approvers, they have to agree.

    Without an option, what palladion.toml says is signed, which begins it: then changes need approvals.
    """
    from palladion.approvals.roster import Change
    from palladion.lifecycle.approvers import change_approvers, escrow_of

    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file))
    wanted = Change(needed, break_glass, escrow=escrow_of(installation) if escrow else None)
    made = change_approvers(installation, owner, wanted, reason=reason, actor=actor(), hours=hours)
    show_change(made, as_json=as_json)


@approval.command("apply", epilog="Example: palladion approval apply 3f2a")
@click.argument("request_id", metavar="ID")
@json_option
@click.pass_context
def apply(ctx: click.Context, request_id: str, as_json: bool) -> None:
    """Put a change of approvers in force that enough of them have agreed to."""
    from palladion.lifecycle.approvers import apply_change

    show_change(apply_change(find_installation(ctx), request_id, actor=actor()), as_json=as_json)


def _show_asked(made: Any, receipt: str, *, as_json: bool) -> None:
    from palladion.approvals.documents import document_of

    if as_json:
        print_json({**document_of(made), "digest": made.digest, "receipt": receipt})
        return
    echo(f"asked for approval: request {made.id}")
    print_fields([("until", made.expires), ("next", f"palladion approval grant {made.id}"), ("ledger", receipt)])


def _decide(
    ctx: click.Context,
    request_id: str,
    verdict: "Verdict",
    *,
    key: str,
    passphrase: Path | None,
    comment: str,
    yes: bool,
    as_json: bool,
) -> None:
    from palladion.approvals.request import decide

    installation = find_installation(ctx)
    case = board_of(installation).case(request_id)
    confirm(complete(installation, case), verdict, yes=yes)
    signed = decide(case.request, verdict, signer_of(key, passphrase), at=installation.clock.now(), comment=comment)
    _take(installation, signed, as_json=as_json)


def _take(installation: "Installation", signed: "SignedDecision", *, as_json: bool) -> None:
    from palladion.lifecycle.approvals import decide

    case, approver, receipt = decide(installation, signed, actor=actor())
    row = row_of(installation, board_of(installation), case)
    if as_json:
        verdict = signed.decision.verdict
        said = {"id": case.request.id, "verdict": verdict, "by": approver.name, "state": row["state"]}
        print_json({**said, "receipt": str(receipt)})
        return
    done = "granted" if signed.decision.verdict == "grant" else "denied"
    echo(f"{approver.name} {done} request {case.request.id}")
    print_fields([("state", row["state"]), ("approvals", row["approvals"]), ("ledger", str(receipt))])


for command in COMMANDS:
    approval.add_command(command)
