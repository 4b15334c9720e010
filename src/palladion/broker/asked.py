"""What a request for a file's key is about: who asks, for which file, and what was found of the machine. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from palladion import canonical
from palladion.access.certificates import Certificate
from palladion.attest.claims import Claims
from palladion.broker.leases import Lease
from palladion.errors import (
    ApprovalError,
    AttestationError,
    FormatError,
    KeysError,
    NotFoundError,
    PalladionError,
    TamperError,
)
from palladion.host.broker_messages import BrokerRefusedError, ReleaseRequest
from palladion.keys import Recipient
from palladion.policy.broker import ReleasePolicy
from palladion.registry.rows import Client
from palladion.seal.header import Header, header_digest
from palladion.seal.recipients import FileRecipient, HybridRecipient
from palladion.seal.recipients.file import KEY_BYTES as X25519_BYTES
from palladion.seal.recipients.hybrid import PUBLIC_KEY_BYTES as HYBRID_BYTES

FAULT = "fault"  # the broker's own affair, of which a client is told nothing else


@dataclass(frozen=True)
class Peer:
    """Who asks: a client with its certificate, and its standing."""

    client: Client
    certificate: Certificate
    name: str  # organisation/name
    subject: str  # its pseudonym in the ledger


@dataclass(frozen=True)
class Asked:
    """What a request is about, once it is known."""

    model: str
    version: int
    file_id: str
    header_digest: str
    recipient: str
    purpose: str


@dataclass(frozen=True)
class Judged:
    """What was found of a request that is not refused so far."""

    rule: ReleasePolicy
    claims: tuple[Claims, ...]

    @property
    def machine(self) -> str:
        """A digest of what was attested, "" where nothing had to be: the same for every nonce."""
        if not self.claims:
            return ""
        said = [
            {
                "kind": one.kind,
                # an empty chip would make one machine of all guests of a cloud that start the same
                "chip": one.chip or str(one.features.get("report_id", "")),
                "root": one.root,
                "measurements": dict(one.measurements),
            }
            for one in self.claims
        ]
        return sha256(canonical.encode(said)).hexdigest()


def reason_of(error: PalladionError) -> str:
    """The name of what a request was refused for."""
    if isinstance(error, BrokerRefusedError | AttestationError | ApprovalError):
        return error.reason
    named = ((FormatError, "malformed"), (TamperError, "tampered"), (NotFoundError, "unknown"), (KeysError, "key"))
    return next((name for kind, name in named if isinstance(error, kind)), FAULT)


def recipient_of(public_key: bytes) -> Recipient:
    """What an answer is sealed to. Raises FormatError for a key of low order, or of no kind that is known."""
    try:
        if len(public_key) == X25519_BYTES:
            return FileRecipient(public_key)
        if len(public_key) == HYBRID_BYTES:
            return HybridRecipient(public_key)
    except ValueError:
        raise FormatError("the public key is none that anything can be sealed to") from None
    raise FormatError(f"a public key of {len(public_key)} bytes, {X25519_BYTES} or {HYBRID_BYTES} were expected")


def asked_of(request: ReleaseRequest, header: Header) -> Asked:
    """What a request is about, by its header, which is verified."""
    digest = header_digest(request.file.header)
    return Asked(header.model, header.version, header.file_id, digest, header.recipient, request.purpose)


def facts_of(lease: Lease, judged: Judged, approvers: Sequence[str], seconds: int) -> dict[str, object]:
    """What a record says of a release beside what was asked for; measurements are the policy's own."""
    facts: dict[str, object] = {"lease": lease.id, "seconds": seconds}
    if judged.claims:
        facts["attestation"] = list(judged.rule.attestation)
        facts["machine"] = lease.machine
        facts["chips"] = [f"{one.kind}:{one.chip}" for one in judged.claims]
    if lease.approval:
        facts["approval"] = lease.approval
    if approvers:
        facts["approvers"] = list(approvers)
    return facts
