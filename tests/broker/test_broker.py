"""Each way to a file key that is not the one way: what the network, the host, and an insider would try."""

from collections.abc import Callable
from dataclasses import replace as replaced
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from palladion.broker import broker as broker_module
from palladion.broker.leases import Leases
from palladion.errors import PalladionError, StorageError
from palladion.host.broker_messages import BrokerRefusedError, encode
from palladion.ledger.writer import Ledger
from palladion.lifecycle.decoy_files import plant_file
from palladion.lifecycle.revoke import extend, revoke_file
from palladion.seal.recipients import FileIdentity, HybridIdentity
from palladion.seal.revocations import RevokedVersions
from palladion.seal.trailer import wrap_context
from tests.lifecycle.installations import ACTOR

from .parts import ATTESTED, CEDAR, CERTIFICATE, LAB, OTHER, Asking, Setting, front_of, prepare

pytestmark = pytest.mark.slow  # an installation for each test


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return prepare(tmp_path)


@pytest.fixture
def asking(setting: Setting) -> Asking:
    return Asking(setting, setting.broker())


@pytest.fixture
def attested(setting: Setting) -> Asking:
    """A broker that wants evidence."""
    settled = setting.settle(ATTESTED)
    return Asking(settled, settled.broker())


class Refused:
    """A block in which the broker refuses, for one reason, on record, and releases nothing."""

    def __init__(self, setting: Setting, reason: str) -> None:
        self._setting, self._reason = setting, reason

    def __enter__(self) -> None:
        self._before = len(self._setting.records("broker.released", "broker.renewed"))

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        assert isinstance(error, BrokerRefusedError), error
        assert error.reason == self._reason, error
        assert self._setting.reasons()[-1] == self._reason
        assert len(self._setting.records("broker.released", "broker.renewed")) == self._before
        return True


def _file_key(setting: Setting, path: Path | None = None) -> bytes:
    structure = setting.structure(path)
    wrap = structure.trailer.wraps[0]
    context = wrap_context(structure.header.file_id, structure.floe_header, kind=wrap.kind, key_id=wrap.key_id)
    key = LAB.unwrap(wrap, context)
    assert key is not None
    return key


def test_the_key_comes_sealed_to_whoever_asked_and_is_on_record(setting: Setting, asking: Asking) -> None:
    request = asking.request()

    answer = asking.release(request)

    assert asking.key(request, answer) == _file_key(setting)
    assert _file_key(setting) not in encode(answer)
    (record,) = setting.records("broker.released")
    assert record.subject == "fraud@1"
    assert record.actor.startswith("client:")
    assert record.details["lease"] == answer.lease
    assert record.details["file_id"] == setting.structure().header.file_id
    assert answer.seconds == 30 * 60
    assert [one.id for one in Leases(setting.installation.paths.directory).all()] == [answer.lease]


def test_a_hybrid_key_is_answered_too(setting: Setting, asking: Asking) -> None:
    pair = HybridIdentity.generate()
    hybrid = replaced(asking, pair=pair)

    request = hybrid.request()

    assert hybrid.key(request, hybrid.release(request)) == _file_key(setting)


def test_the_answer_opens_for_nobody_who_saw_another_request(asking: Asking) -> None:
    request = asking.request()
    answer = asking.release(request)
    for change in ({"purpose": "serve"}, {"evidence": b"x"}, {"nonce": bytes(32)}, {"approval": "1"}):
        with pytest.raises(PalladionError, match="does not open"):
            asking.key(msgspec.structs.replace(request, **change), answer)


# The network.


def test_a_nonce_is_good_once(setting: Setting, asking: Asking) -> None:
    request = asking.request()
    asking.release(request)

    with Refused(setting, "nonce"):
        asking.release(request)


def test_a_nonce_that_was_refused_is_used_up(setting: Setting, asking: Asking) -> None:
    request = asking.request(purpose="serve")
    with Refused(setting, "policy"):
        asking.release(request)
    with Refused(setting, "nonce"):
        asking.release(msgspec.structs.replace(request, purpose="exec"))


def test_another_clients_nonce_is_refused_and_stays_good_for_that_one(setting: Setting, asking: Asking) -> None:
    nonce = asking.challenge().nonce
    other = replaced(asking, certificate=OTHER)

    with Refused(setting, "nonce"):
        other.release(nonce=nonce)
    assert asking.release(nonce=nonce)


def test_a_nonce_that_is_too_old_is_refused(setting: Setting, asking: Asking) -> None:
    request = asking.request()
    setting.seconds.now += 60

    with Refused(setting, "nonce"):
        asking.release(request)


def test_a_nonce_that_was_never_drawn_is_refused(setting: Setting, asking: Asking) -> None:
    with Refused(setting, "nonce"):
        asking.release(nonce=bytes(32))


def test_an_unknown_certificate_gets_not_even_a_nonce(setting: Setting, asking: Asking) -> None:
    stranger = replaced(asking, certificate=replaced(CERTIFICATE, fingerprint="ef" * 32))

    with Refused(setting, "client"):
        stranger.challenge()


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[" * 100_000, b"\xff" * 100, b"{}" * 2_000_000],
    ids=["empty", "{}", "deep", "bytes", "large"],
)
def test_what_is_no_request_is_refused(setting: Setting, asking: Asking, data: bytes) -> None:
    with Refused(setting, "malformed"):
        asking.broker.release(CERTIFICATE, data)


@pytest.mark.parametrize("size", [31, 33, 1215, 1217])
def test_a_public_key_of_another_size_is_refused(setting: Setting, asking: Asking, size: int) -> None:
    with Refused(setting, "malformed"):
        asking.release(public_key=bytes(size))


def test_a_public_key_of_low_order_is_refused(setting: Setting, asking: Asking) -> None:
    with Refused(setting, "malformed"):
        asking.release(public_key=bytes(32))


# The host: files.


def test_another_clients_file_is_refused(setting: Setting, asking: Asking) -> None:
    with Refused(setting, "policy"):
        replaced(asking, certificate=OTHER).release()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model": "other"}, "model"),
        ({"recipient": "somebody"}, "policy"),
        ({"purpose": "original"}, "malformed"),
        ({"kind": "backup", "purpose": "backup"}, "malformed"),
    ],
    ids=["model", "recipient", "original", "backup"],
)
def test_a_file_that_is_not_to_be_released_is_refused(
    setting: Setting, asking: Asking, fields: dict[str, Any], reason: str
) -> None:
    path = setting.seal(**fields)

    with Refused(setting, reason):
        replaced(asking, path=path).release()


def test_a_file_that_is_sealed_to_somebody_else_is_refused(setting: Setting, asking: Asking) -> None:
    path = setting.seal(to=FileIdentity.generate())

    with Refused(setting, "key"):
        replaced(asking, path=path).release()


def test_a_header_of_another_file_before_a_wrap_is_refused(setting: Setting, asking: Asking) -> None:
    """A host that may open a harmless file puts the wrap of a precious one behind its header."""
    secret = front_of(setting.structure(setting.seal("secret.sealed", model="secret")))
    mine = front_of(setting.structure())

    with Refused(setting, "key"):
        asking.release(file=msgspec.structs.replace(mine, wrap=secret.wrap))
    with Refused(setting, "tampered"):
        asking.release(file=msgspec.structs.replace(mine, wrap=secret.wrap, floe_header=secret.floe_header))
    with Refused(setting, "tampered"):
        asking.release(file=msgspec.structs.replace(secret, header=mine.header))


@pytest.mark.parametrize("field", ["header", "floe_header", "segments", "body_bytes", "root", "signature"])
def test_every_part_of_a_front_is_signed(setting: Setting, asking: Asking, field: str) -> None:
    front = front_of(setting.structure())
    value = getattr(front, field)
    changed = (
        value + 1
        if isinstance(value, int)
        else value.replace(b"lab", b"lob")
        if field == "header"
        else bytes([value[0] ^ 1]) + value[1:]
    )

    with Refused(setting, "tampered"):
        asking.release(file=msgspec.structs.replace(front, **{field: changed}))


def test_a_file_of_another_publisher_is_refused(setting: Setting, asking: Asking) -> None:
    front = front_of(setting.structure())
    forged = front.header.replace(setting.structure().header.publisher.encode(), b"0123456789abcdef")

    with Refused(setting, "tampered"):
        asking.release(file=msgspec.structs.replace(front, header=forged))


# The host: evidence.


def test_a_machine_that_is_as_required_gets_the_key(attested: Asking) -> None:
    request = attested.attested()

    assert attested.key(request, attested.release(request)) == _file_key(attested.setting)
    (record,) = attested.setting.records("broker.released")
    assert record.details["attestation"] == ["cvm"]
    assert len(str(record.details["machine"])) == 64


def test_without_evidence_nothing_is_released(attested: Asking) -> None:
    with Refused(attested.setting, "missing"):
        attested.release()


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ({"policy": 0x30000 | 1 << 19}, "debug"),
        ({"measurement": bytes(48)}, "measurement"),
        ({"vmpl": 1}, "feature"),
        ({"key": b"\x09" * 32}, "binding"),
    ],
    ids=["debug", "measurement", "privilege", "another key"],
)
def test_a_machine_that_is_not_as_required_gets_nothing(attested: Asking, report: dict[str, Any], reason: str) -> None:
    with Refused(attested.setting, reason):
        attested.release(attested.attested(**report))


def test_evidence_over_which_the_broker_stumbles_is_on_record_too(
    attested: Asking, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a parser's mistake")

    request = attested.attested()
    monkeypatch.setattr(broker_module, "verify", stumble)
    with Refused(setting, "fault"):
        attested.release(request)


def test_evidence_of_an_earlier_request_is_refused(attested: Asking) -> None:
    first = attested.attested()
    attested.release(first)

    with Refused(attested.setting, "binding"):
        attested.release(evidence=first.evidence)


def test_evidence_for_another_file_is_refused(setting: Setting, attested: Asking) -> None:
    nonce = attested.challenge().nonce
    evidence = attested.evidence(nonce, "ab" * 16)

    with Refused(attested.setting, "binding"):
        attested.release(nonce=nonce, evidence=evidence)


def test_evidence_that_was_overheard_is_of_no_use_with_another_key(attested: Asking) -> None:
    """Who has stolen a host's certificate, and sees what its machine signs, still cannot open the answer."""
    request = attested.attested()
    thief = replaced(attested, pair=FileIdentity.generate())

    with Refused(attested.setting, "binding"):
        thief.release(msgspec.structs.replace(request, public_key=thief.pair.recipient.public_key))


def test_certificates_of_hardware_that_have_ended_are_refused(attested: Asking) -> None:
    request = attested.attested()
    attested.setting.clock.advance(timedelta(days=300))

    with Refused(attested.setting, "expired"):
        attested.release(request)


# Revocations, at a release and during a lease.

Revoke = Callable[[Setting], object]


def _client(setting: Setting) -> None:
    with setting.installation.open_registry() as registry, registry.write() as records:
        records.clients.revoke(setting.client.id)


def _certificate(setting: Setting) -> None:
    with setting.installation.open_registry() as registry, registry.write() as records:
        records.identities.revoke("certificate", CERTIFICATE.fingerprint)


def _recipient(setting: Setting) -> None:
    with setting.installation.open_registry() as registry, registry.write() as records:
        records.recipients.revoke("lab")


def _file(setting: Setting) -> None:
    revoke_file(setting.installation, setting.owner, setting.file, reason="leaked", actor=ACTOR)


def _permission(setting: Setting) -> None:
    (setting.installation.paths.home / "broker.cedar").write_text(CEDAR.replace("acme/web", "acme/nobody"))


def _broken(setting: Setting) -> None:
    (setting.installation.paths.home / "broker.cedar").write_text("permit (")


REVOKED: dict[str, tuple[Revoke, str]] = {
    "client": (_client, "revoked"),
    "certificate": (_certificate, "client"),
    "recipient": (_recipient, "revoked"),
    "file": (_file, "revoked"),
    "permission": (_permission, "policy"),
    "broken policies": (_broken, "fault"),
}


@pytest.fixture(params=REVOKED)
def revoke(request: pytest.FixtureRequest) -> tuple[Revoke, str]:
    return REVOKED[request.param]


def test_what_is_revoked_is_not_released(setting: Setting, asking: Asking, revoke: tuple[Revoke, str]) -> None:
    request = asking.request()
    revoke[0](setting)

    with Refused(setting, revoke[1]):
        asking.release(request)


def test_what_is_revoked_is_not_renewed(setting: Setting, asking: Asking, revoke: tuple[Revoke, str]) -> None:
    lease = asking.release().lease
    nonce = asking.challenge().nonce
    revoke[0](setting)

    with Refused(setting, revoke[1]):
        asking.renew(lease, nonce=nonce)


def test_a_revoked_version_is_not_released(setting: Setting, asking: Asking) -> None:
    row = RevokedVersions("fraud", 1, 3, "stolen")
    extend(setting.installation, setting.owner, subject="fraud@1", reason="stolen", actor=ACTOR, versions=[row])

    with Refused(setting, "revoked"):
        asking.release()


# Leases.


def test_a_lease_is_renewed_and_is_on_record(setting: Setting, asking: Asking) -> None:
    lease = asking.release().lease
    setting.clock.advance(timedelta(minutes=20))

    assert asking.renew(lease).seconds == 30 * 60
    (kept,) = Leases(setting.installation.paths.directory).all()
    assert kept.ends_at == setting.clock.now() + timedelta(minutes=30)
    assert [record.details["lease"] for record in setting.records("broker.renewed")] == [lease]


def test_a_lease_that_ended_is_not_renewed(setting: Setting, asking: Asking) -> None:
    lease = asking.release().lease
    setting.clock.advance(timedelta(minutes=30))

    with Refused(setting, "lease"):
        asking.renew(lease)


def test_a_lease_that_an_operator_ended_is_not_renewed(setting: Setting, asking: Asking) -> None:
    lease = asking.release().lease
    Leases(setting.installation.paths.directory).end(lease)

    with Refused(setting, "unknown"):
        asking.renew(lease)


def test_another_client_cannot_renew_a_lease(setting: Setting, asking: Asking) -> None:
    lease = asking.release().lease

    with Refused(setting, "unknown"):
        replaced(asking, certificate=OTHER).renew(lease)


def test_a_lease_is_renewed_by_the_machine_that_got_it_alone(attested: Asking) -> None:
    lease = attested.release(attested.attested()).lease

    assert attested.renew(lease, evidence=True).lease == lease
    with Refused(attested.setting, "machine"):
        attested.renew(lease, evidence=True, chip=bytes(range(1, 65)))
    with Refused(attested.setting, "missing"):
        attested.renew(lease)


def test_a_lease_outlives_the_broker(setting: Setting, asking: Asking) -> None:
    lease = asking.release().lease

    assert Asking(setting, setting.broker()).renew(lease).lease == lease


# Nothing leaves that is not on record.


def test_nothing_leaves_while_the_ledger_cannot_be_written(
    setting: Setting, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Ledger, records: object) -> list[Any]:
        raise StorageError("no space left on device")

    request = asking.request()
    monkeypatch.setattr(Ledger, "append", full)

    with pytest.raises(StorageError, match="no space"):
        asking.release(request)
    monkeypatch.undo()
    assert setting.records("broker.released", "broker.refused") == []
    assert Leases(setting.installation.paths.directory).all() == []


def test_nothing_leaves_where_the_lease_cannot_be_kept(
    setting: Setting, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Leases, *_: object, **__: object) -> None:
        raise StorageError("no space left on device")

    request = asking.request()
    monkeypatch.setattr(Leases, "put", full)

    with pytest.raises(StorageError):
        asking.release(request)


def test_a_killed_broker_leaves_a_record_and_no_key(
    setting: Setting, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between record and answer: the client has nothing, the nonce is gone, and it may ask anew."""
    request = asking.request()

    def killed(self: Leases, *_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Leases, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        asking.release(request)
    monkeypatch.undo()
    again = Asking(setting, setting.broker())

    assert len(setting.records("broker.released")) == 1
    with Refused(setting, "nonce"):
        again.release(request)
    assert again.release()


# The broker's own affair: its clock, its files, and what it was told to look out for.


def test_a_clock_that_was_set_back_renews_and_releases_nothing(setting: Setting, asking: Asking) -> None:
    setting.clock.advance(timedelta(hours=2))
    lease = asking.release().lease
    setting.clock.advance(timedelta(hours=-1))

    with Refused(setting, "fault"):
        asking.renew(lease)
    with Refused(setting, "fault"):
        asking.release()


def test_a_lease_from_the_future_is_not_renewed_by_a_broker_that_starts_anew(setting: Setting, asking: Asking) -> None:
    setting.clock.advance(timedelta(hours=2))
    lease = asking.release().lease
    setting.clock.advance(timedelta(hours=-1))

    with Refused(setting, "fault"):
        Asking(setting, setting.broker()).renew(lease)


def test_a_damaged_list_of_revocations_is_no_refusal_and_no_release(setting: Setting, asking: Asking) -> None:
    lease = asking.release().lease
    _file(setting)
    path = setting.installation.paths.revocations
    path.write_bytes(path.read_bytes()[:-9])

    with Refused(setting, "fault"):
        asking.release()
    with Refused(setting, "fault"):
        asking.renew(lease)


def test_a_damaged_list_of_leases_is_no_refusal_and_no_release(setting: Setting, asking: Asking) -> None:
    lease = asking.release().lease
    (setting.installation.paths.directory / "broker" / "leases.json").write_text("{}")

    with pytest.raises(StorageError, match="is not a list of leases"):
        asking.renew(lease)
    with pytest.raises(StorageError, match="is not a list of leases"):
        asking.release()
    assert len(setting.records("broker.released", "broker.renewed")) == 1


@pytest.mark.parametrize(("purpose", "reason"), [("original", "malformed"), ("served", "model")])
def test_asking_for_a_decoy_is_an_incident_and_is_told_nobody(
    setting: Setting, asking: Asking, purpose: Any, reason: str
) -> None:
    path = setting.file.with_name("crown.sealed")
    plant_file(
        setting.installation, setting.owner, str(path), label="crown", model="crown", purpose=purpose, size=4096,
        actor=ACTOR,
    )  # fmt: skip

    with Refused(setting, reason):
        replaced(asking, path=path).release()

    (touched,) = setting.records("decoy.touched")
    (refused,) = setting.records("broker.refused")
    assert touched.actor == refused.actor
    with setting.installation.open_registry() as registry, registry.read() as records:
        (case,) = records.incidents.all()
    assert "crown" in case.title
    asking.release()
    assert len(setting.records("decoy.touched")) == 1


def test_a_decoy_whose_header_was_changed_is_one_still(setting: Setting, asking: Asking) -> None:
    path = setting.file.with_name("crown.sealed")
    plant_file(
        setting.installation, setting.owner, str(path), label="crown", model="crown", size=4096, actor=ACTOR
    )  # fmt: skip
    front = front_of(setting.structure(path))

    with Refused(setting, "tampered"):
        asking.release(file=msgspec.structs.replace(front, header=front.header.replace(b'"crown"', b'"fraud"')))
    assert len(setting.records("decoy.touched")) == 1


def test_secrets_are_in_no_text(setting: Setting, asking: Asking) -> None:
    request = asking.request()
    answer = asking.release(request)
    key = _file_key(setting)

    said = repr((asking.broker, request, answer)) + str(setting.records("broker.released"))
    kept = (setting.installation.paths.directory / "broker" / "leases.json").read_text()

    assert key.hex() not in said + kept
    assert repr(key) not in said
