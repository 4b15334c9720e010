"""Operators of an installation: who may look after it, each change recorded, nobody above himself."""

from pathlib import Path

import pytest

from palladion.errors import ConflictError, PalladionError
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.operators import (
    add_operator,
    change_role,
    check_identity,
    oidc_identity,
    revoke_operator,
    user_identity,
)

from .installations import ACTOR, make, served

ADA = oidc_identity("https://login.example.com", "00u1")


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return make(tmp_path).installation


def _records(installation: Installation) -> list[Record]:
    decoded = [decode_record(data, what="it") for _, data in installation.read_ledger().entries()]
    return [record for record in decoded if record.kind.startswith("operator.")]


@pytest.mark.slow
def test_every_change_of_operators_is_recorded(installation: Installation) -> None:
    add_operator(installation, "ada", role="admin", identity=ADA, actor=ACTOR)
    add_operator(installation, "bob", role="viewer", identity="user:bob", actor=ACTOR)
    change_role(installation, "bob", "approver", actor=ACTOR)
    operator, receipt = revoke_operator(installation, "bob", actor=ACTOR)
    assert operator.revoked_at is not None
    told = [(record.kind, record.actor, record.subject, record.details) for record in _records(installation)]
    assert told == [
        ("operator.added", ACTOR, "ada", {"role": "admin", "identity": ADA}),
        ("operator.added", ACTOR, "bob", {"role": "viewer", "identity": "user:bob"}),
        ("operator.changed", ACTOR, "bob", {"from": "viewer", "to": "approver", "identity": "user:bob"}),
        ("operator.revoked", ACTOR, "bob", {"role": "approver", "identity": "user:bob"}),
    ]
    assert receipt.index == installation.read_ledger().size - 1


def test_while_a_process_serves_it_records_them(installation: Installation) -> None:
    with served(installation):
        add_operator(installation, "ada", role="admin", identity=ADA, actor=ACTOR)
    assert [record.kind for record in _records(installation)] == ["operator.added"]


def test_the_first_admin_may_appoint_himself_and_nobody_after_him(installation: Installation) -> None:
    add_operator(installation, "me", role="admin", identity=ACTOR, actor=ACTOR)
    with pytest.raises(ConflictError, match="cannot appoint himself"):
        add_operator(installation, "ada", role="admin", identity=ADA, actor=ADA)


def test_nobody_changes_his_own_role(installation: Installation) -> None:
    add_operator(installation, "me", role="admin", identity=ACTOR, actor=ACTOR)
    add_operator(installation, "ada", role="admin", identity=ADA, actor=ACTOR)
    with pytest.raises(ConflictError, match="nobody changes his own role"):
        change_role(installation, "me", "viewer", actor=ACTOR)
    with pytest.raises(ConflictError, match="nobody changes his own role"):
        revoke_operator(installation, "me", actor=ACTOR)


def test_the_last_admin_stays_and_nothing_is_recorded_of_trying(installation: Installation) -> None:
    add_operator(installation, "ada", role="admin", identity=ADA, actor=ACTOR)
    with pytest.raises(ConflictError, match="the only admin"):
        revoke_operator(installation, "ada", actor=ACTOR)
    assert [record.kind for record in _records(installation)] == ["operator.added"]


@pytest.mark.parametrize("identity", [ADA, user_identity("ada"), "oidc:http://127.0.0.1:8080#1#2"])
def test_an_identity_is_somebody_at_a_provider_or_a_user(identity: str) -> None:
    assert check_identity(identity) == identity


@pytest.mark.parametrize(
    "identity",
    [
        *("", "ada", "user:", "oidc:", "oidc:https://a", "oidc:https://a#", "oidc:ftp://a#1", "root:ada"),
        *("user:a b", "user:a\x1b", f"user:{'a' * 200}"),
    ],
)
def test_what_is_none_is_refused(identity: str) -> None:
    with pytest.raises(PalladionError, match="was not expected"):
        check_identity(identity)
