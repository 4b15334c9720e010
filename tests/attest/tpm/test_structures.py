"""What TPMs sign and sign with: other structures are refused before anything is verified."""

import pytest

from palladion.attest.tpm.structures import parse_document, parse_signing_key
from palladion.errors import AttestationError
from tests.attest.refusals import refused
from tests.attest.tpm.vectors import QUOTES

DOCUMENT = bytes.fromhex(QUOTES["ecdsa"]["document"])


BODY = 2 + int.from_bytes(DOCUMENT[:2], "big")  # the quote; behind it stands the signature


@pytest.mark.parametrize("size", [0, 1, 2, 100, BODY, BODY + 3, len(DOCUMENT) - 1])
def test_a_document_that_is_cut_off_is_refused(size: int) -> None:
    with refused("malformed"):
        parse_document(DOCUMENT[:size])


def test_bytes_after_the_end_are_refused() -> None:
    with refused("malformed", match="after its end"):
        parse_document(DOCUMENT + b"\0")


def _with(offset: int, data: bytes) -> bytes:
    return DOCUMENT[: 2 + offset] + data + DOCUMENT[2 + offset + len(data) :]


SELECTION = BODY - 2 - 34 - 10  # count, bank, size, three bytes; behind it the digest


@pytest.mark.parametrize(
    ("offset", "data", "match"),
    [
        (0, b"\0\0\0\0", "not made by a TPM"),
        (4, b"\x80\x17", "something else"),
        (SELECTION, b"\0\0\0\2", "SHA-256 bank alone"),
        (SELECTION + 4, b"\0\x04", "SHA-256 bank alone"),
        (SELECTION + 6, b"\0", "SHA-256 bank alone"),
        (SELECTION + 7, b"\0\0\0", "no PCR"),
        (SELECTION + 10, b"\0\x40", "a part of 64 bytes"),
        (6, b"\0\xff", "a part of 255 bytes"),
    ],
)
def test_other_structures_are_refused(offset: int, data: bytes, match: str) -> None:
    with refused("malformed", match=match):
        parse_document(_with(offset, data))


@pytest.mark.parametrize(("scheme", "match"), [(b"\0\x14\0\x04", "hash"), (b"\0\x1b\0\x0b", "way")])
def test_other_signatures_are_refused(scheme: bytes, match: str) -> None:
    with refused("malformed", match=match):
        parse_document(DOCUMENT[:BODY] + scheme + DOCUMENT[BODY + 4 :])


PUBLIC = bytes.fromhex(QUOTES["ecdsa"]["public"])


RSA = bytes.fromhex(QUOTES["rsassa"]["public"])


@pytest.mark.parametrize("bit", [1, 4, 5, 16, 18])
def test_a_key_that_could_sign_anything_or_leave_is_refused(bit: int) -> None:
    attributes = int.from_bytes(PUBLIC[4:8], "big") & ~(1 << bit)
    with refused("feature"):
        parse_signing_key(PUBLIC[:4] + attributes.to_bytes(4, "big") + PUBLIC[8:])
    with refused("feature"):
        parse_signing_key(PUBLIC[:4] + (0x00070472).to_bytes(4, "big") + PUBLIC[8:])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PUBLIC[:-1],
        PUBLIC + b"\0",
        b"\0\x25" + PUBLIC[2:],
        PUBLIC[:2] + b"\0\x0c" + PUBLIC[4:],
        PUBLIC[:10] + b"\0\x06" + PUBLIC[12:],
        PUBLIC[:14] + b"\0\x04" + PUBLIC[16:],
        PUBLIC[:16] + b"\0\x05" + PUBLIC[18:],
        PUBLIC[:-1] + bytes([PUBLIC[-1] ^ 1]),
        RSA[:18] + b"\0\0\0\3" + RSA[22:],
        RSA[:16] + b"\x04\0" + RSA[18:],
        bytes(2000),
    ],
)
def test_keys_of_other_forms_are_refused(data: bytes) -> None:
    with pytest.raises(AttestationError):
        parse_signing_key(data)
