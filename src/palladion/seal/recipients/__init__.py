"""Who may open a sealed file, each kind in a module of its own (docs/format.md §7).

Keys in files and passphrases are here at once; what speaks to an HSM or a cloud is imported when it is first named.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from palladion.keys import Identity, Recipient
from palladion.seal.recipients.file import FileIdentity, FileRecipient, parse_file_recipient
from palladion.seal.recipients.hybrid import RECIPIENT_TEXT, HybridIdentity, HybridRecipient, parse_hybrid_recipient
from palladion.seal.recipients.identity_file import StoredIdentity, read_identity, write_identity
from palladion.seal.recipients.passphrase import Cost, PassphraseIdentity, PassphraseRecipient

__all__ = [
    "Cost",
    "FileIdentity",
    "FileRecipient",
    "HybridIdentity",
    "HybridRecipient",
    "PassphraseIdentity",
    "PassphraseRecipient",
    "StoredIdentity",
    "parse_identity",
    "parse_recipient",
    "read_identity",
    "write_identity",
]


class KeyElsewhere(Recipient, Identity, Protocol):
    """A key that stays where it is, in an HSM or a cloud: whoever may use it wraps and unwraps with the same object."""


# how the text of a cloud's key begins, and the module whose `parse` reads it
_CLOUDS = {
    "awskms:": "aws",
    "gcpkms:": "gcp",
    "azurekv:": "azure",
    "vault:": "vault",
}


def parse_recipient(text: str, *, ask_pin: Callable[[str], str] | None = None) -> Recipient:
    """The recipient that `text` names: `pallr1x…`, `pallr1h…`, or a key in an HSM or a cloud. Raises FormatError.

    Nothing is asked of an HSM or a cloud before the recipient is used; then an HSM whose URI names no file with its PIN
    asks `ask_pin`, with the token's name.
    """
    key = _key_elsewhere(text, ask_pin)
    if key is not None:
        return key
    return parse_hybrid_recipient(text) if text.lower().startswith(RECIPIENT_TEXT) else parse_file_recipient(text)


def parse_identity(text: str, *, ask_pin: Callable[[str], str] | None = None) -> Identity:
    """The identity that `text` names: a key in an HSM or a cloud as in `parse_recipient`, else an identity file's path.

    Raises FormatError, or what `read_identity` raises. A file whose name begins like such a key is written `./vault:x`.
    """
    key = _key_elsewhere(text, ask_pin)
    return key if key is not None else read_identity(Path(text))


def _key_elsewhere(text: str, ask_pin: Callable[[str], str] | None) -> KeyElsewhere | None:
    if text.startswith("pkcs11:"):
        from palladion.seal.recipients import pkcs11

        return pkcs11.parse(text, ask_pin=ask_pin)
    for prefix, module in _CLOUDS.items():
        if text.startswith(prefix):
            return cast(KeyElsewhere, import_module(f"{__name__}.{module}").parse(text))
    return None
