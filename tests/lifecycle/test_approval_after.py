"""Broken glass is reviewed by who did not break it, and a drill ended by who began it."""

from pathlib import Path

import pytest

from palladion.approvals.review import review
from palladion.errors import ApprovalError
from palladion.ledger.record import Record
from palladion.lifecycle.approval_after import end_drill, record_review
from palladion.lifecycle.approvals import Permit
from palladion.lifecycle.installation import owner_identity
from palladion.lifecycle.unseal import unseal

from .approving import KEYS, House, build
from .installations import ACTOR

pytestmark = pytest.mark.slow  # makes installations


@pytest.fixture
def house(tmp_path: Path) -> House:
    return build(tmp_path)


def test_who_broke_the_glass_does_not_review_it(tmp_path: Path) -> None:
    house = build(tmp_path, break_glass=True, approvers=("ada", "bob"))
    permit, out = Permit(break_glass="now"), tmp_path / "x"
    unseal(house.installation, "fraud@1", owner_identity(house.owner), out, reason="r", actor="user:ada", permit=permit)
    (broken,) = house.board.unreviewed
    signed = review(broken.id, "fine", KEYS["ada"], origin=house.board.origin, at=house.clock.now())
    with pytest.raises(ApprovalError, match="himself"):
        record_review(house.installation, signed, actor="user:bob")


def test_a_second_record_of_broken_glass_changes_nothing(tmp_path: Path) -> None:
    house = build(tmp_path, break_glass=True, approvers=("ada", "bob"))
    permit, out = Permit(break_glass="now"), tmp_path / "x"
    unseal(house.installation, "fraud@1", owner_identity(house.owner), out, reason="r", actor="user:ada", permit=permit)
    (record,) = house.records("approval.broken-glass")
    again = Record(record.kind, house.clock.now(), "user:somebody", record.subject, record.details)
    with house.installation.open_ledger(house.installation.open_gate_root()) as ledger:
        ledger.append([again])
    board = house.board
    (broken,) = board.unreviewed
    assert (broken.by, len(board.refused)) == ("user:ada", 1)
    signed = review(broken.id, "fine", KEYS["ada"], origin=board.origin, at=house.clock.now())
    with pytest.raises(ApprovalError, match="himself"):
        record_review(house.installation, signed, actor="user:ada")


def test_a_drill_is_ended_by_who_began_it_and_over_then(house: House) -> None:
    drill, real = house.ask(drill=True), house.ask()
    told = set()
    for request in (drill, real):
        with pytest.raises(ApprovalError) as caught:
            end_drill(house.installation, request.id, actor="user:eve")
        told.add(caught.value.message.replace(request.id, "ID"))
    assert len(told) == 1  # the same of both
    end_drill(house.installation, drill.id, actor=ACTOR)
    with pytest.raises(ApprovalError, match="was used"):
        house.say("ada", drill)
