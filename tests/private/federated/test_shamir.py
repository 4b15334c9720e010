"""Shares of a secret: any threshold of them gives it back, fewer could be of any secret, wrong ones are noticed."""

import itertools
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.private.federated.shamir import PRIME, combine, split


@given(st.binary(min_size=32, max_size=32), st.integers(1, 7), st.data())
def test_any_threshold_of_the_shares_gives_the_secret(secret: bytes, holders: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, holders))
    shares = dict(enumerate(split(secret, holders, threshold), 1))
    for chosen in itertools.combinations(shares, threshold):
        assert combine({holder: shares[holder] for holder in chosen}, threshold) == secret
    assert combine(shares, threshold) == secret


def test_fewer_shares_give_nothing() -> None:
    shares = split(bytes(32), 5, 3)
    assert combine({1: shares[0], 2: shares[1]}, 3) is None


def test_fewer_shares_fit_every_secret() -> None:
    one, other = bytes(32), b"\xff" * 32
    share = split(one, 2, 2)[0]
    # the line through this share and any other secret is as likely: shares of both secrets take all values
    slope = (int.from_bytes(share) - int.from_bytes(other)) % PRIME
    second = (int.from_bytes(other) + 2 * slope) % PRIME
    assert combine({1: share, 2: second.to_bytes(33)}, 2) == other


def test_a_wrong_share_among_more_than_needed_is_noticed() -> None:
    shares = dict(enumerate(split(secrets.token_bytes(32), 5, 3), 1))
    shares[4] = (int.from_bytes(shares[4]) ^ 1).to_bytes(33)
    assert combine(shares, 3) is None


def test_a_share_outside_the_field_is_noticed() -> None:
    shares = dict(enumerate(split(bytes(32), 3, 2), 1))
    assert combine({**shares, 3: PRIME.to_bytes(33)}, 2) is None


def test_the_field_is_one() -> None:
    # Fermat's test to a hundred bases, and no smaller number above 2^256 passes it to base 3 (2^256 + 1 does to base 2)
    assert all(pow(base, PRIME - 1, PRIME) == 1 for base in range(2, 102))
    assert not any(pow(3, number - 1, number) == 1 for number in range(2**256 + 1, PRIME, 2))


@pytest.mark.parametrize(("secret", "holders", "threshold"), [(b"short", 3, 2), (bytes(32), 3, 4), (bytes(32), 3, 0)])
def test_what_cannot_be_split_is_a_mistake(secret: bytes, holders: int, threshold: int) -> None:
    with pytest.raises(ValueError, match="secret of 32 bytes"):
        split(secret, holders, threshold)
