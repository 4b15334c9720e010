"""The public area of a TPM's key: one shape is read."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.seal.recipients.tpm_public import TpmPublic, compressed, template
from tests.seal.recipients.tpm_vectors import PUBLIC


@given(st.binary(max_size=140))
def test_noise_is_no_key(data: bytes) -> None:
    for given_bytes in (data, PUBLIC[:18] + data):
        try:
            found = TpmPublic.parse(given_bytes)
        except FormatError:
            continue
        assert found.data == given_bytes


@pytest.mark.parametrize(
    "data",
    [
        b"", PUBLIC[:-1], PUBLIC + b"\0", b"\0\1" + PUBLIC[2:], PUBLIC[:2] + b"\0\x0c" + PUBLIC[4:], bytes(300),
        PUBLIC[:4] + bytes(4) + PUBLIC[8:], PUBLIC[:4] + b"\0\3\4\x72" + PUBLIC[8:], PUBLIC[:8] + b"\0\x14",
        PUBLIC[:16] + b"\0\4" + PUBLIC[18:], PUBLIC[:-1] + bytes([PUBLIC[-1] ^ 1]), PUBLIC[:18] + b"\0\0" + PUBLIC[20:],
    ],
)  # fmt: skip
def test_keys_of_another_shape_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="the TPM's key"):
        TpmPublic.parse(data)


def test_coordinates_without_leading_zeros_are_read() -> None:
    """TPMs may leave them out; one key of 256 has some."""
    keys = (derive_private_key(number, SECP256R1()).public_key() for number in range(1, 2000))
    key = next(key for key in keys if key.public_numbers().x >> 248 == 0)
    x, y = key.public_numbers().x.to_bytes(31, "big"), key.public_numbers().y.to_bytes(32, "big")
    front = template(policy=b"", pin=False)[:-4]
    found = TpmPublic.parse(front + b"\0\x1f" + x + b"\0\x20" + y)
    assert found.point == compressed(key) == TpmPublic.parse(front + b"\0\x20\0" + x + b"\0\x20" + y).point
