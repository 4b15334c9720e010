"""Proofs as text: whoever has the key and the entry can check them, offline."""

import pytest

from palladion.errors import FormatError, PalladionError, TamperError
from palladion.ledger.proof import encode_proof, parse_proof, verify_proof
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import encode_record

from .ledgers import KEY, make, record

INDEX = 77


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("proof") / "ledger"
    make(directory, 300)
    reader = LedgerReader(directory, KEY)
    return encode_proof(INDEX, reader.inclusion_proof(INDEX), reader.note)


def test_a_proof_convinces_without_the_log(proof: bytes) -> None:
    parsed, checkpoint = verify_proof(proof, encode_record(record(INDEX)), KEY)
    assert (parsed.index, checkpoint.size) == (INDEX, 300)


def test_the_text_is_as_specified_and_reads_back_to_the_same_bytes(proof: bytes) -> None:
    lines = proof.decode().split("\n")
    assert lines[:2] == ["c2sp.org/tlog-proof@v1", "index 77"]
    assert lines[lines.index("") + 1] == KEY.name
    parsed = parse_proof(proof)
    assert encode_proof(parsed.index, parsed.path, parsed.note) == proof


def test_another_entry_is_not_proved(proof: bytes) -> None:
    with pytest.raises(TamperError, match="leads to another root"):
        verify_proof(proof, encode_record(record(INDEX + 1)), KEY)


@pytest.mark.slow
def test_every_flipped_bit_is_caught(proof: bytes) -> None:
    entry = encode_record(record(INDEX))
    for position in range(len(proof) * 8):
        broken = bytearray(proof)
        broken[position // 8] ^= 1 << position % 8
        with pytest.raises(PalladionError):
            verify_proof(bytes(broken), entry, KEY)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"index 77", b"index 077"),
        (b"index 77", b"index -1"),
        (b"@v1", b"@v2"),
        (b"\n\n", b"\n"),
        (b"index", "ïndex".encode()),
    ],
)
def test_a_text_of_another_form_is_refused(proof: bytes, old: bytes, new: bytes) -> None:
    with pytest.raises(FormatError):
        parse_proof(proof.replace(old, new))


def test_absurd_sizes_are_refused(proof: bytes) -> None:
    with pytest.raises(FormatError, match="more than any tree is high"):
        parse_proof(proof.replace(b"index 77\n", b"index 77\n" + b"A" * 43 + b"=\n" + b"AA==\n" * 60))
    with pytest.raises(FormatError, match="bytes, more than"):
        parse_proof(proof + b"x" * 100_000)
    with pytest.raises(FormatError, match="does not have 32 bytes"):
        parse_proof(proof.replace(b"index 77\n", b"index 77\nAA==\n"))
