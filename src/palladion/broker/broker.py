"""Decides on each request for a file's key, and puts the decision on record before anything leaves.

Knows no network: who asks has proved to hold a certificate, whose reading comes in. For one thread at a time. The order
of the steps is the argument; what fails anywhere releases nothing.
"""

import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

from palladion.access.certificates import Certificate
from palladion.attest.bundle import decode_bundle
from palladion.attest.claims import Claims
from palladion.attest.requirements import Requirement
from palladion.attest.roots import Roots
from palladion.attest.verify import verify
from palladion.broker.asked import FAULT, Asked, Judged, Peer, asked_of, facts_of, reason_of, recipient_of
from palladion.broker.callers import Callers
from palladion.broker.front import WHAT, unwrapped, verified_header
from palladion.broker.leases import Lease, Leases
from palladion.broker.nonces import Nonces
from palladion.broker.permission import Permission, Question
from palladion.broker.records import CLOCK_TOLERANCE, Clock, patiently, record_of
from palladion.clock import parse_timestamp, timestamp
from palladion.errors import (
    ApprovalError,
    AttestationError,
    BusyError,
    FormatError,
    PalladionError,
    StorageError,
    TamperError,
)
from palladion.host.broker_messages import (
    REQUEST_BYTES_MAX,
    BrokerRefusedError,
    Challenge,
    KeyList,
    KeyName,
    Released,
    ReleaseRequest,
    Renewed,
    RenewRequest,
    answer_context,
    decode,
)
from palladion.keys import Identity, Root
from palladion.lifecycle.approval_board import read_board
from palladion.lifecycle.approvals import Approved, conclude, require_approved
from palladion.lifecycle.decoy_touches import notice_file_id
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.revoke import read_revocations, version_reason
from palladion.policy.broker import BrokerPolicy, ReleasePolicy
from palladion.seal.header import decode_header

log = logging.getLogger("palladion.broker")


class Broker:
    """A broker of one installation. `monotonic` is in seconds: nonces and rates go by it, and no clock moves them."""

    def __init__(
        self,
        installation: Installation,
        gate: Root,
        identities: Sequence[Identity],
        *,
        keys: Sequence[KeyName],
        permission: Permission,
        requirements: Sequence[Requirement],
        roots: Roots,
        monotonic: Callable[[], float],
    ) -> None:
        self._installation = installation
        self._gate = gate
        self._identities = tuple(identities)
        self._keys = tuple(keys)
        self._permission = permission
        self._requirements = tuple(requirements)
        self._roots = roots
        self._monotonic = monotonic
        policy = self.policy
        self._rules: Mapping[str, ReleasePolicy] = {one.model: one for one in policy.release}
        self._nonces = Nonces(policy.nonce_seconds)
        self._callers = Callers(installation, gate, per_minute=policy.per_minute, monotonic=monotonic)
        self._clock = Clock(installation, monotonic)
        self._leases = Leases(installation.paths.directory)

    @property
    def policy(self) -> BrokerPolicy:
        """Its settings."""
        return self._installation.policy.broker

    def admit(self, certificate: Certificate) -> None:
        """Count a request against its certificate's rate, before anything of it is read. Raises BusyError."""
        self._callers.admit(certificate)

    def keys(self, certificate: Certificate) -> KeyList:
        """The keys that it opens files with, for a client. Raises BrokerRefusedError, on record."""
        with self._on_record(certificate, "keys") as say:
            say.peer = self._callers.identify(certificate)
            return KeyList(v=1, keys=self._keys)

    def challenge(self, certificate: Certificate) -> Challenge:
        """A nonce for this client. Raises BrokerRefusedError, on record, for somebody unknown."""
        with self._on_record(certificate, "challenge") as say:
            say.peer = self._callers.identify(certificate)
            nonce = self._nonces.draw(certificate.fingerprint, self._monotonic())
            return Challenge(v=1, nonce=nonce, seconds=self.policy.nonce_seconds, keys=self._keys)

    def release(self, certificate: Certificate, body: bytes) -> Released:
        """The file key, sealed to whoever the request was made by, and a lease; both are on record.

        Raises BrokerRefusedError after putting the refusal on record; StorageError or BusyError where that cannot be.
        """
        with self._on_record(certificate, "release") as say:
            # 1. the request's form, and its nonce: used up whatever comes
            request = decode(body, ReleaseRequest, size_max=REQUEST_BYTES_MAX, what="the request")
            recipient = recipient_of(request.public_key)
            self._use(request.nonce, certificate)
            # 2. who asks
            peer = say.peer = self._callers.identify(certificate)
            # 3. for what: signed by a publisher, and not revoked. Whoever asks for a decoy is told what everybody is
            self._notice(peer, request)
            header = verified_header(request.file, self._installation.publishers())
            asked = say.asked = asked_of(request, header)
            # 4. as the policy has it
            judged = self._judge(peer, asked, request.evidence, nonce=request.nonce, public_key=request.public_key)
            self._leases.require_room(peer.client.id, now=self._clock.now())
            # 5. as people have agreed: begun here, used up by the record below, and until then to be begun again
            approved = self._approve(peer, asked, judged, request.approval)
            # 6. the key, which the broker sees here for the first time
            file_key = unwrapped(request.file, header, self._identities)
            # 7. the lease and the record, then the answer
            lease = self._lease(peer, asked, judged, approved)
            seconds = self._seconds(lease)
            context = answer_context(request, client=certificate.fingerprint, lease=lease.id, seconds=seconds)
            sealed = recipient.wrap(file_key, context).blob
            approvers = approved.approvers if approved else ()
            self._append("released", peer.subject, asked, facts_of(lease, judged, approvers, seconds), approved)
            self._leases.put(lease, now=self._clock.now())
            return Released(v=1, lease=lease.id, seconds=seconds, sealed=sealed)

    def renew(self, certificate: Certificate, body: bytes) -> Renewed:
        """Let a lease go on if all that was asked for it holds still. Raises as `release` does."""
        with self._on_record(certificate, "renewal") as say:
            request = decode(body, RenewRequest, size_max=REQUEST_BYTES_MAX, what="the request")
            self._use(request.nonce, certificate)
            peer = say.peer = self._callers.identify(certificate)
            lease = self._leases.get(request.lease, client=peer.client.id)
            asked = say.asked = Asked(
                lease.model, lease.version, lease.file_id, lease.header_digest, lease.recipient, lease.purpose
            )
            now = self._clock.now()
            if now >= lease.ends_at:
                raise BrokerRefusedError("the lease has ended", "ask for the key anew", reason="lease")
            if now < parse_timestamp(lease.made) - CLOCK_TOLERANCE:
                raise PalladionError("the lease was made later than it is now", "set this machine's clock right")
            judged = self._judge(peer, asked, request.evidence, nonce=request.nonce, public_key=request.public_key)
            if judged.machine != lease.machine:
                raise BrokerRefusedError("the lease is another machine's", reason="machine")
            if judged.rule.approvals and not lease.approval:
                raise BrokerRefusedError("it takes approvals now, and was released without", reason="needed")
            renewed = self._renewed(lease)
            seconds = self._seconds(renewed)
            self._append("renewed", peer.subject, asked, facts_of(renewed, judged, (), seconds))
            self._leases.put(renewed, now=now, known=True)
            return Renewed(v=1, lease=lease.id, seconds=seconds)

    def _use(self, nonce: bytes, certificate: Certificate) -> None:
        if not self._nonces.take(nonce, certificate.fingerprint, self._monotonic()):
            raise BrokerRefusedError(
                "the nonce is not one that this client was given, or it is used or too old", reason="nonce"
            )

    def _judge(self, peer: Peer, asked: Asked, evidence: bytes, *, nonce: bytes, public_key: bytes) -> Judged:
        """Everything that has to hold at a release and at every renewal. Raises BrokerRefusedError and others."""
        # 1. a model whose keys are released at all
        rule = self._rules.get(asked.model)
        if rule is None:
            raise BrokerRefusedError(f"no key of {asked.model} is released", "[[broker.release]]", reason="model")
        # 2. neither file nor version nor recipient is revoked
        self._require_unrevoked(asked)
        # 3. the machine
        claims: tuple[Claims, ...] = ()
        if rule.attestation:
            if not evidence:
                raise AttestationError("evidence of the machine is needed, and there is none", reason="missing")
            claims = verify(
                decode_bundle(evidence),
                at=self._clock.now(),
                roots=self._roots,
                nonce=nonce,
                public_key=public_key,
                file_ids=(asked.file_id,),
                requirements=[one for one in self._requirements if one.name in rule.attestation],
            )
        # 4. who may have what for what
        client = peer.client
        question = Question(
            client.organisation, client.name, client.standing, asked.model, asked.version, asked.file_id,
            asked.recipient, asked.purpose, bool(claims), rule.approvals,
        )  # fmt: skip
        if not self._permission.permits(question):
            raise BrokerRefusedError(
                f"no policy permits {peer.name} to have {asked.model}@{asked.version} for {asked.purpose}",
                reason="policy",
            )
        return Judged(rule, claims)

    def _notice(self, peer: Peer, request: ReleaseRequest) -> None:
        """Tell of a touch where the file is a decoy, whoever signed what is asked. Raises FormatError."""
        file_id = decode_header(request.file.header, what=WHAT).file_id
        said = f"its key was asked for by {peer.name}, for {request.purpose}"
        patiently(lambda: notice_file_id(self._installation, file_id, actor=peer.subject, what=said))

    def _require_unrevoked(self, asked: Asked) -> None:
        try:
            listed = read_revocations(self._installation)
        except (FormatError, TamperError) as error:
            raise PalladionError(error.message, *error.hints) from None  # ours is broken, and not what was sent
        reason = version_reason(listed, asked.model, asked.version)
        if reason is None and listed is not None:
            reason = listed.files.get(asked.header_digest)
        if reason is not None:
            raise BrokerRefusedError(f"{asked.model}@{asked.version} was revoked: {reason}", reason="revoked")
        if not asked.recipient:
            return
        with self._installation.open_registry() as registry, registry.read() as records:
            recipient = records.recipients.find(asked.recipient)
        if recipient is not None and recipient.revoked_at is not None:
            raise BrokerRefusedError(f"recipient {asked.recipient} is revoked", reason="revoked")

    def _approve(self, peer: Peer, asked: Asked, judged: Judged, approval: str) -> Approved | None:
        """Begin to use the approvals that the rule asks for, None where it asks for none. Raises ApprovalError."""
        needed = judged.rule.approvals
        if not needed:
            return None
        if not approval:
            raise ApprovalError(f"{needed} approvals are needed", "palladion approval request", reason="needed")
        # looked at before they are used up, where the rule asks for more than approvals.needed does
        board = read_board(self._installation, self._gate)
        case = board.case(approval)
        if len({signed.decision.key for signed in case.decisions}) < needed:
            raise ApprovalError(f"request {approval} has fewer than {needed} approvals", reason="too-few")
        with _discreet():
            approved = patiently(
                lambda: require_approved(
                    self._installation,
                    approval,
                    file_id=asked.file_id,
                    recipient=peer.name,
                    purpose="release",
                    at=self._clock.now(),
                    evidence=judged.machine,
                    board=board,
                    resumable=True,
                )
            )
        if len(approved.approvers) < needed:
            raise ApprovalError(f"request {approval} has fewer than {needed} approvals", reason="too-few")
        return approved

    def _lease(self, peer: Peer, asked: Asked, judged: Judged, approved: Approved | None) -> Lease:
        now = self._clock.now()
        end = timestamp(now + timedelta(hours=judged.rule.approved_hours)) if judged.rule.approvals else ""
        return self._renewed(
            Lease(
                id=secrets.token_hex(16),
                client=peer.client.id,
                name=peer.name,
                model=asked.model,
                version=asked.version,
                file_id=asked.file_id,
                header_digest=asked.header_digest,
                recipient=asked.recipient,
                purpose=asked.purpose,
                machine=judged.machine,
                # not as the client wrote it, who may give the beginning of an id: the record must name the request
                approval=approved.request.id if approved and approved.request else "",
                made=timestamp(now),
                until=timestamp(now),
                end=end,
            )
        )

    def _renewed(self, lease: Lease) -> Lease:
        until = self._clock.now() + timedelta(minutes=self.policy.lease_minutes)
        return lease.prolonged(until)

    def _seconds(self, lease: Lease) -> int:
        left = (lease.ends_at - self._clock.now()).total_seconds()
        if left < 1:
            raise BrokerRefusedError("what was approved has ended", "palladion approval request", reason="lease")
        return int(left)

    def _on_record(self, certificate: Certificate, what: str) -> "_OnRecord":
        return _OnRecord(self, certificate, what)

    def refused(self, certificate: Certificate, what: str, peer: Peer | None, asked: Asked | None, reason: str) -> None:
        """Put a refusal on record. Raises StorageError or BusyError."""
        subject = peer.subject if peer else self._callers.stranger(certificate)
        self._append("refused", subject, asked, {"what": what, "reason": reason})

    def _append(
        self,
        what: str,
        actor: str,
        asked: Asked | None,
        details: Mapping[str, object],
        approved: Approved | None = None,
    ) -> None:
        # the clock as it is: also what is refused because it went back is on record
        record = record_of(
            what, actor, asked, details, at=self._installation.clock.now(), home=self._installation.paths.home.name
        )

        def append() -> None:
            with self._installation.open_ledger(self._gate) as ledger, _discreet():
                # of several that began with one request, one gets this far
                conclude(self._installation, self._gate, approved)
                ledger.append([record])

        # an approval may be used up by now
        patiently(append)


@contextmanager
def _discreet() -> Iterator[None]:
    """Say why approvals do not do, and not who agreed or took it back: that is the house's affair, and on record."""
    try:
        yield
    except ApprovalError as error:
        raise ApprovalError("the request for approval does not let this happen", reason=error.reason) from None


class _OnRecord:
    """A block whose refusals are put on record, with what is known of who asks and for what."""

    def __init__(self, broker: Broker, certificate: Certificate, what: str) -> None:
        self._broker, self._certificate, self._what = broker, certificate, what
        self.peer: Peer | None = None
        self.asked: Asked | None = None

    def __enter__(self) -> "_OnRecord":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, StorageError | BusyError):
            return
        # also of what is our own mistake: a request that makes the broker stumble must not be the one without a record
        reason = reason_of(error) if isinstance(error, PalladionError) else FAULT
        self._broker.refused(self._certificate, self._what, self.peer, self.asked, reason)
        if not isinstance(error, PalladionError):
            log.error("a request cannot be decided: this is a bug", exc_info=error)
            raise BrokerRefusedError("the broker cannot decide this", "ask its operators", reason=FAULT) from error
        if reason == FAULT:
            log.error("a request cannot be decided: %s", error.message)
            raise BrokerRefusedError("the broker cannot decide this", "ask its operators", reason=FAULT) from error
        if not isinstance(error, BrokerRefusedError):
            raise BrokerRefusedError(error.message, *error.hints, reason=reason) from error
