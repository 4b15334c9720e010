"""An issuer of tokens for tests: keys of every kind, sets of them, and tokens right or wrong in one place."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from palladion.policy import IssuerPolicy

NOW = 1_780_000_000.0
URL, AUDIENCE, CLIENT = "https://login.example.com/acme", "https://gate.example.com", "svc-scoring"
POLICY = IssuerPolicy(
    url=URL, audience=AUDIENCE, user_claim="user", algorithms=("RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA")
)
CLAIMS: Mapping[str, Any] = {"iss": URL, "aud": AUDIENCE, "sub": CLIENT, "iat": int(NOW) - 60, "exp": int(NOW) + 600}


@cache
def private_key(algorithm: str, number: int = 0) -> Any:
    """A key for an algorithm; several by number."""
    if algorithm.startswith(("RS", "PS")):
        return rsa.generate_private_key(65537, 2048)
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    return ec.generate_private_key(curves[algorithm])


def jwk(algorithm: str = "ES256", number: int = 0, **members: Any) -> dict[str, Any]:
    """The public key as a JWK; `members` are set, or left out where they are None."""
    made: dict[str, Any] = get_default_algorithms()[algorithm].to_jwk(
        private_key(algorithm, number).public_key(), as_dict=True
    )
    made.pop("key_ops", None)
    made |= {"kid": f"{algorithm}-{number}", "use": "sig", "alg": algorithm} | members
    return {name: value for name, value in made.items() if value is not None}


def jwks(*keys: dict[str, Any]) -> bytes:
    """A set of keys."""
    return json.dumps({"keys": keys or [jwk()]}).encode()


def part(data: bytes) -> bytes:
    """Base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=")


def token(
    algorithm: str = "ES256",
    number: int = 0,
    *,
    header: Mapping[str, Any] | bytes | None = None,
    claims: Mapping[str, Any] | bytes | None = None,
) -> bytes:
    """A signed token; members of `header` and `claims` are changed, or left out where they are None."""
    head = _document({"alg": algorithm, "kid": f"{algorithm}-{number}", "typ": "JWT"}, header)
    signed = part(head) + b"." + part(_document(CLAIMS, claims))
    key = private_key(algorithm, number)
    return signed + b"." + part(get_default_algorithms()[algorithm].sign(signed, key))


def forged(header: Mapping[str, Any], signature: bytes = b"") -> bytes:
    """A token with another header and whatever signature."""
    return (
        part(_document({"typ": "JWT", "kid": "ES256-0"}, header))
        + b"."
        + part(json.dumps(dict(CLAIMS)).encode())
        + (b"." + part(signature))
    )


def signed_by_public_key(algorithm: str = "RS256") -> bytes:
    """The old trick: HMAC with the public key as its secret."""
    pem = (
        private_key(algorithm)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    text = forged({"alg": "HS256", "kid": f"{algorithm}-0"})
    signed = text.rpartition(b".")[0]
    return signed + b"." + part(hmac.digest(pem, signed, hashlib.sha256))


def _document(usual: Mapping[str, Any], changes: Mapping[str, Any] | bytes | None) -> bytes:
    if isinstance(changes, bytes):
        return changes
    members = {**usual, **(changes or {})}
    return json.dumps({name: value for name, value in members.items() if value is not None}).encode()
