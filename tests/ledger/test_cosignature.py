"""Cosignatures, held against the specification's construction written out again here."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palladion.errors import FormatError, TamperError
from palladion.keys import Ed25519Signer
from palladion.ledger.checkpoint import Checkpoint, VerifierKey, parse_note, sign_checkpoint
from palladion.ledger.cosignature import (
    WitnessKey,
    cosign,
    cosignatures,
    parse_witness_key,
    verify_witnessed,
    with_cosignatures,
)
from tests.small_order import FORGED, WEAK

from .ledgers import KEY, ORIGIN, SIGNER

NOTE = sign_checkpoint(Checkpoint(ORIGIN, 77, bytes(range(32))), SIGNER)
TEXT = parse_note(NOTE)[0]
AT = datetime(2026, 11, 26, 9, 30, tzinfo=UTC)
WITNESSES = [Ed25519Signer(bytes([n]) * 32) for n in range(1, 4)]
KEYS = [WitnessKey(f"witness.example/w{n}", signer.public_key) for n, signer in enumerate(WITNESSES)]


# A checkpoint of a Certificate Transparency log, and who cosigned it on 2026-05-23, as published; and one witness's key
# as its operator gives it. None of it was made by us.
PUBLISHED = """\
arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkp\
tQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g\
8Ei59RA23oHP7Ry1k3ZFWwQ=
— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4A\
scylP3v7sEodkRAErumC2q44vdgJY096st5BQ==
— witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJb\
qmNWVuE0tgh0XwzdZsDsUAQ==
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtq\
B0DrAWfBw==
— witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2TUFucgKi7lI7cU\
iOvKFYe/TmN9DAg==
"""
REMORA = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"


def _line(n: int, text: bytes = TEXT, at: datetime = AT) -> bytes:
    return cosign(text, KEYS[n].name, WITNESSES[n], at)


def test_a_line_is_what_the_specification_says() -> None:
    dash, name, blob = _line(0).decode().removesuffix("\n").split(" ")
    raw = base64.b64decode(blob)
    assert (dash, name, len(raw)) == ("—", "witness.example/w0", 4 + 8 + 64)
    assert raw[:4] == hashlib.sha256(b"witness.example/w0\n\x04" + WITNESSES[0].public_key).digest()[:4]
    seconds = int.from_bytes(raw[4:12], "big")
    assert seconds == 1_795_685_400
    signed = (
        b"cosignature/v1\ntime 1795685400\n" + f"{ORIGIN}\n77\n".encode() + base64.b64encode(bytes(range(32))) + b"\n"
    )
    Ed25519PublicKey.from_public_bytes(WITNESSES[0].public_key).verify(raw[12:], signed)


def test_what_a_witness_that_is_not_ours_has_cosigned_is_read() -> None:
    key = parse_witness_key(REMORA)
    assert str(key) == REMORA
    found = cosignatures(PUBLISHED.encode(), [key])
    assert found == {key: datetime.fromtimestamp(0x6A122120, UTC)}


@pytest.mark.parametrize(
    ("old", "new"),
    [("1432088532", "1432088533"), ("U7WM", "U7WN"), ("2net5wAAAABqEiEg", "2net5wAAAABqEiEh"), ("PlfF3V", "PlfF3W")],
    ids=["size", "root", "time", "signature"],
)
def test_of_what_it_has_cosigned_nothing_can_be_changed(old: str, new: str) -> None:
    with pytest.raises(TamperError, match="does not hold"):
        cosignatures(PUBLISHED.replace(old, new).encode(), [parse_witness_key(REMORA)])


def test_a_key_is_written_and_read_as_other_tools_do() -> None:
    text = str(KEYS[0])
    assert parse_witness_key(text) == KEYS[0]
    name, key_id, data = text.split("+", 2)
    assert (name, bytes.fromhex(key_id)) == (KEYS[0].name, KEYS[0].key_id)
    assert base64.b64decode(data) == b"\x04" + KEYS[0].public_key
    with pytest.raises(FormatError):
        parse_witness_key(str(VerifierKey(KEYS[0].name, KEYS[0].public_key)))  # the key of a log is none


def test_who_cosigned_and_when_is_found_among_others() -> None:
    note = with_cosignatures(NOTE, [_line(0), _line(1, at=AT + timedelta(seconds=3)), _line(2)])
    assert cosignatures(note, KEYS[:2]) == {KEYS[0]: AT, KEYS[1]: AT + timedelta(seconds=3)}
    assert cosignatures(note, []) == {}


def test_of_two_cosignatures_of_one_the_latest_counts() -> None:
    note = with_cosignatures(NOTE, [_line(0, at=AT + timedelta(hours=1)), _line(0)])
    assert cosignatures(note, KEYS) == {KEYS[0]: AT + timedelta(hours=1)}


@pytest.mark.parametrize("place", [5, 20])  # in the time, in the signature
def test_a_cosignature_that_was_changed_is_told(place: int) -> None:
    dash, name, blob = _line(0).decode().split(" ")
    raw = bytearray(base64.b64decode(blob))
    raw[place] ^= 1
    forged = f"{dash} {name} {base64.b64encode(raw).decode()}\n".encode()
    with pytest.raises((TamperError, FormatError)):
        cosignatures(with_cosignatures(NOTE, [forged]), KEYS)


def test_a_cosignature_of_another_checkpoint_is_told() -> None:
    other = TEXT.replace(b"\n77\n", b"\n78\n")
    with pytest.raises(TamperError, match="does not hold"):
        cosignatures(with_cosignatures(NOTE, [_line(0, other)]), KEYS)


def test_a_signature_of_the_log_is_no_cosignature_even_by_the_same_key() -> None:
    key = WitnessKey(ORIGIN, SIGNER.public_key)
    assert cosignatures(NOTE, [key]) == {}


def test_a_quorum_counts_keys_and_not_names() -> None:
    note = with_cosignatures(NOTE, [_line(0), cosign(TEXT, "witness.example/again", WITNESSES[0], AT)])
    twice = [KEYS[0], WitnessKey("witness.example/again", WITNESSES[0].public_key)]
    assert len(verify_witnessed(note, KEY, twice, 1)[1]) == 2
    with pytest.raises(TamperError, match="2 are asked for"):
        verify_witnessed(note, KEY, twice, 2)
    with pytest.raises(TamperError):
        verify_witnessed(NOTE, KEY, KEYS, 1)


def test_a_witnessed_note_has_to_be_signed_by_the_log_too() -> None:
    other = VerifierKey(ORIGIN, WITNESSES[2].public_key)
    with pytest.raises(TamperError, match="no signature by the key"):
        verify_witnessed(with_cosignatures(NOTE, [_line(0)]), other, KEYS, 1)


@pytest.mark.parametrize("weak", WEAK, ids=["order 1", "order 8"])
def test_a_witness_for_whom_anybody_can_sign_is_none(weak: bytes) -> None:
    key = WitnessKey("witness.example/w9", weak)
    with pytest.raises(FormatError, match="the witness's key is no"):
        parse_witness_key(str(key))
    blob = base64.b64encode(key.key_id + (7).to_bytes(8) + FORGED).decode()
    with pytest.raises(FormatError, match="the witness's key is no"):
        cosignatures(with_cosignatures(NOTE, [f"— {key.name} {blob}\n".encode()]), [key])
