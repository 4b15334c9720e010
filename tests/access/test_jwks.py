"""Sets of keys: what is of use is taken, what is dangerous is refused, the rest is left out."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from palladion.access.jwks import KEYS_MAX, SET_BYTES_MAX, parse_jwks
from palladion.errors import FormatError
from tests.small_order import WEAK

from .issuing import jwk, jwks, part, private_key

ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA")


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_checks_its_own_algorithm(algorithm: str) -> None:
    (key,) = parse_jwks(jwks(jwk(algorithm)), algorithms=ALGORITHMS)
    assert (key.id, set(key.algorithms)) == (f"{algorithm}-0", {algorithm})


def test_a_key_without_alg_checks_what_its_kind_can_and_the_policy_wants() -> None:
    (key,) = parse_jwks(jwks(jwk("RS256", alg=None)), algorithms=("RS256", "PS256", "ES256"))
    assert key.algorithms == {"RS256", "PS256"}


@pytest.mark.parametrize(
    "other",
    [
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"alg": "RSA-OAEP"},
        {"alg": 7},
        {"kty": "oct2"},
        {"crv": "secp256k1"},
    ],
)
def test_a_key_for_something_else_is_left_out(other: dict[str, Any]) -> None:
    found = parse_jwks(jwks(jwk(), jwk(number=1, **other)), algorithms=ALGORITHMS)
    assert [key.id for key in found] == ["ES256-0"]
    assert parse_jwks(jwks(jwk(**other)), algorithms=ALGORITHMS) == ()


def test_a_set_without_keys_is_a_set() -> None:
    assert parse_jwks(b'{"keys":[]}', algorithms=ALGORITHMS) == ()


@pytest.mark.parametrize("member", ["d", "p", "k"])
def test_a_secret_in_the_set_is_no_set(member: str) -> None:
    with pytest.raises(FormatError, match="secret key"):
        parse_jwks(jwks(jwk(), jwk(number=1, **{member: "AAAA"})), algorithms=ALGORITHMS)


def test_two_keys_of_one_id_are_refused() -> None:
    with pytest.raises(FormatError, match="two keys of one id"):
        parse_jwks(jwks(jwk(), jwk(number=1, kid="ES256-0")), algorithms=ALGORITHMS)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({"x": "AAAA"}, "broken", id="a point that is too short"),
        pytest.param({"x": jwk(number=1)["x"]}, "broken", id="RFC 8725 3.4: a point beside the curve"),
        pytest.param({"y": None}, "broken", id="half a point"),
        pytest.param({"x": 7}, "broken", id="a number"),
        pytest.param({"kid": 7}, "id", id="an id that is a number"),
        pytest.param({"kid": ""}, "id", id="an empty id"),
    ],
)
def test_a_broken_key_is_a_sentence(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        parse_jwks(jwks(jwk(**changes)), algorithms=ALGORITHMS)


def test_a_short_rsa_key_is_refused() -> None:
    short = rsa.generate_private_key(65537, 1024).public_key()
    with pytest.raises(FormatError, match="1024 bits"):
        parse_jwks(jwks(RSAAlgorithm.to_jwk(short, as_dict=True)), algorithms=ALGORITHMS)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no keys"),
        pytest.param(b'{"keys":{}}', id="an object of keys"),
        pytest.param(b'{"keys":[1]}', id="a number as key"),
        pytest.param(b'{"keys":[],"keys":[]}', id="twice"),
        pytest.param(json.dumps({"keys": [{"kty": "EC"}] * (KEYS_MAX + 1)}).encode(), id="too many"),
        pytest.param(b" " * (SET_BYTES_MAX + 1), id="too long"),
    ],
)
def test_what_is_no_set_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_jwks(data, algorithms=ALGORITHMS)


def test_a_key_does_not_print_itself() -> None:
    (key,) = parse_jwks(jwks(), algorithms=ALGORITHMS)
    assert str(private_key("ES256").public_key().public_numbers().x) not in repr(key)


@pytest.mark.parametrize("weak", WEAK, ids=["order 1", "order 8"])
def test_a_key_for_which_anybody_can_sign_is_no_set(weak: bytes) -> None:
    with pytest.raises(FormatError, match="a key of the JWK set is no"):
        parse_jwks(jwks(jwk("EdDSA", x=part(weak).decode())), algorithms=ALGORITHMS)
    assert parse_jwks(jwks(jwk("EdDSA")), algorithms=ALGORITHMS)
