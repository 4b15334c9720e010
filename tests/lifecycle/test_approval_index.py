"""An index spares reading a long ledger, and neither one that is forged nor one that is old hides anything."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import ApprovalError, TamperError
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record
from palladion.lifecycle import approval_index
from palladion.lifecycle.approval_board import Board, read_board
from palladion.lifecycle.approval_index import APPROVAL_INDEX_FILE, read_index, write_index
from palladion.lifecycle.approval_look import look
from palladion.lifecycle.approvals import require_approved

from .approving import House, build
from .installations import ACTOR

pytestmark = pytest.mark.slow  # makes installations


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """A house whose index is worth it from 400 entries on."""
    monkeypatch.setattr(approval_index, "WORTH_ENTRIES", 400)
    return build(tmp_path)


def _fill(house: House, count: int = 600) -> None:
    with house.installation.open_ledger(house.installation.open_gate_root()) as ledger:
        ledger.append([Record("gate.stopped", house.clock.now(), ACTOR, "gate", {}) for _ in range(count)])


def _path(house: House) -> Path:
    return house.installation.paths.ledger / APPROVAL_INDEX_FILE


def _whole(house: House) -> Board:
    return read_board(house.installation, house.installation.open_gate_root(), whole=True)


def _bundles_read(house: House, monkeypatch: pytest.MonkeyPatch) -> tuple[Board, list[int]]:
    """A board, and which bundles of the ledger were read for it."""
    read: list[int] = []
    original = LedgerReader.bundle

    def bundle(self: LedgerReader, index: int) -> dict[int, bytes]:
        read.append(index)
        return original(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(LedgerReader, "bundle", bundle)
        return house.board, read


def test_what_has_no_approvals_is_not_read_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    request = house.ask()
    house.say("ada", request)
    _fill(house, 1000)
    before, read = _bundles_read(house, monkeypatch)
    assert read == [0, 1, 2, 3]
    after, read = _bundles_read(house, monkeypatch)
    assert read == [0, 3]
    house.say("bob", request)
    assert before == after
    assert house.board == _whole(house)
    assert [len(case.decisions) for case in house.board.cases.values()] == [2]


def test_a_short_ledger_has_none(house: House) -> None:
    _ = house.board
    assert not _path(house).exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index["entries"].pop(),
        lambda index: index.update(size=index["size"] - 1),
        lambda index: index.update(root="0" * 64),
        lambda index: index["times"].clear(),
        lambda index: index.update(origin="other"),
    ],
    ids=["an entry is left out", "another size", "another root", "times are left out", "another origin"],
)
def test_one_that_was_changed_is_not_used(house: House, change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    request = house.ask()
    house.say("ada", request, "deny")
    _fill(house)
    expected = house.board
    document = json.loads(_path(house).read_bytes())
    change(document["index"])
    _path(house).write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))
    found, read = _bundles_read(house, monkeypatch)
    assert (found, read) == (expected, [0, 1, 2])
    # and it was made anew
    assert _bundles_read(house, monkeypatch)[1] == [0, 2]


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"index":1,"tag":"00"}', b"9" * (3 * 2**20)])
def test_what_is_no_index_is_not_used(house: House, data: bytes) -> None:
    house.ask()
    _fill(house)
    expected = house.board
    _path(house).write_bytes(data)
    assert house.board == expected


def test_that_of_another_installation_is_not_used(tmp_path: Path, house: House) -> None:
    other = build(tmp_path / "other", approvers=())
    _fill(other)
    _ = other.board
    house.ask()
    _fill(house)
    _path(house).write_bytes(_path(other).read_bytes())
    assert len(house.board.cases) == 1
    assert read_index(other.installation.read_ledger(), house.installation.open_gate_root()) is None


def test_an_older_one_hides_nothing_that_came_later(house: House) -> None:
    request = house.ask()
    _fill(house)
    _ = house.board
    older = _path(house).read_bytes()
    house.say("ada", request, "deny")
    _fill(house)
    _ = house.board
    _path(house).write_bytes(older)
    (case,) = house.board.cases.values()
    assert [item.decision.verdict for item in case.decisions] == ["deny"]


def test_one_of_a_longer_ledger_is_not_used(tmp_path: Path, house: House) -> None:
    house.ask()
    reader = house.installation.read_ledger()
    _fill(house)
    _ = house.board
    gate = house.installation.open_gate_root()
    assert read_index(house.installation.read_ledger(), gate) is not None
    shorter = LedgerReader(reader.directory, house.installation.ledger_key(), note=reader.note)
    assert read_index(shorter, gate) is None


def test_an_entry_that_it_names_is_proved(house: House) -> None:
    house.say("ada", house.ask())
    _fill(house)
    _ = house.board
    (bundle,) = [path for path in (house.installation.paths.ledger / "tile" / "entries").rglob("000") if path.is_file()]
    bundle.write_bytes(bundle.read_bytes().replace(b"approval.granted", b"approval.denied_"))
    with pytest.raises(TamperError):
        _ = house.board


def test_the_clock_is_compared_as_without_it(house: House) -> None:
    request = house.ask()
    house.clock.advance(timedelta(hours=2))
    _fill(house)
    _ = house.board
    house.clock.advance(timedelta(hours=-1))
    board = house.board
    assert board.latest_after(board.case(request.id).entry) == _whole(house).latest_after(board.case(request.id).entry)
    with pytest.raises(ApprovalError, match="clock says"):
        require_approved(
            house.installation, request.id, file_id="", recipient="", purpose="deliver", at=house.clock.now()
        )


def test_one_that_the_gate_root_made_wrong_is_a_problem(house: House) -> None:
    house.say("ada", house.ask(), "deny")
    _fill(house)
    board, gate, reader = _whole(house), house.installation.open_gate_root(), house.installation.read_ledger()
    write_index(reader, gate, board.entries, board.times, known=0)
    assert not [check for check in look(house.installation) if "leaves out" in check.message]
    write_index(reader, gate, board.entries[:-1], board.times, known=0)
    assert house.board.entries == board.entries[:-1]
    (found,) = [check for check in look(house.installation) if "leaves out" in check.message]
    assert found.status == "problem"
    assert f"entry {board.entries[-1]}" in found.message


def test_who_may_not_write_it_reads_all(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.ask()
    _fill(house)
    _path(house).mkdir()  # where no file can be put
    assert len(house.board.cases) == 1
    assert house.board == _whole(house)
