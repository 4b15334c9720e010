"""Wrapping to an AES-256 key that never leaves its HSM, named by a PKCS#11 URI (docs/format.md §7).

Owns what is done with the key; pkcs11_token.py owns the way to it.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from palladion.errors import FormatError, KeysError
from palladion.keys import Wrap
from palladion.seal.recipients.envelope import Envelope
from palladion.seal.recipients.identity_file import read_private_file
from palladion.seal.recipients.pkcs11_token import (
    GCM,
    ID_BYTES_MIN,
    KEY_WRAP,
    AesKey,
    AskPin,
    find_key,
    library,
    make_key,
    offers,
    visit,
)
from palladion.seal.recipients.pkcs11_uri import Pkcs11Uri

if TYPE_CHECKING:
    from pkcs11 import Attribute

KIND = "pkcs11"
PIN_BYTES_MAX = 255  # tokens take 4 to 255 bytes
_IV_BYTES = 12
_IV = re.compile(r"[0-9a-f]{24}")
_WRAPPED_BYTES = {GCM: 48, KEY_WRAP: 40}  # 32 and a tag; RFC 3394 adds one block of 8


class Pkcs11Key:
    """A key in an HSM: recipient and identity are the same, since it is symmetric. `str()` gives its URI.

    The PIN is read from the URI's `pin-source` at each use, or else asked once, by calling `ask_pin` with the token's
    name, and kept in memory. Every use raises NotFoundError without the token, KeysError if it refuses or fails.
    """

    __slots__ = ("_ask_pin", "_id", "_pin", "uri")  # no __dict__: a tool that prints all fields would print the PIN

    kind = KIND

    def __init__(self, uri: Pkcs11Uri, *, ask_pin: AskPin | None = None) -> None:
        if 0 < len(uri.id) < ID_BYTES_MIN:
            raise ValueError(f"a CKA_ID of {len(uri.id)} bytes, expected {ID_BYTES_MIN} or more")
        self.uri = uri
        self._ask_pin = ask_pin
        self._pin: str | None = None
        self._id = uri.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pkcs11Key) and self.uri == other.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    def __str__(self) -> str:
        return str(self.uri)

    def __repr__(self) -> str:
        return f"<Pkcs11Key {self.uri}>"

    @property
    def key_id(self) -> str:
        """16 hex digits of a hash of CKA_ID, which a clone or backup of the key keeps; asks the token unless named."""
        if not self._id:
            with self._key():
                pass
        return sha256(b"palladion/v1/pkcs11" + self._id).hexdigest()[:16]

    def wrap(self, secret: bytes, context: bytes) -> Wrap:
        """Encrypt `secret`, bound to `context`. Raises KeysError if the token could not undo it."""
        with self._key() as key:
            mechanism = next((name for name in (GCM, KEY_WRAP) if offers(key, name)), None)
            if mechanism is None:
                raise KeysError(
                    f"the token {key.session.token.label} offers neither AES-GCM nor AES key wrap with {key.label}",
                    "it needs CKA_ENCRYPT and CKA_DECRYPT, or CKA_WRAP and CKA_UNWRAP",
                )
            iv = secrets.token_bytes(_IV_BYTES)

            def wrap_key(inner: bytes) -> bytes:
                wrapped = _wrap_key(key, inner, mechanism, iv, context)
                # some tokens make an IV of their own and say nothing: such a wrap would never open
                if _unwrap_key(key, wrapped, mechanism, iv, context) != inner:
                    raise KeysError(f"the token {key.session.token.label} does not give back what it has encrypted")
                return wrapped

            blob = Envelope.enclose(secret, context, wrap_key).encode()
        parameters: dict[str, str | int] = {"mechanism": mechanism}
        if mechanism == GCM:
            parameters["iv"] = iv.hex()
        return Wrap(KIND, self.key_id, parameters, blob)

    def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None:
        """The secret, or None if the wrap is for another key. Raises KeysError if it does not open."""
        if wrap.kind != KIND or wrap.key_id != self.key_id:
            return None
        mechanism, iv = _parameters(wrap)
        envelope = Envelope.decode(wrap.blob, kind=KIND)
        if len(envelope.wrapped_key) != _WRAPPED_BYTES[mechanism]:
            raise FormatError(f"a {KIND} wrap holds {len(envelope.wrapped_key)} bytes where {mechanism} makes others")
        with self._key() as key:
            if not offers(key, mechanism):
                raise KeysError(f"the key {key.label} may not be used with {mechanism}, or its token lacks it")
            try:
                inner = _unwrap_key(key, envelope.wrapped_key, mechanism, iv, context)
            except library().PKCS11Error as error:
                # tokens do not say more: SoftHSM has one error for a wrong tag and for a failure of its own
                raise KeysError(
                    f"the wrap for {wrap.key_id} does not open: it is damaged, or moved here from another file",
                    f"the token says {type(error).__name__}",
                ) from None
        return envelope.open(inner, context, key_id=wrap.key_id)

    @contextmanager
    def _key(self) -> Iterator[AesKey]:
        with visit(self.uri, self._answer) as session:
            # once seen, by CKA_ID too: whoever asked for `key_id` must not get another key of the same label
            key = find_key(session, self.uri.label, self._id)
            self._id = key.id
            yield key

    def _answer(self, token: str) -> str:
        if self.uri.pin_source is not None:
            return read_pin(self.uri.pin_source)
        if self._ask_pin is None:
            raise KeysError(
                f"the token {token} needs a PIN", "name a file of mode 0600 with pin-source=FILE in the URI"
            )
        if self._pin is None:
            self._pin = self._ask_pin(token)
        return self._pin


def parse(text: str, *, ask_pin: AskPin | None = None) -> Pkcs11Key:
    """The key of a URI `pkcs11:token=NAME;object=LABEL?module-path=/…&pin-source=/…`. Raises FormatError.

    The token is not asked before the key is used.
    """
    try:
        return Pkcs11Key(Pkcs11Uri.parse(text), ask_pin=ask_pin)
    except ValueError as error:
        raise FormatError(f"the PKCS#11 URI names {error}") from None


def generate_key(text: str, *, ask_pin: AskPin | None = None) -> Pkcs11Key:
    """Make the key that a URI names by its label, in the token; the result names it by CKA_ID too.

    Raises FormatError, ConflictError if the token has a key of that label, NotFoundError, and KeysError.
    """
    named = parse(text, ask_pin=ask_pin)
    if named.uri.id or not named.uri.label:
        raise FormatError("the PKCS#11 URI of a new key has to give object=LABEL and no id", "its CKA_ID is random")
    with visit(named.uri, named._answer, write=True) as session:
        made = Pkcs11Key(replace(named.uri, id=make_key(session, named.uri.label).id), ask_pin=ask_pin)
    made._pin = named._pin
    # a key that cannot be used should fail here, and not when a model is sealed to it
    made.wrap(bytes(32), b"palladion/v1/new-key")
    return made


def read_pin(path: Path) -> str:
    """The PIN in a file that only its owner may read: one line. Raises KeysError, FormatError, StorageError."""
    hint = f"chmod 600 {path}, and change the PIN if somebody else has read it"
    data = read_private_file(path, size_max=PIN_BYTES_MAX + 2, what="PIN file", hint=hint)
    try:
        pin = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        pin = ""
    if not pin or len(pin.encode()) > PIN_BYTES_MAX or not pin.isprintable():
        raise FormatError(f"PIN file {path} does not hold one line of 1 to {PIN_BYTES_MAX} bytes")
    return pin


def _parameters(wrap: Wrap) -> tuple[str, bytes]:
    match wrap.parameters:
        case {"mechanism": "aes-gcm", "iv": str(iv), **rest} if not rest and _IV.fullmatch(iv):
            return GCM, bytes.fromhex(iv)
        case {"mechanism": "aes-kw", **rest} if not rest:
            return KEY_WRAP, b""
    raise FormatError(f"a {KIND} wrap has parameters that this version does not know")


def _wrap_key(key: AesKey, inner: bytes, mechanism: str, iv: bytes, context: bytes) -> bytes:
    pkcs11 = library()
    if mechanism == GCM:
        parameters = pkcs11.GCMParams(iv, context, 128)
        return bytes(key.encrypt(inner, mechanism=pkcs11.Mechanism.AES_GCM, mechanism_param=parameters))
    attribute = pkcs11.Attribute
    value = key.session.create_object(
        {
            attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
            attribute.KEY_TYPE: pkcs11.KeyType.GENERIC_SECRET,
            attribute.VALUE: inner,
            **_passing(),
        }
    )
    return bytes(key.wrap_key(value, mechanism=pkcs11.Mechanism.AES_KEY_WRAP))


def _unwrap_key(key: AesKey, wrapped: bytes, mechanism: str, iv: bytes, context: bytes) -> bytes:
    pkcs11 = library()
    if mechanism == GCM:
        parameters = pkcs11.GCMParams(iv, context, 128)
        return bytes(key.decrypt(wrapped, mechanism=pkcs11.Mechanism.AES_GCM, mechanism_param=parameters))
    value = key.unwrap_key(
        pkcs11.ObjectClass.SECRET_KEY,
        pkcs11.KeyType.GENERIC_SECRET,
        wrapped,
        mechanism=pkcs11.Mechanism.AES_KEY_WRAP,
        template=_passing(),
    )
    return bytes(value[pkcs11.Attribute.VALUE])


def _passing() -> "dict[Attribute, bool]":
    """What makes a key one of this session only, and its value readable: it is this process's own in any case."""
    attribute = library().Attribute
    return {attribute.TOKEN: False, attribute.PRIVATE: True, attribute.SENSITIVE: False, attribute.EXTRACTABLE: True}
