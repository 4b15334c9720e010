"""Wrapping to a passphrase: Argon2id (RFC 9106), HKDF, AES-256-GCM and a key commitment (docs/format.md §7).

Owns the cost of a guess and the limits on what a stranger's file may make us spend.
"""

import hmac
import secrets
import unicodedata
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from palladion.errors import FormatError, KeysError
from palladion.keys import Wrap

KIND = "passphrase"
PASSPHRASE_BYTES_MAX = 1024  # a sentence has 100
_KEY_ID = "passphrase"  # a passphrase has no public name, and a hash of it would be a free guess
_SALT_BYTES = 32
_COMMITMENT_BYTES = 32
_TAG_BYTES = 16
_NONCE = bytes(12)  # the key is used once: it comes from a fresh salt

MEMORY_KIB_MAX = 1024 * 1024  # 1 GiB: more would let a file push the process out of memory
ITERATIONS_MAX = 16
LANES_MAX = 16
WORK_KIB_MAX = 4 * 1024 * 1024  # memory × iterations; about 5 s on one core of 2024


@dataclass(frozen=True)
class Cost:
    """What one guess of the passphrase costs: Argon2id memory in KiB, passes and lanes."""

    memory_kib: int
    iterations: int
    lanes: int

    def check(self) -> None:
        """Raise ValueError beyond the limits, which hold for reading and writing alike."""
        if not 1 <= self.lanes <= LANES_MAX:
            raise ValueError(f"Argon2id with {self.lanes} lanes, expected 1 to {LANES_MAX}")
        # RFC 9106 §3.1: at least eight blocks a lane
        if not 8 * self.lanes <= self.memory_kib <= MEMORY_KIB_MAX:
            raise ValueError(f"Argon2id with {self.memory_kib} KiB, expected {8 * self.lanes} to {MEMORY_KIB_MAX}")
        if not 1 <= self.iterations <= ITERATIONS_MAX:
            raise ValueError(f"Argon2id with {self.iterations} passes, expected 1 to {ITERATIONS_MAX}")
        if self.memory_kib * self.iterations > WORK_KIB_MAX:
            raise ValueError(f"Argon2id over {self.memory_kib * self.iterations} KiB in all, at most {WORK_KIB_MAX}")


# Four times the memory of RFC 9106's second recommended option (64 MiB, 3 passes, 4 lanes): a sealed file is open to
# guessing for ever, and memory is what a graphics card runs out of first. 0.7 s on one core of 2024.
DEFAULT_COST = Cost(memory_kib=256 * 1024, iterations=3, lanes=4)


class PassphraseRecipient:
    """Wraps to whoever knows a passphrase. A sealed file has one at most."""

    kind = KIND
    key_id = _KEY_ID

    def __init__(self, passphrase: str, *, cost: Cost = DEFAULT_COST) -> None:
        cost.check()
        self._passphrase = _prepared(passphrase)
        self._cost = cost

    def __repr__(self) -> str:
        return "<PassphraseRecipient>"

    def wrap(self, secret: bytes, context: bytes) -> Wrap:
        """Encrypt `secret`, bound to `context`. Takes about a second at the default cost."""
        salt = secrets.token_bytes(_SALT_BYTES)
        key, commitment = _keys(self._passphrase, salt, self._cost, context)
        parameters: dict[str, str | int] = {
            "iterations": self._cost.iterations,
            "lanes": self._cost.lanes,
            "memory_kib": self._cost.memory_kib,
            "salt": salt.hex(),
        }
        return Wrap(KIND, _KEY_ID, parameters, commitment + AESGCM(key).encrypt(_NONCE, secret, context))


class PassphraseIdentity:
    """Unwraps with a passphrase. It never prints it."""

    def __init__(self, passphrase: str) -> None:
        self._passphrase = _prepared(passphrase)

    def __repr__(self) -> str:
        return "<PassphraseIdentity>"

    def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None:
        """The secret, or None if the wrap is not for a passphrase.

        Raises KeysError if the passphrase is wrong, FormatError, before spending anything, if the wrap asks too much.
        """
        if (wrap.kind, wrap.key_id) != (KIND, _KEY_ID):
            return None
        salt, cost = _parameters(wrap)
        if len(wrap.blob) < _COMMITMENT_BYTES + _TAG_BYTES:
            raise FormatError(f"a passphrase wrap of {len(wrap.blob)} bytes is too short")
        key, commitment = _keys(self._passphrase, salt, cost, context)
        # AES-GCM alone commits to no key: one blob could test many passphrases at once (partitioning oracle,
        # Len, Grubbs, Ristenpart 2021)
        if not hmac.compare_digest(commitment, wrap.blob[:_COMMITMENT_BYTES]):
            raise KeysError("the passphrase does not open this: it is another one, or the wrap is of another file")
        try:
            return AESGCM(key).decrypt(_NONCE, wrap.blob[_COMMITMENT_BYTES:], context)
        except InvalidTag:
            raise KeysError("the passphrase fits, but its wrap is damaged") from None


def _parameters(wrap: Wrap) -> tuple[bytes, Cost]:
    match wrap.parameters:
        case {"salt": str(text), "memory_kib": int(memory_kib), "iterations": int(iterations), "lanes": int(lanes)}:
            cost = Cost(memory_kib, iterations, lanes)
        case _:
            raise FormatError("a passphrase wrap lacks parameters, or has some of another type")
    try:
        cost.check()
        salt = bytes.fromhex(text)
    except ValueError as error:
        raise FormatError(f"a passphrase wrap is refused before it is tried: {error}") from None
    if len(wrap.parameters) != 4 or len(salt) != _SALT_BYTES or salt.hex() != text:
        raise FormatError("a passphrase wrap has unknown parameters, or a salt that is not 32 bytes in hex")
    return salt, cost


def _keys(passphrase: bytes, salt: bytes, cost: Cost, context: bytes) -> tuple[bytes, bytes]:
    stretched = Argon2id(
        salt=salt, length=32, iterations=cost.iterations, lanes=cost.lanes, memory_cost=cost.memory_kib
    ).derive(passphrase)
    info = b"palladion/v1/passphrase" + context
    derived = HKDFExpand(SHA384(), 32 + _COMMITMENT_BYTES, info).derive(stretched)
    return derived[:32], derived[32:]


def _prepared(passphrase: str) -> bytes:
    # NFC: the same letters typed on another system give other code points
    try:
        prepared = unicodedata.normalize("NFC", passphrase).encode()
    except UnicodeEncodeError:
        # the error would carry the passphrase
        raise ValueError("a passphrase that is not valid Unicode") from None
    if not 0 < len(prepared) <= PASSPHRASE_BYTES_MAX:
        raise ValueError(f"a passphrase of {len(prepared)} bytes, expected 1 to {PASSPHRASE_BYTES_MAX}")
    return prepared
