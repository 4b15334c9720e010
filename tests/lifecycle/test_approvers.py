"""Who approves: the first ones are the owner's, all others theirs."""

from datetime import timedelta
from pathlib import Path

import pytest

from palladion.approvals.request import Request
from palladion.approvals.roster import Change, sign_statement
from palladion.errors import ApprovalError, ConflictError, NotFoundError, TamperError
from palladion.ledger.record import Record
from palladion.ledger.writer import Ledger, Receipt
from palladion.lifecycle.approval_board import read_board
from palladion.lifecycle.approvers import (
    apply_change,
    approver_of,
    change_approvers,
    named,
    require_escrow,
    with_proposal,
)
from palladion.lifecycle.operators import add_operator
from palladion.lifecycle.rewrap import rewrap
from palladion.lifecycle.seal import seal
from palladion.seal.recipients import FileIdentity, parse_recipient

from .approving import KEYS, House, build
from .installations import ACTOR, OWNER, make

pytestmark = pytest.mark.slow  # makes installations


@pytest.fixture
def house(tmp_path: Path) -> House:
    return build(tmp_path)


def _names(house: House) -> list[str]:
    statement = house.board.statement
    return [item.name for item in statement.approvers] if statement else []


def test_a_new_approver_counts_once_enough_others_agreed(house: House) -> None:
    asked = house.appoint("zoe")
    assert asked.request is not None
    request = asked.request
    shown = with_proposal(house.installation, house.board.case(request.id).signed).change
    assert shown is not None
    assert [item.name for item in shown.approvers] == ["ada", "bob", "eve", "zoe"]
    with pytest.raises(ApprovalError, match="0 of 2"):
        apply_change(house.installation, request.id, actor=ACTOR)
    house.say("ada", request)
    house.say("bob", request)
    apply_change(house.installation, request.id, actor=ACTOR)
    assert _names(house) == ["ada", "bob", "eve", "zoe"]
    with pytest.raises(ApprovalError, match="was used"):
        apply_change(house.installation, request.id, actor=ACTOR)


def test_a_change_that_was_overtaken_is_not_put_in_force(house: House) -> None:
    first, second = house.appoint("zoe"), house.appoint("zoe")
    for asked in (first, second):
        assert asked.request is not None
        house.say("ada", asked.request)
        house.say("bob", asked.request)
    assert first.request is not None
    assert second.request is not None
    apply_change(house.installation, first.request.id, actor=ACTOR)
    with pytest.raises(ApprovalError, match="does not follow"):
        apply_change(house.installation, second.request.id, actor=ACTOR)


def test_an_approval_of_a_delivery_changes_no_approvers(house: House) -> None:
    request = house.ask()
    house.say("ada", request)
    house.say("bob", request)
    with pytest.raises(ApprovalError, match="changes no approvers"):
        apply_change(house.installation, request.id, actor=ACTOR)


def test_a_drill_changes_no_approvers(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = house.appoint("zoe")
    assert asked.request is not None
    for name in ("ada", "bob"):
        house.say(name, asked.request)
    monkeypatch.setattr(Request, "is_drill", lambda _self, _key: True)
    with pytest.raises(ApprovalError, match="was a drill"):
        apply_change(house.installation, asked.request.id, actor=ACTOR)
    assert _names(house) == ["ada", "bob", "eve"]


def test_a_statement_that_the_owner_signed_and_wrote_by_hand_is_refused_by_all_who_read(house: House) -> None:
    asked = change_approvers(house.installation, house.owner, Change(needed=0), reason="less work", actor=ACTOR)
    signed = sign_statement(asked.statement, house.owner.signer("publisher"))
    from palladion.approvals.documents import document_of

    assert asked.request is not None
    details = {**document_of(signed), "request": asked.request.id}
    with house.installation.open_ledger(house.installation.open_gate_root()) as ledger:
        ledger.append([Record("approvals.changed", house.clock.now(), ACTOR, "approvals:5", details)])
    board = house.board
    assert board.statement is not None
    assert board.statement.needed == 2
    assert any("0 of 2 approvals" in text for text in board.refused)


def test_another_owner_root_signs_nothing_here(tmp_path: Path, house: House) -> None:
    other = make(tmp_path / "other").owner
    with pytest.raises(TamperError, match="another key than the ledger has"):
        change_approvers(house.installation, other, Change(needed=0), reason="mine", actor=ACTOR)


def test_only_operators_who_approve_become_approvers(house: House) -> None:
    key = str(KEYS["zoe"].key)
    with pytest.raises(NotFoundError):
        approver_of(house.installation, "zoe", key)
    add_operator(house.installation, "zoe", role="viewer", identity="user:zoe", actor=ACTOR)
    with pytest.raises(ConflictError, match="is viewer"):
        approver_of(house.installation, "zoe", key)


def test_one_key_is_one_person(house: House) -> None:
    add_operator(house.installation, "zoe", role="approver", identity="user:zoe", actor=ACTOR)
    twin = approver_of(house.installation, "zoe", str(KEYS["ada"].key))
    with pytest.raises(ApprovalError, match="the key"):
        change_approvers(house.installation, house.owner, Change(add=twin), reason="twin", actor=ACTOR)


def test_a_new_escrow_recipient_in_the_policy_is_given_nothing(tmp_path: Path, house: House) -> None:
    require_escrow(house.installation, house.installation.open_gate_root())
    rogue = str(FileIdentity.generate().recipient)
    path = house.installation.paths.policy
    path.write_text(path.read_text().replace("escrow = [", f'escrow = ["{rogue}", '))
    changed = house.settle(needed=2)
    with pytest.raises(ApprovalError, match="escrow recipient that the approvers do not know"):
        rewrap(changed.installation, house.owner, [OWNER.recipient], actor=ACTOR)
    with pytest.raises(ApprovalError, match="escrow recipient"):
        seal(changed.installation, house.owner, tmp_path / "1.onnx", "other", [], actor=ACTOR)


def test_what_is_not_published_yet_is_read_too(house: House) -> None:
    gate = house.installation.open_gate_root()
    with house.installation.open_ledger(gate) as ledger:
        before = len(read_board(house.installation, gate).refused)
        ledger.append([Record("approval.granted", house.clock.now(), ACTOR, "approval:0", {})])
        assert len(read_board(house.installation, gate).refused) == before + 1


def test_a_change_that_expired_is_not_put_in_force(house: House) -> None:
    asked = house.appoint("zoe")
    assert asked.request is not None
    house.say("ada", asked.request)
    house.say("bob", asked.request)
    house.clock.advance(timedelta(days=8))
    with pytest.raises(ApprovalError, match="ended at"):
        apply_change(house.installation, asked.request.id, actor=ACTOR)


def test_a_key_in_another_token_is_another_escrow_recipient() -> None:
    place = "pkcs11:token={};object=escrow;id=%01%02%03%04%05%06%07%08%09%0A%0B%0C%0D%0E%0F%10;type=secret-key"
    ours, theirs = (parse_recipient(place.format(token) + "?module-path=/x.so") for token in ("vault", "thief"))
    assert ours.key_id == theirs.key_id
    assert named(ours) != named(theirs)


def test_a_change_and_that_its_request_is_used_are_one_batch(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    made = house.appoint("zoe")
    assert made.request is not None
    house.say("ada", made.request)
    house.say("bob", made.request)
    batches: list[list[str]] = []
    append = Ledger.append

    def noted(self: Ledger, records: list[Record]) -> list[Receipt]:
        batches.append([record.kind for record in records])
        return append(self, records)

    monkeypatch.setattr(Ledger, "append", noted)
    apply_change(house.installation, made.request.id, actor=ACTOR)
    assert batches == [["approval.used", "approvals.changed"]]
