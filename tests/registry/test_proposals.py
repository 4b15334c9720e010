"""Proposals: kept, decided once, in time, and never by who made them."""

from datetime import timedelta

import pytest

from palladion.clock import ManualClock
from palladion.errors import ConflictError, NotFoundError, PalladionError
from palladion.registry import Proposal, Registry, proposals
from palladion.registry.rows import Verdict

CHANGE = {"kind": "client", "client": "acme/web"}


def _add(registry: Registry, proposer: str = "user:ada", days: int = 7) -> Proposal:
    with registry.write() as records:
        return records.proposals.add(CHANGE, reason="asks for everything", proposer=proposer, days=days)


def test_a_proposal_waits_until_somebody_else_decides(registry: Registry, clock: ManualClock) -> None:
    made = _add(registry)
    with registry.write() as records:
        assert records.proposals.waiting() == [made]
        decided = records.proposals.decide(made.id, "approved", actor="user:bob", reason="seen it too")
        assert records.proposals.waiting() == []
    with registry.read() as records:
        assert records.proposals.newest() == [decided]
    assert (decided.verdict, decided.decision, decided.decided_by) == ("approved", "seen it too", "user:bob")
    assert (decided.change, decided.decided_at) == (CHANGE, clock.now())


@pytest.mark.parametrize(
    ("verdict", "actor"),
    [("approved", "user:ada"), ("rejected", "user:ada"), ("withdrawn", "user:bob"), ("withdrawn", "user:Ada")],
)
def test_nobody_decides_his_own_proposal_nor_withdraws_anothers(
    registry: Registry, verdict: Verdict, actor: str
) -> None:
    made = _add(registry)
    with registry.write() as records, pytest.raises(ConflictError, match="by somebody else than user:ada"):
        records.proposals.decide(made.id, verdict, actor=actor, reason="")
    with registry.read() as records:
        assert records.proposals.get(made.id).verdict is None


def test_who_proposed_may_withdraw(registry: Registry) -> None:
    made = _add(registry)
    with registry.write() as records:
        assert records.proposals.decide(made.id, "withdrawn", actor="user:ada", reason="").verdict == "withdrawn"


def test_a_proposal_is_decided_once(registry: Registry) -> None:
    made = _add(registry)
    with registry.write() as records:
        records.proposals.decide(made.id, "rejected", actor="user:bob", reason="")
        with pytest.raises(ConflictError, match="was rejected by user:bob already"):
            records.proposals.decide(made.id, "approved", actor="user:eve", reason="")


def test_a_proposal_is_over_after_its_days(registry: Registry, clock: ManualClock) -> None:
    made = _add(registry, days=2)
    clock.advance(timedelta(days=2))
    with registry.write() as records:
        assert records.proposals.waiting() == []
        with pytest.raises(ConflictError, match="was to be decided until"):
            records.proposals.decide(made.id, "approved", actor="user:bob", reason="")


def test_no_more_wait_than_somebody_reads(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "WAITING_MAX", 2)
    _add(registry)
    _add(registry)
    with pytest.raises(ConflictError, match="2 proposals wait to be decided"):
        _add(registry)


def test_one_proposer_takes_the_room_of_no_other(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "WAITING_OF_ONE_MAX", 2)
    made = _add(registry)
    _add(registry)
    with pytest.raises(ConflictError, match="2 proposals of user:ada wait"):
        _add(registry)
    _add(registry, "user:bob")
    with registry.write() as records:
        records.proposals.decide(made.id, "withdrawn", actor="user:ada", reason="")
    _add(registry)


def test_an_unknown_proposal_is_none(registry: Registry) -> None:
    with registry.read() as records, pytest.raises(NotFoundError, match="no proposal with the id 'ff'"):
        records.proposals.get("ff")


@pytest.mark.parametrize("changes", [{"reason": "\x1b[2J"}, {"proposer": ""}])
def test_a_proposal_that_says_something_wrong_is_refused(registry: Registry, changes: dict[str, str]) -> None:
    values = {"reason": "why", "proposer": "user:ada", **changes}
    with registry.write() as records, pytest.raises(PalladionError):
        records.proposals.add(CHANGE, reason=values["reason"], proposer=values["proposer"], days=1)
