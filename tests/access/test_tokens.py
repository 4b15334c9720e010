"""Tokens: the traps of RFC 7519 and RFC 8725 by name, and that a verified one is remembered and forgotten."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.access.jwks import VerificationKey, parse_jwks
from palladion.access.tokens import (
    CLIENT_CHARACTERS_MAX,
    TOKEN_BYTES_MAX,
    RefusedTokenError,
    Token,
    Tokens,
    read_token,
    verify_token,
)
from palladion.policy import IssuerPolicy

from .issuing import AUDIENCE, CLAIMS, CLIENT, NOW, POLICY, URL, forged, jwk, jwks, part, signed_by_public_key, token

ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA")


def _keys(*keys: dict[str, Any]) -> tuple[VerificationKey, ...]:
    return parse_jwks(jwks(*keys), algorithms=POLICY.algorithms)


def _verify(text: bytes, *, keys: tuple[VerificationKey, ...] | None = None, now: float = NOW, **policy: Any) -> Token:
    changed: IssuerPolicy = msgspec.structs.replace(POLICY, **policy)
    return verify_token(read_token(text), changed, _keys() if keys is None else keys, now)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_of_every_algorithm_names_its_client(algorithm: str) -> None:
    # RS256 keys also check PS256: the kind of key is the same, so the set says which
    found = _verify(token(algorithm), keys=_keys(jwk(algorithm)))
    assert found == Token(URL, CLIENT, None, CLAIMS["exp"] + POLICY.skew_seconds)
    assert found.identity == f"{URL} {CLIENT}"


@pytest.mark.parametrize("kind", [None, "JWT", "jwt", "at+jwt", "application/at+jwt", "AT+JWT"])
def test_the_kinds_of_access_tokens_are_taken(kind: str | None) -> None:
    assert _verify(token(header={"typ": kind})).client == CLIENT


def test_a_key_without_id_counts_where_it_is_the_only_one() -> None:
    alone = _keys(jwk(kid=None))
    assert _verify(token(header={"kid": None}), keys=alone).client == CLIENT


@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["https://other.example", AUDIENCE]])
def test_one_of_the_audiences_has_to_be_this_gate(audience: object) -> None:
    assert _verify(token(claims={"aud": audience})).client == CLIENT


def test_the_user_is_the_one_of_the_claim_in_one_spelling() -> None:
    assert _verify(token(claims={"user": "Zoe\u0308"})).user == "Zo\u00eb"
    assert _verify(token(claims={"user": "ada"}), user_claim="").user is None


def test_another_claim_can_name_the_client() -> None:
    assert _verify(token(claims={"azp": "web"}), client_claim="azp").client == "web"


def test_a_token_can_be_bound_to_a_certificate() -> None:
    digest = bytes(range(32))
    found = _verify(token(claims={"cnf": {"x5t#S256": part(digest).decode()}}))
    assert found.bound_to == digest.hex()


HEADERS: list[Any] = [
    pytest.param(lambda: forged({"alg": "none"}), id="RFC 8725 2.1: alg none without signature"),
    pytest.param(lambda: forged({"alg": "none"}, b"x"), id="RFC 8725 2.1: alg none with one"),
    pytest.param(lambda: forged({"alg": "None"}, b"x"), id="RFC 8725 2.1: none in other letters"),
    pytest.param(signed_by_public_key, id="RFC 8725 2.1: HMAC with the public key"),
    pytest.param(lambda: signed_by_public_key("ES256"), id="RFC 8725 2.1: HMAC with a curve's public key"),
    pytest.param(lambda: token(header={"alg": "ES512"}), id="RFC 8725 3.1: another algorithm than the key's"),
    pytest.param(lambda: token(header={"alg": ["ES256"]}), id="an algorithm that is a list"),
    pytest.param(lambda: token(header={"alg": None}), id="no algorithm"),
    pytest.param(lambda: token(header={"jku": "https://evil.example/jwks"}), id="RFC 8725 3.10: jku"),
    pytest.param(lambda: token(header={"x5u": "https://evil.example/x"}), id="RFC 8725 3.10: x5u"),
    pytest.param(lambda: token("ES256", 1, header={"jwk": jwk(number=1)}), id="RFC 7515 4.1.3: its own key"),
    pytest.param(lambda: token(header={"x5c": ["MII"]}), id="RFC 7515 4.1.6: its own certificate"),
    pytest.param(lambda: token(header={"crit": ["exp"]}), id="RFC 7515 4.1.11: crit"),
    pytest.param(lambda: token(header={"b64": False}), id="RFC 7797: b64"),
    pytest.param(lambda: token(header={"zip": "DEF"}), id="RFC 8725 3.6: compression"),
    pytest.param(lambda: token(header={"cty": "JWT"}), id="RFC 8725 3.3: a nested token"),
    pytest.param(lambda: token(header={"typ": "dpop+jwt"}), id="RFC 8725 3.11: a proof of possession"),
    pytest.param(lambda: token(header={"typ": "secevent+jwt"}), id="RFC 8725 3.11: a security event"),
    pytest.param(lambda: token(header={"typ": 1}), id="a kind that is a number"),
    pytest.param(lambda: token(header={"kid": "other"}), id="an unknown key"),
    pytest.param(lambda: token(header={"kid": "../../dev/null"}), id="RFC 8725 3.10: a path as key id"),
    pytest.param(lambda: token(header={"kid": "' OR '1'='1"}), id="RFC 8725 3.10: SQL as key id"),
    pytest.param(lambda: token(header={"kid": 7}), id="a key id that is a number"),
    pytest.param(lambda: token(header={"kid": "k" * 300}), id="a long key id"),
    pytest.param(lambda: token("ES256", 1, header={"kid": "ES256-0"}), id="signed by another key"),
    pytest.param(lambda: token(header=b'{"alg":"ES256","kid":"ES256-0","alg":"none"}'), id="a header twice"),
    pytest.param(lambda: token(header=b"[]"), id="a header that is a list"),
    pytest.param(lambda: token(header=b"{"), id="a header that is no JSON"),
    pytest.param(lambda: token(header=b'{"alg":"ES256","kid":"\xff"}'), id="a header that is no UTF-8"),
]


@pytest.mark.parametrize("make", HEADERS)
def test_a_header_that_changes_the_rules_is_refused(make: Callable[[], bytes]) -> None:
    with pytest.raises(RefusedTokenError):
        _verify(make(), keys=_keys(jwk(), jwk("RS256")))


TIME = int(NOW)
AGE, SKEW = POLICY.age_seconds_max, POLICY.skew_seconds


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"iss": "https://login.example.com/acme/"}, "issuer", id="RFC 8725 3.8: nearly this issuer"),
        pytest.param({"iss": "https://LOGIN.example.com/acme"}, "issuer", id="RFC 8725 3.8: in other letters"),
        pytest.param({"iss": [URL]}, "issuer", id="an issuer that is a list"),
        pytest.param({"iss": None}, "issuer", id="no issuer"),
        pytest.param({"aud": "https://other.example"}, "audience", id="RFC 8725 3.9: for somebody else"),
        pytest.param({"aud": f"{AUDIENCE}/"}, "audience", id="RFC 8725 3.9: nearly for us"),
        pytest.param({"aud": None}, "audience", id="RFC 8725 3.9: for everybody"),
        pytest.param({"aud": {AUDIENCE: 1}}, "audience", id="an audience that is an object"),
        pytest.param({"aud": [AUDIENCE] * 65}, "audience", id="audiences without end"),
        pytest.param({"exp": TIME - SKEW}, "time", id="RFC 7519 4.1.4: over"),
        pytest.param({"exp": None}, "time", id="without end"),
        pytest.param({"exp": "2099"}, "time", id="an end that is a text"),
        pytest.param({"exp": True}, "time", id="an end that is true"),
        pytest.param({"exp": 1e300}, "time", id="an end beyond all time"),
        pytest.param({"exp": -1}, "time", id="an end before all time"),
        pytest.param({"nbf": TIME + SKEW + 1}, "time", id="RFC 7519 4.1.5: not yet"),
        pytest.param({"nbf": "0"}, "time", id="a beginning that is a text"),
        pytest.param({"iat": TIME + SKEW + 1}, "time", id="RFC 7519 4.1.6: issued in the future"),
        pytest.param({"iat": TIME - AGE - SKEW}, "time", id="issued too long ago"),
        pytest.param({"iat": None}, "time", id="without an issue"),
        pytest.param({"sub": None}, "claims", id="nobody"),
        pytest.param({"sub": ""}, "claims", id="an empty name"),
        pytest.param({"sub": 7}, "claims", id="a name that is a number"),
        pytest.param({"sub": [CLIENT]}, "claims", id="a list of names"),
        pytest.param({"sub": "s" * (CLIENT_CHARACTERS_MAX + 1)}, "claims", id="a long name"),
        pytest.param({"sub": "svc\nscoring"}, "claims", id="a line break in a name"),
        pytest.param({"user": "ad\u200ba"}, "claims", id="a user whom nobody sees whole"),
        pytest.param({"user": 7}, "claims", id="a user that is a number"),
        pytest.param({"cnf": {"jkt": "x"}}, "claims", id="RFC 9449: bound to a key that we do not see"),
        pytest.param({"cnf": {"x5t#S256": "AAAA"}}, "claims", id="RFC 8705: bound to half a certificate"),
        pytest.param({"cnf": {"x5t#S256": "ä" * 43}}, "claims", id="RFC 8705: bound to no digest"),
        pytest.param({"cnf": {"x5t#S256": part(bytes(32)).decode(), "jkt": "x"}}, "claims", id="bound to two things"),
        pytest.param({"cnf": []}, "claims", id="bound to a list"),
    ],
)
def test_a_claim_that_does_not_hold_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(RefusedTokenError) as caught:
        _verify(token(claims=changes))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param(json.dumps(dict(CLAIMS)).encode()[:-1] + b',"sub":"admin"}', id="RFC 7519 4: a claim twice"),
        pytest.param(json.dumps(dict(CLAIMS)).encode()[:-1] + b',"x":{"a":1,"a":2}}', id="twice, deep inside"),
        pytest.param(b'{"exp":NaN}', id="NaN"),
        pytest.param(b'{"exp":Infinity}', id="Infinity"),
        pytest.param(b"[" * 4000, id="RFC 8259 9: deep nesting"),
        pytest.param(b'{"exp":' + b"9" * 5000 + b"}", id="a number without end"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param(b'"text"', id="a text"),
    ],
)
def test_claims_that_two_readers_read_differently_are_refused(claims: bytes) -> None:
    with pytest.raises(RefusedTokenError) as caught:
        _verify(token(claims=claims))
    assert caught.value.reason == "malformed"


def test_the_kind_can_be_pinned() -> None:
    assert _verify(token(header={"typ": "at+jwt"}), type="at+jwt").client == CLIENT
    for kind in (None, "JWT"):
        with pytest.raises(RefusedTokenError):
            _verify(token(header={"typ": kind}), type="at+jwt")


def test_an_algorithm_that_the_policy_leaves_out_is_refused_though_there_is_a_key() -> None:
    with pytest.raises(RefusedTokenError):
        _verify(token(), algorithms=("RS256",))


def test_without_an_id_no_key_is_tried_where_there_are_two() -> None:
    with pytest.raises(RefusedTokenError):
        _verify(token(header={"kid": None}), keys=_keys(jwk(), jwk(number=1)))


@pytest.mark.parametrize("place", range(3))
def test_a_changed_part_is_noticed(place: int) -> None:
    parts = token().split(b".")
    changed = bytearray(parts[place])
    changed[5] ^= 1
    parts[place] = bytes(changed)
    with pytest.raises(RefusedTokenError):
        _verify(b".".join(parts))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text + b"=", id="padding"),
        pytest.param(lambda text: text[:-1], id="cut"),
        pytest.param(lambda text: text + b".", id="a fourth part"),
        pytest.param(lambda text: text + b".a.b", id="RFC 7516: five parts"),
        pytest.param(lambda text: b" " + text, id="a blank"),
        pytest.param(lambda text: text + b"\n", id="a line break"),
        pytest.param(lambda text: text.replace(b".", b"..", 1), id="an empty part"),
        pytest.param(lambda text: text.rpartition(b".")[0] + b".", id="no signature"),
        pytest.param(
            lambda text: text.replace(b"_", b"/").replace(b"-", b"+") + b"+", id="base64 in place of base64url"
        ),
        pytest.param(lambda _: b"a" * (TOKEN_BYTES_MAX + 1), id="too long"),
        pytest.param(lambda _: b"..", id="dots"),
        pytest.param(lambda _: b"\xff.\xff.\xff", id="not ASCII"),
    ],
)
def test_another_spelling_of_a_token_is_none(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(RefusedTokenError):
        _verify(change(token()))


def test_bits_that_nobody_reads_have_to_be_zero() -> None:
    text = part(b"{}")  # e30: the last letter has two bits that carry nothing
    assert text == b"e30"
    with pytest.raises(RefusedTokenError, match="canonical"):
        read_token(b"e31.e30.AA")


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    with pytest.raises(RefusedTokenError):
        read_token(data.replace(b".", b"_"))


def test_nothing_of_a_token_is_repeated() -> None:
    text = token(claims={"aud": "https://other.example"})
    with pytest.raises(RefusedTokenError) as caught:
        _verify(text)
    assert CLIENT not in str(caught.value) + repr(read_token(text).signature is None)
    assert text[:20].decode() not in str(caught.value)


def _tokens(**changes: Any) -> Tokens:
    tokens = Tokens([POLICY], **changes)
    tokens.replace_keys(URL, _keys())
    return tokens


def test_a_token_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, text = _tokens(), token()
    first = tokens.verify(text, NOW)
    monkeypatch.setattr("palladion.access.tokens.verify_token", None)
    assert tokens.verify(text, NOW + 600) is first


def test_a_remembered_token_ends_when_it_says() -> None:
    tokens, text = _tokens(), token()
    end = CLAIMS["exp"] + POLICY.skew_seconds
    assert tokens.verify(text, NOW).expires == end
    assert tokens.verify(text, end - 0.001).client == CLIENT
    with pytest.raises(RefusedTokenError):
        tokens.verify(text, end)


def test_new_keys_make_every_token_prove_itself_again() -> None:
    tokens, text = _tokens(), token()
    tokens.verify(text, NOW)
    tokens.replace_keys(URL, _keys(jwk(number=1)))
    with pytest.raises(RefusedTokenError):
        tokens.verify(text, NOW)
    assert tokens.verify(token(number=1), NOW).client == CLIENT


def test_an_unknown_key_is_asked_for_and_a_wrong_signature_is_not() -> None:
    tokens = _tokens()
    for text in (forged({"alg": "ES256"}, bytes(64)), token(claims={"aud": "x"}), b"garbage"):
        with pytest.raises(RefusedTokenError):
            tokens.verify(text, NOW)
    assert tokens.wanted == set()
    with pytest.raises(RefusedTokenError):
        tokens.verify(token(header={"kid": "new"}), NOW)
    assert tokens.wanted == {URL}
    assert tokens.refused == {"signature": 1, "audience": 1, "malformed": 1, "key": 1}
    tokens.replace_keys(URL, _keys())
    assert tokens.wanted == set()


def test_an_issuer_that_nobody_named_is_asked_for_nothing() -> None:
    tokens = _tokens()
    with pytest.raises(RefusedTokenError):
        tokens.verify(token(claims={"iss": "https://evil.example"}), NOW)
    assert tokens.wanted == set()


def test_one_issuer_cannot_speak_for_another() -> None:
    other = msgspec.structs.replace(POLICY, url="https://other.example")
    tokens = Tokens([POLICY, other])
    tokens.replace_keys(URL, _keys())
    tokens.replace_keys(other.url, _keys(jwk(number=1)))
    with pytest.raises(RefusedTokenError):
        tokens.verify(token(claims={"iss": other.url}), NOW)


def test_so_many_are_remembered_and_the_one_not_used_for_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = _tokens(tokens_max=2)
    first, second, third = (token(claims={"jti": str(number)}) for number in range(3))
    for text in (first, second, first, third):
        tokens.verify(text, NOW)
    monkeypatch.setattr("palladion.access.tokens.verify_token", lambda *_: pytest.fail("it was forgotten"))
    tokens.verify(first, NOW)
    tokens.verify(third, NOW)
    with pytest.raises(pytest.fail.Exception):
        tokens.verify(second, NOW)


def test_strangers_push_nobody_out() -> None:
    tokens = _tokens(tokens_max=1)
    text = token()
    first = tokens.verify(text, NOW)
    for number in range(50):
        with pytest.raises(RefusedTokenError):
            tokens.verify(token(claims={"jti": str(number), "aud": "x"}), NOW)
    assert tokens.verify(text, NOW) is first
