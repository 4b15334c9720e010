"""The place that an export keeps, and what it says of a log that is not what it was."""

import json
import shutil
from pathlib import Path

import pytest

from palladion.errors import BusyError, FormatError, TamperError
from palladion.export.position import Position
from palladion.keys import Ed25519Signer
from palladion.ledger.checkpoint import VerifierKey
from palladion.ledger.reader import LedgerReader
from palladion.ledger.writer import Ledger
from tests.export.items import make, refusals
from tests.ledger.ledgers import JOURNAL_KEY, KEY, ORIGIN, SIGNER


@pytest.fixture
def reader(tmp_path: Path) -> LedgerReader:
    """Of a ledger of 300 entries."""
    make(tmp_path / "ledger", refusals(300))
    return LedgerReader(tmp_path / "ledger", KEY)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1, 256, 299, 300])
def test_a_place_is_found_again_also_when_the_log_has_grown(place: int, reader: LedgerReader, tmp_path: Path) -> None:
    position = Position(tmp_path / "place")
    assert position.next(reader) is None
    position.keep(reader, place)
    assert position.next(reader) == place
    with Ledger(reader.directory, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append(refusals(300, start=300))
    assert position.next(LedgerReader(reader.directory, KEY)) == place


def test_a_log_whose_tail_was_cut_is_told(reader: LedgerReader, tmp_path: Path) -> None:
    shutil.copytree(reader.directory, tmp_path / "before")
    with Ledger(reader.directory, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append(refusals(10, start=300))
    position = Position(tmp_path / "place")
    position.keep(LedgerReader(reader.directory, KEY), 305)
    with pytest.raises(TamperError, match="tail was cut: it has 300 entries, and 305 have been exported"):
        position.next(LedgerReader(tmp_path / "before", KEY))


def test_a_log_that_was_rewritten_under_the_same_key_is_told(reader: LedgerReader, tmp_path: Path) -> None:
    position = Position(tmp_path / "place")
    position.keep(reader, 200)
    make(tmp_path / "other", refusals(400, start=1))
    with pytest.raises(TamperError, match="rewritten: its first 200 entries"):
        position.next(LedgerReader(tmp_path / "other", KEY))


def test_the_place_in_another_log_is_refused(reader: LedgerReader, tmp_path: Path) -> None:
    position, signer = Position(tmp_path / "place"), Ed25519Signer(bytes(32))
    position.keep(reader, 2)
    with Ledger.create(tmp_path / "other", "ledger.example/other", signer, JOURNAL_KEY) as ledger:
        ledger.append(refusals(3))
    other = LedgerReader(tmp_path / "other", VerifierKey("ledger.example/other", signer.public_key))
    with pytest.raises(FormatError, match=r"the position in another log: 'ledger\.example/test'"):
        position.next(other)


@pytest.mark.parametrize(
    "changed", [{"v": 2}, {"next": -1}, {"next": "1"}, {"next": True}, {"more": 1}, {"root": None}]
)
def test_what_is_no_position_is_refused(changed: dict[str, object], reader: LedgerReader, tmp_path: Path) -> None:
    position = Position(tmp_path / "place")
    position.keep(reader, 1)
    document = {**json.loads((tmp_path / "place").read_bytes()), **changed}
    (tmp_path / "place").write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))
    with pytest.raises(FormatError, match="is no position of an export"):
        position.next(reader)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"[]", b"{" * 5000])
def test_another_file_is_refused(content: bytes, reader: LedgerReader, tmp_path: Path) -> None:
    (tmp_path / "place").write_bytes(content)
    with pytest.raises(FormatError):
        Position(tmp_path / "place").next(reader)


def test_two_exports_do_not_share_a_place(tmp_path: Path) -> None:
    with Position(tmp_path / "place").held(), pytest.raises(BusyError), Position(tmp_path / "place").held():
        pass
