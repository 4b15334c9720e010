"""The header `x-forwarded-client-cert`, by which Envoy tells of its client's certificate. Pure; whom to believe is not.

Source: Envoy's documentation, "x-forwarded-client-cert" (HTTP connection manager, headers), and the order in which
its source writes the fields: By, Hash, Cert, Chain, Subject, URI, DNS.
"""

import re
from base64 import b64decode
from urllib.parse import unquote_to_bytes

from palladion.access.certificates import CERTIFICATE_BYTES_MAX, Certificate, parse_spiffe_id, read_certificate
from palladion.errors import FormatError

HEADER_BYTES_MAX = 24 * 1024  # with a certificate in it, some 3 KiB; a head has at most 32
PAIRS_MAX = 64  # a certificate with more names is none of a client's
_ORDER = {"by": 0, "hash": 1, "cert": 2, "chain": 3, "subject": 4, "uri": 5, "dns": 6}
_SEVERAL = {"by", "uri", "dns"}
# A Subject is quoted as RFC 2253 writes it: a backslash stands before commas, quotes and the hexadecimal of a byte.
_PAIR = re.compile(r'(?P<key>[A-Za-z]{2,8})=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^",;=]*))')
_HASH = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_PEM = re.compile(rb"\s*-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*")


def read_forwarded(header: bytes) -> Certificate:
    """The one certificate that the header describes. Raises FormatError.

    Only one: a second element is what somebody before the proxy has said, or what a client has smuggled into a name
    of its certificate, because Envoy does not escape those. With `Cert` in it, everything is read from the certificate
    itself; without, a name that would be written after another one's field is refused by the order of the fields.
    """
    if len(header) > HEADER_BYTES_MAX:
        raise FormatError(f"it has {len(header)} bytes, at most {HEADER_BYTES_MAX} were expected")
    fields = _fields(header)
    fingerprint = fields.get("hash", [""])[0]
    if not _HASH.fullmatch(fingerprint):
        raise FormatError("it has no Hash of 64 hexadecimal digits")
    fingerprint = fingerprint.lower()
    if "cert" in fields:
        certificate = read_certificate(_der(fields["cert"][0]))
        if certificate.fingerprint != fingerprint:
            raise FormatError("its Hash is not that of its Cert")
        return certificate
    # as in a certificate itself: exactly one, empty ones counted, since a name `;URI=spiffe:…` begins with such a one
    uris = fields.get("uri", [])
    try:
        spiffe = parse_spiffe_id(uris[0]) if len(uris) == 1 else None
    except ValueError:
        spiffe = None
    return Certificate(fingerprint, spiffe)


def _fields(header: bytes) -> dict[str, list[str]]:
    try:
        text = header.decode("ascii")
    except UnicodeDecodeError:
        raise FormatError("it is not ASCII") from None
    fields: dict[str, list[str]] = {}
    place, last = 0, -1
    for _ in range(PAIRS_MAX):
        found = _PAIR.match(text, place)
        if found is None:
            raise FormatError(f"no field and value at character {place}")
        key = found["key"].lower()
        if key not in _ORDER:
            raise FormatError("it has a field that is not one of By, Hash, Cert, Chain, Subject, URI and DNS")
        if _ORDER[key] < last or (key in fields and key not in _SEVERAL):
            raise FormatError("its fields come twice, or not in the order in which Envoy writes them")
        last = _ORDER[key]
        value = found["plain"] if found["quoted"] is None else re.sub(r"\\([\"\\])", r"\1", found["quoted"])
        fields.setdefault(key, []).append(value)
        place = found.end()
        if place == len(text):
            return fields
        if text[place] == ",":
            raise FormatError("it describes more than one certificate: let the proxy set it, not append to it")
        if text[place] != ";":
            raise FormatError(f"neither ';' nor the end at character {place}")
        place += 1
    raise FormatError(f"it has more than {PAIRS_MAX} fields")


def _der(value: str) -> bytes:
    found = _PEM.fullmatch(unquote_to_bytes(value))
    if found is None or len(found[1]) > 2 * CERTIFICATE_BYTES_MAX:
        raise FormatError("its Cert is no certificate in PEM, URL-encoded")
    try:
        return b64decode(b"".join(found[1].split()), validate=True)
    except ValueError:
        raise FormatError("its Cert is no certificate in PEM, URL-encoded") from None
