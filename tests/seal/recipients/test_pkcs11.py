"""Keys in an HSM: wraps with either mechanism, known answers, attacks on them, and the PIN."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palladion.errors import ConflictError, FormatError, KeysError, NotFoundError, StorageError
from palladion.keys import Wrap
from palladion.seal.recipients import pkcs11 as module
from palladion.seal.recipients.pkcs11 import Pkcs11Key, generate_key, parse, read_pin
from tests.seal.factories import Party
from tests.seal.recipients.tokens import PIN, Token, needs_softhsm

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "wraps" / "pkcs11.json").read_text())
SECRET = bytes(range(32))
WRAPS_ONLY: dict[str, Any] = {"ENCRYPT": False, "DECRYPT": False, "WRAP": True, "UNWRAP": True}
NOWHERE = "pkcs11:token=troy;object=kek;id=%00%01%02%03%04%05%06%07?module-path=/missing.so"
mechanisms = pytest.mark.parametrize(
    ("mechanism", "attributes"), [("aes-gcm", {}), ("aes-kw", WRAPS_ONLY)], ids=["aes-gcm", "aes-kw"]
)


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Token:
    return Token.create(tmp_path, monkeypatch)


def _changed(wrap: Wrap, blob: bytes | None = None, **parameters: Any) -> Wrap:
    return Wrap(wrap.kind, wrap.key_id, {**wrap.parameters, **parameters}, wrap.blob if blob is None else blob)


@needs_softhsm
@mechanisms
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secret=st.binary(min_size=32, max_size=32), context=st.binary(max_size=128))
def test_secrets_survive_the_round_trip(
    token: Token, mechanism: str, attributes: dict[str, Any], secret: bytes, context: bytes
) -> None:
    label = f"kek{len(list(token.pin_file.parent.rglob('*')))}"
    key = token.put(label, **attributes)
    wrap = key.wrap(secret, context)
    assert (wrap.kind, wrap.key_id, wrap.parameters["mechanism"]) == ("pkcs11", key.key_id, mechanism)
    assert len(wrap.blob) == 80 + (48 if mechanism == "aes-gcm" else 40)
    assert parse(token.uri(label)).unwrap(wrap, context) == secret


@needs_softhsm
def test_a_sealed_file_opens_with_the_token(token: Token, tmp_path: Path) -> None:
    party, key = Party(), generate_key(token.uri())
    path = party.seal(tmp_path / "x", recipients=[party.identity.recipient, key])
    assert party.open(path, parse(str(key))) == party.open(path) == {"model.bin": b"weights"}


@needs_softhsm
@pytest.mark.parametrize("vector", VECTORS["wraps"], ids=lambda vector: vector["parameters"]["mechanism"])
def test_wraps_of_version_one_open(token: Token, vector: dict[str, Any]) -> None:
    uses: dict[str, Any] = dict.fromkeys(WRAPS_ONLY, True)
    key = token.put(value=bytes.fromhex(VECTORS["key"]), ID=bytes.fromhex(VECTORS["id"]), **uses)
    assert key.key_id == VECTORS["key_id"]
    wrap = Wrap("pkcs11", VECTORS["key_id"], vector["parameters"], bytes.fromhex(vector["blob"]))
    assert key.unwrap(wrap, bytes.fromhex(VECTORS["context"])) == bytes.fromhex(VECTORS["secret"])


@needs_softhsm
def test_a_key_opens_what_it_wrapped_after_it_was_restored_to_another_token(
    token: Token, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, key_id = bytes(range(32)), bytes(range(16))
    wrap = token.put(value=value, ID=key_id).wrap(SECRET, b"context")
    spare = Token.create(tmp_path, monkeypatch, label="spare")
    assert spare.put("restored", value=value, ID=key_id).unwrap(wrap, b"context") == SECRET


@needs_softhsm
def test_a_new_key_is_named_by_its_id_and_by_its_label(token: Token) -> None:
    made = generate_key(token.uri())
    assert str(made) == token.uri(rest=f";id={''.join(f'%{byte:02X}' for byte in made.uri.id)}")
    assert made.key_id == parse(str(made)).key_id == parse(token.uri()).key_id
    with pytest.raises(ConflictError, match="already"):
        generate_key(token.uri())
    for text in (str(made), token.uri().replace("object=kek", "id=%01%02%03%04%05%06%07%08")):
        with pytest.raises(FormatError, match="of a new key"):
            generate_key(text)


def test_a_wrap_for_another_key_costs_no_visit_where_the_uri_has_an_id() -> None:
    key = parse(NOWHERE)
    assert key.unwrap(Wrap("x25519", key.key_id, {}, b""), b"context") is None
    assert key.unwrap(Wrap("pkcs11", "0123456789abcdef", {}, b""), b"context") is None


@needs_softhsm
def test_a_wrap_for_another_key_is_not_tried(token: Token) -> None:
    wrap = token.put("first").wrap(SECRET, b"context")
    assert token.put("second").unwrap(wrap, b"context") is None


@needs_softhsm
@mechanisms
def test_another_context_does_not_open(token: Token, mechanism: str, attributes: dict[str, Any]) -> None:
    key = token.put(**attributes)
    with pytest.raises(KeysError, match="does not open"):
        key.unwrap(key.wrap(SECRET, b"context"), b"other")


@needs_softhsm
@mechanisms
def test_one_flipped_bit_is_found_in_every_byte(token: Token, mechanism: str, attributes: dict[str, Any]) -> None:
    key = token.put(**attributes)
    wrap = key.wrap(SECRET, b"context")
    for place in range(len(wrap.blob)):
        blob = bytearray(wrap.blob)
        blob[place] ^= 1 << place % 8
        with pytest.raises(KeysError, match=r"open|damaged"):
            key.unwrap(_changed(wrap, bytes(blob)), b"context")


@needs_softhsm
def test_another_iv_does_not_open(token: Token) -> None:
    key = token.put()
    wrap = key.wrap(SECRET, b"context")
    with pytest.raises(KeysError, match="does not open"):
        key.unwrap(_changed(wrap, iv="00" * 12), b"context")
    assert wrap.parameters["iv"] != key.wrap(SECRET, b"context").parameters["iv"]


@needs_softhsm
def test_a_blob_cannot_hold_two_secrets(token: Token) -> None:
    # whoever may use the key can have any inner key wrapped; the commitment in front admits one of them only
    value = bytes(range(32))
    key = token.put(value=value)
    wrap = key.wrap(SECRET, b"context")
    iv = bytes.fromhex(str(wrap.parameters["iv"]))
    forged = wrap.blob[:80] + AESGCM(value).encrypt(iv, b"\x07" * 32, b"context")
    with pytest.raises(KeysError, match="does not open"):
        key.unwrap(_changed(wrap, forged), b"context")


@needs_softhsm
def test_a_key_is_used_with_the_mechanisms_that_it_is_for(token: Token) -> None:
    gcm, wrapping = token.put("gcm"), token.put("wrapping", **WRAPS_ONLY)
    first, second = gcm.wrap(SECRET, b"context"), wrapping.wrap(SECRET, b"context")
    swapped = Wrap("pkcs11", gcm.key_id, second.parameters, second.blob)
    with pytest.raises(KeysError, match="may not be used with aes-kw"):
        gcm.unwrap(swapped, b"context")
    with pytest.raises(KeysError, match="may not be used with aes-gcm"):
        wrapping.unwrap(Wrap("pkcs11", wrapping.key_id, first.parameters, first.blob), b"context")
    unfit = token.put("unfit", ENCRYPT=False, DECRYPT=True, WRAP=True)
    with pytest.raises(KeysError, match="neither AES-GCM nor AES key wrap"):
        unfit.wrap(SECRET, b"context")


@needs_softhsm
def test_a_token_that_does_not_give_back_what_it_encrypted_is_found_while_wrapping(
    token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    # some tokens choose an IV of their own: without the check the file could never be opened again
    key = token.put()
    monkeypatch.setattr(module, "_unwrap_key", lambda *_: bytes(32))
    with pytest.raises(KeysError, match="does not give back"):
        key.wrap(SECRET, b"context")


@needs_softhsm
def test_threads_take_turns_at_the_token(token: Token) -> None:
    key = token.put()
    with ThreadPoolExecutor(8) as pool:
        wraps = list(pool.map(lambda _: key.wrap(SECRET, b"context"), range(24)))
        assert list(pool.map(lambda wrap: key.unwrap(wrap, b"context"), wraps)) == [SECRET] * 24


@needs_softhsm
def test_a_key_that_took_the_label_meanwhile_is_not_used(token: Token, monkeypatch: pytest.MonkeyPatch) -> None:
    key = token.put(ID=b"\x01" * 16)
    before = key.key_id
    other = Token.create(token.pin_file.parent, monkeypatch)
    other.put(ID=b"\x02" * 16)
    with pytest.raises(NotFoundError):
        key.wrap(SECRET, b"context")
    assert key.key_id == before


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"mechanism": "aes-gcm"},
        {"mechanism": "aes-gcm", "iv": 7},
        {"mechanism": "aes-gcm", "iv": "00" * 11},
        {"mechanism": "aes-gcm", "iv": "AB" * 12},
        {"mechanism": "aes-gcm", "iv": "00" * 12, "tag": 4},
        {"mechanism": "aes-kw", "iv": "00" * 12},
        {"mechanism": "aes-ecb"},
        {"mechanism": 1},
    ],
)
def test_parameters_of_another_shape_cost_no_visit(parameters: dict[str, str | int]) -> None:
    key = parse(NOWHERE)
    with pytest.raises(FormatError, match="parameters"):
        key.unwrap(Wrap("pkcs11", key.key_id, parameters, bytes(128)), b"context")


@pytest.mark.parametrize("size", [0, 80, 127, 129, 8192])
def test_blobs_of_another_length_cost_no_visit(size: int) -> None:
    key = parse(NOWHERE)
    with pytest.raises(FormatError):
        key.unwrap(Wrap("pkcs11", key.key_id, {"mechanism": "aes-gcm", "iv": "00" * 12}, bytes(size)), b"context")


@needs_softhsm
def test_the_pin_is_asked_for_once_where_no_file_has_it(token: Token) -> None:
    token.put()
    asked = []

    def ask(name: str) -> str:
        asked.append(name)
        return PIN

    text = token.uri().partition("&pin-source")[0]
    key = parse(text, ask_pin=ask)
    assert key.unwrap(key.wrap(SECRET, b"context"), b"context") == SECRET
    assert asked == ["troy"]
    assert PIN not in f"{key!r} {key}"
    with pytest.raises(TypeError):
        vars(key)
    with pytest.raises(KeysError, match="needs a PIN"):
        parse(text).wrap(SECRET, b"context")


@needs_softhsm
def test_a_wrong_pin_in_the_file_is_an_error_without_the_pin(token: Token) -> None:
    key = token.put()
    token.pin_file.write_text("hunter2")
    for _ in range(2):
        with pytest.raises(KeysError, match="PIN") as refusal:
            key.wrap(SECRET, b"context")
        assert "hunter2" not in f"{refusal.value} {refusal.value.hints}"


@pytest.mark.parametrize("content", [b"", b"\n", b"12\n34", b"x" * 256, b"x" * 1000, b"\xff\xff", b"12\x0034"])
def test_pin_files_that_hold_no_pin_are_refused_without_quoting_them(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pin"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(FormatError, match="PIN file") as refusal:
        read_pin(path)
    assert "xx" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"1234", b"1234\n", b"1234\r\n"])
def test_a_pin_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pin"
    path.write_bytes(content)
    path.chmod(0o400)
    assert read_pin(path) == "1234"


def test_a_pin_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pin"
    path.write_text("1234")
    path.chmod(0o640)
    with pytest.raises(KeysError, match="mode 0640"):
        read_pin(path)
    with pytest.raises(StorageError):
        read_pin(tmp_path / "missing")


def test_keys_are_equal_by_their_uri() -> None:
    assert parse(NOWHERE) == parse(NOWHERE)
    assert len({parse(NOWHERE), parse(NOWHERE)}) == 1
    assert parse(NOWHERE) != parse(NOWHERE.replace("kek", "other"))
    assert parse(NOWHERE) != NOWHERE
    assert str(parse(NOWHERE)) == NOWHERE


def test_an_id_that_many_keys_could_have_is_refused() -> None:
    with pytest.raises(FormatError, match="CKA_ID of 1 bytes"):
        parse("pkcs11:token=troy;object=kek;id=%01?module-path=/missing.so")
    assert isinstance(parse(NOWHERE), Pkcs11Key)
