"""What an operator sees before he agrees to something: a whole change, or where a gate sends him to sign in."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from palladion.cli import operator_remote as module
from palladion.cli.main import main
from palladion.errors import NotFoundError

CLIENTS = [f"acme/app-{number}" for number in range(30)]
CAMPAIGN = {"kind": "standing", "clients": CLIENTS, "standing": "suspended"}
PUPPET = {"kind": "operator", "name": "alice", "role": "admin", "identity": "user:mallory2"}
TERMS = {"issuer": "https://login.example.com", "client_id": "palladion", "scope": "openid", "token": "id_token"}
GATE = "https://gate.example.com:8711"


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


class Gate:
    """What a gate says, and what it was asked for."""

    url = GATE
    local = False

    def __init__(self, change: dict[str, Any], concerns: str | None = None) -> None:
        row = {"id": "ff", "change": change, "by": "user:eve", "until": "2026-08-01T00:00:00Z", "verdict": None}
        self.rows = [{**row, "reason": "see\x1b[2J", "concerns": concerns}]
        self.terms: dict[str, Any] = dict(TERMS)
        self.posted: list[str] = []

    def get(self, path: str, **_: str) -> dict[str, Any]:
        return self.terms if path == "sign-in" else {"proposals": self.rows}

    def post(self, path: str, document: Any) -> dict[str, Any]:
        self.posted.append(path)
        if path == "session":
            return {"token": "pallop_x", "expires": 2**31, "identity": "oidc:a#b", "role": "viewer"}
        return {**self.rows[0], "verdict": "approved", "receipt": "r"}


def _run(gate: Gate, monkeypatch: pytest.MonkeyPatch, *arguments: str, typed: str | None = None) -> int:
    monkeypatch.setattr(module, "at", lambda _: gate)
    monkeypatch.setattr("palladion.gate.administration.remote.Remote", lambda *_: gate)
    monkeypatch.setattr(sys, "stdin", io.StringIO() if typed is None else Terminal(typed))
    return main(["operator", *arguments])


def _decide(gate: Gate, monkeypatch: pytest.MonkeyPatch, *more: str, typed: str | None = None) -> int:
    return _run(gate, monkeypatch, "decide", "ff", "approve", *more, "--at", GATE, typed=typed)


def test_whoever_agrees_sees_the_identity_and_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = Gate(PUPPET)
    assert _decide(gate, monkeypatch, typed="n\n") == 2
    assert gate.posted == []
    said = capsys.readouterr()
    assert "add operator alice (user:mallory2) as admin" in said.err
    assert "proposed by user:eve" in said.err
    assert "\x1b" not in said.err + said.out
    assert _decide(gate, monkeypatch, typed="y\n") == 0
    assert gate.posted == ["proposals/ff"]


def test_without_a_terminal_nobody_agrees_unless_he_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(PUPPET)
    assert _decide(gate, monkeypatch) == 2
    assert gate.posted == []
    assert _decide(gate, monkeypatch, "--yes") == 0
    assert _decide(gate, monkeypatch, "--json") == 0
    assert len(gate.posted) == 2


def test_a_rejection_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(PUPPET)
    assert _run(gate, monkeypatch, "decide", "ff", "reject", "--at", GATE) == 0


def test_all_clients_of_a_campaign_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _decide(Gate(CAMPAIGN), monkeypatch, typed="n\n") == 2
    said = capsys.readouterr().err
    assert "30 clients suspended" in said
    assert [line.strip() for line in said.splitlines() if line.startswith("  acme")] == CLIENTS


def test_what_does_not_wait_is_not_agreed_to(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(PUPPET)
    gate.rows[0]["id"] = "ee"
    assert _decide(gate, monkeypatch, typed="y\n") == 2
    assert gate.posted == []
    with pytest.raises(NotFoundError, match="no proposal 'ff' waits"):
        module._show(gate.rows, "ff")


@pytest.mark.parametrize(
    ("change", "concerns", "said"),
    [
        (PUPPET, None, "add operator alice (user:mallory2) as admin"),
        ({"kind": "operator", "name": "bob", "role": "admin"}, "user:bob", "change operator bob (user:bob) to admin"),
        ({"kind": "operator", "name": "bob"}, "user:bob", "revoke operator bob (user:bob)"),
        ({"kind": "operator", "name": "bob"}, None, "revoke operator bob"),
        ({"kind": "client", "client": "acme"}, None, "revoke acme"),
        ({"kind": "standing", "clients": ["a", "b", "c", "d"], "standing": "watched"}, None, "a, b, c, d watched"),
        (CAMPAIGN, None, f"{', '.join(CLIENTS[:20])} and 10 more suspended"),
    ],
)
def test_a_change_is_said_with_whom_it_concerns(change: dict[str, Any], concerns: str | None, said: str) -> None:
    assert module._said(change, concerns) == said


@pytest.fixture
def sign_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The providers that were asked."""
    asked: list[str] = []
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    place = "palladion.gate.administration.sign_in"
    monkeypatch.setattr(f"{place}.discover", asked.append)
    monkeypatch.setattr(f"{place}.by_browser", lambda *_: "token")
    monkeypatch.setattr(f"{place}.by_device", lambda _, __, tell: tell("https://login.example.com/device", "AB") or "t")
    return asked


def test_where_a_gate_sends_somebody_is_shown_and_asked_before_anybody_is(
    sign_in: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = Gate(PUPPET)
    assert _run(gate, monkeypatch, "sign-in", GATE, typed="n\n") == 2
    assert (sign_in, gate.posted) == ([], [])
    said = capsys.readouterr().err
    for word in (GATE, "https://login.example.com", "palladion", "openid"):
        assert word in said
    assert _run(gate, monkeypatch, "sign-in", GATE, typed="y\n") == 0
    # known by now, so that nobody learns to say yes without looking
    assert _run(gate, monkeypatch, "sign-in", GATE) == 0
    assert len(sign_in) == 2


def test_a_gate_that_names_another_provider_is_refused_unless_that_is_expected(
    sign_in: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = Gate(PUPPET)
    assert _run(gate, monkeypatch, "sign-in", GATE, "--yes") == 0
    gate.terms["issuer"] = "https://evil.example"
    assert _run(gate, monkeypatch, "sign-in", GATE, "--yes") == 2
    assert "names other terms" in capsys.readouterr().err
    assert _run(gate, monkeypatch, "sign-in", GATE, "--changed", typed="n\n") == 2
    assert sign_in == ["https://login.example.com"]
    assert _run(gate, monkeypatch, "sign-in", GATE, "--changed", "--yes") == 0
    assert _run(gate, monkeypatch, "sign-in", GATE) == 0


def test_a_scope_of_more_than_who_one_is_has_to_be_named(
    sign_in: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = Gate(PUPPET)
    gate.terms["scope"] = "openid payments"
    assert _run(gate, monkeypatch, "sign-in", GATE, "--yes") == 1
    assert "hint: if your gate needs that: --scope payments" in capsys.readouterr().err
    assert sign_in == []
    assert _run(gate, monkeypatch, "sign-in", GATE, "--yes", "--scope", "payments") == 0


def test_a_code_is_shown_with_the_gate_and_a_warning(
    sign_in: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(Gate(PUPPET), monkeypatch, "sign-in", GATE, "--device", "--yes", "--json") == 0
    said = capsys.readouterr()
    assert f"to sign in at {GATE}, and only if you began this yourself: open https://login" in said.err
    assert json.loads(said.out)["gate"] == GATE
