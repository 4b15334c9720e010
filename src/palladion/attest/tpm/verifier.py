"""Evidence of a TPM, verified: the key, its signature under a quote, and the values of the PCRs in it.

`document` is a TPM2B_ATTEST and the TPMT_SIGNATURE behind it. `collateral` is JSON, {"pcrs": {"0": hex, …}, "key":
hex}. `certificates` are the key's chain, leaf first; without one `key` is its SubjectPublicKeyInfo in DER, which has to
stand among the roots itself: that is how a key is trusted that was enrolled (credential.py) and not certified.
"""

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from types import MappingProxyType

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from palladion.attest.chains import refuse, verify_chain
from palladion.attest.claims import Claims
from palladion.attest.evidence import CERTIFICATE_BYTES_MAX, Evidence
from palladion.attest.roots import Roots
from palladion.attest.signature import RSA_BITS_MAX, RSA_BITS_MIN, Scheme, ecdsa_der, holds
from palladion.attest.tpm.structures import PCRS, Quote, Signature, check_values, is_key, parse_document

COLLATERAL_BYTES_MAX = 32 * 1024
_ATTESTATION_KEY = "2.23.133.8.3"  # tcg-kp-AIKCertificate


class Collateral(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Further data of a quote: the values of its PCRs by number, in hex, and the key if nothing certifies it."""

    pcrs: dict[str, str]
    key: str = ""


def verify(evidence: Evidence, *, at: datetime, roots: Roots) -> Claims:
    """What the quote says, once the key is trusted, its signature holds and the PCRs' values are those quoted.

    Raises AttestationError. That it was made for this request, and whether it satisfies, is not checked here.
    """
    # 1. The quote and what comes with it are such.
    quote, signature = parse_document(evidence.document)
    values, key = _collateral(evidence.collateral)
    # 2. The key is a TPM's: by its certificate, or because it is trusted by itself.
    public_key, root, expires = _trusted(evidence, key, at, roots)
    # 3. It signed the quote.
    if not _holds(signature, public_key, quote.signed):
        refuse("signature", "the signature under the TPM's quote does not hold")
    # 4. What was measured is what is stated.
    check_values(quote, values, signature.hash)
    return _claims(quote, values, public_key, root, expires)


def _collateral(data: bytes) -> tuple[Mapping[int, bytes], bytes]:
    try:
        if len(data) > COLLATERAL_BYTES_MAX:
            raise ValueError
        given = msgspec.json.decode(data, type=Collateral, strict=True)
        numbers = {str(index): index for index in PCRS}
        values = {numbers[name]: bytes.fromhex(text) for name, text in given.pcrs.items()}
        return values, bytes.fromhex(given.key)
    except (msgspec.DecodeError, ValueError, KeyError, RecursionError):
        refuse("malformed", 'collateral of a TPM\'s quote that is not {"pcrs": {"0": hex, …}, "key": hex}')


def _trusted(evidence: Evidence, key: bytes, at: datetime, roots: Roots) -> tuple[bytes, bytes, datetime | None]:
    """Public key, what vouches for it (a certificate, or the key itself), and until when."""
    anchors = roots.of("tpm")
    if evidence.certificates:
        if key:
            refuse("malformed", "a TPM's quote with a certificate and with a key that nothing certifies")
        certificates = [anchor for anchor in anchors if not is_key(anchor)]
        path = verify_chain(evidence.certificates, roots=certificates, at=at, intermediates=roots.between("tpm"))
        if path[0].authority:
            refuse("chain", "the quote is signed by an authority, not by a TPM's key")
        # makers' roots stand above much that signs whatever it is given: endorsement keys, servers, secure elements
        if len(path) > 1 and _ATTESTATION_KEY not in path[0].purposes:
            refuse(
                "chain",
                "the quote is signed by a key whose certificate is not that of a TPM's attestation key",
                "enrol the key, or name its certificate itself as a root, if you know that it is one",
            )
        return path[0].public_key, path[-1].raw, min(one.not_after for one in path)
    if not key or len(key) > CERTIFICATE_BYTES_MAX or key not in anchors or not is_key(key):
        refuse("root", "nothing that is trusted here vouches for the TPM's key", "enrol it, and name it as a root")
    return key, key, None


def _holds(signature: Signature, public_key: bytes, message: bytes) -> bool:
    if not signature.padding:
        return holds(Scheme(signature.hash), public_key, ecdsa_der(*signature.numbers), message)
    if signature.padding == "pkcs1":
        return holds(Scheme(signature.hash, "pkcs1"), public_key, signature.numbers[0], message)
    chosen = signature.hash()
    try:
        key = load_der_public_key(public_key)
        if not isinstance(key, rsa.RSAPublicKey) or not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
            return False
        # TPMs salt with as much as fits, or with a digest's length (Part 1, annex B.7): either is as good
        pad = padding.PSS(padding.MGF1(chosen), padding.PSS.AUTO)
        key.verify(signature.numbers[0], message, pad, chosen)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def _claims(
    quote: Quote, values: Mapping[int, bytes], public_key: bytes, root: bytes, expires: datetime | None
) -> Claims:
    counts: dict[str, int | str] = {
        "firmware": f"{quote.firmware:016x}",
        "reset_count": quote.reset_count,
        "restart_count": quote.restart_count,
    }
    return Claims(
        kind="tpm",
        measurements=MappingProxyType({f"pcr{index}": values[index].hex() for index in quote.pcrs}),
        bound=quote.nonce,
        debug=False,  # a TPM has no such mode; what the machine may do its PCRs say
        root=sha256(root).hexdigest(),
        chip=sha256(public_key).hexdigest(),
        tcb=MappingProxyType(counts),
        expires=expires,
        features=MappingProxyType({"clock_ms": quote.clock_ms, "clock_safe": quote.clock_safe}),
    )
