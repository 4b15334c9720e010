"""Keys of approvers where they lie: in a file behind a passphrase, or in a token that they never leave (PKCS#11 v3.1).

Runs on an approver's own machine too, where there is no installation.
"""

import secrets
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palladion import files
from palladion.approvals.signing import KEY_FILE_BYTES_MAX, ApproverKey, ApproverSigner, new_key_file, open_key_file
from palladion.errors import ConflictError, FormatError, KeysError, NotFoundError
from palladion.keys import Identity, Recipient
from palladion.seal.recipients.identity_file import read_private_file
from palladion.seal.recipients.pkcs11 import read_pin
from palladion.seal.recipients.pkcs11_token import ID_BYTES, AskPin, library, visit
from palladion.seal.recipients.pkcs11_uri import SCHEME, Pkcs11Uri

if TYPE_CHECKING:
    from pkcs11 import Session

_P256 = bytes.fromhex("06082a8648ce3d030107")  # OID 1.2.840.10045.3.1.7 in DER (RFC 5480)
_ED25519 = bytes.fromhex("130c656477617264733235353139")  # "edwards25519" as PKCS#11 v3.1 §6.3.3 has it
_POINT_BYTES = 65  # uncompressed: 04, x, y (SEC 1)


def new_approver_key(place: str, recipient: Callable[[], Recipient], *, ask_pin: AskPin | None = None) -> ApproverKey:
    """Make a key: in the token that a PKCS#11 URI names, or in a new file, wrapped to `recipient`.

    In a token Ed25519 where it can, else P-256. Raises StorageError if the file exists, ConflictError if the token has
    a key of that label, KeysError, NotFoundError, FormatError.
    """
    if place.startswith(SCHEME):
        return _make_in_token(_uri(place), ask_pin)
    path = Path(place)
    key, data = new_key_file(recipient())
    with files.atomic_writer(path, replace=False) as stream:
        stream.write(data)
    return key


def open_approver_key(place: str, identity: Callable[[], Identity], *, ask_pin: AskPin | None = None) -> ApproverSigner:
    """The key at `place`. Raises KeysError if others may read its file, or the passphrase is wrong; FormatError."""
    if place.startswith(SCHEME):
        return TokenKey(_uri(place), ask_pin)
    hint = f"chmod 600 {place}, and make a new key if somebody else has read it"
    data = read_private_file(Path(place), size_max=KEY_FILE_BYTES_MAX, what="key file", hint=hint)
    return open_key_file(data, identity(), what=f"key file {place}")


class TokenKey:
    """A key of an approver in a token, which is asked at each use; `key` asks it too."""

    def __init__(self, uri: Pkcs11Uri, ask_pin: AskPin | None) -> None:
        self._uri = uri
        self._ask_pin = ask_pin
        self._key: ApproverKey | None = None

    def __repr__(self) -> str:
        return f"<TokenKey {self._uri}>"

    @property
    def key(self) -> ApproverKey:
        """The public side."""
        if self._key is None:
            with visit(self._uri, self._pin) as session:
                self._key = _public(_private(session, self._uri), session, self._uri)
        return self._key

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`, 64 bytes. Raises KeysError if the token makes none that holds."""
        pkcs11 = library()
        with visit(self._uri, self._pin) as session:
            private = _private(session, self._uri)
            key = _public(private, session, self._uri)
            if key.kind == "ed25519":
                made = bytes(private.sign(message, mechanism=pkcs11.Mechanism.EDDSA))
            else:
                # raw ECDSA over our own digest: tokens without the combined mechanism are common
                made = bytes(private.sign(sha256(message).digest(), mechanism=pkcs11.Mechanism.ECDSA))
        key.verify(message, made, what="what the token signed")
        return made

    def _pin(self, token: str) -> str:
        if self._uri.pin_source is not None:
            return read_pin(self._uri.pin_source)
        if self._ask_pin is None:
            raise KeysError(
                f"the token {token} needs a PIN", "name a file of mode 0600 with pin-source=FILE in the URI"
            )
        return self._ask_pin(token)


def _uri(text: str) -> Pkcs11Uri:
    # the scheme's `type` stands for wrapping keys elsewhere, and has no place here
    if "type=" in text:
        raise FormatError("the PKCS#11 URI of an approver's key gives no type")
    return Pkcs11Uri.parse(text)


def _make_in_token(uri: Pkcs11Uri, ask_pin: AskPin | None) -> ApproverKey:
    pkcs11 = library()
    named = TokenKey(uri, ask_pin)
    if uri.id or not uri.label:
        raise FormatError("the PKCS#11 URI of a new key has to give object=LABEL and no id", "its CKA_ID is random")
    with visit(uri, named._pin, write=True) as session:
        if _found(session, uri):
            raise ConflictError(
                f"the token {session.token.label} has a key {uri.label} already", "choose another label"
            )
        offered = session.token.slot.get_mechanisms()
        edwards = {pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN, pkcs11.Mechanism.EDDSA} <= set(offered)
        _generate(session, uri.label, edwards=edwards)
    # a key that cannot sign should fail here, and not when something has to be approved
    named.sign(b"palladion/v1/new-approver-key")
    return named.key


def _generate(session: "Session", label: str, *, edwards: bool) -> None:
    pkcs11 = library()
    kind = pkcs11.KeyType.EC_EDWARDS if edwards else pkcs11.KeyType.EC
    parameters = session.create_domain_parameters(
        kind, {pkcs11.Attribute.EC_PARAMS: _ED25519 if edwards else _P256}, local=True
    )
    mechanism = {"mechanism": pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN} if edwards else {}
    attribute = pkcs11.Attribute
    parameters.generate_keypair(
        id=secrets.token_bytes(ID_BYTES),
        label=label,
        store=True,
        capabilities=pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY,
        private_template={
            attribute.PRIVATE: True,
            attribute.SENSITIVE: True,
            attribute.EXTRACTABLE: False,
        },
        **mechanism,
    )


def _found(session: "Session", uri: Pkcs11Uri) -> list[Any]:
    attribute = library().Attribute
    # private ones only: whoever reaches the token can put a public object there without a PIN, under any name
    template: dict[Any, Any] = {attribute.CLASS: library().ObjectClass.PRIVATE_KEY, attribute.PRIVATE: True}
    if uri.label:
        template[attribute.LABEL] = uri.label
    if uri.id:
        template[attribute.ID] = uri.id
    return list(session.get_objects(template))


def _private(session: "Session", uri: Pkcs11Uri) -> Any:
    found = _found(session, uri)
    name = uri.label or uri.id.hex()
    if not found:
        raise NotFoundError(
            f"the token {session.token.label} has no private key {name}", "palladion approval key new URI makes one"
        )
    if len(found) > 1:
        raise ConflictError(f"the token {session.token.label} has {len(found)} keys {name}", "say which with id=%XX…")
    attribute = library().Attribute
    if found[0][attribute.EXTRACTABLE] or not found[0][attribute.SENSITIVE]:
        raise KeysError(f"the key {name} can leave its token", "palladion approval key new URI makes a fit one")
    return found[0]


def _public(private: Any, session: "Session", uri: Pkcs11Uri) -> ApproverKey:
    pkcs11 = library()
    attribute = pkcs11.Attribute
    template = {attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY, attribute.ID: private[attribute.ID]}
    objects = list(session.get_objects(template))
    # a forged public object only makes signing fail: what the private key signs is verified with it
    if len(objects) != 1:
        raise KeysError(
            f"the token {session.token.label} has {len(objects)} public keys of {uri.label or uri.id.hex()}"
        )
    # CKA_EC_POINT is the point in a DER OCTET STRING, of less than 128 bytes here
    point = bytes(objects[0][attribute.EC_POINT])
    if len(point) > 2 and point[0] == 0x04 and point[1] == len(point) - 2:
        point = point[2:]
    if len(point) == 32:
        return ApproverKey("ed25519", point)
    if len(point) != _POINT_BYTES or point[0] != 0x04:
        raise KeysError("the key in the token is neither Ed25519 nor on P-256")
    x, y = point[1:33], point[33:]
    return ApproverKey.parse(str(ApproverKey("p256", bytes([2 + (y[-1] & 1)]) + x)))
