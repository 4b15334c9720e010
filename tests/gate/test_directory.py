"""The directory: who is let in and who is not, and that a reload never undoes what the watch decided."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from palladion.access.cedar import Cedar, read_policies
from palladion.access.certificates import Certificate
from palladion.access.identity import KEY_CHARACTERS_MAX, SHOWN_CHARACTERS, hash_api_key, new_api_key
from palladion.access.jwks import parse_jwks
from palladion.access.tokens import Tokens
from palladion.gate.callers import CERTIFICATE, SPIFFE, TOKEN, WATCH, Caller
from palladion.gate.decoys import DecoyProblem, Decoys
from palladion.gate.directory import Directory
from palladion.gate.problems import Problem
from palladion.gate.requests import STRANGER, Peer
from palladion.lifecycle.clients import revoke_client, revoke_key, set_standing
from palladion.lifecycle.identities import add_identity, revoke_identity
from palladion.policy import RoutePolicy
from palladion.registry import ClientKey, StandingChange
from palladion.registry.rows import Standing
from tests.access.issuing import CLIENT, POLICY, URL, jwks, part, token
from tests.access.issuing import NOW as ISSUED
from tests.gate.rolls import Roll, read_roll
from tests.lifecycle.installations import ACTOR, NOW

from .gates import MODEL, OTHER_MODEL, House, at


def _roll(house: House) -> Roll:
    with house.installation.open_registry() as registry, registry.read() as records:
        return read_roll(records)


@pytest.fixture
def directory(house: House) -> Directory:
    loaded = Directory(house.root.derive("client-key-pepper"))
    assert loaded.load(_roll(house)) == []
    return loaded


def _refusal(directory: Directory, headers: Mapping[bytes, bytes], now: datetime = NOW, peer: Peer = STRANGER) -> bytes:
    with pytest.raises(Problem) as caught:
        directory.identify(headers, now, peer)
    assert caught.value.kind == "unauthenticated"
    return caught.value.body()


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"authorization", "Bearer {}"),
        (b"authorization", "bearer {}"),
        (b"authorization", "BEARER   {} "),
        (b"x-api-key", "{}"),
    ],
)
def test_a_key_lets_its_client_in(directory: Directory, house: House, header: bytes, text: str) -> None:
    caller = directory.identify({header: text.format(house.keys["acme"]).encode()}, NOW)
    assert (caller.id, caller.client.name, caller.standing) == (house.ids["acme"], "acme", "trusted")


def test_a_key_that_another_gate_made_is_looked_up_under_its_pepper(directory: Directory, house: House) -> None:
    there, key = b"\6" * 32, new_api_key("live")
    row = ClientKey("pall_live_there", house.ids["acme"], NOW, NOW + timedelta(hours=1), None)
    roll = _roll(house)
    elsewhere = Roll({**roll.keys, hash_api_key(there, key): row}, roll.callers, peppers=(b"\5" * 32, there))
    directory.load(elsewhere)
    assert directory.identify({b"x-api-key": key.text.encode()}, NOW).id == house.ids["acme"]
    assert directory.identify({b"x-api-key": house.keys["acme"].encode()}, NOW).id == house.ids["acme"]
    _refusal(directory, {b"x-api-key": key.text.encode()}, NOW + timedelta(hours=1))
    _refusal(directory, {b"x-api-key": new_api_key("live").text.encode()})
    # without that gate's pepper its hash says nothing
    directory.load(replace(elsewhere, peppers=()))
    _refusal(directory, {b"x-api-key": key.text.encode()})
    assert there.hex() not in repr(elsewhere)
    assert repr(there) not in repr(elsewhere)


KEY = new_api_key("test").text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        pytest.param({}, b"Authorization: Bearer KEY was expected", id="no key"),
        pytest.param({b"x-api-key": b""}, b"Bearer KEY was expected", id="an empty key"),
        pytest.param({b"authorization": b"Bearer"}, b"Bearer KEY was expected", id="a scheme alone"),
        pytest.param({b"authorization": b"Bearer x", b"x-api-key": b"x"}, b"not both", id="both headers"),
        pytest.param({b"authorization": b"Basic YTpi"}, b"Bearer KEY was expected", id="another scheme"),
        pytest.param({b"authorization": KEY.encode()}, b"Bearer KEY was expected", id="no scheme"),
        pytest.param({b"x-api-key": b"hello"}, b"this is not an API key", id="malformed"),
        pytest.param({b"x-api-key": KEY[:-1].encode()}, b"this is not an API key", id="cut"),
        pytest.param({b"x-api-key": KEY[:20].encode() + b"\xff" * 9}, b"this is not an API key", id="not ASCII"),
        pytest.param({b"x-api-key": b"k" * (KEY_CHARACTERS_MAX + 1)}, b"this is not an API key", id="too long"),
        pytest.param({b"x-api-key": KEY.replace("_test_", "_live_").encode()}, b"typing error", id="a typing error"),
    ],
)
def test_what_is_no_key_is_refused_with_what_is_wrong(
    directory: Directory, headers: dict[bytes, bytes], detail: bytes
) -> None:
    assert detail in _refusal(directory, headers)


def test_an_unknown_an_expired_and_a_revoked_key_cannot_be_told_apart(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    revoke_client(mine.installation, "acme", "acme", actor=ACTOR)
    revoke_key(mine.installation, mine.keys["globex"][: len("pall_test_") + SHOWN_CHARACTERS], actor=ACTOR)
    directory = Directory(mine.root.derive("client-key-pepper"))
    directory.load(_roll(mine))
    keys = [KEY, *(mine.keys[name] for name in ("acme", "globex", "brief"))]
    refusals = {_refusal(directory, {b"x-api-key": key.encode()}, at(2)) for key in keys}
    assert len(refusals) == 1


def test_nothing_of_a_key_is_repeated(directory: Directory) -> None:
    for key in (KEY, KEY[:-1], KEY.replace("_test_", "_live_")):
        assert KEY[10:20].encode() not in _refusal(directory, {b"x-api-key": key.encode()})


def test_a_key_lives_until_its_minute(directory: Directory, house: House) -> None:
    headers = {b"x-api-key": house.keys["brief"].encode()}
    assert directory.identify(headers, at(0.99)).client.name == "brief"
    assert _refusal(directory, headers, at(1)) == _refusal(directory, {b"x-api-key": KEY.encode()})


def test_scopes_say_which_models_a_client_may_ask(directory: Directory, house: House) -> None:
    callers = {caller.client.name: caller for caller in directory.callers.values()}
    assert [callers["acme"].may_ask(model) for model in (MODEL, OTHER_MODEL)] == [True, True]
    assert [callers["initech"].may_ask(model) for model in (MODEL, OTHER_MODEL)] == [False, True]


def test_a_client_stands_as_the_registry_says(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    set_standing(mine.installation, "acme", "acme", "degraded", reason="they asked too much", actor=ACTOR)
    caller = _roll(mine).callers[mine.ids["acme"]]
    assert (caller.standing, caller.since, caller.decided_by) == ("degraded", NOW, ACTOR)


def _change(house: House, standing: Standing, hours: float, actor: str = WATCH) -> StandingChange:
    return StandingChange(house.ids["acme"], standing, "for the test", actor, at(hours))


def _with(roll: Roll, change: StandingChange) -> Roll:
    """What the registry says once it has a change."""
    known = roll.callers[change.client]
    caller = replace(known, standing=change.standing, since=change.at, decided_by=change.actor)
    return Roll(roll.keys, {**roll.callers, change.client: caller})


def test_a_change_counts_at_once(directory: Directory, house: House) -> None:
    directory.change(_change(house, "throttled", 1))
    caller = directory.identify({b"x-api-key": house.keys["acme"].encode()}, NOW)
    assert (caller.standing, caller.since, caller.decided_by) == ("throttled", at(1), WATCH)


def test_a_change_of_a_client_that_is_gone_is_no_change(directory: Directory, house: House) -> None:
    before = dict(directory.callers)
    directory.change(replace(_change(house, "throttled", 1), client="gone"))
    directory.put(replace(before[house.ids["acme"]], client=replace(before[house.ids["acme"]].client, id="gone")))
    assert directory.callers == before


def test_a_reload_tells_who_was_raised_and_nobody_else(directory: Directory, house: House) -> None:
    roll = _roll(house)
    assert directory.load(_with(roll, _change(house, "suspended", 1))) == []
    assert directory.load(_with(roll, _change(house, "watched", 2, ACTOR))) == [house.ids["acme"]]
    assert directory.load(_with(roll, _change(house, "watched", 2, ACTOR))) == []


def test_a_reload_does_not_undo_what_is_not_written_yet(directory: Directory, house: House) -> None:
    change = _change(house, "degraded", 1)
    directory.change(change)
    assert directory.load(_roll(house), [change]) == []
    assert directory.callers[change.client].standing == "degraded"


def test_of_several_unwritten_changes_the_last_one_counts(directory: Directory, house: House) -> None:
    changes = [_change(house, "throttled", 1), _change(house, "degraded", 2)]
    directory.load(_roll(house), changes)
    assert directory.callers[house.ids["acme"]].standing == "degraded"


def test_what_a_person_decided_later_counts_more_than_what_is_not_written_yet(
    directory: Directory, house: House
) -> None:
    change = _change(house, "degraded", 1)
    directory.change(change)
    by_hand = _change(house, "trusted", 2, ACTOR)
    assert directory.load(_with(_roll(house), by_hand), [change]) == [change.client]
    assert directory.callers[change.client].standing == "trusted"


def test_what_a_person_decided_earlier_does_not(directory: Directory, house: House) -> None:
    change = _change(house, "degraded", 2)
    directory.load(_with(_roll(house), _change(house, "watched", 1, ACTOR)), [change])
    assert directory.callers[change.client].standing == "degraded"


def test_a_client_that_was_revoked_is_gone_with_the_reload(directory: Directory, house: House) -> None:
    roll = _roll(house)
    gone = {name: caller for name, caller in roll.callers.items() if name != house.ids["acme"]}
    keys = {key_hash: key for key_hash, key in roll.keys.items() if key.client in gone}
    directory.load(Roll(keys, gone), [_change(house, "degraded", 1)])
    assert house.ids["acme"] not in directory.callers
    _refusal(directory, {b"x-api-key": house.keys["acme"].encode()})


TIME = datetime.fromtimestamp(ISSUED, UTC)
ID, DIGEST = "spiffe://example.org/scoring", "ab" * 32
CERTIFIED = Certificate(DIGEST, ID, TIME + timedelta(hours=1))
IDENTITIES = {(TOKEN, f"{URL} {CLIENT}"): "acme", (SPIFFE, ID): "acme", (TOKEN, f"{URL} globex"): "globex"}


def _let_in(
    house: House, identities: Mapping[tuple[str, str], str] = IDENTITIES, access: Cedar | None = None
) -> Directory:
    """A directory with tokens, and with identities by the names of the clients."""
    tokens = Tokens([POLICY])
    tokens.replace_keys(URL, parse_jwks(jwks(), algorithms=POLICY.algorithms))
    directory = Directory(house.root.derive("client-key-pepper"), tokens=tokens, access=access)
    known = {identity: house.ids[name] for identity, name in identities.items()}
    directory.load(replace(_roll(house), identities=known))
    return directory


def _bearer(text: bytes) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + text}


def test_a_token_lets_its_client_in_and_names_the_user(house: House) -> None:
    directory = _let_in(house)
    for _ in range(2):
        caller = directory.identify(_bearer(token(claims={"user": "ada"})), TIME)
        assert (caller.id, caller.user, caller.credential) == (house.ids["acme"], "ada", TOKEN)
    assert directory.callers[house.ids["acme"]].user is None


def test_a_certificate_lets_its_client_in(house: House) -> None:
    directory = _let_in(house)
    caller = directory.identify({}, TIME, Peer(CERTIFIED, user="ada"))
    assert (caller.id, caller.user, caller.credential) == (house.ids["acme"], "ada", SPIFFE)
    by_digest = _let_in(house, {(CERTIFICATE, DIGEST): "globex"})
    assert by_digest.identify({}, TIME, Peer(replace(CERTIFIED, spiffe=None))).credential == CERTIFICATE


def test_a_proxy_names_the_user_of_a_client_with_a_key(house: House) -> None:
    directory = _let_in(house)
    caller = directory.identify(_bearer(house.keys["acme"].encode()), NOW, Peer(user="ada"))
    assert (caller.id, caller.user) == (house.ids["acme"], "ada")


def test_whatever_the_credential_who_is_not_let_in_is_told_the_same(house: House) -> None:
    directory = _let_in(house)
    late = TIME + timedelta(days=2)
    refusals = [
        _refusal(directory, _bearer(KEY.encode()), TIME),
        _refusal(directory, _bearer(house.keys["brief"].encode()), at(2)),
        _refusal(directory, _bearer(token(claims={"sub": "nobody"})), TIME),
        _refusal(directory, _bearer(token()), late),
        _refusal(directory, _bearer(token(number=1)), TIME),
        _refusal(directory, _bearer(token(claims={"aud": "x"})), TIME),
        _refusal(directory, _bearer(b"garbage.with.dots"), TIME),
        _refusal(directory, {}, TIME, Peer(replace(CERTIFIED, spiffe=f"{ID}-other"))),
        _refusal(directory, {}, late, Peer(CERTIFIED)),
        _refusal(_let_in(house, {}), {}, TIME, Peer(CERTIFIED)),
    ]
    assert len(set(refusals)) == 1


def test_a_client_that_is_gone_has_no_identities(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    add_identity(mine.installation, "acme", "acme", "spiffe", ID, actor=ACTOR)
    add_identity(mine.installation, "globex", "globex", "certificate", DIGEST, actor=ACTOR)
    assert _roll(mine).identities == {(SPIFFE, ID): mine.ids["acme"], (CERTIFICATE, DIGEST): mine.ids["globex"]}
    revoke_client(mine.installation, "acme", "acme", actor=ACTOR)
    revoke_identity(mine.installation, "certificate", DIGEST, actor=ACTOR)
    assert _roll(mine).identities == {}


def test_a_token_counts_no_more_when_its_identity_is_revoked(house: House) -> None:
    directory = _let_in(house)
    directory.identify(_bearer(token()), TIME)
    directory.load(_roll(house))
    _refusal(directory, _bearer(token()), TIME)


def test_a_token_is_no_api_key_and_without_issuers_none_is_taken(house: House, directory: Directory) -> None:
    assert b"not an API key" in _refusal(_let_in(house), {b"x-api-key": token()}, TIME)
    assert b"not an API key" in _refusal(directory, _bearer(token()), TIME)


def test_a_bound_token_is_of_no_use_without_its_certificate(house: House) -> None:
    directory = _let_in(house)
    bound = _bearer(token(claims={"cnf": {"x5t#S256": part(bytes.fromhex(DIGEST)).decode()}}))
    assert directory.identify(bound, TIME, Peer(CERTIFIED)).id == house.ids["acme"]
    for certificate in (None, Certificate("cd" * 32), replace(CERTIFIED, expires=TIME)):
        _refusal(directory, bound, TIME, Peer(certificate))


def test_a_stolen_key_or_token_is_of_no_use_to_another_client_with_a_certificate(house: House) -> None:
    directory = _let_in(house)
    for credential in (house.keys["globex"].encode(), token(claims={"sub": "globex"})):
        assert directory.identify(_bearer(credential), TIME).id == house.ids["globex"]
        _refusal(directory, _bearer(credential), TIME, Peer(CERTIFIED))
        # one that nobody registered says nothing
        assert directory.identify(_bearer(credential), TIME, Peer(Certificate("cd" * 32))).id == house.ids["globex"]


def test_a_certificate_that_names_two_clients_lets_neither_in(house: House) -> None:
    directory = _let_in(house, {(SPIFFE, ID): "acme", (CERTIFICATE, DIGEST): "globex"})
    _refusal(directory, {}, TIME, Peer(CERTIFIED))


def test_whom_the_policies_name_and_nobody_is_is_known(house: House) -> None:
    text = 'permit(principal in Organisation::"acme", action, resource) unless { principal == Client::"acme/wbe" };'
    assert _let_in(house, access=read_policies(text.encode(), "access.cedar")).strangers() == ["client acme/wbe"]
    assert _let_in(house).strangers() == []


def test_a_change_of_standing_keeps_no_user_and_no_credential(house: House) -> None:
    directory = _let_in(house)
    caller = directory.identify(_bearer(token(claims={"user": "ada"})), TIME)
    directory.change(_change(house, "throttled", 1))
    now = directory.current(caller)
    assert (now.standing, now.user, now.credential) == ("throttled", "ada", TOKEN)
    directory.put(now)
    kept = directory.callers[house.ids["acme"]]
    assert (kept.standing, kept.user, kept.credential) == ("throttled", None, "api-key")
    assert directory.current(kept) is kept


ROUTE = RoutePolicy(model=MODEL)


def test_a_client_can_be_let_in_on_one_route(directory: Directory, house: House) -> None:
    caller = directory.callers[house.ids["acme"]]
    scoped = replace(caller, client=replace(caller.client, scopes=(f"route:{ROUTE.route}",)))
    assert scoped.may("ask", ROUTE)
    assert not scoped.may("ask", RoutePolicy(model=MODEL, path="/elsewhere"))
    assert not scoped.may_ask(MODEL)


def _permitted(house: House, text: str, name: str = "acme") -> Caller:
    directory = _let_in(house, access=read_policies(text.encode(), "access.cedar"))
    return directory.callers[house.ids[name]]


def test_once_there_are_policies_what_they_do_not_permit_is_refused(house: House) -> None:
    assert not _permitted(house, "").may("ask", ROUTE)
    caller = _permitted(house, 'permit(principal == Client::"acme/acme", action == Action::"ask", resource);')
    assert caller.may("ask", ROUTE)
    assert not caller.may("describe", ROUTE)


def test_policies_give_nobody_more_than_the_scopes(house: House) -> None:
    everything = "permit(principal, action, resource);"
    assert not _permitted(house, everything, "initech").may("ask", ROUTE)
    assert _permitted(house, everything, "initech").may("ask", RoutePolicy(model=OTHER_MODEL))


def test_a_policy_can_ask_for_a_standing_and_a_kind_of_credential(house: House) -> None:
    text = (
        'permit(principal, action, resource) when { principal.standing == "trusted" && context.credential == "jwt" };'
    )
    directory = _let_in(house, access=read_policies(text.encode(), "access.cedar"))
    caller = directory.identify(_bearer(token()), TIME)
    assert caller.may("ask", ROUTE)
    assert not directory.identify(_bearer(house.keys["acme"].encode()), NOW).may("ask", ROUTE)
    directory.change(_change(house, "watched", 1))
    assert not directory.current(caller).may("ask", ROUTE)


def test_other_access_policies_hold_from_the_next_request_on_and_for_all(house: House) -> None:
    may, may_not = (
        read_policies(f"{word}(principal, action, resource);".encode(), "a") for word in ("permit", "forbid")
    )
    directory = _let_in(house, access=may)
    before, version = directory.identify(_bearer(house.keys["acme"].encode()), NOW), directory.version
    assert before.may("ask", ROUTE)
    directory.renew_access(may_not)
    # who is in already is judged as a whole by what held then
    assert before.may("ask", ROUTE)
    assert not directory.current(before).may("ask", ROUTE)
    assert not any(caller.may("ask", ROUTE) for caller in directory.callers.values())
    assert directory.version > version
    # a change that was decided of a caller from before brings nothing back
    directory.put(replace(before, standing="watched"))
    assert not directory.callers[house.ids["acme"]].may("ask", ROUTE)
    directory.renew_access(None)
    assert directory.callers[house.ids["acme"]].may("ask", ROUTE)
    assert directory.callers[house.ids["acme"]].standing == "watched"


def test_a_decoy_key_beside_a_certificate_tells_whose_that_is(house: House) -> None:
    directory = _let_in(house)
    key = new_api_key("live")
    directory.decoys = Decoys({hash_api_key(house.root.derive("client-key-pepper"), key): "decoy1"})
    with pytest.raises(DecoyProblem) as caught:
        directory.identify({b"x-api-key": key.text.encode()}, TIME, Peer(CERTIFIED))
    assert caught.value.decoy == "decoy1"
    assert caught.value.body() == _refusal(directory, {b"x-api-key": KEY.encode()}, TIME, Peer(CERTIFIED))
    assert directory.certified(Peer(CERTIFIED)) == house.ids["acme"]
    assert directory.certified(STRANGER) is None
    # with a typing error it is none
    wrong = key.text[:-1] + ("0" if key.text[-1] != "0" else "1")
    assert b"typing error" in _refusal(directory, {b"x-api-key": wrong.encode()}, TIME)
