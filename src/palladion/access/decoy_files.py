"""What decoys on disk are recognised by: the id of a sealed file that nobody can open, and where it was put. Pure.

Ids are kept as keyed digests and places sealed, under the gate root's "decoys": who has the registry alone learns
neither which files are decoys nor where they lie.
"""

import secrets
from hashlib import blake2b

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from palladion.access.decoys import KEY_BYTES
from palladion.errors import FormatError, TamperError

PLACES_MAX = 16
PLACE_CHARACTERS_MAX = 2048
_MAGIC = b"PDF1"
_NONCE_BYTES = 12
_FILE_PERSON, _PLACE_PERSON = b"pall/decoy-file", b"pall/decoy-plce"


def file_hash(key: bytes, file_id: str) -> bytes:
    """The keyed digest of a sealed file's id, 32 bytes; `key` is the gate root's "decoys"."""
    return blake2b(file_id.encode(), digest_size=32, key=_checked(key), person=_FILE_PERSON).digest()


def seal_places(key: bytes, decoy: str, places: list[str]) -> bytes:
    """The places at which a decoy lies, sealed and bound to it. Raises FormatError on too many or too long ones."""
    if not 0 < len(places) <= PLACES_MAX or any(not 0 < len(place) <= PLACE_CHARACTERS_MAX for place in places):
        raise FormatError(
            f"a decoy lies at 1 to {PLACES_MAX} places, each of at most {PLACE_CHARACTERS_MAX} characters"
        )
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return _MAGIC + nonce + _cipher(key).encrypt(nonce, msgspec.json.encode(places), decoy.encode())


def open_places(key: bytes, decoy: str, data: bytes) -> list[str]:
    """The places that `seal_places` has sealed. Raises FormatError, and TamperError on what was changed or moved."""
    start = len(_MAGIC) + _NONCE_BYTES
    if data[: len(_MAGIC)] != _MAGIC or len(data) < start:
        raise FormatError(f"what is kept of decoy {decoy} is no sealed place")
    try:
        content = _cipher(key).decrypt(data[len(_MAGIC) : start], data[start:], decoy.encode())
    except InvalidTag:
        raise TamperError(f"what is kept of decoy {decoy} was changed, or is of another gate") from None
    return msgspec.json.decode(content, type=list[str])


def _cipher(key: bytes) -> AESGCM:
    return AESGCM(blake2b(digest_size=KEY_BYTES, key=_checked(key), person=_PLACE_PERSON).digest())


def _checked(key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise ValueError(f"the key has {len(key)} bytes, expected {KEY_BYTES}")
    return key
