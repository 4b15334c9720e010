"""Public keys of an issuer: a JWK set becomes keys that can check what they are for, and nothing else. Pure.

Source: RFC 7517 (JWK), RFC 7518 §6 (RSA, EC), RFC 8037 (Ed25519), RFC 8725 (what goes wrong).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from palladion.access.strict_json import decode_object
from palladion.errors import FormatError
from palladion.keys import ed25519_public_key

SET_BYTES_MAX = 256 * 1024  # the largest known sets (of all tenants of a cloud) have some 30 KiB
KEYS_MAX = 64
KEY_ID_CHARACTERS_MAX = 256
RSA_BITS = range(2048, 8193)  # RFC 7518 §3.3 wants 2048; larger ones than 8192 cost milliseconds a token
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, eq=False)
class VerificationKey:
    """A public key, its id, and the algorithms that its kind can be used with."""

    id: str | None
    algorithms: frozenset[str]
    key: Any = field(repr=False)


def parse_jwks(data: bytes, *, algorithms: Sequence[str]) -> tuple[VerificationKey, ...]:
    """The keys of a set that check one of `algorithms`; others, such as those for encryption, are left out.

    Empty where none is of use: so an issuer takes its keys away. Raises FormatError: what is no set, a set with a
    private or a shared key in it, or two keys of one id.
    """
    if len(data) > SET_BYTES_MAX:
        raise FormatError(f"the JWK set has {len(data)} bytes, at most {SET_BYTES_MAX} were expected")
    entries = decode_object(data, what="the JWK set").get("keys")
    if not isinstance(entries, list) or len(entries) > KEYS_MAX:
        raise FormatError(f"the JWK set has no list of at most {KEYS_MAX} keys")
    keys = [key for entry in entries if (key := _key(entry, frozenset(algorithms))) is not None]
    ids = [key.id for key in keys]
    if len(set(ids)) != len(ids):
        # which of two keys of one id is meant, a reader would have to guess
        raise FormatError("the JWK set has two keys of one id")
    return tuple(keys)


def _key(entry: object, algorithms: frozenset[str]) -> VerificationKey | None:
    if not isinstance(entry, dict):
        raise FormatError("the JWK set has something in it that is no key")
    if _PRIVATE & entry.keys():
        raise FormatError("the JWK set has a secret key in it, which everybody can read then: make new ones")
    usable = algorithms & _algorithms_of(entry)
    said = entry.get("alg")
    if said is not None:
        usable &= {said} if isinstance(said, str) else frozenset()
    operations = entry.get("key_ops", ["verify"])
    if not usable or entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    key_id = entry.get("kid")
    if key_id is not None and not (isinstance(key_id, str) and 0 < len(key_id) <= KEY_ID_CHARACTERS_MAX):
        raise FormatError("the JWK set has a key whose id is no text of usual length")
    return VerificationKey(key_id, usable, _public_key(entry, min(usable)))


def _algorithms_of(entry: dict[str, Any]) -> frozenset[str]:
    """RFC 8725 §3.1: a key is used with algorithms of its own kind only."""
    match entry.get("kty"), entry.get("crv"):
        case "RSA", _:
            return frozenset(_RSA)
        case "EC", str(curve) if curve in _CURVES:
            return frozenset({_CURVES[curve]})
        case "OKP", "Ed25519":
            return frozenset({"EdDSA"})
        case _:
            return frozenset()


def _public_key(entry: dict[str, Any], algorithm: str) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
    from jwt import PyJWK
    from jwt.exceptions import PyJWTError

    try:
        # cryptography refuses points that are not on their curve (RFC 8725 §3.4)
        key = PyJWK({name: entry[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in entry}, algorithm).key
    except (PyJWTError, ValueError, TypeError, AttributeError):
        raise FormatError("the JWK set has a key that is broken") from None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size not in RSA_BITS:
        raise FormatError(f"the JWK set has an RSA key of {key.key_size} bits, 2048 to 8192 were expected")
    if isinstance(key, ed25519.Ed25519PublicKey):
        ed25519_public_key(key.public_bytes_raw(), what="a key of the JWK set")
    return key
