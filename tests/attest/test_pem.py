"""PEM: certificates and nothing beside them, in their one form."""

import base64

import pytest

from palladion.attest.pem import certificates_of
from palladion.errors import FormatError


def block(data: bytes, label: str = "CERTIFICATE") -> bytes:
    text = base64.encodebytes(data).decode().strip()
    return f"-----BEGIN {label}-----\n{text}\n-----END {label}-----\n".encode()


def read(data: bytes, *, most: int = 3, keys: bool = False) -> tuple[bytes, ...]:
    return certificates_of(data, what="it", most=most, keys=keys)


def test_certificates_come_in_order_over_several_lines() -> None:
    long = bytes(range(200))

    assert read(block(long) + b"\n" + block(b"two")) == (long, b"two")
    assert read(block(long).replace(b"\n", b"\r\n")) == (long,)


def test_a_zero_at_the_end_is_intels() -> None:
    assert read(block(b"one") + b"\0") == (b"one",)
    with pytest.raises(FormatError):
        read(block(b"one") + b"\0\0")
    with pytest.raises(FormatError):
        read(block(b"one") + b"\0" + block(b"two"))


def test_public_keys_are_read_where_they_may_stand() -> None:
    assert read(block(b"key", "PUBLIC KEY") + block(b"one"), keys=True) == (b"key", b"one")
    with pytest.raises(FormatError):
        read(block(b"key", "PUBLIC KEY"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"text",
        block(b"one") + b"text",
        b"text\n" + block(b"one"),
        block(b"one") + b"\x0b" + block(b"two"),
        block(b"one") + b" " + block(b"two"),
        block(b"x") * 4,
        block(b"one", "PRIVATE KEY"),
        block(b"one").replace(b"END CERTIFICATE", b"END PUBLIC KEY"),
        block(b"A").replace(b"QQ==", b"QR=="),
        block(b"one").replace(b"b25l", b"b25"),
        block(b"one").replace(b"b25l", b"b2=l"),
        block(b"one")[:-20],
    ],
)
def test_everything_else_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        read(data)
