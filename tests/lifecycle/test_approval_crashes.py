"""A process that dies between the record of a use and what it is for: it can be begun again, and is done once."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from palladion.approvals.request import Request
from palladion.errors import ApprovalError
from palladion.ledger.record import Record
from palladion.ledger.writer import Ledger, Receipt
from palladion.lifecycle.approvals import Permit, require_approved, withdraw
from palladion.lifecycle.deliver import deliver
from palladion.lifecycle.installation import owner_identity
from palladion.lifecycle.seal import seal
from palladion.lifecycle.unseal import unseal
from palladion.lifecycle.wraps import rewrap_version
from palladion.seal.writer import seal_files

from .approving import LAB, House, build
from .deaths import Killed
from .installations import ACTOR

pytestmark = pytest.mark.slow  # makes installations
EXPORT: dict[str, Any] = {"purpose": "export", "recipient": "", "recipient_key": ""}
Act = Callable[[House, str, Path], object]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return build(tmp_path)


def _agreed(house: House, **changed: Any) -> Request:
    request = house.ask(**changed)
    house.say("ada", request)
    house.say("bob", request)
    return request


def _deliver(house: House, request: str, out: Path, *, actor: str = ACTOR) -> object:
    return deliver(
        house.installation, house.owner, "fraud@1", "lab", out,
        actor=actor, permit=Permit(request), without_fingerprint=True,
    )  # fmt: skip


def _unseal(house: House, request: str, out: Path) -> object:
    identity = owner_identity(house.owner)
    return unseal(house.installation, "fraud@1", identity, out, reason="why", actor=ACTOR, permit=Permit(request))


def _rewrap(house: House, request: str, _out: Path) -> object:
    permit = Permit(request)
    return rewrap_version(house.installation, house.owner, "engine@1", add=["lab"], drop=[], actor=ACTOR, permit=permit)


def _dies(step: int, *, after: bool, work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether `work` died before, or right after, what it put on record as number `step`."""
    done, original = 0, Ledger.append

    def append(self: Ledger, records: Sequence[Record]) -> list[Receipt]:
        nonlocal done
        done += 1
        if done == step and not after:
            raise Killed
        receipts = original(self, records)
        if done == step:
            raise Killed
        return receipts

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", append)
        try:
            work()
        except Killed:
            return True
    return False


def _done(house: House, request: str, kind: str) -> int:
    return sum(record.details.get("approval") == request for record in house.records(kind))


@pytest.mark.parametrize(
    ("act", "changed", "kind", "steps"),
    [
        (_deliver, {}, "model.delivered", 3),
        (_unseal, EXPORT, "model.opened", 2),
        (_rewrap, {"purpose": "rewrap"}, "model.rewrapped", 2),
    ],
    ids=["deliver", "unseal", "rewrap"],
)
def test_what_died_is_begun_again_and_done_once(
    tmp_path: Path, house: House, act: Act, changed: dict[str, Any], kind: str, steps: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if act is _rewrap:
        plan = tmp_path / "engine.plan"
        plan.write_bytes(b"an engine")
        sealed = seal(house.installation, house.owner, plan, "engine", [], actor=ACTOR, opaque=True)
        changed = {**changed, "subject": "engine@1", "file_id": sealed.info.header.file_id}
    for step in range(1, steps + 1):
        for after in (False, True):
            request, out = _agreed(house, **changed), tmp_path / f"{step}{after}"
            work = partial(act, house, request.id, out)
            assert _dies(step, after=after, work=work, monkeypatch=monkeypatch)
            ended = step == steps and after
            assert _done(house, request.id, kind) == ended
            if not ended:
                act(house, request.id, tmp_path / f"{step}{after} again")
            with pytest.raises(ApprovalError, match="was used by") as caught:
                act(house, request.id, tmp_path / f"{step}{after} once more")
            assert caught.value.reason == "used"
            assert _done(house, request.id, kind) == 1
    request = _agreed(house, **changed)
    assert not _dies(
        steps + 1, after=False, work=lambda: act(house, request.id, tmp_path / "well"), monkeypatch=monkeypatch
    )


def _begun(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    """A request with which a delivery began, and died before the original was opened."""
    request = _agreed(house)
    work = partial(_deliver, house, request.id, tmp_path / "died")
    assert _dies(2, after=False, work=work, monkeypatch=monkeypatch)
    return request


def test_nobody_else_goes_on_with_it(tmp_path: Path, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    request = _begun(house, tmp_path, monkeypatch)
    board = house.board
    assert board.state(board.case(request.id), house.clock.now(), wished=2) == "begun"
    with pytest.raises(ApprovalError, match="was used by"):
        _deliver(house, request.id, tmp_path / "x", actor="user:other")
    with pytest.raises(ApprovalError, match="was used by"):  # nor one who would not end it
        require_approved(
            house.installation, request.id, file_id=house.file_id(), recipient="lab",
            recipient_key=str(LAB.recipient), purpose="deliver", at=house.clock.now(),
        )  # fmt: skip
    assert house.board.state(house.board.case(request.id), request.ends_at, wished=2) == "used"


@pytest.mark.parametrize("how", ["deny", "withdraw", "late"])
def test_what_was_begun_can_still_be_stopped(
    tmp_path: Path, house: House, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    request = _begun(house, tmp_path, monkeypatch)
    if how == "deny":
        house.say("eve", request, "deny")
    elif how == "withdraw":
        withdraw(house.installation, request.id, reason="it died", actor=ACTOR)
    else:
        house.clock.advance(request.ends_at - house.clock.now())
    with pytest.raises(ApprovalError, match=r"was denied|was withdrawn|ended at"):
        _deliver(house, request.id, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("how", ["another", "deny", "withdraw"])
def test_of_two_at_once_one_ends(tmp_path: Path, house: House, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    request, original = _agreed(house), seal_files

    def sealing(*arguments: Any, **options: Any) -> Any:
        made = original(*arguments, **options)
        monkeypatch.undo()
        if how == "another":
            _deliver(house, request.id, tmp_path / "first")
        elif how == "deny":
            house.say("eve", request, "deny")
        else:
            withdraw(house.installation, request.id, reason="no", actor=ACTOR)
        return made

    monkeypatch.setattr("palladion.lifecycle.deliver.seal_files", sealing)
    with pytest.raises(ApprovalError, match=r"was used by|was denied|was withdrawn"):
        _deliver(house, request.id, tmp_path / "second")
    assert not (tmp_path / "second").exists()
    assert (tmp_path / "first").exists() == (how == "another")
    assert _done(house, request.id, "model.delivered") == (how == "another")


def test_a_use_of_an_earlier_version_is_not_begun_again(tmp_path: Path, house: House) -> None:
    request = _agreed(house)
    require_approved(
        house.installation, request.id, file_id=house.file_id(), recipient="lab",
        recipient_key=str(LAB.recipient), purpose="deliver", at=house.clock.now(),
    )  # fmt: skip
    with pytest.raises(ApprovalError, match="was used by"):
        _deliver(house, request.id, tmp_path / "x")
