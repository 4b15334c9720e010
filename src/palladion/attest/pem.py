"""PEM (RFC 7468): certificates, and public keys in their place, as text, read strictly."""

import base64
import binascii
import re

from palladion.errors import FormatError

_BLOCK = re.compile(
    rb"-----BEGIN (CERTIFICATE|PUBLIC KEY)-----\r?\n([A-Za-z0-9+/=\r\n]+?)\r?\n-----END (CERTIFICATE|PUBLIC KEY)-----"
)
_BETWEEN = re.compile(rb"[\r\n]*(\x00(?![\s\S]))?")  # Intel's chains end with a zero byte


def certificates_of(data: bytes, *, what: str, most: int, keys: bool = False) -> tuple[bytes, ...]:
    """The certificates of a PEM text in DER, in order: one to `most`, with nothing but line breaks between them.

    With `keys`, public keys (SubjectPublicKeyInfo) may stand among them. Raises FormatError.
    """
    accepted = (b"CERTIFICATE", b"PUBLIC KEY") if keys else (b"CERTIFICATE",)
    found: list[bytes] = []
    offset = 0
    while offset < len(data):
        between = _BETWEEN.match(data, offset)
        offset = between.end() if between else offset
        if offset == len(data):
            break
        block = _BLOCK.match(data, offset)
        if block is None or len(found) == most or block.group(1) != block.group(3) or block.group(1) not in accepted:
            raise FormatError(f"{what} is not PEM text of one to {most} certificates")
        text = re.sub(rb"[\r\n]", b"", block.group(2))
        try:
            found.append(base64.b64decode(text, validate=True))
        except binascii.Error:
            raise FormatError(f"{what} is not PEM text: a certificate in it is not base64") from None
        if base64.b64encode(found[-1]) != text:  # the last character can hold bits that nobody reads
            raise FormatError(f"{what} is not PEM text: a certificate in it is base64 in a form that is not its own")
        offset = block.end()
    if not found:
        raise FormatError(f"{what} holds no certificate in PEM")
    return tuple(found)
