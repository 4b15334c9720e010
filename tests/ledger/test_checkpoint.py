"""Checkpoints: signed notes as other tlog tools write and read them."""

import base64

import pytest

from palladion.errors import FormatError, PalladionError, TamperError
from palladion.keys import Ed25519Signer
from palladion.ledger.checkpoint import (
    SIGNATURES_MAX,
    Checkpoint,
    VerifierKey,
    parse_text,
    parse_verifier_key,
    sign_checkpoint,
    verify_checkpoint,
    verify_note,
)
from tests.small_order import FORGED, WEAK

from .ledgers import KEY, ORIGIN, SIGNER

CHECKPOINT = Checkpoint(ORIGIN, 20_852_163, bytes(range(32)))

# The example of c2sp.org/tlog-checkpoint's reference package, golang.org/x/mod/sumdb/note: key, text and signature.
PETER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)

# Of sum.golang.org, as it was published on 2024-09-23, and the key that every Go program has in it.
GO_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
GO_CHECKPOINT = """\
go.sum database tree
30055305
mXfgRcJ0bG0j3CPdKwgGWtUzBUbX67saZGRmFuJGGsM=

— sum.golang.org Az3grpgEild5qw7+5dtV13Kf1C2Xurm8q4fhdxvcsDHnqNTaxL2AFjBY+2TyGKevucFcAAlWFJJYle3EJlDCrQ+y3A8=
"""


def test_a_key_of_the_go_implementation_is_read_with_its_id() -> None:
    key = parse_verifier_key(PETER_KEY)
    assert key.name == "PeterNeumann"
    assert key.key_id.hex() == "c74f20a3"
    assert str(key) == PETER_KEY


def test_a_signature_of_the_go_implementation_holds() -> None:
    key = parse_verifier_key(PETER_KEY)
    assert verify_note(PETER_NOTE.encode(), key).startswith(b"If you think cryptography")
    with pytest.raises(TamperError, match="does not hold"):
        verify_note(PETER_NOTE.replace("answer", "anſwer").encode(), key)


def test_the_checkpoint_of_a_log_that_is_not_ours_is_read() -> None:
    key = parse_verifier_key(GO_KEY)
    found = parse_text(verify_note(GO_CHECKPOINT.encode(), key))
    assert (found.origin, found.size) == ("go.sum database tree", 30_055_305)
    with pytest.raises(TamperError, match="does not hold"):
        verify_note(GO_CHECKPOINT.replace("30055305", "30055306").encode(), key)


def test_a_signed_checkpoint_verifies_and_reads_as_specified() -> None:
    note = sign_checkpoint(CHECKPOINT, SIGNER)
    assert verify_checkpoint(note, KEY) == CHECKPOINT
    lines = note.decode().split("\n")
    assert lines[:4] == [ORIGIN, "20852163", base64.b64encode(bytes(range(32))).decode(), ""]
    assert lines[4].startswith(f"— {ORIGIN} ")
    assert lines[5:] == [""]


def test_a_cosignature_of_somebody_else_is_ignored() -> None:
    note = sign_checkpoint(CHECKPOINT, SIGNER) + "— witness.example AAAAAAAAAAAA\n".encode()
    assert verify_checkpoint(note, KEY) == CHECKPOINT


@pytest.mark.slow
def test_every_flipped_bit_is_caught() -> None:
    note = sign_checkpoint(CHECKPOINT, SIGNER)
    for position in range(len(note) * 8):
        broken = bytearray(note)
        broken[position // 8] ^= 1 << position % 8
        with pytest.raises(PalladionError):
            verify_checkpoint(bytes(broken), KEY)


def test_the_signature_of_another_key_under_the_same_name_is_refused() -> None:
    other = Ed25519Signer(b"\x07" * 32)
    with pytest.raises(TamperError, match="no signature by the key"):
        verify_checkpoint(sign_checkpoint(CHECKPOINT, other), KEY)


def test_a_checkpoint_of_another_log_is_refused() -> None:
    text = f"ledger.example/other\n1\n{'A' * 43}=\n"
    note = _resigned(text)
    with pytest.raises(TamperError, match=r"is of the log 'ledger\.example/other'"):
        verify_checkpoint(note, KEY)


def _resigned(text: str) -> bytes:
    """A note with that text, correctly signed: only its meaning can be wrong."""
    signature = base64.b64encode(KEY.key_id + SIGNER.sign(text.encode())).decode()
    return f"{text}\n— {ORIGIN} {signature}\n".encode()


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n007\n{'A' * 43}=\n",
        f"{ORIGIN}\n-1\n{'A' * 43}=\n",
        f"{ORIGIN}\n999999999999999999\n{'A' * 43}=\n",
        f"{ORIGIN}\n1\nAAAA\n",
        f"{ORIGIN}\n1\n{'A' * 43}\n",
        f"{ORIGIN}\n1\n{'A' * 42}B=\n",
        f"{ORIGIN}\n1\n",
        f"{ORIGIN}\n\n1\n",
    ],
    ids=["zeros", "negative", "huge", "short-root", "padding", "non-canonical", "no-root", "empty-line"],
)
def test_a_correctly_signed_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        verify_checkpoint(_resigned(text), KEY)


def test_extension_lines_are_allowed_and_signed() -> None:
    note = _resigned(f"{ORIGIN}\n1\n{'A' * 43}=\nsomething new\n")
    assert verify_checkpoint(note, KEY).size == 1


def test_a_note_with_absurdly_many_signatures_is_refused() -> None:
    line = "— w AAAAAAAAAAAA\n".encode()
    with pytest.raises(FormatError, match="signatures, more than"):
        verify_checkpoint(sign_checkpoint(CHECKPOINT, SIGNER) + line * SIGNATURES_MAX, KEY)
    with pytest.raises(FormatError, match="bytes, more than"):
        verify_checkpoint(sign_checkpoint(CHECKPOINT, SIGNER) + line * 10_000, KEY)


@pytest.mark.parametrize("origin", ["", "two words", "a+b", "line\nbreak"])
def test_an_origin_that_a_note_cannot_carry_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="cannot be a log's origin"):
        sign_checkpoint(Checkpoint(origin, 0, bytes(32)), SIGNER)


@pytest.mark.parametrize(
    "text", ["", "a+b+c", str(KEY)[:-1], str(KEY).replace("+", "-", 1), f"x{KEY}", "a+00000000+AQ=="]
)
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_verifier_key(text)
    assert parse_verifier_key(f"{KEY}\n") == KEY


def test_a_verifier_key_names_the_log_it_is_for() -> None:
    assert VerifierKey("a", KEY.public_key).key_id != KEY.key_id


@pytest.mark.parametrize("weak", WEAK, ids=["order 1", "order 8"])
def test_a_log_for_which_anybody_can_sign_is_none(weak: bytes) -> None:
    key = VerifierKey(ORIGIN, weak)
    with pytest.raises(FormatError, match="the verifier key is no"):
        parse_verifier_key(str(key))
    note = sign_checkpoint(CHECKPOINT, SIGNER).rpartition(b" ")[0]
    with pytest.raises(FormatError, match="the verifier key is no"):
        verify_checkpoint(note + b" " + base64.b64encode(key.key_id + FORGED) + b"\n", key)
