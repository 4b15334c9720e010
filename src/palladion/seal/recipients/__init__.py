"""Who may open a sealed file, each kind in a module of its own: passphrase, file identity (docs/format.md §7)."""

from palladion.keys import Recipient
from palladion.seal.recipients.file import (
    FileIdentity,
    FileRecipient,
    parse_file_recipient,
    read_identity,
    write_identity,
)
from palladion.seal.recipients.passphrase import Cost, PassphraseIdentity, PassphraseRecipient

__all__ = [
    "Cost",
    "FileIdentity",
    "FileRecipient",
    "PassphraseIdentity",
    "PassphraseRecipient",
    "parse_recipient",
    "read_identity",
    "write_identity",
]


def parse_recipient(text: str) -> Recipient:
    """The recipient that `text` names; today `pallr1x…`, a file identity's public side. Raises FormatError."""
    return parse_file_recipient(text)
