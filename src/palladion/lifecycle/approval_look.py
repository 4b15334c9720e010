"""What `palladion doctor` says of approvals: whether anything can leave, and what was done without them."""

from collections.abc import Iterator

from palladion.approvals.roster import Statement
from palladion.lifecycle.approval_board import BrokenGlass, hidden_by_index, read_board
from palladion.lifecycle.approval_index import APPROVAL_INDEX_FILE
from palladion.lifecycle.approvals import without_revoked
from palladion.lifecycle.approvers import escrow_of, has_account
from palladion.lifecycle.doctor import Check
from palladion.lifecycle.installation import Installation

NAME = "approvals"


def look(installation: Installation) -> Iterator[Check]:
    """Nothing where nobody has to agree. Reads the ledger. Raises PalladionError where it does not hold."""
    gate = installation.open_gate_root()
    board = read_board(installation, gate, whole=True)
    wished, statement = installation.policy.approvals.needed, board.statement
    needed = board.needed(wished)
    if needed == 0 and not board.broken:
        return
    faults = list(_after(board.unreviewed, board.refused))
    faults += _hidden(hidden_by_index(installation, gate, board))
    approvers = _live(installation, statement)
    if approvers < needed:
        message = f"{needed} approvals are needed, and {approvers} approvers are registered: nothing can leave"
        faults.append(Check(NAME, "problem", message, "palladion approval key add"))
    elif statement is not None and not statement.armed and needed:
        message = "whoever knows the owner passphrase can still change who approves"
        faults.append(Check(NAME, "problem", message, "palladion approval change --reason 'all are there'"))
    elif approvers == needed:
        message = f"all {approvers} approvers are needed: where one is away, or asks himself, nothing can leave"
        faults.append(Check(NAME, "warning", message, "palladion approval key add"))
    for approver in statement.approvers if statement is not None else ():
        if not has_account(approver):
            message = f"the approver {approver.name} is listed without an account of this machine: what he asks for "
            message += "here, he could approve himself"
            close = f"palladion approval key add {approver.name} KEY --also user:NAME"
            faults.append(Check(NAME, "problem", message, close))
    if statement is not None and wished < statement.needed:
        message = f"palladion.toml says {wished}, and {statement.needed} approvals are needed by the owner's statement"
        faults.append(Check(NAME, "warning", message, "palladion approval change --needed, which needs approvals"))
    if statement is not None and statement.armed:
        strangers = sorted(set(escrow_of(installation)) - set(statement.escrow))
        if strangers:
            message = f"the approvers did not agree to the escrow recipient {strangers[0]}: nothing is sealed"
            faults.append(Check(NAME, "problem", message, "palladion approval change --escrow"))
    yield from faults
    if not faults:
        yield Check(NAME, "ok", f"{needed} of {approvers} approvers have to agree before anything leaves")


def _live(installation: Installation, statement: Statement | None) -> int:
    if statement is None:
        return 0
    with installation.open_registry() as registry, registry.read() as records:
        return len(without_revoked(statement, records).approvers)


def _after(unreviewed: list[BrokenGlass], refused: list[str]) -> Iterator[Check]:
    for item in unreviewed:
        message = f"{item.by} broke the glass on {item.at:%Y-%m-%d}, to {item.purpose} {item.subject}: {item.reason}"
        yield Check(
            NAME, "problem", message, f"palladion approval review {item.id}, by an approver who is not {item.by}"
        )
    if refused:
        message = f"the ledger has {len(refused)} records of approvals that do not hold, and count for nothing"
        yield Check(
            NAME, "problem", message, "palladion approval list says which: somebody may have tried to forge them"
        )


def _hidden(entries: list[int]) -> Iterator[Check]:
    if entries:
        message = f"the index of approvals leaves out {len(entries)} records, the first of them entry {entries[0]}: "
        message += "whoever has the gate root made it so"
        yield Check(NAME, "problem", message, f"remove {APPROVAL_INDEX_FILE} beside the ledger, and look at that entry")
