"""What SEAL is let to parse: ciphertexts and keys of this program's parameters, all but the polynomials."""

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.private.homomorphic.client import HEClient
from palladion.private.homomorphic.forms import Forms
from tests.private.homomorphic.programs import needs_seal, program


@pytest.fixture(scope="module")
def client() -> HEClient:
    needs_seal()
    return HEClient(program((6, 3)).bundle)


@pytest.fixture(scope="module")
def forms(client: HEClient) -> Forms:
    return Forms(client.bundle)


def test_keys_and_ciphertexts_of_a_client_are_of_the_form(client: HEClient, forms: Forms) -> None:
    forms.check_keys(*client.evaluation_keys)
    forms.ciphertext.check(client.encrypt(np.zeros((1, 6)))[0], what="a ciphertext")


def test_a_bit_of_what_is_no_polynomial_is_refused(client: HEClient, forms: Forms) -> None:
    (data,) = client.encrypt(np.zeros((1, 6)))
    rotation, squares = client.evaluation_keys
    for place in (0, 5, 20, 60, 112):
        broken = bytearray(data)
        broken[place] ^= 1
        with pytest.raises(FormatError, match="parameters"):
            forms.ciphertext.check(bytes(broken), what="a ciphertext")
    for offset, piece in forms.rotation.fixed:
        for place in {offset, offset + len(piece) - 1}:
            broken = bytearray(rotation)
            broken[place] ^= 0x80
            with pytest.raises(FormatError, match="parameters"):
                forms.check_keys(bytes(broken), squares)


def test_other_lengths_and_other_rotations_are_refused(client: HEClient, forms: Forms) -> None:
    rotation, squares = client.evaluation_keys
    with pytest.raises(FormatError, match="expected"):
        forms.check_keys(rotation + b"\0", squares)
    with pytest.raises(FormatError, match="expected"):
        forms.check_keys(rotation, b"x")
    other = HEClient(program((6, 3), copies=2).bundle)
    with pytest.raises(FormatError):
        forms.check_keys(*other.evaluation_keys)
