"""A release that people have to agree to: what they agreed to is used once, for one client and one file."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from palladion.approvals.request import Request
from palladion.broker import leases
from palladion.broker.front import unwrapped
from palladion.broker.leases import Leases
from palladion.errors import BusyError
from palladion.host.broker_messages import BrokerRefusedError, encode
from palladion.ledger.record import Record
from palladion.ledger.writer import Ledger, Receipt
from palladion.lifecycle.approvals import withdraw
from tests.lifecycle.approving import House, build
from tests.lifecycle.installations import ACTOR

from .parts import CEDAR, CERTIFICATE, OTHER, Asking, Setting, furnish

pytestmark = pytest.mark.slow  # an installation with approvers for each test

RULE = "approvals = 2\napproved_hours = 24"


@pytest.fixture
def house(tmp_path: Path) -> House:
    return build(tmp_path)


@pytest.fixture
def asking(house: House) -> Asking:
    setting = furnish(house.installation, house.owner, house.clock).settle(RULE)
    return Asking(setting, setting.broker())


def _ask(house: House, setting: Setting, *approvers: str, **changed: Any) -> Request:
    wanted: dict[str, Any] = {
        "purpose": "release",
        "file_id": setting.structure().header.file_id,
        "recipient": "acme/web",
        "recipient_key": "",
    }
    request = house.ask(**(wanted | changed))
    for name in approvers:
        house.say(name, request)
    return request


def _refused(asking: Asking, reason: str, **changes: Any) -> None:
    with pytest.raises(BrokerRefusedError) as caught:
        asking.release(**changes)
    assert caught.value.reason == reason
    assert asking.setting.reasons()[-1] == reason
    assert asking.setting.records("broker.released") == []


def test_what_enough_people_agreed_to_is_released_once(house: House, asking: Asking) -> None:
    request = _ask(house, asking.setting, "ada", "bob")

    answer = asking.release(approval=request.id)

    (record,) = asking.setting.records("broker.released")
    assert record.details["approvers"] == ["ada", "bob"]
    assert [one.kind for one in asking.setting.records("approval.used", "broker.released")] == [
        "approval.used",
        "broker.released",
    ]
    with pytest.raises(BrokerRefusedError) as caught:
        asking.release(approval=request.id)
    assert caught.value.reason == "used"
    assert asking.renew(answer.lease).lease == answer.lease


def test_without_approvals_nothing_is_released(house: House, asking: Asking) -> None:
    _refused(asking, "needed")
    _refused(asking, "too-few", approval=_ask(house, asking.setting, "ada").id)
    _refused(asking, "unknown", approval="0123456789abcdef")


@pytest.mark.parametrize(
    "changed",
    [{"file_id": "ab" * 16}, {"recipient": "acme/other"}, {"evidence": "ab" * 32}],
    ids=["file", "client", "machine"],
)
def test_what_was_agreed_to_for_something_else_is_not_released(
    house: House, asking: Asking, changed: dict[str, Any]
) -> None:
    request = _ask(house, asking.setting, "ada", "bob", **changed)

    with pytest.raises(BrokerRefusedError):
        asking.release(approval=request.id)
    assert asking.setting.records("broker.released", "approval.used") == []


def test_another_client_cannot_use_what_was_agreed_to(house: House, asking: Asking) -> None:
    (asking.setting.installation.paths.home / "broker.cedar").write_text(CEDAR.replace("acme/web", "acme/other"))
    request = _ask(house, asking.setting, "ada", "bob")

    with pytest.raises(BrokerRefusedError):
        replace(asking, certificate=OTHER).release(approval=request.id)
    assert asking.setting.records("approval.used") == []


def test_what_was_withdrawn_or_has_ended_is_not_released(house: House, asking: Asking) -> None:
    gone, late = (_ask(house, asking.setting, "ada", "bob") for _ in range(2))
    withdraw(house.installation, gone.id, reason="no more", actor=ACTOR)
    _refused(asking, "withdrawn", approval=gone.id)
    house.clock.advance(timedelta(hours=9))
    _refused(asking, "expired", approval=late.id)


def test_a_refusal_before_uses_nothing_up(house: House, asking: Asking) -> None:
    request = _ask(house, asking.setting, "ada", "bob")
    _refused(asking, "policy", approval=request.id, purpose="serve")

    assert asking.release(approval=request.id)


def test_one_approval_used_by_several_brokers_at_once_releases_one_key(house: House, asking: Asking) -> None:
    """Each with a thread of its own, as a process would, and a ledger lock of its own."""
    request = _ask(house, asking.setting, "ada", "bob")
    brokers = [replace(asking, broker=asking.setting.broker()) for _ in range(4)]
    bodies = [encode(one.request(approval=request.id)) for one in brokers]
    begin = threading.Barrier(len(brokers))

    def release(one: Asking, body: bytes) -> str:
        begin.wait(60)
        try:
            one.broker.release(CERTIFICATE, body)
        except BrokerRefusedError as error:
            return error.reason
        return "released"

    with ThreadPoolExecutor(len(brokers)) as pool:
        said = list(pool.map(release, brokers, bodies))

    assert sorted(said) == ["released", "used", "used", "used"]
    assert asking.setting.records("approval.used")
    assert len(asking.setting.records("broker.released")) == 1
    assert len(Leases(asking.setting.installation.paths.directory).all()) == 1


class _Died(BaseException):
    """The process is gone."""


def _dies(asking: Asking, approval: str, at: str, monkeypatch: pytest.MonkeyPatch, *, after: bool = False) -> None:
    """A release that dies before, or right after, its record of this kind."""
    original = Ledger.append

    def append(self: Ledger, records: Sequence[Record]) -> list[Receipt]:
        dies = any(record.kind == at for record in records)
        if dies and not after:
            raise _Died
        receipts = original(self, records)
        if dies:
            raise _Died
        return receipts

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", append)
        with pytest.raises(_Died):
            asking.release(approval=approval)


@pytest.mark.parametrize("characters", [16, 12], ids=["its id", "the beginning of its id"])
@pytest.mark.parametrize(("at", "after"), [("approval.used", True), ("broker.released", False)])
def test_what_died_before_its_record_is_asked_for_again_and_released_once(
    house: House, asking: Asking, monkeypatch: pytest.MonkeyPatch, at: str, after: bool, characters: int
) -> None:
    request = _ask(house, asking.setting, "ada", "bob")
    approval = request.id[:characters]
    _dies(asking, approval, at, monkeypatch, after=after)
    assert house.board.state(house.board.case(request.id), house.clock.now(), wished=2) == "begun"

    again = replace(asking, broker=asking.setting.broker())
    assert again.release(approval=approval)

    (record,) = asking.setting.records("broker.released")
    assert record.details["approval"] == request.id
    with pytest.raises(BrokerRefusedError) as caught:
        again.release(approval=approval)
    assert caught.value.reason == "used"


def test_what_died_behind_its_record_is_not_released_again(
    house: House, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = _ask(house, asking.setting, "ada", "bob")
    _dies(asking, request.id, "broker.released", monkeypatch, after=True)

    with pytest.raises(BrokerRefusedError) as caught:
        asking.release(approval=request.id)
    assert caught.value.reason == "used"


def test_what_died_is_still_for_one_client_and_can_be_taken_back(
    house: House, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = _ask(house, asking.setting, "ada", "bob")
    _dies(asking, request.id, "broker.released", monkeypatch)
    cedar = asking.setting.installation.paths.home / "broker.cedar"
    cedar.write_text(CEDAR + CEDAR.replace("acme/web", "acme/other"))

    with pytest.raises(BrokerRefusedError):
        replace(asking, broker=asking.setting.broker(), certificate=OTHER).release(approval=request.id)
    withdraw(house.installation, request.id, reason="it died", actor=ACTOR)
    _refused(asking, "withdrawn", approval=request.id)


@pytest.mark.parametrize("how", ["another", "withdrawn"])
def test_of_two_that_began_with_one_request_one_gets_the_key(
    house: House, asking: Asking, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    request = _ask(house, asking.setting, "ada", "bob")
    other = Asking(asking.setting, asking.setting.broker())

    def unwrapping(*arguments: Any) -> bytes:
        monkeypatch.undo()
        if how == "another":
            other.release(approval=request.id)
        else:
            withdraw(house.installation, request.id, reason="no", actor="user:carol")
        return unwrapped(*arguments)

    monkeypatch.setattr("palladion.broker.broker.unwrapped", unwrapping)
    with pytest.raises(BrokerRefusedError) as caught:
        asking.release(approval=request.id)

    assert caught.value.reason == ("used" if how == "another" else "withdrawn")
    assert "user:" not in str(caught.value) + repr(caught.value.hints)
    assert len(asking.setting.records("broker.released")) == (how == "another")
    assert len(Leases(asking.setting.installation.paths.directory).all()) == (how == "another")


def test_without_room_for_a_lease_no_approval_is_used_up(
    house: House, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = _ask(house, asking.setting, "ada", "bob")
    monkeypatch.setattr(leases, "OWNED_MAX", 0)
    with pytest.raises(BusyError, match="leases already"):
        asking.release(approval=request.id)
    monkeypatch.undo()
    assert asking.setting.records("approval.used", "broker.released") == []

    assert asking.release(approval=request.id)


def test_a_host_is_not_told_who_of_the_house_took_an_approval_back(house: House, asking: Asking) -> None:
    request = _ask(house, asking.setting, "ada", "bob")
    withdraw(house.installation, request.id, reason="no more", actor="user:carol")

    with pytest.raises(BrokerRefusedError) as caught:
        asking.release(approval=request.id)
    assert "carol" not in str(caught.value) + repr(caught.value.hints)


def test_a_lease_that_was_approved_has_an_end(house: House, asking: Asking) -> None:
    lease = asking.release(approval=_ask(house, asking.setting, "ada", "bob").id).lease
    for _ in range(24 * 3 - 1):
        house.clock.advance(timedelta(minutes=20))
        left = asking.renew(lease).seconds
    assert left == 20 * 60
    house.clock.advance(timedelta(minutes=20))
    with pytest.raises(BrokerRefusedError) as caught:
        asking.renew(lease)
    assert caught.value.reason == "lease"
    assert Leases(asking.setting.installation.paths.directory).all()[0].end


def test_a_lease_without_approvals_does_not_go_on_once_they_are_asked_for(house: House, asking: Asking) -> None:
    free = asking.setting.settle("approvals = 0")
    lease = Asking(free, free.broker()).release().lease
    strict = free.settle(RULE)

    with pytest.raises(BrokerRefusedError) as caught:
        Asking(strict, strict.broker()).renew(lease)
    assert caught.value.reason == "needed"
