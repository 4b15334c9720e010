"""Forgetting a client: its queries, salts, states and identities are gone, its name and the ledger stay."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.clock import ManualClock
from palladion.errors import ConflictError, NotFoundError, StorageError
from palladion.ledger.bodies import FOLDER, BodyWriter, retained_versions
from palladion.ledger.body import Body
from palladion.ledger.journal import JournalWriter
from palladion.ledger.record import decode_record
from palladion.ledger.salts import FOLDER as SALTS
from palladion.ledger.salts import make_seed, read_seed
from palladion.lifecycle.client_forget import Forgotten, forget_client
from palladion.lifecycle.clients import add_client, revoke_client
from palladion.lifecycle.identities import add_identity
from palladion.lifecycle.installation import Installation

from .installations import ACTOR, NOW, make, served


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation with two clients, of which queries, states and identities are kept."""
    installation = make(tmp_path_factory.mktemp("forget")).installation
    gate = installation.open_gate_root()
    writer = BodyWriter(installation.paths.directory / FOLDER, gate.derive("body-cipher"), queries_max=10)
    for name in ("acme", "globex"):
        client, _, _ = add_client(installation, name, name, models=[], environment="live", expires=None, actor=ACTOR)
        add_identity(installation, name, name, "spiffe", f"spiffe://example.org/{name}", actor=ACTOR)
        with installation.open_registry() as registry, registry.write() as records:
            records.gate_states.save("limits", {client.id: b"spent"})
            records.gate_states.save("suspicion", {client.id: b"odd"})
        subject = pseudonym(gate.derive("pseudonyms"), client.id)
        writer.append(subject, "fraud@1", [_body()])
        make_seed(installation.paths.directory / SALTS, gate.derive("ledger-salts"), subject)
    writer.close()
    return installation.paths.home


@pytest.fixture
def installation(template: Path, tmp_path: Path) -> Installation:
    """A copy of it."""
    return Installation.find(shutil.copytree(template, tmp_path / "home"), ManualClock(NOW), exact=True)


def _body() -> Body:
    return Body("0" * 16, 0, {"x": np.zeros(2, np.float32)}, np.ones(3), b"\1" * 16, 0.1, "label")


def _forget(installation: Installation) -> Forgotten:
    return forget_client(installation, "acme", "acme", actor="user:ada")


def _kept(installation: Installation, name: str) -> tuple[list[str], int, list[str]]:
    """Of a client: the versions of which queries are kept, how many states, and the identities."""
    key = installation.open_gate_root().derive("pseudonyms")
    with installation.open_registry() as registry, registry.read() as records:
        client = records.clients.named(name, name).id
        states = sum(client in records.gate_states.load(purpose) for purpose in ("limits", "suspicion"))
        identities = [row.value for row in records.identities.of(client)]
    return retained_versions(installation.paths.directory / FOLDER, pseudonym(key, client)), states, identities


def _has_salts(installation: Installation, name: str) -> bool:
    gate = installation.open_gate_root()
    with installation.open_registry() as registry, registry.read() as records:
        subject = pseudonym(gate.derive("pseudonyms"), records.clients.named(name, name).id)
    return read_seed(installation.paths.directory / SALTS, gate.derive("ledger-salts"), subject) is not None


EVERYTHING = ["fraud@1"], 2


@pytest.mark.slow
def test_what_is_kept_of_a_revoked_client_is_erased_and_of_nobody_else(installation: Installation) -> None:
    assert _kept(installation, "acme")[:2] == EVERYTHING
    revoke_client(installation, "acme", "acme", actor=ACTOR)
    done = _forget(installation)
    assert (done.versions, done.states, done.identities) == (("fraud@1",), 2, 1)
    assert _kept(installation, "acme") == ([], 0, [])
    assert _kept(installation, "globex") == (*EVERYTHING, ["spiffe://example.org/globex"])
    assert (done.salts, _has_salts(installation, "acme"), _has_salts(installation, "globex")) == (True, False, True)


def test_it_is_on_record_under_the_pseudonym(installation: Installation) -> None:
    revoke_client(installation, "acme", "acme", actor=ACTOR)
    done = _forget(installation)
    record = decode_record(list(installation.read_ledger().entries())[-1][1], what="it")
    assert (record.kind, record.actor) == ("client.forgotten", "user:ada")
    assert record.details == {"bodies": ["fraud@1"], "states": 2, "identities": 1, "salts": True}
    key = installation.open_gate_root().derive("pseudonyms")
    assert record.subject == pseudonym(key, done.client.id)


def test_a_client_that_is_let_in_is_not_forgotten(installation: Installation) -> None:
    with pytest.raises(ConflictError, match="is let in") as caught:
        _forget(installation)
    assert caught.value.hints == ("palladion client revoke acme --organisation acme",)
    with pytest.raises(NotFoundError):
        forget_client(installation, "acme", "nobody", actor=ACTOR)
    assert _kept(installation, "acme")[:2] == EVERYTHING


def test_without_its_record_nothing_is_erased(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    revoke_client(installation, "acme", "acme", actor=ACTOR)

    def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(JournalWriter, "append", fail)
        with pytest.raises(StorageError, match="the disk is full"):
            _forget(installation)
    assert _kept(installation, "acme")[:2] == EVERYTHING
    assert _has_salts(installation, "acme")


def test_it_can_be_run_again_and_while_a_gate_serves(installation: Installation) -> None:
    revoke_client(installation, "acme", "acme", actor=ACTOR)
    with served(installation) as running:
        running.reloaded.clear()
        assert _forget(installation).versions == ("fraud@1",)
        assert running.reloaded.is_set()
        again = _forget(installation)
        assert (again.versions, again.salts, _kept(installation, "acme")) == ((), False, ([], 0, []))


@pytest.mark.slow
def test_with_its_name_gone_no_key_and_no_file_gives_the_pseudonym_back(installation: Installation) -> None:
    with installation.open_registry() as registry, registry.read() as records:
        client = records.clients.named("acme", "acme")
        (key_row,) = records.clients.keys(client.id)
    revoke_client(installation, "acme", "acme", actor=ACTOR)

    done = forget_client(installation, "acme", "acme", actor="user:ada", name_too=True)

    key = installation.open_gate_root().derive("pseudonyms")
    last = decode_record(list(installation.read_ledger().entries())[-1][1], what="it")
    assert (last.subject, last.details) == (pseudonym(key, client.id), {"name": "erased"})
    with installation.open_registry() as registry, registry.read() as records:
        names = {pseudonym(key, row.id): (row.organisation, row.name) for row in records.clients.all()}
        assert names[last.subject][0] == "erased"
        assert done.erased_as == "/".join(names[last.subject])
        assert records.clients.keys(client.id) == []
    folder = installation.paths.directory
    left = [path for path in folder.rglob("*") if path.is_file() and b"acme" in path.read_bytes()]
    assert left == []
    # the prefix was recorded when the key was given, and is found by whoever still has the key
    registry_bytes = b"".join(path.read_bytes() for path in folder.glob("registry.sqlite*"))
    assert key_row.prefix.encode() not in registry_bytes
    with pytest.raises(NotFoundError):
        forget_client(installation, "acme", "acme", actor=ACTOR)


def test_the_name_stays_where_an_incident_is_about_it(installation: Installation) -> None:
    with installation.open_registry() as registry, registry.write() as records:
        client = records.clients.named("acme", "acme")
        records.incidents.open("suspended: acme/acme", actor=ACTOR, clients=[client.id])
    revoke_client(installation, "acme", "acme", actor=ACTOR)
    with pytest.raises(ConflictError, match="is about acme/acme, and what a case says is never changed"):
        forget_client(installation, "acme", "acme", actor=ACTOR, name_too=True)
    assert _kept(installation, "acme")[:2] == EVERYTHING


def test_the_name_of_a_client_that_is_let_in_stays(installation: Installation) -> None:
    with (
        installation.open_registry() as registry,
        pytest.raises(ConflictError, match="is let in, and needs its name"),
        registry.write() as records,
    ):
        records.clients.erase_name(records.clients.named("acme", "acme").id)
