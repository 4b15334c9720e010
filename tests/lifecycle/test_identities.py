"""Identities of clients: recorded before they count, and the ledger names nobody."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from palladion.access.pseudonyms import identity_pseudonym, pseudonym
from palladion.errors import ConflictError, NotFoundError, PalladionError
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.clients import add_client
from palladion.lifecycle.identities import add_identity, revoke_identity
from palladion.lifecycle.installation import Installation
from palladion.policy import IssuerPolicy

from .installations import ACTOR, NOW, make

ID, ISSUER = "spiffe://example.org/scoring", "https://login.example.com"


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = make(tmp_path).installation
    add_client(made, "acme", "acme", models=[], environment="live", expires=None, actor=ACTOR)
    return made


def _with_issuers(installation: Installation, *urls: str) -> Installation:
    issuers = tuple(IssuerPolicy(url=url, audience="gate") for url in urls)
    policy = msgspec.structs.replace(installation.policy, issuer=issuers)
    return Installation(installation.paths, policy, installation.clock)


def _last(installation: Installation) -> Record:
    return [decode_record(data, what="it") for _, data in installation.read_ledger().entries()][-1]


@pytest.mark.slow
def test_an_identity_is_on_record_by_pseudonyms(installation: Installation) -> None:
    row, receipt = add_identity(installation, "acme", "acme", "spiffe", ID, actor="user:ada")
    key = installation.open_gate_root().derive("pseudonyms")
    record = _last(installation)
    assert record == Record(
        *("client.identity-added", NOW, "user:ada", pseudonym(key, row.client)),
        {"kind": "spiffe", "identity": identity_pseudonym(key, "spiffe", ID)},
    )
    assert "example.org" not in repr(record)
    assert receipt.index == len(list(installation.read_ledger().entries())) - 1


@pytest.mark.slow
def test_a_revoked_identity_is_on_record_too(installation: Installation) -> None:
    added, _ = add_identity(installation, "acme", "acme", "spiffe", ID, actor=ACTOR)
    before = _last(installation)
    revoked, _ = revoke_identity(installation, "spiffe", ID, actor="user:bob")
    record = _last(installation)
    assert (revoked.id, revoked.revoked_at) == (added.id, NOW)
    assert (record.kind, record.actor) == ("client.identity-revoked", "user:bob")
    assert (record.subject, record.details) == (before.subject, before.details)


@pytest.mark.slow
def test_a_fingerprint_is_kept_in_one_spelling(installation: Installation) -> None:
    row, _ = add_identity(installation, "acme", "acme", "certificate", ":".join(["AB"] * 32), actor=ACTOR)
    assert row.value == "ab" * 32
    revoke_identity(installation, "certificate", "ab" * 32, actor=ACTOR)


@pytest.mark.slow
def test_a_token_names_a_client_of_an_issuer(installation: Installation) -> None:
    one = _with_issuers(installation, ISSUER)
    assert add_identity(one, "acme", "acme", "jwt", "svc", actor=ACTOR)[0].value == f"{ISSUER} svc"
    two = _with_issuers(installation, ISSUER, "https://other.example")
    row, _ = add_identity(two, "acme", "acme", "jwt", "svc", issuer="https://other.example", actor=ACTOR)
    assert row.value == "https://other.example svc"


@pytest.mark.slow
def test_an_issuer_that_is_gone_from_the_policy_can_still_be_cut_off(installation: Installation) -> None:
    add_identity(_with_issuers(installation, ISSUER), "acme", "acme", "jwt", "svc", actor=ACTOR)
    assert revoke_identity(installation, "jwt", "svc", issuer=ISSUER, actor=ACTOR)[0].revoked_at == NOW


WRONG: list[tuple[str, Callable[[Installation], object], type[PalladionError], str]] = [
    (
        "an unknown client",
        lambda i: add_identity(i, "nobody", "nobody", "spiffe", ID, actor=ACTOR),
        *(NotFoundError, "no client"),
    ),
    (
        "no SPIFFE id",
        lambda i: add_identity(i, "acme", "acme", "spiffe", "spiffe://x", actor=ACTOR),
        *(PalladionError, "without a path"),
    ),
    (
        "no fingerprint",
        lambda i: add_identity(i, "acme", "acme", "certificate", "x", actor=ACTOR),
        *(PalladionError, "64 hexadecimal digits"),
    ),
    (
        "no issuer",
        lambda i: add_identity(i, "acme", "acme", "jwt", "svc", actor=ACTOR),
        *(PalladionError, r"no \[\[issuer\]\]"),
    ),
    (
        "one of several issuers",
        lambda i: add_identity(_with_issuers(i, ISSUER, "https://b"), "acme", "acme", "jwt", "svc", actor=ACTOR),
        *(PalladionError, "several issuers"),
    ),
    (
        "an unknown issuer",
        lambda i: add_identity(_with_issuers(i, ISSUER), "acme", "acme", "jwt", "svc", issuer="https://b", actor=ACTOR),
        *(NotFoundError, "names no issuer https://b"),
    ),
    (
        "an issuer with a blank",
        lambda i: revoke_identity(i, "jwt", "svc", issuer="https://b c", actor=ACTOR),
        *(PalladionError, "without blanks"),
    ),
    (
        "a long name",
        lambda i: add_identity(_with_issuers(i, ISSUER), "acme", "acme", "jwt", "s" * 256, actor=ACTOR),
        *(PalladionError, "printable characters"),
    ),
    (
        "an issuer of a certificate",
        lambda i: add_identity(i, "acme", "acme", "spiffe", ID, issuer=ISSUER, actor=ACTOR),
        *(ConflictError, "goes with a token"),
    ),
    (
        "what nobody has",
        lambda i: revoke_identity(i, "spiffe", ID, actor=ACTOR),
        *(NotFoundError, "no client has"),
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("act", "error", "why"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_mistake_changes_nothing(
    installation: Installation, act: Callable[[Installation], object], error: type[PalladionError], why: str
) -> None:
    before = len(list(installation.read_ledger().entries()))
    with pytest.raises(error, match=why):
        act(installation)
    assert len(list(installation.read_ledger().entries())) == before
    with installation.open_registry() as registry, registry.read() as records:
        assert records.identities.live() == []
