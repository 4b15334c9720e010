"""Separation of duties, over every role, every kind of change and whatever is known about it."""

import itertools
from typing import get_args

import pytest

from palladion.errors import FormatError
from palladion.gate.administration.changes import (
    Appoint,
    Change,
    Facts,
    RevokeClient,
    RevokeKey,
    Stand,
    change_document,
    client_name,
    contracts_among,
    lowered,
    parse_change,
    require_alone,
    require_decider,
    require_proposer,
    second_person,
)
from palladion.gate.administration.roles import ROLES, ForbiddenError
from palladion.registry.rows import Role, Standing

ME, OTHER = "user:ada", "oidc:https://login.example.com#bob"
STANDINGS: tuple[Standing, ...] = get_args(Standing)
CHANGES: tuple[Change, ...] = (
    *(Stand(("acme/web",), standing) for standing in STANDINGS),
    Stand(("acme/web", "globex"), "suspended"),
    RevokeClient("acme/web"),
    RevokeKey("pal_live_x"),
    *(Appoint("bob", role, OTHER) for role in ROLES),
    Appoint("bob"),
)
FACTS = tuple(
    Facts(lowered, contracts, last_key, identity, role, claimable)
    for lowered, contracts, last_key, identity, role, claimable in itertools.product(
        ((), ("acme/web",)), ((), ("acme/web",)), (False, True), ("", ME, OTHER), ("", *ROLES), (False, True)
    )
)
# Who may ask for a change, and who may make one alone that one person is enough for.
ASK: dict[type, set[Role]] = {
    Stand: {"analyst", "approver", "admin"}, RevokeClient: {"admin"}, RevokeKey: {"admin"}, Appoint: {"admin"}
}  # fmt: skip
ALONE: dict[type, set[Role]] = {**ASK, Stand: {"approver", "admin"}}


def _needs_two(change: Change, facts: Facts) -> bool:
    """As people were promised it."""
    match change:
        case Stand():
            return bool(facts.lowered)
        case RevokeClient():
            return bool(facts.contracts)
        case RevokeKey():
            return facts.last_key
        case Appoint():
            made = change.role in {"analyst", "approver", "admin"}
            return made or facts.role in {"approver", "admin"} or facts.claimable


@pytest.mark.parametrize("role", [*ROLES, "nobody"])
def test_one_person_makes_only_what_his_role_and_the_change_allow(role: Role) -> None:
    for change, facts in itertools.product(CHANGES, FACTS):
        allowed = role in ALONE[type(change)] and not _needs_two(change, facts) and facts.identity != ME
        assert _passes(require_alone, role, ME, change, facts) == allowed, (change, facts)
        asks = role in ASK[type(change)] and facts.identity != ME
        assert _passes(require_proposer, role, ME, change, facts) == asks, (change, facts)


@pytest.mark.parametrize("role", [*ROLES, "nobody"])
def test_a_second_person_is_another_identity_with_the_right_to_decide_and_not_concerned(role: Role) -> None:
    for proposer, facts in itertools.product((ME, OTHER), FACTS):
        allowed = role in {"approver", "admin"} and proposer != ME and facts.identity != ME
        assert _passes(require_decider, role, ME, proposer, facts) == allowed, (proposer, facts)


def test_what_needs_a_second_person_says_so_to_those_who_may_ask_for_it() -> None:
    with pytest.raises(ForbiddenError, match="needs a second person: a client would stand worse") as caught:
        require_alone("admin", ME, Stand(("acme",), "suspended"), Facts(lowered=("acme",)))
    assert caught.value.second_person
    with pytest.raises(ForbiddenError, match="is not for that role") as caught:
        require_alone("viewer", ME, Stand(("acme",), "suspended"), Facts(lowered=("acme",)))
    assert not caught.value.second_person


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_comes_back_from_its_document(change: Change) -> None:
    assert parse_change(change_document(change)) == change


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"kind": "shell"},
        {"kind": "standing", "clients": [], "standing": "trusted"},
        {"kind": "standing", "clients": ["a"] * 1001, "standing": "trusted"},
        {"kind": "standing", "clients": ["acme"], "standing": "worshipped"},
        {"kind": "standing", "clients": "acme", "standing": "trusted"},
        {"kind": "client", "client": "acme", "force": True},
        {"kind": "client", "client": ""},
        {"kind": "operator", "name": "bob", "role": "root"},
        [],
        None,
    ],
)
def test_what_is_no_change_is_refused(document: object) -> None:
    with pytest.raises(FormatError, match="this is no change"):
        parse_change(document)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(STANDINGS, STANDINGS)))
def test_worse_is_what_the_watch_calls_worse(before: Standing, after: Standing) -> None:
    worse = STANDINGS.index(after) > STANDINGS.index(before)
    assert lowered([("acme", before)], after) == (("acme",) if worse else ())


def test_a_client_of_one_name_is_its_organisation() -> None:
    assert client_name("acme") == ("acme", "acme")
    assert client_name("acme/web") == ("acme", "web")
    assert contracts_among(["acme", "acme/web"], {("acme", "web")}.__contains__) == ("acme/web",)


def test_the_reason_names_what_is_at_stake() -> None:
    assert second_person(Appoint("bob", "approver"), Facts()) == "approver may decide proposals"
    assert second_person(Appoint("bob", "analyst"), Facts()) == "analyst may make proposals"
    assert second_person(Appoint("bob"), Facts(role="admin")) == "this operator is admin"
    assert "another role" in second_person(Appoint("bob", "viewer"), Facts(claimable=True))
    assert second_person(Appoint("bob", "viewer"), Facts()) == ""


def _passes(check: object, *arguments: object) -> bool:
    try:
        check(*arguments)  # type: ignore[operator]
    except ForbiddenError:
        return False
    return True
