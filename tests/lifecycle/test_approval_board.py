"""What is read of the ledger: all of it, in any size, and nothing that does not hold."""

from pathlib import Path

import pytest

from palladion.errors import ApprovalError, TamperError
from palladion.ledger.record import Record
from palladion.lifecycle.approval_board import drill_key, read_board

from .approving import House, build
from .installations import ACTOR, make

pytestmark = pytest.mark.slow  # makes installations


@pytest.fixture
def house(tmp_path: Path) -> House:
    return build(tmp_path)


def _fill(house: House, count: int) -> None:
    with house.installation.open_ledger(house.installation.open_gate_root()) as ledger:
        ledger.append([Record("gate.stopped", house.clock.now(), ACTOR, "gate", {}) for _ in range(count)])


def test_what_is_far_back_in_the_ledger_is_read(house: House) -> None:
    request = house.ask()
    house.say("ada", request)
    _fill(house, 600)
    house.say("bob", request)
    board = house.board
    assert [len(case.decisions) for case in board.cases.values()] == [2]
    assert board.refused == []


def test_an_entry_that_was_changed_is_noticed(house: House) -> None:
    request = house.ask()
    house.say("ada", request)
    _fill(house, 300)
    (bundle,) = [path for path in (house.installation.paths.ledger / "tile" / "entries").rglob("000") if path.is_file()]
    bundle.write_bytes(bundle.read_bytes().replace(b'"kind":"approval.granted"', b'"kind":"approval_granted"'))
    with pytest.raises(TamperError):
        _ = house.board


def test_a_state_is_one_word(house: House) -> None:
    request = house.ask()
    states = []
    for name in ("ada", "bob", ""):
        board = house.board
        states.append(board.state(board.case(request.id), house.clock.now(), wished=2))
        if name:
            house.say(name, request)
    assert states == ["waiting", "waiting", "approved"]
    board = house.board
    assert board.state(board.case(request.id), request.ends_at, wished=2) == "expired"
    house.say("eve", request, "deny")
    board = house.board
    assert board.state(board.case(request.id), house.clock.now(), wished=2) == "denied"


def test_an_id_is_found_by_its_beginning_and_no_other(house: House) -> None:
    request = house.ask()
    assert house.board.case(request.id[:4]).request == request
    for text in ("", "nothing", request.id + "0"):
        with pytest.raises(ApprovalError, match="is on record"):
            house.board.case(text)


def test_drills_of_two_installations_are_told_by_two_secrets(tmp_path: Path) -> None:
    one, other = make(tmp_path / "one").installation, make(tmp_path / "other").installation
    assert drill_key(one.open_gate_root()) == drill_key(one.open_gate_root())
    assert drill_key(one.open_gate_root()) != drill_key(other.open_gate_root())
    assert read_board(one, one.open_gate_root()).statement is None


def test_a_board_is_continued_as_if_all_were_read_again(house: House) -> None:
    installation, gate = house.installation, house.installation.open_gate_root()
    before = house.board
    request = house.ask()
    _fill(house, 300)
    house.say("ada", request)
    with installation.open_ledger(gate) as ledger:
        ledger.append([Record("approval.granted", house.clock.now(), ACTOR, "approval:0", {})])
        waiting = read_board(installation, gate, since=before)
        assert waiting == read_board(installation, gate)
        assert (len(waiting.waiting), len(waiting.refused)) == (1, 1)
    house.say("bob", request)
    assert read_board(installation, gate, since=waiting) == house.board


def test_a_board_of_another_ledger_is_not_continued(tmp_path: Path, house: House) -> None:
    other = build(tmp_path / "other", approvers=())
    other.ask()
    with pytest.raises(TamperError):
        read_board(house.installation, house.installation.open_gate_root(), since=other.board)
