"""A release that people have to agree to: what they agreed to is used once, for one client and one file."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from palladion.approvals.request import Request
from palladion.broker.leases import Leases
from palladion.errors import PalladionError
from palladion.host.broker_messages import BrokerRefusedError, encode
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


def test_one_approval_used_by_many_at_once_releases_one_key(house: House, asking: Asking) -> None:
    request = _ask(house, asking.setting, "ada", "bob")
    bodies = [encode(asking.request(approval=request.id)) for _ in range(4)]

    def release(body: bytes) -> bool:
        try:
            # each as a process of its own would, with a ledger lock of its own
            asking.broker.release(CERTIFICATE, body)
        except PalladionError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(release, bodies)) <= 1
    assert len(asking.setting.records("approval.used")) <= 1
    assert len(asking.setting.records("broker.released")) <= 1


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
