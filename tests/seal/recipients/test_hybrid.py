"""Hybrid identities: HPKE with ML-KEM and X25519, text forms, and a second reading of the drafts that agrees."""

import hmac
import json
from hashlib import sha3_256, shake_128, shake_256
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError, KeysError
from palladion.keys import Wrap
from palladion.seal.bech32 import encode_key
from palladion.seal.recipients.hybrid import (
    HybridIdentity,
    HybridRecipient,
    parse_hybrid_identity,
    parse_hybrid_recipient,
)
from tests.seal.factories import Party

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "wraps" / "mlkem768-x25519.json").read_text()
)
SEED = bytes(range(32))
SECRET = bytes(range(32, 64))
KIND = "mlkem768-x25519"


@given(secret=st.binary(max_size=64), context=st.binary(max_size=64))
def test_secrets_survive_the_round_trip(secret: bytes, context: bytes) -> None:
    identity = HybridIdentity.generate()
    wrap = identity.recipient.wrap(secret, context)
    assert (wrap.kind, wrap.key_id, wrap.parameters) == (KIND, identity.recipient.key_id, {})
    assert len(wrap.blob) == 1120 + len(secret) + 16
    assert identity.unwrap(wrap, context) == secret


def test_what_is_wrapped_opens_with_a_second_reading_of_the_drafts() -> None:
    identity = HybridIdentity(SEED)
    wrap = identity.recipient.wrap(SECRET, b"context")
    assert _Second(SEED).open(wrap.blob, b"context") == SECRET


def test_the_second_reading_gives_the_published_answer() -> None:
    vector = {name: value if name == "source" else bytes.fromhex(value) for name, value in VECTORS["published"].items()}
    second = _Second(vector["seed"])
    assert second.public_key == HybridIdentity(vector["seed"]).recipient.public_key == vector["public_key"]
    # HPKE's vectors draw a thousand contexts from SHAKE128 and hash what each exports
    suite = b"HPKE\x64\x7a\x00\x01\x00\x03"
    secret, schedule = second.schedule(vector["encapsulated"], vector["info"], suite)
    exporter = _expand(suite, secret, b"exp", schedule, 32)
    drawn, place, exported = shake_128(b"").digest(256 * 1000), 0, b""
    for length in range(1000):
        context = drawn[place + 1 : place + 1 + drawn[place]]
        place += 1 + len(context)
        exported += _expand(suite, exporter, b"sec", context, length) if length else b""
    assert shake_128(exported).digest(16) == vector["exports"]


def test_wraps_of_version_one_open() -> None:
    vector = VECTORS["wrap"]
    identity = parse_hybrid_identity(vector["identity"], what="it")
    assert identity.unsafe_text() == HybridIdentity(bytes.fromhex(vector["seed"])).unsafe_text() == vector["identity"]
    assert (str(identity.recipient), identity.recipient.key_id) == (vector["recipient"], vector["key_id"])
    wrap = Wrap(KIND, vector["key_id"], {}, bytes.fromhex(vector["blob"]))
    context = bytes.fromhex(vector["context"])
    assert identity.unwrap(wrap, context) == bytes.fromhex(vector["secret"])
    assert _Second(bytes.fromhex(vector["seed"])).open(wrap.blob, context) == bytes.fromhex(vector["secret"])


def test_a_sealed_file_opens_with_it(tmp_path: Path) -> None:
    party, identity = Party(), HybridIdentity.generate()
    path = party.seal(tmp_path / "x", recipients=[party.identity.recipient, identity.recipient])
    assert party.open(path, identity) == party.open(path) == {"model.bin": b"weights"}


def test_a_wrap_for_another_key_is_not_tried() -> None:
    wrap = HybridIdentity.generate().recipient.wrap(SECRET, b"context")
    assert HybridIdentity.generate().unwrap(wrap, b"context") is None
    assert HybridIdentity.generate().unwrap(Wrap("x25519", wrap.key_id, {}, wrap.blob), b"context") is None


def test_another_context_does_not_open() -> None:
    identity = HybridIdentity.generate()
    with pytest.raises(KeysError, match="does not open"):
        identity.unwrap(identity.recipient.wrap(SECRET, b"context"), b"other")


@pytest.mark.slow
def test_one_flipped_bit_is_found_in_every_byte() -> None:
    identity = HybridIdentity.generate()
    wrap = identity.recipient.wrap(SECRET, b"context")
    for place in range(len(wrap.blob)):
        blob = bytearray(wrap.blob)
        blob[place] ^= 1 << place % 8
        with pytest.raises(KeysError):
            identity.unwrap(Wrap(KIND, wrap.key_id, {}, bytes(blob)), b"context")


def test_neither_half_alone_opens_a_wrap() -> None:
    # what an attacker has who broke X25519, or ML-KEM, alone: one half's key right and the other's wrong
    expanded, other = shake_256(SEED).digest(96), shake_256(b"other").digest(96)
    wrap = HybridIdentity(SEED).recipient.wrap(SECRET, b"context")
    for halves in (expanded[:64] + other[64:], other[:64] + expanded[64:]):
        broken = _Second(SEED)
        broken.mlkem, broken.x25519 = _halves(halves)
        with pytest.raises(InvalidTag):
            broken.open(wrap.blob, b"context")


@pytest.mark.parametrize("size", [0, 32, 1088, 1120, 1135, 1169])
def test_a_blob_of_another_length_is_refused(size: int) -> None:
    identity = HybridIdentity(SEED)
    with pytest.raises(KeysError):
        identity.unwrap(Wrap(KIND, identity.recipient.key_id, {}, bytes(size)), b"context")


def test_an_ephemeral_key_of_low_order_is_refused() -> None:
    identity = HybridIdentity(SEED)
    blob = identity.recipient.wrap(SECRET, b"context").blob
    with pytest.raises(KeysError):
        identity.unwrap(Wrap(KIND, identity.recipient.key_id, {}, blob[:1088] + bytes(32) + blob[1120:]), b"context")


def test_parameters_are_refused() -> None:
    identity = HybridIdentity(SEED)
    with pytest.raises(FormatError, match="has parameters"):
        identity.unwrap(Wrap(KIND, identity.recipient.key_id, {"suite": 1}, bytes(1168)), b"context")


@pytest.mark.slow
@given(st.binary(min_size=32, max_size=32))
def test_keys_survive_their_text_forms_in_both_cases(seed: bytes) -> None:
    identity = HybridIdentity(seed)
    text = str(identity.recipient)
    assert text.startswith("pallr1h")
    assert parse_hybrid_recipient(text) == parse_hybrid_recipient(text.upper()) == identity.recipient
    assert identity.unsafe_text().startswith("PALLADION-IDENTITY-MLKEM768X25519-1")
    assert parse_hybrid_identity(identity.unsafe_text(), what="it").recipient == identity.recipient


def test_texts_that_are_cut_or_extended_are_refused() -> None:
    text = str(HybridIdentity(SEED).recipient)
    assert len(text) == 1959
    for wrong in (text[:-1], text[:90], text + "q", text[:1000] + text[1001:], text + " "):
        with pytest.raises(FormatError, match="the recipient"):
            parse_hybrid_recipient(wrong)
    with pytest.raises(FormatError, match="1960 characters"):
        parse_hybrid_recipient(text + "q")


@pytest.mark.parametrize("half", [bytes(32), b"\x01" + bytes(31), bytes.fromhex("ec" + "ff" * 30 + "7f")])
def test_keys_whose_x25519_half_has_low_order_are_refused(half: bytes) -> None:
    public_key = HybridIdentity(SEED).recipient.public_key[:1184] + half
    with pytest.raises(ValueError):
        HybridRecipient(public_key)
    with pytest.raises(FormatError, match="low order"):
        parse_hybrid_recipient(encode_key("pallr", public_key, tag="h"))


def test_keys_whose_ml_kem_half_has_a_number_above_the_modulus_are_refused() -> None:
    # FIPS 203 §7.2: 12-bit numbers below 3329; another encoding of the same key would give it a second name
    public_key = bytearray(HybridIdentity(SEED).recipient.public_key)
    public_key[0], public_key[1] = 0x01, public_key[1] & 0xF0 | 0x0D  # 0xD01 = 3329
    with pytest.raises(FormatError, match="not a key"):
        parse_hybrid_recipient(encode_key("pallr", bytes(public_key), tag="h"))


@pytest.mark.parametrize("size", [0, 32, 1184, 1215, 1217])
def test_bytes_of_another_length_are_no_key(size: int) -> None:
    with pytest.raises(ValueError):
        HybridRecipient((HybridIdentity(SEED).recipient.public_key + b"x")[:size])
    with pytest.raises(ValueError, match="expected 32"):
        HybridIdentity(bytes(size + 1 if size == 32 else size))


def test_private_keys_are_not_printed() -> None:
    identity = HybridIdentity(SEED)
    shown = f"{identity!r} {identity} {identity.recipient!r}"
    assert SEED.hex() not in shown
    assert repr(SEED) not in shown
    assert identity.unsafe_text()[35:60] not in shown
    with pytest.raises(TypeError):
        vars(identity)
    with pytest.raises(FormatError) as refusal:
        parse_hybrid_identity(identity.unsafe_text()[:-1] + "Q", what="it")
    assert identity.unsafe_text()[35:50] not in str(refusal.value)


class _Second:
    """draft-ietf-hpke-pq and RFC 9180 §5.1 spelt out, for a private key of which only the seed is known."""

    def __init__(self, seed: bytes) -> None:
        self.mlkem, self.x25519 = _halves(shake_256(seed).digest(96))
        self.public_key = self.mlkem.public_key().public_bytes_raw() + self.x25519.public_key().public_bytes_raw()

    def open(self, blob: bytes, info: bytes) -> bytes:
        suite = b"HPKE\x64\x7a\x00\x01\x00\x02"
        secret, schedule = self.schedule(blob[:1120], info, suite)
        key, nonce = _expand(suite, secret, b"key", schedule, 32), _expand(suite, secret, b"base_nonce", schedule, 12)
        return AESGCM(key).decrypt(nonce, blob[1120:], b"")

    def schedule(self, encapsulated: bytes, info: bytes, suite: bytes) -> tuple[bytes, bytes]:
        first = self.mlkem.decapsulate(encapsulated[:1088])
        second = self.x25519.exchange(X25519PublicKey.from_public_bytes(encapsulated[1088:]))
        shared = sha3_256(first + second + encapsulated[1088:] + self.public_key[1184:] + b"\\.//^\\").digest()
        psk, info_hash = _extract(suite, b"", b"psk_id_hash", b""), _extract(suite, b"", b"info_hash", info)
        return _extract(suite, shared, b"secret", b""), b"\x00" + psk + info_hash


def _halves(expanded: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    return MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])


def _extract(suite: bytes, salt: bytes, label: bytes, secret: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + secret, "sha256")


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return HKDFExpand(SHA256(), length, labelled).derive(prk)
