"""What the doubles share: keys with versions and states, who may do what, and every plaintext that was seen."""

import secrets
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.seal.recipients.doubles.loopback import Answer, Loopback, Request


@dataclass
class ServiceKey:
    """A symmetric key: its versions, the oldest first, and which of them may be used."""

    versions: list[bytes] = field(default_factory=lambda: [secrets.token_bytes(32)])
    disabled: set[int] = field(default_factory=set)

    @property
    def newest(self) -> int:
        return len(self.versions)

    def rotate(self) -> None:
        self.versions.append(secrets.token_bytes(32))

    def encrypt(self, version: int, plaintext: bytes, data: bytes) -> bytes:
        nonce = secrets.token_bytes(12)
        return nonce + AESGCM(self.versions[version - 1]).encrypt(nonce, plaintext, data)

    def decrypt(self, version: int, ciphertext: bytes, data: bytes) -> bytes | None:
        try:
            return AESGCM(self.versions[version - 1]).decrypt(ciphertext[:12], ciphertext[12:], data)
        except (InvalidTag, ValueError):
            return None


class Double:
    """A service on loopback. Subclasses name the key in `KEY` and answer in `respond`."""

    KEY: str
    ENCRYPT = "encrypt"  # the actions that sealing and opening need
    DECRYPT = "decrypt"

    def __init__(self) -> None:
        self.loopback = Loopback(self.respond)
        self.reset()

    def reset(self) -> None:
        """Forget everything, and begin with fresh keys."""
        self.loopback.faults = []
        self.loopback.requests = []
        self.keys: dict[str, ServiceKey] = {self.KEY: ServiceKey()}
        self.forbidden: set[str] = set()
        self.ignores_context = False
        self.claims_key: str | None = None  # the key that answers say was used
        self.substitute: bytes | None = None  # what decryption answers in place of the plaintext
        self.plaintexts: list[bytes] = []
        self.actions: list[str] = []

    def __enter__(self) -> Self:
        self.loopback.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.loopback.__exit__()

    @property
    def key(self) -> ServiceKey:
        return self.keys[self.KEY]

    def disable(self) -> None:
        self.key.disabled.update(range(1, self.key.newest + 1))

    def respond(self, request: Request) -> Answer:
        raise NotImplementedError

    def seen(self, plaintext: bytes) -> bytes:
        """The plaintext of an answer; it is noted, and may be replaced."""
        self.plaintexts.append(plaintext)
        return plaintext if self.substitute is None else self.substitute
