"""Decides on each request for a file's key, and puts the decision on record before anything leaves.

Knows no network: who asks has proved to hold a certificate, whose reading comes in. For one thread at a time. The order
of the steps is the argument; what fails anywhere releases nothing.
"""

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from palladion.access.certificates import Certificate
from palladion.access.limits import Rate, States, admit
from palladion.access.pseudonyms import pseudonym
from palladion.attest.bundle import decode_bundle
from palladion.attest.claims import Claims
from palladion.attest.requirements import Requirement
from palladion.attest.roots import Roots
from palladion.attest.verify import verify
from palladion.broker.asked import FAULT, Asked, Judged, Peer, asked_of, facts_of, reason_of, recipient_of
from palladion.broker.front import unwrapped, verified_header
from palladion.broker.leases import Lease, Leases
from palladion.broker.nonces import Nonces
from palladion.broker.permission import Permission, Question
from palladion.clock import timestamp
from palladion.errors import (
    ApprovalError,
    AttestationError,
    BusyError,
    PalladionError,
    StorageError,
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
from palladion.ledger.record import Record
from palladion.lifecycle.approval_board import read_board
from palladion.lifecycle.approvals import require_approved
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.revoke import read_revocations, version_reason
from palladion.policy.broker import BrokerPolicy, ReleasePolicy

log = logging.getLogger("palladion.broker")

RATES_MAX = 4096  # clients whose rate is remembered, some 400 KiB
SUSPENDED = "suspended"


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
        self._rate = Rate(policy.per_minute / 60, max(1.0, policy.per_minute / 2))
        self._rates = States(RATES_MAX)
        self._leases = Leases(installation.paths.directory)

    @property
    def policy(self) -> BrokerPolicy:
        """Its settings."""
        return self._installation.policy.broker

    def admit(self, certificate: Certificate) -> None:
        """Count a request against its certificate's rate, before anything of it is read. Raises BusyError."""
        key, now = certificate.spiffe or certificate.fingerprint, self._monotonic()
        wait = self._rates.wait(key, "", now)
        if not wait:
            admission = admit(self._rate, self._rates.by_key.get(key, 0.0), now, 1)
            self._rates.put(key, "", admission.state)
            wait = admission.wait_seconds
        if wait:
            raise BusyError(f"too many requests: wait {wait:.0f} seconds")

    def keys(self) -> KeyList:
        """The keys that it opens files with."""
        return KeyList(v=1, keys=self._keys)

    def challenge(self, certificate: Certificate) -> Challenge:
        """A nonce for this client. Raises BrokerRefusedError, on record, for somebody unknown."""
        with self._on_record(certificate, "challenge") as say:
            say.peer = self._identify(certificate)
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
            peer = say.peer = self._identify(certificate)
            # 3. for what: signed by a publisher, and not revoked
            header = verified_header(request.file, self._installation.publishers())
            asked = say.asked = asked_of(request, header)
            # 4. as the policy has it
            judged = self._judge(peer, asked, request.evidence, nonce=request.nonce, public_key=request.public_key)
            # 5. as people have agreed, which uses their agreement up
            approvers = self._approve(peer, asked, judged, request.approval)
            # 6. the key, which the broker sees here for the first time
            file_key = unwrapped(request.file, header, self._identities)
            # 7. the lease and the record, then the answer
            lease = self._lease(peer, asked, judged, request.approval)
            seconds = self._seconds(lease)
            context = answer_context(request, client=certificate.fingerprint, lease=lease.id, seconds=seconds)
            sealed = recipient.wrap(file_key, context).blob
            self._append("released", peer.subject, asked, facts_of(lease, judged, approvers, seconds))
            self._leases.put(lease, now=self._installation.clock.now())
            return Released(v=1, lease=lease.id, seconds=seconds, sealed=sealed)

    def renew(self, certificate: Certificate, body: bytes) -> Renewed:
        """Let a lease go on if all that was asked for it holds still. Raises as `release` does."""
        with self._on_record(certificate, "renewal") as say:
            request = decode(body, RenewRequest, size_max=REQUEST_BYTES_MAX, what="the request")
            self._use(request.nonce, certificate)
            peer = say.peer = self._identify(certificate)
            lease = self._leases.get(request.lease, client=peer.client.id)
            asked = say.asked = Asked(
                lease.model, lease.version, lease.file_id, lease.header_digest, lease.recipient, lease.purpose
            )
            now = self._installation.clock.now()
            if now >= lease.ends_at:
                raise BrokerRefusedError("the lease has ended", "ask for the key anew", reason="lease")
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

    def _identify(self, certificate: Certificate) -> Peer:
        """The client whose certificate this is. Raises BrokerRefusedError."""
        names = {("certificate", certificate.fingerprint), ("spiffe", certificate.spiffe)}
        with self._installation.open_registry() as registry, registry.read() as records:
            owners = {one.client for one in records.identities.live() if (one.kind, one.value) in names}
            client = records.clients.find_id(next(iter(owners))) if len(owners) == 1 else None
        if client is None:
            raise BrokerRefusedError("no client is known by this certificate", reason="client")
        subject = pseudonym(self._gate.derive("pseudonyms"), client.id)
        peer = Peer(client, certificate, f"{client.organisation}/{client.name}", subject)
        if client.revoked_at is not None or client.standing == SUSPENDED:
            raise BrokerRefusedError("the client is revoked or suspended", reason="revoked")
        return peer

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
                at=self._installation.clock.now(),
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

    def _require_unrevoked(self, asked: Asked) -> None:
        listed = read_revocations(self._installation)
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

    def _approve(self, peer: Peer, asked: Asked, judged: Judged, approval: str) -> tuple[str, ...]:
        """Use up the approvals that the rule asks for; who agreed. Raises ApprovalError."""
        needed = judged.rule.approvals
        if not needed:
            return ()
        if not approval:
            raise ApprovalError(f"{needed} approvals are needed", "palladion approval request", reason="needed")
        # looked at before they are used up, where the rule asks for more than approvals.needed does
        case = read_board(self._installation, self._gate).case(approval)
        if len({signed.decision.key for signed in case.decisions}) < needed:
            raise ApprovalError(f"request {approval} has fewer than {needed} approvals", reason="too-few")
        approved = require_approved(
            self._installation,
            approval,
            file_id=asked.file_id,
            recipient=peer.name,
            purpose="release",
            at=self._installation.clock.now(),
            evidence=judged.machine,
        )
        if len(approved.approvers) < needed:
            raise ApprovalError(f"request {approval} has fewer than {needed} approvals", reason="too-few")
        return approved.approvers

    def _lease(self, peer: Peer, asked: Asked, judged: Judged, approval: str) -> Lease:
        now = self._installation.clock.now()
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
                approval=approval if judged.rule.approvals else "",
                made=timestamp(now),
                until=timestamp(now),
                end=end,
            )
        )

    def _renewed(self, lease: Lease) -> Lease:
        until = self._installation.clock.now() + timedelta(minutes=self.policy.lease_minutes)
        return lease.prolonged(until)

    def _seconds(self, lease: Lease) -> int:
        left = (lease.ends_at - self._installation.clock.now()).total_seconds()
        if left < 1:
            raise BrokerRefusedError("what was approved has ended", "palladion approval request", reason="lease")
        return int(left)

    def _on_record(self, certificate: Certificate, what: str) -> "_OnRecord":
        return _OnRecord(self, certificate, what)

    def refused(self, certificate: Certificate, what: str, peer: Peer | None, asked: Asked | None, reason: str) -> None:
        """Put a refusal on record. Raises StorageError or BusyError."""
        key = self._gate.derive("pseudonyms")
        subject = peer.subject if peer else pseudonym(key, f"certificate {certificate.fingerprint}")
        self._append("refused", subject, asked, {"what": what, "reason": reason})

    def _append(self, what: str, actor: str, asked: Asked | None, details: Mapping[str, object]) -> None:
        subject = f"{asked.model}@{asked.version}" if asked else self._installation.paths.home.name
        about: dict[str, object] = {}
        if asked is not None:
            about = {"file_id": asked.file_id, "header": asked.header_digest, "purpose": asked.purpose}
            if asked.recipient:
                about["recipient"] = asked.recipient
        now = self._installation.clock.now()
        with self._installation.open_ledger(self._gate) as ledger:
            ledger.append([Record(f"broker.{what}", now, actor, subject, {**about, **details})])


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
