"""Passphrases: round trip, wrong ones, and what a stranger's file may make us spend."""

import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.errors import FormatError, KeysError
from palladion.keys import Wrap
from palladion.seal.recipients import passphrase as module
from palladion.seal.recipients.passphrase import DEFAULT_COST, Cost, PassphraseIdentity, PassphraseRecipient

CHEAP = Cost(memory_kib=32, iterations=1, lanes=1)
SECRET = bytes(range(32))


def _wrap(passphrase: str = "correct horse", context: bytes = b"context") -> Wrap:
    return PassphraseRecipient(passphrase, cost=CHEAP).wrap(SECRET, context)


def _changed(wrap: Wrap, blob: bytes | None = None, **parameters: Any) -> Wrap:
    return Wrap(wrap.kind, wrap.key_id, {**wrap.parameters, **parameters}, wrap.blob if blob is None else blob)


@settings(max_examples=30)
@given(
    passphrase=st.text(st.characters(codec="utf-8"), min_size=1, max_size=40), secret=st.binary(max_size=64),
    context=st.binary(max_size=64),
)  # fmt: skip
def test_secrets_survive_the_round_trip(passphrase: str, secret: bytes, context: bytes) -> None:
    wrap = PassphraseRecipient(passphrase, cost=CHEAP).wrap(secret, context)
    assert PassphraseIdentity(passphrase).unwrap(wrap, context) == secret


def test_the_same_letters_typed_on_another_system_open_it() -> None:
    assert PassphraseIdentity("he\u0301lène").unwrap(_wrap("h\u00e9l\u00e8ne"), b"context") == SECRET


def test_two_wraps_of_one_passphrase_share_nothing() -> None:
    first, second = _wrap(), _wrap()
    assert first.parameters["salt"] != second.parameters["salt"]
    assert first.blob[:32] != second.blob[:32]


@pytest.mark.parametrize(("passphrase", "context"), [("wrong", b"context"), ("correct horse", b"other")])
def test_a_wrong_passphrase_or_context_does_not_open(passphrase: str, context: bytes) -> None:
    with pytest.raises(KeysError, match="does not open"):
        PassphraseIdentity(passphrase).unwrap(_wrap(), context)


def test_one_flipped_bit_is_found() -> None:
    wrap = _wrap()
    for place in range(len(wrap.blob)):
        blob = bytearray(wrap.blob)
        blob[place] ^= 1 << place % 8
        with pytest.raises(KeysError):
            PassphraseIdentity("correct horse").unwrap(_changed(wrap, bytes(blob)), b"context")


def test_a_blob_cannot_test_two_passphrases() -> None:
    # partitioning oracle: a ciphertext that authenticates under the keys of many passphrases still commits to one
    wrap = _wrap()
    salt = bytes.fromhex(str(wrap.parameters["salt"]))
    key, _ = module._keys(b"another", salt, CHEAP, b"context")
    forged = wrap.blob[:32] + AESGCM(key).encrypt(bytes(12), SECRET, b"context")
    with pytest.raises(KeysError, match="does not open"):
        PassphraseIdentity("another").unwrap(_changed(wrap, forged), b"context")


def test_wraps_of_other_kinds_are_not_tried() -> None:
    for wrap in (Wrap("x25519", "passphrase", {}, b""), Wrap("passphrase", "other", {}, b"")):
        assert PassphraseIdentity("x").unwrap(wrap, b"context") is None


@pytest.mark.parametrize(
    "parameters",
    [
        {"memory_kib": 2**31},
        {"memory_kib": 1024 * 1024 + 1},
        {"memory_kib": 7},
        {"memory_kib": -1},
        {"iterations": 0},
        {"iterations": 2**31},
        {"memory_kib": 1024 * 1024, "iterations": 5},
        {"lanes": 0},
        {"lanes": 17, "memory_kib": 1024},
    ],
)
def test_a_hostile_cost_is_refused_before_it_is_paid(parameters: dict[str, Any]) -> None:
    started = time.process_time()
    with pytest.raises(FormatError, match="refused before it is tried: Argon2id"):
        PassphraseIdentity("correct horse").unwrap(_changed(_wrap(), **parameters), b"context")
    assert time.process_time() - started < 0.1
    with pytest.raises(ValueError, match="Argon2id"):
        PassphraseRecipient("x", cost=Cost(**{"memory_kib": 64, "iterations": 1, "lanes": 1, **parameters}))


@pytest.mark.parametrize(
    "parameters",
    [{"salt": 7}, {"salt": ""}, {"salt": "AB" * 32}, {"salt": "zz" * 32}, {"lanes": "1"}, {"pepper": 1}],
)
def test_parameters_of_another_shape_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="a passphrase wrap"):
        PassphraseIdentity("correct horse").unwrap(_changed(_wrap(), **parameters), b"context")


def test_missing_parameters_and_short_blobs_are_refused() -> None:
    with pytest.raises(FormatError, match="lacks parameters"):
        PassphraseIdentity("x").unwrap(Wrap("passphrase", "passphrase", {}, bytes(80)), b"")
    with pytest.raises(FormatError, match="too short"):
        PassphraseIdentity("x").unwrap(_changed(_wrap(), bytes(47)), b"context")


@pytest.mark.parametrize("passphrase", ["", "x" * 1025, "\udcff"])
def test_passphrases_that_cannot_be_used_are_a_callers_mistake(passphrase: str) -> None:
    for kind in (PassphraseRecipient, PassphraseIdentity):
        with pytest.raises(ValueError, match="a passphrase"):
            kind(passphrase)


def test_passphrases_are_not_printed() -> None:
    shown = repr(PassphraseRecipient("correct horse", cost=CHEAP)) + repr(PassphraseIdentity("correct horse"))
    assert "horse" not in shown
    with pytest.raises(KeysError) as refusal:
        PassphraseIdentity("battery staple").unwrap(_wrap(), b"context")
    assert "staple" not in str(refusal.value)


def test_the_default_cost_is_above_the_recommendation() -> None:
    # RFC 9106 §4, second recommended option
    assert DEFAULT_COST.memory_kib >= 64 * 1024
    assert (DEFAULT_COST.iterations, DEFAULT_COST.lanes) == (3, 4)


@pytest.mark.slow
def test_secrets_survive_the_round_trip_at_the_default_cost() -> None:
    wrap = PassphraseRecipient("correct horse").wrap(SECRET, b"context")
    assert PassphraseIdentity("correct horse").unwrap(wrap, b"context") == SECRET


def test_the_derivation_is_that_of_version_one() -> None:
    # recorded from this code when format version 1 was made: the derivation must never change
    key, commitment = module._keys(b"correct horse", bytes(32), Cost(64, 3, 4), b"context")
    assert (key.hex(), commitment.hex()) == (
        "20d8d70db6a56576aa610ec8e92361f3409399c48e4cdb1f21c6a15c15606604",
        "2ff93842175c2934c65881e1028987d56445f1ad86956f47060e06254af8639b",
    )
