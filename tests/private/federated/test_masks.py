"""Masks and keys of a round: the two of a pair agree, nobody else does, every use has a key of its own."""

import itertools

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from palladion.errors import TamperError
from palladion.private.federated.masks import (
    Round,
    new_private,
    open_shares,
    own_mask,
    pair_mask,
    public_of,
    seal_shares,
)

AT = Round(bytes(range(32)), 1)
ONE, OTHER = b"\x01" * 32, b"\x02" * 32


def test_both_of_a_pair_have_the_same_mask() -> None:
    mine = pair_mask(ONE, public_of(OTHER), AT, ("a", "b"), 100)
    assert np.array_equal(mine, pair_mask(OTHER, public_of(ONE), AT, ("b", "a"), 100))


def test_a_mask_is_the_key_stream_of_the_whole_key() -> None:
    shared = X25519PrivateKey.from_private_bytes(ONE).exchange(X25519PublicKey.from_public_bytes(public_of(OTHER)))
    info = b"palladion/federated/v1\npair mask\n1\na\nb\n" + AT.terms
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(shared)
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(400))
    assert pair_mask(ONE, public_of(OTHER), AT, ("a", "b"), 100).tobytes() == stream


def test_every_round_session_pair_and_use_has_another_mask() -> None:
    public = public_of(OTHER)
    masks = [
        pair_mask(ONE, public, AT, ("a", "b"), 16),
        pair_mask(ONE, public, Round(AT.terms, 2), ("a", "b"), 16),
        pair_mask(ONE, public, Round(bytes(32), 1), ("a", "b"), 16),
        pair_mask(ONE, public, AT, ("a", "c"), 16),
        own_mask(ONE, AT, "a", 16),
        own_mask(ONE, AT, "b", 16),
        own_mask(ONE, Round(AT.terms, 2), "a", 16),
    ]
    assert not any(np.array_equal(one, other) for one, other in itertools.combinations(masks, 2))


def test_keys_have_all_their_bits() -> None:
    # Flower's had bit 7 of every byte at nought: 28 bits were left of 32. X25519 fixes five bits of 256 (RFC 7748 §5)
    together = np.bitwise_or.reduce([np.frombuffer(new_private(), np.uint8) for _ in range(200)])
    assert int(np.unpackbits(together).sum()) >= 251
    keys = [own_mask(bytes([number]) * 32, AT, "a", 8).tobytes() for number in range(200)]
    assert (np.bitwise_or.reduce([np.frombuffer(key, np.uint8) for key in keys]) == 0xFF).all()


def test_shares_open_for_their_receiver_alone() -> None:
    sealed = seal_shares(ONE, public_of(OTHER), AT, ("a", "b"), b"shares")
    assert open_shares(OTHER, public_of(ONE), AT, ("a", "b"), sealed) == b"shares"
    for private, at, way in (
        (b"\x03" * 32, AT, ("a", "b")),
        (OTHER, Round(AT.terms, 2), ("a", "b")),
        (OTHER, AT, ("b", "a")),
    ):
        with pytest.raises(TamperError, match="do not open"):
            open_shares(private, public_of(ONE), at, way, sealed)


def test_a_key_that_agrees_to_nothing_is_refused() -> None:
    with pytest.raises(TamperError, match="none that anybody could keep a secret with"):
        pair_mask(ONE, bytes(32), AT, ("a", "b"), 4)
