"""A sealed file without its body, as a client sends it: who signed it, what it says, and the key in its wrap.

The signature covers the header; the wrap opens for this file id alone; and the FLOE header commits to the key and the
header, so that no other header can be put before a wrap that was overheard (docs/format.md §4, §6, §7).
"""

from collections.abc import Sequence
from hashlib import sha256

from palladion.errors import FormatError, KeysError, TamperError
from palladion.host.broker_messages import FileFront
from palladion.keys import Identity
from palladion.seal import floe
from palladion.seal.header import Header, decode_header
from palladion.seal.layout import PARAMETERS
from palladion.seal.sign import verify_signature
from palladion.seal.trailer import body_data, wrap_context

WHAT = "the file"
MODEL_KINDS = frozenset({"onnx", "safetensors", "gguf", "folder", "adapter", "opaque"})
PURPOSES = frozenset({"served", "delivery"})  # never an original, a keyring or a backup


def verified_header(front: FileFront, publishers: Sequence[bytes]) -> Header:
    """The header, if one of `publishers` (raw keys) signed it and it is of a model to be used.

    Raises FormatError or TamperError.
    """
    header = decode_header(front.header, what=WHAT)
    message = _signed_message(front)
    verify_signature(message, front.signature, publisher=header.publisher, pinned=publishers, what=WHAT)
    if header.kind not in MODEL_KINDS or header.purpose not in PURPOSES or not header.model:
        raise FormatError(f"{WHAT} is a {header.purpose} of kind {header.kind}: no key of such is released")
    return header


def unwrapped(front: FileFront, header: Header, identities: Sequence[Identity]) -> bytes:
    """The file key, by the first of `identities` that the wrap is for, and only if it is this header's.

    Raises KeysError, FormatError, TamperError; StorageError where a key service does not answer.
    """
    wrap = front.wrap.wrap
    context = wrap_context(header.file_id, front.floe_header, kind=wrap.kind, key_id=wrap.key_id)
    file_key = next((key for one in identities if (key := one.unwrap(wrap, context)) is not None), None)
    if file_key is None:
        raise KeysError("the file is sealed to none of this broker's keys")
    if len(file_key) != floe.KEY_BYTES:
        raise TamperError(f"{WHAT} wraps a key of {len(file_key)} bytes, expected {floe.KEY_BYTES}")
    floe.Decryption.start(file_key, body_data(front.header), front.floe_header, PARAMETERS, what=WHAT)
    return file_key


def _signed_message(front: FileFront) -> bytes:
    # as seal/trailer.py makes it of the digests themselves, of which the broker gets the root alone
    sizes = front.segments.to_bytes(8, "little") + front.body_bytes.to_bytes(8, "little")
    return b"palladion/v1/sealed-file" + sha256(front.header).digest() + front.floe_header + sizes + front.root
