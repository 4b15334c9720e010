"""An escrow recipient whose key no single person has: made in shares, and joined when it is needed.

The key itself is never written: it exists while it is split and while it is joined.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from palladion import files
from palladion.approvals.shares import join, split
from palladion.errors import KeysError, StorageError
from palladion.keys import Recipient
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.rewrap import Rewrapped, rewrap
from palladion.seal.recipients import FileIdentity, FileRecipient
from palladion.seal.recipients.identity_file import read_private_file

SHARE_BYTES_MAX = 4096  # a comment and 33 words take some 500
_FORMS = "share-{}-of-{}.txt"


@dataclass(frozen=True)
class Split:
    """What was made: the recipient, the shares (33 words each), and how many of them are needed."""

    recipient: FileRecipient
    shares: tuple[str, ...] = field(repr=False)
    needed: int


def split_escrow(*, shares: int, needed: int) -> Split:
    """Make an escrow recipient, and its key in shares. Raises KeysError for numbers that make no sense."""
    private_key = secrets.token_bytes(32)
    made = split(private_key, shares=shares, needed=needed)
    return Split(FileIdentity(private_key).recipient, tuple(made), needed)


def write_shares(folder: Path, made: Split) -> list[Path]:
    """Write each share to a file of its own, that only its owner reads; all or none. StorageError if one is there."""
    total = len(made.shares)
    paths = [folder / _FORMS.format(number, total) for number in range(1, total + 1)]
    if any(path.exists() for path in paths):
        raise StorageError(f"{folder} holds shares already", "name another folder: nothing is overwritten")
    files.make_private_directory(folder)
    written: list[Path] = []
    try:
        for number, (path, share) in enumerate(zip(paths, made.shares, strict=True), 1):
            text = f"# share {number} of {total}, {made.needed} are needed: {made.recipient}\n{share}\n"
            with files.atomic_writer(path, replace=False) as stream:
                stream.write(text.encode())
            written.append(path)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return paths


def read_share(path: Path) -> str:
    """The words of a share's file, without its comments. Raises KeysError if others may read it."""
    hint = f"chmod 600 {path}"
    data = read_private_file(path, size_max=SHARE_BYTES_MAX, what="share", hint=hint).decode("ascii", "replace")
    return " ".join(line for line in data.splitlines() if not line.startswith("#"))


def joined_identity(shares: Sequence[str], known: Sequence[Recipient]) -> FileIdentity:
    """The escrow identity of as many shares as are needed; it has to be one of `known`, unless there are none.

    Raises FormatError for a word that is wrong, KeysError if they are too few, of several splits, or of none of these.
    """
    identity = FileIdentity(join(shares))
    if known and identity.recipient not in known:
        raise KeysError(
            f"the shares give the key of {identity.recipient}, which is no escrow recipient here",
            "keys.escrow in palladion.toml names those: take the shares of one of them",
        )
    return identity


def rescue(installation: Installation, identity: FileIdentity, new: Recipient, *, actor: str) -> Rewrapped:
    """Wrap the owner root to `new`, a passphrase usually, with an escrow identity that was joined."""
    owner = installation.open_owner_root([identity])
    return rewrap(installation, owner, [new], actor=actor)
