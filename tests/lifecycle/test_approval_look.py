"""What doctor says of approvals."""

from pathlib import Path
from typing import Any

import pytest

from palladion.ledger.record import Record
from palladion.lifecycle.approval_look import look
from palladion.lifecycle.approvals import Permit
from palladion.lifecycle.approvers import apply_change
from palladion.lifecycle.installation import owner_identity
from palladion.lifecycle.operators import add_operator, revoke_operator
from palladion.lifecycle.unseal import unseal
from palladion.seal.recipients import FileIdentity

from .approving import House, build
from .installations import ACTOR

pytestmark = pytest.mark.slow  # makes installations


def _seen(house: House) -> list[tuple[str, str]]:
    return [(check.status, check.message) for check in look(house.installation)]


def test_where_nobody_has_to_agree_it_says_nothing(tmp_path: Path) -> None:
    assert _seen(build(tmp_path, approvers=(), needed=0)) == []


@pytest.mark.parametrize(
    ("options", "changed", "status", "words"),
    [
        ({}, {}, "ok", "2 of 3 approvers have to agree"),
        ({"approvers": ("ada", "bob")}, {}, "warning", "all 2 approvers are needed"),
        ({"approvers": ("ada",)}, {}, "problem", "1 approvers are registered: nothing can leave"),
        ({"needed": 0}, {"needed": 2}, "problem", "can still change who approves"),
        ({}, {"needed": 1}, "warning", "palladion.toml says 1, and 2 approvals are needed"),
    ],
)
def test_what_is_not_as_it_should_be_is_named(
    tmp_path: Path, options: dict[str, Any], changed: dict[str, Any], status: str, words: str
) -> None:
    house = build(tmp_path, **options)
    ((found, message),) = _seen(house.settle(**changed) if changed else house)
    assert found == status
    assert words in message


def test_a_revoked_operator_is_no_approver(tmp_path: Path) -> None:
    house = build(tmp_path, approvers=("ada", "bob"))
    revoke_operator(house.installation, "bob", actor=ACTOR)
    ((found, message),) = _seen(house)
    assert found == "problem"
    assert "2 approvals are needed, and 1 approvers are registered" in message


def test_broken_glass_is_a_problem_until_it_is_reviewed(tmp_path: Path) -> None:
    house = build(tmp_path, break_glass=True)
    permit, out = Permit(break_glass="the court"), tmp_path / "x"
    unseal(house.installation, "fraud@1", owner_identity(house.owner), out, reason="r", actor=ACTOR, permit=permit)
    assert [(status, "the court" in message) for status, message in _seen(house)] == [("problem", True)]


def test_forged_records_and_strange_escrow_are_problems(tmp_path: Path) -> None:
    house = build(tmp_path)
    with house.installation.open_ledger(house.installation.open_gate_root()) as ledger:
        ledger.append([Record("approvals.changed", house.clock.now(), ACTOR, "approvals:9", {})])
    path = house.installation.paths.policy
    path.write_text(path.read_text().replace("escrow = [", f'escrow = ["{FileIdentity.generate().recipient}", '))
    found = _seen(house.settle(needed=2))
    assert [status for status, _ in found] == ["problem", "problem"]
    assert "1 records of approvals that do not hold" in found[0][1]
    assert "did not agree to the escrow recipient" in found[1][1]


def test_an_approver_without_an_account_here_is_a_problem(tmp_path: Path) -> None:
    house = build(tmp_path, approvers=("ada", "eve"), needed=1)
    add_operator(house.installation, "bob", role="approver", identity="oidc:https://idp.example#bob", actor=ACTOR)
    made = house.appoint("bob")
    assert made.request is not None
    house.say("ada", made.request)
    apply_change(house.installation, made.request.id, actor=ACTOR)
    ((status, message),) = _seen(house)
    assert (status, "bob is listed without an account of this machine" in message) == ("problem", True)
