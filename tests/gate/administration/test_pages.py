"""The order of the steps that protect the desk: nobody is let in unproved, and refusals are problems."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from palladion.gate.administration.endpoints import ENDPOINTS
from palladion.gate.administration.pages import ADDRESS_RATE, BODY_BYTES_MAX, PERSON_RATE
from palladion.gate.administration.refusals import MEDIA_TYPE
from tests.access import issuing
from tests.gate.gates import House

from .bench import CLIENT_ID, ISSUER, Bench, identity

# Every path with its variable parts filled in.
PATHS = [
    (item.method, item.path.format(organisation="acme", name="acme", incident="ff", proposal="ff"))
    for item in ENDPOINTS
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), [*PATHS, ("POST", "session"), ("DELETE", "session")])
def test_nobody_is_answered_without_a_credential(bench: Bench, method: str, path: str) -> None:
    answered = bench.ask(method, path, {})
    assert (answered.status, answered.problem) == (401, "unauthenticated")
    assert answered.headers["content-type"] == MEDIA_TYPE
    assert answered.headers["www-authenticate"] == "Bearer"
    assert bench.records == []


def _wrong(bench: Bench) -> Iterator[tuple[str, str]]:
    now = int(bench.clock.now().timestamp())
    yield "no token", "x" * 43
    yield "no session", "pallop_" + "x" * 43
    yield "too long a session", "pallop_" + "x" * 5000
    yield "alg none", issuing.forged({"alg": "none"}).decode()
    yield "hmac by the public key", issuing.signed_by_public_key().decode()
    yield "another audience", bench.token(aud="gate")
    yield "the audience of clients", bench.token(aud=issuing.AUDIENCE)
    yield "no audience", bench.token(aud=None)
    yield "another issuer", bench.token(iss=issuing.URL)
    yield "over", bench.token(iat=now - 600, exp=now - 31)
    yield "too old", bench.token(iat=now - 3700, exp=now + 600)
    yield "of the future", bench.token(iat=now + 60)
    yield "no end", bench.token(exp=None)
    yield "no beginning", bench.token(iat=None)
    yield "nobody", bench.token(sub="")
    yield "a blank in the name", bench.token(sub="a dam")
    yield "a name too long to be told", bench.token(sub="a" * 190)
    yield "given to another client", bench.token(azp="other")
    yield "for two, given to nobody", bench.token(aud=[CLIENT_ID, "other"])
    yield "bound to a certificate", bench.token(cnf={"x5t#S256": "A" * 43})
    yield "a key of its own", bench.token(header={"jwk": issuing.jwk()})
    yield "an unknown key", bench.token(header={"kid": "other"})
    yield "another algorithm", issuing.token("EdDSA", claims={"iss": ISSUER, "aud": CLIENT_ID}).decode()
    good = bench.token()
    yield "a changed signature", good[:-8] + ("A" * 8 if good[-8:] != "A" * 8 else "B" * 8)


def test_no_wrong_token_is_accepted_and_none_is_told_apart(bench: Bench) -> None:
    assert bench.ask("GET", "whoami", bearer=bench.token()).status == 200
    told = set()
    for what, token in _wrong(bench):
        bench.seconds += 1
        answered = bench.ask("GET", "whoami", bearer=token)
        assert answered.status == 401, what
        told.add(json.dumps(answered.document))
    assert len(told) == 1
    assert bench.records == []


def test_a_token_for_several_that_was_given_to_us_is_accepted(bench: Bench) -> None:
    token = bench.token(aud=[CLIENT_ID, "other"], azp=CLIENT_ID)
    assert bench.ask("GET", "whoami", bearer=token).document["identity"] == identity("adam")


@pytest.mark.parametrize("shown", ["Basic YTpi", "Bearer", "Bearer ", "", "bearer  "])
def test_another_form_of_credential_is_none(bench: Bench, shown: str) -> None:
    assert bench.ask("GET", "whoami", headers={"authorization": shown}).status == 401


def test_somebody_who_is_no_operator_is_told_so_and_the_ledger_is(bench: Bench) -> None:
    answered = bench.ask("GET", "status", by="mallory")
    assert (answered.status, answered.problem) == (403, "not-for-this-role")
    assert [(record.kind, record.actor) for record in bench.records] == [("operator.refused", identity("mallory"))]


@pytest.mark.parametrize("host", ["attacker.example", "", "10.0.0.1:8711", "localhost.attacker.example"])
def test_without_tls_only_names_of_the_loopback_are_answered_to(bench: Bench, host: str) -> None:
    answered = bench.ask("GET", "whoami", by="adam", host=host)
    assert (answered.status, answered.problem) == (421, "wrong-host")


def test_with_tls_the_certificate_says_who_answers(house: House, tmp_path: Path) -> None:
    bench = Bench(house, tmp_path, any_host=True)
    bench.staff()
    assert bench.ask("GET", "whoami", by="adam", host="gate.example:8711").status == 200
    bench.close()


@pytest.mark.parametrize("header", ["origin", "sec-fetch-site"])
def test_a_page_in_a_browser_is_refused_whatever_it_shows(bench: Bench, header: str) -> None:
    answered = bench.ask("GET", "whoami", by="adam", headers={header: "none"})
    assert (answered.status, answered.problem) == (403, "from-a-browser")
    assert not any(name.startswith("access-control") for name in answered.headers)


def test_an_address_that_asks_too_often_waits_whatever_it_shows(bench: Bench) -> None:
    for _ in range(int(ADDRESS_RATE.burst)):
        assert bench.ask("GET", "whoami").status == 401
    answered = bench.ask("GET", "whoami", by="adam")
    assert (answered.status, answered.problem, answered.headers["retry-after"]) == (429, "rate-limited", "1")
    assert bench.ask("GET", "whoami", by="adam", client=("192.0.2.7", 1)).status == 200
    bench.seconds += 1
    assert bench.ask("GET", "whoami", by="adam").status == 200


def test_all_of_an_ipv6_subscriber_is_one_address(bench: Bench) -> None:
    for number in range(int(ADDRESS_RATE.burst)):
        bench.ask("GET", "whoami", client=(f"2001:db8::{number + 1:x}", 1))
    assert bench.ask("GET", "whoami", client=("2001:db8::ffff:1", 1)).status == 429


@pytest.mark.slow
def test_an_operator_who_asks_too_often_waits_from_wherever_he_comes(bench: Bench) -> None:
    for number in range(int(PERSON_RATE.burst)):
        assert bench.ask("GET", "whoami", by="adam", client=(f"192.0.2.{number}", 1)).status == 200
    assert bench.ask("GET", "whoami", by="adam", client=("198.51.100.1", 1)).status == 429
    assert bench.ask("GET", "whoami", by="eva", client=("198.51.100.1", 1)).status == 200


@pytest.mark.slow
@pytest.mark.parametrize("path", ["", "nothing", "status/", "clients/acme", "incidents/a/b", "../metrics", "session/x"])
def test_what_is_not_there_is_not_found(bench: Bench, path: str) -> None:
    answered = bench.ask("GET", path, by="adam")
    assert (answered.status, answered.problem) == (404, "not-found")


def test_another_method_is_told_which_there_are(bench: Bench) -> None:
    answered = bench.ask("DELETE", "proposals", by="adam")
    assert (answered.status, answered.headers["allow"]) == (405, "GET, POST")
    assert bench.ask("OPTIONS", "status").status == 405
    assert bench.ask("HEAD", "whoami").status == 405


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"x" * (BODY_BYTES_MAX + 1), {}, 413),
        (b"{", {}, 400),
        (b'{"reason": "a", "reason": "b"}', {}, 400),
        (b"[]", {}, 400),
        (b"{}", {}, 400),
        (b'{"reason": 1, "change": {"kind": "client", "client": "acme"}}', {}, 400),
        (b'{"reason": " ", "change": {"kind": "client", "client": "acme"}}', {}, 400),
    ],
)
def test_a_body_that_is_none_is_refused(bench: Bench, body: bytes, headers: dict[str, str], status: int) -> None:
    assert bench.ask("POST", "changes", body, by="adam", headers=headers).status == status
    assert bench.standing("acme") == "trusted"


def test_how_to_sign_in_is_told_to_everybody(bench: Bench) -> None:
    assert bench.ask("GET", "sign-in").document == {
        "issuer": ISSUER, "client_id": CLIENT_ID, "scope": "openid", "token": "id_token"
    }  # fmt: skip


def test_answers_are_kept_by_nobody(bench: Bench) -> None:
    assert bench.ask("GET", "whoami", by="adam").headers["cache-control"] == "no-store"
    assert bench.ask("GET", "whoami").headers["cache-control"] == "no-store"


def test_a_bug_of_ours_tells_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError("the secret")

    monkeypatch.setattr(bench.desk, "person", fail)
    answered = bench.ask("GET", "whoami", by="adam")
    assert (answered.status, answered.problem) == (500, "internal")
    assert "secret" not in json.dumps(answered.document)


# Sessions


def test_a_session_stands_for_its_token_and_is_recorded(bench: Bench) -> None:
    begun = bench.ask("POST", "session", {}, by="paul")
    assert begun.status == 200
    assert [(record.kind, record.actor, record.details) for record in bench.records] == [
        ("operator.signed-in", identity("paul"), {"role": "approver"})
    ]
    answered = bench.ask("GET", "whoami", bearer=begun.document["token"])
    assert answered.document == {"identity": identity("paul"), "role": "approver", "operator": "paul"}


def test_a_session_begins_no_other(bench: Bench) -> None:
    begun = bench.ask("POST", "session", {}, by="paul")
    assert bench.ask("POST", "session", {}, bearer=begun.document["token"]).status == 401


def test_somebody_who_is_no_operator_begins_none(bench: Bench) -> None:
    assert bench.ask("POST", "session", {}, by="mallory").status == 403
    assert bench.kinds == ["operator.refused"]


def test_a_session_ends_when_it_is_told_to(bench: Bench) -> None:
    token = bench.ask("POST", "session", {}, by="paul").document["token"]
    assert bench.ask("DELETE", "session", bearer=token).document == {"ended": True}
    assert bench.ask("GET", "whoami", bearer=token).status == 401
    assert bench.kinds == ["operator.signed-in", "operator.signed-out"]


def test_a_session_that_cannot_be_recorded_is_not_given(bench: Bench) -> None:
    from palladion.errors import StorageError

    bench.journal.error = StorageError("the disk is full")
    answered = bench.ask("POST", "session", {}, by="paul")
    assert (answered.status, answered.problem) == (503, "unrecorded")
    assert "token" not in answered.document


def test_without_a_provider_there_is_nothing_to_sign_in_by(house: House, tmp_path: Path) -> None:
    bench = Bench(house, tmp_path, issuer="", client_id="")
    assert bench.ask("GET", "sign-in").status == 404
    bench.close()


def test_strangers_write_to_the_ledger_once_an_hour_each(bench: Bench) -> None:
    for _ in range(10):
        assert bench.ask("GET", "status", by="mallory").status == 403
        assert bench.ask("POST", "session", {}, by="mallory").status == 403
    bench.ask("GET", "status", by="trudy")
    assert [record.actor for record in bench.records] == [identity("mallory"), identity("trudy")]
    bench.seconds += 3600
    assert bench.ask("GET", "status", by="mallory").status == 403
    assert bench.records[-1].details == {"what": "GET status", "why": "not-for-this-role", "count": 20}
