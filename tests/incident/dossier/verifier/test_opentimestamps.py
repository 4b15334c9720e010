"""Proofs of OpenTimestamps: Bitcoin's first block, each part of the format by hand, and whatever is none of it."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.incident.dossier.verifier.findings import DossierError
from palladion.incident.dossier.verifier.opentimestamps import (
    APPEND,
    BITCOIN,
    BRANCHES_MAX,
    DEPTH_MAX,
    MAGIC,
    PREPEND,
    PROOF_BYTES_MAX,
    SHA256,
    Block,
    Branch,
    Proof,
    blocks_of,
    pending,
    read_branches,
    read_proof,
    write_proof,
)

# The only transaction of Bitcoin's first block and that block's header. Its Merkle root is the transaction's hash, so
# a proof over the transaction itself needs one more SHA-256 and nothing else.
TRANSACTION = bytes.fromhex(
    "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d0104455468652054696d65"
    "732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66207365636f6e64206261696c6f757420666f722062"
    "616e6b73ffffffff0100f2052a01000000434104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4c"
    "ef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac00000000"
)
HEADER = bytes.fromhex(
    "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a"
    "51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c"
)
DIGEST = sha256(TRANSACTION).digest()
HEAD = MAGIC + b"\x01\x08" + DIGEST
IN_BLOCK_0 = b"\x00" + BITCOIN + b"\x01\x00"  # an attestation: tag, length of the payload, the height
URI = "https://calendar.example"


def test_bitcoins_first_block_is_found_by_a_proof_written_by_hand() -> None:
    proof = read_proof(HEAD + b"\x08" + IN_BLOCK_0)
    (block,) = blocks_of(proof, TRANSACTION)
    assert (block.height, block.root[::-1].hex()) == (
        0,
        "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b",
    )
    (shown,) = blocks_of(proof, TRANSACTION, HEADER)
    assert shown.hash == "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
    assert f"{shown.time:%Y-%m-%d %H:%M:%S}" == "2009-01-03 18:15:05"


def test_each_operation_does_what_the_format_says_and_branches_fork() -> None:
    promise = b"\x00" + bytes.fromhex("83dfe30d2ef90c8e") + b"\x19\x18" + URI.encode()
    inner = b"\xf0\x02ab" + b"\xf1\x01c" + b"\x08"
    data = HEAD + b"\xff" + promise + inner + b"\xff" + promise + b"\x08" + b"\x00" + BITCOIN + b"\x03\xe7\xc0\x2b"
    proof = read_proof(data)
    message = sha256(b"c" + DIGEST + b"ab").digest()
    assert [branch.outcome(DIGEST) for branch in proof.branches] == [DIGEST, message, sha256(message).digest()]
    assert [branch.calendar for branch in proof.branches] == [URI, URI, None]
    assert [branch.height for branch in proof.branches] == [None, None, 712807]
    assert blocks_of(proof, TRANSACTION) == [Block(712807, sha256(message).digest())]
    assert write_proof(proof) == data
    assert write_proof(Proof(DIGEST, proof.branches[::-1])) == data


_operations = st.lists(
    st.just((SHA256, b"")) | st.tuples(st.sampled_from([APPEND, PREPEND]), st.binary(min_size=1, max_size=200)),
    max_size=6,
).map(tuple)
_ends = st.just(pending(URI)) | st.just((BITCOIN, b"\x07")) | st.tuples(st.just(b"unknown!"), st.binary(max_size=20))
_branches = st.builds(lambda operations, end: Branch(operations, *end), _operations, _ends)


@given(st.binary(min_size=32, max_size=32), st.lists(_branches, min_size=1, max_size=6, unique=True))
def test_a_proof_reads_back(digest: bytes, branches: list[Branch]) -> None:
    data = write_proof(Proof(digest, tuple(branches)))
    found = read_proof(data)
    assert (found.digest, set(found.branches)) == (digest, set(branches))
    assert write_proof(found) == data


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: HEAD + tail))
def test_whatever_is_read_is_a_proof_and_all_else_is_refused(data: bytes) -> None:
    try:
        proof = read_proof(data)
    except DossierError:
        return
    assert set(read_proof(write_proof(proof)).branches) == set(proof.branches)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "no OpenTimestamps proof"),
        (MAGIC, "ends too early"),
        (HEAD.replace(b"Proof", b"proof") + b"\x08" + IN_BLOCK_0, "no OpenTimestamps proof"),
        (MAGIC + b"\x02\x08" + DIGEST + IN_BLOCK_0, "no OpenTimestamps proof of version 1"),
        (MAGIC + b"\x01\x02" + DIGEST[:20] + IN_BLOCK_0, "another digest than SHA-256"),
        (HEAD + b"\x08" + IN_BLOCK_0 + b"\x00", "goes on after its end"),
        (HEAD + b"\x08" + IN_BLOCK_0[:-1], "ends too early"),
        (HEAD + b"\x67" + IN_BLOCK_0, "0x67"),
        (HEAD + b"\xff\xff" + IN_BLOCK_0, "0xff"),
        (HEAD + b"\xf0\x00" + IN_BLOCK_0, "appends nothing"),
        (HEAD + b"\xf0\x81\x20" + bytes(4097) + IN_BLOCK_0, "a number that is too large"),
        (HEAD + b"\xf0\x81\x00a" + IN_BLOCK_0, "not written as short as it is"),
        (HEAD + b"\xf0\xff\xff\xff\xff\xff\xff\x01" + IN_BLOCK_0, "a number that is too large"),
        (HEAD + b"\xf0\xe1\x1f" + bytes(4065) + IN_BLOCK_0, "a message that is too long"),
        (HEAD + b"\x08" * (DEPTH_MAX + 1) + IN_BLOCK_0, "more than 256 operations in a row"),
        (HEAD + (b"\xff" + IN_BLOCK_0) * BRANCHES_MAX + IN_BLOCK_0, "more than 64 branches"),
        (HEAD + b"\x00" + BITCOIN + b"\x02\x00\x00", "goes on after its end"),
        (HEAD + b"\x00" + b"".join(pending("https://x/?a=b"))[:8] + b"\x0f\x0e" + b"https://x/?a=b", "no address"),
        (HEAD + b"\x00" + b"".join(pending("file:///etc/p"))[:8] + b"\x0e\x0d" + b"file:///etc/p", "no address"),
        (HEAD + bytes(PROOF_BYTES_MAX), "more than 65536 bytes"),
    ],
)
def test_what_is_no_proof_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(DossierError, match=complaint):
        read_proof(data)


def test_as_many_operations_and_branches_as_are_allowed_are_read() -> None:
    assert len(read_proof(HEAD + b"\x08" * DEPTH_MAX + IN_BLOCK_0).branches[0].operations) == DEPTH_MAX
    forks = b"".join(b"\xff\x00" + BITCOIN + bytes([1, height]) for height in range(1, BRANCHES_MAX))
    assert len(read_branches(forks + IN_BLOCK_0, DIGEST)) == BRANCHES_MAX


@pytest.mark.parametrize("place", [0, 40, 68, 72, 75, 76])
def test_a_header_of_no_block_is_refused(place: int) -> None:
    proof = read_proof(HEAD + b"\x08" + IN_BLOCK_0)
    other = bytearray(HEADER)
    other[place] ^= 0x80
    with pytest.raises(DossierError, match=r"of no block|no block of Bitcoin has|no block with this header"):
        blocks_of(proof, TRANSACTION, bytes(other))
    with pytest.raises(DossierError, match="80 bytes, not 79"):
        blocks_of(proof, TRANSACTION, HEADER[1:])


def test_a_header_with_an_easy_target_is_that_of_no_block() -> None:
    proof = read_proof(HEAD + b"\x08" + IN_BLOCK_0)
    for bits in ("ffff7f20", "0000011d", "ffff801d", "ffff0002"):
        with pytest.raises(DossierError, match="a difficulty that no block of Bitcoin has"):
            blocks_of(proof, TRANSACTION, HEADER[:72] + bytes.fromhex(bits) + HEADER[76:])


def test_a_proof_over_something_else_or_to_another_block_is_refused() -> None:
    with pytest.raises(DossierError, match="over something else than this manifest"):
        blocks_of(read_proof(HEAD + b"\x08" + IN_BLOCK_0), TRANSACTION + b" ")
    with pytest.raises(DossierError, match="leads to no block with this header"):
        blocks_of(read_proof(HEAD + b"\x08\x08" + IN_BLOCK_0), TRANSACTION, HEADER)
    with pytest.raises(DossierError, match="does not end in a Merkle root"):
        blocks_of(read_proof(HEAD + b"\xf0\x01a" + IN_BLOCK_0), TRANSACTION)
