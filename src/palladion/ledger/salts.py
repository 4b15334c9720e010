"""Salts of the digests of requests and answers, each from a seed of its client; without the seed they tell nothing.

A client's seed is 32 random bytes, made before its first record needs it, and erased with the client. It lies in
`salts/XX/CLIENT.seed` of an installation's folder, XX being the first two digits of the client's pseudonym, so that no
folder becomes long:

    seed file = "palladion-seed-1" newline || nonce (12 bytes) || AES-256-GCM of the seed, with the line before bound

under HKDF-SHA-256 (RFC 5869) of the gate root's "ledger-salts" with the client's pseudonym. A file is written once and
never changed, only erased. Records from before there were seeds name none: their salts are made from "ledger-salts"
itself. Files and values; which client may have a seed is the caller's affair.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from hmac import compare_digest
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from palladion import files
from palladion.errors import FormatError, StorageError, TamperError

FOLDER = "salts"  # in an installation's folder
KEY_BYTES = SEED_BYTES = SALT_BYTES = 32
_MAGIC = b"palladion-seed-1\n"
_NONCE_BYTES = 12
_FILE_BYTES = len(_MAGIC) + _NONCE_BYTES + SEED_BYTES + 16
_SALT_PERSON, _NAME_PERSON = b"pall/ledger-salt", b"pall/seed-name"
_NAME_BYTES = 4  # stands in each record of an answer; of one client's few seeds, two are alike once in 10^9 times
_CLIENT = re.compile(r"client:([0-9a-f]{20})", re.ASCII)


class Seed(NamedTuple):
    """What a client's salts are made from, and the `name` by which records say so; the name tells nothing of it."""

    name: str
    secret: bytes

    @classmethod
    def of(cls, secret: bytes) -> "Seed":
        """The seed of its 32 bytes."""
        return cls(blake2b(secret, digest_size=_NAME_BYTES, person=_NAME_PERSON).hexdigest(), secret)

    def salt(self, request_id: str) -> "Salt":
        """The salt of one request."""
        return Salt(self.name, request_salt(self.secret, request_id))

    def __repr__(self) -> str:
        return f"Seed({self.name!r})"


class Salt(NamedTuple):
    """The salt of one request's digests, and the name of the seed that it is from."""

    seed: str
    value: bytes

    def digest(self, body: bytes) -> str:
        """The digest of a body, as records have it."""
        return body_digest(self.value, body)

    def __repr__(self) -> str:
        return f"Salt({self.seed!r})"


def request_salt(secret: bytes, request_id: str) -> bytes:
    """The salt of one request, 32 bytes; telling it to somebody tells nothing of any other request."""
    return blake2b(request_id.encode(), digest_size=SALT_BYTES, key=secret, person=_SALT_PERSON).digest()


def body_digest(salt: bytes, body: bytes) -> str:
    """The digest of a request's or an answer's body, in hexadecimal."""
    return blake2b(body, digest_size=32, key=salt).hexdigest()


def verify_body(salt: bytes, body: bytes, digest: str, *, what: str) -> None:
    """Raise TamperError, naming `what`, unless these are the bytes that a record has this digest of."""
    if not compare_digest(body_digest(salt, body).encode(), digest.encode()):
        raise TamperError(f"{what} is not what is on record: its digest, with the salt of the proof, is another")


def seed_path(folder: Path, client: str) -> Path:
    """Where the seed of a client, by pseudonym, lies. Raises ValueError."""
    match = _CLIENT.fullmatch(client)
    if match is None:
        raise ValueError(f"{client!r} is no client's pseudonym")
    return folder / match[1][:2] / f"{match[1]}.seed"


def read_seed(folder: Path, key: bytes, client: str) -> Seed | None:
    """The seed of a client, by pseudonym; None where there is none. `key` is the gate root's "ledger-salts".

    Raises FormatError on what is no seed, TamperError on what was not written with this key and for this client.
    """
    path = seed_path(folder, client)
    try:
        data = files.read_limited(path, size_max=_FILE_BYTES, what="the seed of salts")
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    # where a file system has no hard links, a crash leaves a name without content, on which nothing relies
    if not data:
        return None
    if len(data) != _FILE_BYTES or not data.startswith(_MAGIC):
        raise FormatError(f"{path} holds no seed of salts")
    nonce, sealed = data[len(_MAGIC) :][:_NONCE_BYTES], data[len(_MAGIC) + _NONCE_BYTES :]
    try:
        return Seed.of(_cipher(key, client).decrypt(nonce, sealed, _MAGIC))
    except InvalidTag:
        raise TamperError(f"{path} does not authenticate: it was changed, or is another client's or gate's") from None


def make_seed(folder: Path, key: bytes, client: str) -> Seed:
    """The seed of a client, made if there is none; on the disk when this returns. Raises as `read_seed`, StorageError.

    Safe where several do it at once: all get the one that was first.
    """
    path = seed_path(folder, client)
    files.make_private_directory(path.parent)
    with _locked(path.parent):
        found = read_seed(folder, key, client)
        if found is None:
            nonce, secret = os.urandom(_NONCE_BYTES), os.urandom(SEED_BYTES)
            files.write_atomically(path, _MAGIC + nonce + _cipher(key, client).encrypt(nonce, secret, _MAGIC))
            return Seed.of(secret)
        # who made it may have crashed before the folder was synced, and it is relied on from here
        with files.storage_errors(path):
            files.sync_directory(path.parent)
        return found


def erase_seed(folder: Path, client: str) -> bool:
    """Overwrite and delete the seed of a client, by pseudonym; whether there was one. Raises StorageError.

    What a file system or a disk kept of the old bytes elsewhere (snapshots, copies on write, worn cells) is out of
    reach, and opens with the gate root alone.
    """
    path = seed_path(folder, client)
    with files.storage_errors(path):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            os.pwrite(descriptor, os.urandom(_FILE_BYTES), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        path.unlink()
        files.sync_directory(path.parent)
    return True


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone among threads and processes: two who find no seed, or an empty file, must not make two."""
    with files.storage_errors(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _cipher(key: bytes, client: str) -> AESGCM:
    if len(key) != KEY_BYTES:
        raise ValueError(f"the key of seeds has {KEY_BYTES} bytes, got {len(key)}")
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt=None, info=b"palladion/v1/salt-seed" + client.encode()).derive(key))
