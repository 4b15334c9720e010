"""Requests: what shall leave, to whom, why, until when; and what approvers say to them (docs/approvals.md).

A request names everything that it lets happen, so that nothing of it can be exchanged once it is approved: the file,
the recipient with its key, the purpose, the installation, and who asked. It is used once.
"""

import secrets
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import Annotated, Any, Literal, get_args

import msgspec
from cryptography.exceptions import InvalidSignature

from palladion import canonical
from palladion.approvals.documents import (
    DOCUMENT_BYTES_MAX,
    KEY_CHARACTERS_MAX,
    Digest,
    Id,
    MaybeDigest,
    MaybeFileId,
    Moment,
    Name,
    Text,
    digest_of,
    document_of,
    read_document,
    read_moment,
)
from palladion.approvals.roster import SignedStatement, Statement
from palladion.approvals.signing import ApproverKey, ApproverSigner, KeyText, SignatureText
from palladion.clock import timestamp
from palladion.errors import ApprovalError, FormatError, TamperError
from palladion.keys import Signer, ed25519_public_key

Purpose = Literal["deliver", "export", "unseal", "release", "rewrap", "approvers"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
Verdict = Literal["grant", "deny"]
HOURS_MAX = 168  # a week: what was agreed to longer ago, nobody has in mind any more
EXCHANGE_BYTES_MAX = 2 * DOCUMENT_BYTES_MAX
CLOCK_TOLERANCE = timedelta(minutes=5)  # between the clocks of approvers' machines and ours

_REQUEST = b"palladion/v1/approval-request"
_DECISION = b"palladion/v1/approval-decision"
_TAG = b"palladion/v1/approval-drill"


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What somebody asks for. `new_request` makes one, `read_request` reads one.

    `origin` and `owner` name the installation; `content` is the digest of what is opened or, of a change of approvers,
    of the statement that would be signed. `tag` tells the installation, and nobody else, whether it is a drill.
    """

    v: Literal[1]
    id: Id
    origin: Name
    owner: Id
    subject: Name
    file_id: MaybeFileId
    content: MaybeDigest
    recipient: Text
    recipient_key: Annotated[str, msgspec.Meta(max_length=KEY_CHARACTERS_MAX)]
    purpose: Purpose
    requester: Name
    evidence: MaybeDigest
    reason: Name
    created: Moment
    expires: Moment
    uses: Literal[1]
    tag: Digest

    @property
    def created_at(self) -> datetime:
        """When it was made."""
        return read_moment(self.created, what="the request")

    @property
    def ends_at(self) -> datetime:
        """The first moment at which it lets nothing happen any more."""
        return read_moment(self.expires, what="the request")

    @property
    def digest(self) -> str:
        """What approvers sign: SHA-256 over every field."""
        return digest_of(_REQUEST, self)

    def is_drill(self, key: bytes) -> bool:
        """Whether it is a drill, by the installation's secret `key`. Raises TamperError if it says neither."""
        if compare_digest(self.tag, _tag(key, self.id, drill=True)):
            return True
        if not compare_digest(self.tag, _tag(key, self.id, drill=False)):
            raise TamperError(f"request {self.id} was not made by this installation")
        return False


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one approver says to one request, by his key; `request` is the request's digest."""

    v: Literal[1]
    id: Id
    request: Digest
    verdict: Verdict
    key: KeyText
    at: Moment
    comment: Text

    @property
    def decided_at(self) -> datetime:
        """When it was signed, by the clock of the approver's machine."""
        return read_moment(self.at, what="the decision")


class SignedDecision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A decision and its signature. `verified` says whether it holds."""

    decision: Decision
    signature: SignatureText

    def verified(self, request: Request) -> Decision:
        """The decision, if its key signed it and it is about this request. Raises ApprovalError, TamperError."""
        decision = self.decision
        if (decision.id, decision.request) != (request.id, request.digest):
            raise ApprovalError(
                f"the decision is about another request than {request.id}, or about another state of it",
                "what is approved cannot be changed afterwards: make a new request",
                reason="altered",
            )
        message = _DECISION + canonical.encode(document_of(decision))
        key = ApproverKey.parse(decision.key)
        key.verify(message, bytes.fromhex(self.signature), what=f"the decision on request {request.id}")
        return decision


class SignedRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A request as it is given to approvers: signed with the key of the installation's ledger.

    `proposal` goes along where it is about a change of approvers, so that they see what they agree to.
    """

    request: Request
    signature: SignatureText
    proposal: SignedStatement | None = None

    @property
    def change(self) -> Statement | None:
        """The statement that the request is about; None for other purposes. Raises TamperError if it is another one."""
        if self.request.purpose != "approvers":
            return None
        if self.proposal is None or self.proposal.statement.digest != self.request.content:
            raise TamperError(
                f"request {self.request.id} does not come with the change of approvers that it is about",
                "do not agree to what you cannot read: palladion approval show, where the installation is",
            )
        return self.proposal.statement

    def verified(self, ledger_key: bytes) -> Request:
        """The request, if the ledger with this public key signed it. Raises TamperError."""
        try:
            key = ed25519_public_key(ledger_key, what="the ledger's key")
            key.verify(bytes.fromhex(self.signature), _message(self.request))
        except InvalidSignature:
            raise TamperError(
                f"request {self.request.id} was altered, or is not of this installation", "ask for it again"
            ) from None
        return self.request


def new_request(
    key: bytes,
    *,
    origin: str,
    owner: str,
    subject: str,
    purpose: Purpose,
    requester: str,
    reason: str,
    created: datetime,
    hours: int,
    file_id: str = "",
    content: str = "",
    recipient: str = "",
    recipient_key: str = "",
    evidence: str = "",
    drill: bool = False,
) -> Request:
    """A request with a fresh id; `key` is the installation's secret for drills, 32 bytes.

    Raises ApprovalError for more hours than `HOURS_MAX`, FormatError for a text that nobody should read on a terminal.
    """
    if not 1 <= hours <= HOURS_MAX:
        raise ApprovalError(f"{hours} hours were asked for, 1 to {HOURS_MAX} are allowed", reason="hours")
    request_id = secrets.token_hex(8)
    made = Request(
        v=1,
        id=request_id,
        origin=origin,
        owner=owner,
        subject=subject,
        file_id=file_id,
        content=content,
        recipient=recipient,
        recipient_key=recipient_key,
        purpose=purpose,
        requester=requester,
        evidence=evidence,
        reason=reason,
        created=timestamp(created),
        expires=timestamp(created + timedelta(hours=hours)),
        uses=1,
        tag=_tag(key, request_id, drill=drill),
    )
    return read_document(document_of(made), Request, what="the request")


def sign_request(request: Request, signer: Signer) -> SignedRequest:
    """The request with the signature of the installation's ledger."""
    return SignedRequest(request, signer.sign(_message(request)).hex())


def decide(
    request: Request, verdict: Verdict, signer: ApproverSigner, *, at: datetime, comment: str = ""
) -> SignedDecision:
    """Sign a decision on `request`. Raises ApprovalError if the request is over by the clock of this machine."""
    if at >= request.ends_at:
        raise ApprovalError(f"request {request.id} was to be decided until {request.expires}", reason="expired")
    decision = Decision(
        v=1,
        id=request.id,
        request=request.digest,
        verdict=verdict,
        key=str(signer.key),
        at=timestamp(at),
        comment=comment,
    )
    checked = read_document(document_of(decision), Decision, what="the decision")
    return SignedDecision(checked, signer.sign(_DECISION + canonical.encode(document_of(checked))).hex())


def read_request(data: Any, *, what: str) -> SignedRequest:
    """A signed request of a document, its times sound; not verified. Raises FormatError."""
    found = read_document(data, SignedRequest, what=what)
    length = found.request.ends_at - found.request.created_at
    if not timedelta(0) < length <= timedelta(hours=HOURS_MAX):
        raise FormatError(f"{what} holds for {length}, more than the {HOURS_MAX} hours allowed, or for no time at all")
    return found


def read_decision(data: Any, *, what: str) -> SignedDecision:
    """A signed decision of a document, not verified. Raises FormatError."""
    found = read_document(data, SignedDecision, what=what)
    _ = found.decision.decided_at
    return found


def encode_exchange(value: SignedRequest | SignedDecision) -> bytes:
    """One line of canonical JSON, as it is mailed between machines."""
    return canonical.encode(document_of(value)) + b"\n"


def decode_exchange(data: bytes, *, what: str) -> SignedRequest | SignedDecision:
    """What such a line holds, not verified. Raises FormatError."""
    document = canonical.decode(data.removesuffix(b"\n"), size_max=EXCHANGE_BYTES_MAX, what=what)
    if isinstance(document, dict) and "decision" in document:
        return read_decision(document, what=what)
    return read_request(document, what=what)


def _message(request: Request) -> bytes:
    return _REQUEST + bytes.fromhex(request.digest)


def _tag(key: bytes, request_id: str, *, drill: bool) -> str:
    return hmac_digest(key, _TAG + (b"\x01" if drill else b"\x00") + request_id.encode(), sha256).hex()
