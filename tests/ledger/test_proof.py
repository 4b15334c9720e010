"""Proofs as text: whoever has the key and the entry can check them, offline."""

import base64
import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palladion.errors import FormatError, PalladionError, TamperError
from palladion.keys import Ed25519Signer
from palladion.ledger.checkpoint import parse_note
from palladion.ledger.cosignature import WitnessKey, cosign, with_cosignatures
from palladion.ledger.proof import encode_proof, parse_proof, verify_proof
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import encode_record

from .ledgers import KEY, START, make, record

INDEX = 77
SALT = bytes(range(32))


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


def test_a_proof_that_tells_a_salt_is_as_specified_and_proves_the_same(proof: bytes) -> None:
    plain = parse_proof(proof)
    told = encode_proof(plain.index, plain.path, plain.note, salt=SALT)
    first, extra, *rest = told.split(b"\n")
    assert b"\n".join([first, *rest]) == proof
    assert extra == b"extra " + base64.b64encode(b"palladion-salt-1\n" + SALT)
    parsed, checkpoint = verify_proof(told, encode_record(record(INDEX)), KEY)
    assert (parsed.index, parsed.salt, checkpoint.size) == (INDEX, SALT, 300)
    assert plain.salt is None


@pytest.mark.parametrize("extra", [b"hello", b"palladion-salt-1\n" + SALT[1:], b"palladion-salt-2\n" + SALT])
def test_extra_data_of_others_is_no_salt(proof: bytes, extra: bytes) -> None:
    line = b"extra " + base64.b64encode(extra) + b"\nindex"
    parsed, _ = verify_proof(proof.replace(b"index", line, 1), encode_record(record(INDEX)), KEY)
    assert (parsed.extra, parsed.salt) == (extra, None)


@pytest.mark.parametrize(
    "extra", [b"extra \n", b"extra AA\n", b"extra AA==\nextra AA==\n", b"extra  AA==\n", b"Extra AA==\n"]
)
def test_extra_data_of_another_form_is_refused(proof: bytes, extra: bytes) -> None:
    with pytest.raises(FormatError):
        parse_proof(proof.replace(b"index", extra + b"index", 1))
    with pytest.raises(FormatError):
        parse_proof(b"c2sp.org/tlog-proof@v1\n" + extra + b"\n\nnote\n")


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
    with pytest.raises(FormatError, match="bytes of extra data"):
        parse_proof(proof.replace(b"index", b"extra " + base64.b64encode(bytes(1025)) + b"\nindex"))
    with pytest.raises(FormatError, match="does not have 32 bytes"):
        parse_proof(proof.replace(b"index 77\n", b"index 77\nAA==\n"))


# A reader of its own, written from the specifications (tlog-proof, tlog-checkpoint, tlog-cosignature, RFC 6962 §2.1.1)
# and from nothing of ours: what convinces it convinces other people's tools.


def _naive_hash(index: int, size: int, leaf: bytes, path: list[bytes]) -> bytes:
    if size == 1:
        assert path == []
        return leaf
    half = 1
    while half * 2 < size:
        half *= 2
    if index < half:
        left, right = _naive_hash(index, half, leaf, path[:-1]), path[-1]
    else:
        left, right = path[-1], _naive_hash(index - half, size - half, leaf, path[:-1])
    return hashlib.sha256(b"\x01" + left + right).digest()


def _naive_check(proof: bytes, entry: bytes, log: str, witnesses: list[str]) -> tuple[int, bytes | None]:
    """The index and the extra data of a proof that holds; AssertionError or another one where it does not."""
    lines = proof.decode().split("\n")
    assert lines.pop(0) == "c2sp.org/tlog-proof@v1"
    extra = base64.b64decode(lines.pop(0)[6:]) if lines[0].startswith("extra ") else None
    word, number = lines.pop(0).split(" ")
    assert word == "index"
    blank = lines.index("")
    path = [base64.b64decode(line) for line in lines[:blank]]
    note = lines[blank + 1 :]
    text = "\n".join([*note[: note.index("")], ""]).encode()
    origin, size, root = note[:3]
    leaf = hashlib.sha256(b"\x00" + entry).digest()
    assert _naive_hash(int(number), int(size), leaf, path) == base64.b64decode(root)
    for key in (log, *witnesses):
        name, key_id, blob = key.split("+", 2)
        kind, public = base64.b64decode(blob)[:1], Ed25519PublicKey.from_public_bytes(base64.b64decode(blob)[1:])
        assert kind == (b"\x01" if key == log else b"\x04")
        assert hashlib.sha256(name.encode() + b"\n" + base64.b64decode(blob)).digest()[:4].hex() == key_id
        (line,) = [line for line in note[note.index("") + 1 :] if line.startswith(f"— {name} ")]
        signature = base64.b64decode(line.split(" ")[2])
        assert signature[:4].hex() == key_id
        if key == log:
            assert name == origin
            public.verify(signature[4:], text)
        else:
            seconds = int.from_bytes(signature[4:12], "big")
            public.verify(signature[12:], f"cosignature/v1\ntime {seconds}\n".encode() + text)
    return int(number), extra


@pytest.mark.parametrize("size", [1, 2, 3, 7, 256, 257, 300])
def test_another_implementation_is_convinced_by_what_we_write(size: int, tmp_path: Path) -> None:
    make(tmp_path / "ledger", size)
    reader = LedgerReader(tmp_path / "ledger", KEY)
    signers = [Ed25519Signer(bytes([n]) * 32) for n in (1, 2)]
    names = ["witness.example/1", "witness.example/2"]
    text = parse_note(reader.note)[0]
    cosigned = with_cosignatures(
        reader.note, [cosign(text, name, signer, START) for name, signer in zip(names, signers, strict=True)]
    )
    keys = [str(WitnessKey(name, signer.public_key)) for name, signer in zip(names, signers, strict=True)]
    for index in {0, size // 2, size - 1}:
        entry = encode_record(record(index))
        path = reader.inclusion_proof(index)
        proof = encode_proof(index, path, cosigned, salt=SALT)
        assert _naive_check(proof, entry, str(KEY), keys) == (index, b"palladion-salt-1\n" + SALT)
        assert _naive_check(encode_proof(index, path, reader.note), entry, str(KEY), []) == (index, None)
        with pytest.raises(AssertionError):
            _naive_check(proof, encode_record(record(index + 1)), str(KEY), keys)


def test_the_form_of_the_specifications_example_is_read() -> None:
    head = """\
c2sp.org/tlog-proof@v1
index 73894
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=
EKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=
RoopEkOdqkYqMB4MJXrbt/hMjOxsVn0IrWjpz1ZMMes=
AHCioX9nLjsrse6YhjRRmk1WUEirVOLLRoOQ6vfO5vk=

example.com/fancylog
109482
"""
    found = parse_proof(head.encode())
    assert (found.index, len(found.path), found.note) == (73_894, 5, b"example.com/fancylog\n109482\n")
