"""Who somebody is: sessions, claims and users of the machine. Tokens are tried one by one in test_pages."""

import os
import pwd
from typing import Any

import pytest

from palladion.access.jwks import parse_jwks
from palladion.access.tokens import Tokens
from palladion.gate.administration import people as module
from palladion.gate.administration.people import Evidence, People, StrangerError, admit, role_named
from palladion.gate.administration.roles import ROLES, ForbiddenError
from palladion.policy import OperatorsPolicy
from palladion.registry import Operator
from palladion.registry.rows import Role
from tests.access import issuing
from tests.lifecycle.installations import NOW

ISSUER = "https://login.example.com"
SECONDS = NOW.timestamp()
SETTINGS = OperatorsPolicy(
    issuer=ISSUER,
    client_id="palladion",
    role_claim="groups",
    viewers=("staff",),
    approvers=("sec", "sec-lead"),
    admins=("root",),
)
ADA = Evidence(f"oidc:{ISSUER}#ada", by_token=True)


def _people(policy: OperatorsPolicy = SETTINGS) -> People:
    tokens = Tokens([policy.as_issuer])
    tokens.replace_keys(ISSUER, parse_jwks(issuing.jwks(), algorithms=policy.algorithms))
    return People(policy, tokens)


def _token(**claims: Any) -> str:
    said = {"iss": ISSUER, "aud": "palladion", "sub": "ada", "iat": SECONDS, "exp": SECONDS + 300, **claims}
    return issuing.token(claims=said).decode()


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        ("staff", "viewer"),
        (["staff"], "viewer"),
        (["other", "sec"], "approver"),
        (["sec", "sec-lead"], "approver"),
        (["staff", "root"], None),
        ([], None),
        (None, None),
        (["Staff"], None),
        ([["root"]], None),
        ({"root": True}, None),
        (7, None),
        (["x"] * 1000 + ["root"], None),
    ],
)
def test_a_claim_gives_one_role_or_none(groups: object, role: str | None) -> None:
    assert _people().of_bearer(_token(groups=groups), SECONDS) == Evidence(ADA.identity, role_named(str(role)), True)


def test_without_a_claim_in_the_policy_none_gives_a_role() -> None:
    policy = OperatorsPolicy(issuer=ISSUER, client_id="palladion")
    assert _people(policy).of_bearer(_token(groups=["root"]), SECONDS) == ADA


def test_new_keys_of_the_provider_count_and_old_ones_no_more() -> None:
    policy = SETTINGS
    tokens = Tokens([policy.as_issuer])
    people = People(policy, tokens)
    token = _token()
    with pytest.raises(StrangerError):
        people.of_bearer(token, SECONDS)
    assert tokens.wanted == {ISSUER}  # so that whoever keeps the keys asks for new ones
    tokens.replace_keys(ISSUER, parse_jwks(issuing.jwks(), algorithms=policy.algorithms))
    assert people.of_bearer(token, SECONDS).identity == ADA.identity
    tokens.replace_keys(ISSUER, parse_jwks(issuing.jwks(issuing.jwk("ES256", 1)), algorithms=policy.algorithms))
    with pytest.raises(StrangerError):
        people.of_bearer(token, SECONDS)


def test_a_session_lasts_as_long_as_the_policy_says() -> None:
    people = _people()
    session = people.begin(ADA, SECONDS)
    assert session.expires == SECONDS + 3600
    assert people.of_bearer(session.token, SECONDS + 3599).identity == ADA.identity
    with pytest.raises(StrangerError):
        people.of_bearer(session.token, SECONDS + 3600)


def test_a_session_is_not_shown_by_accident() -> None:
    session = _people().begin(ADA, SECONDS)
    assert session.token not in repr(session)
    assert len(session.token) > 43


def test_a_session_begins_with_a_token_alone() -> None:
    people = _people()
    session = people.begin(ADA, SECONDS)
    for evidence in (people.of_bearer(session.token, SECONDS), people.of_user(os.getuid())):
        with pytest.raises(StrangerError, match="begins with a token of the provider"):
            people.begin(evidence, SECONDS)


def test_the_ninth_session_of_a_person_ends_the_first() -> None:
    people = _people()
    sessions = [people.begin(ADA, SECONDS) for _ in range(9)]
    with pytest.raises(StrangerError):
        people.of_bearer(sessions[0].token, SECONDS)
    for session in sessions[1:]:
        people.of_bearer(session.token, SECONDS)


def test_sessions_of_all_have_a_limit_and_those_that_are_over_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SESSIONS_MAX", 2)
    people = _people()
    for name in ("a", "b"):
        people.begin(Evidence(name, by_token=True), SECONDS)
    with pytest.raises(StrangerError, match="too many sessions"):
        people.begin(ADA, SECONDS)
    people.begin(ADA, SECONDS + 3600)


def test_a_session_that_was_ended_is_over() -> None:
    people = _people()
    session = people.begin(ADA, SECONDS)
    assert people.end(session.token)
    assert not people.end(session.token)
    with pytest.raises(StrangerError):
        people.of_bearer(session.token, SECONDS)


def test_a_user_of_the_machine_is_who_the_system_says() -> None:
    name = pwd.getpwuid(os.getuid()).pw_name
    assert _people().of_user(os.getuid()) == Evidence(f"user:{name}")
    with pytest.raises(StrangerError):
        _people().of_user(2**31 - 7)


def test_without_a_provider_no_token_is_accepted() -> None:
    people = People(OperatorsPolicy(socket="o.sock"), None)
    with pytest.raises(StrangerError):
        people.of_bearer(_token(), SECONDS)


def _operator(role: Role, *, revoked: bool = False) -> Operator:
    return Operator("ada", role, ADA.identity, NOW, NOW if revoked else None)


def test_what_the_registry_says_counts_more_than_a_claim() -> None:
    claimed = Evidence(ADA.identity, "admin")
    assert admit(claimed, _operator("viewer")).role == "viewer"
    assert admit(claimed, None).role == "admin"
    with pytest.raises(ForbiddenError, match="no operator any more"):
        admit(claimed, _operator("admin", revoked=True))


def test_who_is_in_neither_is_no_operator() -> None:
    with pytest.raises(ForbiddenError, match="no operator here"):
        admit(ADA, None)


def test_one_operators_rights_are_not_anothers() -> None:
    with pytest.raises(ForbiddenError):
        admit(Evidence("user:eve"), _operator("admin"))


def test_roles_are_read_by_their_names() -> None:
    assert [role_named(role) for role in ROLES] == list(ROLES)
    assert role_named("root") is None


ACCESS = OperatorsPolicy(issuer=ISSUER, client_id="palladion", audience="https://gate.example.com")


def _access_token(typ: str | None = None, **claims: Any) -> str:
    said = {"iss": ISSUER, "aud": ACCESS.audience, "sub": "ada", "iat": SECONDS, "exp": SECONDS + 300, **claims}
    return issuing.token(header=None if typ is None else {"typ": typ}, claims=said).decode()


@pytest.mark.parametrize("claims", [{"azp": "palladion"}, {"client_id": "palladion", "azp": "palladion"}])
@pytest.mark.parametrize("typ", [None, "JWT", "at+jwt", "application/at+jwt"])
def test_an_access_token_that_was_given_to_us_is_taken(typ: str | None, claims: dict[str, Any]) -> None:
    assert _people(ACCESS).of_bearer(_access_token(typ, **claims), SECONDS) == ADA


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"azp": "other"},
        {"client_id": "other"},
        {"cid": "other"},
        {"azp": "palladion", "client_id": "other"},
        {"cid": ["palladion"]},
        {"azp": "palladion", "at_hash": "x"},
    ],
    ids=str,
)
def test_an_access_token_that_may_be_another_programs_is_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(StrangerError):
        _people(ACCESS).of_bearer(_access_token(**claims), SECONDS)


@pytest.mark.parametrize("typ", ["at+jwt", "application/AT+JWT"])
def test_an_access_token_is_no_id_token(typ: str) -> None:
    token = _access_token(typ, aud="palladion", azp="palladion")
    with pytest.raises(StrangerError):
        _people().of_bearer(token, SECONDS)
    assert _people().of_bearer(_access_token(aud="palladion", azp="palladion"), SECONDS) == ADA
