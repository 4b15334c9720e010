"""`palladion incident suspend … --at URL`: which change is asked of a gate for which clients of a case."""

import json
import sys
from typing import Any
from urllib.parse import unquote

import pytest

from palladion.cli import incident_remote as module
from palladion.cli.main import main
from palladion.errors import KeysError, NotFoundError
from palladion.incident.response import STANDINGS as RESPONSES

GATE = "https://gate.example.com:8711"
CASE: dict[str, Any] = {"id": "3f2a", "state": "open", "clients": ["acme/web", "acme/app", "globex/globex"]}


class Gate:
    """Says what a case is about and how each stands, and keeps what it was asked for."""

    def __init__(self, standings: dict[str, str], **case: Any) -> None:
        self.standings = standings
        self.case: dict[str, Any] = {**CASE, **case}
        self.posted: list[tuple[str, Any]] = []
        self.notes = True

    def get(self, path: str, **_: str) -> dict[str, Any]:
        kind, _slash, name = unquote(path).partition("/")
        if kind == "incidents":
            if name != self.case["id"]:
                raise NotFoundError("no incident with that id")
            return self.case
        return {"client": name, "standing": self.standings[name]}

    def post(self, path: str, document: Any) -> dict[str, Any]:
        if path.startswith("incidents") and not self.notes:
            raise KeysError("incident.act is not for that role")
        self.posted.append((path, document))
        return {"id": "ff", "until": "2026-08-01T00:00:00Z"} if path == "proposals" else {"receipt": "log/9"}


def _run(gate: Gate, monkeypatch: pytest.MonkeyPatch, change: str, *arguments: str) -> int:
    monkeypatch.setattr(module, "at", lambda _: gate)
    return main(["incident", change, "3f2a", "--reason", "one hand", "--at", GATE, *arguments])


def test_what_a_case_is_about_is_proposed_for_those_whom_it_lowers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = Gate({"acme/web": "trusted", "acme/app": "suspended", "globex/globex": "degraded"})
    assert _run(gate, monkeypatch, "degrade", "--all", "--json") == 0
    asked = {"kind": "standing", "clients": ["acme/web"], "standing": "degraded"}
    assert gate.posted == [
        ("proposals", {"change": asked, "reason": "incident 3f2a: one hand"}),
        ("incidents/3f2a", {"action": "act", "text": "proposed ff, degrade: acme/web: one hand"}),
    ]
    said = json.loads(capsys.readouterr().out)
    assert (said["id"], said["left"]) == ("ff", ["acme/app", "globex/globex"])


def test_with_now_it_is_done_and_restoring_raises_those_who_are_lower(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = Gate({"acme/web": "trusted", "acme/app": "suspended", "globex/globex": "watched"})
    assert _run(gate, monkeypatch, "restore", "--now", "--client", "globex", "--client", "acme/app") == 0
    path, document = gate.posted[0]
    assert (path, document["change"]["clients"]) == ("changes", ["globex/globex", "acme/app"])
    assert document["change"]["standing"] == "trusted"
    assert "done in incident 3f2a (ledger log/9)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "case", "complaint"),
    [
        ((), {}, "several clients: name them with --client, or say --all"),
        (("--client", "acme"), {}, "does not concern acme/acme"),
        (("--all",), {"state": "closed"}, "incident 3f2a is closed"),
        (("--all",), {"clients": []}, "concerns 0 clients"),
        (("--all",), {"clients": [f"a/{number}" for number in range(101)]}, "concerns 101 clients"),
        (("--all",), {"id": "else"}, "no incident with that id"),
        (("--client", "acme/app"), {}, "acme/app is suspended"),
    ],
)
def test_nothing_is_asked_that_the_case_does_not_say(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    case: dict[str, Any],
    complaint: str,
) -> None:
    gate = Gate(dict.fromkeys(CASE["clients"], "trusted") | {"acme/app": "suspended"}, **case)
    assert _run(gate, monkeypatch, "suspend", *arguments) == 2
    assert complaint in capsys.readouterr().err
    assert gate.posted == []


def test_a_role_that_may_not_write_into_cases_is_told_that_it_was_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = Gate(dict.fromkeys(CASE["clients"], "trusted"))
    gate.notes = False
    assert _run(gate, monkeypatch, "suspend", "--all") == 0
    assert "the case itself does not say so" in capsys.readouterr().err
    assert [path for path, _ in gate.posted] == ["proposals"]


def test_now_is_for_gates_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["palladion"])
    assert main(["incident", "suspend", "3f2a", "--reason", "x", "--now"]) == 2
    assert "--now goes with --at" in capsys.readouterr().err


def test_standings_are_those_of_the_command_on_the_machine() -> None:
    assert {str(change): standing for change, standing in RESPONSES.items() if change != "reinstate"} == module.TARGETS
