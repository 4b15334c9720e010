"""What a strange gate may ask for when somebody signs in there, and that it cannot change its mind unseen."""

from pathlib import Path
from typing import Any

import pytest

from palladion.errors import FormatError, KeysError
from palladion.gate.administration.terms import KnownGates, Terms, parse_terms, shown

GATE = "https://gate.example.com:8711"
SAID: dict[str, Any] = {"issuer": "https://login.example.com", "client_id": "palladion"}


def test_what_a_gate_says_is_read() -> None:
    assert parse_terms(SAID, GATE) == Terms("https://login.example.com", "palladion")
    access = {**SAID, "token": "access_token", "audience": "https://gate"}
    assert parse_terms(access, GATE).audience == "https://gate"
    assert parse_terms({**SAID, "scope": "openid profile email groups offline_access"}, GATE)
    assert parse_terms({**SAID, "issuer": "http://127.0.0.1:9"}, "http://127.0.0.1:8711")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"scope": "openid payments"}, "more than who you are: payments"),
        ({"scope": "profile"}, "does not say how to sign in"),
        ({"token": "refresh_token"}, "does not say how to sign in"),
        ({"token": "access_token"}, "an access token for an audience"),
        ({"audience": "https://bank"}, "an access token for an audience"),
        ({"client_id": "a\x1b[2J"}, "cannot be shown"),
        ({"client_id": "a" * 501}, "does not say how to sign in"),
        ({"issuer": 7}, "does not say how to sign in"),
        ({"issuer": "http://127.0.0.1:631"}, "a provider on this machine"),
    ],
)
def test_what_no_gate_needs_is_refused(said: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_terms({**SAID, **said}, GATE)


def test_a_scope_that_was_named_on_the_command_line_is_allowed() -> None:
    said = {**SAID, "scope": "openid payments admin"}
    assert parse_terms(said, GATE, scopes=("payments", "admin"))
    with pytest.raises(FormatError, match="who you are: admin"):
        parse_terms(said, GATE, scopes=("payments",))


def test_everything_that_counts_is_shown() -> None:
    terms = Terms("https://login.example.com", "palladion", "openid groups", "access_token", "https://gate")
    text = str(shown(terms, GATE))
    for word in (GATE, terms.issuer, terms.client_id, terms.scope, terms.audience):
        assert word in text


@pytest.mark.parametrize(
    "change",
    [{"issuer": "https://evil.example"}, {"client_id": "bank"}, {"scope": "openid groups"}, {"audience": "https://a"}],
)
def test_a_gate_that_changes_its_terms_is_refused_until_that_is_allowed(tmp_path: Path, change: dict[str, Any]) -> None:
    gates = KnownGates(tmp_path / "gates")
    before, after = Terms(**SAID), Terms(**{**SAID, **change})
    assert not gates.knows(GATE, before)
    gates.save(GATE, before)
    assert gates.knows(GATE, before)
    assert not gates.knows("https://other.example", after)
    with pytest.raises(KeysError, match="names other terms") as caught:
        gates.knows(GATE, after)
    assert str(next(iter(change.values()))) in caught.value.message
    assert not gates.knows(GATE, after, changed=True)
    gates.save(GATE, after)
    assert gates.knows(GATE, after)


def test_what_was_remembered_and_cannot_be_read_is_not_forgotten(tmp_path: Path) -> None:
    gates = KnownGates(tmp_path)
    gates.save(GATE, Terms(**SAID))
    next(tmp_path.iterdir()).write_text("{}")
    with pytest.raises(KeysError, match="holds no terms"):
        gates.knows(GATE, Terms(**SAID))


def test_terms_lie_with_the_users_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    KnownGates.of_user().save(GATE, Terms(**SAID))
    assert (tmp_path / "palladion" / "gates").is_dir()
