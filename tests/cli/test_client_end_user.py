"""`palladion client end-user`: who asked through a reseller is listed, found by name, and forgotten."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path

import pytest

from palladion.access.users import end_user_id
from palladion.cli.main import main
from palladion.clock import SystemClock
from palladion.lifecycle.installation import Installation
from palladion.registry import Client
from tests.cli.session import chdir


def _run(*arguments: str) -> tuple[int, str]:
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        code = main(list(arguments))
    return code, output.getvalue()


@pytest.fixture
def home(folder: Path) -> Path:
    """An installation whose client acme/web asked for ann, bob and carol, in this order."""
    with chdir(folder):
        _run("init", "--passphrase-file", "pass")
        _run("client", "add", "web", "--organisation", "acme", "--reseller")
    installation = Installation.find(folder, SystemClock(), exact=True)
    key = installation.open_gate_root().derive("pseudonyms")
    with installation.open_registry() as registry, registry.write() as records:
        web = records.clients.named("acme", "web")
        users = []
        for number, name in enumerate(("ann", "bob", "carol")):
            user, at = end_user_id(key, web.secret, web.id, name), web.created + timedelta(seconds=number)
            users.append(Client(user, "acme", f"web~{user}", (), "trusted", at, None, parent=web.id))
        records.end_users.enrol(users, most=9)
        records.gate_states.save("suspicion", {user.id: b"state" for user in users})
    return folder


def _end_user(home: Path, *arguments: str) -> tuple[int, str]:
    with chdir(home):
        return _run("client", "end-user", *arguments, "--organisation", "acme")


def test_whoever_came_last_is_listed_first(home: Path) -> None:
    code, output = _end_user(home, "list", "web", "--limit", "2")
    assert code == 0
    assert output.splitlines()[0].split() == ["end", "user", "standing", "first", "asked"]
    assert output.splitlines()[-1] == "1 more, who came earlier"
    _, text = _end_user(home, "list", "web", "--json")
    document = json.loads(text)
    assert (document["reseller"], document["total"], len(document["end_users"])) == ("acme/web", 3, 3)
    _, found = _end_user(home, "find", "web", "carol", "--json")
    assert json.loads(found)["client"] == document["end_users"][0]["client"]


def test_what_an_end_user_is_called_works_with_commands_about_clients(home: Path) -> None:
    _, output = _end_user(home, "find", "web", "Ann", "--json")
    called = json.loads(output)["client"].partition("/")[2]
    with chdir(home):
        code, said = _run("client", "standing", called, "suspended", "--reason", "odd", "--organisation", "acme")
        assert (code, said.startswith(f"acme/{called} is suspended now")) == (0, True)
        _, shown = _run("client", "show", called, "--organisation", "acme", "--json")
        refused = _run("client", "revoke", called, "--organisation", "acme")
    document = json.loads(shown)
    assert document["end_user_of"] == "acme/web"
    assert [item["standing"] for item in document["history"]] == ["trusted", "suspended"]
    assert refused[0] == 2
    assert "no access of its own" in refused[1]
    assert _end_user(home, "find", "web", "ann")[1].splitlines()[0] == f"acme/{called}: suspended"


def test_clients_are_listed_without_their_end_users(home: Path) -> None:
    with chdir(home):
        _, output = _run("client", "list", "--json")
    assert [item["client"] for item in json.loads(output)["clients"]] == ["acme/web"]


def test_an_end_user_is_forgotten(home: Path) -> None:
    code, output = _end_user(home, "forget", "web", "ann")
    assert code == 0
    assert "states  1" in output
    assert "can hold its state in memory" in output
    assert _end_user(home, "find", "web", "ann")[0] == 2
    code, output = _end_user(home, "forget", "web", "bob", "--json")
    document = json.loads(output)
    assert (document["states"], document["listed"]) == (1, False)
