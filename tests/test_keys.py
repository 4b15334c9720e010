"""The keyring: two roots, named purposes, wraps that bind what they state."""

import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from palladion import canonical, keys
from palladion.errors import FormatError, KeysError, PalladionError, TamperError
from palladion.keys import (
    Ed25519Signer,
    Identity,
    Wrap,
    create_root,
    ed25519_public_key,
    open_root,
    read_public,
    read_wraps,
    wrap_root,
)
from palladion.purposes import PURPOSES, RootName

from .small_order import FORGED, ORDER_1, WEAK

CREATED = datetime(2026, 1, 2, tzinfo=UTC)


class Box:
    """A recipient and its identity in one: AES key wrap under a key made from its name and the context."""

    kind = "box"

    def __init__(self, name: str) -> None:
        self.key_id = name

    def _key(self, context: bytes) -> bytes:
        return hmac.digest(self.key_id.encode(), context, "sha256")

    def wrap(self, secret: bytes, context: bytes) -> Wrap:
        return Wrap(self.kind, self.key_id, {"size": len(secret)}, aes_key_wrap(self._key(context), secret))

    def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None:
        if (wrap.kind, wrap.key_id) != (self.kind, self.key_id):
            return None
        if wrap.parameters != {"size": 32}:
            raise KeysError("the box has another size")
        try:
            return aes_key_unwrap(self._key(context), wrap.blob)
        except InvalidUnwrap:
            raise KeysError("the box does not open") from None


def _open(data: bytes, *identities: Identity) -> keys.Root:
    return open_root(data, identities, what="the keyring")


@pytest.mark.parametrize("name", ["owner", "gate"])
def test_each_recipient_alone_opens_the_same_root(name: RootName) -> None:
    root, data = create_root(name, [Box("a"), Box("b")], created=CREATED)
    for identity in (Box("a"), Box("b")):
        opened = _open(data, Box("stranger"), identity)
        for purpose in (p for p in PURPOSES if p.root == name):
            if purpose.source == "derived":
                assert opened.derive(purpose.name) == root.derive(purpose.name)
        assert opened.public() == root.public() == read_public(data, what="the keyring")
    assert [wrap.key_id for wrap in read_wraps(data, what="the keyring")] == ["a", "b"]


def test_a_stranger_does_not_open_a_root_and_is_told_what_would() -> None:
    _, data = create_root("gate", [Box("a")], created=CREATED)
    with pytest.raises(KeysError, match="wrapped to box, and none of the identities"):
        _open(data, Box("stranger"))


def test_every_purpose_has_a_key_of_its_own() -> None:
    owner, _ = create_root("owner", [Box("a")], created=CREATED)
    gate, _ = create_root("gate", [Box("a")], created=CREATED)
    made = []
    for root, purpose in ((root, p) for root in (owner, gate) for p in PURPOSES if p.root == root.name):
        if purpose.source == "derived":
            made.append(root.derive(purpose.name))
        elif purpose.source == "signing":
            made.append(root.signer(purpose.name).public_key)
        else:
            made.append(root.identity_secret(purpose.name))
    assert len(set(made)) == len(PURPOSES)
    assert all(len(key) == 32 for key in made)


def test_a_derived_key_is_hkdf_with_the_documented_label() -> None:
    root, _ = create_root("gate", [Box("a")], created=CREATED)
    # RFC 5869 written out: extract with the root id as salt, then one block of expand
    extracted = hmac.digest(root.root_id.encode(), root._secret, "sha256")
    expanded = hmac.digest(extracted, b"palladion/v1/gate/pseudonyms\x01", "sha256")
    assert root.derive("pseudonyms") == expanded


def test_a_purpose_of_the_other_root_or_kind_is_refused() -> None:
    gate, _ = create_root("gate", [Box("a")], created=CREATED)
    with pytest.raises(ValueError, match="no derived purpose 'mark'"):
        gate.derive("mark")
    with pytest.raises(ValueError, match="no derived purpose 'checkpoint'"):
        gate.derive("checkpoint")
    with pytest.raises(ValueError, match="no signing purpose 'pseudonyms'"):
        gate.signer("pseudonyms")
    with pytest.raises(ValueError, match="no identity purpose 'owner'"):
        gate.identity_secret("owner")


def test_a_signature_verifies_under_the_public_key_that_the_file_states() -> None:
    root, data = create_root("gate", [Box("a")], created=CREATED)
    signature = root.signer("checkpoint").sign(b"message")
    public = read_public(data, what="the keyring").keys["checkpoint"]
    Ed25519PublicKey.from_public_bytes(public).verify(signature, b"message")


def test_a_root_wrapped_again_opens_for_the_new_recipient_only() -> None:
    root, _ = create_root("owner", [Box("old")], created=CREATED)
    data = wrap_root(root, [Box("new")], created=CREATED)
    assert _open(data, Box("new")).derive("mark") == root.derive("mark")
    with pytest.raises(KeysError):
        _open(data, Box("old"))


def test_a_root_that_nobody_could_open_is_not_made() -> None:
    with pytest.raises(ValueError, match="at least one recipient"):
        create_root("owner", [], created=CREATED)


def test_neither_repr_nor_file_shows_a_secret() -> None:
    root, data = create_root("owner", [Box("a")], created=CREATED)
    secrets = [root.derive("mark"), root.identity_secret("owner"), root._secret]
    for secret in secrets:
        assert secret.hex() not in repr(root)
        assert secret.hex().encode() not in data
        assert secret not in data


def test_each_flipped_byte_of_a_keyring_file_is_caught() -> None:
    _, data = create_root("gate", [Box("a")], created=CREATED)
    for position in range(len(data)):
        broken = bytearray(data)
        broken[position] ^= 0x01
        with pytest.raises(PalladionError):
            _open(bytes(broken), Box("a"))


def test_an_exchanged_public_key_is_caught() -> None:
    _, data = create_root("owner", [Box("a")], created=CREATED)
    other, _ = create_root("owner", [Box("a")], created=CREATED)
    document = json.loads(data)
    document["public"]["publisher"] = other.public().keys["publisher"].hex()
    with pytest.raises(KeysError, match="does not open"):
        _open(canonical.encode(document), Box("a"))


def test_a_body_from_another_wrap_of_the_same_root_is_caught() -> None:
    root, data = create_root("owner", [Box("a")], created=CREATED)
    document = json.loads(data)
    document["body"] = json.loads(wrap_root(root, [Box("a")], created=CREATED))["body"]
    with pytest.raises(TamperError, match="does not authenticate"):
        _open(canonical.encode(document), Box("a"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("v", 2),
        ("root", "other"),
        ("id", "zz"),
        ("wraps", []),
        ("wraps", [{"kind": "box"}]),
        ("wraps", [{"kind": "box", "key_id": "a", "parameters": {"x": []}, "blob": ""}]),
        ("public", {"publisher": "00"}),
        ("body", "xyz"),
        ("body", "AB"),
        ("id", "0123456789abcdef\n"),
        ("extra", 1),
    ],
)
def test_a_keyring_of_another_shape_is_refused(field: str, value: object) -> None:
    _, data = create_root("gate", [Box("a")], created=CREATED)
    document = json.loads(data)
    document[field] = value
    with pytest.raises(FormatError, match="the keyring"):
        _open(canonical.encode(document), Box("a"))


@pytest.mark.parametrize("change", [dict.clear, lambda public: public.pop("gate"), lambda public: public.update(x="")])
def test_public_keys_that_are_not_one_for_each_purpose_are_not_read(change: Callable[[dict[str, str]], None]) -> None:
    _, data = create_root("gate", [Box("a")], created=CREATED)
    document = json.loads(data)
    change(document["public"])
    document["public"] = {name: key or "00" * 32 for name, key in document["public"].items()}
    with pytest.raises(FormatError, match="the keyring does not state exactly the public keys checkpoint, gate"):
        read_public(canonical.encode(document), what="the keyring")


def test_a_keyring_with_too_many_wraps_is_refused_before_any_is_tried() -> None:
    _, data = create_root("gate", [Box("a")], created=CREATED)
    document = json.loads(data)
    document["wraps"] *= keys.WRAPS_MAX + 1
    with pytest.raises(FormatError, match="not a keyring file"):
        _open(canonical.encode(document), Box("a"))


def test_the_file_key_of_a_keyring_depends_on_what_it_states() -> None:
    # the context is part of the format: domain and SHA-256 of the public part
    _, data = create_root("gate", [Box("a")], created=CREATED)
    document = json.loads(data)
    public = {key: document[key] for key in ("v", "root", "id", "created", "public")}
    context = b"palladion/v1/keyring" + sha256(canonical.encode(public)).digest()
    assert Box("a").unwrap(read_wraps(data, what="it")[0], context) is not None


@pytest.mark.parametrize(
    "raw",
    [
        *WEAK,
        bytes(32),  # order 4
        b"\xec" + b"\xff" * 30 + b"\x7f",  # order 2
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),  # order 8, and a sign
        ORDER_1[:-1] + b"\x80",  # the neutral point with a sign that it has not
        b"\xee" + b"\xff" * 30 + b"\x7f",  # the neutral point as 2^255 - 18
        b"\xf5" + b"\xff" * 31,  # another second spelling
        b"\x09" * 31,
        b"\x09" * 33,
        b"",
    ],
)
def test_a_key_for_which_anybody_can_sign_is_none(raw: bytes) -> None:
    with pytest.raises(FormatError, match="its key is no Ed25519 public key"):
        ed25519_public_key(raw, what="its key")


def test_a_key_from_outside_is_the_one_that_was_sent() -> None:
    own = Ed25519Signer(b"\x07" * 32)
    ed25519_public_key(own.public_key, what="it").verify(own.sign(b"a"), b"a")
    # and what is refused is no theory
    Ed25519PublicKey.from_public_bytes(ORDER_1).verify(FORGED, b"whatever")
