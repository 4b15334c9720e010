"""Files that hold a private key, of whatever kind, and that only their owner may read (docs/format.md §7)."""

import os
import stat
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from palladion.clock import timestamp
from palladion.errors import FormatError, KeysError
from palladion.files import atomic_writer, storage_errors
from palladion.seal.recipients.file import IDENTITY_FILE_BYTES_MAX, FileIdentity, parse_file_identity
from palladion.seal.recipients.hybrid import IDENTITY_TEXT, HybridIdentity, parse_hybrid_identity
from palladion.seal.recipients.tpm import AskPin, TpmIdentity
from palladion.seal.recipients.tpm import parse as parse_tpm_identity
from palladion.seal.recipients.tpm_uri import SCHEME as TPM_TEXT

StoredIdentity: TypeAlias = FileIdentity | HybridIdentity | TpmIdentity
_WORTH = "Whoever reads this file opens what is sealed to it."
_WORTH_OF_TPM = "It is of use with this machine's TPM only."


def write_identity(path: Path, identity: StoredIdentity, *, created: datetime) -> None:
    """Write `identity` to a new file that only its owner can read. Raises StorageError if `path` exists."""
    worth = _WORTH_OF_TPM if isinstance(identity, TpmIdentity) else _WORTH
    lines = [
        f"# Palladion identity, made {timestamp(created)}. {worth}",
        f"# recipient: {identity.recipient}",
        identity.unsafe_text(),
    ]
    with atomic_writer(path, replace=False) as stream:
        stream.write("".join(f"{line}\n" for line in lines).encode())


def read_identity(path: Path, *, ask_pin: AskPin | None = None) -> StoredIdentity:
    """The identity in a file. Raises KeysError if others than its owner may read or write it, FormatError if broken.

    A TPM's key that needs a PIN, and whose file names no other file with it, asks `ask_pin` when it is used.
    """
    hint = f"chmod 600 {path}, and make a new identity if somebody else has read it"
    data = read_private_file(path, size_max=IDENTITY_FILE_BYTES_MAX, what="identity file", hint=hint)
    lines = [line for line in data.decode("ascii", errors="replace").splitlines() if line and not line.startswith("#")]
    if len(lines) != 1:
        raise FormatError(f"identity file {path} holds {len(lines)} keys, expected one")
    if lines[0].startswith(TPM_TEXT):
        return parse_tpm_identity(lines[0], ask_pin=ask_pin)
    parse = parse_hybrid_identity if lines[0].upper().startswith(IDENTITY_TEXT) else parse_file_identity
    return parse(lines[0], what=f"the key in identity file {path}")


def read_private_file(path: Path, *, size_max: int, what: str, hint: str) -> bytes:
    """The whole of a regular file that holds a secret. Raises FormatError if it is larger than `size_max` or no file.

    Raises KeysError with `hint` if others than its owner may read or write it.
    """
    with storage_errors(path):
        # not blocking: a named pipe must not make us wait for ever
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FormatError(f"{what} {path} is not a regular file")
            if status.st_mode & 0o077:
                raise KeysError(f"{what} {path} has mode {stat.S_IMODE(status.st_mode):04o}: others may read it", hint)
            data = stream.read(size_max + 1)
    if len(data) > size_max:
        raise FormatError(f"{what} {path} is larger than the {size_max} bytes allowed")
    return data
