"""Who may open a sealed file, each kind in a module of its own (docs/format.md §7).

Keys in files, names of keys in a TPM, and passphrases are here at once; what speaks to an HSM or a cloud is imported
when it is first named, and what speaks to a TPM when it is first used.
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
from palladion.seal.recipients.tpm import RECIPIENT_TEXT as TPM_RECIPIENT_TEXT
from palladion.seal.recipients.tpm import TpmIdentity, TpmRecipient, parse_tpm_recipient
from palladion.seal.recipients.tpm import parse as parse_tpm_identity
from palladion.seal.recipients.tpm_uri import SCHEME as TPM_TEXT

__all__ = [
    "Cost",
    "FileIdentity",
    "FileRecipient",
    "HybridIdentity",
    "HybridRecipient",
    "PassphraseIdentity",
    "PassphraseRecipient",
    "StoredIdentity",
    "TpmIdentity",
    "TpmRecipient",
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
    """The recipient that `text` names: `pallr1…`, or a key in an HSM, a cloud or this TPM. Raises FormatError.

    Nothing is asked of an HSM or a cloud before the recipient is used; then an HSM whose URI names no file with its PIN
    asks `ask_pin`, with the token's name.
    """
    key = _key_elsewhere(text, ask_pin)
    if key is not None:
        return key
    if text.startswith(TPM_TEXT):
        return parse_tpm_identity(text).recipient
    if text.lower().startswith(TPM_RECIPIENT_TEXT):
        return parse_tpm_recipient(text)
    return parse_hybrid_recipient(text) if text.lower().startswith(RECIPIENT_TEXT) else parse_file_recipient(text)


def parse_identity(text: str, *, ask_pin: Callable[[str], str] | None = None) -> Identity:
    """The identity that `text` names: a key in an HSM, a cloud or a TPM, else an identity file's path.

    Raises FormatError, or what `read_identity` raises. A file whose name begins like such a key is written `./vault:x`.
    """
    key = _key_elsewhere(text, ask_pin)
    if key is not None:
        return key
    if text.startswith(TPM_TEXT):
        return parse_tpm_identity(text, ask_pin=ask_pin)
    return read_identity(Path(text), ask_pin=ask_pin)


def _key_elsewhere(text: str, ask_pin: Callable[[str], str] | None) -> KeyElsewhere | None:
    if text.startswith("pkcs11:"):
        from palladion.seal.recipients import pkcs11

        return pkcs11.parse(text, ask_pin=ask_pin)
    for prefix, module in _CLOUDS.items():
        if text.startswith(prefix):
            return cast(KeyElsewhere, import_module(f"{__name__}.{module}").parse(text))
    return None
