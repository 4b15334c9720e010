"""What the commands of approvals print: requests as approvers read them, and how each stands."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion import files
from palladion.cli.output import echo, print_fields, print_json

if TYPE_CHECKING:
    from palladion.approvals.request import SignedDecision, SignedRequest
    from palladion.lifecycle.approval_board import Board, Case
    from palladion.lifecycle.approvers import Changed
    from palladion.lifecycle.installation import Installation


def board_of(installation: "Installation") -> "Board":
    """What the ledger says of approvals, less the approvers who were revoked as operators since."""
    from palladion.lifecycle.approval_board import read_board
    from palladion.lifecycle.approvals import without_revoked

    board = read_board(installation, installation.open_gate_root())
    if board.statement is not None:
        with installation.open_registry() as registry, registry.read() as records:
            board.statement = without_revoked(board.statement, records)
    return board


def row_of(installation: "Installation", board: "Board", case: "Case") -> dict[str, Any]:
    """One request as lists show it, and as JSON."""
    from palladion.approvals.quorum import granted
    from palladion.errors import PalladionError

    found, now = case.request, installation.clock.now()
    wished = installation.policy.approvals.needed
    try:
        agreed = granted(found, case.decisions, board.statement, at=now) if board.statement else ()
    except PalladionError:
        agreed = ()
    return {
        "id": found.id,
        "purpose": found.purpose,
        "what": found.subject,
        "recipient": found.recipient,
        "requester": found.requester,
        "reason": found.reason,
        "state": board.state(case, now, wished=wished),
        "approvals": f"{len(agreed)} of {board.needed(wished)}",
        "until": found.expires,
        "entry": case.entry,
    }


def decisions(board: "Board", case: "Case") -> list[dict[str, Any]]:
    """What was said to a request, by the names of those who said it."""
    found = []
    for signed in case.decisions:
        approver = board.statement.with_key(signed.decision.key) if board.statement else None
        by = approver.name if approver else "somebody who left"
        said = signed.decision
        found.append({"by": by, "verdict": said.verdict, "at": said.at, "comment": said.comment, "key": said.key})
    return found


def print_request(signed: "SignedRequest", *, err: bool = False) -> None:
    """Everything that an approver agrees to. Raises TamperError if the change that it is about is not there."""
    found, change = signed.request, signed.change
    fields: list[tuple[str, object]] = [
        ("request", found.id),
        ("purpose", found.purpose),
        ("what", found.subject),
        ("file", found.file_id or None),
        ("content", found.content or None),
        ("recipient", found.recipient or None),
        ("its key", found.recipient_key or None),
        ("machine", found.evidence or None),
        ("requester", found.requester),
        ("reason", found.reason),
        ("from", found.created),
        ("until", found.expires),
        ("ledger", found.origin),
        ("digest", found.digest),
    ]
    if change is not None:
        who = ", ".join(f"{item.name} ({', '.join(item.identities)}: {item.key})" for item in change.approvers)
        fields += [
            ("approvers", who),
            ("needed", change.needed),
            ("glass", "may be broken" if change.break_glass else "may not be broken"),
            ("escrow", ", ".join(change.escrow) or "nobody"),
        ]
    if not err:
        print_fields(fields)
        return
    for name, value in fields:
        if value is not None:
            echo(f"  {name:<9}  {value}", err=True)


def complete(installation: "Installation", case: "Case") -> "SignedRequest":
    """A request with the change that it is about, if it is about one."""
    from palladion.lifecycle.approvers import with_proposal

    return with_proposal(installation, case.signed)


def confirm(signed: "SignedRequest", verdict: str, *, yes: bool) -> None:
    """Show what is decided on, and ask; with `yes` do neither. Raises TamperError where nobody could read it."""
    _ = signed.change
    if yes:
        return
    print_request(signed, err=True)
    click.confirm(f"{'Agree to' if verdict == 'grant' else 'Deny'} exactly this?", abort=True, err=True)


def show_change(made: "Changed", *, as_json: bool) -> None:
    """What a change of approvers came to."""
    statement, asked = made.statement, made.request
    names = [item.name for item in statement.approvers]
    if as_json:
        said = {"in_force": asked is None, "request": asked.id if asked else None, "needed": statement.needed}
        print_json({**said, "approvers": names, "armed": statement.armed, "receipt": str(made.receipt)})
    elif asked is not None:
        echo(f"the approvers have to agree: request {asked.id}")
        print_fields(
            [("until", asked.expires), ("then", f"palladion approval apply {asked.id}"), ("ledger", made.receipt)]
        )
    else:
        echo(f"{len(names)} approvers, {statement.needed} needed: {', '.join(names) or 'nobody'}")
        state = "need approvals from now on" if statement.armed else "need the owner alone"
        print_fields([("changes", state), ("ledger", made.receipt)])


def read_exchange(path: Path) -> "SignedRequest | SignedDecision":
    """What a file holds that approvers send each other."""
    from palladion.approvals.request import EXCHANGE_BYTES_MAX, decode_exchange

    return decode_exchange(files.read_limited(path, size_max=EXCHANGE_BYTES_MAX, what="the file"), what=str(path))


def write_new(path: Path, data: bytes) -> None:
    """Write a new file; nothing is overwritten."""
    with files.atomic_writer(path, replace=False) as stream:
        stream.write(data)
