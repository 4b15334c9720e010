"""How much may leave in a day: counted from the ledger, by operator and recipient, and refused with a record."""

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from palladion import files
from palladion.errors import BusyError, ConflictError
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.deliver import deliver
from palladion.lifecycle.egress import (
    LOCK,
    PLAINTEXT,
    Line,
    leaving,
    left,
    look,
    said_bytes,
    said_seconds,
    size_of,
    useless,
)
from palladion.lifecycle.installation import Installation, owner_identity
from palladion.lifecycle.open import find_version
from palladion.lifecycle.protect import protect
from palladion.lifecycle.recipients import add_recipient
from palladion.lifecycle.unseal import unseal
from palladion.seal.recipients import FileIdentity
from tests.models import onnx_bytes, write

from .installations import ACTOR, Made, kinds, make, served

ACME = FileIdentity(b"\x33" * 32)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = make(tmp_path)
    protect(made.installation, made.owner, write(tmp_path / "1.onnx", onnx_bytes(1)), "fraud", actor=ACTOR)
    for name, identity in (("acme", ACME), ("globex", FileIdentity(b"\x44" * 32))):
        add_recipient(made.installation, name, str(identity.recipient), note="", actor=ACTOR)
    return made


def _limited(made: Made, **settings: float) -> Installation:
    policy = made.installation.policy
    policy = msgspec.structs.replace(policy, egress=msgspec.structs.replace(policy.egress, **settings))
    return Installation(made.installation.paths, policy, made.clock)


def _unseal(made: Made, installation: Installation, out: Path, *, actor: str = ACTOR) -> None:
    unseal(installation, "fraud@1", owner_identity(made.owner), out, reason="retraining", actor=actor)


def _deliver(made: Made, installation: Installation, out: Path, *, recipient: str = "acme") -> None:
    deliver(installation, made.owner, "fraud", recipient, out, actor=ACTOR, without_fingerprint=True)


def _last(made: Made) -> Record:
    return [decode_record(data, what="it") for _, data in made.installation.read_ledger().entries()][-1]


def test_an_operator_gets_so_many_and_then_a_refusal_that_is_on_record(tmp_path: Path, made: Made) -> None:
    installation = _limited(made, unseal_per_day=2)
    for number in range(2):
        _unseal(made, installation, tmp_path / f"{number}.out")
    with pytest.raises(ConflictError, match="2 models have left within 24 hours for user:test"):
        _unseal(made, installation, tmp_path / "third.out")
    assert not (tmp_path / "third.out").exists()
    record = _last(made)
    assert (record.kind, record.subject, record.actor) == ("egress.refused", "fraud@1", ACTOR)
    assert record.details == {
        "channel": "unseal",
        "whose": ACTOR,
        "setting": "egress.unseal_per_day",
        "left": 2,
        "limit": "2",
    }
    # somebody else has a budget of his own
    _unseal(made, installation, tmp_path / "other.out", actor="user:other")
    assert left(installation).by_operator == {ACTOR: 2, "user:other": 1}


@pytest.mark.slow
def test_what_left_counts_for_a_day_and_over_a_restart(tmp_path: Path, made: Made) -> None:
    _unseal(made, made.installation, tmp_path / "before.out")  # before there was a limit
    installation = _limited(made, unseal_per_day=1)
    made.clock.advance(timedelta(hours=23, minutes=59))
    with pytest.raises(ConflictError):
        _unseal(made, installation, tmp_path / "early.out")
    made.clock.advance(timedelta(minutes=2))
    _unseal(made, installation, tmp_path / "late.out")
    assert (tmp_path / "late.out").read_bytes() == onnx_bytes(1)


@pytest.mark.slow
def test_less_than_a_whole_model_lets_none_leave(tmp_path: Path, made: Made) -> None:
    with pytest.raises(ConflictError, match=r"0 models have left .* is 0\.5"):
        _unseal(made, _limited(made, unseal_per_day=0.5), tmp_path / "out")


@pytest.mark.slow
def test_a_recipient_gets_so_many_copies(tmp_path: Path, made: Made) -> None:
    installation = _limited(made, deliver_per_day=1)
    _deliver(made, installation, tmp_path / "1.sealed")
    with pytest.raises(ConflictError, match=r"for acme, and egress\.deliver_per_day is 1"):
        _deliver(made, installation, tmp_path / "2.sealed")
    assert not (tmp_path / "2.sealed").exists()
    _deliver(made, installation, tmp_path / "3.sealed", recipient="globex")
    _unseal(made, installation, tmp_path / "out")  # which is another channel
    assert left(installation).by_recipient == {"acme": 1, "globex": 1}
    assert left(installation).all == 3


@pytest.mark.slow
def test_all_together_have_a_limit_whoever_they_say_they_are(tmp_path: Path, made: Made) -> None:
    installation = _limited(made, all_per_day=2)
    _unseal(made, installation, tmp_path / "1.out", actor="user:ann")
    _deliver(made, installation, tmp_path / "1.sealed")
    with pytest.raises(ConflictError, match=r"for all, and egress\.all_per_day is 2"):
        _unseal(made, installation, tmp_path / "2.out", actor="user:bob")
    with pytest.raises(ConflictError, match="for all"):
        _deliver(made, installation, tmp_path / "2.sealed", recipient="globex")


@pytest.mark.slow
def test_what_does_not_leave_is_not_counted(tmp_path: Path, made: Made) -> None:
    installation = _limited(made, unseal_per_day=1)
    identity = FileIdentity.generate()
    with pytest.raises(Exception, match="opens"):
        unseal(installation, "fraud@1", identity, tmp_path / "out", reason="retraining", actor=ACTOR)
    assert left(installation).all == 0
    _unseal(made, installation, tmp_path / "out")


@pytest.mark.slow
def test_two_cannot_leave_at_once_on_one_budget(made: Made) -> None:
    installation = _limited(made, unseal_per_day=5)
    with (
        files.exclusive_lock(installation.paths.directory / LOCK, what="it"),
        pytest.raises(BusyError),
        leaving(installation, "unseal", ACTOR, subject="fraud@1", actor=ACTOR),
    ):
        raise AssertionError
    before = kinds(installation)
    with leaving(made.installation, "unseal", ACTOR, subject="fraud@1", actor=ACTOR):
        pass  # without limits nothing is locked or written
    assert kinds(installation) == before


@pytest.mark.slow
def test_what_a_gate_that_serves_has_written_counts_as_well(tmp_path: Path, made: Made) -> None:
    installation = _limited(made, unseal_per_day=1)
    with served(installation) as running:
        _unseal(made, installation, tmp_path / "1.out")
        with pytest.raises(ConflictError):
            _unseal(made, installation, tmp_path / "2.out")
        # also what no checkpoint tells of yet
        record = Record("model.opened", made.clock.now(), "user:other", "fraud@1", {PLAINTEXT: 1})
        running.port.ledger.append([record])
        with pytest.raises(ConflictError):
            _unseal(made, installation, tmp_path / "3.out", actor="user:other")


def test_a_line_says_how_long_a_model_takes() -> None:
    assert Line(10_800_000_000).seconds == pytest.approx(86_400)
    assert (Line(10_800_000_000).is_held_up, Line(10_700_000_000).is_held_up) == (True, False)
    assert str(Line(50_000_000)) == "50 MB, which 1 Mbit/s carries in 6.67 minutes"
    assert str(Line(140_000_000_000)) == "140 GB, which 1 Mbit/s carries in 13 days"
    assert str(Line(2_000_000_000_000, 100)) == "2 TB, which 100 Mbit/s carries in 1.85 days"
    assert (said_bytes(999), said_bytes(4_100), said_seconds(0.033), said_seconds(7200)) == (
        "999 bytes",
        "4.1 kB",
        "0.033 s",
        "2 hours",
    )


def test_doctor_says_that_a_small_model_is_not_held_up(tmp_path: Path, made: Made) -> None:
    (check,) = look(made.installation)
    size = size_of(made.installation, find_version(made.installation, "fraud"))
    assert check.message.startswith(f"fraud@1 has {said_bytes(size)}, which 1 Mbit/s carries in ")
    assert "no limit of what leaves holds it up" in check.message
    installation = _limited(made, all_per_day=2)
    _unseal(made, installation, tmp_path / "out")
    assert list(look(installation))[1].message.startswith("1 models have left")
    version = find_version(made.installation, "fraud")
    assert useless(made.installation, version) is None
    said = useless(installation, version)
    assert said is not None
    assert said.startswith(f"limits of what leaves do little for fraud@1: it has {said_bytes(size)}, which")
    installation.paths.served("fraud", 1).unlink()
    assert [item.name for item in look(made.installation)] == []
