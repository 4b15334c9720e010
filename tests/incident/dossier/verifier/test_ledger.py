"""Entries under a checkpoint: what our ledger writes holds, and no change of it does."""

import base64
from collections.abc import Callable
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.incident.dossier.verifier.findings import DossierError
from palladion.incident.dossier.verifier.ledger import (
    LEDGER_FOLDER,
    check_checkpoint,
    check_inclusion,
    check_ledger,
    log_key,
)
from palladion.keys import Ed25519Signer
from palladion.ledger import merkle
from palladion.ledger.checkpoint import Checkpoint, VerifierKey, sign_checkpoint
from palladion.ledger.proof import encode_proof
from tests.small_order import FORGED, WEAK

SIGNER = Ed25519Signer(b"\x09" * 32)
KEY = str(VerifierKey("log.example/a", SIGNER.public_key))
ENTRIES = [f'{{"kind":"it.happened","time":"{number}"}}'.encode() for number in range(11)]


def _node(leaves: list[bytes]) -> merkle.NodeReader:
    return lambda level, index: merkle.list_root(leaves[index << level : (index + 1) << level])


LEAVES = [merkle.leaf_hash(entry) for entry in ENTRIES]
ROOT = merkle.list_root(LEAVES)
NOTE = sign_checkpoint(Checkpoint("log.example/a", len(ENTRIES), ROOT), SIGNER)


def _members(*indices: int, withheld: tuple[int, ...] = ()) -> dict[str, bytes]:
    members = {f"{LEDGER_FOLDER}checkpoint": NOTE, f"{LEDGER_FOLDER}verifier-key.txt": f"{KEY}\n".encode()}
    for index in indices:
        stem, path = f"{LEDGER_FOLDER}entry-{index}", merkle.inclusion_proof(index, len(ENTRIES), _node(LEAVES))
        if index in withheld:
            members[f"{stem}.withheld"] = b"ab" * 32
        else:
            members[f"{stem}.json"] = ENTRIES[index]
            members[f"{stem}.tlog-proof"] = encode_proof(index, path, NOTE)
    return members


def test_entries_are_proved_and_of_withheld_ones_there_is_a_commitment() -> None:
    found = check_ledger(_members(0, 5, 10, withheld=(5,)), KEY)
    assert found.proved == {0: ENTRIES[0], 10: ENTRIES[10]}
    assert found.withheld == {5: b"ab" * 32}
    assert (found.origin, found.size, found.root, found.entries) == ("log.example/a", 11, ROOT, {0, 5, 10})


def test_a_changed_entry_is_found() -> None:
    shown = _members(5)
    shown[f"{LEDGER_FOLDER}entry-5.json"] += b" "
    with pytest.raises(DossierError, match="entry 5 is not in the ledger"):
        check_ledger(shown, KEY)


@pytest.mark.parametrize(
    "name",
    [
        "entry-6.tlog-proof",
        "entry-6.txt",
        "entry-6",
        "entry-05.withheld",
        "entry-x-5.withheld",
        "entry--5.withheld",
        "entry-11.withheld",
        "entry-1000000000000.withheld",
        "deep/entry-6.withheld",
        "more.txt",
    ],
)
def test_what_belongs_to_no_entry_is_found(name: str) -> None:
    members = {**_members(5), f"{LEDGER_FOLDER}{name}": b"ab" * 32}
    with pytest.raises(DossierError, match="belongs to no entry"):
        check_ledger(members, KEY)


@pytest.mark.parametrize("commitment", [b"", b"whatever", b"AB" * 32, b"ab" * 32 + b"\n"])
def test_what_is_no_commitment_is_found(commitment: bytes) -> None:
    members = {**_members(5), f"{LEDGER_FOLDER}entry-6.withheld": commitment}
    with pytest.raises(DossierError, match="is no commitment"):
        check_ledger(members, KEY)


def test_an_entry_is_shown_or_withheld() -> None:
    members = {**_members(5), f"{LEDGER_FOLDER}entry-5.withheld": b"ab" * 32}
    with pytest.raises(DossierError, match="entry 5 is shown and withheld"):
        check_ledger(members, KEY)


def test_the_key_beside_the_checkpoint_is_that_of_the_manifest() -> None:
    members = {**_members(5), f"{LEDGER_FOLDER}verifier-key.txt": b"log.example/a+00000000+AAAA\n"}
    with pytest.raises(DossierError, match="another key"):
        check_ledger(members, KEY)


@pytest.mark.parametrize("size", [" 11", "011", "-1", "0", "1_1"])
def test_a_checkpoint_of_no_size_is_refused_though_it_is_signed(size: str) -> None:
    text = f"log.example/a\n{size}\n{base64.b64encode(ROOT).decode()}\n"
    blob = base64.b64encode(log_key(KEY)[1] + SIGNER.sign(text.encode())).decode()
    with pytest.raises(DossierError, match="signature"):
        check_checkpoint(f"{text}\n— log.example/a {blob}\n".encode(), KEY)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda data: data.replace(b"index 5", b"index 6"), "another entry"),
        (lambda data: data.replace(b"@v1", b"@v2"), "another entry"),
        (lambda data: data + b"\n", "another checkpoint"),
        (lambda data: data.replace(b"\n\n", b"\nAAAA\n\n", 1), "does not lead"),
    ],
)
def test_a_changed_proof_is_found(change: Callable[[bytes], bytes], complaint: str) -> None:
    members = _members(5)
    members[f"{LEDGER_FOLDER}entry-5.tlog-proof"] = change(members[f"{LEDGER_FOLDER}entry-5.tlog-proof"])
    with pytest.raises(DossierError, match=complaint):
        check_ledger(members, KEY)


def test_the_checkpoint_of_another_key_or_text_is_refused() -> None:
    other = str(VerifierKey("log.example/a", Ed25519Signer(b"\x0a" * 32).public_key))
    changed = NOTE.replace(b"\n11\n", b"\n12\n")
    elsewhere = sign_checkpoint(Checkpoint("log.example/b", 11, ROOT), SIGNER)
    for note, key in ((NOTE, other), (changed, KEY), (elsewhere, KEY), (b"", KEY), (b"\xff\n\n\xff", KEY)):
        with pytest.raises(DossierError, match="signature"):
            check_checkpoint(note, key)


def test_a_checkpoint_of_another_log_that_our_key_signed_is_refused() -> None:
    text = f"log.example/b\n11\n{base64.b64encode(ROOT).decode()}\n"
    blob = base64.b64encode(log_key(KEY)[1] + SIGNER.sign(text.encode())).decode()
    with pytest.raises(DossierError, match="signature"):
        check_checkpoint(f"{text}\n— log.example/a {blob}\n".encode(), KEY)


def test_the_signature_of_a_witness_beside_ours_is_passed_over() -> None:
    witness = base64.b64encode(b"\x01" * 76).decode()
    assert check_checkpoint(NOTE + f"— witness.example {witness}\n".encode(), KEY) == (11, ROOT)


@pytest.mark.parametrize("text", ["", "a+b", "a+00000000+AAAA", KEY.replace("+A", "+B", 1), KEY[:-4], "log+zz+!!"])
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(DossierError, match="verifier key"):
        log_key(text)


@given(st.integers(1, 70), st.data())
def test_inclusion_agrees_with_the_ledgers_own(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaves = [sha256(bytes([number])).digest() for number in range(size)]
    path, root = merkle.inclusion_proof(index, size, _node(leaves)), merkle.list_root(leaves)
    check_inclusion(leaves[index], index, size, path, root)
    wrong = data.draw(st.integers(0, size))
    if wrong != index:
        with pytest.raises(DossierError):
            check_inclusion(leaves[index], wrong, size, path, root)
    for broken in (path[:-1], [*path, root], [root, *path]):
        if broken != path:
            with pytest.raises(DossierError):
                check_inclusion(leaves[index], index, size, broken, root)


@pytest.mark.parametrize("weak", WEAK, ids=["order 1", "order 8"])
def test_a_ledger_for_which_anybody_can_sign_is_none(weak: bytes) -> None:
    key = VerifierKey("log.example/a", weak)
    note = NOTE.rpartition(b" ")[0] + b" " + base64.b64encode(key.key_id + FORGED) + b"\n"
    with pytest.raises(DossierError, match="anybody could have signed"):
        check_checkpoint(note, str(key))
