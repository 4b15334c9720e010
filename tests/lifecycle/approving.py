"""Installations in which people have to agree, for the tests of approvals."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palladion.approvals.request import Request, Verdict
from palladion.approvals.request import decide as sign_decision
from palladion.approvals.roster import Change
from palladion.approvals.signing import HeldKey
from palladion.clock import ManualClock
from palladion.keys import Root
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.approval_board import Board, Case, read_board
from palladion.lifecycle.approvals import Asking, ask, decide
from palladion.lifecycle.approvers import Changed, approver_of, change_approvers
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.operators import add_operator
from palladion.lifecycle.protect import protect
from palladion.seal.reader import inspect_file
from palladion.seal.recipients import FileIdentity
from tests.models import onnx_bytes, write

from .installations import ACTOR, make

LAB = FileIdentity(b"\x33" * 32)
THIEF = FileIdentity(b"\x44" * 32)
KEYS = {name: HeldKey(bytes([40 + number]) * 32) for number, name in enumerate(("ada", "bob", "eve", "zoe"))}


def marked_bytes() -> bytes:
    """A model of ONNX that is large enough for marks."""
    return onnx_bytes(2, inputs=512, classes=512)


@dataclass(frozen=True)
class House:
    """An installation with the owner unlocked and its clock."""

    installation: Installation
    owner: Root
    clock: ManualClock

    @property
    def board(self) -> Board:
        """What its ledger says of approvals."""
        return read_board(self.installation, self.installation.open_gate_root())

    def settle(self, **settings: Any) -> "House":
        """The same with other settings of approvals."""
        path = self.installation.paths.policy
        text = path.read_text()
        head, _, tail = text.partition("[approvals]\n")
        lines = [f"{name} = {str(value).lower()}" for name, value in settings.items()]
        rest = "\n".join(line for line in tail.splitlines() if not line.startswith(tuple(settings)))
        path.write_text(head + "[approvals]\n" + "\n".join([*lines, rest]) + "\n")
        found = Installation.find(self.installation.paths.home, self.clock, exact=True)
        return House(found, self.owner, self.clock)

    def appoint(self, name: str, *, also: Sequence[str] = ()) -> Changed:
        """Make an operator an approver, as far as that goes without the others."""
        with self.installation.open_registry() as registry, registry.read() as records:
            known = any(item.name == name for item in records.operators.all())
        if not known:
            add_operator(self.installation, name, role="approver", identity=f"user:{name}", actor=ACTOR)
        approver = approver_of(self.installation, name, str(KEYS[name].key), also=also)
        return change_approvers(self.installation, self.owner, Change(add=approver), reason="new", actor=ACTOR)

    def ask(self, *, actor: str = ACTOR, hours: int | None = None, drill: bool = False, **changed: Any) -> Request:
        """Ask for the delivery of version 1 to the lab."""
        asking: dict[str, Any] = {
            "subject": "fraud@1, without fingerprint",
            "purpose": "deliver",
            "reason": "the contract of May",
            "file_id": self.file_id(),
            "recipient": "lab",
            "recipient_key": str(LAB.recipient),
        }
        return ask(self.installation, Asking(**(asking | changed)), actor=actor, hours=hours, drill=drill)[0]

    def say(self, name: str, request: Request, verdict: Verdict = "grant") -> Case:
        """Let an approver decide."""
        signed = sign_decision(request, verdict, KEYS[name], at=self.clock.now())
        return decide(self.installation, signed, actor=f"user:{name}")[0]

    def file_id(self) -> str:
        """The id of the sealed original of version 1."""
        return inspect_file(self.installation.paths.original("fraud", 1)).header.file_id

    def records(self, *kinds: str) -> list[Record]:
        """The ledger's records of these kinds, oldest first."""
        entries = self.installation.read_ledger().entries()
        decoded = [decode_record(data, what="it") for _, data in entries]
        return [record for record in decoded if record.kind in kinds]


def build(folder: Path, *, approvers: Sequence[str] = ("ada", "bob", "eve"), **settings: Any) -> House:
    """A house with a version, a recipient `lab`, and these approvers; two of them are needed."""
    made = make(folder, escrow=True)
    house = House(made.installation, made.owner, made.clock)
    protect(house.installation, made.owner, write(folder / "1.onnx", onnx_bytes(1)), "fraud", actor=ACTOR)
    with house.installation.open_registry() as registry, registry.write() as records:
        records.recipients.add("lab", kind="x25519", public_key=str(LAB.recipient))
    for name in approvers:
        house.appoint(name)
    settled = house.settle(**({"needed": 2} | settings))
    if approvers:
        change_approvers(settled.installation, made.owner, Change(), reason="all are there", actor=ACTOR)
    return settled
