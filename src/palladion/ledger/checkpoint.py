"""Checkpoints: a tree's size and root as a signed note (c2sp.org/tlog-checkpoint, c2sp.org/signed-note). Pure.

A note is text, a blank line, and signature lines `— <key name> base64(key id || signature)`. Signatures by keys that we
do not know are kept and ignored, so that witnesses can add theirs.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature

from palladion.errors import FormatError, TamperError
from palladion.keys import Signer, ed25519_public_key
from palladion.ledger.merkle import HASH_BYTES, SIZE_MAX

NOTE_BYTES_MAX = 64 * 1024  # a checkpoint with one signature has about 200 bytes; room for many cosignatures
SIGNATURES_MAX = 64  # each is parsed before any is verified
_ED25519 = b"\x01"  # signature type of the signed-note specification
_NAME = re.compile(r"[^\s+]+")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a log: its origin, how many entries it has, and the root over them (32 bytes)."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True)
class VerifierKey:
    """The public key of a log: its name, which is the log's origin, and the raw Ed25519 key."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """The four bytes that name the key in a signature line; a hint, not a proof."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public_key).digest()[:4]

    def __str__(self) -> str:
        key = base64.b64encode(_ED25519 + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{key}"


def parse_verifier_key(text: str) -> VerifierKey:
    """The key of `<name>+<id>+<base64>`, as other tlog tools write it. Raises FormatError."""
    parts = text.strip().split("+", 2)
    if len(parts) == 3 and _NAME.fullmatch(parts[0]):
        data = decode_base64(parts[2], what="the verifier key")
        key = VerifierKey(parts[0], data[1:])
        if data[:1] == _ED25519 and len(data) == 33 and str(key) == text.strip():
            ed25519_public_key(key.public_key, what="the verifier key")
            return key
    raise FormatError("not a verifier key, expected <name>+<id>+<base64 of an Ed25519 key>")


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> bytes:
    """The signed note of a checkpoint, signed under its origin as key name."""
    if not valid_origin(checkpoint.origin):
        raise ValueError(f"{checkpoint.origin!r} cannot be a log's origin")
    text = f"{checkpoint.origin}\n{checkpoint.size}\n{base64.b64encode(checkpoint.root).decode()}\n"
    key = VerifierKey(checkpoint.origin, signer.public_key)
    signature = base64.b64encode(key.key_id + signer.sign(text.encode())).decode()
    return f"{text}\n— {key.name} {signature}\n".encode()


def verify_checkpoint(note: bytes, key: VerifierKey) -> Checkpoint:
    """The checkpoint of a signed note, if `key` signed it.

    Raises FormatError if the note is not one, TamperError if the key's signature is missing or does not hold.
    """
    checkpoint = parse_text(verify_note(note, key))
    if checkpoint.origin != key.name:
        raise TamperError(f"the checkpoint is of the log {checkpoint.origin!r}, expected {key.name!r}")
    return checkpoint


def verify_note(note: bytes, key: VerifierKey) -> bytes:
    """The text of a signed note, if `key` signed it. Raises as `verify_checkpoint` does."""
    text, signatures = parse_note(note)
    ours = [blob[4:] for name, blob in signatures if name == key.name and blob[:4] == key.key_id]
    if not ours:
        raise TamperError(f"the checkpoint carries no signature by the key of {key.name}")
    for signature in ours:
        try:
            ed25519_public_key(key.public_key, what="the verifier key").verify(signature, text)
        except InvalidSignature:
            raise TamperError(f"the checkpoint's signature by {key.name} does not hold: the text was changed") from None
    return text


def valid_origin(origin: str) -> bool:
    """Whether a log can be called `origin`: one word without a plus sign."""
    return _NAME.fullmatch(origin) is not None and origin.isprintable()


def parse_note(note: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Text of a signed note, and of each signature the name of its key, and key id with signature; nothing is verified.

    Raises FormatError.
    """
    if len(note) > NOTE_BYTES_MAX:
        raise FormatError(f"the checkpoint has {len(note)} bytes, more than the {NOTE_BYTES_MAX} allowed")
    text, separator, block = note.rpartition(b"\n\n")
    try:
        lines = block.decode("utf-8").split("\n")
        text.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("the checkpoint is not UTF-8 text") from None
    if not separator or lines[-1] != "" or len(lines) < 2:
        raise FormatError("not a signed note: a blank line and signature lines were expected")
    if len(lines) - 1 > SIGNATURES_MAX:
        raise FormatError(f"the checkpoint has {len(lines) - 1} signatures, more than the {SIGNATURES_MAX} allowed")
    signatures = []
    for line in lines[:-1]:
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != "—" or not _NAME.fullmatch(parts[1]):
            raise FormatError(f"not a signature line: {line[:80]!r}")
        blob = decode_base64(parts[2], what="a signature")
        if len(blob) < 5:
            raise FormatError("a signature is too short")
        signatures.append((parts[1], blob))
    return text + b"\n", signatures


def parse_text(text: bytes) -> Checkpoint:
    """The checkpoint that the text of a note states, not verified. Raises FormatError."""
    lines = text.decode("utf-8").split("\n")
    # origin, size, root, perhaps extension lines, and the empty string after the last newline
    if len(lines) < 4 or "" in lines[:-1]:
        raise FormatError("not a checkpoint: origin, size and root were expected, a line each")
    origin, size_text, root_text = lines[:3]
    if not re.fullmatch(r"0|[1-9][0-9]{0,14}", size_text) or int(size_text) > SIZE_MAX:
        raise FormatError(f"the checkpoint's size is {size_text[:40]!r}, a decimal number was expected")
    root = decode_base64(root_text, what="the checkpoint's root")
    if len(root) != HASH_BYTES:
        raise FormatError(f"the checkpoint's root has {len(root)} bytes, {HASH_BYTES} were expected")
    return Checkpoint(origin, int(size_text), root)


def decode_base64(text: str, *, what: str) -> bytes:
    """The bytes of canonical base64. Raises FormatError, naming `what`, on any other text."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(f"{what} is not base64") from None
    if base64.b64encode(data).decode() != text:
        raise FormatError(f"{what} is not canonical base64")
    return data
