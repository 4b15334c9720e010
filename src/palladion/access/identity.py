"""API keys of clients: made, parsed, hashed and compared. Pure; where hashes are kept is the caller's affair.

A key reads `pall_<environment>_<random><checksum>`. The fixed beginning lets secret scanners find leaked keys, and the
checksum lets them, and us, tell a key from a typing error without asking anybody (the design of GitHub's tokens,
github.blog/2021-04-05-behind-githubs-new-authentication-token-formats).
"""

import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from zlib import crc32

from palladion.errors import KeysError

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
RANDOM_CHARACTERS = 28
SHOWN_CHARACTERS = 6  # of the random ones; the 22 that stay secret hold 131 bits
CHECKSUM_CHARACTERS = 6  # 62^6 > 2^32
ENVIRONMENT_CHARACTERS_MAX = 16
KEY_CHARACTERS_MAX = len("pall__") + ENVIRONMENT_CHARACTERS_MAX + RANDOM_CHARACTERS + CHECKSUM_CHARACTERS
PEPPER_BYTES = 32
HASH_BYTES = 32

_ENVIRONMENT = re.compile(rf"[a-z0-9]{{1,{ENVIRONMENT_CHARACTERS_MAX}}}", re.ASCII)
_KEY = re.compile(
    rf"pall_(?P<environment>{_ENVIRONMENT.pattern})_"
    rf"(?P<random>[0-9A-Za-z]{{{RANDOM_CHARACTERS}}})(?P<checksum>[0-9A-Za-z]{{{CHECKSUM_CHARACTERS}}})",
    re.ASCII,
)
_PERSON = b"pall/client-key"  # BLAKE2's personalisation (RFC 7693 §2.5): no other use of the pepper gives these hashes


# eq=False: comparing two keys with == would take a time that tells how much of them agrees
@dataclass(frozen=True, eq=False)
class ApiKey:
    """An API key. It never prints itself; `text` is for the client's eyes, once."""

    environment: str
    text: str = field(repr=False)


def new_api_key(environment: str) -> ApiKey:
    """A fresh key for an environment such as `live` or `test`. Raises ValueError on a name that cannot be in a key."""
    if not _ENVIRONMENT.fullmatch(environment):
        raise ValueError(f"environment {environment!r}: 1 to {ENVIRONMENT_CHARACTERS_MAX} of a-z and 0-9 were expected")
    body = f"pall_{environment}_" + "".join(secrets.choice(BASE62) for _ in range(RANDOM_CHARACTERS))
    return ApiKey(environment, body + _checksum(body))


def parse_api_key(text: str) -> ApiKey:
    """The key that `text` is. Raises KeysError if it is none or has a typing error, without repeating any of it."""
    if len(text) > KEY_CHARACTERS_MAX:
        raise KeysError(f"the API key has {len(text)} characters, at most {KEY_CHARACTERS_MAX} were expected")
    found = _KEY.fullmatch(text)
    if found is None:
        raise KeysError(
            "this is not an API key: pall_, an environment, _ and "
            f"{RANDOM_CHARACTERS + CHECKSUM_CHARACTERS} letters and digits were expected",
            "copy the whole key, without spaces or quotes",
        )
    # not in constant time: the checksum can be computed from the rest by anybody, and protects nothing
    if _checksum(text[:-CHECKSUM_CHARACTERS]) != found["checksum"]:
        raise KeysError("the API key has a typing error: its checksum does not fit", "copy the whole key again")
    return ApiKey(found["environment"], text)


def key_prefix(key: ApiKey) -> str:
    """What may be shown and logged: the environment and the first random characters."""
    return key.text[: len(f"pall_{key.environment}_") + SHOWN_CHARACTERS]


def hash_api_key(pepper: bytes, key: ApiKey) -> bytes:
    """What is kept of a key: BLAKE2b-256 keyed with the pepper (RFC 7693 §2.9), 32 bytes.

    No slow password hash: there is nothing to guess in 131 random bits.
    """
    if len(pepper) != PEPPER_BYTES:
        raise ValueError(f"the pepper has {len(pepper)} bytes, expected {PEPPER_BYTES}")
    return blake2b(key.text.encode("ascii"), digest_size=HASH_BYTES, key=pepper, person=_PERSON).digest()


def key_hasher(pepper: bytes) -> Callable[[bytes], bytes]:
    """`hash_api_key` for whoever hashes many, of texts that need not be keys: a third of its cost."""
    if len(pepper) != PEPPER_BYTES:
        raise ValueError(f"the pepper has {len(pepper)} bytes, expected {PEPPER_BYTES}")
    begun = blake2b(digest_size=HASH_BYTES, key=pepper, person=_PERSON)

    def digest(text: bytes) -> bytes:
        mine = begun.copy()
        mine.update(text)
        return mine.digest()

    return digest


def verify_api_key(pepper: bytes, key: ApiKey, expected: bytes) -> ApiKey:
    """`key` if its hash is `expected`, compared in constant time. Raises KeysError."""
    if not hmac.compare_digest(hash_api_key(pepper, key), expected):
        raise KeysError(f"the API key {key_prefix(key)}… is not the one on record")
    return key


def _checksum(body: str) -> str:
    """CRC-32 (ISO 3309) in base 62, most significant digit first.

    It covers the environment too. One wrong character, or two swapped neighbours, in `body` always change it.
    """
    value, digits = crc32(body.encode("ascii")), ""
    for _ in range(CHECKSUM_CHARACTERS):
        value, digit = divmod(value, len(BASE62))
        digits = BASE62[digit] + digits
    return digits
