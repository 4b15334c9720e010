"""Who may approve, and how many are needed: statements signed by the owner, each built on the one before.

Once so many approvers are listed as are needed, a statement counts only with the approvals of those whom the one before
it lists. So nobody adds himself, and nobody lowers the number, with the owner passphrase alone.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from cryptography.exceptions import InvalidSignature

from palladion import canonical
from palladion.approvals.documents import (
    MaybeDigest,
    Moment,
    Name,
    Slug,
    digest_of,
    document_of,
    read_document,
    read_moment,
)
from palladion.approvals.signing import ApproverKey, KeyText, SignatureText
from palladion.clock import timestamp
from palladion.errors import ApprovalError, TamperError
from palladion.keys import Signer, ed25519_public_key

APPROVERS_MAX = 32
IDENTITIES_MAX = 8  # accounts of one person
_STATEMENT = b"palladion/v1/approvals-statement"


class Approver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person who approves: the operator's name, every account that is his, and his key."""

    name: Slug
    identities: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=IDENTITIES_MAX)]
    key: KeyText


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who approves from `at` on, how many are needed, and who may open the roots and originals besides the owner.

    `previous` is the digest of the statement before, and `sequence` its number plus one; `escrow` are kinds of
    recipients, each with a digest of its text.
    """

    v: Literal[1]
    sequence: Annotated[int, msgspec.Meta(ge=1, le=canonical.INTEGER_MAX)]
    previous: MaybeDigest
    origin: Name
    needed: Annotated[int, msgspec.Meta(ge=0, le=APPROVERS_MAX)]
    break_glass: bool
    approvers: Annotated[tuple[Approver, ...], msgspec.Meta(max_length=APPROVERS_MAX)]
    escrow: Annotated[tuple[Name, ...], msgspec.Meta(max_length=8)]
    at: Moment

    @property
    def digest(self) -> str:
        """What the owner signs, and what approvers agree to."""
        return digest_of(_STATEMENT, self)

    @property
    def armed(self) -> bool:
        """Whether there are as many approvers as are needed: from then on, approvals bind changes of them too."""
        return 1 <= self.needed <= len(self.approvers)

    def with_key(self, key: str) -> Approver | None:
        """The approver with this key."""
        return next((item for item in self.approvers if item.key == key), None)

    def named(self, name: str) -> Approver | None:
        """The approver of this name."""
        return next((item for item in self.approvers if item.name == name), None)


class SignedStatement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A statement and the owner's signature, by the key that signs sealed files."""

    statement: Statement
    signature: SignatureText


@dataclass(frozen=True)
class Change:
    """What is to become of a statement: what is None stays."""

    needed: int | None = None
    break_glass: bool | None = None
    add: Approver | None = None
    remove: str | None = None
    escrow: tuple[str, ...] | None = None


def next_statement(current: Statement | None, change: Change, *, origin: str, at: datetime) -> Statement:
    """The statement after `current`. Raises ApprovalError where it would name one person twice, or too few."""
    approvers = current.approvers if current else ()
    if change.remove is not None:
        if current is None or current.named(change.remove) is None:
            raise ApprovalError(f"{change.remove} is no approver", reason="approver")
        approvers = tuple(item for item in approvers if item.name != change.remove)
    if change.add is not None:
        ApproverKey.parse(change.add.key)
        approvers = (*(item for item in approvers if item.name != change.add.name), change.add)
    made = Statement(
        v=1,
        sequence=current.sequence + 1 if current else 1,
        previous=current.digest if current else "",
        origin=origin,
        needed=_chosen(change.needed, current.needed if current else 0),
        break_glass=_chosen(change.break_glass, current.break_glass if current else False),
        approvers=tuple(sorted(approvers, key=lambda item: item.name)),
        escrow=_chosen(change.escrow, current.escrow if current else ()),
        at=timestamp(at),
    )
    check_statement(made, current)
    return read_document(document_of(made), Statement, what="the statement of approvers")


def check_statement(statement: Statement, previous: Statement | None) -> None:
    """Raise ApprovalError unless `statement` may follow `previous`, whoever has agreed to it."""
    before = (previous.sequence, previous.digest) if previous else (0, "")
    if (statement.sequence - 1, statement.previous) != before:
        raise ApprovalError(
            f"statement {statement.sequence} of approvers does not follow statement {before[0]}",
            "somebody else changed them meanwhile: begin again",
            reason="sequence",
        )
    # one key, one account and one name are one person, who approves once
    for what, values in (
        ("the name", [item.name for item in statement.approvers]),
        ("the key", [_either(item.key) for item in statement.approvers]),
        ("the account", [name for item in statement.approvers for name in set(item.identities)]),
    ):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise ApprovalError(f"two approvers have {what} {twice}: one person approves once", reason="twice")
    if previous is not None and previous.armed and statement.needed and not statement.armed:
        raise ApprovalError(
            f"{len(statement.approvers)} approvers would be left where {statement.needed} are needed",
            "add another one first",
            reason="too-few",
        )


def sign_statement(statement: Statement, signer: Signer) -> SignedStatement:
    """The statement with the owner's signature; `signer` is the publisher's key."""
    return SignedStatement(statement, signer.sign(_message(statement)).hex())


def read_statement(document: Any, *, what: str) -> SignedStatement:
    """A signed statement of a document, not verified. Raises FormatError."""
    found = read_document(document, SignedStatement, what=what)
    read_moment(found.statement.at, what=what)
    return found


def verify_statement(signed: SignedStatement, previous: Statement | None, *, owner: bytes, origin: str) -> Statement:
    """The statement, if the owner with this public key signed it for this installation, after `previous`.

    Raises TamperError, ApprovalError. Whether enough approvers agreed to it is for `quorum` to say.
    """
    statement = signed.statement
    try:
        key = ed25519_public_key(owner, what="the owner's key")
        key.verify(bytes.fromhex(signed.signature), _message(statement))
    except InvalidSignature:
        raise TamperError(f"statement {statement.sequence} of approvers is not signed by the owner") from None
    if statement.origin != origin:
        raise TamperError(f"statement {statement.sequence} of approvers is of {statement.origin}, not of {origin}")
    check_statement(statement, previous)
    return statement


def _either(key: str) -> str:
    """A key as text, whichever of the two with one private key it is."""
    found = ApproverKey.parse(key)
    return f"{found.kind}:{found.unsigned.hex()}"


def _message(statement: Statement) -> bytes:
    return _STATEMENT + bytes.fromhex(statement.digest)


def _chosen(value: Any, default: Any) -> Any:
    return default if value is None else value
