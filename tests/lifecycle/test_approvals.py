"""Nothing leaves without the approvals of others: each way round them that an insider would try."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from palladion.approvals.request import decide as sign_decision
from palladion.approvals.review import review
from palladion.approvals.roster import Change
from palladion.errors import ApprovalError, BusyError, ConflictError, PalladionError, StorageError, TamperError
from palladion.keys import Root
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record
from palladion.lifecycle.approval_after import end_drill, record_review
from palladion.lifecycle.approvals import (
    Approved,
    Permit,
    approvals_needed,
    decide,
    require_approved,
    withdraw,
)
from palladion.lifecycle.approvers import change_approvers
from palladion.lifecycle.deliver import Delivered
from palladion.lifecycle.deliver import deliver as deliver_copy
from palladion.lifecycle.installation import owner_identity
from palladion.lifecycle.operators import revoke_operator
from palladion.lifecycle.seal import seal
from palladion.lifecycle.unseal import Unsealed, unseal
from palladion.lifecycle.wraps import rewrap_version
from palladion.seal.reader import inspect_file

from .approving import KEYS, LAB, THIEF, House, build
from .installations import ACTOR, ESCROW, served

pytestmark = pytest.mark.slow  # makes and seals installations by the dozen


@pytest.fixture
def house(tmp_path: Path) -> House:
    return build(tmp_path)


def deliver(*arguments: Any, **options: Any) -> Delivered:
    """Deliver a model that is too small for a fingerprint."""
    return deliver_copy(*arguments, without_fingerprint=True, **options)


def _use(house: House, request: str, **changed: Any) -> Approved:
    wanted: dict[str, Any] = {
        "file_id": house.file_id(),
        "recipient": "lab",
        "recipient_key": str(LAB.recipient),
        "purpose": "deliver",
        "at": house.clock.now(),
    }
    return require_approved(house.installation, request, **(wanted | changed))


def _unseal(house: House, out: Path, *, target: str | Path = "fraud@1", **options: Any) -> Unsealed:
    identity = options.pop("identity", owner_identity(house.owner))
    return unseal(house.installation, target, identity, out, reason="retraining", actor=ACTOR, **options)


def _refused(house: House) -> list[str]:
    return [str(record.details["reason"]) for record in house.records("approval.refused")]


def test_a_delivery_needs_two_others_and_is_on_record_before_it_is_made(tmp_path: Path, house: House) -> None:
    out = tmp_path / "lab.sealed"
    with pytest.raises(ApprovalError, match="to deliver fraud@1 needs 2 approvals") as caught:
        deliver(house.installation, house.owner, "fraud", "lab", out, actor=ACTOR)
    assert "palladion approval request --version fraud@1 --purpose deliver --recipient lab" in caught.value.hints[0]
    request = house.ask()
    permit = Permit(request=request.id)
    for name in ("ada", "bob"):
        with pytest.raises(ApprovalError, match="of 2 approvals"):
            deliver(house.installation, house.owner, "fraud", "lab", out, actor=ACTOR, permit=permit)
        house.say(name, request)
    assert not out.exists()
    deliver(house.installation, house.owner, "fraud", "lab", out, actor=ACTOR, permit=permit)
    (used,) = house.records("approval.used")
    assert (used.actor, used.details["approvers"], used.details["recipient"]) == (ACTOR, ["ada", "bob"], "lab")
    kinds = [record.kind for record in house.records("approval.used", "model.opened", "model.delivered")]
    assert kinds == ["approval.used", "model.opened", "model.delivered"]
    assert _refused(house) == ["too-few", "too-few"]


def test_it_is_used_once(tmp_path: Path, house: House) -> None:
    request = house.ask()
    house.say("ada", request)
    house.say("bob", request)
    _use(house, request.id)
    with pytest.raises(ApprovalError, match="was used by") as caught:
        deliver(house.installation, house.owner, "fraud", "lab", tmp_path / "x", actor=ACTOR, permit=Permit(request.id))
    assert caught.value.reason == "used"


def test_two_at_once_do_not_both_use_it(house: House) -> None:
    request = house.ask()
    house.say("ada", request)
    house.say("bob", request)

    def attempt(_: int) -> bool:
        while True:
            with suppress(BusyError):
                try:
                    _use(house, request.id)
                except ApprovalError:
                    return False
                return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(attempt, range(4))) == [False, False, False, True]
    assert len(house.records("approval.used")) == 1


def test_an_older_registry_does_not_make_a_request_unused(tmp_path: Path, house: House) -> None:
    request = house.ask()
    house.say("ada", request)
    house.say("bob", request)
    path = house.installation.paths.registry
    before = path.read_bytes()
    _use(house, request.id)
    path.write_bytes(before)
    with pytest.raises(ApprovalError, match="was used"):
        _use(house, request.id)


def test_rows_written_by_hand_approve_nothing(house: House) -> None:
    request = house.ask()
    house.say("ada", request)
    signed = sign_decision(request, "grant", KEYS["zoe"], at=house.clock.now())
    with house.installation.open_registry() as registry, registry.write() as records:
        records.operators.add("zoe", role="approver", identity="user:zoe")
        records.approvals.say(request.id, "granted", {"decision": signed.decision.key}, actor="user:zoe")
    with pytest.raises(ApprovalError, match="1 of 2"):
        _use(house, request.id)
    with pytest.raises(ApprovalError, match="no approver"):
        decide(house.installation, signed, actor="user:zoe")


def test_the_policy_file_lowers_nothing_and_raises_at_once(tmp_path: Path, house: House) -> None:
    request = house.ask()
    house.say("ada", request)
    lowered = house.settle(needed=0)
    with pytest.raises(ApprovalError, match="needs 2 approvals"):
        _unseal(lowered, tmp_path / "x")
    with pytest.raises(ApprovalError, match="1 of 2"):
        _use(lowered, request.id)
    house.say("bob", request)
    with pytest.raises(ApprovalError, match="2 of 3"):
        _use(house.settle(needed=3), request.id)


def test_the_owner_alone_adds_and_removes_nobody_and_lowers_nothing(tmp_path: Path, house: House) -> None:
    made = house.appoint("zoe")
    assert made.request is not None
    for change in (Change(needed=0), Change(needed=1), Change(remove="eve"), Change(break_glass=True)):
        asked = change_approvers(house.installation, house.owner, change, reason="less work", actor=ACTOR)
        assert asked.request is not None
    assert house.board.statement is not None
    assert [item.name for item in house.board.statement.approvers] == ["ada", "bob", "eve"]
    assert house.board.statement.needed == 2
    assert not house.board.statement.break_glass


def test_who_brings_another_recipients_key_is_refused(tmp_path: Path, house: House) -> None:
    request = house.ask(recipient_key=str(THIEF.recipient))
    house.say("ada", request)
    house.say("bob", request)
    with pytest.raises(ApprovalError, match="key of the recipient"):
        deliver(house.installation, house.owner, "fraud", "lab", tmp_path / "x", actor=ACTOR, permit=Permit(request.id))
    assert _refused(house) == ["key"]


def test_what_a_request_names_is_not_left_out(house: House) -> None:
    evidence = "e" * 64
    plain, bound = house.ask(), house.ask(evidence=evidence)
    for request in (plain, bound):
        house.say("ada", request)
        house.say("bob", request)
    with pytest.raises(ApprovalError, match="key of the recipient"):
        _use(house, plain.id, recipient_key="")
    for given, request in (("", bound), ("f" * 64, bound), (evidence, plain)):
        with pytest.raises(ApprovalError, match="evidence of the machine"):
            _use(house, request.id, evidence=given)
    assert _use(house, bound.id, evidence=evidence).approvers == ("ada", "bob")
    assert approvals_needed(house.installation) == 2


def test_only_who_asked_uses_it(tmp_path: Path, house: House) -> None:
    request = house.ask(actor="user:somebody")
    house.say("ada", request)
    house.say("bob", request)
    with pytest.raises(ApprovalError, match="requester"):
        deliver(house.installation, house.owner, "fraud", "lab", tmp_path / "x", actor=ACTOR, permit=Permit(request.id))


def test_a_denial_ends_it_and_so_does_taking_it_back(house: House) -> None:
    denied, withdrawn = house.ask(), house.ask()
    for request in (denied, withdrawn):
        house.say("ada", request)
        house.say("bob", request)
    house.say("eve", denied, "deny")
    withdraw(house.installation, withdrawn.id, reason="a mistake", actor=ACTOR)
    with pytest.raises(ApprovalError, match="denied by eve"):
        _use(house, denied.id)
    with pytest.raises(ApprovalError, match="was withdrawn"):
        _use(house, withdrawn.id)
    with pytest.raises(ApprovalError, match="was withdrawn"):
        house.say("eve", withdrawn)


def test_an_expired_one_is_refused_and_the_refusal_is_on_record(house: House) -> None:
    request = house.ask(hours=1)
    house.say("ada", request)
    house.say("bob", request)
    house.clock.advance(timedelta(hours=1))
    with pytest.raises(ApprovalError, match="ended at"):
        _use(house, request.id)
    # not by saying that it is earlier, and not by setting the clock back either
    with pytest.raises(ApprovalError, match="ended at"):
        _use(house, request.id, at=house.clock.now() - timedelta(minutes=30))
    house.clock.advance(timedelta(minutes=-30))
    with pytest.raises(ApprovalError, match="clock says"):
        _use(house, request.id)
    assert _refused(house) == ["expired", "expired", "clock"]


def test_an_operator_who_was_revoked_approves_no_more(house: House) -> None:
    request = house.ask()
    house.say("ada", request)
    house.say("bob", request)
    revoke_operator(house.installation, "bob", actor=ACTOR)
    with pytest.raises(ApprovalError, match="1 of 2"):
        _use(house, request.id)


def test_nobody_decides_twice(house: House) -> None:
    request = house.ask()
    house.say("ada", request)
    with pytest.raises(ApprovalError, match="ada has decided on request"):
        house.say("ada", request)


def test_requests_of_another_installation_mean_nothing_here(tmp_path: Path, house: House) -> None:
    other = build(tmp_path / "other")
    request = other.ask()
    other.say("ada", request)
    other.say("bob", request)
    with pytest.raises(ApprovalError, match="is on record"):
        _use(house, request.id)
    signed = sign_decision(request, "grant", KEYS["ada"], at=house.clock.now())
    with pytest.raises(ApprovalError, match="is on record"):
        decide(house.installation, signed, actor=ACTOR)


def test_an_original_in_plaintext_needs_a_request_to_export(tmp_path: Path, house: House) -> None:
    out = tmp_path / "back.onnx"
    with pytest.raises(ApprovalError, match="to export fraud@1 needs 2 approvals"):
        _unseal(house, out)
    delivering = house.ask()
    exporting = house.ask(purpose="export", recipient="", recipient_key="")
    for request in (delivering, exporting):
        house.say("ada", request)
        house.say("bob", request)
    with pytest.raises(ApprovalError, match="was approved for the purpose deliver, not for export"):
        _unseal(house, out, permit=Permit(delivering.id))
    assert not out.exists()
    _unseal(house, out, permit=Permit(exporting.id))
    assert out.read_bytes() == (tmp_path / "1.onnx").read_bytes()


def test_neither_escrow_nor_a_missing_keyring_goes_round_it(tmp_path: Path, house: House) -> None:
    path = house.installation.paths.original("fraud", 1)
    house.installation.paths.owner.unlink()
    for target in ("fraud@1", path):
        with pytest.raises(ApprovalError, match="needs 2 approvals"):
            _unseal(house, tmp_path / "x", target=target, identity=ESCROW)


@pytest.mark.parametrize("room", ["unseal", "deliver"])
def test_a_file_that_is_exchanged_after_it_was_looked_at_stays_sealed(
    tmp_path: Path, house: House, monkeypatch: pytest.MonkeyPatch, room: str
) -> None:
    other = inspect_file(house.installation.paths.served("fraud", 1))
    monkeypatch.setattr(f"palladion.lifecycle.{room}.inspect_file", lambda _: other)
    purpose = "export" if room == "unseal" else "deliver"
    to: dict[str, Any] = {"recipient": "", "recipient_key": ""} if room == "unseal" else {}
    request = house.ask(purpose=purpose, file_id=other.header.file_id, **to)
    house.say("ada", request)
    house.say("bob", request)
    permit, out = Permit(request.id), tmp_path / "x"

    def attempt() -> None:
        if room == "unseal":
            _unseal(house, out, permit=permit)
        else:
            deliver(house.installation, house.owner, "fraud", "lab", out, actor=ACTOR, permit=permit)

    with pytest.raises(TamperError, match="a moment ago"):
        attempt()
    assert not out.exists()


def test_a_request_is_not_used_up_where_a_file_is_in_the_way(tmp_path: Path, house: House) -> None:
    request = house.ask(purpose="export", recipient="", recipient_key="")
    house.say("ada", request)
    house.say("bob", request)
    (tmp_path / "back.onnx").write_bytes(b"")
    with pytest.raises(StorageError, match="exists"):
        _unseal(house, tmp_path / "back.onnx", permit=Permit(request.id))
    _unseal(house, tmp_path / "again.onnx", permit=Permit(request.id))


def test_a_new_recipient_of_what_carries_no_fingerprint_needs_them_too(tmp_path: Path, house: House) -> None:
    plan = tmp_path / "engine.plan"
    plan.write_bytes(b"an engine")
    sealed = seal(house.installation, house.owner, plan, "engine", [], actor=ACTOR, opaque=True)
    file_id = sealed.info.header.file_id
    with pytest.raises(ApprovalError, match="to rewrap engine@1 needs 2 approvals"):
        rewrap_version(house.installation, house.owner, "engine@1", add=["lab"], drop=[], actor=ACTOR)
    request = house.ask(subject="engine@1", purpose="rewrap", file_id=file_id)
    house.say("ada", request)
    house.say("bob", request)
    permit, thief = Permit(request.id), str(THIEF.recipient)
    with pytest.raises(ApprovalError, match="recipient"):
        rewrap_version(house.installation, house.owner, "engine@1", add=[thief], drop=[], actor=ACTOR, permit=permit)
    again = house.ask(subject="engine@1", purpose="rewrap", file_id=file_id)
    house.say("ada", again)
    house.say("bob", again)
    permit = Permit(again.id)
    with pytest.raises(ConflictError, match="one recipient at a time"):
        rewrap_version(
            house.installation, house.owner, "engine@1", add=["lab", thief], drop=[], actor=ACTOR, permit=permit
        )
    assert LAB.recipient.key_id not in [wrap.key_id for wrap in inspect_file(sealed.path).wraps]
    info, _ = rewrap_version(
        house.installation, house.owner, "engine@1", add=["lab"], drop=[], actor=ACTOR, permit=permit
    )
    assert LAB.recipient.key_id in [wrap.key_id for wrap in info.wraps]
    # an original of it has no mark either, so nobody unseals it without a request to export
    with pytest.raises(ApprovalError, match="to export engine@1"):
        _unseal(house, tmp_path / "x", target="engine@1")


def test_while_too_few_approvers_are_registered_nothing_leaves(tmp_path: Path) -> None:
    house = build(tmp_path, approvers=("ada",))
    request = house.ask(purpose="export", recipient="", recipient_key="")
    house.say("ada", request)
    with pytest.raises(ApprovalError, match="1 of 2"):
        _unseal(house, tmp_path / "x", permit=Permit(request.id))


def test_without_approvals_everything_is_as_it_was(tmp_path: Path) -> None:
    house = build(tmp_path, approvers=(), needed=0)
    deliver(house.installation, house.owner, "fraud", "lab", tmp_path / "lab.sealed", actor=ACTOR)
    _unseal(house, tmp_path / "back.onnx")
    assert house.records("approval.used", "approval.refused") == []


def test_breaking_the_glass_opens_a_case_and_waits_for_somebody_else(tmp_path: Path) -> None:
    house = build(tmp_path, break_glass=True)
    _unseal(house, tmp_path / "back.onnx", permit=Permit(break_glass="the court asks today"))
    (broken,) = house.board.unreviewed
    assert (broken.by, broken.reason, broken.purpose) == (ACTOR, "the court asks today", "export")
    with house.installation.open_registry() as registry, registry.read() as records:
        assert records.incidents.get(broken.case).state == "open"
    kinds = [record.kind for record in house.records("approval.broken-glass", "incident.opened", "model.opened")]
    assert kinds == ["approval.broken-glass", "incident.opened", "model.opened"]
    origin = house.board.origin
    signed = review(broken.id, "fine", KEYS["zoe"], origin=origin, at=house.clock.now())
    with pytest.raises(PalladionError, match="the key of no approver"):
        record_review(house.installation, signed, actor="user:zoe")
    signed = review(broken.id, "the court did ask", KEYS["bob"], origin=origin, at=house.clock.now())
    record_review(house.installation, signed, actor="user:bob")
    assert house.board.unreviewed == []
    assert house.board.broken[broken.id].finding == "the court did ask"
    with pytest.raises(ApprovalError, match="was reviewed by bob already"):
        record_review(house.installation, signed, actor="user:bob")


def test_the_glass_is_not_broken_where_the_statement_does_not_allow_it(tmp_path: Path, house: House) -> None:
    for changed in (house, house.settle(break_glass=True)):
        with pytest.raises(ApprovalError, match="nobody may break the glass"):
            _unseal(changed, tmp_path / "x", permit=Permit(break_glass="now"))


def test_a_drill_releases_nothing_and_tells_who_fell_for_it(house: House) -> None:
    drill, real = house.ask(drill=True), house.ask()
    house.say("ada", drill)
    house.say("bob", drill)
    with pytest.raises(ApprovalError, match="was a drill"):
        _use(house, drill.id)
    ended, _ = end_drill(house.installation, drill.id, actor=ACTOR)
    assert (ended.granted, ended.denied) == (("ada", "bob"), ())
    assert house.board.drills[0].granted == ("ada", "bob")
    for request in (drill, real):
        with pytest.raises(ApprovalError, match="no drill of yours that goes on"):
            end_drill(house.installation, request.id, actor=ACTOR)


def test_all_of_it_goes_through_a_process_that_serves(tmp_path: Path, house: House) -> None:
    with served(house.installation):
        request = house.ask()
        house.say("ada", request)
        house.say("bob", request)
        permit = Permit(request.id)
        deliver(house.installation, house.owner, "fraud", "lab", tmp_path / "x", actor=ACTOR, permit=permit)
    assert len(house.records("approval.used")) == 1


def test_what_a_forged_record_says_counts_for_nothing(house: House) -> None:
    from palladion.approvals.documents import document_of

    request = house.ask()
    house.say("ada", request)
    forged = sign_decision(request, "grant", KEYS["zoe"], at=house.clock.now())
    details = {"decision": document_of(forged), "approver": "bob"}
    now = house.clock.now()
    with house.installation.open_ledger(house.installation.open_gate_root()) as ledger:
        ledger.append([Record("approval.granted", now, "user:bob", f"approval:{request.id}", details)])
    assert any("no approver" in text for text in house.board.refused)
    with pytest.raises(ApprovalError, match="1 of 2"):
        _use(house, request.id)


def test_too_many_requests_of_one_are_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palladion.registry.approvals.WAITING_OF_ONE_MAX", 2)
    house.ask()
    house.ask()
    with pytest.raises(ConflictError, match="requests wait"):
        house.ask()
    house.ask(actor="user:other")


def test_a_denial_outlives_the_denier(tmp_path: Path, house: House) -> None:
    request = house.ask()
    for name in ("ada", "bob"):
        house.say(name, request)
    house.say("eve", request, "deny")
    revoke_operator(house.installation, "eve", actor=ACTOR)
    with pytest.raises(ApprovalError, match="denied by somebody who left"):
        _use(house, request.id)


def test_a_clock_that_was_set_back_is_noticed_each_time(house: House) -> None:
    request = house.ask(hours=1)
    for name in ("ada", "bob"):
        house.say(name, request)
    house.clock.advance(timedelta(hours=48))
    house.ask()
    house.clock.advance(timedelta(hours=-47, minutes=-30))
    for _ in range(3):
        with pytest.raises(ApprovalError, match="this machine's clock says") as caught:
            _use(house, request.id)
        assert caught.value.reason == "clock"


def test_one_record_of_a_wrong_time_does_not_end_approvals(house: House) -> None:
    house.clock.advance(timedelta(days=400))
    house.ask()
    house.clock.advance(timedelta(days=-400))
    request = house.ask()
    for name in ("ada", "bob"):
        house.say(name, request)
    assert _use(house, request.id).approvers == ("ada", "bob")


@pytest.mark.parametrize("kind", ["approval.revoked", "approval.used"])
def test_a_record_names_a_whole_id(house: House, kind: str) -> None:
    request = house.ask()
    with house.installation.open_ledger(house.installation.open_gate_root()) as ledger:
        ledger.append([Record(kind, house.clock.now(), "user:x", f"approval:{request.id[:1]}", {})])
    board = house.board
    case = board.case(request.id)
    assert (case.withdrawn, case.used_by, len(board.refused)) == ("", "", 1)


def test_what_is_rewrapped_is_what_was_looked_at(tmp_path: Path, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tmp_path / "engine.plan"
    plan.write_bytes(b"an engine")
    sealed = seal(house.installation, house.owner, plan, "engine", [], actor=ACTOR, opaque=True)
    request = house.ask(subject="engine@1", purpose="rewrap", file_id=sealed.info.header.file_id)
    house.say("ada", request)
    house.say("bob", request)
    other = inspect_file(house.installation.paths.served("fraud", 1))
    looks = iter((sealed.info, other))
    monkeypatch.setattr("palladion.lifecycle.wraps.inspect_file", lambda _: next(looks))
    permit = Permit(request.id)
    with pytest.raises(TamperError, match="a moment ago"):
        rewrap_version(house.installation, house.owner, "engine@1", add=["lab"], drop=[], actor=ACTOR, permit=permit)
    assert LAB.recipient.key_id not in [wrap.key_id for wrap in inspect_file(sealed.path).wraps]


def test_the_ledger_is_read_before_the_registry_is_locked(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    request = house.ask()
    for name in ("ada", "bob"):
        house.say(name, request)
    recording, locked = house.installation.recording, False
    read: list[tuple[bool, int]] = []

    @contextmanager
    def watched(gate: Root) -> Iterator[Any]:
        nonlocal locked
        with recording(gate) as found:
            locked = True
            yield found
        locked = False

    entries = LedgerReader.entries

    def counted(self: LedgerReader, start: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        for item in entries(self, start, end):
            read.append((locked, item[0]))
            yield item

    monkeypatch.setattr(type(house.installation), "recording", lambda _, gate: watched(gate))
    monkeypatch.setattr(LedgerReader, "entries", counted)
    _use(house, request.id)
    assert len([index for inside, index in read if not inside]) > 5
    assert [index for inside, index in read if inside] == []
    assert house.board.case(request.id).used_by == ACTOR
