"""What verification finds, each kind of tampering by name, and that it says where."""

import shutil
from pathlib import Path

import pytest

from palladion.errors import FormatError, PalladionError, TamperError
from palladion.ledger import merkle, writer
from palladion.ledger.audit import LedgerReport, verify_ledger
from palladion.ledger.checkpoint import Checkpoint, sign_checkpoint
from palladion.ledger.record import encode_record
from palladion.ledger.tiles import decode_bundle, encode_bundle
from palladion.ledger.writer import Ledger

from .ledgers import JOURNAL_KEY, KEY, ORIGIN, SIGNER, START, make, record

SIZE = 600


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("audit") / "ledger"
    make(directory, SIZE)
    return directory


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "ledger")
    return tmp_path / "ledger"


def _verify(directory: Path, **options: list[bytes]) -> LedgerReport:
    return verify_ledger(directory, KEY, **options)  # type: ignore[arg-type]


def _edit_bundle(directory: Path, index: int, change: object) -> None:
    path = directory / "tile" / "entries" / f"{index:03d}"
    entries = decode_bundle(path.read_bytes(), 256, what="it")
    assert callable(change)
    path.write_bytes(encode_bundle(change(entries)))


def test_an_untouched_ledger_verifies_and_is_summed_up(original: Path) -> None:
    report = _verify(original)
    assert (report.origin, report.size, report.kinds) == (ORIGIN, SIZE, {"model.opened": SIZE})
    assert report.first == START
    assert report.last == record(SIZE - 1).time
    assert report.root == merkle.list_root([merkle.leaf_hash(encode_record(record(n))) for n in range(SIZE)])


def test_an_empty_ledger_verifies(tmp_path: Path) -> None:
    Ledger.create(tmp_path / "ledger", ORIGIN, SIGNER, JOURNAL_KEY).close()
    assert _verify(tmp_path / "ledger").size == 0


@pytest.mark.parametrize("index", [0, 100, 255])
def test_an_edited_entry_is_named(copy: Path, index: int) -> None:
    def edit(entries: list[bytes]) -> list[bytes]:
        return [*entries[:index], encode_record(record(9999)), *entries[index + 1 :]]

    _edit_bundle(copy, 1, edit)
    with pytest.raises(TamperError, match=f"entry {256 + index} was changed"):
        _verify(copy)


@pytest.mark.parametrize("index", [0, 100, 255])
def test_a_deleted_entry_is_named(copy: Path, index: int) -> None:
    _edit_bundle(copy, 1, lambda entries: entries[:index] + entries[index + 1 :])
    with pytest.raises(TamperError, match=f"entry {256 + index} was removed"):
        _verify(copy)


def test_an_inserted_entry_is_named(copy: Path) -> None:
    _edit_bundle(copy, 1, lambda entries: [*entries[:5], encode_record(record(9999)), *entries[5:]])
    with pytest.raises(TamperError, match="entry 261 was removed, cut, or another was put in before it"):
        _verify(copy)


def test_an_entry_behind_the_last_of_its_bundle_is_told(copy: Path) -> None:
    _edit_bundle(copy, 1, lambda entries: [*entries, encode_record(record(9999))])
    with pytest.raises(TamperError, match=r"bundle tile/entries/001 goes on after its 256 entries$"):
        _verify(copy)


def test_reordered_entries_are_named(copy: Path) -> None:
    _edit_bundle(copy, 0, lambda entries: [*entries[:7], entries[8], entries[7], *entries[9:]])
    with pytest.raises(TamperError, match="entry 7 was changed"):
        _verify(copy)


def test_an_entry_edited_together_with_its_leaf_hash_is_told_by_the_tile_above(copy: Path) -> None:
    forged = encode_record(record(9999))
    _edit_bundle(copy, 0, lambda entries: [forged, *entries[1:]])
    tile = copy / "tile" / "0" / "000"
    tile.write_bytes(merkle.leaf_hash(forged) + tile.read_bytes()[32:])
    with pytest.raises(TamperError, match=r"tile tile/1/000 does not fit the entries 0 to 255 below it"):
        _verify(copy)


def test_an_edit_carried_up_to_the_top_is_told_by_the_signed_root(copy: Path) -> None:
    forged = encode_record(record(9999))
    _edit_bundle(copy, 0, lambda entries: [forged, *entries[1:]])
    tile = copy / "tile" / "0" / "000"
    tile.write_bytes(merkle.leaf_hash(forged) + tile.read_bytes()[32:])
    hashes = [tile.read_bytes()[start : start + 32] for start in range(0, 8192, 32)]
    above = copy / "tile" / "1" / "000.p" / "2"
    above.write_bytes(merkle.list_root(hashes) + above.read_bytes()[32:])
    with pytest.raises(TamperError, match="lead to another root than the signed"):
        _verify(copy)


def _cut(directory: Path, size: int) -> None:
    """What an attacker who holds the signing key would leave: a shorter ledger, signed."""
    shutil.rmtree(directory)
    make(directory, size)


def test_a_cut_tail_is_told_against_a_saved_checkpoint(copy: Path) -> None:
    saved = (copy / "checkpoint").read_bytes()
    _cut(copy, SIZE - 10)
    assert _verify(copy).size == SIZE - 10  # by itself it cannot be told
    with pytest.raises(TamperError, match="tail was cut: it has 590 entries, a saved checkpoint covers 600"):
        _verify(copy, against=[saved])


def test_a_complete_rewrite_is_told_against_a_saved_checkpoint(copy: Path) -> None:
    saved = (copy / "checkpoint").read_bytes()
    shutil.rmtree(copy)
    with Ledger.create(copy, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append([record(n + 1) for n in range(700)])
    assert _verify(copy).size == 700
    with pytest.raises(TamperError, match="its first 600 entries are not those of a saved checkpoint"):
        _verify(copy, against=[saved])


def test_a_ledger_that_only_grew_fits_its_saved_checkpoint(copy: Path) -> None:
    saved = (copy / "checkpoint").read_bytes()
    with Ledger(copy, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append([record(SIZE)])
    report = _verify(copy, against=[saved])
    assert (report.size, [saved.size for saved in report.against]) == (SIZE + 1, [SIZE])


def test_a_saved_checkpoint_must_be_signed_by_the_log(copy: Path) -> None:
    from palladion.keys import Ed25519Signer

    forged = sign_checkpoint(Checkpoint(ORIGIN, 1, bytes(32)), Ed25519Signer(b"\x05" * 32))
    with pytest.raises(TamperError, match="no signature by the key"):
        _verify(copy, against=[forged])


@pytest.mark.slow
def test_any_flipped_byte_in_any_file_is_caught(copy: Path) -> None:
    paths = [path for path in (copy / "tile").rglob("*") if path.is_file()] + [copy / "checkpoint"]
    for path in paths:
        data = path.read_bytes()
        for position in range(0, len(data), max(1, len(data) // 12)):
            broken = bytearray(data)
            broken[position] ^= 0x20
            path.write_bytes(broken)
            with pytest.raises(PalladionError):
                _verify(copy)
        path.write_bytes(data)
    assert _verify(copy).size == SIZE


def test_a_correctly_hashed_entry_that_is_no_record_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from palladion.ledger import writer

    directory = tmp_path / "ledger"
    make(directory, 4)
    for data in (b"not json", b'{"v":1}', b"[]", encode_record(record(1)).replace(b'"v":1', b'"v": 1')):
        with monkeypatch.context() as patch:
            patch.setattr(writer, "encode_record", lambda _, data=data: data)
            shutil.rmtree(directory)
            make(directory, 4)
        with pytest.raises(PalladionError, match="entry 0 "):
            _verify(directory)


def test_progress_reaches_the_end(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palladion.ledger.audit.STRETCH", 1)
    seen: list[tuple[int, int]] = []
    verify_ledger(original, KEY, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(256, SIZE), (512, SIZE), (SIZE, SIZE)]


@pytest.mark.slow
def test_several_processes_find_what_one_finds(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = _verify(copy)
    monkeypatch.setattr("palladion.ledger.audit.STRETCH", 1)
    monkeypatch.setattr("palladion.ledger.audit.SHARED_MIN", 1)
    monkeypatch.setattr("palladion.ledger.audit.os.sched_getaffinity", lambda _: {0, 1})
    assert _verify(copy) == alone
    # of two changes the first is named, whichever process is ready first
    for index in (1, 0):
        _edit_bundle(copy, index, lambda entries: [entries[0] + b" ", *entries[1:]])
    with pytest.raises(TamperError, match="entry 0 was changed"):
        _verify(copy)


@pytest.mark.parametrize("figure", [b"1.5", b"1.0", b"1e3"])
def test_an_entry_that_is_signed_and_no_record_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: bytes
) -> None:
    broken = encode_record(record(7)).replace(b'"n":7', b'"n":' + figure)
    monkeypatch.setattr(writer, "encode_batch", lambda _records: [broken])
    make(tmp_path / "ledger", 1)
    with pytest.raises(FormatError, match="entry 0 is not canonical JSON"):
        _verify(tmp_path / "ledger")


def _signed(directory: Path, entries: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger whose writer signed these bytes, whatever they are."""
    waiting = iter(entries)
    with monkeypatch.context() as patch:
        patch.setattr(writer, "encode_record", lambda _: next(waiting))
        make(directory, len(entries))


_ONE = encode_record(record(1))
_HALVES = _ONE[: _ONE.index(b",") + 1], _ONE[_ONE.index(b",") + 1 :]


@pytest.mark.parametrize(
    "entries",
    [
        # two records in one entry, and one of them in two: as many as there should be, read one after the other
        [_ONE + b"\n" + _ONE, *_HALVES],
        [*_HALVES, _ONE + b"\n" + _ONE],
        [*_HALVES],
        [_ONE + b"\n" + _ONE],
        [_ONE + b"\n", _ONE],
        [_ONE, b"\n" + _ONE],
        [_ONE, b""],
        [_ONE.replace(b'"v":1', b'"v":2'), _ONE],
        [_ONE.replace(b'"v":1', b'"v":1,"w":1'), _ONE],
        [_ONE.replace(b'"t":""', b'"t":"","t":""'), _ONE],
        [_ONE.replace(b'"n":1,"t":""', b'"t":"","n":1'), _ONE],
    ],
    ids=[
        "two and half",
        "half and two",
        "halves",
        "two",
        "after",
        "before",
        "none",
        "version",
        "field",
        "twice",
        "order",
    ],
)
def test_entries_that_make_records_only_together_are_told(
    entries: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _signed(tmp_path / "ledger", [_ONE, *entries, _ONE], monkeypatch)
    with pytest.raises(FormatError, match=r"^entry \d "):
        _verify(tmp_path / "ledger")


def test_kinds_and_times_are_those_of_every_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _signed(tmp_path / "ledger", [encode_record(record(number)) for number in range(21)], monkeypatch)
    report = _verify(tmp_path / "ledger")
    assert (report.kinds, report.first, report.last) == ({"model.opened": 21}, START, record(20).time)
