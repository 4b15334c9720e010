"""Reading without the lock: entries, proofs, and a log that grows meanwhile."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from palladion.errors import NotFoundError, TamperError
from palladion.ledger import merkle
from palladion.ledger import reader as reader_module
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import encode_record
from palladion.ledger.writer import Ledger

from .ledgers import JOURNAL_KEY, KEY, ORIGIN, SIGNER, make, record


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("reader") / "ledger"
    make(directory, 600)
    return directory


def test_entries_are_the_records_in_order(directory: Path) -> None:
    reader = LedgerReader(directory, KEY)
    assert reader.entry(300) == encode_record(record(300))
    assert [entry for _, entry in reader.entries(250, 262)] == [encode_record(record(n)) for n in range(250, 262)]
    assert [index for index, _ in reader.tail(3)] == [597, 598, 599]
    assert len(list(reader.entries())) == 600
    assert len(reader.tail(10_000)) == 600


def test_proofs_from_tiles_verify(directory: Path) -> None:
    reader = LedgerReader(directory, KEY)
    for index in (0, 1, 255, 256, 511, 512, 599):
        leaf = merkle.leaf_hash(encode_record(record(index)))
        merkle.verify_inclusion(leaf, index, 600, reader.inclusion_proof(index), reader.checkpoint.root)
    for old in (1, 100, 256, 512, 599):
        old_root = merkle.list_root([merkle.leaf_hash(encode_record(record(n))) for n in range(old)])
        assert reader.root_at(old) == old_root
        merkle.verify_consistency(old, 600, old_root, reader.checkpoint.root, reader.consistency_proof(old))


def test_hashes_that_are_remembered_are_those_that_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "ledger", 1900)
    leaves = [merkle.leaf_hash(encode_record(record(number))) for number in range(1900)]
    monkeypatch.setattr(reader_module, "NODES_CACHED_MAX", 3)
    for order in (range(0, 1900, 128), range(1899, -1, -128)):
        reader = LedgerReader(tmp_path / "ledger", KEY)
        for index in order:
            expected = merkle.inclusion_proof(index, 1900, lambda level, at: _node(leaves, level, at))
            assert reader.inclusion_proof(index) == expected
            assert len(reader._nodes) <= 3


def _node(leaves: list[bytes], level: int, index: int) -> bytes:
    return merkle.list_root(leaves[index << level : (index + 1) << level])


def test_an_entry_beyond_the_checkpoint_is_not_found(directory: Path) -> None:
    reader = LedgerReader(directory, KEY)
    for index in (600, -1):
        with pytest.raises(NotFoundError, match="covers entries 0 to 599"):
            reader.entry(index)
        with pytest.raises(NotFoundError):
            reader.inclusion_proof(index)


def test_a_reader_with_an_older_checkpoint_goes_on_while_the_log_grows(tmp_path: Path) -> None:
    directory = tmp_path / "ledger"
    make(directory, 200)
    reader = LedgerReader(directory, KEY)
    with Ledger(directory, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append([record(n) for n in range(200, 400)])
    assert not (directory / "tile" / "0" / "000.p").exists()
    assert reader.size == 200
    assert reader.entry(199) == encode_record(record(199))
    merkle.verify_inclusion(
        merkle.leaf_hash(reader.entry(7)), 7, 200, reader.inclusion_proof(7), reader.checkpoint.root
    )


def _forge(directory: Path, index: int, *, with_hash: bool = False) -> None:
    """Exchange entry `index` of a ledger of 600, and if asked its hash too."""
    bundle = directory / "tile" / "entries" / f"{index // 256:03d}"
    forged = encode_record(record(index)).replace(b"user:test", b"user:ceo!")
    bundle.write_bytes(bundle.read_bytes().replace(encode_record(record(index)), forged))
    if with_hash:
        tile = directory / "tile" / "0" / bundle.name
        old, new = merkle.leaf_hash(encode_record(record(index))), merkle.leaf_hash(forged)
        tile.write_bytes(tile.read_bytes().replace(old, new))


READS: list[Callable[[LedgerReader], object]] = [
    lambda reader: reader.entry(300),
    lambda reader: reader.tail(350),
    lambda reader: list(reader.entries(299, 302)),
]


@pytest.mark.parametrize("read", READS, ids=["entry", "tail", "entries"])
def test_an_edited_entry_is_named_and_never_handed_out(
    directory: Path, tmp_path: Path, read: Callable[[LedgerReader], object]
) -> None:
    shutil.copytree(directory, tmp_path / "ledger")
    _forge(tmp_path / "ledger", 300)
    with pytest.raises(TamperError, match="entry 300 was changed"):
        read(LedgerReader(tmp_path / "ledger", KEY))


@pytest.mark.parametrize("read", READS, ids=["entry", "tail", "entries"])
def test_an_entry_edited_together_with_its_hash_is_not_handed_out_either(
    directory: Path, tmp_path: Path, read: Callable[[LedgerReader], object]
) -> None:
    shutil.copytree(directory, tmp_path / "ledger")
    _forge(tmp_path / "ledger", 300, with_hash=True)
    with pytest.raises(TamperError, match="entries 256 to 511 do not lead to the signed root"):
        read(LedgerReader(tmp_path / "ledger", KEY))


def test_entries_beside_an_edited_bundle_are_still_handed_out(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "ledger")
    _forge(tmp_path / "ledger", 300)
    assert LedgerReader(tmp_path / "ledger", KEY).entry(0) == encode_record(record(0))


def test_a_ledger_without_its_checkpoint_is_a_finding(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "ledger")
    (tmp_path / "ledger" / "checkpoint").unlink()
    with pytest.raises(TamperError, match=r"there is no .*/ledger/checkpoint"):
        LedgerReader(tmp_path / "ledger", KEY)


def test_a_missing_tile_is_told(tmp_path: Path) -> None:
    directory = tmp_path / "ledger"
    make(directory, 3)
    (directory / "tile" / "entries" / "000.p" / "3").unlink()
    with pytest.raises(TamperError, match=r"lacks tile/entries/000\.p/3"):
        LedgerReader(directory, KEY).entry(0)
