"""A host's side of a key broker: asks for file keys, and goes on asking, over TLS with a certificate of its own.

The key comes sealed to a key pair that is made for one request and never written anywhere. What is done when the broker
takes it back is the caller's affair: see `broker_lease`.
"""

import secrets
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from palladion import files
from palladion.attest.bundle import encode_bundle
from palladion.attest.evidence import Evidence
from palladion.errors import FormatError, KeysError, PalladionError, StorageError
from palladion.host.broker_messages import (
    ANSWER_BYTES_MAX,
    CHALLENGE_PATH,
    RELEASE_PATH,
    RENEW_PATH,
    BrokerRefusedError,
    Challenge,
    FileFront,
    Refusal,
    Released,
    ReleaseRequest,
    Renewed,
    RenewRequest,
    SentWrap,
    answer_context,
    decode,
    encode,
    printable,
)
from palladion.keys import Wrap
from palladion.seal.http import exchange
from palladion.seal.layout import Layout
from palladion.seal.recipients import FileIdentity, HybridIdentity
from palladion.seal.source import Place
from palladion.seal.structure import Structure, opened
from palladion.seal.trailer import wrap_context

EXCHANGE_SECONDS = 30.0
CERTIFICATE_BYTES_MAX = 64 * 1024
_REFUSED = frozenset({400, 403, 404, 413})  # no, and no again if it is asked again
_TOO_MANY, _OWN_FAULT = 429, 500  # later, and from here on: something is wrong over there
_Answer = TypeVar("_Answer", bound=msgspec.Struct)
_WHAT = "the broker's answer"


class Attester(Protocol):
    """Makes evidence of this machine; `palladion.attest` has what makes it on each kind of hardware."""

    def __call__(self, *, nonce: bytes, public_key: bytes, file_ids: Sequence[str]) -> Sequence[Evidence]:
        """Evidence that is bound to all of it."""
        ...


def nothing_attested(*, nonce: bytes, public_key: bytes, file_ids: Sequence[str]) -> Sequence[Evidence]:
    """No evidence: for a broker whose policy needs none."""
    return ()


@dataclass(frozen=True)
class Lease:
    """A key that was released, and until when it may be used, by this machine's clock of seconds."""

    id: str
    model: str
    version: int
    file_id: str
    seconds: int
    until: float


@dataclass(frozen=True)
class BrokerClient:
    """A broker at an address, as this host reaches it. `seconds_now` is a clock that goes on while the machine sleeps.

    `small_keys` makes X25519 key pairs, which a Nitro enclave needs; without it they are X-Wing.
    """

    url: str
    context: ssl.SSLContext = field(repr=False)
    certificate: str  # SHA-256 of this host's, in hex
    attest: Attester
    seconds_now: Callable[[], float]
    small_keys: bool = False

    def release(self, structure: Structure, *, purpose: str, approval: str = "") -> tuple[bytes, Lease]:
        """The file key of a sealed file, and its lease. Raises BrokerRefusedError, StorageError, KeysError."""
        challenge = self._challenge()
        wrap = _wanted(structure, challenge)
        pair, public_key = self._pair()
        file_id = structure.header.file_id
        request = ReleaseRequest(
            v=1,
            nonce=challenge.nonce,
            public_key=public_key,
            file=_front(structure, wrap),
            purpose=purpose,
            evidence=self._evidence(challenge.nonce, public_key, file_id),
            approval=approval,
        )
        # before it is asked: the lease must not last longer here than there
        asked_at = self.seconds_now()
        answer = self._ask(RELEASE_PATH, encode(request), Released)
        bound = answer_context(request, client=self.certificate, lease=answer.lease, seconds=answer.seconds)
        own = pair.recipient
        file_key = pair.unwrap(Wrap(own.kind, own.key_id, {}, answer.sealed), bound)
        if file_key is None:
            raise KeysError("the broker's answer is sealed to another key")
        header = structure.header
        until = asked_at + answer.seconds
        return file_key, Lease(answer.lease, header.model, header.version, file_id, answer.seconds, until)

    def renew(self, lease: Lease) -> Lease:
        """The same lease for longer. Raises BrokerRefusedError where it is over, StorageError without an answer."""
        challenge = self._challenge()
        _, public_key = self._pair()
        evidence = self._evidence(challenge.nonce, public_key, lease.file_id)
        request = RenewRequest(v=1, nonce=challenge.nonce, public_key=public_key, lease=lease.id, evidence=evidence)
        asked_at = self.seconds_now()
        answer = self._ask(RENEW_PATH, encode(request), Renewed)
        if answer.lease != lease.id:
            raise FormatError(f"{_WHAT} is about another lease")
        return replace(lease, seconds=answer.seconds, until=asked_at + answer.seconds)

    def _challenge(self) -> Challenge:
        return self._ask(CHALLENGE_PATH, b"", Challenge)

    def _pair(self) -> tuple[FileIdentity | HybridIdentity, bytes]:
        pair = FileIdentity(secrets.token_bytes(32)) if self.small_keys else HybridIdentity.generate()
        return pair, pair.recipient.public_key

    def _evidence(self, nonce: bytes, public_key: bytes, file_id: str) -> bytes:
        evidence = self.attest(nonce=nonce, public_key=public_key, file_ids=(file_id,))
        return encode_bundle(evidence) if evidence else b""

    def _ask(self, path: str, body: bytes, kind: type[_Answer]) -> _Answer:
        with exchange(
            self.url.rstrip("/") + path,
            body=body,
            content_type="application/json",
            seconds=EXCHANGE_SECONDS,
            context=self.context,
        ) as answer:
            data = bytearray()
            for piece in answer.pieces:
                data += piece
                if len(data) > ANSWER_BYTES_MAX:
                    raise FormatError(f"{_WHAT} has more than {ANSWER_BYTES_MAX} bytes")
        if answer.status == 200:
            return decode(bytes(data), kind, size_max=ANSWER_BYTES_MAX, what=_WHAT)
        if answer.status not in _REFUSED and answer.status < _OWN_FAULT and answer.status != _TOO_MANY:
            raise FormatError(f"{_WHAT} has status {answer.status}, which brokers do not say")
        try:
            refusal = decode(bytes(data), Refusal, size_max=ANSWER_BYTES_MAX, what=_WHAT)
        except FormatError:
            if answer.status in _REFUSED:
                raise
            # somebody before the broker, or what it runs on, in words of its own
            raise StorageError(f"the broker answers with status {answer.status}", "try again later") from None
        sentence = f"the broker refuses ({refusal.reason}): {printable(refusal.message)}"
        if answer.status in _REFUSED:
            raise BrokerRefusedError(sentence, reason=refusal.reason)
        raise StorageError(sentence, "try again later")


class BrokeredIdentity:
    """Opens one sealed file by asking a broker for its key; satisfies `Identity`. The lease is in `lease` then."""

    def __init__(self, client: BrokerClient, structure: Structure, *, purpose: str, approval: str = "") -> None:
        self._client = client
        self._structure = structure
        self._purpose = purpose
        self._approval = approval
        self._refused: PalladionError | None = None
        self.lease: Lease | None = None

    def __repr__(self) -> str:
        return f"<BrokeredIdentity of {self._structure.what}>"

    def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None:
        """The file key, asked for once, whichever of the file's wraps is tried. Raises as `BrokerClient.release`.

        None for the wraps of another file.
        """
        floe_header, file_id = self._structure.floe_header, self._structure.header.file_id
        if context != wrap_context(file_id, floe_header, kind=wrap.kind, key_id=wrap.key_id):
            return None
        if self._refused is not None:
            return None
        try:
            file_key, self.lease = self._client.release(self._structure, purpose=self._purpose, approval=self._approval)
        except PalladionError as error:
            self._refused = error
            raise
        return file_key


@contextmanager
def brokered(place: Place, client: BrokerClient, *, purpose: str, approval: str = "") -> Iterator[BrokeredIdentity]:
    """An identity for the sealed file at `place`, whose front is read for it."""
    with opened(place) as (_, structure):
        yield BrokeredIdentity(client, structure, purpose=purpose, approval=approval)


def client_context(*, authority: Path, certificate: Path, private_key: Path) -> tuple[ssl.SSLContext, str]:
    """TLS 1.3 with this host's certificate, towards whom `authority` vouches for; and that certificate's digest.

    Raises KeysError for files that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which checks names and certificates
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cafile=str(authority))
        context.load_cert_chain(certificate, private_key, password=_no_password)
        text = files.read_limited(certificate, size_max=CERTIFICATE_BYTES_MAX, what="the certificate").decode("ascii")
        begin = text.index("-----BEGIN CERTIFICATE-----")
        end = text.index("-----END CERTIFICATE-----", begin) + len("-----END CERTIFICATE-----")
        der = ssl.PEM_cert_to_DER_cert(text[begin:end])
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise KeysError(
            f"the certificate for the broker cannot be used: {getattr(error, 'strerror', None) or error}",
            f"{certificate}, {private_key} and {authority} are PEM files, the key without a passphrase",
        ) from None
    return context, sha256(der).hexdigest()


def _no_password() -> str:
    raise ValueError("its private key has a passphrase")


def _wanted(structure: Structure, challenge: Challenge) -> Wrap:
    """The wrap that the broker can open. Raises KeysError."""
    names = {(one.kind, one.key_id) for one in challenge.keys}
    wrap = next((one for one in structure.trailer.wraps if (one.kind, one.key_id) in names), None)
    if wrap is None:
        raise KeysError(
            f"{structure.what} is sealed to none of the broker's keys",
            "deliver it to a recipient whose identity the broker has (docs/broker.md)",
        )
    return wrap


def _front(structure: Structure, wrap: Wrap) -> FileFront:
    layout: Layout = structure.layout
    return FileFront(
        header=structure.encoded_header,
        floe_header=structure.floe_header,
        segments=layout.segments,
        body_bytes=layout.body_bytes,
        root=bytes.fromhex(structure.info.root),
        signature=structure.trailer.signature,
        wrap=SentWrap(wrap.kind, wrap.key_id, wrap.parameters, wrap.blob),
    )
