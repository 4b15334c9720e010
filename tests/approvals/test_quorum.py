"""Whether enough people agreed: each attack on M of N that can be told without a ledger."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from palladion.approvals.quorum import Wanted, require_decidable, require_quorum, require_same
from palladion.approvals.request import Request, SignedDecision
from palladion.approvals.roster import Approver, Change, Statement, next_statement
from palladion.errors import ApprovalError, TamperError

from .people import KEYS, NOW, ORIGIN, OWNER_ID, person, request, says, statement

SOON = NOW + timedelta(minutes=10)


def _agreed(
    about: Request, decisions: list[SignedDecision], *, by: Statement | None = None, **changed: Any
) -> list[str]:
    options: dict[str, Any] = {"owner": OWNER_ID, "needed": 2, "at": SOON} | changed
    found = require_quorum(about, decisions, by or statement("ada", "bob", "eve"), **options)
    return [item.name for item in found]


def test_two_others_are_enough() -> None:
    about = request()
    assert _agreed(about, [says("eve", about), says("bob", about)]) == ["bob", "eve"]


@pytest.mark.parametrize(
    "named",
    [
        pytest.param([], id="nobody"),
        pytest.param(["bob"], id="one"),
        pytest.param(["bob", "bob"], id="one of them twice"),
        pytest.param(["bob", "ada"], id="one of them asked for it himself"),
        pytest.param(["bob", "zoe"], id="one of them is no approver"),
    ],
)
def test_too_few_are_refused(named: list[str]) -> None:
    about = request()
    with pytest.raises(ApprovalError, match="of 2 approvals") as caught:
        _agreed(about, [says(name, about) for name in named])
    assert caught.value.reason == "too-few"


def test_two_signatures_of_one_approver_are_one_approval() -> None:
    about = request()
    twice = [says("bob", about, after=timedelta(minutes=minutes)) for minutes in (1, 2)]
    assert twice[0].signature != twice[1].signature
    with pytest.raises(ApprovalError, match="1 of 2"):
        _agreed(about, twice)


def test_a_second_account_of_who_asked_does_not_approve() -> None:
    about = request(requester="user:bob-admin")
    second = next_statement(
        statement("ada", "bob", "eve"), Change(add=person("bob", "user:bob-admin")), origin=ORIGIN, at=NOW
    )
    with pytest.raises(ApprovalError, match="1 of 2"):
        _agreed(about, [says("ada", about), says("bob", about)], by=second)
    assert _agreed(about, [says("ada", about), says("eve", about)], by=second) == ["ada", "eve"]


def test_who_was_taken_off_the_list_agrees_to_nothing() -> None:
    about = request()
    left = next_statement(statement("ada", "bob", "eve"), Change(remove="eve"), origin=ORIGIN, at=NOW)
    with pytest.raises(ApprovalError, match="1 of 2"):
        _agreed(about, [says("bob", about), says("eve", about)], by=left)


def test_a_denial_outlives_who_denied() -> None:
    about = request()
    left = next_statement(statement("ada", "bob", "eve", "zoe"), Change(remove="eve"), origin=ORIGIN, at=NOW)
    with pytest.raises(ApprovalError, match="denied by somebody who left") as caught:
        _agreed(about, [says("bob", about), says("zoe", about), says("eve", about, "deny")], by=left)
    assert caught.value.reason == "denied"


def test_one_denial_is_enough() -> None:
    about = request()
    with pytest.raises(ApprovalError, match="denied by bob") as caught:
        _agreed(about, [says("eve", about), says("bob", about, "deny")], needed=1)
    assert caught.value.reason == "denied"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recipient", "thief"),
        ("recipient_key", "pallr1xthief"),
        ("purpose", "export"),
        ("file_id", "aa" * 16),
        ("subject", "fraud@3"),
        ("expires", "2026-06-08T12:00:00.000000Z"),
        ("requester", "user:eve"),
        ("id", "0" * 16),
    ],
)
def test_what_was_altered_after_it_was_approved_is_refused(field: str, value: str) -> None:
    about = request()
    decisions = [says("bob", about), says("eve", about)]
    altered = msgspec.structs.replace(about, **{field: value})
    with pytest.raises(ApprovalError, match="another request"):
        _agreed(altered, decisions)


def test_one_signature_does_not_approve_two_requests() -> None:
    first, second = request(), request()
    taken = says("bob", first).decision
    moved = msgspec.structs.replace(taken, id=second.id, request=second.digest)
    with pytest.raises(TamperError, match="was altered"):
        _agreed(second, [SignedDecision(moved, says("bob", first).signature), says("eve", second)])


def test_a_denial_is_not_turned_into_an_approval() -> None:
    about = request()
    denied = says("bob", about, "deny")
    turned = SignedDecision(msgspec.structs.replace(denied.decision, verdict="grant"), denied.signature)
    with pytest.raises(TamperError, match="was altered"):
        _agreed(about, [turned, says("eve", about)])


def test_a_request_is_over_at_its_end() -> None:
    about = request(hours=1)
    decisions = [says("bob", about), says("eve", about)]
    _agreed(about, decisions, at=NOW + timedelta(minutes=59))
    with pytest.raises(ApprovalError, match="ended at") as caught:
        _agreed(about, decisions, at=NOW + timedelta(hours=1))
    assert caught.value.reason == "expired"


def test_a_clock_that_is_before_the_request_is_refused() -> None:
    about = request()
    with pytest.raises(ApprovalError, match="by this machine's clock"):
        _agreed(about, [says("bob", about), says("eve", about)], at=NOW - timedelta(hours=1))


@pytest.mark.parametrize("after", [timedelta(hours=-1), timedelta(hours=2)])
def test_a_decision_of_a_time_that_cannot_be_does_not_count(after: timedelta) -> None:
    about = request()
    with pytest.raises(ApprovalError, match="1 of 2"):
        _agreed(about, [says("bob", about), says("eve", about, after=after)])


@pytest.mark.parametrize("changed", [{"origin": "ledger.example.com/other"}, {"owner": "f" * 16}])
def test_a_request_of_another_installation_is_refused(changed: dict[str, str]) -> None:
    about = request(**changed)
    with pytest.raises(ApprovalError, match="is of ledger") as caught:
        _agreed(about, [says("bob", about), says("eve", about)])
    assert caught.value.reason == "installation"


def test_no_approvers_never_are_enough() -> None:
    about = request()
    with pytest.raises(ApprovalError, match="nobody is registered"):
        _agreed(about, [], by=statement("ada", "bob", needed=0), needed=0)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"purpose": "export"}, "purpose"),
        ({"file_id": "aa" * 16}, "file"),
        ({"recipient": "thief"}, "recipient"),
        ({"recipient_key": "pallr1xthief"}, "key"),
        ({"actor": "user:eve"}, "requester"),
        ({"evidence": "e" * 64}, "evidence"),
        ({"content": "c" * 64}, "content"),
    ],
)
def test_only_what_was_approved_is_done(changed: dict[str, Any], reason: str) -> None:
    about = request()
    same: dict[str, Any] = {
        "purpose": "deliver",
        "file_id": about.file_id,
        "recipient": "lab",
        "recipient_key": "pallr1xlab",
    }
    require_same(about, Wanted(**same, actor="user:ada"))
    with pytest.raises(ApprovalError, match="was approved for") as caught:
        require_same(about, Wanted(**(same | changed)))
    assert caught.value.reason == reason


def _decidable(about: Request, signed: SignedDecision) -> Approver:
    return require_decidable(about, signed, statement("ada", "bob", "eve"), owner=OWNER_ID, at=SOON)


def test_a_decision_that_would_not_count_is_not_taken() -> None:
    about = request()
    assert _decidable(about, says("bob", about)).name == "bob"
    with pytest.raises(ApprovalError, match="himself"):
        _decidable(about, says("ada", about))
    with pytest.raises(ApprovalError, match="no approver"):
        _decidable(about, says("zoe", about))
    with pytest.raises(ApprovalError, match="of 2026-06-01T15:00"):
        _decidable(about, says("bob", about, after=timedelta(hours=3)))
    assert _decidable(about, says("ada", about, "deny")).key == str(KEYS["ada"].key)
