"""The keyring of one installation: two roots and what each is for (docs/keys.md).

Wrapping is handed in as `Recipient` and `Identity`, so that a root can be held by a passphrase, a file, an HSM, a TPM
or a KMS without a change here.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Literal, Protocol, cast

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from palladion import canonical
from palladion.clock import timestamp
from palladion.errors import FormatError, KeysError, TamperError
from palladion.purposes import PURPOSES, RootName


@dataclass(frozen=True)
class Wrap:
    """A secret encrypted to one recipient: how (`kind`), to whom (`key_id`), public parameters, and the ciphertext."""

    kind: str
    key_id: str
    parameters: dict[str, str | int]
    blob: bytes


class Recipient(Protocol):
    """Somebody to whom a secret can be wrapped."""

    @property
    def kind(self) -> str:
        """The kind of wrap it makes, for example `x25519`."""
        ...

    @property
    def key_id(self) -> str:
        """A short public name of the key, stable over its life."""
        ...

    def wrap(self, secret: bytes, context: bytes) -> Wrap:
        """Encrypt `secret`, bound to `context`: it unwraps only where the same context is given."""
        ...


class Identity(Protocol):
    """The private side of a recipient."""

    def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None:
        """The secret, or None if the wrap is not for this identity.

        Raises KeysError when it is for this identity and does not open (wrong passphrase, wrong context, damage), and
        FormatError, before anything is spent, when its parameters cannot be accepted.
        """
        ...


class Signer(Protocol):
    """A private Ed25519 key that may live in an HSM."""

    @property
    def public_key(self) -> bytes:
        """The raw public key, 32 bytes."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature of `message`, 64 bytes (RFC 8032)."""
        ...


KEYRING_BYTES_MAX = 256 * 1024  # a root with its wraps is about 2 KiB; an HSM or KMS wrap adds at most a few KiB
WRAPS_MAX = 64  # passphrase, host, owner, escrows; each costs an attempt before anything is authenticated
_DOMAIN = b"palladion/v1/keyring"
_FIELD = 2**255 - 19
# y of the eight points whose order is 1, 2, 4 or 8: under such a key anybody makes signatures that hold
_SMALL_ORDER = frozenset(
    int.from_bytes(bytes.fromhex(text), "little")
    for text in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
)


def ed25519_public_key(raw: bytes, *, what: str) -> Ed25519PublicKey:
    """The Ed25519 public key of 32 raw bytes that came from outside; cheap beside a verification.

    Raises FormatError, naming `what`, for a point of small order, which OpenSSL takes as RFC 8032 does, and for a
    second spelling of a point (y not below 2^255 - 19).
    """
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    if len(raw) != 32 or y >= _FIELD or y in _SMALL_ORDER:
        raise FormatError(f"{what} is no Ed25519 public key that a signature proves anything under")
    return Ed25519PublicKey.from_public_bytes(raw)


class Ed25519Signer:
    """A signing key held in this process's memory."""

    def __init__(self, private_key: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(private_key)

    @property
    def public_key(self) -> bytes:
        """The raw public key, 32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature of `message`, 64 bytes (RFC 8032)."""
        return self._key.sign(message)


@dataclass(frozen=True)
class PublicKeys:
    """The public side of a root, readable without unlocking it: raw keys by purpose, 32 bytes each."""

    root: RootName
    root_id: str
    keys: dict[str, bytes]


class Root:
    """An unlocked root: hands out the key of each named purpose. It never prints itself."""

    def __init__(self, name: RootName, root_id: str, secret: bytes, generated: dict[str, bytes]) -> None:
        self.name: RootName = name
        self.root_id = root_id
        self._secret = secret
        self._generated = generated

    def __repr__(self) -> str:
        return f"<Root {self.name} {self.root_id}>"

    def derive(self, purpose: str) -> bytes:
        """The 32-byte key of a derived purpose: HKDF-SHA-256 (RFC 5869) with a label per root and purpose."""
        self._require(purpose, "derived")
        label = f"palladion/v1/{self.name}/{purpose}".encode()
        return HKDF(SHA256(), 32, salt=self.root_id.encode(), info=label).derive(self._secret)

    def signer(self, purpose: str) -> Ed25519Signer:
        """The signing key of a purpose. Generated, not derived, so that it can live in an HSM instead."""
        self._require(purpose, "signing")
        return Ed25519Signer(self._generated[purpose])

    def identity_secret(self, purpose: str) -> bytes:
        """The raw X25519 private key of an identity purpose, 32 bytes; never print or log it."""
        self._require(purpose, "identity")
        return self._generated[purpose]

    def public(self) -> PublicKeys:
        """The public side."""
        return PublicKeys(self.name, self.root_id, _public_keys(self.name, self._generated))

    def _require(self, purpose: str, source: str) -> None:
        if not any((p.root, p.name, p.source) == (self.name, purpose, source) for p in PURPOSES):
            raise ValueError(f"the {self.name} root has no {source} purpose {purpose!r}")


def create_root(name: RootName, recipients: Sequence[Recipient], *, created: datetime) -> tuple[Root, bytes]:
    """A new root with fresh keys, and its keyring file wrapped to each of `recipients`."""
    generated = {p.name: secrets.token_bytes(32) for p in PURPOSES if p.root == name and p.source != "derived"}
    root = Root(name, secrets.token_hex(8), secrets.token_bytes(32), generated)
    return root, wrap_root(root, recipients, created=created)


def wrap_root(root: Root, recipients: Sequence[Recipient], *, created: datetime) -> bytes:
    """The keyring file of `root` for `recipients`; also how a passphrase is changed or a host replaced."""
    if not recipients:
        raise ValueError("a root that nobody can unlock is lost: name at least one recipient")
    public = _public_document(root, created)
    context = _context(public)
    key_encryption_key = secrets.token_bytes(32)
    payload = {
        "secret": root._secret.hex(),
        "generated": {name: key.hex() for name, key in root._generated.items()},
    }
    nonce = secrets.token_bytes(12)
    body = nonce + AESGCM(key_encryption_key).encrypt(nonce, canonical.encode(payload), context)
    wraps = [wrap_document(recipient.wrap(key_encryption_key, context)) for recipient in recipients]
    return canonical.encode({**public, "wraps": wraps, "body": body.hex()})


def open_root(data: bytes, identities: Sequence[Identity], *, what: str) -> Root:
    """Unlock the keyring file `data` with the first of `identities` that it is wrapped to.

    Raises KeysError if none fits, FormatError if the file is broken, TamperError if it was altered.
    """
    document = _parse(data, what)
    context = _context({key: document[key] for key in ("v", "root", "id", "created", "public")})
    for wrap in (parse_wrap(item, what) for item in document["wraps"]):
        for identity in identities:
            key_encryption_key = identity.unwrap(wrap, context)
            if key_encryption_key is not None:
                return _open_body(document, key_encryption_key, context, what)
    kinds = ", ".join(sorted({str(item["kind"]) for item in document["wraps"]}))
    raise KeysError(f"{what} is wrapped to {kinds}, and none of the identities given opens it")


def read_public(data: bytes, *, what: str) -> PublicKeys:
    """The public keys that a keyring file states, one for each purpose; authenticated only when the root is opened.

    Raises FormatError.
    """
    document = _parse(data, what)
    stated = {name: bytes.fromhex(key) for name, key in document["public"].items()}
    expected = {p.name for p in PURPOSES if p.root == document["root"] and p.source != "derived"}
    if stated.keys() != expected:
        raise FormatError(f"{what} does not state exactly the public keys {', '.join(sorted(expected))}")
    return PublicKeys(document["root"], document["id"], stated)


def read_wraps(data: bytes, *, what: str) -> list[Wrap]:
    """To whom a keyring file is wrapped."""
    return [parse_wrap(item, what) for item in _parse(data, what)["wraps"]]


def wrap_document(wrap: Wrap) -> dict[str, Any]:
    """A wrap as it stands in canonical JSON."""
    return {"kind": wrap.kind, "key_id": wrap.key_id, "parameters": wrap.parameters, "blob": wrap.blob.hex()}


def parse_wrap(item: Any, what: str) -> Wrap:
    """The wrap of a canonical JSON object. Raises FormatError, naming `what`, on any other shape."""
    try:
        return msgspec.convert({**item, "blob": bytes.fromhex(item["blob"])}, Wrap, strict=True)
    except (msgspec.ValidationError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{what} has a wrap of an unknown shape: {error}") from None


def _open_body(document: dict[str, Any], key_encryption_key: bytes, context: bytes, what: str) -> Root:
    body = bytes.fromhex(document["body"])
    try:
        plaintext = AESGCM(key_encryption_key).decrypt(body[:12], body[12:], context)
    except (InvalidTag, ValueError):
        raise TamperError(f"{what} was altered: its body does not authenticate", "restore it from a backup") from None
    payload = canonical.decode(plaintext, size_max=KEYRING_BYTES_MAX, what=what)
    generated = {name: bytes.fromhex(key) for name, key in payload["generated"].items()}
    root = Root(document["root"], document["id"], bytes.fromhex(payload["secret"]), generated)
    if {name: key.hex() for name, key in root.public().keys.items()} != document["public"]:
        raise TamperError(f"{what} states public keys that are not those of its private keys")
    return root


def _parse(data: bytes, what: str) -> dict[str, Any]:
    document = canonical.decode(data, size_max=KEYRING_BYTES_MAX, what=what)
    try:
        parsed = msgspec.convert(document, _Keyring, strict=True)
        # hex has two cases and tolerates blanks, and a wrap could carry fields that nobody reads
        wraps = [wrap_document(parse_wrap(item, what)) for item in parsed.wraps]
        if bytes.fromhex(parsed.body).hex() != parsed.body or wraps != parsed.wraps:
            raise ValueError("its hex is not canonical, or a wrap has unknown fields")
        if any(len(bytes.fromhex(key)) != 32 or bytes.fromhex(key).hex() != key for key in parsed.public.values()):
            raise ValueError("a public key is not 32 bytes of canonical hex")
    except (msgspec.ValidationError, ValueError) as error:
        raise FormatError(f"{what} is not a keyring file: {error}") from None
    return cast("dict[str, Any]", document)


class _Keyring(msgspec.Struct, forbid_unknown_fields=True):
    v: Literal[1]
    root: RootName
    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
    created: str
    public: dict[str, str]
    wraps: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1, max_length=WRAPS_MAX)]
    body: str


def _public_document(root: Root, created: datetime) -> dict[str, Any]:
    public = {name: key.hex() for name, key in root.public().keys.items()}
    return {"v": 1, "root": root.name, "id": root.root_id, "created": timestamp(created), "public": public}


def _context(public_document: dict[str, Any]) -> bytes:
    # binds body and wraps to the public part: exchanging a public key breaks every wrap
    return _DOMAIN + sha256(canonical.encode(public_document)).digest()


def _public_keys(root: RootName, generated: dict[str, bytes]) -> dict[str, bytes]:
    public = {}
    for purpose in PURPOSES:
        if purpose.root == root and purpose.source == "signing":
            public[purpose.name] = Ed25519Signer(generated[purpose.name]).public_key
        elif purpose.root == root and purpose.source == "identity":
            private = X25519PrivateKey.from_private_bytes(generated[purpose.name])
            public[purpose.name] = private.public_key().public_bytes_raw()
    return public
