"""X.509 certificates of hardware vendors (RFC 5280): bytes in, a checked value out, and whether one signed another.

Reads what chains of such vendors use and refuses the rest. What makes a chain is in chains.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from types import MappingProxyType

from palladion.attest import der
from palladion.attest.evidence import CERTIFICATE_BYTES_MAX
from palladion.attest.signature import Scheme, holds, scheme_of
from palladion.errors import FormatError

_WHAT = "a certificate"
_VERSION, _ISSUER_ID, _SUBJECT_ID, _EXTENSIONS = 0xA0, 0x81, 0x82, 0xA3
_BASIC_CONSTRAINTS, _KEY_USAGE, _EXTENDED_KEY_USAGE, _ALTERNATIVE_NAME = (
    "2.5.29.19",
    "2.5.29.15",
    "2.5.29.37",
    "2.5.29.17",  # critical where the subject is empty, as with certificates of TPMs
)
_UNDERSTOOD = frozenset({_BASIC_CONSTRAINTS, _KEY_USAGE, _EXTENDED_KEY_USAGE, _ALTERNATIVE_NAME})
_KEY_CERT_SIGN, _CRL_SIGN = 5, 6
_COMMON_NAME = "2.5.4.3"
_EXTENSIONS_MAX = 40  # a VCEK has eleven


@dataclass(frozen=True)
class Certificate:
    """A certificate as it stands; its signature is checked by `signed_by` alone. Names are the DER of them."""

    raw: bytes
    tbs: bytes
    serial: int
    issuer: bytes
    subject: bytes
    not_before: datetime
    not_after: datetime
    public_key: bytes  # SubjectPublicKeyInfo in DER
    extensions: Mapping[str, bytes]
    authority: bool
    path_length: int | None
    purposes: frozenset[str]  # extended key usage, by object identifier; empty without one
    may_sign_certificates: bool
    may_sign_lists: bool
    scheme: Scheme
    signature: bytes

    @property
    def name(self) -> str:
        """The common name, for messages: printing characters alone."""
        return common_name(self.subject)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the whole certificate, as hex."""
        return sha256(self.raw).hexdigest()

    def signed_by(self, issuer: "Certificate") -> bool:
        """Whether the key of `issuer` made this certificate's signature; says nothing of whether it may."""
        return holds(self.scheme, issuer.public_key, self.signature, self.tbs)


def parse_certificate(data: bytes) -> Certificate:
    """The certificate that `data` is, in DER. Raises FormatError."""
    if len(data) > CERTIFICATE_BYTES_MAX:
        raise FormatError(f"a certificate of {len(data)} bytes, at most {CERTIFICATE_BYTES_MAX} are read")
    parts = der.children(der.read(data, what=_WHAT), der.SEQUENCE, what=_WHAT)
    if len(parts) != 3:
        der.refuse(_WHAT, f"{len(parts)} parts, 3 were expected")
    tbs, algorithm, signature = parts
    fields = der.children(tbs, der.SEQUENCE, what=_WHAT)
    if not 8 <= len(fields) <= 10 or fields[0].tag != _VERSION:
        der.refuse(_WHAT, "not of version 3")
    version, serial, inner, issuer, validity, subject, key, *rest = fields
    if der.integer(der.read(version.content, what=_WHAT), what=_WHAT) != 2:
        der.refuse(_WHAT, "not of version 3")
    if inner.raw != algorithm.raw:
        der.refuse(_WHAT, "two algorithms of its signature")
    if [node.tag for node in rest] not in (
        [_EXTENSIONS],
        [_SUBJECT_ID, _EXTENSIONS],
        [_ISSUER_ID, _EXTENSIONS],
        [_ISSUER_ID, _SUBJECT_ID, _EXTENSIONS],
    ):
        der.refuse(_WHAT, "parts that version 3 does not have")
    times = der.children(validity, der.SEQUENCE, what=_WHAT)
    if len(times) != 2:
        der.refuse(_WHAT, "no two times")
    extensions = read_extensions(rest[-1].content, understood=_UNDERSTOOD, what=_WHAT)
    authority, path_length = _basic_constraints(extensions.get(_BASIC_CONSTRAINTS))
    usage = extensions.get(_KEY_USAGE)
    usages = None if usage is None else der.flags(der.read(usage, what=_WHAT), what=_WHAT)
    return Certificate(
        raw=data,
        tbs=tbs.raw,
        serial=der.integer(serial, what=_WHAT),
        issuer=_name(issuer),
        subject=_name(subject),
        not_before=der.moment(times[0], what=_WHAT),
        not_after=der.moment(times[1], what=_WHAT),
        public_key=key.raw,
        extensions=extensions,
        authority=authority,
        path_length=path_length,
        purposes=_purposes(extensions.get(_EXTENDED_KEY_USAGE)),
        may_sign_certificates=authority and (usages is None or _KEY_CERT_SIGN in usages),
        may_sign_lists=authority and (usages is None or _CRL_SIGN in usages),
        scheme=scheme_of(algorithm, what=_WHAT),
        signature=der.bits(signature, what=_WHAT),
    )


def read_extensions(content: bytes, *, understood: frozenset[str], what: str) -> Mapping[str, bytes]:
    """Extensions by object identifier. Raises FormatError for one that occurs twice, or is critical and not known."""
    found: dict[str, bytes] = {}
    nodes = der.children(der.read(content, what=what), der.SEQUENCE, what=what)
    if not 0 < len(nodes) <= _EXTENSIONS_MAX:
        der.refuse(what, f"{len(nodes)} extensions, 1 to {_EXTENSIONS_MAX} were expected")
    for node in nodes:
        parts = der.children(node, der.SEQUENCE, what=what)
        if not 2 <= len(parts) <= 3:
            der.refuse(what, "an extension that is broken")
        name, *flag, value = parts
        identifier = der.oid(name, what=what)
        if identifier in found:
            der.refuse(what, f"the extension {identifier} twice")
        # FALSE is the default and should not be written; some makers write it
        if flag and der.boolean(flag[0], what=what) and identifier not in understood:
            der.refuse(what, f"a critical extension that is not known, {identifier}")
        found[identifier] = der.expect(value, der.OCTET_STRING, what=what)
    return MappingProxyType(found)


def common_name(name: bytes) -> str:
    """The common name in a Name in DER; empty without one. Other characters than ASCII's printing ones become `?`."""
    try:
        for one in der.children(der.read(name, what=_WHAT), der.SEQUENCE, what=_WHAT):
            for pair in der.children(one, der.SET, what=_WHAT):
                kind, value = der.children(pair, der.SEQUENCE, what=_WHAT)
                if der.oid(kind, what=_WHAT) == _COMMON_NAME:
                    return "".join(chr(c) if 0x20 <= c < 0x7F else "?" for c in value.content[:64])
    except (FormatError, ValueError):
        return ""
    return ""


def _name(node: der.Node) -> bytes:
    der.expect(node, der.SEQUENCE, what=_WHAT)
    return node.raw


def _purposes(extension: bytes | None) -> frozenset[str]:
    if extension is None:
        return frozenset()
    nodes = der.children(der.read(extension, what=_WHAT), der.SEQUENCE, what=_WHAT)
    return frozenset(der.oid(node, what=_WHAT) for node in nodes)


def _basic_constraints(extension: bytes | None) -> tuple[bool, int | None]:
    """Whether it may be an authority, and of how many more below it."""
    if extension is None:
        return False, None
    parts = der.children(der.read(extension, what=_WHAT), der.SEQUENCE, what=_WHAT)
    authority = False
    if parts and parts[0].tag == der.BOOLEAN:
        authority = der.boolean(parts.pop(0), what=_WHAT)
    length = der.small(parts.pop(0), what=_WHAT, most=255) if parts else None
    if parts or (length is not None and not authority):
        der.refuse(_WHAT, "basic constraints that are broken")
    return authority, length
