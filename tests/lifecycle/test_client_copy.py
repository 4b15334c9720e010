"""Clients of one gate at another: who signed is asked first, what was revoked stays so, and both ledgers know."""

import shutil
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from palladion.access.identity import hash_api_key, key_prefix, parse_api_key
from palladion.clock import ManualClock
from palladion.errors import ConflictError, FormatError, KeysError, PalladionError, StorageError, TamperError
from palladion.keys import Recipient, Root
from palladion.ledger.journal import JournalWriter
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle import client_copy
from palladion.lifecycle.client_copy import Imported, export_clients, import_clients, peppers
from palladion.lifecycle.clients import add_client, revoke_client, revoke_key, rotate_key, set_standing
from palladion.lifecycle.identities import add_identity, revoke_identity
from palladion.lifecycle.installation import Installation
from palladion.registry import Client
from palladion.seal.header import new_header
from palladion.seal.recipients import FileIdentity, read_identity
from palladion.seal.sign import publisher_id, publisher_text
from palladion.seal.writer import seal_files

from .installations import ACTOR, NOW, OWNER, make, served

SPIFFE = "spiffe://example.org/scoring"


class Gates:
    """Two installations, `here` trusting the publisher of `there`, and the file between them."""

    def __init__(self, folder: Path, homes: tuple[Path, Path]) -> None:
        self.clock = ManualClock(NOW)
        self.there = Installation.find(shutil.copytree(homes[0], folder / "there"), self.clock, exact=True)
        here = Installation.find(shutil.copytree(homes[1], folder / "here"), self.clock, exact=True)
        self.owner = self.there.open_owner_root([OWNER])
        self.own_owner = here.open_owner_root([OWNER])
        self.publisher = self.owner.signer("publisher").public_key
        self.here = trusting(here, self.publisher)
        self.file = folder / "clients.sealed"

    @property
    def to(self) -> Recipient:
        """The gate that the file is for."""
        return self.here.stated_recipient("gate")

    def export(self, *, to: Recipient | None = None) -> None:
        """Write the file, a second after whatever was before."""
        self.clock.advance(timedelta(seconds=1))
        export_clients(self.there, self.owner, self.file, [to or self.to], actor=ACTOR, replace=True)

    def pass_on(self, **options: object) -> Imported:
        """Export there, import here."""
        self.export()
        return import_clients(self.here, self.file, [], actor=ACTOR, **options)  # type: ignore[arg-type]

    def client(self, name: str = "acme") -> Client:
        """A client as it is here."""
        with self.here.open_registry() as registry, registry.read() as records:
            return records.clients.named("acme", name)


def trusting(installation: Installation, *publishers: bytes) -> Installation:
    """The same installation, where the policy pins these publishers too."""
    texts = tuple(publisher_text(key) for key in publishers)
    trust = msgspec.structs.replace(
        installation.policy.trust, publishers=(*installation.policy.trust.publishers, *texts)
    )
    policy = msgspec.structs.replace(installation.policy, trust=trust)
    return Installation(installation.paths, policy, installation.clock)


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two installations to be copied."""
    folder = tmp_path_factory.mktemp("gates")
    return make(folder / "one").home, make(folder / "two").home


@pytest.fixture
def gates(tmp_path: Path, homes: tuple[Path, Path]) -> Gates:
    """Two gates without clients."""
    return Gates(tmp_path, homes)


def _add(installation: Installation, name: str = "acme") -> str:
    """A client of that name; returns its key."""
    _, key, _ = add_client(installation, "acme", name, models=[], environment="live", expires=None, actor=ACTOR)
    return key.text


def _lets_in(installation: Installation, text: str) -> str | None:
    """Whom a key lets in, by the hashes of this gate and of those whose clients were taken over."""
    gate = installation.open_gate_root()
    with installation.open_registry() as registry, registry.read() as records:
        for pepper in (gate.derive("client-key-pepper"), *peppers(records, gate)):
            try:
                return records.clients.authenticate(hash_api_key(pepper, parse_api_key(text))).name
            except KeysError:
                continue
    return None


def _records(installation: Installation) -> list[Record]:
    return [decode_record(data, what="it") for _, data in installation.read_ledger().entries()]


def _prefix(key: str) -> str:
    return key_prefix(parse_api_key(key))


@pytest.mark.slow
def test_a_key_of_one_gate_lets_its_client_in_at_the_other(gates: Gates) -> None:
    key = _add(gates.there)
    assert _lets_in(gates.here, key) is None
    done = gates.pass_on()
    assert _lets_in(gates.here, key) == "acme"
    assert done.changes.count("client.added") == done.changes.count("client.key-added") == 1
    with gates.there.open_registry() as registry, registry.read() as records:
        assert records.clients.named("acme", "acme").id == gates.client().id


@pytest.mark.slow
def test_both_ledgers_know_what_was_handed_over_and_name_nobody(gates: Gates) -> None:
    _add(gates.there)
    done = gates.pass_on()
    exported, imported = _records(gates.there)[-1], _records(gates.here)[-3:]
    assert (exported.kind, exported.details["clients"], exported.details["keys"]) == ("clients.exported", 1, 1)
    assert exported.details["sealed_to"] == [f"x25519 {gates.to.key_id}"]
    assert [record.kind for record in imported] == ["clients.imported", "client.added", "client.key-added"]
    assert imported[0].subject == f"gate:{done.gate}"
    assert imported[0].details["changes"] == {"client.added": 1, "client.key-added": 1}
    assert imported[0].details["publisher"] == publisher_id(gates.publisher)
    assert "acme" not in str([exported.details, *(record.details for record in imported)])


@pytest.mark.slow
def test_neither_the_file_nor_the_registry_holds_the_pepper_or_the_key(gates: Gates) -> None:
    key = _add(gates.there)
    gates.pass_on()
    pepper = gates.there.open_gate_root().derive("client-key-pepper")
    for path in (gates.file, gates.here.paths.registry):
        data = path.read_bytes()
        assert pepper not in data
        assert pepper.hex().encode() not in data
        assert key.encode() not in data
    assert pepper.hex() not in repr(gates.here.open_registry())


@pytest.mark.slow
def test_a_dry_run_tells_the_same_and_changes_nothing(gates: Gates) -> None:
    key = _add(gates.there)
    before = len(_records(gates.here))
    told = gates.pass_on(dry_run=True)
    assert told.receipt is None
    assert told.changes.count("client.added") == 1
    assert _lets_in(gates.here, key) is None
    assert len(_records(gates.here)) == before
    assert import_clients(gates.here, gates.file, [], actor=ACTOR).changes.count("client.added") == 1


@pytest.mark.slow
def test_what_ends_there_ends_here(gates: Gates) -> None:
    first, other = _add(gates.there), _add(gates.there, "other")
    add_identity(gates.there, "acme", "acme", "spiffe", SPIFFE, actor=ACTOR)
    gates.pass_on()
    made, _, _ = rotate_key(
        *(gates.there, "acme", "acme"), overlap=timedelta(days=1), environment="live", expires=None, actor=ACTOR
    )
    revoke_client(gates.there, "acme", "other", actor=ACTOR)
    revoke_identity(gates.there, "spiffe", SPIFFE, actor=ACTOR)
    set_standing(gates.there, "acme", "acme", "throttled", reason="it is odd", actor=ACTOR)
    done = gates.pass_on()
    kinds = {step.kind: done.changes.count(step.kind) for step in done.changes.steps}
    expected = ("client.key-added", "client.key-ending", "client.revoked", "client.identity-revoked")
    assert kinds == dict.fromkeys((*expected, "standing.changed"), 1)
    assert _lets_in(gates.here, other) is None
    assert _lets_in(gates.here, made.text) == _lets_in(gates.here, first) == "acme"
    gates.clock.advance(timedelta(days=1))
    assert _lets_in(gates.here, first) is None
    assert gates.client().standing == "throttled"
    with gates.here.open_registry() as registry, registry.read() as records:
        change = records.standings.history(gates.client().id)[-1]
        assert records.identities.live() == []
    assert change.reason == f"as at gate {done.gate}: it is odd"


@pytest.mark.slow
def test_what_was_revoked_here_stays_revoked_and_no_standing_is_raised(gates: Gates) -> None:
    first, other = _add(gates.there), _add(gates.there, "other")
    gates.pass_on()
    revoke_key(gates.here, _prefix(first), actor=ACTOR)
    revoke_client(gates.here, "acme", "other", actor=ACTOR)
    set_standing(gates.here, "acme", "acme", "suspended", reason="it is odd", actor=ACTOR)
    done = gates.pass_on()
    assert done.changes.steps == []
    assert _lets_in(gates.here, first) is None is _lets_in(gates.here, other)
    assert gates.client().standing == "suspended"
    assert done.changes.kept == [
        "acme/acme is trusted there, and stays suspended here",
        "acme/other is revoked here, and not there",
    ]


@pytest.mark.slow
def test_an_older_file_is_refused_and_the_same_one_changes_nothing(gates: Gates) -> None:
    key = _add(gates.there)
    gates.export()
    old = gates.file.rename(gates.file.with_name("old"))
    revoke_key(gates.there, _prefix(key), actor=ACTOR)
    gates.pass_on()
    assert import_clients(gates.here, gates.file, [], actor=ACTOR).changes.steps == []
    with pytest.raises(ConflictError, match="was imported already"):
        import_clients(gates.here, old, [], actor=ACTOR)
    assert _lets_in(gates.here, key) is None


def test_a_file_of_the_future_is_refused(gates: Gates) -> None:
    gates.export()
    past = Installation(gates.here.paths, gates.here.policy, ManualClock(NOW - timedelta(hours=1)))
    with pytest.raises(ConflictError, match="still to come"):
        import_clients(past, gates.file, [], actor=ACTOR)


def test_a_publisher_that_is_not_pinned_lets_nobody_in(gates: Gates) -> None:
    gates.export()
    untrusting = Installation.find(gates.here.paths.home, gates.clock, exact=True)
    with pytest.raises(TamperError, match="none of the 1 that are trusted"):
        import_clients(untrusting, gates.file, [], actor=ACTOR)


def test_only_the_publisher_that_was_named_counts(gates: Gates) -> None:
    own = gates.own_owner.signer("publisher").public_key
    gates.export()
    with pytest.raises(TamperError, match="is signed by publisher"):
        import_clients(gates.here, gates.file, [], actor=ACTOR, publisher=own)
    with pytest.raises(KeysError, match="does not trust the publisher"):
        import_clients(gates.here, gates.file, [], actor=ACTOR, publisher=b"\7" * 32)
    assert import_clients(gates.here, gates.file, [], actor=ACTOR, publisher=gates.publisher).receipt is not None


@pytest.mark.slow
def test_one_publisher_cannot_speak_of_another_ones_clients(gates: Gates, tmp_path: Path) -> None:
    key = _add(gates.there)
    gates.pass_on()
    third = make(tmp_path / "third")
    here = trusting(gates.here, third.owner.signer("publisher").public_key)
    gates.clock.advance(timedelta(seconds=1))
    forged = tmp_path / "forged"
    export_clients(gates.there, third.owner, forged, [gates.to], actor=ACTOR)
    with pytest.raises(TamperError, match="were signed by"):
        import_clients(here, forged, [], actor=ACTOR)
    assert _lets_in(here, key) == "acme"


@pytest.mark.slow
def test_a_publisher_speaks_for_one_gate_unless_a_person_says_otherwise(gates: Gates, tmp_path: Path) -> None:
    _add(gates.there)
    gates.pass_on()
    third, file = make(tmp_path / "third"), tmp_path / "other"
    export_clients(third.installation, gates.owner, file, [gates.to], actor=ACTOR)
    with pytest.raises(ConflictError, match="its publisher spoke for gate"):
        import_clients(gates.here, file, [], actor=ACTOR)
    assert import_clients(gates.here, file, [], actor=ACTOR, another_gate=True).receipt is not None
    assert import_clients(gates.here, file, [], actor=ACTOR).receipt is not None


def test_nobody_else_speaks_of_this_gates_own_clients(gates: Gates, tmp_path: Path) -> None:
    _add(gates.here)
    forged = tmp_path / "forged"
    export_clients(gates.here, gates.owner, forged, [gates.to], actor=ACTOR)
    with pytest.raises(TamperError, match="this gate's own clients"):
        import_clients(gates.here, forged, [], actor=ACTOR)
    mine = tmp_path / "mine"
    export_clients(gates.here, gates.own_owner, mine, [gates.to], actor=ACTOR)
    assert import_clients(gates.here, mine, [], actor=ACTOR).changes.steps == []


def test_taken_over_clients_are_not_handed_on(gates: Gates, tmp_path: Path) -> None:
    _add(gates.there)
    _add(gates.here, "own")
    gates.pass_on()
    made = export_clients(gates.here, gates.own_owner, tmp_path / "on", [gates.to], actor=ACTOR)
    assert (made.clients, made.keys) == (1, 1)


@pytest.mark.slow
def test_a_name_that_is_taken_holds_up_nobody_else(gates: Gates) -> None:
    mine, theirs, other = _add(gates.here), _add(gates.there), _add(gates.there, "other")
    done = gates.pass_on()
    assert done.changes.passed_over == ["acme/acme: another client is registered by that name here"]
    assert _lets_in(gates.here, theirs) is None
    assert (_lets_in(gates.here, mine), _lets_in(gates.here, other)) == ("acme", "other")
    (record,) = [record for record in _records(gates.here) if record.kind == "clients.imported"]
    assert record.details["passed_over"] == 1


def test_a_client_whose_id_is_an_end_users_here_is_passed_over(gates: Gates) -> None:
    add_client(gates.here, "shop", "shop", models=[], reseller=True, environment="live", expires=None, actor=ACTOR)
    _add(gates.there)
    with gates.there.open_registry() as registry, registry.read() as records:
        theirs = records.clients.named("acme", "acme").id
    with gates.here.open_registry() as registry, registry.write() as records:
        shop = records.clients.named("shop", "shop")
        user = Client(theirs, "shop", f"shop~{theirs}", (), "trusted", NOW, None, parent=shop.id)
        records.end_users.enrol([user], most=9)
    done = gates.pass_on()
    assert done.changes.passed_over == ["acme/acme: not that gate registered it, but this one or a third"]
    with gates.here.open_registry() as registry, registry.read() as records:
        assert records.clients.get(theirs).parent == shop.id


def test_only_the_recipient_opens_it(gates: Gates) -> None:
    stranger = FileIdentity.generate()
    gates.export(to=stranger.recipient)
    with pytest.raises(KeysError):
        import_clients(gates.here, gates.file, [], actor=ACTOR)
    assert import_clients(gates.here, gates.file, [stranger], actor=ACTOR).receipt is not None


def test_the_hosts_own_key_opens_it(gates: Gates) -> None:
    identity = read_identity(gates.here.paths.host_identity)
    assert isinstance(identity, FileIdentity)
    gates.export(to=identity.recipient)
    assert import_clients(gates.here, gates.file, [], actor=ACTOR).receipt is not None


def test_a_sealed_file_that_is_no_list_of_clients_is_refused(gates: Gates, tmp_path: Path) -> None:
    def sealed(owner: Root, name: str, content: bytes, kind: str = "clients") -> Path:
        signer, path = owner.signer("publisher"), tmp_path / name
        header = new_header(
            kind=kind,  # type: ignore[arg-type]
            purpose="clients",
            publisher=publisher_id(signer.public_key),
            created=NOW,
        )
        seal_files([("clients.json", content)], header, [gates.to], signer, path)
        return path

    for name, content, kind, message in (
        ("another", b"{}", "opaque", "clients of a gate were expected"),
        ("nothing", b"{}", "clients", "that this version knows"),
        ("floats", b'{"v":1.0}', "clients", "canonical"),
    ):
        with pytest.raises(FormatError, match=message):
            import_clients(gates.here, sealed(gates.owner, name, content, kind), [], actor=ACTOR)


def test_one_changed_byte_is_found(gates: Gates) -> None:
    _add(gates.there)
    gates.export()
    data = bytearray(gates.file.read_bytes())
    data[len(data) // 2] ^= 1
    gates.file.write_bytes(data)
    with pytest.raises(PalladionError):
        import_clients(gates.here, gates.file, [], actor=ACTOR)


def test_an_earlier_file_stays_unless_it_is_to_be_replaced(gates: Gates) -> None:
    gates.file.write_text("mine")
    with pytest.raises(StorageError, match="exists already"):
        export_clients(gates.there, gates.owner, gates.file, [gates.to], actor=ACTOR)
    assert gates.file.read_text() == "mine"


def test_without_its_record_nobody_is_let_in(gates: Gates, monkeypatch: pytest.MonkeyPatch) -> None:
    key = _add(gates.there)
    gates.export()

    def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(JournalWriter, "append", fail)
        with pytest.raises(StorageError, match="the disk is full"):
            import_clients(gates.here, gates.file, [], actor=ACTOR)
        with pytest.raises(StorageError, match="the disk is full"):
            export_clients(gates.there, gates.owner, gates.file.with_name("other"), [gates.to], actor=ACTOR)
    assert _lets_in(gates.here, key) is None
    assert not gates.file.with_name("other").exists()
    with gates.here.open_registry() as registry, registry.read() as records:
        assert records.clients.all() == []
        assert records.client_copies.sources() == []


def test_a_gate_that_serves_is_told(gates: Gates) -> None:
    _add(gates.there)
    gates.export()
    with served(gates.here) as running:
        import_clients(gates.here, gates.file, [], actor=ACTOR, dry_run=True)
        assert not running.reloaded.is_set()
        import_clients(gates.here, gates.file, [], actor=ACTOR)
        assert running.reloaded.is_set()


@pytest.mark.slow
def test_more_changes_than_one_batch_are_all_on_record(gates: Gates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_copy, "BATCH_MAX", 2)
    monkeypatch.setattr(client_copy, "BATCHES_BETWEEN_CHECKPOINTS", 1)
    for name in ("a", "b", "c"):
        _add(gates.there, name)
    before = len(_records(gates.here))
    gates.pass_on()
    assert len(_records(gates.here)) == before + 1 + 6
