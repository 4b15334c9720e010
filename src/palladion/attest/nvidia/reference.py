"""NVIDIA's reference values (RIM: a SWID tag of ISO 19770-2, signed as XML): which measurements a version has.

Verified here: the signature over the whole document, by a chain that ends in NVIDIA's root for reference values. That
is another root than the GPUs' own: nobody who has taken a key out of a GPU can say what its firmware should measure.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from hashlib import sha256, sha384
from importlib import resources
from types import MappingProxyType

from cryptography.hazmat.primitives.hashes import SHA384

from palladion.attest.chains import refuse, verify_chain
from palladion.attest.evidence import CERTIFICATES_MAX
from palladion.attest.nvidia.canonical_xml import Element, canonical, parse
from palladion.attest.nvidia.report import BLOCKS_MAX, VALUE_BYTES
from palladion.attest.pem import certificates_of
from palladion.attest.signature import Scheme, ecdsa_der, holds
from palladion.errors import FormatError

ALTERNATIVES_MAX = 16  # 4 were seen
_SWID = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
_SIGNATURE = "http://www.w3.org/2000/09/xmldsig#"
_SHA384 = "http://www.w3.org/2001/04/xmlenc#sha384"
_C14N = "http://www.w3.org/2006/12/xml-c14n11"
_INDEX = re.compile(r"[0-9]{1,3}")
_DIGEST = re.compile(rf"[0-9a-f]{{{2 * VALUE_BYTES}}}")


@dataclass(frozen=True)
class Reference:
    """Reference values of one version of a driver or VBIOS: accepted digests by SPDM index, and the document's own.

    `expires` is when the first certificate under the document does.
    """

    version: str
    values: Mapping[int, tuple[bytes, ...]]
    digest: str
    expires: datetime


@cache
def reference_roots() -> tuple[bytes, ...]:
    """NVIDIA's root for reference values."""
    pem = (resources.files("palladion.attest.nvidia") / "reference_root.pem").read_bytes()
    return certificates_of(pem, what="NVIDIA's root for reference values", most=1)


def read_reference(data: bytes, *, at: datetime, roots: Sequence[bytes], what: str) -> Reference:
    """The reference values in a document that NVIDIA signed. Raises AttestationError."""
    try:
        root = parse(data, what=what)
        signature = _signature(root, what)
        expires = _verify(root, signature, at=at, roots=roots, what=what)
        return Reference(_version(root, what), _values(root, what), sha256(data).hexdigest(), expires)
    except FormatError as error:
        refuse("malformed", error.message)


def _signature(root: Element, what: str) -> Element:
    if root.tag != (_SWID, "SoftwareIdentity"):
        raise FormatError(f"{what} is no software identity")
    found = [child for child in root.elements() if child.tag == (_SIGNATURE, "Signature")]
    if len(found) != 1 or found[0] is not root.elements()[-1]:
        raise FormatError(f"{what} has {len(found)} signatures at its end, expected one")
    return found[0]


def _verify(root: Element, signature: Element, *, at: datetime, roots: Sequence[bytes], what: str) -> datetime:
    """XML Signature 1.1 with exactly NVIDIA's choices: one reference, to the whole document, enveloped.

    Returns until when its certificates are valid.
    """
    info, value, keys = _expect(signature, "SignedInfo", "SignatureValue", "KeyInfo", what=what)
    method, algorithm, reference = _expect(info, "CanonicalizationMethod", "SignatureMethod", "Reference", what=what)
    transforms, digest_method, digest = _expect(reference, "Transforms", "DigestMethod", "DigestValue", what=what)
    enveloped, whole = _expect(transforms, "Transform", "Transform", what=what)
    chosen = [_algorithm(one) for one in (method, algorithm, enveloped, whole, digest_method)]
    if reference.resolved() != {("", "URI"): ""} or chosen != [
        _C14N,
        "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384",
        f"{_SIGNATURE}enveloped-signature",
        _C14N,
        "http://www.w3.org/2001/04/xmldsig-more#sha384",
    ]:
        raise FormatError(f"{what} is signed in a way that is not read here")
    (certificates,) = _expect(keys, "X509Data", what=what)
    if not 0 < len(certificates.elements()) <= CERTIFICATES_MAX:
        raise FormatError(f"{what} has no chain of certificates")
    path = verify_chain([_base64(one.text, what) for one in certificates.elements()], roots=roots, at=at)
    if path[0].authority:
        refuse("chain", f"{what} is signed by an authority")
    if not hmac.compare_digest(sha384(canonical(root, without=signature)).digest(), _base64(digest.text, what)):
        refuse("signature", f"{what} is not what was signed")
    numbers = _base64(value.text, what)
    half = len(numbers) // 2
    if len(numbers) != 2 * VALUE_BYTES or not holds(
        Scheme(SHA384), path[0].public_key, ecdsa_der(numbers[:half], numbers[half:]), canonical(info)
    ):
        refuse("signature", f"the signature under {what} does not hold")
    return min(one.not_after for one in path)


def _expect(element: Element, *names: str, what: str) -> list[Element]:
    children = element.elements()
    if [child.tag for child in children] != [(_SIGNATURE, name) for name in names]:
        raise FormatError(f"{what} has a signature with other parts than {', '.join(names)}")
    return children


def _algorithm(element: Element) -> str:
    return element.resolved().get(("", "Algorithm"), "") if len(element.resolved()) == 1 else ""


def _version(root: Element, what: str) -> str:
    metas = [child for child in root.elements() if child.tag == (_SWID, "Meta")]
    if len(metas) != 1:
        raise FormatError(f"{what} describes {len(metas)} versions, expected one")
    return metas[0].resolved().get(("", "colloquialVersion"), "")


def _values(root: Element, what: str) -> Mapping[int, tuple[bytes, ...]]:
    payloads = [child for child in root.elements() if child.tag == (_SWID, "Payload")]
    if len(payloads) != 1:
        raise FormatError(f"{what} has {len(payloads)} payloads, expected one")
    found: dict[int, tuple[bytes, ...]] = {}
    seen = set()
    for resource in payloads[0].elements():
        attributes = resource.resolved()
        index = attributes.get(("", "index"), "")
        alternatives = attributes.get(("", "alternatives"), "")
        if resource.tag != (_SWID, "Resource") or not _INDEX.fullmatch(index) or not _INDEX.fullmatch(alternatives):
            raise FormatError(f"{what} has a reference value that is broken")
        if int(index) >= BLOCKS_MAX or index in seen or not 0 < int(alternatives) <= ALTERNATIVES_MAX:
            raise FormatError(f"{what} has reference value {index} twice, or of a number that there is not")
        seen.add(index)
        if attributes.get(("", "active")) == "True":
            # its numbers begin with 0, SPDM's with 1
            found[int(index) + 1] = tuple(_digest(attributes, n, what) for n in range(int(alternatives)))
    if not found:
        raise FormatError(f"{what} has no reference value")
    return MappingProxyType(found)


def _digest(attributes: Mapping[tuple[str, str], str], number: int, what: str) -> bytes:
    text = attributes.get((_SHA384, f"Hash{number}"), "").lower()
    if attributes.get(("", "size")) != str(VALUE_BYTES) or not _DIGEST.fullmatch(text):
        raise FormatError(f"{what} has a reference value that is no SHA-384 digest")
    return bytes.fromhex(text)


def _base64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(re.sub(r"[ \t\r\n]", "", text), validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(f"{what} has a part that is not base64") from None
