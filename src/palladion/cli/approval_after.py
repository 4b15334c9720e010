"""`palladion approval review` and `drill`: after something was done without approvals, and before it is."""

from pathlib import Path

import click

from palladion.cli.approval_key import key_option, key_passphrase_option, signer_of
from palladion.cli.approval_shown import board_of
from palladion.cli.output import actor, echo, find_installation, json_option, print_fields, print_json, warn


@click.command("review", epilog="Example: palladion approval review 9c1d --finding 'the court did ask' --key bob.key")
@click.argument("broken", metavar="ID")
@click.option("--finding", required=True, metavar="TEXT", help="What you found; you sign it.")
@key_option
@key_passphrase_option
@json_option
@click.pass_context
def review(ctx: click.Context, broken: str, finding: str, key: str, key_passphrase: Path | None, as_json: bool) -> None:
    """Say what you found of something that was done without approvals, as an approver who did not do it."""
    from palladion.approvals.review import review as sign_review
    from palladion.errors import ApprovalError
    from palladion.lifecycle.approval_after import record_review

    installation = find_installation(ctx)
    board = board_of(installation)
    matching = [item for item in board.broken if item.startswith(broken)]
    if len(matching) != 1:
        raise ApprovalError(f"no broken glass with the id {broken!r}", "palladion approval list", reason="unknown")
    now = installation.clock.now()
    signed = sign_review(matching[0], finding, signer_of(key, key_passphrase), origin=board.origin, at=now)
    found, receipt = record_review(installation, signed, actor=actor())
    if as_json:
        print_json({"id": found.id, "by": found.reviewed_by, "finding": found.finding, "receipt": str(receipt)})
    else:
        echo(f"{found.reviewed_by} reviewed {found.id}: {found.purpose} of {found.subject} (ledger {receipt})")


@click.command("drill", epilog="Example: palladion approval drill --version fraud@2 --reason 'URGENT, the board waits'")
@click.option("--version", default="", metavar="VERSION", help="What the false request is about, such as fraud@2.")
@click.option("--reason", default="", metavar="TEXT", help="What it says: tempting, urgent, and not quite right.")
@click.option("--end", default="", metavar="ID", help="End a drill, and put on record who approved it.")
@json_option
@click.pass_context
def drill(ctx: click.Context, version: str, reason: str, end: str, as_json: bool) -> None:
    """Try whether approvers look before they agree: a false request that looks like any other and releases nothing.

    Tell nobody. End it after a day or two (--end), and talk with everybody about what it was.
    """
    from palladion.lifecycle.approval_after import end_drill
    from palladion.lifecycle.approvals import ask
    from palladion.lifecycle.asking import asking_for

    installation = find_installation(ctx)
    if end:
        ended, receipt = end_drill(installation, end, actor=actor())
        if as_json:
            said = {"id": ended.id, "granted": list(ended.granted), "denied": list(ended.denied)}
            print_json({**said, "receipt": str(receipt)})
            return
        echo(f"ended drill {ended.id}")
        granted, denied = ", ".join(ended.granted), ", ".join(ended.denied)
        print_fields([("approved by", granted or "nobody"), ("denied by", denied or "nobody"), ("ledger", receipt)])
        return
    if not version or not reason:
        raise click.UsageError("--version and --reason are needed, or --end")
    asking = asking_for(installation, purpose="export", reason=reason, version=version)
    made, receipt = ask(installation, asking, actor=actor(), drill=True)
    if as_json:
        print_json({"id": made.id, "until": made.expires, "receipt": str(receipt)})
        return
    echo(f"began drill {made.id}, which approvers see as a request to export {made.subject}")
    print_fields([("until", made.expires), ("then", f"palladion approval drill --end {made.id}"), ("ledger", receipt)])
    warn("it stands under your name: let somebody run it whose requests are no surprise")


COMMANDS = (review, drill)
