"""What the key services share: the envelope around the key that they wrap, limits on time, quiet logs, plain refusals.

The secret never leaves this process: a service wraps a fresh key in its place, and the secret is encrypted here under
that key and the context (docs/format.md §7).
"""

import hmac
import ipaddress
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from palladion.errors import FormatError, KeysError, StorageError

SECRET_BYTES = 32  # a file key, or the key of a keyring file
KEY_BYTES = 32
WRAPPED_KEY_BYTES_MAX = 6144  # AWS KMS's own limit for a ciphertext; the others stay below 1 KiB
_COMMITMENT_BYTES = 32
_FRONT_BYTES = _COMMITMENT_BYTES + SECRET_BYTES + 16
_NONCE = bytes(12)  # the key is used once: it is fresh for every wrap
Answer = TypeVar("Answer")
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True)
class Limits:
    """How long a service is waited for: at most `attempts` × (connect + read), and the pauses between."""

    connect_seconds: float
    read_seconds: float
    attempts: int
    pause_seconds: float  # before the second attempt; twice that before the third


# A wrap is answered in tens of milliseconds. Ten seconds is what a service under load may take, and three attempts
# outlast a fail-over; a host that waits longer than a minute for its key had better say so.
LIMITS = Limits(connect_seconds=5, read_seconds=10, attempts=3, pause_seconds=0.25)


@dataclass(frozen=True)
class Envelope:
    """A blob: the secret encrypted under a fresh key, a commitment to that key, and the key as a service wrapped it."""

    front: bytes = field(repr=False)
    wrapped_key: bytes = field(repr=False)

    @classmethod
    def enclose(cls, secret: bytes, context: bytes, wrap_key: Callable[[bytes], bytes]) -> Self:
        """Encrypt `secret` under a fresh key, bound to `context`; `wrap_key` has a service wrap that key."""
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a secret of {len(secret)} bytes, expected {SECRET_BYTES}")
        key = secrets.token_bytes(KEY_BYTES)
        encryption_key, commitment = _derive(key, context)
        return cls(commitment + AESGCM(encryption_key).encrypt(_NONCE, secret, context), wrap_key(key))

    @classmethod
    def decode(cls, blob: bytes, *, kind: str) -> Self:
        """The envelope of a wrap's blob. Raises FormatError before any service is asked."""
        if not 0 < len(blob) - _FRONT_BYTES <= WRAPPED_KEY_BYTES_MAX:
            raise FormatError(
                f"a wrap of kind {kind} has {len(blob)} bytes, expected {_FRONT_BYTES + 1} to "
                f"{_FRONT_BYTES + WRAPPED_KEY_BYTES_MAX}"
            )
        return cls(blob[:_FRONT_BYTES], blob[_FRONT_BYTES:])

    def encode(self) -> bytes:
        """The blob."""
        return self.front + self.wrapped_key

    def renewed(self, wrapped_key: bytes) -> Self:
        """The same envelope with its key as the service wraps it now."""
        return replace(self, wrapped_key=wrapped_key)

    def open(self, key: bytes, context: bytes, *, key_id: str) -> bytes:
        """The secret, by the key that the service unwrapped. Raises KeysError if that is another one."""
        encryption_key, commitment = _derive(key, context) if len(key) == KEY_BYTES else (b"", b"")
        # whatever a service takes for a valid ciphertext, only the key that this wrap was made with goes further
        if not hmac.compare_digest(commitment, self.front[:_COMMITMENT_BYTES]):
            raise KeysError(
                f"the wrap for {key_id} does not open: it is damaged, or moved here from another file",
                "restore the file from a backup, or open it with another recipient's identity",
            )
        try:
            return AESGCM(encryption_key).decrypt(_NONCE, self.front[_COMMITMENT_BYTES:], context)
        except InvalidTag:
            raise KeysError(f"the wrap for {key_id} fits its key, but is damaged") from None


def ask(call: Callable[[], Answer], limits: Limits) -> Answer:
    """What `call` returns; it is tried again, a limited number of times, while it raises StorageError."""
    for attempt in range(limits.attempts - 1):
        try:
            return call()
        except StorageError:
            time.sleep(limits.pause_seconds * 2**attempt)
    return call()


@contextmanager
def quiet(library: str) -> Iterator[None]:
    """Keep out of the logs, meanwhile, what `library` logs below INFO: at DEBUG, bodies and so keys."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and (name == library or name.startswith(f"{library}.")):
            logger.addFilter(_drop_secret_records)  # adding it twice changes nothing
    token = _secrets_in_flight.set(True)
    try:
        yield
    finally:
        _secrets_in_flight.reset(token)


def is_confidential(url: str) -> bool:
    """Whether a key may be sent to `url`: TLS, or plain HTTP that does not leave this machine."""
    parts = urlsplit(url)
    if parts.scheme != "http":
        return parts.scheme == "https"
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname == "localhost"


def refused(service: str, action: str, key_id: str, code: object, *hints: str) -> KeysError:
    """The error for a service that understood and said no. `code` is shown if it is a short word."""
    return KeysError(f"{service} refuses to {action} with {key_id}: {_word(code)}", *hints)


def unavailable(service: str, key_id: str, code: object) -> StorageError:
    """The error for a service that gave no usable answer."""
    return StorageError(
        f"{service} gives no usable answer for {key_id}: {_word(code)}",
        "check the network, proxies and the service's own status; nothing was changed, so try again",
    )


def _derive(key: bytes, context: bytes) -> tuple[bytes, bytes]:
    info = b"palladion/v1/key-service" + context
    derived = HKDFExpand(SHA384(), KEY_BYTES + _COMMITMENT_BYTES, info).derive(key)
    return derived[:KEY_BYTES], derived[KEY_BYTES:]


def _word(code: object) -> str:
    # what a service says of an error may quote the request, and a stranger in between may say anything
    return code if isinstance(code, str) and _CODE.fullmatch(code) else "no reason that could be shown"


_secrets_in_flight: ContextVar[bool] = ContextVar("palladion_secrets_in_flight", default=False)


def _drop_secret_records(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.INFO or not _secrets_in_flight.get()
