"""RFC 3161 time stamps: that a sealed file's signature existed at a time, by an authority whom the verifier trusts.

What is stamped is the publisher's signature, 64 bytes, as RFC 3161 has it in Appendix A: through it the stamp covers
header and body, and it survives rewrapping. The reply lies beside the file as it came, `NAME.tsr`, for checks offline.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from cryptography import x509

from palladion.errors import FormatError, MissingExtraError, PalladionError, StorageError, TamperError
from palladion.files import read_limited, write_atomically
from palladion.seal.http import EXCHANGE_SECONDS, exchange, split_url
from palladion.seal.structure import opened

if TYPE_CHECKING:
    from rfc3161_client import TimeStampResponse

Send = Callable[[bytes], bytes]  # takes a request to the authority, in DER; returns its reply

REPLY_BYTES_MAX = 64 * 1024  # with the authority's whole chain 3 to 8 KiB; parsed before it is authenticated
# what the library raises on certificates besides ValueError
_BROKEN_CERTIFICATE = (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
_PUBLIC_FILE = 0o644  # nothing in it is secret, and it is meant to be handed on


@dataclass(frozen=True)
class Stamp:
    """What a verified time stamp says: when, by whom, under which serial number and policy of that authority."""

    time: datetime
    authority: str
    serial: int
    policy: str


def stamp_path(sealed: Path) -> Path:
    """Where the time stamp of a sealed file lies."""
    return sealed.with_name(f"{sealed.name}.tsr")


def stamp_file(path: Path, publishers: Sequence[bytes], roots: Sequence[x509.Certificate], send: Send) -> Stamp:
    """Have the signature of the sealed file at `path` stamped, and write the reply to its `stamp_path`.

    The reply is verified before it is kept. Raises TamperError unless one of `publishers` signed the file, and an
    authority under one of `roots` the reply; StorageError if no reply comes.
    """
    signature = _signature(path, publishers)
    library = _library()
    request = library.TimestampRequestBuilder().data(signature).hash_algorithm(library.HashAlgorithm.SHA512).build()
    reply = send(request.as_bytes())
    # the nonce: an old reply, with the time that it had, must not pass for a new one
    stamp = check_reply(reply, signature, roots, nonce=request.nonce, what="the reply of the time-stamping authority")
    write_atomically(stamp_path(path), reply, mode=_PUBLIC_FILE)
    return stamp


def verify_stamp(
    path: Path, publishers: Sequence[bytes], roots: Sequence[x509.Certificate], *, reply: Path | None = None
) -> Stamp:
    """The time stamp of the sealed file at `path`, from its `stamp_path` unless `reply` names another file.

    Raises TamperError unless one of `publishers` signed the file and an authority under one of `roots` stamped that
    signature. The authority's certificates have to be valid at the stamped time, not now; whether one was revoked is
    not looked up. That the body is what was signed is for `verify_file` to say.
    """
    signature = _signature(path, publishers)
    found = reply or stamp_path(path)
    data = read_limited(found, size_max=REPLY_BYTES_MAX, what="time stamp")
    return check_reply(data, signature, roots, what=f"the time stamp {found}")


def check_reply(
    data: bytes, message: bytes, roots: Sequence[x509.Certificate], *, what: str, nonce: int | None = None
) -> Stamp:
    """The stamp over `message` in an authority's reply. Raises FormatError or TamperError, naming `what`."""
    if not roots:
        raise ValueError("a time stamp is worth what its authority is: name at least one root")
    library = _library()
    if len(data) > REPLY_BYTES_MAX:
        raise FormatError(f"{what} has {len(data)} bytes, more than the {REPLY_BYTES_MAX} allowed")
    try:
        reply = library.decode_timestamp_response(data)
        status = library.PKIStatus(reply.status)
        if status != library.PKIStatus.GRANTED:
            said = ": " + "; ".join(reply.status_string)[:200] if reply.status_string else ""
            raise PalladionError(f"{what} is a refusal ({status.name.lower()}){ascii(said)[1:-1]}")
        signer = _signer(reply, what)
        _verify(reply, message, roots, nonce, what)
        info = reply.tst_info
        return Stamp(info.gen_time, signer.subject.rfc4514_string(), info.serial_number, info.policy.dotted_string)
    except (ValueError, *_BROKEN_CERTIFICATE) as error:
        raise FormatError(f"{what} is no RFC 3161 reply that can be read: {error}") from None


def http_sender(url: str, *, seconds: float = EXCHANGE_SECONDS) -> Send:
    """Asks the authority at `url`. Plain HTTP will do, since replies prove themselves by their signature.

    Raises PalladionError on another kind of address; the sender raises StorageError if no whole reply comes in time.
    """
    split_url(url)

    def send(request: bytes) -> bytes:
        with exchange(url, body=request, content_type="application/timestamp-query", seconds=seconds) as answer:
            if answer.status != 200:
                raise StorageError(f"the time-stamping authority answers with HTTP status {answer.status}")
            reply = bytearray()
            for piece in answer.pieces:
                reply += piece
                if len(reply) > REPLY_BYTES_MAX:
                    raise FormatError(f"the time-stamping authority sends more than {REPLY_BYTES_MAX} bytes")
        return bytes(reply)

    return send


def _signature(path: Path, publishers: Sequence[bytes]) -> bytes:
    with opened(path) as (_, structure):
        structure.verify_publisher(list(publishers))
        return structure.trailer.signature


def _verify(
    reply: "TimeStampResponse", message: bytes, roots: Sequence[x509.Certificate], nonce: int | None, what: str
) -> None:
    library = _library()
    refusals = []
    # one root at a time: of two that have one name, as a renewed root has, OpenSSL would try the first alone
    for root in roots:
        try:
            library.VerifierBuilder(roots=[root], nonce=nonce).build().verify_message(reply, message)
        except library.VerificationError as error:
            refusals.append(str(error).lower())
        else:
            return
    told = [refusal for refusal in refusals if not refusal.startswith("error while verifying certificates")]
    raise TamperError(
        f"{what} does not hold: {told[0] if told else 'no root leads to its signer, or its signature is broken'}",
        "verify it with the root of the authority that made it",
    )


def _signer(reply: "TimeStampResponse", what: str) -> x509.Certificate:
    """The one embedded certificate that the reply names as its signer's.

    The library takes any that fits and OpenSSL perhaps another: of two, one could bring a signature that holds, and the
    other, which nobody issued, the right to stamp.
    """
    named = [(info.issuer, info.serial_number) for info in reply.signed_data.signer_infos]
    embedded = [x509.load_der_x509_certificate(item) for item in reply.signed_data.certificates]
    fitting = [item for item in embedded if (item.issuer, item.serial_number) in named]
    if len(named) != 1 or len(fitting) != 1:
        raise TamperError(f"{what} has {len(named)} signers and {len(fitting)} certificates for them, expected one")
    return fitting[0]


def _library() -> ModuleType:
    try:
        import rfc3161_client
    except ImportError:
        raise MissingExtraError("time stamps need rfc3161-client", "pip install 'palladion[stamp]'") from None
    library: ModuleType = rfc3161_client
    return library
