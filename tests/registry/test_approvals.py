"""Requests for approval as rows: found by their beginning, used once, limited, and never rewritten."""

from datetime import timedelta

import pytest

from palladion.errors import ConflictError, NotFoundError
from palladion.registry import Registry
from palladion.registry.approval_tables import ApprovalEventKind
from palladion.registry.approvals import WAITING_OF_ONE_MAX, ApprovalRequest

FIRST, SECOND = "0a" * 8, "0b" * 8


def _add(registry: Registry, request: str, *, requester: str = "user:ada", hours: int = 1) -> ApprovalRequest:
    with registry.write() as records:
        expires = records.approvals.now() + timedelta(hours=hours)
        return records.approvals.add(request, {"id": request}, requester=requester, expires=expires)


def test_a_request_is_found_by_the_beginning_of_its_id(registry: Registry) -> None:
    _add(registry, FIRST)
    _add(registry, SECOND)
    with registry.read() as records:
        assert records.approvals.get("0a").id == FIRST
        assert {item.id for item in records.approvals.newest()} == {FIRST, SECOND}
        for text, match in (("0", "2 requests"), ("", "no request"), ("f", "no request"), ("%", "no request")):
            with pytest.raises(NotFoundError, match=match):
                records.approvals.get(text)


def test_it_is_used_once(registry: Registry) -> None:
    _add(registry, FIRST)
    with registry.write() as records:
        assert records.approvals.use(FIRST, actor="user:ada").used_by == "user:ada"
    with registry.write() as records, pytest.raises(ConflictError, match="was used by user:ada"):
        records.approvals.use(FIRST, actor="user:bob")


def test_what_was_said_is_kept_in_order(registry: Registry) -> None:
    _add(registry, FIRST)
    with registry.write() as records:
        records.approvals.say(FIRST, "granted", {"by": "bob"}, actor="user:bob")
        records.approvals.say(FIRST, "revoked", {}, actor="user:ada")
    with registry.read() as records:
        said = [(event.kind, event.actor, event.document) for event in records.approvals.events(FIRST)]
    assert said == [("granted", "user:bob", {"by": "bob"}), ("revoked", "user:ada", {})]
    with registry.write() as records, pytest.raises(NotFoundError):
        records.approvals.say(SECOND, "granted", {}, actor="user:bob")


def test_one_requester_does_not_keep_others_from_asking(registry: Registry) -> None:
    for number in range(WAITING_OF_ONE_MAX):
        _add(registry, f"{number:016x}")
    with pytest.raises(ConflictError, match=f"{WAITING_OF_ONE_MAX} requests wait"):
        _add(registry, FIRST)
    _add(registry, FIRST, requester="user:bob")


@pytest.mark.parametrize("said", ["denied", "revoked"])
def test_what_is_over_does_not_wait(registry: Registry, said: ApprovalEventKind) -> None:
    for number in range(WAITING_OF_ONE_MAX):
        _add(registry, f"{number:016x}")
    with registry.write() as records:
        records.approvals.say(f"{0:016x}", "granted", {}, actor="user:bob")
    with pytest.raises(ConflictError, match="requests wait"):
        _add(registry, FIRST)
    with registry.write() as records:
        records.approvals.say(f"{0:016x}", said, {}, actor="user:bob")
    _add(registry, FIRST)
