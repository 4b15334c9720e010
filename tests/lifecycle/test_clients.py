"""Clients: registered, keyed, revoked and put into standings, each on record under a pseudonym before it counts."""

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from palladion.access.identity import ApiKey, hash_api_key, key_prefix
from palladion.access.pseudonyms import pseudonym
from palladion.clock import ManualClock, timestamp
from palladion.errors import ConflictError, KeysError, NotFoundError, PalladionError, StorageError
from palladion.ledger.journal import JournalWriter
from palladion.ledger.record import Record, decode_record, encode_record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.clients import (
    add_client,
    add_key,
    revoke_client,
    revoke_key,
    rotate_key,
    route_scope,
    scope,
    set_standing,
    standing_record,
)
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.protect import protect
from palladion.policy import RoutePolicy
from palladion.registry import Client, ClientKey, StandingChange
from tests.models import onnx_bytes, write

from .installations import ACTOR, NOW, make


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an installation with one model."""
    folder = tmp_path_factory.mktemp("clients")
    made = make(folder)
    protect(made.installation, made.owner, write(folder / "1.onnx", onnx_bytes(1)), "fraud", actor=ACTOR)
    return made.home


@pytest.fixture
def installation(template: Path, tmp_path: Path) -> Installation:
    """A copy of that installation: making one takes a second."""
    home = shutil.copytree(template, tmp_path / "home")
    return Installation.find(home, ManualClock(NOW), exact=True)


def _add(
    installation: Installation, name: str = "acme", *, organisation: str = "acme", models: tuple[str, ...] = ()
) -> Client:
    client, _, _ = add_client(
        installation, organisation, name, models=models, environment="live", expires=None, actor=ACTOR
    )
    return client


def _key(installation: Installation, organisation: str, name: str, expires: datetime | None = None) -> ApiKey:
    return add_key(installation, organisation, name, environment="live", expires=expires, actor=ACTOR)[1]


def _last(installation: Installation, count: int) -> list[Record]:
    entries = list(installation.read_ledger().entries())[-count:]
    return [decode_record(data, what="it") for _, data in entries]


def _name(installation: Installation, client: Client) -> str:
    return pseudonym(installation.open_gate_root().derive("pseudonyms"), client.id)


@pytest.mark.slow
def test_a_client_is_registered_with_a_key_that_lets_it_in(installation: Installation) -> None:
    client, key, receipt = add_client(
        installation, "acme", "scoring", models=["fraud"], environment="test", expires=None, actor=ACTOR
    )
    assert (client.organisation, client.name, client.scopes) == ("acme", "scoring", ("predict:fraud",))
    hashed = hash_api_key(installation.open_gate_root().derive("client-key-pepper"), key)
    with installation.open_registry() as registry, registry.read() as records:
        assert records.clients.authenticate(hashed) == client
    first, second = _last(installation, 2)
    assert (first.kind, first.actor, first.subject, first.details) == (
        *("client.added", ACTOR, _name(installation, client)),
        {"scopes": ["predict:fraud"]},
    )
    assert (second.kind, second.subject, second.details) == (
        *("client.key-added", first.subject),
        {"prefix": key_prefix(key)},
    )
    assert receipt.index == len(list(installation.read_ledger().entries())) - 2


def test_the_ledger_knows_neither_the_name_nor_the_key(installation: Installation) -> None:
    client, key, _ = add_client(
        installation, "umbrella", "racoon", models=[], environment="live", expires=None, actor=ACTOR
    )
    set_standing(installation, "umbrella", "racoon", "watched", reason="a look", actor=ACTOR)
    written = b"".join(data for _, data in installation.read_ledger().entries())
    secret = key.text.removeprefix(key_prefix(key)).encode()
    assert [word for word in (b"umbrella", b"racoon", client.id.encode(), secret) if word in written] == []


@pytest.mark.slow
def test_a_key_expires_when_it_was_said_to(installation: Installation) -> None:
    client = _add(installation)
    row, _, _ = add_key(installation, "acme", "acme", environment="live", expires=NOW + timedelta(days=1), actor=ACTOR)
    assert (row.client, row.expires) == (client.id, NOW + timedelta(days=1))


def test_a_further_key_lives_beside_the_first(installation: Installation) -> None:
    client, first, _ = add_client(
        installation, "acme", "acme", models=[], environment="live", expires=None, actor=ACTOR
    )
    row, second, receipt = add_key(installation, "acme", "acme", environment="live", expires=None, actor=ACTOR)
    pepper = installation.open_gate_root().derive("client-key-pepper")
    with installation.open_registry() as registry, registry.read() as records:
        assert {records.clients.authenticate(hash_api_key(pepper, key)).id for key in (first, second)} == {client.id}
    (record,) = _last(installation, 1)
    assert (record.kind, record.details, row.prefix) == (
        *("client.key-added", {"prefix": key_prefix(second)}),
        key_prefix(second),
    )
    assert receipt.index == len(list(installation.read_ledger().entries())) - 1


def test_a_revoked_key_lets_nobody_in(installation: Installation) -> None:
    client, key, _ = add_client(installation, "acme", "acme", models=[], environment="live", expires=None, actor=ACTOR)
    row, _ = revoke_key(installation, key_prefix(key), actor="user:ada")
    assert (row.client, row.revoked_at) == (client.id, NOW)
    hashed = hash_api_key(installation.open_gate_root().derive("client-key-pepper"), key)
    with installation.open_registry() as registry, registry.read() as records, pytest.raises(KeysError):
        records.clients.authenticate(hashed)
    (record,) = _last(installation, 1)
    assert (record.kind, record.actor, record.subject, record.details, record.time) == (
        *("client.key-revoked", "user:ada", _name(installation, client)),
        {"prefix": key_prefix(key)},
        NOW,
    )


def _rotate(
    installation: Installation, overlap: timedelta, *, prefix: str | None = None, actor: str = ACTOR
) -> tuple[ApiKey, list[ClientKey], Receipt]:
    return rotate_key(
        *(installation, "acme", "acme"),
        overlap=overlap,
        environment="live",
        expires=None,
        actor=actor,
        prefix=prefix,
    )


def test_a_rotated_key_goes_on_for_the_overlap(installation: Installation) -> None:
    _, first, _ = add_client(installation, "acme", "acme", models=[], environment="live", expires=None, actor=ACTOR)
    made, ending, receipt = _rotate(installation, timedelta(days=7), actor="user:ada")
    end = NOW + timedelta(days=7)
    assert [(row.prefix, row.expires) for row in ending] == [(key_prefix(first), end)]
    pepper = installation.open_gate_root().derive("client-key-pepper")
    with installation.open_registry() as registry, registry.read() as records:
        assert len({records.clients.authenticate(hash_api_key(pepper, key)).id for key in (first, made)}) == 1
    added, ended = _last(installation, 2)
    assert (added.kind, added.details, added.actor) == ("client.key-added", {"prefix": key_prefix(made)}, "user:ada")
    assert (ended.kind, ended.subject) == ("client.key-ending", added.subject)
    assert ended.details == {"prefix": key_prefix(first), "expires": timestamp(end)}
    assert receipt.index == len(list(installation.read_ledger().entries())) - 2


def test_rotating_makes_no_key_live_longer(installation: Installation) -> None:
    _add(installation)
    soon = NOW + timedelta(days=1)
    row, _, _ = add_key(installation, "acme", "acme", environment="live", expires=soon, actor=ACTOR)
    _, ending, _ = _rotate(installation, timedelta(days=7))
    assert {item.prefix: item.expires for item in ending}[row.prefix] == soon


def test_one_key_alone_can_be_rotated(installation: Installation) -> None:
    _add(installation)
    row, _, _ = add_key(installation, "acme", "acme", environment="live", expires=None, actor=ACTOR)
    _, ending, _ = _rotate(installation, timedelta(0), prefix=row.prefix)
    assert [(item.prefix, item.expires) for item in ending] == [(row.prefix, NOW)]


def test_a_key_that_is_dead_or_of_somebody_else_is_not_rotated(installation: Installation) -> None:
    _add(installation)
    row, _, _ = add_key(installation, "acme", "acme", environment="live", expires=None, actor=ACTOR)
    revoke_key(installation, row.prefix, actor=ACTOR)
    before = len(list(installation.read_ledger().entries()))
    with pytest.raises(ConflictError, match="no live key"):
        _rotate(installation, timedelta(0), prefix=row.prefix)
    assert len(list(installation.read_ledger().entries())) == before


def test_a_client_can_be_let_in_on_a_route(installation: Installation) -> None:
    policy = msgspec.structs.replace(installation.policy, route=(RoutePolicy(model="fraud", path="/v1/score"),))
    mine = Installation(installation.paths, policy, installation.clock)
    client, _, _ = add_client(
        mine, "acme", "acme", models=[], routes=["/v1/score"], environment="live", expires=None, actor=ACTOR
    )
    assert client.scopes == ("route:/v1/score",) == (route_scope("/v1/score"),)
    with pytest.raises(NotFoundError, match="no route '/v1/other'"):
        add_client(mine, "b", "b", models=[], routes=["/v1/other"], environment="live", expires=None, actor=ACTOR)


def test_a_revoked_client_is_on_record(installation: Installation) -> None:
    client = _add(installation)
    revoked, _ = revoke_client(installation, "acme", "acme", actor=ACTOR)
    assert (revoked.id, revoked.revoked_at) == (client.id, NOW)
    (record,) = _last(installation, 1)
    assert (record.kind, record.subject, record.details) == ("client.revoked", _name(installation, client), {})


def test_a_standing_is_on_record_with_what_it_was_and_why(installation: Installation) -> None:
    client = _add(installation)
    change, _ = set_standing(installation, "acme", "acme", "suspended", reason="a leaked key", actor=ACTOR)
    assert change == StandingChange(client.id, "suspended", "a leaked key", ACTOR, NOW)
    (record,) = _last(installation, 1)
    assert (record.kind, record.subject, record.details) == (
        *("standing.changed", _name(installation, client)),
        {"from": "trusted", "to": "suspended", "reason": "a leaked key"},
    )


def test_what_a_route_brought_names_the_route() -> None:
    change = StandingChange("0123", "throttled", "they are odd", "watch", NOW)
    record = standing_record(change, before="watched", subject="client:ab", route="/predict")
    assert record.details == {"from": "watched", "to": "throttled", "reason": "they are odd", "route": "/predict"}
    encode_record(record)


def test_a_scope_names_what_may_be_asked() -> None:
    assert scope("fraud") == "predict:fraud"


WRONG: list[tuple[str, Callable[[Installation], object], type[PalladionError]]] = [
    ("a name that is taken", _add, ConflictError),
    ("a model that does not exist", lambda m: _add(m, "new", models=("frayd",)), NotFoundError),
    ("a name that is none", lambda m: _add(m, "A B"), PalladionError),
    ("a key for nobody", lambda m: _key(m, "acme", "nobody"), NotFoundError),
    ("a key in another organisation", lambda m: _key(m, "other", "acme"), NotFoundError),
    ("a key that does not exist", lambda m: revoke_key(m, "pall_live_x", actor=ACTOR), NotFoundError),
    ("nobody revoked", lambda m: revoke_client(m, "acme", "nobody", actor=ACTOR), NotFoundError),
    (
        "the same standing",
        lambda m: set_standing(m, "acme", "acme", "trusted", reason="x", actor=ACTOR),
        ConflictError,
    ),
    (
        "a reason that is too long",
        lambda m: set_standing(m, "acme", "acme", "watched", reason="x" * 5000, actor=ACTOR),
        PalladionError,
    ),
    (
        "a key that is dead already",
        lambda m: _key(m, "acme", "acme", NOW),
        ConflictError,
    ),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("action", "error"), [item[1:] for item in WRONG], ids=[item[0] for item in WRONG])
def test_what_is_refused_leaves_no_record(
    installation: Installation, action: Callable[[Installation], object], error: type[PalladionError]
) -> None:
    _add(installation)
    before = len(list(installation.read_ledger().entries()))
    with pytest.raises(error):
        action(installation)
    assert len(list(installation.read_ledger().entries())) == before


def test_what_is_done_twice_is_refused(installation: Installation) -> None:
    _, key, _ = add_client(installation, "acme", "acme", models=[], environment="live", expires=None, actor=ACTOR)
    revoke_key(installation, key_prefix(key), actor=ACTOR)
    with pytest.raises(ConflictError):
        revoke_key(installation, key_prefix(key), actor=ACTOR)
    revoke_client(installation, "acme", "acme", actor=ACTOR)
    with pytest.raises(ConflictError):
        revoke_client(installation, "acme", "acme", actor=ACTOR)
    with pytest.raises(ConflictError, match="is revoked and gets no key"):
        _key(installation, "acme", "acme")


def test_an_environment_that_cannot_be_in_a_key_is_the_callers_mistake(installation: Installation) -> None:
    with pytest.raises(ValueError, match="environment"):
        add_client(installation, "a", "a", models=[], environment="Live!", expires=None, actor=ACTOR)


CHANGES: list[Callable[[Installation], object]] = [
    lambda m: _add(m, "new"),
    lambda m: _key(m, "acme", "acme"),
    lambda m: revoke_client(m, "acme", "acme", actor=ACTOR),
    lambda m: set_standing(m, "acme", "acme", "suspended", reason="x", actor=ACTOR),
]


@pytest.mark.slow
@pytest.mark.parametrize("action", CHANGES, ids=["add", "key", "revoke", "standing"])
def test_without_its_record_nothing_changes(
    installation: Installation, action: Callable[[Installation], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(installation)

    def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(JournalWriter, "append", fail)
        with pytest.raises(StorageError, match="the disk is full"):
            action(installation)
    with installation.open_registry() as registry, registry.read() as records:
        (client,) = records.clients.all()
        assert (client.standing, client.revoked_at, len(records.clients.keys(client.id))) == ("trusted", None, 1)


def test_a_client_can_be_let_in_to_a_model_that_only_a_route_names(installation: Installation) -> None:
    there = RoutePolicy(model="there", protocol="open-inference", upstream="http://127.0.0.1:8000")
    policy = msgspec.structs.replace(installation.policy, route=(there, RoutePolicy(model="here")))
    mine = Installation(installation.paths, policy, installation.clock)
    assert _add(mine, models=("there", "fraud")).scopes == (scope("there"), scope("fraud"))
    with pytest.raises(NotFoundError):
        _add(mine, "new", models=("here",))
