"""A licence from the publisher's installation to the customer's host and back: issued, used, renewed, revoked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from palladion.clock import ManualClock
from palladion.errors import ConflictError, LicenseError, NotFoundError, PalladionError, StorageError, TamperError
from palladion.host.host import Host
from palladion.host.load import load_files
from palladion.keys import Ed25519Signer
from palladion.ledger.record import Record, decode_record
from palladion.ledger.writer import Ledger
from palladion.lifecycle.license import (
    ONLY_MACHINE,
    Grant,
    Issued,
    ask,
    find_license,
    issue,
    issued,
    renew,
    revoke_license,
)
from palladion.lifecycle.protect import protect
from palladion.lifecycle.revoke import read_revocations, revoke_file
from palladion.seal.header import new_header
from palladion.seal.license import Granted, License, VersionRange, authorise, verify_license
from palladion.seal.machine import Challenge, decode_challenge, read_machine, update_licenses_seen
from palladion.seal.reader import open_sealed
from palladion.seal.recipients import FileIdentity
from palladion.seal.revocations import Revocations, verify_revocations
from palladion.seal.sign import publisher_id
from palladion.seal.structure import SealedInfo
from palladion.seal.writer import seal_files
from tests.models import onnx_bytes, write

from .installations import ACTOR, NOW, Made, kinds, make

pytestmark = pytest.mark.slow  # makes an installation for each test

YEAR = timedelta(days=365)


@dataclass
class Customer:
    """A host that cannot be reached, with its own clock, a file system of its own, and a sealed file."""

    host: Host
    clock: ManualClock
    root: Path
    sealed: Path

    def ask(self, name: str = "request", **options: Any) -> Challenge:
        out = self.root.parent / name
        ask(self.host, out, root=self.root, **options)
        return decode_challenge(out.read_bytes(), what=name)

    def open(self, license: Path | None, revocations: Revocations | None = None) -> Granted | None:  # noqa: A002
        """Open the sealed file as the host does, with the licence file that lies there."""
        granted: list[Granted | None] = []

        def accept(info: SealedInfo) -> None:
            now = self.clock.now()
            machine = read_machine(self.root, self.host.identities(), now=now)
            data = license.read_bytes() if license else None
            granted.append(
                update_licenses_seen(
                    self.host.folder,
                    lambda seen: authorise(
                        data, info, self.host.publishers(), machine, now=now, seen=seen, revocations=revocations
                    ),
                )
            )

        with open_sealed(self.sealed, self.host.identities(), self.host.publishers(), accept=accept) as opened:
            assert bytes(opened.files["model.bin"]) == b"weights"
        return granted[0]


def seal(made: Made, path: Path, *identities: FileIdentity, **fields: Any) -> Path:
    """A sealed file of version 1 that asks for a licence."""
    signer = made.owner.signer("publisher")
    values = {"license_required": True, "model": "fraud", "version": 1, **fields}
    header = new_header(
        kind="opaque", purpose="delivery", publisher=publisher_id(signer.public_key), created=NOW, **values
    )
    seal_files([("model.bin", b"weights")], header, [identity.recipient for identity in identities], signer, path)
    return path


def customer(made: Made, folder: Path, sealed: Path, identity: FileIdentity) -> Customer:
    root = folder / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/machine-id").write_text(f"{FileIdentity.generate().recipient.public_key.hex()[:32]}\n")
    clock = ManualClock(made.clock.now())
    host = Host(folder / "host", clock, identities=[identity], publishers=made.installation.publishers())
    return Customer(host, clock, root, sealed)


@dataclass
class World:
    """A publisher, and two customers' hosts that could both open the same sealed file."""

    made: Made
    sealed: Path
    acme: Customer
    other: Customer
    folder: Path

    def issue(self, out: str = "acme.license", target: str | Path | None = None, **options: Any) -> Issued:
        grant = Grant(**{"licensee": "Acme Bank", "not_after": NOW + YEAR, **options.pop("grant", {})})
        target = target if target is not None else self.sealed
        return issue(self.made.installation, self.made.owner, target, grant, self.folder / out, actor=ACTOR, **options)

    def renew(self, serial: str, out: str = "next.license", days: int = 730, **options: Any) -> Issued:
        until = NOW + timedelta(days=days)
        return renew(self.made.installation, self.made.owner, serial, until, self.folder / out, actor=ACTOR, **options)

    def record(self) -> Record:
        """The ledger's last record."""
        entries = list(self.made.installation.read_ledger().entries())
        return decode_record(entries[-1][1], what="it")


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = make(tmp_path)
    identities = [FileIdentity.generate() for _ in range(2)]
    sealed = seal(made, tmp_path / "fraud.sealed", *identities)
    hosts = [
        customer(made, tmp_path / name, sealed, identities[number]) for number, name in enumerate(("acme", "other"))
    ]
    return World(made, sealed, hosts[0], hosts[1], tmp_path)


def test_a_licence_by_request_opens_on_the_host_that_asked_and_on_no_other(world: World) -> None:
    done = world.issue(challenges=[world.acme.ask()], kinds=["host", "machine-id"], grant={"features": ("batch",)})
    granted = world.acme.open(done.out)
    assert granted is not None
    assert granted.has("batch")
    with pytest.raises(LicenseError, match="answers a request that this machine has not made"):
        world.other.open(done.out)
    with pytest.raises(LicenseError, match="under a licence only"):
        world.acme.open(None)


def test_the_files_key_stays_shut_on_another_machine_even_after_it_asked_too(world: World) -> None:
    done = world.issue(challenges=[world.acme.ask(), world.other.ask("second")])
    one = world.issue("one.license", challenges=[world.acme.ask("third")])
    for host in (world.acme, world.other):
        assert host.open(done.out) is not None
    with pytest.raises(LicenseError):
        world.other.open(one.out)


def test_a_licence_without_a_request_is_for_any_machine(world: World) -> None:
    done = world.issue()
    assert (done.license.machines, done.required) == ((), True)
    assert world.acme.open(done.out) is not None
    assert world.other.open(done.out) is not None


def test_what_was_issued_is_on_record_whole_and_kept(world: World) -> None:
    done = world.issue()
    record = world.record()
    assert (record.kind, record.subject) == ("license.issued", done.license.serial)
    assert msgspec.convert(record.details["license"], License) == done.license
    assert issued(world.made.installation) == [done.license]
    kept = world.made.installation.paths.directory / "licenses" / done.license.serial / "1.license"
    assert kept.read_bytes() == done.out.read_bytes()
    assert kept.stat().st_mode & 0o077 == 0
    assert verify_license(done.out.read_bytes(), world.made.installation.publishers(), what="it") == done.license


def test_a_file_that_needs_no_licence_is_told_from_one_that_does(world: World, tmp_path: Path) -> None:
    free = seal(world.made, tmp_path / "free.sealed", FileIdentity.generate(), license_required=False)
    assert world.issue(target=free).required is False


def test_a_licence_for_versions_opens_the_next_version_too(world: World, tmp_path: Path) -> None:
    protect(world.made.installation, world.made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "fraud", actor=ACTOR)
    ranged = world.issue(target="fraud", grant={"versions": (VersionRange(1, 9),)})
    assert ranged.license.covers("fraud", 9, "0" * 64)
    single = world.issue("single.license", target="fraud@1")
    assert single.license.versions == (VersionRange(1, 1),)
    assert single.required is None
    for target, grant in (("fraud", {}), ("fraud@1", {"versions": (VersionRange(1, 2),)})):
        with pytest.raises(ConflictError):
            world.issue("x.license", target=target, grant=grant)
    for target in ("fraud@7", "churn@1"):
        with pytest.raises(NotFoundError):
            world.issue("x.license", target=target)


def test_nothing_is_issued_for_another_publishers_file(world: World, tmp_path: Path) -> None:
    stranger = Ed25519Signer(b"\x09" * 32)
    header = new_header(kind="opaque", purpose="delivery", publisher=publisher_id(stranger.public_key), created=NOW)
    seal_files([("a", b"b")], header, [FileIdentity.generate().recipient], stranger, tmp_path / "theirs.sealed")
    with pytest.raises(TamperError, match="none of the 1 that are trusted"):
        world.issue(target=tmp_path / "theirs.sealed")
    nameless = seal(world.made, tmp_path / "nameless.sealed", FileIdentity.generate(), model="")
    with pytest.raises(ConflictError, match="no model that this installation published"):
        world.issue(target=nameless)


@pytest.mark.parametrize(
    ("grant", "match"),
    [
        ({"not_after": NOW}, "its last day is over"),
        ({"not_before": NOW + 2 * YEAR}, "before it begins"),
        ({"grace_days": 9999}, "no reader would accept"),
        ({"features": ("Not A Name",)}, "no reader would accept"),
        ({"licensee": ""}, "the licensee is empty"),
        ({"purpose": "a\x1b[2J"}, "control characters"),
    ],
    ids=str,
)
def test_a_licence_that_cannot_be_leaves_nothing_behind(world: World, grant: dict[str, Any], match: str) -> None:
    with pytest.raises(PalladionError, match=match):
        world.issue(grant=grant)
    assert issued(world.made.installation) == []
    assert not (world.folder / "acme.license").exists()
    assert "license.issued" not in kinds(world.made.installation)


def test_what_cannot_be_recorded_is_not_kept_and_not_handed_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: Ledger, _records: Sequence[Record]) -> list[Any]:
        raise StorageError("no space left on device")

    monkeypatch.setattr(Ledger, "append", full)
    with pytest.raises(StorageError):
        world.issue()
    monkeypatch.undo()
    assert issued(world.made.installation) == []
    assert not (world.folder / "acme.license").exists()


def test_nothing_is_overwritten_and_nothing_recorded_for_it(world: World) -> None:
    (world.folder / "acme.license").write_text("an older one")
    actions: list[Callable[[], object]] = [world.issue, lambda: ask(world.acme.host, world.folder / "acme.license")]
    for action in actions:
        with pytest.raises(StorageError, match="exists already"):
            action()
    assert (world.folder / "acme.license").read_text() == "an older one"
    assert issued(world.made.installation) == []


# renewal without a network


def test_an_air_gapped_host_is_renewed_by_files_alone(world: World) -> None:
    first = world.issue(challenges=[world.acme.ask()])
    world.acme.open(first.out)
    for clock in (world.acme.clock, world.made.clock):
        clock.advance(YEAR + timedelta(days=1))
    with pytest.raises(LicenseError, match="expired"):
        world.acme.open(first.out)
    request = world.acme.ask("again", held=first.license)
    assert (request.serial, request.sequence) == (first.license.serial, 1)
    second = world.renew(first.license.serial, challenges=[request])
    assert second.license.sequence == 2
    assert world.acme.open(second.out) is not None
    with pytest.raises(LicenseError, match="has accepted 2 already"):
        world.acme.open(first.out)
    assert kinds(world.made.installation)[-2:] == ["license.issued", "license.renewed"]
    assert world.record().details["replaced_machine"] is False
    assert find_license(world.made.installation, first.license.serial[:8]) == second.license


def test_a_renewal_without_a_request_reaches_every_machine_of_the_licence(world: World) -> None:
    first = world.issue(challenges=[world.acme.ask(), world.other.ask("second")])
    second = world.renew(first.license.serial)
    assert second.license.nonces == ()
    assert world.acme.open(second.out) is not None
    assert world.other.open(second.out) is not None


def test_the_eleventh_sequence_is_newer_than_the_second_though_its_file_sorts_first(world: World) -> None:
    serial = world.issue().license.serial
    for number in range(2, 12):
        assert world.renew(serial, f"{number}.license").license.sequence == number
    assert [terms.sequence for terms in issued(world.made.installation)] == [11]


def test_a_request_from_another_machine_renews_nothing_unless_hardware_was_replaced(world: World) -> None:
    first = world.issue(challenges=[world.acme.ask()], kinds=["host", "machine-id"])
    request = world.other.ask()
    with pytest.raises(ConflictError, match="a machine that the licence does not name"):
        world.renew(first.license.serial, challenges=[request])
    second = world.renew(first.license.serial, challenges=[request], replace_machine=ONLY_MACHINE)
    assert set(second.license.machines[0]) == {"host", "machine-id"}
    assert world.other.open(second.out) is not None
    with pytest.raises(LicenseError):
        world.acme.open(second.out)
    assert world.record().details["replaced_machine"] is True


def test_of_several_machines_the_replaced_one_is_named_by_its_number(world: World) -> None:
    first = world.issue(challenges=[world.acme.ask(), world.acme.ask("second")])
    request = world.other.ask()
    for number in (ONLY_MACHINE, 3):
        with pytest.raises(ConflictError, match="names 2 machines"):
            world.renew(first.license.serial, challenges=[request], replace_machine=number)
    with pytest.raises(ConflictError, match="2 requests were given"):
        world.renew(first.license.serial, challenges=[request, request], replace_machine=1)
    second = world.renew(first.license.serial, challenges=[request], replace_machine=2)
    assert second.license.machines[0] == first.license.machines[0]
    assert second.license.machines[1] != first.license.machines[1]


def test_a_request_for_another_licence_or_from_the_future_is_refused(world: World) -> None:
    first, second = world.issue(), world.issue("second.license")
    with pytest.raises(ConflictError, match="the request is for licence"):
        world.renew(first.license.serial, challenges=[world.acme.ask(held=second.license)])
    ahead = msgspec.structs.replace(first.license, sequence=7)
    with pytest.raises(ConflictError, match="the host has sequence 7"):
        world.renew(first.license.serial, challenges=[world.acme.ask("ahead", held=ahead)])


def test_a_renewal_has_to_end_later_than_now(world: World) -> None:
    first = world.issue()
    world.made.clock.advance(3 * YEAR)
    with pytest.raises(ConflictError, match="its last day is over"):
        world.renew(first.license.serial)


def test_what_somebody_improved_in_the_store_is_not_renewed(world: World) -> None:
    first = world.issue()
    kept = world.made.installation.paths.directory / "licenses" / first.license.serial / "1.license"
    kept.write_bytes(kept.read_bytes().replace(b'"grace_days":0', b'"grace_days":9'))
    with pytest.raises(TamperError, match="was altered"):
        world.renew(first.license.serial)


@pytest.mark.parametrize("serial", ["", "abc", "0" * 32, "z" * 8])
def test_a_serial_that_names_no_licence_is_not_found(world: World, serial: str) -> None:
    world.issue()
    with pytest.raises(NotFoundError):
        find_license(world.made.installation, serial)


# revocation


def test_a_revoked_licence_is_refused_where_the_list_is_known_and_never_renewed(world: World) -> None:
    first = world.issue()
    held, listed, _ = revoke_license(
        world.made.installation, world.made.owner, first.license.serial[:8], reason="not paid", actor=ACTOR
    )
    assert (held, listed.sequence) == (first.license, 1)
    record = world.record()
    assert (record.subject, record.details["reason"]) == (held.serial, "not paid")
    assert record.details["licenses"] == [held.serial]
    with pytest.raises(ConflictError, match="was revoked: not paid"):
        world.renew(first.license.serial)
    with pytest.raises(ConflictError, match="was revoked: not paid"):
        revoke_license(world.made.installation, world.made.owner, first.license.serial, reason="x", actor=ACTOR)
    # the host goes on until the list reaches it, and then for good
    assert world.acme.open(first.out) is not None
    with pytest.raises(LicenseError, match="was revoked: not paid"):
        world.acme.open(first.out, read_revocations(world.made.installation))


def test_a_host_that_knows_a_list_does_not_go_back_before_it(world: World) -> None:
    revoked, good = world.issue(), world.issue("good.license")
    installation, owner = world.made.installation, world.made.owner
    revoke_license(installation, owner, revoked.license.serial, reason="stolen", actor=ACTOR)
    assert world.acme.open(good.out, read_revocations(installation)) is not None
    with pytest.raises(LicenseError, match="none is here now"):
        world.acme.open(revoked.out)


def test_a_licence_shares_its_list_with_versions_and_files(world: World) -> None:
    installation, owner = world.made.installation, world.made.owner
    first = world.issue()
    revoke_file(installation, owner, world.sealed, reason="leaked", actor=ACTOR)
    _, listed, _ = revoke_license(installation, owner, first.license.serial, reason="not paid", actor=ACTOR)
    assert (listed.sequence, list(listed.files.values())) == (2, ["leaked"])
    assert listed.serials == {first.license.serial: "not paid"}
    assert (
        verify_revocations(installation.paths.revocations.read_bytes(), installation.publishers(), what="it") == listed
    )


def test_no_licence_is_issued_for_what_is_revoked(world: World) -> None:
    revoke_file(world.made.installation, world.made.owner, world.sealed, reason="leaked", actor=ACTOR)
    with pytest.raises(ConflictError, match="leaked"):
        world.issue()


def test_a_list_that_cannot_be_recorded_does_not_replace_the_one_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.issue()

    def full(_self: Ledger, _records: Sequence[Record]) -> list[Any]:
        raise StorageError("no space left on device")

    monkeypatch.setattr(Ledger, "append", full)
    with pytest.raises(StorageError):
        revoke_license(world.made.installation, world.made.owner, first.license.serial, reason="x", actor=ACTOR)
    monkeypatch.undo()
    assert read_revocations(world.made.installation) is None


def test_a_request_names_the_recipient_to_seal_to(world: World) -> None:
    identity = world.acme.host.identities()[0]
    assert isinstance(identity, FileIdentity)
    assert world.acme.ask().recipient == str(identity.recipient)


def test_a_clock_set_back_after_an_opening_is_noticed_across_processes(world: World) -> None:
    done = world.issue()
    world.acme.clock.advance(timedelta(days=30))
    world.acme.open(done.out)
    world.acme.clock.advance(-timedelta(days=1))
    with pytest.raises(LicenseError, match="it was set back"):
        world.acme.open(done.out)


def test_a_host_finds_the_licence_beside_the_file_and_notices_that_it_was_taken_away(world: World) -> None:
    done = world.issue(challenges=[world.acme.ask()], out="fraud.sealed.license")
    with load_files(world.sealed, host=world.acme.host) as opened:
        assert bytes(opened.files["model.bin"]) == b"weights"
    assert world.acme.host.granted is not None
    assert world.acme.host.granted.license == done.license
    done.out.unlink()
    with pytest.raises(LicenseError, match="under a licence only"):
        load_files(world.sealed, host=world.acme.host)


def test_dates_are_moments_wherever_the_publisher_sits(world: World) -> None:
    done = world.issue(grant={"not_after": datetime(2027, 1, 1, tzinfo=UTC)})
    assert done.license.not_after == "2027-01-01T00:00:00.000000Z"
