"""What another gate's clients change here: revocations first, nothing widened, nobody else's touched."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from palladion.clock import timestamp
from palladion.lifecycle.client_bundle import Bundle, ClientThere, IdentityThere, KeyThere, new_bundle
from palladion.lifecycle.client_merge import STANDINGS, Here, Merge, merge
from palladion.registry import Client, ClientIdentity, ClientKey
from palladion.registry.identities import LIVE_MAX
from palladion.registry.rows import Standing
from palladion.watch.response import STANDINGS as OF_THE_WATCH

from .installations import NOW

THERE, HERE, THIRD = "a" * 16, "b" * 16, "c" * 16
ID, OTHER = "1" * 16, "2" * 16
LATER = NOW + timedelta(hours=1)
NAME = "spiffe://example.org/scoring"
HASH = b"\5" * 32


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else timestamp(moment)


def _identity(*, created: datetime = NOW, revoked: datetime | None = None) -> IdentityThere:
    return IdentityThere("spiffe", NAME, timestamp(created), _text(revoked))


def _key(
    prefix: str = "pall_live_1", *, digest: bytes = HASH, expires: datetime | None = None, revoked: bool = False
) -> KeyThere:
    return KeyThere(prefix, digest.hex(), timestamp(NOW), _text(expires), timestamp(LATER) if revoked else None)


def _client(
    client: str = ID,
    name: str = "web",
    *,
    keys: tuple[KeyThere, ...] = (),
    identities: tuple[IdentityThere, ...] = (),
    standing: Standing = "trusted",
    scopes: tuple[str, ...] = (),
    revoked: datetime | None = None,
) -> ClientThere:
    return ClientThere(
        client, "acme", name, scopes, standing, "why not", timestamp(NOW), _text(revoked), keys, identities
    )


def _bundle(*clients: ClientThere) -> Bundle:
    return new_bundle(THERE, b"\6" * 32, NOW, clients)


def _here(
    *rows: Client,
    origins: Mapping[str, str] | None = None,
    keys: tuple[ClientKey, ...] = (),
    identities: tuple[ClientIdentity, ...] = (),
    digest: bytes = HASH,
) -> Here:
    known = {row.id: row for row in rows}
    return Here(
        HERE,
        known,
        dict.fromkeys(known, THERE) if origins is None else origins,
        {key.prefix: key for key in keys},
        {key.prefix: digest for key in keys},
        identities,
    )


def _row(client: str = ID, name: str = "web", *, revoked: datetime | None = None) -> Client:
    return Client(client, "acme", name, (), "trusted", NOW, revoked)


def _known(client: str = ID, *, created: datetime = NOW, revoked: datetime | None = None) -> ClientIdentity:
    return ClientIdentity(7, client, "spiffe", NAME, created, revoked)


def _kinds(done: Merge) -> list[str]:
    return [step.kind for step in done.steps]


def test_standings_are_in_the_order_of_the_watch() -> None:
    assert STANDINGS == OF_THE_WATCH


@pytest.mark.parametrize("origins", [{}, {ID: THIRD}], ids=["its own", "a third gate's"])
def test_a_client_that_another_gate_registered_is_left_alone(origins: Mapping[str, str]) -> None:
    done = merge(_bundle(_client(revoked=NOW, standing="suspended")), _here(_row(), origins=origins))
    assert done.steps == []
    assert done.passed_over == ["acme/web: not that gate registered it, but this one or a third"]


def test_a_name_that_has_a_contract_here_is_not_taken_by_a_client_from_elsewhere() -> None:
    here = replace(_here(), contracts=frozenset({"acme/web"}))
    done = merge(_bundle(_client()), here)
    assert done.steps == []
    assert done.passed_over == ["acme/web: the policy has a [[contract]] with that name here"]
    known = replace(_here(_row()), contracts=frozenset({"acme/web"}))
    assert _kinds(merge(_bundle(_client(revoked=NOW)), known)) == ["client.revoked"]


def test_an_installation_that_was_restored_twice_speaks_of_its_own_clients() -> None:
    here = replace(_here(_row(), origins={}), gate=THERE)
    assert _kinds(merge(_bundle(_client(revoked=NOW)), here)) == ["client.revoked"]


def test_a_key_that_is_over_is_listed_and_not_recorded() -> None:
    done = merge(_bundle(_client(keys=(_key(revoked=True),))), _here(_row()))
    assert _kinds(done) == [""]


def test_a_key_never_lives_longer() -> None:
    here = _here(_row(), keys=(ClientKey("pall_live_1", ID, NOW, LATER, None),))
    assert merge(_bundle(_client(keys=(_key(expires=LATER + timedelta(days=1)),))), here).steps == []
    assert merge(_bundle(_client(keys=(_key(),))), here).steps == []
    earlier = merge(_bundle(_client(keys=(_key(expires=NOW),))), here)
    assert _kinds(earlier) == ["client.key-ending"]
    assert earlier.steps[0].details == {"prefix": "pall_live_1", "expires": timestamp(NOW)}


@pytest.mark.parametrize(
    "here",
    [
        _here(_row(), _row(OTHER, "other"), keys=(ClientKey("pall_live_1", OTHER, NOW, None, None),)),
        _here(_row(), keys=(ClientKey("pall_live_1", ID, NOW, None, None),), digest=b"\7" * 32),
        _here(_row(), keys=(ClientKey("pall_live_2", ID, NOW, None, None),)),
    ],
    ids=["another client's prefix", "another key of that prefix", "another prefix of that key"],
)
def test_a_key_that_cannot_be_told_from_another_is_passed_over(here: Here) -> None:
    for revoked in (False, True):
        done = merge(_bundle(_client(keys=(_key(revoked=revoked),))), here)
        assert done.steps == []
        assert done.passed_over == ["acme/web: there is another key pall_live_1… here"]


def test_an_identity_moves_from_one_client_to_another() -> None:
    here = _here(_row(), _row(OTHER, "other"), identities=(_known(),))
    moved = (
        _client(identities=(_identity(revoked=LATER),)),
        _client(OTHER, "other", identities=(_identity(created=LATER),)),
    )
    done = merge(_bundle(*reversed(moved)), here)
    assert [(step.kind, step.client) for step in done.steps] == [
        ("client.identity-revoked", ID),
        ("client.identity-added", OTHER),
    ]


def test_an_identity_of_somebody_else_is_passed_over() -> None:
    here = _here(_row(), _row(OTHER, "other"), identities=(_known(OTHER),))
    done = merge(_bundle(_client(identities=(_identity(created=LATER),))), here)
    assert (done.steps, len(done.passed_over)) == ([], 1)


def test_an_identity_that_was_revoked_here_does_not_come_back_by_another_date() -> None:
    here = _here(_row(), identities=(_known(revoked=NOW),))
    again = _bundle(_client(identities=(_identity(revoked=LATER), _identity(created=LATER))))
    done = merge(again, here)
    assert done.steps == []
    assert done.kept == [f"acme/web: the spiffe {NAME} is revoked here, and not there"]


def test_an_identity_that_was_revoked_there_and_given_again_comes_back() -> None:
    again = _bundle(_client(identities=(_identity(revoked=LATER), _identity(created=LATER))))
    for before in (_known(), _known(revoked=LATER)):
        done = merge(again, _here(_row(), identities=(before,)))
        assert [kind for kind in _kinds(done) if kind != "client.identity-revoked"] == ["client.identity-added"]


def test_an_identity_that_was_added_on_both_sides_stays() -> None:
    done = merge(_bundle(_client(identities=(_identity(created=LATER),))), _here(_row(), identities=(_known(),)))
    assert done == Merge()


def test_a_client_gets_no_more_identities_than_fit() -> None:
    rows = tuple(ClientIdentity(n, ID, "spiffe", f"{NAME}/{n}", NOW, None) for n in range(LIVE_MAX))
    done = merge(_bundle(_client(identities=(_identity(),))), _here(_row(), identities=rows))
    assert (done.steps, done.passed_over) == ([], [f"acme/web: it has {LIVE_MAX} identities here already"])


def test_whoever_is_revoked_here_gets_nothing_more_and_loses_what_ended_there() -> None:
    here = _here(_row(revoked=NOW), keys=(ClientKey("pall_live_1", ID, NOW, None, None),))
    theirs = _client(keys=(_key(revoked=True), _key("pall_live_2", digest=b"\7" * 32)), identities=(_identity(),))
    assert _kinds(merge(_bundle(theirs), here)) == ["client.key-revoked"]


def test_other_scopes_are_taken_over() -> None:
    done = merge(_bundle(_client(scopes=("predict:fraud",))), _here(_row()))
    assert [(step.kind, step.details) for step in done.steps] == [("client.changed", {"scopes": ["predict:fraud"]})]


def test_a_new_client_comes_as_it_stands() -> None:
    done = merge(_bundle(_client(standing="degraded", revoked=LATER)), _here())
    assert _kinds(done) == ["client.added", "standing.changed", "client.revoked"]
    assert done.steps[1].details["to"] == "degraded"
